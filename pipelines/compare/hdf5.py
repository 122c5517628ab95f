"""HDF5: patches in source order in a few files, read in three ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .alternative import FILES, Alternative


class Hdf5(Alternative):
    modules: tuple[str, ...] = ("tensorflow", "h5py")
    install = "pip install 'scenefeed[convert,tensorflow]'"

    def write(self, images: np.ndarray, classes: np.ndarray | None, folder: Path) -> None:
        import h5py

        for i, part in enumerate(np.array_split(np.arange(len(images)), FILES)):
            if len(part):
                with h5py.File(folder / f"{i:02d}.h5", "w") as file:
                    file.create_dataset("image", data=images[part[0] : part[-1] + 1])

    def files(self, folder: Path) -> list[str]:
        return sorted(map(str, folder.glob("*.h5")))

    def signature(self) -> Any:
        import tensorflow as tf

        return tf.TensorSpec(self.sample.shape, self.sample.dtype)


def _patches(path: Any) -> Iterator[np.ndarray]:
    import h5py

    with h5py.File(path, "r") as file:
        yield from file["image"]


class Generator(Hdf5):
    name, title = "hdf5_generator", "HDF5, a Python generator"

    def feed(self, folder: Path) -> Any:
        import tensorflow as tf

        paths = self.files(folder)
        patches = tf.data.Dataset.from_generator(
            lambda: (x for path in paths for x in _patches(path)), output_signature=self.signature()
        )
        return self.buffered(patches)


class Interleave(Hdf5):
    name, title = "hdf5_interleave", "HDF5, tf.data with interleave"

    def feed(self, folder: Path) -> Any:
        import tensorflow as tf

        def opened(path: Any) -> Any:
            return tf.data.Dataset.from_generator(
                _patches, args=(path,), output_signature=self.signature()
            )

        files = tf.data.Dataset.from_tensor_slices(self.files(folder)).shuffle(FILES)
        return self.buffered(
            files.interleave(opened, cycle_length=FILES, num_parallel_calls=tf.data.AUTOTUNE)
        )


class TensorflowIo(Hdf5):
    name, title = "hdf5_tfio", "HDF5, tensorflow-io's from_hdf5"
    modules = ("tensorflow_io", "tensorflow", "h5py")
    install = (
        "its last release works beside TensorFlow 2.16 alone: pip install 'scenefeed[tfio]' in an "
        "environment of its own"
    )

    def feed(self, folder: Path) -> Any:
        import tensorflow as tf
        import tensorflow_io as tfio

        first, *rest = (
            tfio.IODataset.from_hdf5(path, dataset="/image") for path in self.files(folder)
        )
        for one in rest:
            first = first.concatenate(one)
        return self.buffered(first.map(lambda x: tf.ensure_shape(x, self.sample.shape)))

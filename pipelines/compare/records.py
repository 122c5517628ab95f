"""What tf.data keeps: its cache on disk, and TFRecords by the published recipe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .alternative import CHECKPOINT, FILES, Alternative


class Cache(Alternative):
    name, title = "cache", "tf.data cache on disk"
    resume = CHECKPOINT

    def write(self, images: np.ndarray, classes: np.ndarray | None, folder: Path) -> None:
        for _ in self._cached(images, folder):
            pass

    def feed(self, folder: Path) -> Any:
        return self.buffered(self._cached((), folder))  # what is cached is not asked for again

    def _cached(self, images: Iterable[np.ndarray], folder: Path) -> Any:
        import tensorflow as tf

        signature = tf.TensorSpec(self.sample.shape, self.sample.dtype)
        patches = tf.data.Dataset.from_generator(lambda: iter(images), output_signature=signature)
        return patches.cache(str(folder / "cache"))


class Recipe(Alternative):
    """``tf.io.serialize_tensor`` of patches in one global permutation; read by ``parse_tensor``,
    and shuffled once more in a buffer."""

    name, title = "recipe", "TFRecord, the published recipe"
    resume = CHECKPOINT

    def write(self, images: np.ndarray, classes: np.ndarray | None, folder: Path) -> None:
        import tensorflow as tf

        order = np.random.default_rng(0).permutation(len(images))
        for shard, part in enumerate(np.array_split(order, FILES)):
            with tf.io.TFRecordWriter(str(folder / f"{shard:02d}.tfrecord")) as writer:
                for i in part.tolist():
                    writer.write(tf.io.serialize_tensor(images[i]).numpy())

    def feed(self, folder: Path) -> Any:
        import tensorflow as tf

        records = tf.data.TFRecordDataset(sorted(map(str, folder.glob("*.tfrecord"))))
        return self.buffered(records.map(lambda r: tf.io.parse_tensor(r, self.sample.dtype)))

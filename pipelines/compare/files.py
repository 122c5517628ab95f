"""One file a patch, in a folder a class; file names are shuffled, so that the shuffle is global."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .alternative import CHECKPOINT, Alternative


class FilePerPatch(Alternative):
    suffix = ""
    room = 1.5  # and a block a file, which is counted apart

    def write(self, images: np.ndarray, classes: np.ndarray | None, folder: Path) -> None:
        names = ["all"] * len(images) if classes is None else [f"class_{c}" for c in classes]
        for name in set(names):
            (folder / name).mkdir()
        for i, (image, name) in enumerate(zip(images, names, strict=True)):
            self.save(folder / name / f"{i:06d}.{self.suffix}", image)

    def feed(self, folder: Path) -> Any:
        import tensorflow as tf

        paths = sorted(map(str, folder.rglob(f"*.{self.suffix}")))
        names = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
        return self.batched(names.map(self.load, num_parallel_calls=tf.data.AUTOTUNE))

    def save(self, path: Path, image: np.ndarray) -> None:
        raise NotImplementedError

    def load(self, path: Any) -> Any:
        """A tensor of the file's path to one of the patch: by Python, unless TensorFlow can."""
        import tensorflow as tf

        image = tf.numpy_function(self.read, [path], self.sample.dtype)
        return tf.ensure_shape(image, self.sample.shape)

    def read(self, path: bytes) -> np.ndarray:
        raise NotImplementedError


class Npy(FilePerPatch):
    name, title, suffix = "npy", "a .npy file a patch", "npy"

    def save(self, path: Path, image: np.ndarray) -> None:
        np.save(path, image)

    def read(self, path: bytes) -> np.ndarray:
        return np.asarray(np.load(path.decode()))


def _write_raster(path: Path, driver: str, bands: np.ndarray) -> None:
    import rasterio

    count, height, width = bands.shape
    with rasterio.open(path, "w", driver=driver, count=count, height=height, width=width,
                       dtype=bands.dtype) as file:  # fmt: skip
        file.write(bands)


class Tiff(FilePerPatch):
    name, title, suffix = "tiff", "a TIFF a patch", "tif"
    modules = ("tensorflow", "rasterio")

    def save(self, path: Path, image: np.ndarray) -> None:
        _write_raster(path, "GTiff", np.moveaxis(image, -1, 0))

    def read(self, path: bytes) -> np.ndarray:
        import rasterio

        with rasterio.open(path.decode()) as file:
            return np.ascontiguousarray(np.moveaxis(file.read(), 0, -1))


class Png(FilePerPatch):
    """PNG holds unsigned integers of 8 and 16 bits: other values are scaled to 16 bits, band by
    band. More than four bands lie side by side in one grey image."""

    name, title, suffix = "png", "a PNG a patch, in class folders", "png"
    modules = ("tensorflow", "rasterio")
    resume = CHECKPOINT

    @property
    def lossy(self) -> bool:
        return self.sample.dtype not in ("uint8", "uint16")

    def why_not(self) -> str:
        if self.lossy and not self.sample.finite:
            return "PNG holds no NaN"
        return super().why_not()

    def exact(self, batch: np.ndarray) -> np.ndarray:
        """Values as they are rounded."""
        if not self.lossy:
            return batch
        low, step = self._scale()
        rounded: np.ndarray = np.rint((batch.astype(np.float64) - low) / step)
        return rounded.astype(np.uint16)

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array(self.sample.low), np.array(self.sample.high)
        return low, np.where(high > low, (high - low) / 65535, 1)

    def save(self, path: Path, image: np.ndarray) -> None:
        values = self.exact(image)
        if values.shape[-1] > 4:
            values = values.reshape(len(values), -1, 1)
        _write_raster(path, "PNG", np.moveaxis(values, -1, 0))

    def load(self, path: Any) -> Any:
        import tensorflow as tf

        dtype = tf.uint8 if self.sample.dtype == "uint8" else tf.uint16
        values = tf.io.decode_png(tf.io.read_file(path), dtype=dtype)
        values = tf.reshape(values, self.sample.shape)
        if not self.lossy:
            return values
        low, step = self._scale()
        return tf.cast(tf.cast(values, tf.float64) * step + low, self.sample.dtype)

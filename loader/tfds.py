"""TensorFlow Datasets reads a dataset where it lies: how its tensors are decoded, and its name.

    import tensorflow_datasets as tfds

    tfds.builder_from_directory("out").as_dataset("train")

    from scenefeed.loader.tfds import register

    tfds.load(register("out"), split="train")

The first imports this module by itself: the dataset's features.json names the class below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder

from .codec import tensor_header
from .spec import DatasetError
from .storage import is_remote


class SerializedTensor(tfds.features.Tensor):  # type: ignore[misc]
    """A tensor of one shape, stored as the bytes of ``tf.io.serialize_tensor``.

    TFDS's own ``bytes`` encoding is these bytes without their header.
    """

    def __init__(self, *, shape: Any, dtype: Any, encoding: Any = "bytes", **others: Any):
        super().__init__(shape=shape, dtype=dtype, encoding=encoding, **others)
        self._header = tensor_header(self._shape, np.dtype(self._dtype).name)

    def encode_example(self, example_data: Any) -> bytes:
        return bytes(self._header + super().encode_example(example_data))

    def decode_example(self, tfexample_data: Any) -> Any:
        import tensorflow as tf

        return tf.ensure_shape(tf.io.parse_tensor(tfexample_data, self.tf_dtype), self._shape)

    def decode_example_np(self, example_data: bytes) -> np.ndarray:
        return super().decode_example_np(example_data[len(self._header) :])  # type: ignore[no-any-return]


_registered: dict[str, str] = {}  # name to folder, by us


def register(path: str | Path, name: str | None = None) -> str:
    """Makes a dataset known to ``tfds.load`` and ``tfds.builder``, in this process.

    Args:
      path: the dataset's folder or URL.
      name: what to call it; by default its own name, as TFDS spells names.

    Returns:
      The name.

    Raises:
      DatasetError: TFDS cannot read it, or knows another dataset of this name.
    """
    folder = str(path) if is_remote(path) else str(Path(path).absolute())
    try:
        own = ReadOnlyBuilder(builder_dir=folder).name
    except OSError:  # DatasetInfoFileError is one
        raise DatasetError(
            f"{folder}: no dataset_info.json to read, which `scenefeed convert` and `scenefeed shard` "
            "write; not for records.compression: gzip, which TFDS cannot read"
        ) from None
    name = name or own
    if _registered.get(name) == folder:
        return name

    def init(self: Any, *, data_dir: Any = None, config: Any = None, version: Any = None,
             file_format: Any = None) -> None:  # fmt: skip
        """``tfds.load`` gives these; folder, configuration and version are the files'."""
        ReadOnlyBuilder.__init__(self, builder_dir=folder, file_format=file_format)

    try:
        type("Registered", (ReadOnlyBuilder,), {"name": name, "__init__": init})
    except ValueError as e:
        raise DatasetError(f"{folder}: {e} Give register() another name") from None
    _registered[name] = folder
    return name

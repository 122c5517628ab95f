"""What the feeds for TensorFlow share: dtypes, batched operations, decoding of records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .codec import tensor_header
from .spec import DatasetSpec, Feature
from .statistics import Normalization


def tensor_dtype(dtype: str, kind: str) -> tf.DType:
    return tf.string if kind == "text" else tf.as_dtype(dtype)


class TensorOperations:
    """The operations of ``shaping`` by TensorFlow.

    Args:
      transform: of a batch, by the dataset's own graph, where it has one.
    """

    def __init__(self, transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None):
        self._transform = transform

    def oriented(self, x: Any, rows: Any, columns: Any, swap: Any) -> Any:
        # By a table of the eight orientations: one gather of pixels is several times as fast as
        # choosing between the batch and the batch reversed.
        height, width, *rest = x.shape[1:]
        code = sum(tf.cast(bit, tf.int32) * 2**i for i, bit in enumerate((rows, columns, swap)))
        taken = tf.gather(tf.constant(_orientations(height, width)), code)
        pixels = tf.reshape(x, (-1, height * width, *rest))
        return tf.reshape(tf.gather(pixels, taken, batch_dims=1), (-1, height, width, *rest))

    def cropped(self, x: Any, tops: Any, lefts: Any, height: int, width: int) -> Any:
        x = tf.gather(x, tops[:, None] + tf.range(height, dtype=tf.int64), axis=1, batch_dims=1)
        return tf.gather(x, lefts[:, None] + tf.range(width, dtype=tf.int64), axis=2, batch_dims=1)

    def cast(self, x: Any, dtype: str) -> Any:
        return tf.cast(x, dtype)

    def lookup(self, table: np.ndarray, ids: Any) -> Any:
        return tf.gather(tf.constant(table), tf.math.floormod(tf.cast(ids, tf.int64), len(table)))

    def floor(self, x: Any) -> Any:
        return tf.cast(x, tf.int64)

    def normalized(self, x: Any, by: Normalization) -> Any:
        # A record at a time: a loop over two bands has hardly begun when it ends.
        times = int(np.prod(x.shape[1:-1]))
        flat = tf.reshape(tf.cast(x, tf.float32), (-1, times * len(by.scale)))
        if by.low is not None:
            flat = tf.maximum(flat, np.tile(by.low, times))
        if by.high is not None:
            flat = tf.minimum(flat, np.tile(by.high, times))
        found = (flat - np.tile(by.offset, times)) * np.tile(by.factor, times)
        return tf.reshape(found, (-1, *x.shape[1:]))

    def transformed(self, batch: dict[str, Any]) -> dict[str, Any]:
        assert self._transform is not None
        return self._transform(batch)


def _orientations(height: int, width: int) -> np.ndarray:
    """Where each pixel of a patch comes from, int32 (8 or 4, height * width): bit 0 of the row
    reverses the rows, bit 1 the columns, and bit 2, of square patches, exchanges them then."""
    whole = np.arange(height * width, dtype=np.int32).reshape(height, width)
    found = []
    for code in range(8 if height == width else 4):
        one = whole[:: -1 if code & 1 else 1, :: -1 if code & 2 else 1]
        found.append((one.T if code & 4 else one).ravel())
    return np.stack(found)


def sizes(values: Mapping[str, Any]) -> Any:
    """Records and bytes of a decoded batch, int64 (2,); texts count as pointers."""
    rows = tf.shape(next(iter(values.values())), tf.int64)[0]
    each = sum(
        int(np.prod(v.shape[1:])) * (8 if v.dtype == tf.string else v.dtype.size)
        for v in values.values()
    )
    return tf.stack([rows, rows * each])


def decode(records: Any, spec: DatasetSpec, names: Sequence[str]) -> dict[str, Any]:
    """Decodes a batch of serialized records, string (B,), at once."""
    kinds = {"int": tf.int64, "class": tf.int64, "value": tf.float32}
    columns = {
        name: tf.io.FixedLenFeature((), kinds.get(spec.features[name].kind, tf.string))
        for name in names
    }
    parsed: dict[str, Any] = tf.io.parse_example(records, columns)
    for name in names:
        feature = spec.features[name]
        if feature.encoding == "tensor":
            parsed[name] = _pixels(parsed[name], feature)
    return {name: parsed[name] for name in names}


def _pixels(tensors: Any, feature: Feature) -> Any:
    """Arrays (B, ...) from serialized tensors, string (B,)."""
    header = len(tensor_header(feature.shape, feature.dtype))
    pixels = tf.io.decode_raw(tensors, tf.uint8)[:, header:]
    dtype = tensor_dtype(feature.dtype, feature.kind)
    if dtype == tf.bool:
        return tf.cast(tf.reshape(pixels, (-1, *feature.shape)), tf.bool)
    wide = (-1, *feature.shape) if dtype.size == 1 else (-1, *feature.shape, dtype.size)
    return tf.bitcast(tf.reshape(pixels, wide), dtype)

"""What the feeds for TensorFlow share: dtypes, batched operations, decoding of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .codec import tensor_header
from .spec import DatasetSpec, Feature


def tensor_dtype(feature: Feature) -> tf.DType:
    return tf.string if feature.kind == "text" else tf.as_dtype(feature.dtype)


class TensorOperations:
    """The operations of ``shaping`` by TensorFlow."""

    def oriented(self, x: Any, rows: Any, columns: Any, swap: Any) -> Any:
        def where(chosen: Any, a: Any, b: Any) -> Any:
            return tf.where(tf.reshape(chosen, (-1,) + (1,) * (len(x.shape) - 1)), a, b)

        static = x.shape
        x = where(rows, tf.reverse(x, [1]), x)
        x = where(columns, tf.reverse(x, [2]), x)
        if static[1] == static[2]:
            x = where(swap, tf.transpose(x, (0, 2, 1, *range(3, len(static)))), x)
        return tf.ensure_shape(x, static)

    def cropped(self, x: Any, tops: Any, lefts: Any, height: int, width: int) -> Any:
        x = tf.gather(x, tops[:, None] + tf.range(height, dtype=tf.int64), axis=1, batch_dims=1)
        return tf.gather(x, lefts[:, None] + tf.range(width, dtype=tf.int64), axis=2, batch_dims=1)

    def cast(self, x: Any, dtype: str) -> Any:
        return tf.cast(x, dtype)

    def lookup(self, table: np.ndarray, ids: Any) -> Any:
        return tf.gather(tf.constant(table), tf.math.floormod(tf.cast(ids, tf.int64), len(table)))

    def floor(self, x: Any) -> Any:
        return tf.cast(x, tf.int64)

    def affine(self, x: Any, factor: np.ndarray, offset: np.ndarray) -> Any:
        return tf.cast(x, tf.float32) * factor + offset


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
    dtype = tensor_dtype(feature)
    if dtype == tf.bool:
        return tf.cast(tf.reshape(pixels, (-1, *feature.shape)), tf.bool)
    wide = (-1, *feature.shape) if dtype.size == 1 else (-1, *feature.shape, dtype.size)
    return tf.bitcast(tf.reshape(pixels, wide), dtype)

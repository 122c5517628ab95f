"""The tf.data feed: shuffled, batched, decoded, prefetched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .codec import tensor_header
from .reader import Reader, check_features
from .spec import DatasetError, DatasetSpec, Feature

# What a shuffle buffer of serialized records may take when shards must be streamed.
SHUFFLE_BUFFER_BYTES = 256 << 20


def load(
    path: str | Path,
    split: str = "train",
    *,
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    as_supervised: bool = False,
    drop_remainder: bool = False,
    features: Sequence[str] | None = None,
    prefetch: int = 2,
) -> tf.data.Dataset:
    """A feed of a split, ready for ``model.fit``.

    Uncompressed shards are read by index, so that the shuffle is a permutation of the whole
    split without a buffer, another one each epoch. Compressed shards are streamed: the order of
    files and a buffer of at most 256 MiB of records are shuffled.

    Args:
      path: the dataset's folder.
      split: which split.
      batch_size: records a batch; the last one of an epoch may be smaller.
      shuffle: draw a new order each epoch. False gives shard order.
      seed: decides every epoch's order.
      as_supervised: (image, label) pairs instead of dictionaries; with several labels the second
        is a dictionary.
      drop_remainder: leave out an epoch's last batch when it is smaller.
      features: names to decode; all by default (image and labels with ``as_supervised``).
      prefetch: batches made ahead.

    Returns:
      A finite dataset, one epoch a pass, of dictionaries: ``image`` (B, H, W, C), labels,
      ``scene_id`` (B,) string, ``row`` and ``col`` (B,) int64.

    Raises:
      DatasetError: no complete dataset, no such split or feature, an empty split, a damaged
        shard, fewer records than a batch with ``drop_remainder``, or no label with
        ``as_supervised``.
    """
    spec = DatasetSpec.load(path)
    if batch_size < 1:
        raise DatasetError(f"batch_size {batch_size}: must be at least 1")
    if as_supervised and not spec.labels:
        raise DatasetError("as_supervised needs a label, and the dataset has none")
    wanted = ["image", *spec.labels] if as_supervised else check_features(spec, features)
    count = spec.split(split).num_examples
    if drop_remainder and count < batch_size:
        raise DatasetError(f"split {split!r} has {count} records, fewer than a batch of "
                           f"{batch_size}: use a smaller batch_size")  # fmt: skip
    if spec.compression == "none":
        feed = _indexed(Reader(path, split, wanted), batch_size, shuffle, seed, drop_remainder)
    else:
        feed = _streamed(Path(path), spec, split, wanted, batch_size, shuffle, seed, drop_remainder)
    if as_supervised:
        feed = feed.map(lambda x: _pair(x, spec.labels), num_parallel_calls=1)
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    return feed.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(prefetch)


def _indexed(
    reader: Reader, batch_size: int, shuffle: bool, seed: int, drop_remainder: bool
) -> tf.data.Dataset:
    epochs = itertools.count()

    def epoch() -> Iterator[dict[str, np.ndarray]]:
        return reader.batches(
            batch_size, shuffle=shuffle, seed=seed, epoch=next(epochs),
            drop_remainder=drop_remainder,
        )  # fmt: skip

    size = batch_size if drop_remainder else None
    signature = {
        name: tf.TensorSpec((size, *reader.spec.features[name].shape),
                            _tf_dtype(reader.spec.features[name]))
        for name in reader.names
    }  # fmt: skip
    return tf.data.Dataset.from_generator(epoch, output_signature=signature)


def _streamed(
    folder: Path, spec: DatasetSpec, split: str, wanted: list[str], batch_size: int,
    shuffle: bool, seed: int, drop_remainder: bool,
) -> tf.data.Dataset:  # fmt: skip
    shards = [s for s in spec.split(split).shards if s.num_examples]
    for shard in shards:
        if not (folder / shard.path).exists():
            raise DatasetError(f"{folder / shard.path}: the shard is missing: "
                               "run `scenefeed convert` again")  # fmt: skip
    files = tf.data.Dataset.from_tensor_slices([str(folder / s.path) for s in shards])
    compression = spec.compression.upper()
    if not shuffle:
        feed = tf.data.TFRecordDataset(files, compression)
    else:
        feed = files.shuffle(len(shards), seed=seed).interleave(
            lambda f: tf.data.TFRecordDataset(f, compression),
            cycle_length=4, num_parallel_calls=2, deterministic=True,
        )  # fmt: skip
        feed = feed.shuffle(max(1, SHUFFLE_BUFFER_BYTES // _record_bytes(spec)), seed=seed)
    feed = feed.batch(batch_size, drop_remainder=drop_remainder)
    return feed.map(lambda records: _parse(records, spec, wanted), num_parallel_calls=2)


def _parse(records: Any, spec: DatasetSpec, wanted: list[str]) -> dict[str, Any]:
    """Decodes a batch of serialized records at once."""
    kinds = {"int": tf.int64, "class": tf.int64, "value": tf.float32}
    columns = {
        name: tf.io.FixedLenFeature((), kinds.get(spec.features[name].kind, tf.string))
        for name in wanted
    }
    parsed: dict[str, Any] = tf.io.parse_example(records, columns)
    for name in wanted:
        feature = spec.features[name]
        if feature.encoding == "tensor":
            header = len(tensor_header(feature.shape, feature.dtype))
            pixels = tf.io.decode_raw(parsed[name], tf.uint8)[:, header:]
            dtype = _tf_dtype(feature)
            if dtype == tf.bool:
                parsed[name] = tf.cast(tf.reshape(pixels, (-1, *feature.shape)), tf.bool)
                continue
            wide = (-1, *feature.shape) if dtype.size == 1 else (-1, *feature.shape, dtype.size)
            parsed[name] = tf.bitcast(tf.reshape(pixels, wide), dtype)
    return parsed


def _record_bytes(spec: DatasetSpec) -> int:
    tensors = [f for f in spec.features.values() if f.encoding == "tensor"]
    return sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in tensors) or 1


def _tf_dtype(feature: Feature) -> tf.DType:
    return tf.string if feature.kind == "text" else tf.as_dtype(feature.dtype)


def _pair(batch: dict[str, Any], labels: list[str]) -> tuple[Any, Any]:
    if len(labels) == 1:
        return batch["image"], batch[labels[0]]
    return batch["image"], {name: batch[name] for name in labels}

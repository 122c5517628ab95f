"""The stream through the tf.data service: a graph without Python, which other processes run."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .shaping import DRAWS
from .spec import DatasetError
from .storage import is_remote
from .stream import PARSED_AT_ONCE, READ_AT_ONCE, Stream
from .tensors import TensorOperations, decode, sizes
from .transform import OfFeed


def served(stream: Stream, address: str) -> tf.data.Dataset:
    """(0, zeros, sizes, batch) as the service at ``address`` deals them out, each record once.

    Shards go to the service's workers one by one, as they ask for them, and are read by
    ``TFRecordDataset``: interleaved, shuffled, batched, decoded a batch at a time.

    Raises:
      DatasetError: an option that the service's workers cannot carry out.
    """
    operations = TensorOperations(OfFeed(stream))
    options, spec, names = stream.options, stream.spec, stream.names
    if options.shard is not None:
        raise DatasetError("shard and service: the service deals records out by itself")
    if options.on_error == "skip":
        raise DatasetError("on_error='skip' and service: skipping needs Python on the workers")
    scheme = stream.files[0].split("://")[0]
    if is_remote(stream.files[0]) and scheme not in tf.io.gfile.get_registered_schemes():
        raise DatasetError(f"service: this TensorFlow cannot read {scheme}://")
    shaping = stream.shaping()

    def read(file: Any) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(file, spec.compression.upper().replace("NONE", ""))

    def shaped(number: Any, records: Any) -> tuple[Any, ...]:
        values = decode(records, spec, names)
        draws = tf.random.stateless_uniform(
            (tf.shape(records)[0], DRAWS), seed=[options.seed, number]
        )
        none = tf.zeros(2, tf.int64)
        return none[0], none, sizes(values), shaping(values, draws, operations)

    files = tf.data.Dataset.from_tensor_slices(stream.files)
    if options.shuffle:
        files = files.shuffle(len(stream.files), options.seed)
    feed = files.interleave(read, cycle_length=READ_AT_ONCE, num_parallel_calls=2)
    if options.where is not None:
        where, scalars = options.where, [k for k, f in spec.features.items() if not f.shape]
        feed = feed.batch(PARSED_AT_ONCE).map(
            lambda records: tf.boolean_mask(records, where(decode(records, spec, scalars)))
        )
        feed = feed.unbatch()
    if options.shuffle:
        feed = feed.shuffle(stream.held, options.seed)
    feed = feed.batch(options.batch_size, drop_remainder=options.drop_remainder)
    feed = feed.enumerate().map(shaped, num_parallel_calls=2, deterministic=True)
    dynamic = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    feed = feed.apply(tf.data.experimental.service.distribute(dynamic, address))
    return feed.repeat(None if options.repeat is True else int(options.repeat))

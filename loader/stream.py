"""The stream: shards read from their beginnings by ``TFRecordDataset``, shuffled in a buffer.

The shards are dealt out to as many streams as there are workers, and each worker reads its own.
Batches are numbered round by round over all streams, so that a state, which counts batches, can
be taken up by another number of workers: for the rest of that epoch each of them reads all
streams and decodes its part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from . import tfrecord
from .codec import decode_records
from .leaving import called_by_threads, leaving
from .options import Options
from .order import Share
from .pool import Pool
from .progress import Progress, Stats
from .records import Paths
from .shaping import DRAWS
from .spec import DatasetError, DatasetSpec, Shard
from .storage import is_remote, join, open_file
from .tensors import TensorOperations, decode, epochs, tensor_dtype

if TYPE_CHECKING:
    from .tfdata import TensorFeed

SHUFFLE_BYTES = 256 << 20
UNITS = ("batches", "streams")
_READ_AT_ONCE = 4  # shards that one stream interleaves
_PARSED_AT_ONCE = 256  # records whose scalars a filter sees at once


def streamed(
    path: Paths, split: str | None, options: Options, shuffle_bytes: int, service: str | None
) -> TensorFeed:
    """A stream of a split: see ``load``.

    Raises:
      DatasetError: as ``load``, or for an option that needs the index.
    """
    if not isinstance(path, (str, Path)):
        raise DatasetError(f"several datasets {_NEEDS_INDEX}")
    for name in ("resample", "weights"):
        if getattr(options, name) is not None:
            raise DatasetError(f"{name} {_NEEDS_INDEX}")
    if options.where is not None and (options.drop_remainder and options.share().workers > 1):
        raise DatasetError(f"where with drop_remainder on several workers {_NEEDS_INDEX}")
    return _Stream(path, split or "train", options, shuffle_bytes, service).feed()


_NEEDS_INDEX = (
    "cannot be streamed: records must be found by index; give cache=FOLDER or cache='memory' "
    "for compressed or remote shards, and leave source='stream' out"
)


class _Stream:
    """The parts of one stream's pipeline."""

    def __init__(
        self, path: str | Path, split: str, options: Options, shuffle_bytes: int,
        service: str | None,
    ):  # fmt: skip
        self.spec, self.options, self.split, self.service = (
            DatasetSpec.load(path), options, split, service,
        )  # fmt: skip
        self.names = options.wanted(self.spec)
        self.shaping = options.shaping(self.spec, self.names)
        self.share: Share = options.share()
        shards = [s for s in self.spec.split(split).shards if s.num_examples]
        self.files = [join(path, s.path) for s in shards]
        _all_there(self.files)
        self.counts = np.array([s.num_examples for s in shards])
        self.records_held = max(1, shuffle_bytes // _record_bytes(self.spec, shards))
        self.stats, self.pool = Stats(options.prefetch), Pool()
        self.progress = Progress({
            "dataset": self.spec.fingerprint[:16], "source": "stream", "split": split,
            "seed": options.seed, "shuffle": options.shuffle, "batch_size": options.batch_size,
        })  # fmt: skip
        if options.drop_remainder and not self.batches(self.own_streams()).min():
            raise DatasetError(
                f"split {split!r} has {self.counts.sum()} records, fewer than a batch of "
                f"{options.batch_size} for each of {self.share.workers} workers: use a smaller "
                "batch_size"
            )

    def own_streams(self) -> int:
        """How many streams an epoch has: one a worker, where there is a shard for each, and
        where equal steps do not leave out more than a tenth of the records for that."""
        workers = self.share.workers
        if workers > len(self.files):
            return 1
        if not self.options.drop_remainder:
            return workers
        return workers if self.batches(workers).sum() >= 0.9 * self.batches(1).sum() else 1

    def batches(self, streams: int) -> np.ndarray:
        """Batches of each stream; as many of each, with ``drop_remainder``."""
        held = np.array([self.counts[c::streams].sum() for c in range(streams)])
        size = self.options.batch_size
        if not self.options.drop_remainder:
            return -(-held // size)
        whole = np.full(streams, (held // size).min())
        if streams < self.share.workers:
            whole = whole // self.share.workers * self.share.workers
        return whole

    def begin(self, last: Any) -> list[np.int64]:
        """Of an epoch, after ``last``: its number, its number of streams, and batches done."""
        epoch, done = self.progress.begin(int(last))
        streams, batches = done.get("streams", 0), done.get("batches", 0)
        if streams and self.options.where is None and batches >= self.batches(streams).sum():
            epoch, streams = epoch + 1, 0
        if not streams:
            streams, batches = self.own_streams(), 0
        return [np.int64(n) for n in (epoch, streams, batches)]

    def length(self) -> int:
        if self.options.repeat is True:
            return -1
        if self.options.where is not None or self.service:
            return -2
        streams, share = self.own_streams(), self.share
        held = self.batches(streams)
        if streams == share.workers:
            own = int(held[share.index])
        else:
            own = len(range(share.index, int(held[0]), share.workers))
        return own * int(self.options.repeat)

    def feed(self) -> TensorFeed:
        from .tfdata import TensorFeed, measured, pipeline_options

        if self.service:
            made = self._served(self.service)
        else:
            turns = 0 if self.options.repeat is True else int(self.options.repeat)
            begin = called_by_threads(self.begin)
            made = epochs(turns, begin).flat_map(self._epoch)
        parallel = {"num_parallel_calls": 2, "deterministic": True} if self.service else {}
        made = made.map(self._decoded, **parallel)
        if self.service:
            made = made.apply(
                tf.data.experimental.service.distribute(
                    tf.data.experimental.service.ShardingPolicy.DYNAMIC, self.service
                )
            )
            if self.options.repeat != 1:
                made = made.repeat(None if self.options.repeat is True else self.options.repeat)

        def given(epoch: int, done: np.ndarray) -> None:
            self.progress.given(epoch, batches=int(done[0]), streams=int(done[1]))

        made = measured(made, self.options.prefetch, self.stats, given)
        made = made.with_options(pipeline_options(self.options))
        return TensorFeed(made, self.progress, self.stats, UNITS, self.length(), self.damage)

    def _epoch(self, epoch: Any, streams: Any, done: Any) -> tf.data.Dataset:
        """Batches of serialized records: (epoch, done, number, records)."""
        workers, index = np.int64(self.share.workers), np.int64(self.share.index)
        own = tf.equal(streams, workers)  # each worker has its stream
        first = tf.where(own, index, np.int64(0))
        last = tf.where(own, index + 1, streams)
        feed = tf.data.Dataset.range(first, last).interleave(
            lambda c: self._stream(epoch, c, streams, last - first),
            cycle_length=last - first, block_length=1,
        )  # fmt: skip
        feed = feed.skip(tf.where(own, done // workers, done))
        if workers > 1:
            feed = feed.shard(
                tf.where(own, np.int64(1), workers), tf.where(own, np.int64(0), index)
            )

        def numbered(k: Any, records: Any) -> tuple[Any, ...]:
            after = done + (k + 1) * workers
            number = done + k * workers + index
            return epoch, tf.stack([after, streams]), number, records

        return feed.enumerate().map(numbered)

    def _stream(self, epoch: Any, stream: Any, streams: Any, at_once: Any) -> tf.data.Dataset:
        """One of an epoch's streams: its shards' records in batches of serialized records."""
        # The user's global seed must not change what this feed's seed decides.
        tf.random.set_seed(1)
        files = tf.constant(self.files)[stream :: tf.cast(streams, tf.int64)]
        seed = [self.options.seed, epoch]
        if self.options.shuffle:
            files = tf.random.experimental.stateless_shuffle(files, seed)
        read = self._records_of_file
        if self.options.shuffle:
            feed = tf.data.Dataset.from_tensor_slices(files).interleave(
                read, cycle_length=_READ_AT_ONCE, num_parallel_calls=2, deterministic=True
            )
            mixed = tf.random.stateless_uniform(
                (), seed=[self.options.seed, epoch], minval=None, maxval=None, dtype=tf.int64
            )
            held = tf.maximum(np.int64(1), self.records_held // at_once)
            feed = self._kept(feed).shuffle(held, mixed + stream, reshuffle_each_iteration=False)
        else:
            feed = self._kept(tf.data.Dataset.from_tensor_slices(files).flat_map(read))
        feed = feed.batch(self.options.batch_size, drop_remainder=self.options.drop_remainder)
        if self.options.drop_remainder:
            limit = tf.numpy_function(
                called_by_threads(lambda n: np.int64(self.batches(int(n)).min())),
                [streams], tf.int64, stateful=False,
            )  # fmt: skip
            limit.set_shape(())
            feed = feed.take(limit)
        return feed

    def _records_of_file(self, file: Any) -> tf.data.Dataset:
        if not self._by_python():
            compression = self.spec.compression.upper().replace("NONE", "")
            return tf.data.TFRecordDataset(file, compression)
        return tf.data.Dataset.from_generator(
            self._records_by_python, output_signature=tf.TensorSpec((), tf.string), args=(file,)
        )

    def _by_python(self) -> bool:
        """Where TensorFlow's own reader does not reach, or gives a whole shard up."""
        scheme = self.files[0].split("://")[0] + "://" if is_remote(self.files[0]) else ""
        known = {s + "://" for s in tf.io.gfile.get_registered_schemes()}
        return self.options.on_error == "skip" or bool(scheme and scheme not in known)

    def _records_by_python(self, file: bytes) -> Iterator[bytes]:
        path = file.decode()
        with open_file(path, self.spec.compression) as opened:
            for payload, problem in tfrecord.read_each(opened, path):
                if leaving():
                    return
                if payload is not None:
                    yield payload
                elif self.options.on_error == "raise":
                    raise DatasetError(problem)
                else:
                    self.stats.made(0.0, skipped=1)

    def _kept(self, feed: tf.data.Dataset) -> tf.data.Dataset:
        """Those records that ``where`` keeps."""
        where = self.options.where
        if where is None:
            return feed
        scalars = [k for k, f in self.spec.features.items() if f.encoding == "scalar"]
        feed = feed.batch(_PARSED_AT_ONCE).map(
            lambda records: tf.boolean_mask(records, where(decode(records, self.spec, scalars)))
        )
        return feed.unbatch()

    def _decoded(self, epoch: Any, done: Any, number: Any, records: Any) -> tuple[Any, ...]:
        from .tfdata import sizes

        # In a service's processes there is no Python of ours; elsewhere NumPy decodes into memory
        # that is used again, in half of the time.
        values = (
            decode(records, self.spec, self.names) if self.service else self._taken_apart(records)
        )
        draws = tf.random.stateless_uniform(
            (tf.shape(records)[0], DRAWS), seed=[self.options.seed + epoch * 1_000_003, number]
        )
        return epoch, done, sizes(values), self.shaping(values, draws, TensorOperations())

    def _taken_apart(self, records: Any) -> dict[str, Any]:
        features = self.spec.features

        @called_by_threads
        def decoded(found: np.ndarray) -> list[np.ndarray]:
            start = time.perf_counter()
            values = decode_records(found.tolist(), features, self.names, self.pool.take)
            self.stats.made(time.perf_counter() - start)
            return list(values.values())

        dtypes = [tensor_dtype(features[n]) for n in self.names]
        values = tf.numpy_function(decoded, [records], dtypes, stateful=False)
        size = self.options.batch_size if self.options.drop_remainder else None
        for name, value in zip(self.names, values, strict=True):
            value.set_shape((size, *features[name].shape))
        return dict(zip(self.names, values, strict=True))

    def _served(self, address: str) -> tf.data.Dataset:
        """The stream as a graph without Python, which other processes can run."""
        if self.share.workers > 1:
            raise DatasetError("shard and service: the service deals records out by itself")
        if self._by_python():
            raise DatasetError("service: TensorFlow itself must be able to read the shards, "
                               "and on_error='skip' needs Python")  # fmt: skip
        files = tf.data.Dataset.from_tensor_slices(self.files)
        if self.options.shuffle:
            files = files.shuffle(len(self.files), self.options.seed)
        feed = files.interleave(
            self._records_of_file, cycle_length=_READ_AT_ONCE, num_parallel_calls=2
        )
        feed = self._kept(feed)
        if self.options.shuffle:
            feed = feed.shuffle(self.records_held, self.options.seed)
        feed = feed.batch(self.options.batch_size, drop_remainder=self.options.drop_remainder)
        none = tf.zeros(2, tf.int64)
        return feed.enumerate().map(lambda k, records: (none[0], none, k, records))

    def damage(self) -> DatasetError:
        """What is wrong with the shards, found by reading them again."""
        for path in self.files:
            try:
                with open_file(path, self.spec.compression) as opened:
                    for _ in tfrecord.read(opened, path):
                        pass
            except DatasetError as e:
                return DatasetError(f"{e}: run `scenefeed verify`, or give on_error='skip'")
            except (OSError, EOFError) as e:
                return DatasetError(f"{path}: cannot be read: {e}: run `scenefeed verify`")
        return DatasetError(f"a shard of split {self.split!r} could not be read, and now it can")


def _all_there(files: list[str]) -> None:
    for file in files:
        if not is_remote(file) and not Path(file).exists():
            raise DatasetError(f"{file}: the shard is missing: run `scenefeed convert` again")


def _record_bytes(spec: DatasetSpec, shards: list[Shard]) -> int:
    """A serialized record's, uncompressed."""
    if spec.compression == "none":
        return max(1, sum(s.num_bytes for s in shards) // sum(s.num_examples for s in shards))
    tensors = [f for f in spec.features.values() if f.encoding == "tensor"]
    return sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in tensors) + 100

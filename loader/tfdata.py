"""The feed for TensorFlow: ``load`` gives a ``tf.data.Dataset`` by index or as a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from . import stream
from .feed import UNITS, start_of
from .leaving import called_by_threads
from .options import Options
from .progress import Progress, Stats
from .records import Paths, Records
from .shaping import DRAWS
from .spec import DatasetError, DatasetSpec
from .storage import is_remote
from .tensors import TensorOperations, epochs, tensor_dtype

SOURCES = ("auto", "index", "stream", "stage", "tfio")
_ENDLESS = np.iinfo(np.int64).max


def load(
    path: Paths, split: str | None = None, *, source: str = "auto", device: str | None = None,
    service: str | None = None, shuffle_bytes: int = stream.SHUFFLE_BYTES, **options: Any,
) -> TensorFeed:  # fmt: skip
    """A feed of a split, ready for ``model.fit``.

        train = load("out", split="train", batch_size=1024, as_supervised=True)
        model.fit(train, epochs=20)

    Args:
      path: the dataset's folder or URL, or several of them.
      split: which split; ``train`` by default.
      source: ``"index"`` reads records by offset, in an exact global permutation, without a
        buffer. ``"stream"`` reads shards from their beginnings, through a shuffle buffer.
        ``"auto"`` is the index for local uncompressed shards and for those with ``cache``, else
        the stream. ``"stage"`` reads the stage files by index (all patches, unless ``split`` is
        given), ``"tfio"`` streams them through tensorflow-io.
      device: put batches on this device ahead of use, as in ``"/GPU:0"``; texts are left out.
      service: stream through the tf.data service at this address, ``grpc://host:port``.
      shuffle_bytes: memory that a stream's shuffle buffer of serialized records may take.
      options: see ``Options``: batch_size, shuffle, seed, as_supervised, drop_remainder, ...

    Returns:
      A ``tf.data.Dataset``, one epoch a pass, of dictionaries: ``image`` (B, H, W, C), labels,
      ``scene_id`` (B,) string, ``row`` and ``col`` (B,) int64; or of pairs. It has
      ``state_dict``, ``load_state_dict`` and ``stats``.

    Raises:
      DatasetError: no complete dataset, no such split or feature, an empty split, a damaged
        shard, fewer records than a batch with ``drop_remainder``, or an option that does not fit.
    """
    if source not in SOURCES:
        raise DatasetError(f"source {source!r}: one of {', '.join(SOURCES)}")
    asked = Options.of(options)
    if source == "auto":
        source = _fitting(path, asked, service)
    if source == "tfio":
        from .tfio import from_stage_files

        feed = from_stage_files(path, split, asked)
    elif source == "stream":
        feed = stream.streamed(path, split, asked, shuffle_bytes, service)
    else:
        feed = _indexed(Records(path, split, asked, stage=source == "stage"))
    return feed.onto(device) if device else feed


def mix(paths: Sequence[Any], weights: Sequence[float], **options: Any) -> TensorFeed:
    """A feed of several datasets, drawn from by weights within each batch.

    Args:
      paths: folders or URLs of datasets whose features agree.
      weights: of each; they need not sum to 1.
      options: as for ``load``.

    Raises:
      DatasetError: as ``load``; or the datasets' features differ.
    """
    return load(list(paths), weights=list(weights), **options)


def _fitting(path: Paths, options: Options, service: str | None) -> str:
    """The index where records can be found by offset cheaply."""
    if service:
        return "stream"
    first = path if not isinstance(path, Sequence) or isinstance(path, str) else path[0]
    local = not is_remote(first) and DatasetSpec.load(first).compression == "none"
    return "index" if local or options.cache is not None else "stream"


class TensorFeed(tf.data.Dataset):  # type: ignore[misc]
    """A ``tf.data.Dataset`` that knows how far it has come.

    Args:
      dataset: what it gives.
      progress, stats: what the dataset reports to while it runs.
      units: what a state counts.
      length: batches of a whole pass, negative as TensorFlow counts: -1 endless, -2 unknown.
      explain: turns TensorFlow's error about damaged bytes into one that says where.
    """

    def __init__(
        self, dataset: tf.data.Dataset, progress: Progress, stats: Stats, units: tuple[str, ...],
        length: int, explain: Callable[[], DatasetError] | None = None,
    ):  # fmt: skip
        self._dataset, self._progress, self._stats = dataset, progress, stats
        self._units, self._length, self._explain = units, length, explain
        super().__init__(dataset._variant_tensor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> Any:
        return self._dataset.element_spec

    def cardinality(self) -> tf.Tensor:
        """Batches of a whole pass; the first one after ``load_state_dict`` may be shorter."""
        return tf.constant(self._length, tf.int64)

    def __len__(self) -> int:
        if self._length < 0:
            raise TypeError(
                "the feed's length is " + ("infinite" if self._length == -1 else "unknown")
            )
        return self._length

    def __iter__(self) -> Iterator[Any]:
        iterator = super().__iter__()
        if self._explain is not None:
            _explaining(iterator, self._explain)
        return iterator  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """Where the feed stands, after the last batch that was taken from it: plain numbers and
        texts. Another feed of the same dataset, split and seed goes on from it, also as another
        number of workers (each of which takes the same state).

        Batches that something else has taken ahead, such as a device's buffer or a strategy's,
        count as taken; ``tf.train.Checkpoint`` of the iterator, or a feed for each worker, knows
        better.
        """
        return self._progress.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the batches that ``state`` counts, with the next pass.

        Raises:
          DatasetError: the state is of another dataset, split or seed.
        """
        self._progress.load(state, self._units)

    def stats(self) -> dict[str, Any]:
        """Since the feed was made: batches, records, bytes, seconds, how much of them was spent
        waiting, how full the buffer was (0 to 1), and ``advice``, one sentence."""
        return self._stats.read()

    def onto(self, device: str) -> TensorFeed:
        """The same feed with batches on ``device``, one ahead; without texts."""
        feed = self._dataset
        if isinstance(feed.element_spec, dict):
            kept = [k for k, s in feed.element_spec.items() if s.dtype != tf.string]
            feed = feed.map(lambda x: {k: x[k] for k in kept}, num_parallel_calls=1)
        feed = feed.apply(tf.data.experimental.prefetch_to_device(device, 1))
        return TensorFeed(
            feed, self._progress, self._stats, self._units, self._length, self._explain
        )


def _explaining(iterator: Any, explain: Callable[[], DatasetError]) -> None:
    """Makes an iterator say which shard is damaged, and where."""
    kind = type(iterator)

    class Explaining(kind):  # type: ignore[misc, valid-type]
        def __next__(self) -> Any:
            try:
                return super().__next__()
            except tf.errors.DataLossError as e:
                raise explain() from e

    iterator.__class__ = Explaining


def _indexed(records: Records) -> TensorFeed:
    options, share = records.options, records.share
    progress, stats = Progress(records.identity), Stats(options.prefetch)
    features, shaping = records.source.spec.features, records.shaping()
    steps = share.steps(records.count)
    if not steps:
        raise DatasetError(
            f"{records.count} records leave none for worker {share.index} of {share.workers}: "
            "use a smaller batch_size or fewer workers"
        )

    @called_by_threads
    def begin(last: Any) -> list[np.int64]:
        epoch, done = start_of(records, progress.begin(int(last)))
        return [np.int64(n) for n in (epoch, done, share.steps(records.count, done))]

    @called_by_threads
    def fetch(epoch: Any, done: Any, step: Any) -> list[Any]:
        start = time.perf_counter()
        positions = share.positions(records.count, int(done), int(step))
        found = records.batch(int(epoch), positions)
        stats.made(time.perf_counter() - start, found.skipped)
        after = share.after(records.count, int(done), int(step))
        return [*found.values.values(), found.draws, np.array([after])]

    def one_epoch(epoch: Any, done: Any, count: Any) -> tf.data.Dataset:
        return tf.data.Dataset.range(count).map(lambda k: (epoch, done, k))

    dtypes = [tensor_dtype(features[n]) for n in records.names]
    size = share.batch_size if share.drop_remainder else None

    def decoded(epoch: Any, done: Any, step: Any) -> tuple[Any, ...]:
        *values, draws, after = tf.numpy_function(
            fetch, [epoch, done, step], [*dtypes, tf.float32, tf.int64], stateful=False
        )
        for name, value in zip(records.names, values, strict=True):
            value.set_shape((size, *features[name].shape))
        draws.set_shape((None, DRAWS))
        after.set_shape((1,))
        return epoch, after, dict(zip(records.names, values, strict=True)), draws

    def shaped(epoch: Any, after: Any, values: Any, draws: Any) -> tuple[Any, ...]:
        return epoch, after, sizes(values), shaping(values, draws, TensorOperations())

    turns = 0 if options.repeat is True else int(options.repeat)
    feed = epochs(turns, begin).flat_map(one_epoch).map(decoded)
    feed = feed.map(shaped, num_parallel_calls=2, deterministic=True)
    feed = measured(
        feed,
        options.prefetch,
        stats,
        lambda epoch, done: progress.given(epoch, records=int(done[0])),
    )
    feed = feed.with_options(pipeline_options(options))
    length = -1 if options.repeat is True else steps * turns
    return TensorFeed(feed, progress, stats, UNITS, length)


def sizes(values: Mapping[str, Any]) -> Any:
    """Records and bytes of a decoded batch, int64 (2,); texts count as pointers."""
    rows = tf.shape(next(iter(values.values())), tf.int64)[0]
    each = sum(
        int(np.prod(v.shape[1:])) * (8 if v.dtype == tf.string else v.dtype.size)
        for v in values.values()
    )
    return tf.stack([rows, rows * each])


def measured(
    feed: tf.data.Dataset, prefetch: int, stats: Stats, given: Callable[[int, np.ndarray], None]
) -> tf.data.Dataset:
    """Prefetches, and notes each batch at the moment when it is taken.

    ``feed`` gives (epoch, done, sizes, batch). When a batch is asked for, the first part of the
    zip runs before the second is waited for: what lies between both is time spent waiting. The
    functions count as stateless, so that iterators can be saved by ``tf.train.Checkpoint``.
    """
    made = [0, 0]  # by the feed, and taken from it

    @called_by_threads
    def note_made(sizes: Any) -> Any:
        made[0] += 1
        return sizes

    @called_by_threads
    def note(asked: Any, epoch: Any, done: Any, sizes: Any) -> Any:
        made[1] += 1
        given(int(epoch), done)
        waited, (records, nbytes) = time.perf_counter() - float(asked), sizes.tolist()
        stats.given(waited, records, nbytes, max(0, made[0] - made[1]))
        return np.bool_(True)

    def counted(epoch: Any, done: Any, sizes: Any, batch: Any) -> tuple[Any, ...]:
        found = tf.numpy_function(note_made, [sizes], tf.int64, stateful=False)
        found.set_shape((2,))
        return epoch, done, found, batch

    def noted(asked: Any, parts: tuple[Any, ...]) -> Any:
        found = tf.numpy_function(note, [asked, *parts[:3]], tf.bool, stateful=False)
        return tf.ensure_shape(found, ())

    @called_by_threads
    def now(_: Any) -> np.float64:
        return np.float64(time.perf_counter())

    asked = tf.data.Dataset.range(_ENDLESS).map(
        lambda i: tf.numpy_function(now, [i], tf.float64, stateful=False)
    )
    feed = feed.map(counted)
    if prefetch:
        feed = feed.prefetch(prefetch)
    # A filter, because its result is needed: a stateless operation whose result is not, or can be
    # had without it, is left out.
    feed = tf.data.Dataset.zip((asked, feed)).filter(noted)
    return feed.map(lambda _, parts: parts[3])


def pipeline_options(options: Options) -> tf.data.Options:
    """How tf.distribute may divide a feed that is not divided already; and nothing may be moved:
    a step that notes what was taken must not run ahead of it."""
    found = tf.data.Options()
    found.experimental_optimization.inject_prefetch = False
    found.experimental_optimization.map_parallelization = False
    # Every order follows from the seed: there is no state outside of what a checkpoint saves.
    found.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    policy = tf.data.experimental.AutoShardPolicy
    found.experimental_distribute.auto_shard_policy = (
        policy.DATA if options.shard is None else policy.OFF
    )
    return found

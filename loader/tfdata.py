"""The feed for TensorFlow: ``load`` gives a ``tf.data.Dataset`` by index or as a stream."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from .ahead import read_ahead
from .leaving import called_by_threads
from .options import Options
from .progress import Progress, Stats
from .records import Draw, Paths, Stretch
from .shaping import NumpyOperations
from .sources import drawn_from
from .spec import DatasetError
from .storage import BLOCK, is_remote, open_file, unpacked
from .stream import Stream
from .tensors import TensorOperations, sizes, tensor_dtype
from .transform import OfFeed

_ENDLESS = np.iinfo(np.int64).max
# Our functions hold graphs' operations alone: AutoGraph would spend most of a second on reading them.
_as_it_stands: Callable[[Any], Any] = tf.autograph.experimental.do_not_convert


def load(
    path: Paths, split: str | None = None, *, source: str = "auto", device: str | None = None,
    service: str | None = None, **options: Any,
) -> TensorFeed:  # fmt: skip
    """A feed of a split, ready for ``model.fit``.

        train = load("out", split="train", batch_size=1024, as_supervised=True)
        model.fit(train, epochs=20)

    Args:
      path: the dataset's folder or URL, or several of them.
      split: which split; ``train`` by default.
      source: ``"index"`` reads records by offset, in an exact global permutation, without a
        buffer. ``"stream"`` reads shards from their beginnings, through a window of records that
        it shuffles. ``"auto"`` is the index for local uncompressed shards and for those with
        ``cache``, else the stream. ``"stage"`` reads the stage files by index (all patches,
        unless ``split`` is given), ``"tfio"`` streams them through tensorflow-io.
      device: put batches on this device ahead of use, as in ``"/GPU:0"``; texts are left out.
      service: stream through the tf.data service at this address, ``grpc://host:port``.
      options: see ``Options``: batch_size, shuffle, seed, as_supervised, drop_remainder, ...

    Returns:
      A ``tf.data.Dataset``, one epoch a pass, of dictionaries: ``image`` (B, H, W, C), labels,
      ``scene_id`` (B,) string, ``row`` and ``col`` (B,) int64; or of pairs. It has
      ``state_dict``, ``load_state_dict`` and ``stats``.

    Raises:
      DatasetError: no complete dataset, no such split or feature, an empty split, a damaged
        shard, fewer records than a batch with ``drop_remainder``, or an option that does not fit.
    """
    asked = Options.of(options)
    if source == "tfio":
        from .tfio import from_stage_files

        feed = from_stage_files(path, split, asked)
    elif service:
        feed = _served(Stream(path, split, asked, open_shard), service)
    else:
        feed = _fed(drawn_from(path, split, source, asked, open_shard))
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


def open_shard(path: str, compression: str) -> BinaryIO:
    """A shard for reading, by TensorFlow's file systems where they know the URL's scheme.

    Raises:
      OSError: it cannot be opened.
    """
    if not is_remote(path) or path.split("://")[0] not in tf.io.gfile.get_registered_schemes():
        return open_file(path, compression)
    return unpacked(read_ahead(_Readable(path), BLOCK), compression)


class _Readable(io.RawIOBase):
    """``tf.io.gfile.GFile`` as one of Python's own files, its errors as OSError."""

    def __init__(self, path: str):
        self._file = tf.io.gfile.GFile(path, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except tf.errors.OpError as e:
            raise OSError(e.message) from e
        buffer[: len(data)] = data
        return len(data)


def _served(draw: Stream, address: str) -> TensorFeed:
    from .served import served

    options, stats = draw.options, Stats(draw.options.prefetch)
    feed = measured(served(draw, address), options.prefetch, stats, lambda epoch, done: None)
    feed = feed.with_options(pipeline_options(options))
    return TensorFeed(feed, Progress({"source": "service"}), stats, None, -2, Failure())


class TensorFeed(tf.data.Dataset):  # type: ignore[misc]
    """A ``tf.data.Dataset`` that knows how far it has come.

    Args:
      dataset: what it gives.
      progress, stats: what the dataset reports to while it runs.
      units: what a state counts; None where there is no state.
      length: batches of a whole pass, negative as TensorFlow counts: -1 endless, -2 unknown.
      failed: where the feed's own errors are kept.
    """

    def __init__(
        self, dataset: tf.data.Dataset, progress: Progress, stats: Stats,
        units: tuple[str, ...] | None, length: int, failed: Failure,
    ):  # fmt: skip
        self._dataset, self._progress, self._stats = dataset, progress, stats
        self._units, self._length, self._failed = units, length, failed
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
        _explaining(iterator, self._failed)
        return iterator  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """Where the feed stands, after the last batch that was taken from it: plain numbers and
        texts. Another feed of the same dataset, split and seed goes on from it, also as another
        number of workers (each of which takes the same state).

        Batches that something else has taken ahead, such as a device's buffer or a strategy's,
        count as taken; ``tf.train.Checkpoint`` of the iterator, or a feed for each worker, knows
        better.
        """
        self._has_state()
        return self._progress.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the batches that ``state`` counts, with the next pass.

        Raises:
          DatasetError: the state is of another dataset, split or seed.
        """
        self._progress.load(state, self._has_state())

    def _has_state(self) -> tuple[str, ...]:
        if self._units is None:
            raise DatasetError("this feed has no state: what deals its records out keeps none")
        return self._units

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
            feed, self._progress, self._stats, self._units, self._length, self._failed
        )


def _explaining(iterator: Any, failed: Failure) -> None:
    """Makes an iterator raise the feed's own errors as they are."""
    kind = type(iterator)

    class Explaining(kind):  # type: ignore[misc, valid-type]
        def __next__(self) -> Any:
            try:
                return super().__next__()
            except tf.errors.OpError as e:
                ours, failed.error = failed.error, None
                if ours is not None:
                    raise ours from e
                raise

    iterator.__class__ = Explaining


def _fed(draw: Draw) -> TensorFeed:
    """The feed of what is drawn: numbers of batches in a graph, and batches made by NumPy."""
    options, length = draw.options, draw.length()
    if not length:
        raise DatasetError(
            f"no batch is left for worker {draw.share.index} of {draw.share.workers}: "
            "use a smaller batch_size or fewer workers"
        )
    progress, stats, failed = Progress(draw.identity), Stats(options.prefetch), Failure()
    operations = TensorOperations(OfFeed(draw))
    batches = _Batches(draw, progress, stats, failed)

    @_as_it_stands
    def one_epoch(epoch: Any, at: Any, steps: Any) -> tf.data.Dataset:
        each = _as_it_stands(lambda step: batches.made(epoch, at, steps, step))
        made = tf.data.Dataset.range(steps).map(each)
        return made.take_while(_as_it_stands(lambda more, *_: more))

    def shaped(_: Any, epoch: Any, after: Any, values: Any) -> tuple[Any, ...]:
        return epoch, after, sizes(values), batches.shaping.given(values, operations)

    def given(epoch: int, done: np.ndarray) -> None:
        progress.given(epoch, **dict(zip(draw.units, done.tolist(), strict=True)))

    turns = _ENDLESS if options.repeat is True else int(options.repeat)
    feed = tf.data.Dataset.range(turns).scan(np.int64(-1), _as_it_stands(batches.following))
    feed = feed.flat_map(one_epoch)
    # A user's function may be one that only AutoGraph makes into a graph.
    shape = shaped if options.map is not None else _as_it_stands(shaped)
    feed = feed.map(shape, num_parallel_calls=2, deterministic=True)
    feed = measured(feed, options.prefetch, stats, given).with_options(pipeline_options(options))
    if length > 0:
        length = -1 if options.repeat is True else length * turns
    return TensorFeed(feed, progress, stats, draw.units, length, failed)


class _Batches:
    """What is drawn, as operations of a graph that call NumPy."""

    def __init__(self, draw: Draw, progress: Progress, stats: Stats, failed: Failure):
        self._draw, self._progress, self._stats, self._failed = draw, progress, stats, failed
        self.shaping = draw.shaping()
        columns = self.shaping.columns()
        self._size = draw.options.batch_size if draw.options.drop_remainder else None
        self._shapes = {name: (self._size, *shape) for name, (shape, _, _) in columns.items()}
        self._dtypes = [tensor_dtype(dtype, kind) for _, dtype, kind in columns.values()]
        self._nothing = [
            np.full((self._size or 0, *shape), b"" if t == tf.string else 0, t.as_numpy_dtype)
            for (shape, _, _), t in zip(columns.values(), self._dtypes, strict=True)
        ]

    def following(self, last: Any, _: Any) -> tuple[Any, tuple[Any, ...]]:
        """The stretch after the epoch ``last``, and its epoch as the next state: an iterator's
        checkpoint holds that, and one that was restored goes on counting from it."""
        epoch, at, steps = tf.numpy_function(
            called_by_threads(self._begin), [last], [tf.int64] * 3, stateful=False
        )
        epoch, steps = tf.ensure_shape(epoch, ()), tf.ensure_shape(steps, ())
        return epoch, (epoch, tf.ensure_shape(at, (len(self._draw.units),)), steps)

    def _begin(self, last: Any) -> list[Any]:
        found = self._draw.stretch(*self._progress.begin(int(last)))
        return [np.int64(found.epoch), np.array(found.at, np.int64), np.int64(found.steps)]

    def made(self, epoch: Any, at: Any, steps: Any, step: Any) -> tuple[Any, ...]:
        """Whether there is such a batch, its epoch, what is done after it, and its columns."""
        more, after, *values = tf.numpy_function(
            called_by_threads(self._fetch), [epoch, at, steps, step],
            [tf.bool, tf.int64, *self._dtypes], stateful=False,
        )  # fmt: skip
        for shape, value in zip(self._shapes.values(), values, strict=True):
            value.set_shape(shape)
        after.set_shape((len(self._draw.units),))
        more.set_shape(())
        return more, epoch, after, dict(zip(self._shapes, values, strict=True))

    def _fetch(self, epoch: Any, at: Any, steps: Any, step: Any) -> list[Any]:
        start, stretch = time.perf_counter(), Stretch(int(epoch), tuple(at.tolist()), int(steps))
        with self._failed:
            found = self._draw.batch(stretch, int(step))
        if found is None:
            return [np.bool_(False), at, *self._nothing]
        values = self.shaping.computed(found.values, found.draws, NumpyOperations())
        self._stats.made(time.perf_counter() - start, found.skipped)
        after = np.array(self._draw.after(stretch, int(step)), np.int64)
        return [np.bool_(True), after, *values.values()]


class Failure:
    """The last error of a feed's own, which TensorFlow passes on as words in one of its own."""

    error: DatasetError | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, DatasetError):
            self.error = error


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

    @_as_it_stands
    def counted(epoch: Any, done: Any, sizes: Any, batch: Any) -> tuple[Any, ...]:
        found = tf.numpy_function(note_made, [sizes], tf.int64, stateful=False)
        found.set_shape((2,))
        return epoch, done, found, batch

    @_as_it_stands
    def noted(asked: Any, parts: tuple[Any, ...]) -> Any:
        found = tf.numpy_function(note, [asked, *parts[:3]], tf.bool, stateful=False)
        return tf.ensure_shape(found, ())

    @called_by_threads
    def now(_: Any) -> np.float64:
        return np.float64(time.perf_counter())

    asked = tf.data.Dataset.range(_ENDLESS).map(
        _as_it_stands(lambda i: tf.numpy_function(now, [i], tf.float64, stateful=False))
    )
    feed = feed.map(counted)
    if prefetch:
        feed = feed.prefetch(prefetch)
    # A filter, because its result is needed: a stateless operation whose result is not, or can be
    # had without it, is left out.
    feed = tf.data.Dataset.zip((asked, feed)).filter(noted)
    return feed.map(_as_it_stands(lambda _, parts: parts[3]))


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

"""The stream: shards read from their beginnings, shuffled in a window of serialized records.

The shards are dealt out to as many streams as there are workers, and each worker reads its own.
Batches are numbered round by round over all streams, so that a state, which counts batches, can
be taken up by another number of workers: for the rest of that epoch each of them reads all
streams and decodes its part.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import tfrecord
from .codec import decode_records
from .options import Options
from .order import keys, uniform
from .pool import Pool, Slots
from .records import Batch, Paths, Stretch, kept
from .shaping import DRAWS, Shaping
from .spec import DatasetError, DatasetSpec, Shard
from .storage import check_sizes, is_remote, join, open_file

READ_AT_ONCE = 4  # shards that one stream interleaves
_UNDER_WAY = 2  # epochs that are read at once: each has a window
_OBJECTS = 300  # bytes of a held record besides its own: two arrays, and rounding
PARSED_AT_ONCE = 256  # records whose scalars a filter sees at once
_NEEDS_INDEX = (
    "cannot be streamed: records must be found by index; give cache=FOLDER or cache='memory' "
    "for compressed or remote shards, and leave source='stream' out"
)

Opener = Callable[[str, str], BinaryIO]


class Stream:
    """A split's batches by reading its shards through.

    Batches are to be asked for in order; after any other step the epoch is read again up to it,
    without being decoded.

    Args:
      path: the dataset's folder or URL.
      split: which split.
      options: the feed's.
      opener: opens a shard, given its path and compression.

    Raises:
      DatasetError: the dataset cannot be read, or an option needs the index.
    """

    units: tuple[str, ...] = ("batches", "streams")

    def __init__(
        self, path: Paths, split: str | None, options: Options, opener: Opener = open_file
    ):
        if not isinstance(path, (str, Path)):
            raise DatasetError(f"several datasets {_NEEDS_INDEX}")
        _refuse(options)
        self.spec, self._open, self.share = DatasetSpec.load(path), opener, options.share()
        self.names = options.wanted(self.spec)
        self.options = options = options.resolved([path], [self.spec], self.names)
        split = split or "train"
        shards = [s for s in self.spec.split(split).shards if s.num_examples]
        self.files = [join(path, s.path) for s in shards]
        _check_files(self.files, shards)
        self._holds = {f: s.num_examples for f, s in zip(self.files, shards, strict=True)}
        self._counts = np.array([s.num_examples for s in shards])
        self.held = max(1, options.shuffle_bytes // _record_bytes(self.spec, shards))
        self.identity = {
            "dataset": self.spec.fingerprint[:16], "source": "stream", "split": split,
            "seed": options.seed, "shuffle": options.shuffle, "batch_size": options.batch_size,
            "window": self.held,
        }  # fmt: skip
        self._pool, self._slots = Pool(), Slots()
        self._lock, self._skipped = threading.Lock(), 0
        self._running: dict[Stretch, tuple[int, Iterator[list[np.ndarray]]]] = {}
        self._process = os.getpid()
        if not self.batches(self._own_streams()).sum():
            raise DatasetError(
                f"split {split!r} has {self._counts.sum()} records, fewer than a batch of "
                f"{options.batch_size} for each of {self.share.workers} workers: use a smaller "
                "batch_size"
            )

    def shaping(self) -> Shaping:
        return self.options.shaping(self.spec, self.names)

    def _own_streams(self) -> int:
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
        held = np.array([self._counts[c::streams].sum() for c in range(streams)])
        size = self.options.batch_size
        if not self.options.drop_remainder:
            return -(-held // size)
        whole = np.full(streams, (held // size).min())
        if streams < self.share.workers:
            whole = whole // self.share.workers * self.share.workers
        return whole

    def stretch(self, epoch: int, done: dict[str, int]) -> Stretch:
        """What is left of an epoch, or the next one whole."""
        streams, batches = done.get("streams", 0), done.get("batches", 0)
        if streams and not self.options.where and batches >= self.batches(streams).sum():
            epoch, streams = epoch + 1, 0
        if not streams:
            streams, batches = self._own_streams(), 0
        return Stretch(epoch, (batches, streams), self._steps(streams, batches))

    def _steps(self, streams: int, batches: int) -> int:
        """Of this worker; at most so many, where a filter decides."""
        workers, index = self.share.workers, self.share.index
        held = self.batches(streams)
        if streams == workers:
            return max(0, int(held[index]) - batches // workers)
        return len(range(batches + index, int(held.sum()), workers))

    def length(self) -> int:
        """Batches of a whole epoch; -2 where only reading tells."""
        return -2 if self.options.where else self._steps(self._own_streams(), 0)

    def after(self, stretch: Stretch, step: int) -> tuple[int, ...]:
        """What is done once every worker has had its batch number ``step``."""
        batches, streams = stretch.at
        return batches + (step + 1) * self.share.workers, streams

    def batch(self, stretch: Stretch, step: int) -> Batch | None:
        """A batch of a stretch; None where a filter has left none.

        Raises:
          DatasetError: a record is damaged, unless ``on_error="skip"``.
        """
        if self._process != os.getpid():
            self._forked()
        with self._lock:
            records = self._next(stretch, step)
            skipped, self._skipped = self._skipped, 0
        if records is None:
            return None
        values = decode_records(records, self.spec.features, self.names, self._pool.take)
        self._slots.give_back(records)
        draws = np.zeros((0, DRAWS), np.float32)
        if self.options.augment:
            number = stretch.at[0] + step * self.share.workers + self.share.index
            positions = number * self.options.batch_size + np.arange(len(records))
            draws = uniform(self.options.seed, stretch.epoch, 1, positions, DRAWS)
        return Batch(values, draws, skipped)

    def _next(self, stretch: Stretch, step: int) -> list[np.ndarray] | None:
        """A batch of serialized records, from the reading of its stretch that is under way, where
        that has not passed it; else from the stretch's beginning."""
        at, through = self._running.pop(stretch, (0, None))
        if through is None or at > step:
            while len(self._running) >= _UNDER_WAY:  # before another window is filled
                del self._running[next(iter(self._running))]
            at, through = 0, self._through(stretch)
        records = next(itertools.islice(through, step - at, None), None)
        if records is not None and step + 1 < stretch.steps:
            self._running[stretch] = (step + 1, through)
        return records

    def _forked(self) -> None:
        """A child shares its parent's places in open files, and the lock as it was at that
        moment. What was open is left as it is: its threads did not come along."""
        self._parents, self._running, self._process = self._running, {}, os.getpid()
        self._lock, self._slots, self._pool = threading.Lock(), Slots(), Pool()

    def _through(self, stretch: Stretch) -> Iterator[list[np.ndarray]]:
        """This worker's batches of serialized records, from where the stretch begins."""
        batches, streams = stretch.at
        workers, index = self.share.workers, self.share.index
        if streams == workers:
            yield from itertools.islice(
                self._stream(stretch.epoch, index, streams), batches // workers, None
            )
            return
        # Windows as large as those of the workers that began the epoch: the order depends on it.
        each = [self._stream(stretch.epoch, c, streams) for c in range(streams)]
        rounds = (b for r in itertools.zip_longest(*each) for b in r if b is not None)
        yield from itertools.islice(rounds, batches + index, None, workers)

    def _stream(self, epoch: int, stream: int, streams: int) -> Iterator[list[np.ndarray]]:
        """One of an epoch's streams, in batches of serialized records."""
        files = self.files[stream::streams]
        size = self.options.batch_size
        if self.options.shuffle:
            key = keys(self.options.seed, epoch, 2, streams)[stream]
            rng = np.random.Generator(np.random.Philox(key=int(key)))
            files = [files[i] for i in rng.permutation(len(files))]
            records = self._interleaved(files)
        else:
            records = (r for f in files for r in self._records(f))
        if self.options.where is not None:
            records = self._kept(records, self.options.where)
        if self.options.shuffle:
            found = mixed(records, max(self.held, size), size, rng)
        else:
            found = iter(lambda: list(itertools.islice(records, size)), [])
        if not self.options.drop_remainder:
            return found
        # A filter, or damage, may leave fewer than were counted on.
        whole = itertools.takewhile(lambda batch: len(batch) == size, found)
        return itertools.islice(whole, int(self.batches(streams)[stream]))

    def _interleaved(self, files: list[str]) -> Iterator[np.ndarray]:
        """Records of several shards in turn."""
        waiting = iter([self._records(f) for f in files])
        active = list(itertools.islice(waiting, READ_AT_ONCE))
        while active:
            for i, records in enumerate(active):
                found = next(records, None)
                while found is None:
                    following = next(waiting, None)
                    if following is None:
                        break
                    active[i] = following
                    found = next(following, None)
                if found is None:
                    active = [a for a in active if a is not active[i]]
                    break
                yield found

    def _records(self, file: str) -> Iterator[np.ndarray]:
        """A shard's records, as many as dataset.json says."""
        count = 0
        try:
            with self._open(file, self.spec.compression) as opened:
                for payload, problem in tfrecord.read_each(opened, file, self._slots.lend):
                    count += 1
                    if payload is not None:
                        yield payload
                    elif self.options.on_error == "raise":
                        raise DatasetError(f"{problem}: run `scenefeed verify`")
                    else:
                        self._skipped += 1
        except (OSError, EOFError) as e:
            raise DatasetError(f"{file}: cannot be read: {e}: run `scenefeed verify`") from None
        if count != self._holds[file] and self.options.on_error == "raise":
            raise DatasetError(
                f"{file}: {count} records, dataset.json says {self._holds[file]}: it is truncated "
                "or of another conversion; convert or fetch it again"
            )

    def _kept(
        self, records: Iterator[np.ndarray], where: Callable[..., Any]
    ) -> Iterator[np.ndarray]:
        """Those that ``where`` keeps."""
        scalars = [k for k, f in self.spec.features.items() if f.encoding == "scalar"]
        while part := list(itertools.islice(records, PARSED_AT_ONCE)):
            found = where(decode_records(part, self.spec.features, scalars, self._pool.take))
            keep = kept(found, len(part))
            self._slots.give_back(itertools.compress(part, ~keep))
            yield from itertools.compress(part, keep)


def mixed(
    records: Iterator[np.ndarray], held: int, batch_size: int, rng: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """Batches drawn at random from a window of ``held`` records, which is filled up after each."""
    window = list(itertools.islice(records, held))
    while window:
        count = min(batch_size, len(window))
        chosen = rng.choice(len(window), count, replace=False, shuffle=True).tolist()
        yield [window[i] for i in chosen]
        empty = []
        for i in chosen:
            following = next(records, None)
            if following is None:
                empty.append(i)
            else:
                window[i] = following
        for i in sorted(empty, reverse=True):
            window[i] = window[-1]
            window.pop()


def _refuse(options: Options) -> None:
    """Options that only the index can do."""
    for name in ("resample", "weights"):
        if getattr(options, name) is not None:
            raise DatasetError(f"{name} {_NEEDS_INDEX}")
    if options.class_weights is not None and "balanced" in str(options.class_weights):
        raise DatasetError(f"class_weights='balanced' {_NEEDS_INDEX}")
    if options.where is not None and options.drop_remainder and options.share().workers > 1:
        raise DatasetError(f"where with drop_remainder on several workers {_NEEDS_INDEX}")


def _check_files(files: list[str], shards: list[Shard]) -> None:
    """Raises DatasetError where a local shard is not there, or not the one that was written."""
    local = [(f, s.num_bytes) for f, s in zip(files, shards, strict=True) if not is_remote(f)]
    for file, _ in local:
        if not Path(file).exists():
            raise DatasetError(f"{file}: the shard is missing: run `scenefeed convert` again")
    check_sizes([f for f, _ in local], [Path(f).stat().st_size for f, _ in local],
                [size for _, size in local])  # fmt: skip


def _record_bytes(spec: DatasetSpec, shards: list[Shard]) -> int:
    """What a record takes in a window: serialized, uncompressed, and as Python's objects."""
    if spec.compression == "none":
        total, count = sum(s.num_bytes for s in shards), sum(s.num_examples for s in shards)
        return _OBJECTS + total // max(1, count)
    tensors = [f for f in spec.features.values() if f.encoding == "tensor"]
    return sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in tensors) + 100 + _OBJECTS

"""Random access over a split's shards, by numpy alone."""

from __future__ import annotations

import os
import resource
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import tfrecord
from .codec import decode_batch
from .spec import DatasetError, DatasetSpec


class Reader:
    """Records of one split by index, in shard order.

        reader = Reader("out", split="train")
        len(reader); reader[17]["image"]; reader.batch([3, 1, 4])["image"]

    Records are read by offset: memory grows by 12 bytes a record, not with the pixels.

    Args:
      path: the dataset's folder.
      split: which split.
      features: names to decode; all of them by default.

    Raises:
      DatasetError: no complete dataset, no such split, a missing or damaged shard, or
        compressed shards (they cannot be read by offset; ``load`` streams them).
    """

    def __init__(
        self, path: str | Path, split: str = "train", features: Sequence[str] | None = None
    ):
        self.spec = DatasetSpec.load(path)
        self.names = check_features(self.spec, features)
        if self.spec.compression != "none":
            raise DatasetError(
                f"{path}: shards compressed by {self.spec.compression} cannot be read by index: "
                "use load(), or `scenefeed shard --compression none`"
            )
        self._fds: list[int] = []
        self._pool = _Pool()
        _allow_open_files(len(self.spec.split(split).shards))
        starts: list[np.ndarray] = []
        shard_of: list[np.ndarray] = []
        for shard in self.spec.split(split).shards:
            if not shard.num_examples:
                continue
            fd = _open(Path(path) / shard.path)
            weakref.finalize(self, os.close, fd)
            found = tfrecord.scan(fd, shard.path)
            if len(found) != shard.num_examples:
                raise DatasetError(
                    f"{shard.path}: holds {len(found)} records, dataset.json says "
                    f"{shard.num_examples}: run `scenefeed verify`"
                )
            starts.append(found)
            shard_of.append(np.full(len(found), len(self._fds), np.int32))
            self._fds.append(fd)
        self._starts, self._shard_of = np.concatenate(starts), np.concatenate(shard_of)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record: arrays for tensors, numpy scalars for numbers, ``str`` for text.

        Raises:
          IndexError: past either end.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return {k: v[0] for k, v in self.batch([index % len(self)]).items()}

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Records ``indices``, stacked: ``image`` is (len(indices), H, W, C).

        Raises:
          IndexError: an index past either end.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise IndexError(f"records {chosen.min()} to {chosen.max()} of {len(self)}")
        fds = [self._fds[i] for i in self._shard_of[chosen]]

        def gather(positions: np.ndarray, n: int) -> np.ndarray:
            out = self._pool.take(len(positions), n)
            preadv = os.preadv
            for row, fd, at in zip(out, fds, positions.tolist(), strict=True):
                if preadv(fd, (row,), at) != n:
                    row[max(0, os.fstat(fd).st_size - at) :] = 0
            return out

        return decode_batch(gather, self._starts[chosen], self.spec.features, self.names)

    def batches(
        self, batch_size: int, *, shuffle: bool = True, seed: int = 0, epoch: int = 0,
        drop_remainder: bool = False,
    ) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
        """One epoch in batches. The shuffle is a permutation of the whole split, drawn from
        ``(seed, epoch)``: exact, global, without a buffer, and the same on every machine."""
        order = np.arange(len(self))
        if shuffle:
            order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(order)
        stop = len(order) - (len(order) % batch_size if drop_remainder else 0)
        for i in range(0, stop, batch_size):
            yield self.batch(order[i : i + batch_size])


def check_features(spec: DatasetSpec, features: Sequence[str] | None) -> list[str]:
    """The names to decode: those asked for, or all.

    Raises:
      DatasetError: a name that the dataset does not have.
    """
    for name in features or ():
        if name not in spec.features:
            raise DatasetError(f"no feature {name!r}: the dataset has {', '.join(spec.features)}")
    return list(features or spec.features)


class _Pool:
    """Arrays used again once nobody holds them.

    The first touch of fresh memory costs as much as reading the batch. An array that this pool
    lent is free again when only the pool refers to it (views keep their base alive).
    """

    MOST = 8
    ALIGN = 64  # what TensorFlow asks of memory that it takes over without a copy

    def __init__(self) -> None:
        self._held: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, rows: int, columns: int) -> np.ndarray:
        """An uninitialized uint8 array (rows, columns)."""
        size = rows * columns
        if size < 1 << 20:
            return np.empty((rows, columns), np.uint8)
        with self._lock:
            owner = next((o for o in self._free() if o.size == size + self.ALIGN), None)
            if owner is None:
                owner = np.empty(size + self.ALIGN, np.uint8)
                self._held = [*self._held[-self.MOST + 1 :], owner]
            start = -owner.ctypes.data % self.ALIGN
            return owner[start : start + size].reshape(rows, columns)

    def _free(self) -> Iterator[np.ndarray]:
        for i in range(len(self._held)):
            # Two: the list's reference, and getrefcount's own argument. Views of views refer to
            # the owner itself.
            if sys.getrefcount(self._held[i]) == 2:
                yield self._held[i]


def _allow_open_files(count: int) -> None:
    """Raises this process's soft limit of open files, which often is 1024, where it must."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise DatasetError(f"{path}: the shard is missing: run `scenefeed convert` again") from None
    except OSError as e:
        raise DatasetError(f"{path}: {e.strerror}") from None

"""Which record comes when: an order is a function of (seed, epoch, position), not a list.

No order is held in memory, none is drawn in advance, and any worker can ask for any part of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from .spec import DatasetError

GOLDEN, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# A Feistel network mixes few bits badly; up to this count records are sorted by a hash instead.
SORTED = 1 << 14
_ROUNDS = 6


def mix(z: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer of uint64 values.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_M1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_M2)
    return np.asarray(z ^ (z >> np.uint64(31)))


def keys(seed: int, epoch: int, purpose: int, count: int) -> np.ndarray:
    """``count`` uint64 keys for one use of chance in one epoch."""
    words = np.array([seed, epoch, purpose], np.int64).astype(np.uint64)
    state = np.zeros(1, np.uint64)
    for word in words:
        state = mix(state + word + np.uint64(GOLDEN))
    return mix(state + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN))


def uniform(seed: int, epoch: int, purpose: int, positions: np.ndarray, columns: int) -> np.ndarray:
    """Numbers in [0, 1), float32 (B, columns), that belong to positions of an epoch."""
    key = keys(seed, epoch, purpose, columns)
    bits = mix(mix(positions.astype(np.uint64)[:, None] * np.uint64(GOLDEN) + key) + key)
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def shuffled(positions: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """Where a permutation of ``count`` things, drawn from (seed, epoch), takes ``positions``.

    Args:
      positions: int64 (B,), each in [0, count).

    Returns:
      int64 (B,). Over all positions each number from 0 to count - 1 comes exactly once.

    Source: a Feistel network on the bits of count - 1, walked until it lands in range (Black and
    Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
    """
    if count <= SORTED:
        return np.asarray(_sorted(count, seed, epoch)[positions])
    bits = int(count - 1).bit_length()
    low_bits = bits // 2
    high_mask, low_mask = (np.uint64((1 << n) - 1) for n in (bits - low_bits, low_bits))
    key = keys(seed, epoch, 0, _ROUNDS)
    out = positions.astype(np.uint64)
    todo = np.arange(len(out))
    while len(todo):
        high, low = out[todo] >> np.uint64(low_bits), out[todo] & low_mask
        for i in range(0, _ROUNDS, 2):
            high = high ^ (mix(low + key[i]) & high_mask)
            low = low ^ (mix(high + key[i + 1]) & low_mask)
        out[todo] = high << np.uint64(low_bits) | low
        todo = todo[out[todo] >= count]
    return out.view(np.int64)


@functools.lru_cache(maxsize=64)
def _sorted(count: int, seed: int, epoch: int) -> np.ndarray:
    key = keys(seed, epoch, 0, 1)
    return np.argsort(mix(mix(np.arange(count, dtype=np.uint64) + key) ^ key), kind="stable")


@dataclasses.dataclass(frozen=True)
class Group:
    """Records that are drawn from together: all of them, a dataset's, or a class's.

    Attributes:
      count: how many.
      first: the number of the first, where they follow each other.
      chosen: their numbers, int64 (count,), where they do not.
    """

    count: int
    first: int = 0
    chosen: np.ndarray | None = None

    def records(self, places: np.ndarray) -> np.ndarray:
        return places + self.first if self.chosen is None else self.chosen[places]


class Order:
    """The order of one feed's records over all epochs.

    One group: an epoch is each of its records once. Several, with shares: every stretch of an
    epoch holds the groups by their shares, each group's records come once before any comes
    again, and an epoch has as many positions as there are records in all.

    Args:
      groups: what is drawn from; none may be empty.
      shares: of each group, summing to 1; None for a single group.
      shuffle: another permutation each time; False for the order of the shards.
      seed: decides every permutation.
    """

    def __init__(
        self, groups: Sequence[Group], shares: Sequence[float] | None, shuffle: bool, seed: int
    ):
        self._groups, self._shuffle, self._seed = list(groups), shuffle, seed
        self.count = sum(g.count for g in groups)
        # The share of a group among itself and those after it.
        rest = np.cumsum((shares or [1.0])[::-1])[::-1]
        self._part = [float(s / r) for s, r in zip(shares or [1.0], rest, strict=True)]

    def records(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The records at positions of an epoch, int64 (B,)."""
        if len(self._groups) == 1:
            return self._drawn(0, epoch, positions)
        places = positions + epoch * self.count
        out, left = np.empty(len(places), np.int64), np.arange(len(places))
        for number, part in enumerate(self._part):
            last = number == len(self._part) - 1
            before, after = (
                (x if last else np.floor(x * part).astype(np.int64)) for x in (places, places + 1)
            )
            mine = after > before
            passes, place = np.divmod(before[mine], self._groups[number].count)
            drawn = np.empty(len(place), np.int64)
            for one in np.unique(passes).tolist():
                here = passes == one
                drawn[here] = self._drawn(number, one, place[here])
            out[left[mine]] = drawn
            places, left = (places - before)[~mine], left[~mine]
        return out

    def _drawn(self, number: int, turn: int, places: np.ndarray) -> np.ndarray:
        group = self._groups[number]
        if self._shuffle:
            places = shuffled(places, group.count, self._seed + number, turn)
        return group.records(places)


@dataclasses.dataclass(frozen=True)
class Share:
    """One worker's part of an epoch's positions.

    Step k of worker i of n is positions ``done + (k n + i) b`` to ``+ b``: whoever has read
    ``done`` positions so far, on however many workers, the rest is dealt out anew.

    Attributes:
      batch_size: b.
      index, workers: i and n.
      drop_remainder: leave out what does not fill a batch on every worker.
    """

    batch_size: int
    index: int = 0
    workers: int = 1
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DatasetError(f"batch_size {self.batch_size}: must be at least 1")
        if not 0 <= self.index < self.workers:
            raise DatasetError(
                f"shard ({self.index}, {self.workers}): give (i, n) with i from 0 to n - 1"
            )

    def steps(self, count: int, done: int = 0) -> int:
        """Batches that this worker gets of what is left."""
        left, stride = count - done, self.batch_size * self.workers
        if self.drop_remainder:
            return max(0, left // stride)
        return max(0, -(-(left - self.index * self.batch_size) // stride))

    def over(self, count: int, done: int) -> bool:
        """No worker gets anything of what is left."""
        left = count - done
        return left < (self.batch_size * self.workers if self.drop_remainder else 1)

    def positions(self, count: int, done: int, step: int) -> np.ndarray:
        """Of this worker's batch number ``step``, int64 (at most b,)."""
        start = done + (step * self.workers + self.index) * self.batch_size
        return np.arange(start, min(start + self.batch_size, count), dtype=np.int64)

    def after(self, count: int, done: int, step: int) -> int:
        """``done`` once every worker has had its batch number ``step``."""
        return min(count, done + (step + 1) * self.workers * self.batch_size)

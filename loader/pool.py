"""Memory for batches, used again: its first touch costs as much as reading a batch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator

import numpy as np


class Pool:
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
        # Not waited for: a forked process may have got the lock while another thread held it.
        if not self._lock.acquire(blocking=False):
            return np.empty((rows, columns), np.uint8)
        try:
            owner = next((o for o in self._free() if o.size == size + self.ALIGN), None)
            if owner is None:
                owner = np.empty(size + self.ALIGN, np.uint8)
                self._held = [*self._held[-self.MOST + 1 :], owner]
        finally:
            self._lock.release()
        start = -owner.ctypes.data % self.ALIGN
        return owner[start : start + size].reshape(rows, columns)

    def _free(self) -> Iterator[np.ndarray]:
        for i in range(len(self._held)):
            # Two: the list's reference, and getrefcount's own argument. Views of views refer to
            # the owner itself.
            if sys.getrefcount(self._held[i]) == 2:
                yield self._held[i]


class Slots:
    """Memory for single records, used again once it is given back; what is not is freed."""

    ROUND = 64  # records of one dataset differ by some bytes

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def lend(self, size: int) -> np.ndarray:
        """An uninitialized uint8 array (size,)."""
        slot = self._free.pop() if self._free else None
        if slot is None or slot.size < size:
            slot = np.empty(-(-size // self.ROUND) * self.ROUND, np.uint8)
        return slot[:size]

    def give_back(self, lent: Iterable[np.ndarray]) -> None:
        """Arrays that were lent, or views of them, that nobody reads any more."""
        self._free.extend(x.base for x in lent if x.base is not None)

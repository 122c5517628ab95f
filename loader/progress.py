"""How far a feed has come: its state, and what it cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from .spec import DatasetError


class Progress:
    """Where a feed stands: the epoch, and how much of it was given out.

    A pass over a feed begins the next epoch; after ``load`` it goes on where the state says.
    ``done`` is in whatever unit the feed counts.

    Args:
      identity: what must agree between a state and the feed that takes it.
    """

    def __init__(self, identity: Mapping[str, Any]):
        self._identity = dict(identity)
        self._lock = threading.Lock()
        self._next = 0
        self._at: tuple[int, dict[str, int]] = (0, {})
        self._resume: tuple[int, dict[str, int]] | None = None

    def begin(self, last: int = -1) -> tuple[int, dict[str, int]]:
        """An epoch begins, and what of it was done before.

        Args:
          last: the epoch that came before it in the same pass; below 0 where a pass begins.
        """
        with self._lock:
            epoch, done = (last + 1, {}) if last >= 0 else self._resume or (self._next, {})
            if last < 0:
                self._resume = None
            self._next = max(self._next, epoch + 1)
            return epoch, done

    def given(self, epoch: int, **done: int) -> None:
        """A batch was given out, and this much of the epoch is done with it."""
        with self._lock:
            self._at = (epoch, done)
            self._next = max(self._next, epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, to be saved beside the model."""
        with self._lock:
            epoch, done = self._resume or self._at
            return {"version": 1, **self._identity, "epoch": epoch, **done}

    def pending(self) -> dict[str, Any]:
        """A state that begins with what the next pass would."""
        with self._lock:
            epoch, done = self._resume or (self._next, {})
            return {"version": 1, **self._identity, "epoch": epoch, **done}

    def load(self, state: Mapping[str, Any], units: tuple[str, ...]) -> None:
        """Takes a state: the next pass goes on after the last batch that it counts.

        Raises:
          DatasetError: it is none, or another feed's.
        """
        if state.get("version") != 1 or "epoch" not in state:
            raise DatasetError("this is no state of a feed: give what state_dict() returned")
        for key, mine in self._identity.items():
            if state.get(key) != mine:
                raise DatasetError(
                    f"the state is of another feed: {key} {state.get(key)!r}, here {mine!r}"
                )
        done = {k: int(state[k]) for k in units if k in state}
        with self._lock:
            self._resume = (int(state["epoch"]), done)


class Stats:
    """What a feed measures while it is used."""

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._batches = self._records = self._bytes = self._skipped = 0
            self._waited = self._filled = self._making = 0.0
            self._first_wait = 0.0
            self._began: float | None = None
            self._ended: float | None = None

    def made(self, seconds: float, skipped: int = 0) -> None:
        """A batch was read and decoded."""
        with self._lock:
            self._making += seconds
            self._skipped += skipped

    def given(self, waited: float, records: int, nbytes: int, ready: int) -> None:
        """A batch was given out after so many seconds of waiting; ``ready`` more were there."""
        now = time.perf_counter()
        with self._lock:
            if self._began is None:
                self._began, self._first_wait = now, waited
            else:
                self._waited += waited
            self._ended = now
            self._batches += 1
            self._records += records
            self._bytes += nbytes
            self._filled += min(1.0, ready / self._prefetch) if self._prefetch else 0.0

    def read(self) -> dict[str, Any]:
        """Batches, records, bytes, seconds, and one sentence of advice."""
        with self._lock:
            later = max(1, self._batches - 1)
            seconds = (self._ended or 0.0) - (self._began or 0.0)
            share = self._waited / seconds if seconds else 0.0
            return {
                "batches": self._batches,
                "records": self._records,
                "bytes": self._bytes,
                "skipped": self._skipped,
                "seconds": seconds,
                "first_batch_seconds": self._first_wait,
                "waiting_seconds": self._waited,
                "waiting_share": share,
                "making_seconds": self._making,
                "buffer_fill": self._filled / max(1, self._batches),
                "records_per_second": self._records / seconds * later / (later + 1)
                if seconds
                else 0.0,
                "advice": self._advice(share, seconds),
            }

    def _advice(self, share: float, seconds: float) -> str:
        if self._batches < 3:
            return "Too few batches to judge by: ask again after some more."
        if share < 0.05:
            return "The feed keeps up: training spends its time on training."
        per_batch = self._making / self._batches
        if self._making > 0.8 * seconds:
            return (
                f"{share:.0%} of the time is spent waiting, and making a batch takes "
                f"{per_batch * 1e3:.0f} ms: leave out features, use a smaller dtype or less "
                "augmentation, or more workers with shard=(i, n)."
            )
        if self._prefetch < 2:
            return f"{share:.0%} of the time is spent waiting: give prefetch=2 or more."
        return (
            f"{share:.0%} of the time is spent waiting although batches take "
            f"{per_batch * 1e3:.0f} ms to make: steps are uneven, or other processes hold the "
            "processor; try a larger prefetch."
        )

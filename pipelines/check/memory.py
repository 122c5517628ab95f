"""Memory of a process and of all that it started, sampled while something runs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..growth import growth

INTERVAL = 0.1  # seconds between samples
MOST_LOAD = 0.05  # of a core: samples are taken further apart where one takes long


@dataclasses.dataclass
class Memory:
    """What a process tree held.

    Attributes:
      samples: (seconds since the beginning, bytes).
      kind: of memory, "PSS" or "RSS".
    """

    samples: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    kind: str = "PSS"

    @property
    def peak_bytes(self) -> int:
        return max((held for _, held in self.samples), default=0)

    @property
    def growth(self) -> dict[str, Any] | None:
        """Its slope after warm-up, and whether that is a leak; None of too few samples."""
        return growth(self.samples)


@contextlib.contextmanager
def tracking(pid: int | None = None, interval: float = INTERVAL) -> Iterator[Memory]:
    """Samples the memory of a process tree until the end of the block.

    Added up is PSS, in which a page that n processes share counts 1/n for each: workers that are
    forked share most of theirs, which RSS would count once a worker. The kernel walks page tables
    for it (about 15 ms a GiB), so samples are taken further apart where they take long. Where PSS
    is not to be had, RSS is added up: an upper bound.

    Args:
      pid: the tree's root; this process by default.
      interval: seconds between samples.
    """
    root, ended = pid or os.getpid(), threading.Event()
    memory = Memory(kind="PSS" if os.access(f"/proc/{root}/smaps_rollup", os.R_OK) else "RSS")
    watcher = threading.Thread(target=_watch, args=(memory, root, interval, ended), daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        ended.set()
        watcher.join()


def _watch(memory: Memory, root: int, interval: float, ended: threading.Event) -> None:
    began, pause = time.perf_counter(), 0.0
    while not ended.wait(pause):
        start = time.perf_counter()
        held = sum(_held(pid, memory.kind) for pid in _tree(root))
        now = time.perf_counter()
        if held:  # else it has ended
            memory.samples.append((start - began, held))
        pause = max(interval, (now - start) / MOST_LOAD)


def _tree(pid: int) -> Iterator[int]:
    """A process and its descendants, by proc_pid_task(5). psutil looks through all processes of
    the machine for them, which takes a hundred times as long."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread ended meanwhile
            for child in children.read_text().split():
                yield from _tree(int(child))


def _held(pid: int, kind: str) -> int:
    """Bytes, by proc_pid_smaps(5) or proc_pid_statm(5); 0 of a process that has ended."""
    try:
        if kind == "RSS":
            pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("Pss:")) * 1024
    except (OSError, StopIteration, IndexError):
        return 0

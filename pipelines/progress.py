"""Progress on a terminal, read off the output folder: the same for every runner."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .results import RECORDS, STAGE


@contextlib.contextmanager
def progress(out: Path, scenes: int) -> Iterator[None]:
    """A line on standard error that tells what is staged and written; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(out, scenes, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(out: Path, scenes: int, done: threading.Event) -> None:
    # Standard error may be redirected while a job runs; the terminal is where it was at first.
    start, terminal = time.monotonic(), sys.__stderr__
    while not done.wait(0.25):
        line = _line(out, scenes, time.monotonic() - start)
        print(f"\r\x1b[2K{line}", end="", file=terminal, flush=True)
    print("\r\x1b[2K", end="", file=terminal, flush=True)


def _line(out: Path, scenes: int, seconds: float) -> str:
    staged = list((out / STAGE).glob("*.h5"))
    stage_mb = _megabytes((out / STAGE).glob(".*.tmp")) + _megabytes(iter(staged))
    record_mb = _megabytes((out / RECORDS).rglob("*.tfrecord"))
    parts = [f"{seconds:4.0f} s", f"staged {len(staged)} of {scenes} scenes, {stage_mb:,.0f} MB"]
    if record_mb:
        parts.append(f"records {record_mb:,.0f} MB")
    return "  ".join(parts)


def _megabytes(paths: Iterator[Path]) -> float:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += path.stat().st_blocks * 512
    return total / 1e6

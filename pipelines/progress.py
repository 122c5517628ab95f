"""Progress on a terminal, read off the output folder: the same for every runner."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..transforms.storage import is_remote, names_in, path_of
from .results import COUNTS, RECORDS, Run

_REMOTE_SECONDS = 10  # between looks at a remote folder
_SILENT_SECONDS = 180
_CLEAR = "\r\x1b[2K"  # a terminal's line, of what progress wrote there


@contextlib.contextmanager
def progress(run: Run, scenes: int) -> Iterator[None]:
    """A line on standard error that tells what is staged and written; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(run, scenes, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextlib.contextmanager
def silence_told(run: Run, hint: str) -> Iterator[None]:
    """Says once, with ``hint``, that nothing was written for three minutes; never without a hint.

    Flink (Beam 2.62) waits for ever for a worker that was started and does not come up.
    """
    before = _written(run) if hint else []
    clear = _CLEAR if sys.stderr.isatty() else ""

    def look() -> None:
        with contextlib.suppress(Exception):  # a store that fails by now is the job's to tell
            if _written(run) == before:
                line = f"scenefeed: the job has written nothing for {_SILENT_SECONDS} s: {hint}"
                print(clear + line, file=sys.__stderr__, flush=True)

    timer = threading.Timer(_SILENT_SECONDS, look)
    timer.daemon = True
    if hint:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _written(run: Run) -> list[str]:
    out = path_of(run.out)
    return [n for x in (path_of(run.stage), out / RECORDS, out / COUNTS) for n in names_in(x)]


def _watch(run: Run, scenes: int, done: threading.Event) -> None:
    # Standard error may be redirected while a job runs; the terminal is where it was at first.
    start, terminal = time.monotonic(), sys.__stderr__
    remote = is_remote(run.out) or is_remote(run.stage)
    look = _remote_line if remote else _local_line
    while not done.wait(_REMOTE_SECONDS if remote else 0.25):
        line = look(run, scenes, time.monotonic() - start)
        print(f"{_CLEAR}{line}", end="", file=terminal, flush=True)
    print(_CLEAR, end="", file=terminal, flush=True)


def _local_line(run: Run, scenes: int, seconds: float) -> str:
    stage, records = Path(run.stage), Path(run.out) / RECORDS
    staged = list(stage.glob("*.h5"))
    stage_mb = _megabytes(stage.glob(".*.tmp")) + _megabytes(iter(staged))
    record_mb = _megabytes(records.rglob("*.tfrecord"))
    parts = [f"{seconds:4.0f} s", f"staged {len(staged)} of {scenes} scenes, {stage_mb:,.0f} MB"]
    if record_mb:
        parts.append(f"records {record_mb:,.0f} MB")
    return "  ".join(parts)


def _remote_line(run: Run, scenes: int, seconds: float) -> str:
    """Staged scenes alone: listing an archive is a request for each 1,000 names."""
    with contextlib.suppress(OSError):
        staged = sum(name.endswith(".npz") for name in names_in(path_of(run.stage)))
        return f"{seconds:4.0f} s  staged {staged} of {scenes} scenes"
    return f"{seconds:4.0f} s"


def _megabytes(paths: Iterator[Path]) -> float:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += path.stat().st_blocks * 512
    return total / 1e6

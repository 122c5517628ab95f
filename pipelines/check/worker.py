"""One feed, measured in a process of its own: its peak memory is its own, and what it imports
counts for nobody else.

    echo '{"feed": "Feed", ...}' | python -m scenefeed.pipelines.check.worker
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ...loader import DatasetError
from ...transforms.errors import JobError
from . import cold
from .memory import tracking
from .utilization import simulated, trained
from .verdict import LEAST

MOST_COLD = 9  # repetitions
_TURNS = 3  # runs that utilization is measured in


@dataclasses.dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
      folder: the dataset, a path or a URL.
      split: which split.
      feed: "Feed" or "load".
      batch_size: patches a batch.
      batches: so many are timed together.
      seconds: how long each figure is measured, at least.
      step_s: seconds of a simulated training step.
      files: what is taken out of the page cache; none of a remote dataset.
      drop: empty all of the page cache.
      fill: put the files into the page cache before it is measured warm.
      normalize: the feed's option.
    """

    folder: str
    split: str
    feed: str
    batch_size: int
    batches: int
    seconds: float
    step_s: float
    files: tuple[str, ...]
    drop: bool
    fill: bool
    normalize: str | None


def measured(job: Job) -> dict[str, Any]:
    """What ``measure`` finds, in a process of its own.

    Raises:
      DatasetError: the dataset cannot be read.
      JobError: the process ended otherwise.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__], input=json.dumps(dataclasses.asdict(job)),
        capture_output=True, text=True, check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise JobError(
            f"the process that measured {job.feed} ended with {ended}: {said}; "
            "where memory is short, use a smaller --batch_size"
        ) from None
    if "error" in found:
        raise DatasetError(found["error"])
    return found


def measure(job: Job) -> dict[str, Any]:
    """Times a feed.

    Returns:
      Seconds to import it; ``opened`` (anew each time, cold where that is possible) and ``warm``
      (one feed, going on): lists of seconds, and what the process used meanwhile; ``memory``;
      ``utilization``, a list of shares, and ``model``.

    Raises:
      DatasetError: the dataset cannot be read.
    """
    start = time.perf_counter()
    feed = _feed(job)
    found: dict[str, Any] = {"import_seconds": time.perf_counter() - start}
    found["opened"] = _opened(job, feed)
    found["warm"], found["memory"] = _warm(job, feed)
    steps = max(3, int(job.seconds / _TURNS / job.step_s))
    found["utilization"] = [
        simulated(iter(feed(turn)), job.step_s, steps) for turn in range(_TURNS)
    ]
    if job.feed == "load":
        found["model"] = trained(
            lambda device: _feed(job)(0, features=["image"], dtype="float32", device=device),
            _TURNS, job.seconds / _TURNS,
        )  # fmt: skip
    return found


def _feed(job: Job) -> Callable[..., Any]:
    """Makes the feed, anew for each seed, with more options: endless, batches always full."""
    if job.feed == "load":
        from ...loader.tfdata import load as kind
    else:
        from ...loader import Feed as kind  # type: ignore[assignment]
    return lambda seed, **more: kind(
        job.folder, job.split, batch_size=job.batch_size, seed=seed, repeat=True,
        drop_remainder=True, normalize=job.normalize, **more,
    )  # fmt: skip


def _opened(job: Job, feed: Callable[[int], Any]) -> dict[str, Any]:
    """Feeds that are opened anew, with none of their files in the page cache: seconds until the
    first batch is there, dataset.json and index included, and seconds of the first batches."""
    firsts: list[float] = []
    groups: list[float] = []
    left: list[float | None] = []
    before = _used()
    began = time.perf_counter()
    while len(groups) <= LEAST or (
        len(groups) <= MOST_COLD and time.perf_counter() - began < job.seconds
    ):
        cold.empty(job.files, job.drop)
        left.append(cold.resident(job.files))
        start = time.perf_counter()
        made = feed(len(groups))
        opened, batches = time.perf_counter(), iter(made)
        next(batches)
        firsts.append(time.perf_counter() - start)
        for _ in range(job.batches - 1):
            next(batches)
        groups.append(time.perf_counter() - opened)
        del batches, made  # with their threads
    used = _since(before)
    # What a process does for the first time costs more: kept apart.
    return {
        "first_batch_seconds": firsts[1:], "seconds": groups[1:],
        "first_batch_of_a_process_seconds": firsts[0], "resident": left[1:], **used,
    }  # fmt: skip


def _warm(job: Job, feed: Callable[[int], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    if job.fill:
        cold.fill(job.files)
    resident = cold.resident(job.files) if job.files else None
    batches = iter(feed(0))
    _group(job, batches)  # warms up
    times: list[float] = []
    before, began = _used(), time.perf_counter()
    with tracking() as memory:
        while len(times) < LEAST or time.perf_counter() - began < job.seconds:
            times.append(_group(job, batches))
    used, held = _since(before), {"peak_bytes": _peak(), "growth": memory.growth}
    return {"seconds": times, "resident": resident, **used}, held


def _group(job: Job, batches: Iterator[Any]) -> float:
    start = time.perf_counter()
    for _ in range(job.batches):
        next(batches)
    return time.perf_counter() - start


def _used() -> tuple[float, float, int]:
    """Now, the processor's seconds of this process, and bytes that it read from a disk."""
    try:
        with open("/proc/self/io") as file:
            read = next(int(x.split()[1]) for x in file if x.startswith("read_bytes"))
    except OSError:
        read = 0
    return time.perf_counter(), time.process_time(), read


def _since(before: tuple[float, float, int]) -> dict[str, float]:
    wall, spent, read = (b - a for a, b in zip(before, _used(), strict=True))
    return {"cores_busy": spent / wall, "disk_mb_per_s": read / wall / 1e6}


def _peak() -> int:
    """Bytes of this process's largest resident set. Not ru_maxrss: that counts what the process
    was before exec."""
    with open("/proc/self/status") as file:
        return next(int(x.split()[1]) for x in file if x.startswith("VmHWM")) * 1024


def main() -> None:
    job = json.load(sys.stdin)
    try:
        found = measure(Job(**{**job, "files": tuple(job["files"])}))
    except (DatasetError, OSError) as e:
        found = {"error": " ".join(str(e).split())}
    except Exception as e:
        traceback.print_exception(e)
        sys.exit(1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

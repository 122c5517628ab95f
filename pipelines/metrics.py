"""metrics.json: what a run did, how long each step took and what it used."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from ..loader.spec import DatasetSpec
from ..transforms.usage import Usage
from .growth import growth

# transforms.processes is imported where it is asked: verify takes names of files from here.
if TYPE_CHECKING:
    from ..transforms.errors import DeadLetter
    from ..transforms.shards import WrittenShard
    from ..transforms.staging import StagedScene
    from .results import Run

    Done = Sequence[StagedScene | WrittenShard]

STEPS = ("read", "clean", "tile", "labels", "stage", "move", "gather", "serialize", "write")


def of_run(
    run: Run, spec: DatasetSpec, shards: list[WrittenShard], scenes: list[StagedScene],
    dead: list[DeadLetter], before: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The metrics of a run that ends now; ``before`` are those of the folder's last one."""
    wall = max(1e-9, time.time() - run.started)
    fresh = [s for s in scenes if not s.reused]
    done: Done = [*fresh, *shards]
    kept = sum(s.num_examples for s in spec.splits.values())
    source = sum(s.header.file_bytes for s in fresh)
    return {
        "status": "complete" if kept else "empty",
        "fingerprint": spec.fingerprint,
        "wall_seconds": round(wall, 3),
        "scenes": {"done": len(scenes), "reused": len(scenes) - len(fresh), "failed": len(dead)},
        "patches": {
            "grid": sum(s.grid_count for s in scenes),
            "staged": sum(s.staged for s in scenes),
            "kept": kept,
            "dropped": sum(s.grid_count - s.count for s in scenes),
            "repeated_in_scene": sum(s.repeated for s in scenes),
            "by_split": {k: s.num_examples for k, s in spec.splits.items()},
        },
        "tallies": _summed(s.tallies for s in scenes),
        "duplicate_scenes": duplicate_scenes(scenes),
        "bytes": {
            "source": source,
            "pixels": sum(s.read_bytes for s in fresh),
            "stage": sum(s.stage_bytes for s in scenes),
            "records": sum(s.num_bytes for s in spec.splits.values()),
        },
        "shards": {k: len(s.shards) for k, s in spec.splits.items()},
        "rates": {
            "source_mb_per_s": round(source / wall / 1e6, 2),
            "patches_per_s": round(kept / wall, 1),
        },
        "conversion": _conversion(run, scenes, fresh, shards, wall) or before.get("conversion"),
        "phases": _phases(run, fresh, shards, wall),
        "worker_seconds": _by_step(x.seconds for x in done),
        "worker_cpu_seconds": _by_step(x.cpu_seconds for x in done),
        "cpu_seconds": _cpu(done),
        "worker_bytes": _worker_bytes(fresh, spec),
        "peak_memory_bytes": _peak_memory(run, done),
        "memory": {"stage": _memory(fresh, ()), "write": _memory(shards, fresh)},
        "workers": run.workers,
        "versions": versions(),
        "config": spec.config,
    }


def _summed(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for name, number in (item for each in parts for item in each.items()):
        total[name] = total.get(name, 0) + number
    return total


def _by_step(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds of each step, in the order of the data's way."""
    total = _summed(parts)
    steps = sorted(total, key=lambda step: STEPS.index(step) if step in STEPS else -1)
    return {step: round(total[step], 3) for step in steps}


def duplicate_scenes(scenes: Iterable[StagedScene]) -> list[list[str]]:
    """Ids of scenes whose staged images are the same, byte for byte."""
    alike: dict[str, list[str]] = {}
    for scene in scenes:
        if scene.content:
            alike.setdefault(scene.content, []).append(scene.id)
    return [ids for ids in alike.values() if len(ids) > 1]


def _conversion(
    run: Run, scenes: Done, fresh: list[StagedScene], shards: Done, wall: float
) -> dict[str, Any] | None:
    """The rate of a whole conversion, and its seconds that grow with pixels. A run that found
    scenes staged has none of its own."""
    if not fresh or len(fresh) < len(scenes):
        return None
    source = sum(s.header.file_bytes for s in fresh)
    phases = _phases(run, fresh, shards, wall)
    return {
        "source_bytes": source,
        "seconds": wall,
        "mb_per_s": source / wall / 1e6,
        "work_seconds": _staging(run, fresh, phases) + phases.get("count", 0.0) + phases["write"],
    }


def _staging(run: Run, fresh: list[StagedScene], phases: Mapping[str, float]) -> float:
    """Seconds that staging took of all workers: what processes did of it beside the start was done
    by fewer of them than there are. With statistics, they may have counted in between."""
    workers = {u.worker for u in _usages(fresh)}
    if run.counting or not run.is_here or workers <= {Usage.now().worker}:
        return phases["stage"]
    seconds = [sum(s.seconds.values()) for s in fresh]
    shared = max(sum(seconds) / max(len(workers), min(run.workers, len(fresh))), max(seconds))
    return min(phases["stage"], round(shared, 3))


def _phases(run: Run, fresh: Done, shards: Done, wall: float) -> dict[str, float]:
    """Seconds on the clock: ``start`` until the first scene is opened, ``stage`` until the last
    one is staged, ``write`` from the first shard's beginning to the last one's end, and ``other``,
    which like ``start`` does not grow with pixels. With statistics, ``count`` is between ``stage``
    and ``write``."""
    from ..transforms import processes

    ends = [[(x.usage.at - sum(x.seconds.values()), x.usage.at) for x in part if x.usage]
            for part in (fresh, shards)]  # fmt: skip
    stage, write = (max(e for _, e in p) - min(b for b, _ in p) if p else 0.0 for p in ends)
    begun = [b for part in ends for b, _ in part]
    start = max(0.0, min(begun) - run.started) if begun else wall
    found = {"start": start, "stage": stage}
    if run.counting and all(ends):
        staged, first = max(e for _, e in ends[0]), min(b for b, _ in ends[1])
        # Processes may have done both before the pipeline had begun.
        found["count"] = max(0.0, first - max(staged, processes.asked_at()))
    found["write"] = write
    found["other"] = max(0.0, wall - sum(found.values()))
    return {name: round(seconds, 3) for name, seconds in found.items()}


def _cpu(done: Done) -> float:
    """Seconds of processor that all workers' processes have used, start-up and Beam included."""
    from ..transforms import processes

    held = [*_usages(done), *processes.usages()]
    used = {u.worker: u.cpu for u in sorted(held, key=lambda u: u.cpu)}
    now = Usage.now()
    return round(sum((used | {now.worker: now.cpu}).values()), 3)


def _usages(part: Done) -> list[Usage]:
    return [x.usage for x in part if x.usage]


def _worker_bytes(fresh: list[StagedScene], spec: DatasetSpec) -> dict[str, int]:
    """Bytes that went through each step, in memory for those that read or write no file."""
    area = spec.config["tile"]["size"] ** 2
    pixels = sum(s.read_bytes for s in fresh)
    bands = ((s, len(s.header.bands) * np.dtype(s.header.dtype).itemsize) for s in fresh)
    columns = ((s, f) for s in fresh for f in s.header.columns.values() if f.shape)
    tensors = sum(
        int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize
        for f in spec.features.values() if f.encoding == "tensor"
    )  # fmt: skip
    gathered = tensors * sum(s.num_examples for s in spec.splits.values())
    return {
        "read": pixels, "clean": pixels,
        "tile": sum(s.grid_count * area * depth for s, depth in bands),
        "labels": sum(s.grid_count * area * np.dtype(f.dtype).itemsize for s, f in columns),
        "stage": sum(s.stage_bytes for s in fresh),
        "gather": gathered, "serialize": gathered,
        "write": sum(s.num_bytes for s in spec.splits.values()),
    }  # fmt: skip


def _peak_memory(run: Run, done: Done) -> int:
    """The most memory that was held, in bytes: on this machine by all processes, those of Beam each
    counted as the largest, and what our own share with the command for each of them; on a cluster by
    one worker."""
    from ..transforms import processes

    now = Usage.now()
    peaks: dict[str, int] = {}
    for used in (*_usages(done), *processes.usages(), now):
        peaks[used.worker] = max(used.peak, peaks.get(used.worker, 0))
    if run.is_here:
        return sum(peaks.values())
    workers = max((u.peak for u in _usages(done)), default=0)
    return max(now.peak, workers) + run.processes * workers if run.workers else workers


def _memory(part: Done, earlier: Done) -> dict[str, Any]:
    """What a worker held in one phase: its peak in bytes, and its growth, see ``growth``.

    A process knows the most that it ever held. Where this was before, in the phase of
    ``earlier``, the most that it held at the end of a shard stands for the phase's peak.
    """
    before: dict[str, int] = {}
    for used in _usages(earlier):
        before[used.worker] = max(used.peak, before.get(used.worker, 0))
    usages = _usages(part)
    peaks = [u.peak if u.peak > before.get(u.worker, 0) else u.rss for u in usages]
    return {"peak_bytes": max(peaks, default=0), "growth": growth(_levelled(usages))}


def _levelled(usages: Sequence[Usage]) -> list[tuple[float, float]]:
    """(seconds, bytes) of all workers, each one's bytes less its median: workers that hold
    different amounts grow alike."""
    held: dict[str, list[int]] = {}
    for u in usages:
        held.setdefault(u.worker, []).append(u.rss)
    middle = {worker: float(np.median(rss)) for worker, rss in held.items()}
    return [(u.at, u.rss - middle[u.worker]) for u in usages]


def versions() -> dict[str, str]:
    """Versions of what decides speed and results."""
    found = {"python": platform.python_version()}
    for name in ("scenefeed", "apache-beam", "numpy", "rasterio", "h5py", "tensorflow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

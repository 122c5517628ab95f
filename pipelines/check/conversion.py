"""Conversion: how fast, where the time goes, and what of the machine bounds it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...loader.spec import DatasetError, DatasetSpec
from ...transforms.storage import is_remote
from ..folder import read_metrics
from ..results import METRICS
from .limits import measure_limits
from .sample import SAMPLE_BYTES, SECONDS, choose, repeat
from .verdict import result

if TYPE_CHECKING:
    from .targets import Targets

# What each step cannot be faster than, of ``limits.measure_limits``.
LIMITS = {
    "read": "read", "clean": "memcpy", "tile": "memcpy", "labels": "memcpy", "stage": "copy",
    "gather": "copy", "serialize": "memcpy", "write": "core",
}  # fmt: skip
LEAST_USE = 0.5  # of a resource; where none is used so much, it is none of them that bounds
LEAST_BYTES = 100e6  # of source: from less, nothing is said of 100 GB


def conversion(
    folder: Path, targets: Targets, scenes: Sequence[str] | None = None, *,
    most: float = SAMPLE_BYTES, seconds: float = SECONDS,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:  # fmt: skip
    """The rate of a conversion, by metrics.json or of a sample that is converted now.

    What bounds it follows from the utilization law (Denning and Buzen, The operational analysis of
    queueing network models, 1978): a resource's use is the time that the bytes or instructions
    would take it alone, by its measured limit, as a share of the time that was taken; the one used
    most bounds the rate.

    Args:
      folder: the dataset.
      targets: what to compare with.
      scenes: to convert now, by the dataset's configuration; None to believe metrics.json.
      most: bytes of source in the sample.
      seconds: no repetition of it begins later.

    Returns:
      Results, and a section for the JSON (docs/check.md).

    Raises:
      ConfigError: a scene is not there.
      DatasetError: no metrics.json where there must be one, or a damaged one.
      JobError: the sample cannot be converted.
    """
    if scenes is None:
        runs, origin = [_read(folder)], dict[str, Any]({"from": "metrics.json"})
        disk: Path | None = None if is_remote(folder) else folder
    else:
        sample = choose(DatasetSpec.load(str(folder)).config, scenes, most)
        disk = None if is_remote(folder) else folder.absolute().parent
        runs = repeat(sample, disk or Path(tempfile.gettempdir()), seconds)
        origin = {
            "from": "sample", "scenes_found": sample.found, "scenes": len(sample.scenes),
            "seconds": [r["wall_seconds"] for r in runs], "tree": [r["tree"] for r in runs],
        }  # fmt: skip
    limits = measure_limits(disk)
    found = [_figures(run, limits) for run in runs]
    # The run in the middle stands for its stages.
    section = origin | sorted(found, key=lambda f: f["mb_per_s"] or 0)[len(found) // 2]
    section |= {"limits": limits, "memory": runs[-1].get("memory")}
    section["warnings"] = _warnings(runs, section)
    return _results(runs, found, section, targets), section


def _read(folder: Path) -> dict[str, Any]:
    found = read_metrics(folder)
    missing = [
        k for k in ("bytes", "rates", "worker_seconds", "peak_memory_bytes") if k not in found
    ]
    if missing:
        raise DatasetError(
            f"{folder / METRICS}: says nothing of {missing[0]}: convert again, or give --scenes"
        )
    return found


def _figures(run: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """What one run comes to; None where its metrics.json is of an older version, or it found its
    scenes staged."""
    measured, workers = run.get("conversion") or {}, run.get("workers") or 0
    rate, work = measured.get("mb_per_s"), measured.get("work_seconds")
    source = measured.get("source_bytes", 0)
    own = source == run["bytes"]["source"] > 0  # the steps' seconds are of the same run
    cpu = run.get("worker_cpu_seconds")
    fixed = measured["seconds"] - work if work else None
    found: dict[str, Any] = {
        "source_bytes": source, "mb_per_s": rate, "workers": workers, "start_seconds": fixed,
        "work_seconds": work, "patches_per_s": run["rates"]["patches_per_s"] if own else None,
        "mb_per_s_per_core": rate / workers if rate and workers else None,
        "hours_per_100_gb": _seconds(measured, 100e9) / 3600 if rate else None,
        "core_seconds_per_gb": sum(cpu.values()) / source * 1e9 if own and cpu else None,
        "stages": _stages(run, limits), "uses": {}, "bound": None,
    }  # fmt: skip
    if own and cpu and work and workers:
        # To count scenes for statistics is no step: its seconds of processor are not known.
        counted = run.get("phases", {}).get("count", 0.0)
        found["uses"] = _uses(run, limits, work - counted)
        bound = max(found["uses"], key=found["uses"].__getitem__)
        found["bound"] = bound if found["uses"][bound] >= LEAST_USE else "waiting"
    return found


def _seconds(measured: Mapping[str, Any], num_bytes: float) -> float:
    """How long so much source would take: what comes once, and the rest in proportion."""
    whole, source = measured["seconds"], measured["source_bytes"]
    work = measured.get("work_seconds", whole)
    return float(whole - work + work / source * num_bytes)


def _stages(run: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    spent, cpu = run["worker_seconds"], run.get("worker_cpu_seconds", {})
    moved, whole = run.get("worker_bytes", {}), sum(spent.values())
    found = {}
    for step, seconds in spent.items():
        rate = moved[step] / seconds / 1e6 if moved.get(step) and seconds else None
        limit = limits.get(f"{LIMITS.get(step, '')}_mb_per_s")
        found[step] = {
            "seconds": seconds, "share": seconds / whole if whole else None,
            "cpu_share": min(1.0, cpu[step] / seconds) if step in cpu and seconds else None,
            "mb_per_s": rate, "limit_mb_per_s": limit,
            "of_limit": rate / limit if rate and limit else None,
        }  # fmt: skip
    return found


def _uses(run: Mapping[str, Any], limits: Mapping[str, Any], work: float) -> dict[str, float]:
    """The share of the time of work that processors, disk and memory were needed for, at least."""
    moved = run["worker_bytes"]
    cores = min(run["workers"], limits["cores"])
    uses = {
        "cpu": sum(run["worker_cpu_seconds"].values()) / cores / work,
        "memory": sum(moved.values()) / 1e6 / limits["memcpy_all_mb_per_s"] / work,
    }
    if "write_mb_per_s" in limits and not limits["cached"]:
        read = run["bytes"]["source"] / limits["read_mb_per_s"]
        written = (moved["stage"] + moved["write"]) / limits["write_mb_per_s"]
        uses["disk"] = (read + written) / 1e6 / work
    return uses


def _results(
    runs: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]],
    section: Mapping[str, Any], targets: Targets,
) -> list[dict[str, Any]]:  # fmt: skip
    measured = [m for run in runs if (m := run.get("conversion"))]
    once, asked = section["from"] == "metrics.json", targets.conversion
    # metrics.json of an older version does not tell start-up apart: the whole rate counts.
    apart = bool(measured) and all("work_seconds" in m for m in measured)
    lines = [result(
        "conversion", [m["mb_per_s"] for m in measured], "MB/s",
        None if apart else targets.convert_mb_per_s, "at least", _advice(section, "{value:.1f} MB/s"),
        exact=once, words=_words(section) if measured else "",
        **{k: section[k] for k in ("hours_per_100_gb", "patches_per_s", "mb_per_s_per_core")},
    )]  # fmt: skip
    if apart:
        short = min(m["source_bytes"] for m in measured) < LEAST_BYTES
        few = f", no verdict from less than {LEAST_BYTES / 1e6:g} MB" if short else ""
        lines.append(result(
            f"conversion of {asked.gb:g} GB", [_seconds(m, asked.gb * 1e9) for m in measured], "s",
            None if short else asked.seconds, "at most", _advice(section, "{value:.0f} s"),
            exact=once, words=f"extrapolated{few}",
        ))  # fmt: skip
    lines.append(result(
        "peak memory, conversion", [r["peak_memory_bytes"] / 2**30 for r in runs], "GiB",
        targets.memory_gib, "at most",
        "conversion held {value:.2f} GiB: use fewer workers (--direct_num_workers)", exact=once,
    ))  # fmt: skip
    return lines


def _words(section: Mapping[str, Any]) -> str:
    """Where the time went, for the table."""
    steps = sorted(section["stages"].items(), key=lambda s: -(s[1]["share"] or 0))[:3]
    said = [", ".join(f"{k} {s['share']:.0%}" for k, s in steps)] if steps else []
    if section["start_seconds"] is not None:
        whole = section["start_seconds"] + section["work_seconds"]
        said.insert(0, f"{section['start_seconds']:.1f} of {whole:.1f} s start-up")
    if section["bound"]:
        said.append(f"bound by {section['bound']}")
    return "; ".join(said)


def _advice(section: Mapping[str, Any], value: str) -> str:
    """What would help, by what was measured."""
    uses, limits, bound = section["uses"], section["limits"], section["bound"]
    spent = {k: s["seconds"] for k, s in section["stages"].items()}
    slowest = max(spent, key=spent.__getitem__) if spent else "start-up"
    said = f"conversion took {value}" if value.endswith(" s") else f"conversion ran at {value}"
    if bound == "disk":
        return (
            f"{said}: this disk, at {limits['read_mb_per_s']:.0f} MB/s read and "
            f"{limits['write_mb_per_s']:.0f} written, needs {uses['disk']:.0%} of that time: put "
            "--output or --stage_dir on a faster one"
        )
    if bound == "memory":
        return (
            f"{said}: copying memory, at {limits['memcpy_all_mb_per_s']:.0f} MB/s, needs "
            f"{uses['memory']:.0%} of that time: use more machines (--runner)"
        )
    if bound == "cpu":
        return (
            f"{said}: the processors were busy {uses['cpu']:.0%} of the time of work, most of it "
            f"in {slowest}: give it more cores, or more machines (--runner)"
        )
    if bound == "waiting":
        most = max(uses, key=uses.__getitem__)
        return (
            f"{said}: nothing was used more than {uses[most]:.0%} ({most}): a scene is one "
            f"worker's, so convert more of them at once than the {section['workers']} workers"
        )
    return (
        f"{said}: the slowest step was {slowest}; give it more cores or a faster disk "
        "(small inputs are mostly start-up)"
    )


def _warnings(runs: Sequence[Mapping[str, Any]], section: Mapping[str, Any]) -> list[str]:
    found = [section["limits"]["problem"]] if "problem" in section["limits"] else []
    if "worker_cpu_seconds" not in runs[-1]:
        found.append(
            "metrics.json is of an older version: it does not tell start-up from work, nor what "
            "bounds it; convert again, or give --scenes"
        )
    if section.get("scenes", section["workers"]) < section["workers"]:
        found.append(
            f"the sample is of {section['scenes']} scenes for {section['workers']} workers, and a "
            "scene is staged by one: more or smaller scenes would be faster"
        )
    for words in runs[-1].get("dead", []):
        found.append(f"a scene of the sample was left out: {words}")
    if section["uses"].get("disk", 0) > 1:
        hours = section["hours_per_100_gb"] * section["uses"]["disk"]
        found.append(
            f"this conversion was faster than its disk, which the page cache hid: at "
            f"{section['limits']['write_mb_per_s']:.0f} MB/s written, 100 GB take about {hours:.1f} hours"
        )
    for phase, held in (section["memory"] or {}).items():
        grown = held["growth"]
        if grown and grown["leak"]:
            found.append(
                f"memory grew while scenes were {'staged' if phase == 'stage' else 'written'}: "
                f"{grown['bytes'] / 2**20:.0f} MiB in {grown['seconds']:.0f} s, beyond the noise of "
                f"{grown['noise_bytes'] / 2**20:.0f} MiB: please report it"
            )
    return found

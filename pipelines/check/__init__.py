"""check: conversion, loading and memory, measured and compared with the targets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...loader.spec import DatasetSpec
from ..results import METRICS, versions
from .noise import watching
from .table import table
from .verdict import result

if TYPE_CHECKING:
    from .targets import Targets

SECONDS, STEP_MS = 3.0, 100.0


def check(
    folder: Path, split: str | None, targets: Targets, *, scenes: Sequence[str] | None = None,
    options: Any = None, shared_disk: bool = False, seconds: float = SECONDS,
    step_ms: float = STEP_MS, drop: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measures, and compares with the targets.

    Args:
      folder: the dataset.
      split: which split is loaded; the largest by default.
      targets: what to compare with.
      scenes: converted now, for the rate; None to believe metrics.json.
      options: Beam's, where shards are to be read by a job on its workers; None to load here.
      shared_disk: the workers of a cluster see this machine's paths.
      seconds: how long each figure of loading is measured, at least.
      step_ms: of a simulated training step.
      drop: empty all of the page cache for what is measured cold.

    Returns:
      What ``--json`` writes (docs/check.md).

    Raises:
      ConfigError: a scene is not there, or workers cannot see the dataset.
      DatasetError: no complete dataset, no such split, or an empty one.
      JobError: a job, or a process that measures, broke off.
    """
    spec = DatasetSpec.load(str(folder))
    chosen = split or max(spec.splits, key=lambda k: spec.splits[k].num_examples)
    count = spec.split(chosen).num_examples
    parts: dict[str, dict[str, Any]] = {}
    with watching() as seen:
        results, parts["conversion"] = _conversion(folder, targets, scenes)
        if options is None:
            from .loading import loading

            found, parts["loading"] = loading(
                str(folder), spec, chosen, targets, seconds=seconds, step_ms=step_ms, drop=drop,
                limits=parts["conversion"].get("limits", {}),
            )  # fmt: skip
        else:
            from .distributed import distributed

            found, parts["distributed"] = distributed(
                str(folder), chosen, options, targets, shared_disk
            )
        results += found
    warnings = [w for part in parts.values() for w in part.pop("warnings", ())]
    return {
        "dataset": str(folder), "fingerprint": spec.fingerprint, "split": chosen, "records": count,
        "machine": _machine() | {
            "busy": seen.busy, "steal": seen.steal, "limits": parts["conversion"].get("limits"),
        },
        "targets": targets.model_dump(), "results": results, **parts,
        "warnings": [*warnings, *([seen.warning] if seen.warning else [])],
        "met": all(r["met"] is not False for r in results),
    }  # fmt: skip


def _conversion(
    folder: Path, targets: Targets, scenes: Sequence[str] | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from .conversion import conversion

    if scenes is None and not (folder / METRICS).exists():
        words = f"no {METRICS}: --scenes converts a sample"
        target = targets.convert_mb_per_s
        return [result("conversion", [], "MB/s", target, "at least", "", words=words)], {}
    return conversion(folder, targets, scenes)


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cores": os.cpu_count(), "memory_gib": memory / 2**30, "versions": versions()}


__all__ = ["check", "table"]

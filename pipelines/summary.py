"""What convert prints at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .results import ERRORS


def summary(out: Path, metrics: dict[str, Any]) -> str:
    """A few lines: what was done, how fast, where it lies."""
    scenes, patches, size = metrics["scenes"], metrics["patches"], metrics["bytes"]
    reused = f" ({scenes['reused']} staged before)" if scenes["reused"] else ""
    dropped = f", {patches['dropped']:,} dropped" if patches["dropped"] else ""
    splits = ", ".join(
        f"{k} {n:,} in {metrics['shards'][k]} shards" for k, n in patches["by_split"].items()
    )
    spent = metrics["worker_seconds"]
    steps = ", ".join(f"{k} {v:.1f}" for k, v in spent.items() if v >= 0.05) or "under 0.1"
    lines = [
        f"scenes   {scenes['done']} done{reused}, {scenes['failed']} failed",
        f"patches  {patches['kept']:,} kept{dropped}: {splits}",
        f"bytes    {_mb(size['source'])} read, {_mb(size['stage'])} staged, "
        f"{_mb(size['records'])} of records",
        f"time     {metrics['wall_seconds']:.1f} s: {_rate(metrics)}"
        f"{metrics['rates']['patches_per_s']:,.0f} patches/s; worker seconds: {steps}",
        f"memory   {metrics['peak_memory_bytes'] / 2**30:.2f} GiB at most",
        f"dataset  {out}  fingerprint {metrics['fingerprint'][:16]}",
    ]
    empty = [k for k, n in patches["by_split"].items() if not n]
    if empty:
        lines.append(f"note     no patch fell to {', '.join(empty)}: use more scenes, another "
                     "split.by or larger shares")  # fmt: skip
    return "\n".join(lines)


def dead_letters(out: Path) -> list[str]:
    """errors.jsonl, a line a scene, as a person reads it."""
    letters = [json.loads(line) for line in (out / ERRORS).read_text().splitlines()]
    return [
        f"{d['scene']}: {d['reason']} ({d['step']}"
        + (f", at row {d['window'][0]}, column {d['window'][1]}" if d["window"] else "")
        + f"): {d['file']}"
        for d in letters
    ]


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _rate(metrics: dict[str, Any]) -> str:
    if not metrics["bytes"]["source"]:
        return ""
    return f"{metrics['rates']['source_mb_per_s']:,.1f} MB/s of source, "

"""What convert prints at its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .results import ERRORS, STATISTICS


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
    tallies = ", ".join(f"{k} {n:,}" for k, n in metrics["tallies"].items())
    if tallies:
        lines.append(f"counted  {tallies}")
    for ids in metrics["duplicate_scenes"][:5]:
        lines.append(f"note     scenes {', '.join(ids[:8])} hold the same images")
    if patches["repeated_in_scene"]:
        lines.append(f"note     {patches['repeated_in_scene']:,} patches repeat another's image "
                     "in their scene")  # fmt: skip
    empty = [k for k, n in patches["by_split"].items() if not n]
    if empty:
        lines.append(f"note     no patch fell to {', '.join(empty)}: use more scenes, another "
                     "split.by or larger shares")  # fmt: skip
    return "\n".join(lines)


def statistics_lines(out: Path, document: dict[str, Any]) -> list[str]:
    """What the statistics say, a line a band and a label."""
    lines = [f"of {document['patches']:,} patches of {document['split']}"]
    for name, band in document["bands"].items():
        if band["count"]:
            lines.append(
                f"{name}: mean {band['mean']:.6g}, std {band['std']:.6g}, {band['min']:g} to "
                f"{band['max']:g}, {band['invalid']:.2%} invalid"
            )
    for name, label in document["labels"].items():
        if label["kind"] == "value" and label["count"]:
            lines.append(f"{name}: mean {label['mean']:.6g}, std {label['std']:.6g}")
        elif label["kind"] != "value" and label["counts"]:
            whole = max(1, sum(label["counts"].values()))
            shares = (f"{c} {n / whole:.2%}" for c, n in list(label["counts"].items())[:8])
            lines.append(f"{name}: {', '.join(shares)}")
    lines.append(f"normalize: {document['normalize']}; {out}/{STATISTICS}")
    return [f"{'statistics' if i == 0 else '':<11}{line}" for i, line in enumerate(lines)]


def dead_letters(out: Path) -> list[str]:
    """errors.jsonl, a line a scene, as a person reads it."""
    letters = [json.loads(line) for line in (out / ERRORS).read_text().splitlines()]
    return [
        f"{d['scene']}: {d['reason']} ({d['step']}"
        + (f", at row {d['window'][0]}, column {d['window'][1]}" if d["window"] else "")
        + f"): {d['file']}"
        for d in letters
    ]


def verify_lines(report: dict[str, Any]) -> list[str]:
    """What verify found of splits and duplicates."""
    lines = []
    for splits, gap in report["separation"].items():
        if gap["pixels"] is None:
            words = "share no scene"
        else:
            metres = f" ({gap['metres']:,.0f} m)" if gap["metres"] is not None else ""
            words = f"at least {gap['pixels']:,.1f} pixels{metres} apart within scenes"
        if gap["overlapping"]:
            words += (
                f"; WARNING: {gap['overlapping']:,} pairs of patches of different scenes overlap on "
                "the ground (split by block with unit: metres, or by polygons)"
            )
        lines.append(f"{splits}: {words}")
    found = report["duplicates"]
    if found["records"]:
        across = found["across_splits"]
        lines.append(
            f"{found['records']:,} records repeat another's image, byte for byte"
            + (f"; {across:,} images stand in several splits" if across else "")
        )
    return lines


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _rate(metrics: dict[str, Any]) -> str:
    if not metrics["bytes"]["source"]:
        return ""
    return f"{metrics['rates']['source_mb_per_s']:,.1f} MB/s of source, "


def conclude(out: Path, metrics: dict[str, Any], max_failed: int) -> int:
    """The closing summary, and the exit code."""
    failed = metrics["scenes"]["failed"]
    letters = dead_letters(out)
    for line in letters[:5]:
        print(f"scenefeed: {line}", file=sys.stderr)
    if failed > 5:
        print(f"scenefeed: ... {failed - 5} more in {out / 'errors.jsonl'}", file=sys.stderr)
    if metrics["status"] == "empty":
        print(f"scenefeed: {_why_empty(metrics)}", file=sys.stderr)
        return 1
    print(summary(out, metrics))
    return too_many_failed(out, metrics, max_failed)


def too_many_failed(out: Path, metrics: dict[str, Any], max_failed: int) -> int:
    failed = metrics["scenes"]["failed"]
    if failed > max_failed:
        print(
            f"scenefeed: {failed} scenes failed, more than --max_failed {max_failed}: the dataset "
            f"holds the other {metrics['scenes']['done']}; reasons in {out / 'errors.jsonl'}",
            file=sys.stderr,
        )
        return 1
    return 0


def _why_empty(metrics: dict[str, Any]) -> str:
    if not metrics["scenes"]["done"]:
        return f"no scene could be used: all {metrics['scenes']['failed']} failed (errors.jsonl)"
    patches = metrics["patches"]
    if not patches["grid"]:
        return "no patches: no point that they are to be centred on lies far enough inside a scene"
    if patches["staged"]:
        return (
            f"every patch was dropped: sample and split leave none of {patches['staged']}: "
            "look at these two sections"
        )
    return (
        f"every patch was dropped: none of {patches['grid']} reaches min_valid or is labelled "
        "where sample.labelled wants it: lower clean.min_valid (--min_valid), or look at the "
        "scenes' nodata and at tallies in scenes.jsonl"
    )

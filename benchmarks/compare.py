"""Two results of run.py side by side: ratios, and whether they are beyond the noise.

    python benchmarks/compare.py BEFORE.json AFTER.json

A row's noise is how far its runs lie apart, (most - least) / median, the larger of both files'. A
difference counts where the runs of one file all lie beyond those of the other; with fewer than
three runs each there is no verdict.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LEAST = 3  # runs of each that a verdict takes


def verdict(before: Sequence[float], after: Sequence[float]) -> str:
    if min(len(before), len(after)) < LEAST:
        return "too few runs"
    if max(after) < min(before):
        return "faster"
    if min(after) > max(before):
        return "slower"
    return "within the noise"


def spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """One dictionary a row that both have: medians, ratios of clock and of core-seconds, noise."""
    found = []
    for name in (n for n in before["rows"] if n in after["rows"]):
        a, b = ([r["figure"] for r in each["rows"][name]] for each in (before, after))
        core = [[r["user_s"] + r["sys_s"] for r in each["rows"][name]] for each in (before, after)]
        found.append({
            "row": name, "before": statistics.median(a), "after": statistics.median(b),
            "ratio": statistics.median(b) / statistics.median(a),
            "core_ratio": statistics.median(core[1]) / statistics.median(core[0]),
            "noise": max(spread(a), spread(b)), "verdict": verdict(a, b),
        })  # fmt: skip
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """In what else the two runs differ, which the ratios then also measure."""
    a, b = before["machine"] | {"size": before["size"]}, after["machine"] | {"size": after["size"]}
    own = ("commit", "others_busy", "steal")
    lines = [f"{k}: {a.get(k)} and {b.get(k)}" for k in a if k not in own and a[k] != b.get(k)]
    for name, each in (("before", a), ("after", b)):
        if (each.get("others_busy") or 0) > 0.1:
            lines.append(f"{name}: others used {each['others_busy']:.0%} of the machine")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    args = parser.parse_args(argv)
    try:
        before, after = (json.loads(p.read_text()) for p in (args.before, args.after))
        rows = compare(before, after)
    except (OSError, ValueError, KeyError, TypeError) as e:
        print(f"compare: {args.before}, {args.after}: not results of run.py: {e}", file=sys.stderr)
        return 2
    print(f"before {before['machine']['commit']}, after {after['machine']['commit']}\n")
    print("| row | before s | after s | ratio | core-seconds | noise | |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['row']} | {r['before']:.3g} | {r['after']:.3g} | {r['ratio']:.2f} "
            f"| {r['core_ratio']:.2f} | {r['noise']:.0%} | {r['verdict']} |"
        )
    for line in differences(before, after):
        print(f"differs: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""All benchmarks, each beside its reference, in one run.

    make bench        (or: python benchmarks/run.py --size 8192 --rounds 3 --json bench.json)

Two scenes of SIZE x SIZE x 2 float32 are made with a fixed seed. Then, ROUNDS times, all rows
(rows.py) run in an order drawn anew, each as a process of its own. Prints medians, spreads and
ratios; --json keeps every run with the machine's facts, for compare.py to lay beside another.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from floors import STEPS
from machine import facts
from rows import GIB_SIDE, SCENEFEED, Row, growth_sides, rows, sizes

from scenefeed.pipelines.check import cold
from scenefeed.pipelines.check.noise import watching

FLOORS = "floors: core-seconds a GB"
Runs = dict[str, list[dict[str, Any]]]


def timed(command: list[str]) -> dict[str, Any]:
    """Seconds (on the clock, user, system) and peak MiB of a whole process, what it says in JSON,
    and the share of the machine that others had meanwhile."""
    os.sync()  # else this one waits while the disk takes what the one before wrote
    with watching() as seen, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        said = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        if status:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()[-2000:]}")
    found = {
        "wall_s": wall, "user_s": usage.ru_utime, "sys_s": usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024, "others_busy": seen.busy, "steal": seen.steal,
    }  # fmt: skip
    if said and said[-1].startswith("{"):
        found |= json.loads(said[-1])
    return found


def make_scenes(work: Path, size: int, gib: int, names: list[str]) -> None:
    """The scenes of the rows that are asked for, and a configuration for each."""
    beside = any(not n.startswith(("growth", "size")) for n in names)
    wanted = {"synth": (2, size)} if beside else {}
    for count, side in growth_sides(size):
        if any(n.startswith(f"growth: {count} scene") for n in names):
            wanted[f"growth-{count}"] = count, side
    for folder, (count, side) in wanted.items():
        synth = ["synth", str(work / folder), "--scenes", str(count), "--size", str(side)]
        timed([*SCENEFEED, *synth, "--seed", "0"])
        _configure(work, folder)
    _copy_scenes(work, [n for n in sizes(gib) if f"size: {n} GiB" in names])


def _copy_scenes(work: Path, numbers: list[int]) -> None:
    """So many scenes of a GiB for each of some rows, all of the same pixels: to make others would
    take ten times as long as to copy them. Rows share the files."""
    if not numbers:
        return
    made = work / "size"
    synth = ["synth", str(made), "--scenes", "1", "--size", str(GIB_SIDE), "--seed", "0"]
    timed([*SCENEFEED, *synth])
    copies = [made / "scenes/synth_00.tif"]
    for i in range(1, numbers[-1]):
        copies.append(made / f"copy_{i:02d}.tif")
        shutil.copyfile(copies[0], copies[i])
    for number in numbers:
        (work / f"size-{number}/scenes").mkdir(parents=True)
        for copy in copies[:number]:
            os.link(copy, work / f"size-{number}/scenes" / copy.name)
        _configure(work, f"size-{number}")


def _configure(work: Path, folder: str) -> None:
    (work / f"{folder}.yaml").write_text(
        f"scenes: {{paths: [{folder}/scenes]}}\ntile: {{size: 64}}\nrecords: {{num_shards: 16}}\n"
    )


def measure(work: Path, todo: list[Row], rounds: int) -> Runs:
    """Every row, in the first round in order, since some read what others leave; then shuffled."""
    results: Runs = {row.name: [] for row in todo}
    rng, out = random.Random(0), work / "out"
    for number in range(rounds):
        order = todo if not number else rng.sample(todo, len(todo))
        # Last what comes from the disk: it pushes out of memory what the others read.
        for row in sorted(order, key=lambda row: row.cold):
            _discard(out)
            scenes = [str(path) for path in Path(row.scenes).glob("*.tif")] if row.scenes else []
            (cold.empty if row.cold else cold.fill)(scenes)
            found = timed([part.replace("OUT", str(out)) for part in row.command])
            found["figure"] = found.get("seconds", found["wall_s"]) / (row.mib or 1)
            metrics = out / "metrics.json"
            if metrics.exists():
                found["steps"] = steps(json.loads(metrics.read_text()))
            results[row.name].append(found)
            print(f"round {number + 1}: {row.name}: {found['figure']:.4g} s", file=sys.stderr)
            if row.keep and not (work / row.keep).exists():
                out.rename(work / row.keep)
    _discard(out)
    for discarded in work.glob("discarded-*"):
        shutil.rmtree(discarded)
    return results


def _discard(out: Path) -> None:
    """Puts a row's output away, emptied. To remove it would cost the next row: an ext4 without a
    journal passes over each inode that was removed in the last minutes (0.3 to 0.8 ms a file)."""
    if out.exists():
        for file in out.rglob("*"):
            if file.is_file():
                os.truncate(file, 0)
        out.rename(out.with_name(f"discarded-{uuid.uuid4().hex}"))


def steps(metrics: dict[str, Any]) -> dict[str, float]:
    """Core-seconds per GB of each of the conversion's steps."""
    done = metrics["worker_bytes"]
    spent = metrics["worker_cpu_seconds"]
    return {s: spent[s] / done[s] * 1e9 for s in STEPS if done.get(s) and s in spent}


def table(results: Runs, todo: list[Row]) -> str:
    lines = [
        "| row | median s [min, max] | of its reference's | user + system s | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for row in todo:
        runs = results[row.name]
        times = [r["figure"] for r in runs]
        ratio = ""
        if row.reference in results:
            reference = [r["figure"] for r in results[row.reference]]
            ratio = f"{statistics.median(a / b for a, b in zip(times, reference, strict=True)):.2f}"
        core = statistics.median(r["user_s"] + r["sys_s"] for r in runs)
        lines.append(
            f"| {row.name}{' (s a MiB)' if row.mib else ''} | {statistics.median(times):.3g} "
            f"[{min(times):.3g}, {max(times):.3g}] | {ratio} | {core:.3g} "
            f"| {max(r['peak_mib'] for r in runs):.0f} |"
        )
    return "\n".join(lines)


def step_table(results: Runs) -> str:
    """Core-seconds per GB of each step beside the sum of what it cannot do without."""
    if "convert: scenefeed" not in results or FLOORS not in results:
        return ""
    lines = ["| step | core-seconds a GB | floor | times its floor |", "|---|---|---|---|"]
    for step, parts in STEPS.items():
        found = [r["steps"][step] for r in results["convert: scenefeed"] if step in r["steps"]]
        if not found:
            continue
        floor = sum(statistics.median(r[p] for r in results[FLOORS]) for p in parts)
        value = statistics.median(found)
        words = " + ".join(parts)
        lines.append(f"| {step} | {value:.2f} | {floor:.2f} ({words}) | {value / floor:.1f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096, help="side of the two scenes, pixels")
    parser.add_argument(
        "--gib", type=int, default=0, metavar="N",
        help="rows of 1, 2, 4 ... up to N GiB read from the disk, which takes 3 times N of it and 2 more",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name this pattern finds")
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for every run, for compare.py")
    args = parser.parse_args(argv)
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="scenefeed-bench-", dir=args.work))
    try:
        every = rows(work, args.size, args.gib)
        todo = [r for r in every if re.search(args.only, r.name)]
        if not todo:
            listed = "\n  ".join(r.name for r in every)
            parser.error(f"--only {args.only!r} finds no row of:\n  {listed}")
        groups = {r.name.split(":")[0] for r in todo}
        if groups & {"load", "check"}:  # they read what these leave
            todo = [r for r in every if r in todo or r.keep]
        make_scenes(work, args.size, args.gib, [r.name for r in todo])
        with watching() as seen:
            results = measure(work, todo, args.rounds)
        machine = facts() | {"others_busy": seen.busy, "steal": seen.steal}
        kept = {
            "machine": machine,
            "size": args.size,
            "gib": args.gib,
            "rounds": args.rounds,
            "rows": results,
        }
        if args.json:
            args.json.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"{json.dumps(machine)}\n\n{table(results, todo)}\n\n{step_table(results)}")
        if seen.warning:
            print(seen.warning)
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())

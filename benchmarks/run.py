"""The figures in the README, each beside its reference, in one run.

    make bench        (or: python benchmarks/run.py --size 8192 --runs 3 --json bench.json)

Synthesizes two scenes (fixed seed), then in turn, RUNS times each: the published recipe
(recipe.py), convert by threads and by processes; then loading, the recipe's tf.data pipe, `load`
and `Reader`, each in a process of its own. Prints medians, spreads and ratios.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def timed(command: list[str]) -> dict[str, float]:
    """Wall and user seconds and peak MiB of a whole process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    found = {
        "wall_s": time.perf_counter() - start,
        "user_s": usage.ru_utime,
        "sys_s": usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }
    if out.startswith("{"):
        found |= json.loads(out)
    return found


def rows(work: Path, size: int) -> dict[str, list[str]]:
    """What is measured: a name and a command each. OUT is made anew for each run."""
    py, config = sys.executable, str(work / "plain.yaml")
    command = [py, "-m", "scenefeed.pipelines.cli", "convert", "--config", config]
    processes = ["--direct_running_mode=multi_processing"]
    load = [py, str(HERE / "load.py")]
    return {
        "convert: recipe": [py, str(HERE / "recipe.py"), str(work / "synth/scenes"), "OUT"],
        "convert: scenefeed": [*command, "--output", "OUT"],
        "convert: scenefeed, processes": [*command, "--output", "OUT", *processes],
        "load: recipe": [*load, "recipe", str(work / "kept-recipe")],
        "load: load()": [*load, "load", str(work / "kept-scenefeed")],
        "load: load(source='stream')": [*load, "stream", str(work / "kept-scenefeed")],
        "load: Feed": [*load, "reader", str(work / "kept-scenefeed")],
    }


def measure(work: Path, size: int, runs: int) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {}
    for run in range(runs):
        for name, command in rows(work, size).items():
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            results.setdefault(name, []).append(
                timed([c.replace("OUT", str(out)) for c in command])
            )
            print(f"run {run + 1}: {name}: {results[name][-1]}", file=sys.stderr, flush=True)
            kept = work / f"kept-{name.split()[-1]}"
            if name in ("convert: recipe", "convert: scenefeed") and not kept.exists():
                out.rename(kept)
    return results


def table(results: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        "| row | median s [min, max] | of the recipe's | user s | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        key = "group_s" if name.startswith("load") else "wall_s"
        times = [r[key] for r in runs]
        reference = [r[key] for r in results[name.split(":")[0] + ": recipe"]]
        ratio = statistics.median(a / b for a, b in zip(times, reference, strict=True))
        user = statistics.median(r["user_s"] for r in runs)
        peak = max(r["peak_mib"] for r in runs)
        lines.append(
            f"| {name} | {statistics.median(times):.3g} [{min(times):.3g}, {max(times):.3g}] "
            f"| {ratio:.2f} | {user:.1f} | {peak:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="scenefeed-bench-", dir=args.work))
    try:
        synth = ["synth", str(work / "synth"), "--size", str(args.size), "--seed", "0"]
        timed([sys.executable, "-m", "scenefeed.pipelines.cli", *synth])
        (work / "plain.yaml").write_text(
            "scenes: {paths: [synth/scenes]}\ntile: {size: 64}\nrecords: {num_shards: 16}\n"
        )
        results = measure(work, args.size, args.runs)
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "size": args.size}
        if args.json:
            args.json.write_text(json.dumps({"machine": machine, "rows": results}, indent=2))
        print(table(results))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()

"""``scenefeed check``: the throughput check."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from ..arguments import add_command, add_shared_disk, add_verbose, positive, write_json

BEAM = True  # takes its flags too


def add(commands: Any) -> None:
    p = add_command(
        commands, "check", "the throughput check: measure, compare with the targets",
        epilog="With Beam's flags (--runner, ...), shards are read by a job on the runner's workers "
        "instead of here. All that is measured: docs/check.md.",
    )  # fmt: skip
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--scenes", nargs="+", metavar="SCENE",
                   help="convert these now, by the dataset's configuration, instead of believing "
                   "metrics.json")  # fmt: skip
    p.add_argument("--split", help="which split to load (default: the largest)")
    p.add_argument("--targets", metavar="FILE",
                   help="YAML with the targets (docs/check.md); flags win over it")  # fmt: skip
    p.add_argument("--batch_size", type=positive, metavar="N", help="(default 1024)")
    p.add_argument("--convert_mb_per_s", type=_number, metavar="MB",
                   help="target: source MB converted a second (27.8 is 100 GB an hour)")  # fmt: skip
    p.add_argument("--load_seconds", type=_number, metavar="S",
                   help="target: seconds for 5 shuffled batches (default 2)")  # fmt: skip
    p.add_argument("--memory_gib", type=_number, metavar="GIB",
                   help="target: peak memory of conversion and of loading (default 2)")  # fmt: skip
    p.add_argument("--seconds", type=_number, default=3.0, metavar="S",
                   help="how long each figure of loading is measured, at least (default 3); "
                   "a leak needs minutes to show")  # fmt: skip
    p.add_argument("--step_ms", type=_number, default=100.0, metavar="MS",
                   help="how long a simulated training step takes (default 100)")  # fmt: skip
    p.add_argument("--drop_caches", action="store_true",
                   help="empty the whole machine's page cache for what is measured cold, not "
                   "only of the shards (root)")  # fmt: skip
    p.add_argument("--tensorboard", metavar="DIR", help="write the figures there for TensorBoard")
    add_shared_disk(p)
    add_verbose(p)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return value


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ...transforms.storage import path_of
    from .. import events
    from ..check import check, table
    from ..check.targets import targets_from

    targets = targets_from(
        args.targets, args.convert_mb_per_s, args.load_seconds, args.memory_gib, args.batch_size
    )
    from .. import runner  # Beam takes a second: a mistake is said before
    from ..quiet import quieten

    if not args.verbose:
        quieten()
    if args.tensorboard:
        events.prepare(args.tensorboard)
    report = check(
        path_of(args.output), args.split, targets, scenes=args.scenes,
        options=runner.pipeline_options(rest, args.output) if rest else None,
        shared_disk=args.shared_disk, seconds=args.seconds, step_ms=max(1.0, args.step_ms),
        drop=args.drop_caches,
    )  # fmt: skip
    write_json(args.json, report)
    if args.tensorboard:
        events.write_scalars(args.tensorboard, events.of_check(report))
    print(table(report))
    for warning in report["warnings"]:
        print(f"scenefeed: {warning}", file=sys.stderr)
    for missed in (r for r in report["results"] if r["met"] is False):
        print(f"scenefeed: {missed['name']}: {missed['advice']}", file=sys.stderr)
    return 0 if report["met"] else 1

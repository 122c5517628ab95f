"""``scenefeed check``: the throughput check."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..arguments import add_command, positive, write_json
from ..targets import CONVERT_MB_PER_S, LOAD_SECONDS, MEMORY_GIB


def add(commands: Any) -> None:
    p = add_command(commands, "check", "the throughput check: measure, compare with the targets")
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--split", help="which split to load (default: the largest)")
    p.add_argument("--batch_size", type=positive, default=1024, metavar="N", help="(default 1024)")
    p.add_argument("--convert_mb_per_s", type=float, default=CONVERT_MB_PER_S, metavar="MB",
                   help="target: source MB converted a second (27.8 is 100 GB an hour)")  # fmt: skip
    p.add_argument("--load_seconds", type=float, default=LOAD_SECONDS, metavar="S",
                   help="target: seconds for 5 shuffled batches (default 2)")  # fmt: skip
    p.add_argument("--memory_gib", type=float, default=MEMORY_GIB, metavar="GIB",
                   help="target: peak memory of conversion and of loading (default 2)")  # fmt: skip
    p.add_argument("--tensorboard", metavar="DIR", help="write the figures there for TensorBoard")


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ...transforms.storage import path_of
    from .. import events
    from ..check import check, table

    if args.tensorboard:
        events.prepare(args.tensorboard)
    report = check(
        path_of(args.output), args.split, args.batch_size,
        args.convert_mb_per_s, args.load_seconds, args.memory_gib,
    )  # fmt: skip
    write_json(args.json, report)
    if args.tensorboard:
        events.write_scalars(args.tensorboard, events.of_check(report))
    print(table(report))
    for missed in (r for r in report["results"] if r["met"] is False):
        print(f"scenefeed: {missed['advice']}", file=sys.stderr)
    return 0 if report["met"] else 1

"""``scenefeed verify``: every shard against dataset.json."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..arguments import add_command, write_json


def add(commands: Any) -> None:
    p = add_command(commands, "verify", "read every shard: checksums, counts, keys, values")
    p.add_argument("output", metavar="OUT", help="a converted dataset")


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ...transforms.storage import path_of
    from ..summary import verify_lines
    from ..verify import verify

    report = verify(path_of(args.output))
    write_json(args.json, report)
    for problem in report["problems"][:20]:
        print(f"scenefeed: {problem}", file=sys.stderr)
    if len(report["problems"]) > 20:
        print(f"scenefeed: ... {len(report['problems']) - 20} more", file=sys.stderr)
    for line in verify_lines(report):
        print(line)
    state = f"{len(report['problems'])} problems" if report["problems"] else "whole"
    print(
        f"{args.output}: {state}: {report['records']:,} records in {report['shards']} shards, "
        f"{report['bytes'] / 1e6:,.1f} MB, {report['nan']:,} NaN, {report['seconds']:.1f} s"
    )
    return 1 if report["problems"] else 0

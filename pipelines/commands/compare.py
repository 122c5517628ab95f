"""``scenefeed compare``: what a user could pick instead, on the user's own patches."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..arguments import add_command, positive, write_json


def add(commands: Any) -> None:
    p = add_command(commands, "compare", "files, CSV, HDF5, tf.data, TFRecord and scenefeed, "
                    "on a sample of a dataset's own patches")  # fmt: skip
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--split", help="which split (default: the largest)")
    p.add_argument("--patches", type=positive, metavar="N",
                   help="of the sample (default: 256 MiB of them, 8192 at most)")  # fmt: skip
    p.add_argument("--alternatives", type=_names, default=(), metavar="A,B", help="(default: all)")
    p.add_argument("--batch_size", type=positive, default=1024, metavar="N", help="(default 1024)")
    p.add_argument("--work", metavar="DIR",
                   help="where the sample is written meanwhile (default: beside OUT)")  # fmt: skip


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ..compare import compare
    from ..compare.table import table

    found = compare(
        args.output, args.split, alternatives=args.alternatives, patches=args.patches,
        batch_size=args.batch_size, work=args.work, told=_tell,
    )  # fmt: skip
    _tell("")
    write_json(args.json, found)
    print(table(found))
    for warning in found["warnings"]:
        print(f"warning  {warning}")
    failed = [r for r in found["rows"] if r["status"] == "failed"]
    for row in failed:
        print(f"scenefeed: {row['name']} failed: {row['why']}", file=sys.stderr)
    return 1 if failed else 0


def _tell(words: str) -> None:
    """Progress, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{words}", end="", file=sys.stderr, flush=True)

"""``scenefeed report``: one HTML page on a dataset."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from ..arguments import add_command, writable, write_json


def add(commands: Any) -> None:
    p = add_command(commands, "report", "one self-contained HTML page to look at a dataset")
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--output", dest="page", metavar="FILE", type=writable,
                   help="the page (default: OUT/report.html)")  # fmt: skip
    for command in ("check", "compare"):
        p.add_argument(f"--{command}", type=Path, metavar="FILE",
                       help=f"what `{command} --json FILE` wrote, to be shown too")  # fmt: skip


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ...transforms.errors import ConfigError

    for name in ("jinja2", "matplotlib"):
        if not importlib.util.find_spec(name):
            raise ConfigError(f"{name} is not installed: pip install 'scenefeed[convert,report]'")
    from ...loader.storage import is_remote
    from ...transforms.storage import path_of
    from ..report import write_report

    if is_remote(args.output) and not args.page:
        raise ConfigError(f"{args.output}: the page is a local file: give --output report.html")
    page = Path(args.page or Path(args.output) / "report.html")
    found = write_report(path_of(args.output), page, args.check, args.compare)
    write_json(args.json, found)
    for warning in found["facts"]["warnings"]:
        print(f"warning  {warning}")
    print(f"page     {found['page']}  {found['bytes'] / 1e6:.2f} MB, {found['seconds']:.1f} s")
    return 0

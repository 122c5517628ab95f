"""``scenefeed show``: patches as a PNG."""

from __future__ import annotations

import argparse
from typing import Any

from ..arguments import add_command, from_zero, writable, write_json


def add(commands: Any) -> None:
    p = add_command(commands, "show", "patches as a PNG: colours, bands, labels")
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--split", default="train", help="of which split (default train)")
    p.add_argument("--index", type=from_zero, nargs="+", default=[], metavar="N",
                   help="records by number, from 0; several make a sheet")  # fmt: skip
    p.add_argument("--key", action="append", default=[], metavar="KEY",
                   help="a record by scene/row/column; may be given again")  # fmt: skip
    p.add_argument("--bands", default="", metavar="A,B,C",
                   help="red, green and blue, by name or number from 1 (default: the first three)")  # fmt: skip
    p.add_argument("--stretch", choices=("patch", "split"), default="patch",
                   help="by each patch's percentiles, or by the training split's (statistics.json)")  # fmt: skip
    p.add_argument("--output", dest="png", type=writable, metavar="PNG",
                   help="(default SPLIT-INDEX.png here)")  # fmt: skip


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ...transforms.errors import ConfigError
    from ..locate import record_place
    from ..show import MOST_PATCHES, Painter, save

    if not (args.index or args.key):
        raise ConfigError("show: give --index N, or --key scene/row/column")
    if len(args.index) + len(args.key) > MOST_PATCHES:
        raise ConfigError(f"show: a sheet has at most {MOST_PATCHES} patches: name fewer")
    painter = Painter(args.output, [b for b in args.bands.split(",") if b], args.stretch == "split")
    places = [(args.split, index) for index in args.index]
    places += [record_place(args.output, key) for key in args.key]
    split, index = places[0]
    one = len(places) == 1
    path = args.png or f"{split}-{index}{'' if one else f'-and-{len(places) - 1}-more'}.png"
    save(painter.patch(split, index) if one else painter.sheet(places), path)
    write_json(args.json, {"output": path, "records": places})
    print(path)
    return 0

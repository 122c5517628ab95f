"""``scenefeed synth``: scenes to try things on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..arguments import add_command, write_json


def add(commands: Any) -> None:
    p = add_command(commands, "synth", "make SAR-like scenes with water masks, to try things on")
    p.add_argument("output", metavar="OUT", help="gets scenes/, labels/ and dataset.yaml")
    p.add_argument("--scenes", type=int, default=2, metavar="N", help="how many (default 2)")
    p.add_argument("--size", type=int, default=8192, metavar="PX", help="side (default 8192)")
    p.add_argument("--seed", type=int, default=0, help="(default 0)")


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ..synth import synth

    figures = synth(Path(args.output), args.scenes, args.size, args.seed)
    write_json(args.json, figures)
    print(
        f"{figures['scenes']} scenes of {args.size} x {args.size} x 2 float32 "
        f"({figures['bytes'] / 1e6:,.0f} MB) in {figures['seconds']:.1f} s\n"
        f"next: scenefeed convert --config {args.output}/dataset.yaml --output OUT"
    )
    return 0

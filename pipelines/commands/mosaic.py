"""``scenefeed mosaic``: a model's predictions over a scene's patches as one GeoTIFF."""

from __future__ import annotations

import argparse
from typing import Any

from ..arguments import add_command, writable, write_json


def add(commands: Any) -> None:
    p = add_command(commands, "mosaic", "predictions over a scene's patches as one GeoTIFF")
    p.add_argument("dataset", metavar="OUT", help="a converted dataset")
    p.add_argument("scene", metavar="SCENE", help="the scene's id")
    p.add_argument("predictions", metavar="PREDICTIONS",
                   help=".npz with row, col, values (and scene_id); or .npy of values alone, for "
                   "all the scene's records by row, then column")  # fmt: skip
    p.add_argument("--output", required=True, type=writable, metavar="TIF", help="the GeoTIFF")
    p.add_argument("--split", help="a .npy is of this split's records alone")
    p.add_argument("--mode", default="", choices=("mean", "last", "max"),
                   help="where patches overlap (default: mean of floats, last of integers)")  # fmt: skip
    p.add_argument("--nodata", type=float, metavar="VALUE",
                   help="where there is no prediction (default: NaN; of integers an end of the "
                   "dtype)")  # fmt: skip


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ..mosaic import write_mosaic

    figures = write_mosaic(
        args.dataset, args.scene, args.predictions, args.output,
        split=args.split, mode=args.mode, nodata=args.nodata,
    )  # fmt: skip
    write_json(args.json, figures)
    print(
        f"{args.output}: {figures['patches']:,} patches on {args.scene}: {figures['height']} x "
        f"{figures['width']} x {figures['bands']} {figures['dtype']}, {figures['mode']} where they "
        "overlap"
    )
    return 0

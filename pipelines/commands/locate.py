"""``scenefeed locate``: from a record back to the map, the source and the shard."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..arguments import add_command, from_zero, write_json


def add(commands: Any) -> None:
    p = add_command(commands, "locate", "where a patch lies: on the map, in its source, in a shard")
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("key", metavar="KEY", nargs="?", help="scene/row/column, as India_900498/128/64")
    p.add_argument("--split", default="train", help="with --index: of which split (default train)")
    p.add_argument("--index", type=from_zero, metavar="N", help="a record by its number, from 0")
    p.add_argument("--geojson", action="store_true", help="print a GeoJSON feature")


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ...transforms.errors import ConfigError
    from ..locate import geojson, lines, locate, named

    if (args.key is None) == (args.index is None):
        raise ConfigError("locate: give a KEY (scene/row/column), or --split and --index")
    found = locate(args.output, named(args.output, args.key, args.split, args.index))
    write_json(args.json, found)
    print(json.dumps(geojson(found)) if args.geojson else "\n".join(lines(found)))
    return 0

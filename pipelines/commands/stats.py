"""``scenefeed stats``: statistics of the training split, from the stage files."""

from __future__ import annotations

import argparse
from typing import Any

from ..arguments import add_command, add_shared_disk, add_statistics, add_verbose, write_json
from ..options import config_from

BEAM = True  # takes its flags too


def add(commands: Any) -> None:
    p = add_command(
        commands, "stats", "statistics of the training split, and how feeds normalize by them"
    )
    p.add_argument("output", metavar="OUT", help="a converted dataset, with its stage files")
    p.add_argument("--config", metavar="FILE", help="YAML with a statistics section")
    add_shared_disk(p)
    add_verbose(p)
    add_statistics(p)


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from .. import analyst

    analyst.warm_up(not args.verbose, own=":" in (args.normalize or ""))
    from ...transforms.storage import absolute, path_of
    from .. import folder, runner, statistics
    from ..execute import describe
    from ..quiet import quieten

    if not args.verbose:
        quieten()
    out = path_of(absolute(path_of(args.output)))
    scenes = folder.staged_scenes(out)
    config = statistics.asked(folder.written_config(out), config_from(args)[0])
    statistics.check_function(config, args.normalize)
    options = runner.pipeline_options(rest, str(out))
    paths = [("OUT", str(out)), *(("stage file", s.path) for s in scenes)]
    runner.check_cluster(options, args.shared_disk, paths)
    document = statistics.compute(out, config, scenes, options)
    write_json(args.json, document)
    statistics.adopt(out, config)
    statistics.say(out)
    describe(out)
    return 0

"""``scenefeed shard``: the records again, from the stage files."""

from __future__ import annotations

import argparse
from typing import Any

from ..arguments import add_command, add_records, add_shared_disk, add_statistics, add_verbose
from ..options import config_from

BEAM = True  # takes its flags too


def add(commands: Any) -> None:
    p = add_command(
        commands, "shard", "write the records again from the stage files, without the scenes"
    )
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--config", metavar="FILE", help="YAML with split and records sections")
    add_shared_disk(p)
    add_verbose(p)
    add_records(p)
    add_statistics(p)


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from .. import lean

    if not rest:  # no other runner than this machine's
        lean.import_beam()
    from ...transforms.storage import absolute, path_of
    from .. import analyst, convert, folder, runner, statistics
    from ..execute import write_dataset
    from ..quiet import quieten
    from ..results import Run

    if not args.verbose:
        quieten()
    out = path_of(absolute(path_of(args.output)))
    scenes = folder.staged_scenes(out)
    config, _ = config_from(args, folder.written_config(out))
    if config.statistics.wanted:
        analyst.warm_up(not args.verbose, own=bool(config.statistics.function))
    statistics.check_function(config, args.normalize)
    folder.check_reshard(config, folder.written_config(out))
    options = runner.pipeline_options(rest, str(out))
    paths = [("dataset", str(out)), *(("stage file", s.path) for s in scenes)]
    runner.check_cluster(options, args.shared_disk, paths)
    inputs = folder.reshard_fingerprint(config, scenes)
    workers, processes = runner.worker_count(options), runner.process_count(options)
    job = Run(str(out), config, inputs, started, workers, processes)
    return write_dataset(
        job, options, lambda job: convert.shard_pipeline(job, scenes), len(scenes), args.json
    )

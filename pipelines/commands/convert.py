"""``scenefeed convert``: scenes to a dataset."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import (
    add_command,
    add_records,
    add_shared_disk,
    add_statistics,
    add_verbose,
    from_zero,
    write_json,
)
from ..options import config_from

if TYPE_CHECKING:
    from ...transforms.config import Config
    from ...transforms.scenes import SceneFiles
    from ..results import Run

BEAM = True  # takes its flags too


def add(commands: Any) -> None:
    p = add_command(
        commands, "convert", "convert scenes to a sharded dataset",
        epilog="Every other flag goes to Beam (--runner, --direct_num_workers, ...). "
        "All of the configuration: docs/configuration.md.",
    )  # fmt: skip
    p.add_argument(
        "scenes",
        nargs="*",
        metavar="SCENE",
        help="rasters, arrays, SAFE products, tables of images: paths, globs in quotes, folders; "
        "or manifests that list them (.csv, .jsonl, .geojson, STAC items)",
    )
    p.add_argument("--output", required=True, metavar="OUT", help="the dataset's folder")
    p.add_argument("--config", metavar="FILE", help="YAML; flags win over it")
    p.add_argument("--dry_run", action="store_true", help="print the plan, write nothing")
    p.add_argument("--max_failed", type=from_zero, default=0, metavar="N",
                   help="scenes that may fail before the exit code is 1 (default 0)")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace what OUT holds")
    p.add_argument("--stage_dir", metavar="DIR",
                   help="where stage files go: a folder or a URL that all workers see "
                   "(default OUT/stage)")  # fmt: skip
    add_shared_disk(p)
    p.add_argument("--drop_stage", action="store_true", help="remove the stage files at the end")
    add_verbose(p)
    scenes = p.add_argument_group("scenes and cleaning")
    scenes.add_argument("--name", help="the dataset's name")
    scenes.add_argument("--bands", metavar="VV,VH", help="band names, in file order")
    scenes.add_argument("--nodata", metavar="V", help="auto (the file's own), none, or a value")
    scenes.add_argument("--fill", metavar="V[,V]", help="what invalid pixels hold (default 0)")
    scenes.add_argument("--min_valid", type=float, metavar="SHARE",
                        help="drop patches with a smaller share of valid pixels (default 0)")  # fmt: skip
    scenes.add_argument("--to_db", action="store_true", default=None, help="10 log10 of power")
    scenes.add_argument("--clip", metavar="LO,HI", help="limits, after --to_db")
    tile = p.add_argument_group("tiles")
    tile.add_argument("--tile_size", type=int, metavar="PX", help="side of a patch (default 64)")
    tile.add_argument("--stride", type=int, metavar="PX", help="step between patches (tile_size)")
    tile.add_argument("--edge", choices=("drop", "pad", "shift"),
                      help="what to do where a patch passes the scene's edge (default drop)")  # fmt: skip
    add_records(p)
    add_statistics(p)


def run(args: argparse.Namespace, rest: list[str], started: float) -> int:
    config, base = config_from(args)
    from ...transforms.finding import find_scenes
    from ...transforms.storage import path_of
    from .. import analyst, folder
    from ..quiet import quieten

    if config.statistics.wanted and not args.dry_run:
        analyst.warm_up(not args.verbose, own=bool(config.statistics.function))
    if not args.verbose:
        quieten()
    if config.statistics.function:  # code of the user's, which may import Beam
        _import_beam(rest)
        from .. import statistics

        statistics.check_function(config, args.normalize)
    scenes = find_scenes(config, base)
    job = _job(args, config, scenes, started)
    options = _options(rest, args.shared_disk, job, scenes) if rest else None
    out = path_of(job.out)
    whole = folder.check_output(out, config, job.inputs, args.overwrite, job.stage_dir)
    if job.stage_dir:
        folder.check_folder("--stage_dir", path_of(job.stage_dir))
    if args.dry_run:
        from ..dry_run import dry_run

        return dry_run(config, scenes, out, args.json, args.max_failed)
    with contextlib.nullcontext() if rest or whole else _processes(job, scenes, not args.verbose):
        _import_beam(rest)
        options = options or _options(rest, args.shared_disk, job, scenes)
        return _convert(args, job, scenes, options, whole)


def _import_beam(flags: list[str]) -> None:
    from .. import lean

    if not flags:  # no other runner than this machine's
        lean.import_beam()


@contextlib.contextmanager
def _processes(job: Run, scenes: Sequence[SceneFiles], quiet: bool) -> Iterator[None]:
    """Processes that begin to stage beside Beam's import, where that can be."""
    from ...transforms.processes import Processes, how_many
    from ...transforms.storage import is_remote, path_of, remove
    from .. import results
    from ..grouping import counting_of
    from ..metadata import forget

    out, wanted, config = path_of(job.out), job.config.statistics.wanted, job.config.unbaked
    counting = counting_of(out, config) if wanted else None
    count = 0 if is_remote(job.out) or is_remote(job.stage) else how_many(scenes)
    if not count:
        yield
        return
    forget(out)
    job = dataclasses.replace(job, config=config, counting=counting)
    results.begin(job)
    shared = bool(job.stage_dir)
    try:
        with Processes(scenes, config, job.stage, shared, count, counting, quiet):
            yield
    except BaseException:
        with contextlib.suppress(Exception):  # why it ended is what counts
            results.remove_temporaries(job)
            remove(out / results.COUNTS)
        raise


def _convert(
    args: argparse.Namespace, job: Run, scenes: Sequence[SceneFiles], options: Any, whole: bool
) -> int:
    """The conversion with Beam; ``whole`` is whether the records are there already."""
    from ...transforms.storage import path_of
    from .. import convert, folder, runner, statistics
    from ..execute import write_dataset

    out = path_of(job.out)
    if whole and not statistics.is_current(out, job.config):
        whole = folder.is_staged(out)  # else they are staged again, to be counted
    if whole:
        folder.keep_words(out, job.config)
    if whole and statistics.is_current(out, job.config):
        return _nothing_to_do(out, args)
    if template := runner.writes_template(options):
        return _write_template(job, scenes, options, template)
    workers, processes = runner.worker_count(options), runner.process_count(options)
    job = dataclasses.replace(job, workers=workers, processes=processes)
    return write_dataset(
        job, options, None if whole else lambda job: convert.convert_pipeline(job, scenes),
        len(scenes), args.json, args.max_failed, args.drop_stage,
    )  # fmt: skip


def _job(
    args: argparse.Namespace, config: Config, scenes: Sequence[SceneFiles], started: float
) -> Run:
    """What is to be run, by how many workers is not known yet."""
    from ...transforms.errors import ConfigError
    from ...transforms.storage import absolute, path_of
    from .. import folder
    from ..results import Run

    if not args.output:
        raise ConfigError("--output is empty: give a folder")
    out = absolute(path_of(args.output))
    stage_dir = absolute(path_of(args.stage_dir)) if args.stage_dir else ""
    inputs = folder.inputs_fingerprint(config, scenes)
    return Run(out, config, inputs, started, 0, stage_dir=stage_dir)


def _options(flags: list[str], shared_disk: bool, job: Run, scenes: Sequence[SceneFiles]) -> Any:
    """Beam's options, whose workers can see all that the job names."""
    from .. import folder, runner

    options = runner.pipeline_options(flags, job.out)
    named = folder.inputs(job.config, scenes)
    paths = [("--output", job.out), ("--stage_dir", job.stage_dir), *named]
    runner.check_cluster(options, shared_disk, paths)
    return options


def _nothing_to_do(out: Path, args: argparse.Namespace) -> int:
    from ..execute import describe
    from ..folder import read_metrics
    from ..summary import too_many_failed

    print(f"{out} already holds this dataset, whole: nothing to do")
    describe(out)
    metrics = read_metrics(out)
    write_json(args.json, metrics)
    return too_many_failed(out, metrics, args.max_failed)


def _write_template(job: Run, scenes: Sequence[SceneFiles], options: Any, template: str) -> int:
    """Has Dataflow's job written instead of being run."""
    from ...transforms.errors import ConfigError
    from .. import convert, runner

    if job.config.statistics.wanted:
        raise ConfigError(
            "statistics: a template holds the conversion alone: leave them out, and run "
            "`scenefeed stats` on what it wrote"
        )
    runner.run(convert.convert_pipeline(job, scenes), options)
    print(f"wrote the job to {template}; nothing was converted")
    return 0

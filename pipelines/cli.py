"""The ``scenefeed`` command. Imports stay inside the commands, so that --help is quick."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .options import (
    build_parser,
    command_flags,
    config_from,
    foreign_flags,
    join_numbers,
    unknown_flag,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; gives the exit code."""
    started = time.time()
    argv = join_numbers(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in argv
    try:
        args, rest = _parse(argv)
        return _COMMANDS[args.command](args, rest, started)
    except KeyboardInterrupt:
        print("scenefeed: interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as e:
        return _fail(e, verbose)


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and those of its flags that are Beam's.

    Raises:
      ConfigError: a flag that neither Beam nor we know.
      SystemExit: any other mistake; 2, after one line.
    """
    parser = build_parser(metadata.version("scenefeed"))
    command = argv[0] if argv else ""
    beams = command in ("convert", "shard")
    own = command_flags(parser, command)
    foreign = foreign_flags(argv, own) if own else []
    # Beam knows flags of convert's names (--dry_run): they are not meant for shard.
    wrong = [f for f in foreign if not beams or f in command_flags(parser, "convert")]
    if wrong:
        parser.error(unknown_flag(wrong[0], own))
    if foreign:
        from . import runner

        argv = runner.join_beam_flags(argv, own)
    args, rest = parser.parse_known_args(argv)
    # What is left is Beam's; a word among it is a scene that stands behind flags.
    words = [token for token in rest if not token.startswith("-")]
    if words and command != "convert":
        parser.error(f"unexpected argument {words[0]}")
    if words:
        args.scenes += words
    return args, [token for token in rest if token not in words]


def _fail(error: Exception, verbose: bool) -> int:
    """One line on standard error, and the exit code."""
    from ..loader.spec import DatasetError

    usage: tuple[type[Exception], ...] = ()
    known: tuple[type[Exception], ...] = (DatasetError,)
    try:
        from ..transforms.errors import ConfigError, JobError

        usage, known = (ConfigError,), (DatasetError, ConfigError, JobError)
    except ModuleNotFoundError:
        pass  # the base install reads, and has no configuration
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, ModuleNotFoundError):
        message = f"{error.name} is not installed: pip install 'scenefeed[convert]'"
    elif isinstance(error, known):
        message = str(error)
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename or 'the system'}: {error.strerror}"
    else:
        at = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno}); "
        message += "this is a bug: run again with --verbose and report it"
    print(f"scenefeed: {' '.join(message.split())}", file=sys.stderr)
    return 2 if isinstance(error, usage) else 1


def _convert(args: argparse.Namespace, rest: list[str], started: float) -> int:
    config, base = config_from(args)
    from ..transforms.errors import ConfigError
    from ..transforms.finding import find_scenes
    from ..transforms.storage import absolute, path_of
    from . import convert, runner
    from .results import Run

    if not args.verbose:
        runner.quieten()
    scenes = find_scenes(config, base)
    if not args.output:
        raise ConfigError("--output is empty: give a folder")
    out = path_of(absolute(path_of(args.output)))
    stage_dir = absolute(path_of(args.stage_dir)) if args.stage_dir else ""
    options = runner.pipeline_options(rest, str(out))
    paths = [("--output", str(out)), ("--stage_dir", stage_dir), *convert.inputs(config, scenes)]
    runner.check_cluster(options, args.shared_disk, paths)
    inputs = convert.inputs_fingerprint(config, scenes)
    whole = convert.check_output(out, config, inputs, args.overwrite, stage_dir)
    if stage_dir:
        convert.check_folder("--stage_dir", path_of(stage_dir))
    if args.dry_run:
        from .dry_run import dry_run

        return dry_run(config, scenes, out, args.json, args.max_failed)
    if whole:
        print(f"{out} already holds this dataset, whole: nothing to do")
        metrics = convert.read_metrics(out)
        _write_json(args.json, metrics)
        return _too_many_failed(out, metrics, args.max_failed)
    workers, processes = runner.worker_count(options), runner.process_count(options)
    run = Run(str(out), config, inputs, started, workers, processes, args.drop_stage, stage_dir)
    build = convert.convert_pipeline(run, scenes)
    if template := runner.writes_template(options):
        runner.run(build, options)
        print(f"wrote the job to {template}; nothing was converted")
        return 0
    metrics = _execute(run, options, build, len(scenes))
    _write_json(args.json, metrics)
    return _conclude(out, metrics, args.max_failed)


def _shard(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ..transforms.storage import absolute, path_of
    from . import convert, runner
    from .results import Run

    if not args.verbose:
        runner.quieten()
    out = path_of(absolute(path_of(args.output)))
    scenes = convert.staged_scenes(out)
    config, _ = config_from(args, convert.written_config(out))
    convert.check_reshard(config, convert.written_config(out))
    options = runner.pipeline_options(rest, str(out))
    paths = [("", str(out)), *(("stage file", s.path) for s in scenes)]
    runner.check_cluster(options, args.shared_disk, paths)
    inputs = convert.reshard_fingerprint(config, scenes)
    workers, processes = runner.worker_count(options), runner.process_count(options)
    run = Run(str(out), config, inputs, started, workers, processes)
    metrics = _execute(run, options, convert.shard_pipeline(run, scenes), len(scenes))
    _write_json(args.json, metrics)
    return _conclude(out, metrics, 0)


def _execute(run: Any, options: Any, build: Any, scenes: int) -> dict[str, Any]:
    from ..transforms.storage import path_of
    from . import convert, results, runner
    from .progress import progress

    out = path_of(run.out)
    results.begin(run)
    try:
        with progress(run, scenes):
            runner.run(build, options)
    except BaseException:
        with contextlib.suppress(Exception):  # why the job failed is what counts
            results.remove_temporaries(run)
        raise
    results.remove_temporaries(run)  # those of workers that were killed
    return convert.read_metrics(out)


def _conclude(out: Path, metrics: dict[str, Any], max_failed: int) -> int:
    """The closing summary, and the exit code."""
    from .summary import dead_letters, summary

    failed = metrics["scenes"]["failed"]
    letters = dead_letters(out)
    for line in letters[:5]:
        print(f"scenefeed: {line}", file=sys.stderr)
    if failed > 5:
        print(f"scenefeed: ... {failed - 5} more in {out / 'errors.jsonl'}", file=sys.stderr)
    if metrics["status"] == "empty":
        print(f"scenefeed: {_why_empty(metrics)}", file=sys.stderr)
        return 1
    print(summary(out, metrics))
    return _too_many_failed(out, metrics, max_failed)


def _too_many_failed(out: Path, metrics: dict[str, Any], max_failed: int) -> int:
    failed = metrics["scenes"]["failed"]
    if failed > max_failed:
        print(
            f"scenefeed: {failed} scenes failed, more than --max_failed {max_failed}: the dataset "
            f"holds the other {metrics['scenes']['done']}; reasons in {out / 'errors.jsonl'}",
            file=sys.stderr,
        )
        return 1
    return 0


def _why_empty(metrics: dict[str, Any]) -> str:
    if not metrics["scenes"]["done"]:
        return f"no scene could be used: all {metrics['scenes']['failed']} failed (errors.jsonl)"
    patches = metrics["patches"]
    if not patches["grid"]:
        return "no patches: no point that they are to be centred on lies far enough inside a scene"
    if patches["staged"]:
        return (
            f"every patch was dropped: sample and split leave none of {patches['staged']}: "
            "look at these two sections"
        )
    return (
        f"every patch was dropped: none of {patches['grid']} reaches min_valid or is labelled "
        "where sample.labelled wants it: lower clean.min_valid (--min_valid), or look at the "
        "scenes' nodata and at tallies in scenes.jsonl"
    )


def _verify(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ..transforms.storage import path_of
    from .summary import verify_lines
    from .verify import verify

    report = verify(path_of(args.output))
    _write_json(args.json, report)
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


def _check(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from ..transforms.storage import path_of
    from .check import check, table

    report = check(
        path_of(args.output), args.split, args.batch_size,
        args.convert_mb_per_s, args.load_seconds, args.memory_gib,
    )  # fmt: skip
    _write_json(args.json, report)
    print(table(report))
    for missed in (r for r in report["results"] if r["met"] is False):
        print(f"scenefeed: {missed['advice']}", file=sys.stderr)
    return 0 if report["met"] else 1


def _synth(args: argparse.Namespace, rest: list[str], started: float) -> int:
    from .synth import synth

    figures = synth(Path(args.output), args.scenes, args.size, args.seed)
    _write_json(args.json, figures)
    print(
        f"{figures['scenes']} scenes of {args.size} x {args.size} x 2 float32 "
        f"({figures['bytes'] / 1e6:,.0f} MB) in {figures['seconds']:.1f} s\n"
        f"next: scenefeed convert --config {args.output}/dataset.yaml --output OUT"
    )
    return 0


def _write_json(path: str | None, figures: dict[str, Any]) -> None:
    if path:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")


_COMMANDS = {
    "convert": _convert,
    "shard": _shard,
    "verify": _verify,
    "check": _check,
    "synth": _synth,
}


if __name__ == "__main__":
    sys.exit(main())

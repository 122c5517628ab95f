"""Running a job that writes a dataset, from its empty folder to its statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..transforms.storage import path_of
from . import convert, results, runner, statistics
from .arguments import write_json
from .metadata import forget, write_metadata
from .progress import progress
from .results import Run
from .summary import conclude


def write_dataset(
    job: Run, options: Any, build: Callable[[Any], None] | None, scenes: int,
    json: str | None = None, max_failed: int = 0, drop_stage: bool = False,
) -> int:  # fmt: skip
    """Writes the records and what describes them, and says so.

    Args:
      job: what stays the same.
      options: Beam's.
      build: the pipeline; None where the records are there already.
      scenes: how many there are.
      json: where the metrics go too.
      max_failed: how many of the scenes may fail.
      drop_stage: remove the stage files at the end.

    Returns:
      The exit code.
    """
    out, config = path_of(job.out), job.config
    if config.statistics.wanted:
        statistics.warm_up()
    metrics = _execute(job, options, build, scenes) if build else convert.read_metrics(out)
    write_json(json, metrics)
    code = conclude(out, metrics, max_failed)
    if metrics["status"] == "complete":
        try:
            if config.statistics.wanted:
                staged = convert.staged_scenes(out)
                statistics.say(out, statistics.compute(out, config, staged, options))
        finally:
            describe(out)
        if drop_stage:
            results.drop_stage(job, convert.read_scenes(out))
    return code


def _execute(job: Run, options: Any, build: Callable[[Any], None], scenes: int) -> dict[str, Any]:
    forget(path_of(job.out))
    results.begin(job)
    try:
        with progress(job, scenes):
            runner.run(build, options)
    except BaseException:
        with contextlib.suppress(Exception):  # why the job failed is what counts
            results.remove_temporaries(job)
        raise
    results.remove_temporaries(job)  # those of workers that were killed
    return convert.read_metrics(path_of(job.out))


def describe(out: Path) -> None:
    """Writes what other tools read of a dataset, and says what it left as it was."""
    for name in write_metadata(out):
        print(f"note     {out / name} was written by somebody else, and stays as it is")

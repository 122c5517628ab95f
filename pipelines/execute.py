"""Running a job that writes a dataset, from its empty folder to its statistics."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..transforms import processes
from ..transforms.baking import Baking
from ..transforms.staging import columns
from ..transforms.storage import path_of, remove
from . import analysis, cluster, results, runner, statistics
from .arguments import write_json
from .convert import shard_pipeline
from .folder import read_metrics, read_scenes, staged_scenes
from .grouping import counting_of
from .metadata import forget, write_metadata
from .progress import progress, silence_told
from .results import Run
from .summary import conclude

Pipeline = Callable[[Any], None]


def write_dataset(
    job: Run, options: Any, build: Callable[[Run], Pipeline] | None, scenes: int,
    json: str | None = None, max_failed: int = 0, drop_stage: bool = False,
) -> int:  # fmt: skip
    """Writes the records and what describes them, and says so.

    Args:
      job: what stays the same.
      options: Beam's.
      build: gives the pipeline of a job; None where the records are there already.
      scenes: how many there are.
      json: where the metrics go too.
      max_failed: how many of the scenes may fail.
      drop_stage: remove the stage files at the end.

    Returns:
      The exit code.
    """
    out, asked = path_of(job.out), job.config.statistics
    counting = counting_of(out, job.config.unbaked) if asked.wanted else None
    first = dataclasses.replace(job, config=job.config.unbaked, counting=counting)
    metrics = _execute(first, options, build(first), scenes) if build else read_metrics(out)
    whole = metrics["status"] == "complete"
    if whole and asked.bake:
        metrics = _bake(job, options)
    write_json(json, metrics)
    code = conclude(out, metrics, max_failed)
    if not whole:
        analysis.forget(out)
        processes.wait_counted()
        remove(out / results.COUNTS)
        return code
    try:
        if asked.wanted and not asked.bake:
            statistics.compute(out, job.config, staged_scenes(out), options)
            statistics.adopt(out, job.config)
        if asked.wanted:
            statistics.say(out)
    finally:
        describe(out)
    if drop_stage:
        results.drop_stage(job, read_scenes(out))
    return code


def _execute(job: Run, options: Any, build: Pipeline, scenes: int) -> dict[str, Any]:
    forget(path_of(job.out))
    results.begin(job, alone=not processes.are_at_work())
    try:
        with progress(job, scenes), silence_told(job, cluster.where_to_look(options)):
            runner.run(build, options)
    except BaseException:
        with contextlib.suppress(Exception):  # why the job failed is what counts
            analysis.forget(path_of(job.out))
            results.remove_temporaries(job)
            remove(path_of(job.out) / results.COUNTS)
        raise
    results.remove_temporaries(job)  # those of workers that were killed
    return read_metrics(path_of(job.out))


def _bake(job: Run, options: Any) -> dict[str, Any]:
    """Computes statistics, and writes the records again, normalized. Gives the metrics."""
    out = path_of(job.out)
    scenes = staged_scenes(out)
    found = statistics.compute(out, job.config.unbaked, scenes, options)
    shape, dtype = columns(scenes[0].header, job.config)["image"]
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    baking = Baking(dtype, num_bytes, found["transform"]["image"])
    metrics = _execute(job, options, shard_pipeline(job, scenes, baking), len(scenes))
    statistics.write(out, found)
    return metrics


def describe(out: Path) -> None:
    """Writes what other tools read of a dataset, and says what it left as it was."""
    for name in write_metadata(out):
        print(f"note     {out / name} was written by somebody else, and stays as it is")

"""Running a job that writes a dataset, from its empty folder to its metrics."""

from __future__ import annotations

import contextlib
from typing import Any


def execute(run: Any, options: Any, build: Any, scenes: int) -> dict[str, Any]:
    from ..transforms.storage import path_of
    from . import cluster, convert, results, runner
    from .progress import progress, silence_told

    out = path_of(run.out)
    results.begin(run)
    try:
        with progress(run, scenes), silence_told(run, cluster.where_to_look(options)):
            runner.run(build, options)
    except BaseException:
        with contextlib.suppress(Exception):  # why the job failed is what counts
            results.remove_temporaries(run)
        raise
    results.remove_temporaries(run)  # those of workers that were killed
    return convert.read_metrics(out)

"""Statistics of a dataset's training split: statistics.json, transform_fn/ and the cache.

Scenes are counted where the stage files are, on any runner, by NumPy; each leaves a small file.
tf.Transform's analysis of these files runs in a process beside the command, so that workers need no
TensorFlow. Its cache holds the sums of groups of scenes: scenes that are added make a new group,
and no other is counted again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..loader.spec import FILE_NAME, DatasetError, DatasetSpec
from ..transforms.config import Config, parse
from ..transforms.errors import ConfigError, JobError
from ..transforms.pipeline import Count, Given
from ..transforms.sections import Statistics
from ..transforms.staging import StagedScene
from ..transforms.statistics.counting import Counting
from ..transforms.statistics.scene import training_split
from ..transforms.storage import (
    is_remote,
    put_folder,
    remove,
    write_text,
)  # fmt: skip
from . import runner
from .analysis import analysis_of, user_function
from .results import CACHE, COUNTS, GRAPH, METADATA, STATISTICS
from .summary import statistics_lines


def is_current(out: Path, config: Config) -> bool:
    """Whether a folder holds the statistics that a configuration asks for, of the very dataset
    that is there."""
    if not config.statistics.wanted:
        return True
    try:
        spec = DatasetSpec.load(str(out))
        held = json.loads((out / STATISTICS).read_text())
    except (DatasetError, OSError, ValueError, AttributeError):
        return False
    wanted = config.resolved()["statistics"]
    same = held.get("inputs") == spec.inputs and held.get("normalize") == wanted["normalize"]
    return bool(same and spec.config.get("statistics") == wanted)


def check_function(config: Config, named: str | None) -> None:
    """That code is named on the command line: nothing that a file says is imported.

    Raises:
      ConfigError: only a file names it, or there is no such function.
    """
    function = config.statistics.function
    if function and function != named:
        raise ConfigError(
            f"statistics.normalize {function}: is code: say --normalize {function} on the command "
            "line to have it run"
        )
    if function:
        user_function(function)


def asked(written: dict[str, Any], given: Config) -> Config:
    """A dataset's configuration with the statistics that a command asks for, or those that it
    had, or statistics alone.

    Args:
      written: the configuration in dataset.json.
      given: the command's.

    Raises:
      ConfigError: the records are normalized, or would have to be.
    """
    config = parse(written, "dataset.json")
    if config.statistics.bake:
        raise ConfigError(
            "the records hold normalized images (statistics.bake): another normalization needs "
            "`scenefeed shard`"
        )
    section = next((s for s in (given.statistics, config.statistics) if s.wanted), None)
    section = section or Statistics(normalize="none")
    if section.bake:
        raise ConfigError("statistics.bake needs the records written again: `scenefeed shard`")
    return config.model_copy(update={"statistics": section})


def say(out: Path) -> None:
    """Prints what the statistics are, and what is odd about them."""
    document = json.loads((out / STATISTICS).read_text())
    for warning in document["warnings"]:
        print(f"scenefeed: {warning}", file=sys.stderr)
    for line in statistics_lines(out, document):
        print(line)


def compute(
    out: Path, config: Config, scenes: Sequence[StagedScene], options: Any
) -> dict[str, Any]:
    """Computes the statistics that a configuration asks for, and writes them.

    Args:
      out: the dataset's folder, a path or a URL.
      config: whose ``statistics.normalize`` is set, and ``bake`` is not.
      scenes: all of the dataset's, staged.
      options: Beam's.

    Returns:
      What statistics.json holds.

    Raises:
      DatasetError: no complete dataset.
      JobError: a stage file cannot be read, or the job failed.
    """
    spec = DatasetSpec.load(str(out))
    if np.dtype(scenes[0].header.dtype).kind == "c":
        raise ConfigError(
            "statistics: complex images have no order: give clean.complex, such as amplitude"
        )
    with analysis_of(out, config, spec.inputs, scenes) as analysis, _counts(out):
        if rest := analysis.uncounted():
            runner.run(_counting_pipeline(config, rest, analysis.counting), options)
        document = analysis.result()
        _check(document, config, scenes, out)
        remove(out / STATISTICS)
        for name in (GRAPH, METADATA, CACHE):
            put_folder(analysis.folder / name, out / name)
        write(out, document)
    return document


def write(out: Path, document: dict[str, Any]) -> None:
    """Writes statistics.json."""
    write_text(out / STATISTICS, json.dumps(document, indent=2) + "\n")


def adopt(out: Path, config: Config) -> None:
    """Notes in dataset.json by which statistics its feeds normalize."""
    spec, wanted = DatasetSpec.load(str(out)), config.resolved()["statistics"]
    if spec.config.get("statistics") != wanted:
        spec = dataclasses.replace(spec, config={**spec.config, "statistics": wanted})
        write_text(out / FILE_NAME, spec.to_json())


def _counting_pipeline(config: Config, scenes: Sequence[StagedScene], counting: Counting) -> Any:
    def build(pipeline: Any) -> None:
        staged = pipeline | "StagedScenes" >> Given(scenes).with_output_types(StagedScene)
        _ = staged | "Count" >> Count(config, counting)

    return build


@contextlib.contextmanager
def _counts(out: Path) -> Iterator[None]:
    """The folder of counts, which all workers see, for the time of a run."""
    folder = out / COUNTS
    if not is_remote(folder):
        folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        remove(folder)


def _check(
    document: dict[str, Any], config: Config, scenes: Sequence[StagedScene], out: Path
) -> None:
    """That as many patches were counted as the records hold."""
    expected = sum(s.counts.get(training_split(config), 0) for s in scenes)
    if document["patches"] != expected:
        raise JobError(
            f"{out}: {document['patches']} patches were counted, and its training split has "
            f"{expected}: remove {out / CACHE}, and run the same command again"
        )

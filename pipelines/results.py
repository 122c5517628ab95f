"""What a run leaves beside the records: dataset.json last, and the files that explain it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..loader.index import record_files
from ..loader.spec import FILE_NAME, DatasetSpec, Feature, Shard, Split
from ..transforms.storage import (
    index_of,
    is_remote,
    join,
    names_in,
    path_of,
    remove,
    write_text,
)  # fmt: skip
from .metrics import of_run
from .metrics import versions as versions

if TYPE_CHECKING:  # verify takes names of files from here, and should not load Beam for them
    from ..transforms.config import Config
    from ..transforms.errors import DeadLetter
    from ..transforms.shards import WrittenShard
    from ..transforms.staging import StagedScene
    from ..transforms.statistics.counting import Counting

SCENES, ERRORS, METRICS = "scenes.jsonl", "errors.jsonl", "metrics.json"
# Statistics, tf.Transform's graph and its schema, and what scenes give while
# they are counted; and the sums of groups of scenes.
STATISTICS, GRAPH, METADATA = "statistics.json", "transform_fn", "transformed_metadata"
COUNTS, CACHE = "statistics.tmp", "analysis_cache"
RECORDS, STAGE = "records", "stage"


def version() -> str:
    return metadata.version("scenefeed")


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same through one run.

    Attributes:
      out: the dataset's folder, a path or a URL.
      config: the configuration.
      inputs: fingerprint of inputs and configuration.
      started: seconds since the epoch.
      workers: on this machine, 0 where a cluster decides.
      processes: how many of them are processes of their own.
      stage_dir: where stage files go; "" for their place in ``out``.
      counting: which scenes are counted for the statistics beside, if any.
    """

    out: str
    config: Config
    inputs: str
    started: float
    workers: int
    processes: int = 0
    stage_dir: str = ""
    counting: Counting | None = None

    @property
    def is_here(self) -> bool:
        """Whether all of it runs in this process."""
        return bool(self.workers) and not self.processes

    @property
    def stage(self) -> str:
        return self.stage_dir or join(self.out, STAGE)


def finish(
    run: Run, features: Mapping[str, Feature], shards: Iterable[WrittenShard],
    scenes: Iterable[StagedScene], dead: Iterable[DeadLetter],
) -> dict[str, Any]:  # fmt: skip
    """Writes scenes.jsonl, errors.jsonl, metrics.json, and last dataset.json.

    Without a single patch there is no dataset.json, and metrics.json says ``"status": "empty"``.

    Returns:
      The metrics.

    Raises:
      JobError: the runner lost or repeated records or scenes.
    """
    out, config = path_of(run.out), run.config
    scenes = sorted(scenes, key=lambda s: s.id)
    dead = sorted(dead, key=lambda d: (d.scene, d.step))
    shards = sorted(shards, key=lambda s: (config.splits.index(s.split), s.number))
    write_text(out / SCENES, "".join(s.to_json(run.out) + "\n" for s in scenes))
    write_text(out / ERRORS, "".join(d.to_json() + "\n" for d in dead))
    splits = {
        name: Split.of(
            Shard(
                s.path.removeprefix(f"{run.out}/"), s.num_examples, s.num_bytes, s.sha256,
                s.record_bytes,
            )
            for s in shards if s.split == name
        )
        for name in config.splits
    }  # fmt: skip
    _check_counts(splits, scenes)
    whole = any(s.num_examples for s in splits.values())
    spec = DatasetSpec(
        config.name, dict(features), splits, config.resolved(), run.inputs, f"scenefeed {version()}"
    )
    metrics = of_run(run, spec, shards, scenes, dead, _last_metrics(out))
    write_text(out / METRICS, json.dumps(metrics, indent=2) + "\n")
    if whole:
        _remove_strays(out, spec)
        write_text(out / FILE_NAME, spec.to_json())
    return metrics


def _last_metrics(out: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((out / METRICS).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def begin(run: Run, alone: bool = True) -> None:
    """Makes the output folder ready: from here on the dataset is incomplete.

    Args:
      run: what is to be run.
      alone: no process of ours is at work, so that what has temporary names is left over.
    """
    out = path_of(run.out)
    for folder in (out, out / RECORDS, path_of(run.stage)):
        if not is_remote(folder):  # object stores know no folders
            folder.mkdir(parents=True, exist_ok=True)
    remove(out / FILE_NAME)
    if not run.config.statistics.bake:  # what is baked was computed just now
        for name in (STATISTICS, GRAPH, METADATA, *([COUNTS] if alone else [])):
            remove(out / name)
    if run.counting and not is_remote(out):
        (out / COUNTS).mkdir(exist_ok=True)
    if alone:
        remove_temporaries(run)


def remove_temporaries(run: Run) -> None:
    """Removes what a run that broke off left under temporary names."""
    out = path_of(run.out)
    # Not of --stage_dir: other jobs may be writing there.
    folders = (out,) if run.stage_dir else (out, path_of(run.stage))
    for folder in (f for f in folders if not is_remote(f)):
        for stray in folder.glob(".*.tmp"):
            remove(stray)
    for name in names_in(out / RECORDS):
        if name.startswith("beam-temp-"):
            remove(out / RECORDS / name)


def _check_counts(splits: Mapping[str, Split], scenes: list[StagedScene]) -> None:
    """That every patch was written once: a runner that computes lost parts again may err."""
    from ..transforms.errors import JobError

    for name, split in splits.items():
        expected = sum(s.counts.get(name, 0) for s in scenes)
        if split.num_examples != expected or len({s.id for s in scenes}) != len(scenes):
            raise JobError(
                f"split {name}: {split.num_examples} records were written of {expected}: the "
                "runner lost or repeated some: run the same command again"
            )


def drop_stage(run: Run, scenes: Iterable[StagedScene]) -> None:
    """Removes this dataset's stage files: a folder that the user named may hold other things."""
    if not run.stage_dir:
        remove(run.stage)
        return
    for path in (s.path for s in scenes):
        remove(path)
        if is_remote(path):
            remove(index_of(path))


def _remove_strays(out: Path, spec: DatasetSpec) -> None:
    """Shards of an earlier run with another count must not stand beside the new ones, nor may
    indexes of its shards."""
    named = {Path(path).name for path in record_files(spec)}
    ours = re.compile(rf"({'|'.join(spec.splits)})-\d{{5}}-of-\d{{5}}\.(tfrecord|idx)")
    for name in names_in(out / RECORDS):
        if ours.fullmatch(name) and name not in named:
            remove(out / RECORDS / name)

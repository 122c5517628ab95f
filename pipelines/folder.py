"""A dataset's folder before a command writes there: what it holds, what that was made from, and
whether the command may. Nothing here imports Beam."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..loader.spec import FILE_NAME, DatasetError, DatasetSpec
from ..transforms.config import STAGE_SECTIONS, WORDS, Config
from ..transforms.errors import ConfigError
from ..transforms.scenes import SceneFiles
from ..transforms.staging import StagedScene
from ..transforms.storage import check_bucket, is_remote, join, names_in, sizes, write_text
from .results import METRICS, RECORDS, SCENES, STAGE


def inputs(config: Config, scenes: Iterable[SceneFiles]) -> Iterator[tuple[str, str]]:
    """Every file that workers read: what it is, and its path."""
    yield "split.path", getattr(config.split, "path", None) or ""
    for scene in (s for s in scenes if not s.problem):
        yield from (("scene", asset.path) for asset in scene.assets)
        yield from ((f"labels.{name}", path) for name, path in scene.labels.items())


def inputs_fingerprint(config: Config, scenes: Iterable[SceneFiles]) -> str:
    """What a dataset was made from: every scene's files, and the whole configuration."""
    stage = config.stage_digest
    lines = [config.record_digest(), *(s.fingerprint(stage) for s in scenes)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_output(
    out: Path, config: Config, inputs: str, overwrite: bool, stage_dir: str = ""
) -> bool:
    """Whether ``out`` already holds this very dataset, whole.

    Raises:
      ConfigError: it holds another configuration's, or cannot be written.
    """
    check_folder("--output", out)
    if overwrite:
        return False
    if not (out / FILE_NAME).exists():
        ours = stage_dir or (out / STAGE).exists() or (out / METRICS).exists()
        if not ours and any(n.endswith(".tfrecord") for n in names_in(out / RECORDS)):
            raise ConfigError(
                f"--output {out}: its {RECORDS}/ holds something else's files: choose another "
                "folder, or replace them with --overwrite"
            )
        return False
    try:
        spec = DatasetSpec.load(str(out))
    except DatasetError as e:
        raise ConfigError(f"{e}; or replace it with --overwrite") from None
    # Other statistics need no conversion.
    other = config.resolved() | {"statistics": spec.config["statistics"]}
    difference = _difference(spec.config, other)
    if difference:
        raise ConfigError(
            f"--output {out} already holds dataset {spec.name!r} of another configuration "
            f"({difference}): choose another folder, or replace it with --overwrite"
        )
    # A scene that failed may have failed by the machine's fault: it is tried again.
    failed = read_metrics(out)["scenes"]["failed"]
    if failed or spec.inputs != inputs:
        return False
    shards = {join(out, s.path): s for split in spec.splits.values() for s in split.shards}
    return sizes(shards) == {path: shard.num_bytes for path, shard in shards.items()}


def check_folder(flag: str, folder: Path) -> None:
    """That files can be written below a folder, which need not be there.

    Raises:
      ConfigError: they cannot.
    """
    if glob.has_magic(str(folder)):
        raise ConfigError(
            f"{flag} {folder}: Beam takes *, ? and [ for patterns: choose another name"
        )
    if is_remote(folder):
        check_bucket(flag, folder)
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{flag} {folder}: is a file: give a folder")
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"{flag} {folder}: {parent} cannot be written: choose another folder")


def _difference(old: Any, new: Any, path: str = "") -> str:
    """The first key in which two configurations differ, in words. Scenes may be added, and what
    is said of the dataset may change."""
    if path in ("scenes.paths", *WORDS) or old == new:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        keys: Iterator[str] = iter(dict.fromkeys((*old, *new)))
        found = (_difference(old.get(k), new.get(k), f"{path}.{k}".lstrip(".")) for k in keys)
        return next((f for f in found if f), "")
    return f"{path} was {json.dumps(old)}, now {json.dumps(new)}"


def keep_words(out: Path, config: Config) -> None:
    """Has dataset.json of a whole dataset say what the configuration now says of it."""
    spec = DatasetSpec.load(str(out))
    words = {key: config.resolved()[key] for key in WORDS}
    if spec.config | words != spec.config:
        spec = dataclasses.replace(spec, config=spec.config | words)
        write_text(out / FILE_NAME, spec.to_json())


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def staged_scenes(out: Path) -> list[StagedScene]:
    """The scenes of a dataset whose stage files are still there.

    Raises:
      ConfigError: no scenes.jsonl, or a stage file is gone.
    """
    scenes = read_scenes(out)
    there = sizes(s.path for s in scenes)
    for scene in scenes:
        if scene.path not in there:
            raise ConfigError(
                f"{scene.path}: the stage file is gone (--drop_stage removes them): convert again"
            )
    return scenes


def is_staged(out: Path) -> bool:
    """Whether the stage files of all of a dataset's scenes are there."""
    try:
        return bool(staged_scenes(out))
    except ConfigError:
        return False


def read_scenes(out: Path) -> list[StagedScene]:
    """The scenes of scenes.jsonl.

    Raises:
      ConfigError: there is none.
    """
    path = out / SCENES
    if not path.exists():
        raise ConfigError(f"{path}: not there: {out} was not written by `scenefeed convert`")
    return [StagedScene.from_json(line, str(out)) for line in path.read_text().splitlines()]


def read_metrics(out: Path) -> dict[str, Any]:
    """metrics.json of the last run.

    Raises:
      DatasetError: it is not there or damaged.
    """
    path = out / METRICS
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as e:
        raise DatasetError(f"{path}: cannot be read ({e}): run `scenefeed convert`") from None


def written_config(out: Path) -> dict[str, Any]:
    """The configuration that a folder was written with, also when its last run broke off.

    Raises:
      DatasetError: it holds neither dataset.json nor metrics.json.
    """
    if (out / FILE_NAME).exists():
        return DatasetSpec.load(str(out)).config
    return dict(read_metrics(out)["config"])


def check_reshard(config: Config, written: dict[str, Any]) -> None:
    """shard may change what stands after the stage files, and nothing before.

    Raises:
      ConfigError: it would need the scenes.
    """
    for section in STAGE_SECTIONS:
        difference = _difference(written.get(section), config.resolved()[section], section)
        if difference:
            raise ConfigError(f"{difference}: that needs the scenes: use `scenefeed convert`")
    before = written.get("sample", {}).get("labelled", False)
    if config.sample.labelled != before:
        raise ConfigError("sample.labelled changed: that needs the scenes: use `scenefeed convert`")


def reshard_fingerprint(config: Config, scenes: Iterable[StagedScene]) -> str:
    """As ``inputs_fingerprint``, from what the stage files remember of their inputs."""
    lines = [config.record_digest(), *(s.fingerprint for s in scenes)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

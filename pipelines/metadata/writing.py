"""Writing the metadata, from what a dataset's folder says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...loader.spec import FILE_NAME, DatasetSpec
from ...transforms.errors import JobError, describe
from ...transforms.storage import path_of, remove, write_text
from ..results import METRICS, SCENES, STATISTICS
from . import card, croissant, schema, stac, tfds
from .words import MADE

FILES = (
    card.FILE, croissant.FILE, schema.FILE, stac.COLLECTION, stac.ITEMS, tfds.FEATURES, tfds.INFO,
)  # fmt: skip


def write_metadata(out: str | Path) -> list[str]:
    """Writes ``FILES`` beside a dataset's dataset.json; removes those that no longer hold.

    Reads dataset.json, scenes.jsonl, and where they are there metrics.json and statistics.json:
    no record, no stage file. A file of such a name that somebody else wrote is left as it is.

    Returns:
      The names of such files. Without a dataset.json nothing is written.

    Raises:
      JobError: the folder cannot be written to.
    """
    out = path_of(out)
    if not (out / FILE_NAME).exists():
        return []
    found = documents(out)
    foreign = []
    for name in FILES:
        path = out / name
        try:
            old = path.read_text() if path.exists() else MADE
            if MADE not in old:
                foreign.append(name)
            elif name in found:
                write_text(path, found[name])
            elif old != MADE:
                remove(path)
        except Exception as e:  # each driver has its own
            raise JobError(
                f"{path}: cannot be written: {getattr(e, 'strerror', None) or describe(e)}: the "
                "dataset itself is whole; make room, then run the same command again"
            ) from None
    return foreign


def documents(out: Path) -> dict[str, str]:
    """File name to text, of all that there is to say of a dataset."""
    spec = DatasetSpec.load(str(out))
    lines = (out / SCENES).read_text() if (out / SCENES).exists() else ""
    scenes = [json.loads(line) for line in lines.splitlines()]
    metrics, statistics = _read(out / METRICS), _read(out / STATISTICS)
    if statistics.get("inputs") != spec.inputs:
        statistics = {}  # of another dataset, which stood here before
    return {
        **tfds.files(spec),
        **schema.files(spec),
        **croissant.files(spec, lines),
        **stac.files(spec, scenes, statistics),
        **card.files(spec, scenes, statistics, metrics.get("versions", {})),
    }


def forget(out: Path) -> None:
    """Removes what would have TFDS read a dataset while its shards are written again."""
    path = out / tfds.INFO
    if path.exists() and MADE in path.read_text():
        remove(path)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}

"""From a record's key (scene, row, column) back to the ground, and to the shard that holds it.

What a patch's place needs is in scenes.jsonl alone; where its record lies follows from the key's
hash (``assign``), so that a few records are read to find it, not all.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..loader import tfrecord
from ..loader.codec import decode_records
from ..loader.reader import Reader
from ..loader.spec import DatasetError, DatasetSpec
from ..loader.storage import join, open_file
from .assign import spread
from .errors import ConfigError
from .georeference import Georeference
from .hashing import shuffle_order

SCENES = "scenes.jsonl"
KEY = ("scene_id", "row", "col")
# A patch's corners, from its first pixel's, as (right, down) in sides.
_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


@dataclasses.dataclass(frozen=True)
class Key:
    """What names a patch: its scene, and the pixel of its corner in the scene's grid."""

    scene_id: str
    row: int
    col: int

    def __str__(self) -> str:
        return f"{self.scene_id}/{self.row}/{self.col}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """A key from ``scene/row/column``. Scenes' ids hold no slash, and may hold all else.

        Raises:
          ConfigError: it is none.
        """
        parts = text.rsplit("/", 2)
        try:
            return cls(parts[0], int(parts[1]), int(parts[2]))
        except (IndexError, ValueError):
            raise ConfigError(
                f"{text!r} is no key: give scene/row/column, as India_900498/128/64"
            ) from None


@dataclasses.dataclass(frozen=True)
class Scene:
    """A line of scenes.jsonl.

    Attributes:
      id: its name.
      source: its files.
      where: its grid, and how that is placed.
      patches: its records, by split.
      centres: pixels (row, column) that patches are centred on; None where they are a grid.
    """

    id: str
    source: tuple[str, ...]
    where: Georeference
    patches: Mapping[str, int]
    centres: tuple[tuple[int, int], ...] | None = None


def read_scenes(out: str | Path) -> dict[str, Scene]:
    """The scenes of a dataset, by id, from scenes.jsonl.

    Raises:
      DatasetError: it is not there.
    """
    from .storage import path_of

    path = path_of(out) / SCENES
    if not path.exists():
        raise DatasetError(f"{path}: not there: {out} was not written by `scenefeed convert`")
    return {d["id"]: _scene(d) for d in map(json.loads, path.read_text().splitlines())}


def _scene(d: dict[str, Any]) -> Scene:
    where = Georeference(
        d["height"], d["width"], d["crs"], tuple(d["transform"]),
        tuple(tuple(p) for p in d.get("gcps", ())), tuple(d.get("assumed", ())),
    )  # fmt: skip
    centres = d.get("centres")
    return Scene(
        d["id"], tuple(d["source"]), where, d["patches"],
        None if centres is None else tuple((r, c) for r, c in centres),
    )  # fmt: skip


def scene_of(scenes: Mapping[str, Scene], scene_id: str) -> Scene:
    """The scene of that id.

    Raises:
      DatasetError: there is none; the nearest is named.
    """
    if scene_id in scenes:
        return scenes[scene_id]
    near = difflib.get_close_matches(scene_id, scenes, 1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(scenes)[:5])}"
    raise DatasetError(f"no scene {scene_id!r} among {len(scenes)}: {hint}")


def corners(where: Georeference, row: int, col: int, size: int) -> np.ndarray:
    """A patch's corners in map coordinates (4, 2), from its first pixel's outer corner along its
    first row, and round."""
    across, down = (_CORNERS * size + (col, row)).T
    return np.stack(where.to_map(across, down), axis=1)


def corners_lonlat(where: Georeference, row: int, col: int, size: int) -> np.ndarray | None:
    """The same in degrees, WGS 84; None where the scene is not known to be anywhere."""
    if not (where.crs and where.located):
        return None
    across, down = (_CORNERS * size + (col, row)).T
    found = np.stack(where.to_lonlat(across, down), axis=1)
    return found if np.isfinite(found).all() else None


def centre(where: Georeference, row: int, col: int, size: int) -> tuple[float, float]:
    """A patch's centre in map coordinates (x, y)."""
    x, y = where.to_map([col + size / 2], [row + size / 2])
    return float(x[0]), float(y[0])


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a record lies.

    Attributes:
      split, index: as ``Reader(out, split)[index]`` reads it.
      shard: its path in the dataset.
      position: the record's number in the shard.
    """

    split: str
    index: int
    shard: str
    position: int


def find_record(
    out: str | Path, spec: DatasetSpec, scenes: Mapping[str, Scene], key: Key
) -> Found | None:
    """Where a key's record lies; None where no split has it.

    Raises:
      DatasetError: no such scene, or a shard cannot be read.
    """
    scene_of(scenes, key.scene_id)
    seed = int(spec.config.get("records", {}).get("seed", 0))
    order = _order(seed, key)
    for name, split in spec.splits.items():
        counts = {i: s.patches[name] for i, s in scenes.items() if s.patches.get(name)}
        if key.scene_id not in counts:
            continue
        plan = spread(counts, len(split.shards), seed)
        span = plan.ranges[plan.group_of[key.scene_id]]
        number = span.first + ((order >> 32) * span.count >> 32)
        position = _position(out, spec, name, number, key, seed)
        if position is not None:
            before = sum(s.num_examples for s in split.shards[:number])
            return Found(name, before + position, split.shards[number].path, position)
    return None


def _order(seed: int, key: Key) -> int:
    row, col = np.array([key.row]), np.array([key.col])
    return int(shuffle_order(seed, key.scene_id, row, col)[0])


def _position(
    out: str | Path, spec: DatasetSpec, split: str, number: int, key: Key, seed: int
) -> int | None:
    """A key's place in one shard, whose records stand in the order of their keys' hashes."""
    shards = spec.splits[split].shards
    if spec.compression != "none":
        keys = map(record_key, shard_records(out, spec, shards[number].path, KEY))
        return next((i for i, found in enumerate(keys) if found == key), None)
    reader = Reader(out, split, KEY, checksums="never")
    first = sum(s.num_examples for s in shards[:number])
    wanted, low, high = _order(seed, key), 0, shards[number].num_examples
    while low < high:
        middle = (low + high) // 2
        found = record_key(reader[first + middle])
        if found == key:
            return middle
        if _order(seed, found) < wanted:
            low = middle + 1
        else:
            high = middle
    return None


def record_key(record: Mapping[str, Any]) -> Key:
    return Key(str(record["scene_id"]), int(record["row"]), int(record["col"]))


def shard_records(out: str | Path, spec: DatasetSpec, shard: str, names: Any) -> Any:
    """A shard's records one by one, from its beginning; for compressed ones.

    Raises:
      DatasetError: it is damaged.
    """
    path = join(out, shard)
    with open_file(path, spec.compression) as file:
        for payload in tfrecord.read(file, path):
            data = np.frombuffer(payload, np.uint8)
            found = decode_records([data], spec.features, list(names), _empty)
            yield {k: v[0] for k, v in found.items()}


def _empty(rows: int, columns: int) -> np.ndarray:
    return np.empty((rows, columns), np.uint8)


def read_record(out: str | Path, spec: DatasetSpec, split: str, index: int) -> dict[str, Any]:
    """A record by its number in a split, also of compressed shards.

    Raises:
      DatasetError: no such split, beyond its end, or damage.
    """
    shards = spec.split(split).shards
    count = spec.splits[split].num_examples
    if not 0 <= index < count:
        raise DatasetError(f"no record {index} in split {split}: it has {count}, 0 to {count - 1}")
    if spec.compression == "none":
        return Reader(out, split)[index]
    ends = np.cumsum([s.num_examples for s in shards])
    number = int(np.searchsorted(ends, index, side="right"))
    position = index - int(ends[number] - shards[number].num_examples)
    records = shard_records(out, spec, shards[number].path, spec.features)
    return next(record for i, record in enumerate(records) if i == position)


def scene_keys(
    out: str | Path, spec: DatasetSpec, scene_id: str, split: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a scene's records, of one split or of all, by row, then column: rows and
    columns, int64 (N,) each.

    Raises:
      DatasetError: no such split, or a shard cannot be read.
    """
    found: list[tuple[int, int]] = []
    for name in [split] if split else [k for k, s in spec.splits.items() if s.num_examples]:
        if spec.compression == "none":
            reader = Reader(out, name, KEY, checksums="never")
            columns = reader.batch(reader.of_scene(scene_id), ["row", "col"])
            found += zip(columns["row"].tolist(), columns["col"].tolist(), strict=True)
            continue
        for shard in spec.split(name).shards:
            keys = map(record_key, shard_records(out, spec, shard.path, KEY))
            found += [(k.row, k.col) for k in keys if k.scene_id == scene_id]
    rows, cols = np.array(sorted(found), np.int64).reshape(-1, 2).T
    return rows, cols

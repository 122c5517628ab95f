"""Which split a patch belongs to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import SceneError
from .georeference import Georeference
from .ground import AROUND, on_the_plane
from .hashing import key_hash, patch_hashes, uniform
from .scenes import Properties
from .sections import Split
from .values import as_text, parse_time
from .zones import by_polygons

_CHUNK = 1 << 16  # patches that are projected at once

Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


def split_indexes(
    split: Split | None, seed: int, size: int, scene_id: str, where: Georeference,
    properties: Properties, rows: np.ndarray, cols: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The split of each patch, as an index into ``split.names``, intp (N,); -1 for a patch that
    is in none. Without a split, all are 0.

    By patch, each patch draws for itself; by scene, the whole scene draws once; by block, all
    patches of one square draw together. Date and column go by the scene's properties, polygons
    by the ground.

    Args:
      split: the section.
      seed: of all draws.
      size: a patch's side, pixels.
      scene_id: the scene's id.
      where: the scene's grid.
      properties: the scene's; ``time`` is ISO 8601.
      rows, cols: the patches' corners, pixels, integers (N,).

    Raises:
      SceneError: the scene lacks what the split goes by: a place, a time, a value.
    """
    if split is None:
        return np.zeros(len(rows), np.intp)
    if split.by == "date":
        return np.full(len(rows), _by_date(split, properties), np.intp)
    if split.by == "column":
        return np.full(len(rows), _by_column(split, properties), np.intp)
    if split.by == "polygons":
        return by_polygons(split, size, where, rows, cols)
    if split.by == "block" and split.unit == "metres":
        return _by_block_on_the_ground(split, seed, size, where, rows, cols)
    if split.by == "block":
        return _by_block(split, seed, size, scene_id, rows, cols)
    if split.by == "scene":
        hashes = np.full(len(rows), key_hash(seed, "split", scene_id), np.uint64)
    else:
        hashes = patch_hashes(seed, "split", scene_id, rows, cols)
    return _drawn(split, hashes)


def _drawn(split: Split, hashes: np.ndarray) -> np.ndarray:
    shares = np.cumsum(list(split.fractions.values()))
    return np.minimum(np.searchsorted(shares, uniform(hashes), side="right"), len(shares) - 1)


# Blocks


def _by_block(
    split: Split, seed: int, size: int, scene_id: str, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """Squares of pixels; a patch draws with the square that its corner is in."""
    side, buffer = split.block or 1.0, split.buffer

    def draw(down: np.ndarray, across: np.ndarray) -> np.ndarray:
        return _drawn(split, patch_hashes(seed, "split", scene_id, down, across))

    found = draw(rows // side, cols // side)
    if buffer is None:
        return found
    grown = [(corner - buffer / 2, corner + size + buffer / 2) for corner in (rows, cols)]
    down, across = ((_block(low, side), _block(high, side, end=True)) for low, high in grown)
    return np.where(_undivided(draw, found, down, across), found, -1)


def _by_block_on_the_ground(
    split: Split, seed: int, size: int, where: Georeference, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """Squares of the plane of EASE-Grid 2.0 (EPSG:6933), the same for all scenes, so that those
    that overlap draw alike; a patch draws with the square that its centre is in.

    Squares are counted from the south-west corner of the plane, and eastwards go round.

    Source: Brodzik et al., "EASE-Grid 2.0", ISPRS Int. J. Geo-Inf. 1(1), 2012.
    """
    side, buffer = split.block or 1.0, split.buffer
    around = int(np.ceil(AROUND / side))

    def draw(down: np.ndarray, across: np.ndarray) -> np.ndarray:
        return _drawn(split, patch_hashes(seed, "split", "", down, across % around))

    def column(x: np.ndarray, end: bool = False) -> np.ndarray:
        turns = np.ceil(x / AROUND) - 1 if end else np.floor(x / AROUND)
        inside = _block(x - turns * AROUND, side, end)
        return np.asarray(turns.astype(np.int64) * around + np.clip(inside, 0, around - 1))

    found = np.empty(len(rows), np.intp)
    for i in range(0, len(rows), _CHUNK):
        part = slice(i, i + _CHUNK)
        x, y = on_the_plane(where, size, rows[part], cols[part], buffer or 0.0)
        own = draw(_block(y[1], side), column(x[1]))
        if buffer is not None:
            west = column(x[0])
            east = np.minimum(column(x[2], end=True), west + around - 1)
            down = (_block(y[0], side), _block(y[2], side, end=True))
            own = np.where(_undivided(draw, own, down, (west, east)), own, -1)
        found[part] = own
    return found


def _block(x: np.ndarray, side: float, end: bool = False) -> np.ndarray:
    """The index of the block that begins at, or ends after, a coordinate: int64 (N,)."""
    return np.asarray(np.ceil(x / side) - 1 if end else np.floor(x / side)).astype(np.int64)


def _undivided(
    draw: Draw, own: np.ndarray, down: tuple[np.ndarray, np.ndarray],
    across: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:  # fmt: skip
    """Whether all blocks that a patch's footprint touches, grown by buffer / 2 on every side,
    draw its own split: bool (N,).

    Two such patches of different splits are at least ``buffer`` apart: were they nearer, their
    grown footprints would share ground, and the block there would draw both splits.

    Args:
      draw: block rows and columns to splits.
      own: each patch's split.
      down, across: the first and the last block that is touched.
    """
    whole = np.ones(len(own), bool)
    rows, i = np.arange(len(own)), 0
    while len(rows):  # those left that another block may still divide
        cells, j = rows, 0
        while len(cells):
            whole[cells] = draw(down[0][cells] + i, across[0][cells] + j) == own[cells]
            j += 1
            cells = cells[whole[cells] & (across[0][cells] + j <= across[1][cells])]
        i += 1
        rows = rows[whole[rows] & (down[0][rows] + i <= down[1][rows])]
    return whole


# Properties


def _by_date(split: Split, properties: Properties) -> int:
    """The first range that holds the day (UTC) of the scene's time, else -1."""
    given = properties.get("time")
    time = parse_time(given) if given is not None else None
    if time is None:
        said = f"its time {given!r} is no date" if given is not None else "its time is not known"
        raise SceneError(
            f"{said}, and the split is by date: give a time column, or scenes.time", step="split"
        )
    day = time[:10]
    for i, (first, last) in enumerate((split.dates or {}).values()):
        if (first is None or first.isoformat() <= day) and (
            last is None or day <= last.isoformat()
        ):
            return i
    return -1


def _by_column(split: Split, properties: Properties) -> int:
    """The split whose list holds the scene's value, or that the value names; -1 for none."""
    column = split.column or ""
    given = properties.get(column)
    if given is None:
        known = ", ".join(sorted(k for k, v in properties.items() if v is not None)) or "nothing"
        raise SceneError(
            f"has no value for {column!r}, which the split goes by (known of it: {known}): "
            "give it one in the manifest",
            step="split",
        )
    text = as_text(given)
    if split.values is None:
        if text not in split.names:
            raise SceneError(
                f"{column} is {text!r}, which is no split ({', '.join(split.names)}): "
                "correct it, or list the values of each split in split.values",
                step="split",
            )
        return split.names.index(text)
    lists = ({as_text(v) for v in listed} for listed in split.values.values())
    return next((i for i, listed in enumerate(lists) if text in listed), -1)

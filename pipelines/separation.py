"""How far apart the splits of a dataset lie: what verify proves of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rasterio import Env

from ..transforms.georeference import Georeference

# Split to scene to the corners (rows, columns) of its patches.
Keys = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]

# WGS 84: the equator's radius in metres, and the first eccentricity squared (NGA.STND.0036).
_RADIUS, _E2 = 6378137.0, 6.69437999014e-3

# A map projection's scale changes within a scene, so that neighbours of a mosaic, edge to edge,
# would seem to overlap by some thousandths of a patch.
_TOUCHING = 0.99


@dataclasses.dataclass(frozen=True)
class Gap:
    """The least distance between two splits.

    Attributes:
      pixels: between patches of one scene, outline to outline; None where no scene has both.
      metres: the same on the ground, where it can be told.
      scene: the scene in which it is least.
      overlapping: pairs of patches of different scenes whose centres are so near on the ground
        that they overlap; None where scenes are not georeferenced.
    """

    pixels: float | None
    metres: float | None
    scene: str
    overlapping: int | None


def read_georeferences(path: Path) -> dict[str, Georeference]:
    """Each scene's grid by its id, from scenes.jsonl; empty without that file."""
    if not path.exists():
        return {}
    found = {}
    for d in map(json.loads, path.read_text().splitlines()):
        gcps = tuple(tuple(p) for p in d.get("gcps", ()))
        found[d["id"]] = Georeference(
            d["height"], d["width"], d["crs"], tuple(d["transform"]), gcps
        )
    return found


def gaps(keys: Keys, size: int, grids: Mapping[str, Georeference]) -> dict[tuple[str, str], Gap]:
    """The least distance between every two splits that have patches.

    Args:
      keys: where the patches are.
      size: their side, pixels.
      grids: the scenes' grids.
    """
    with Env():  # entered anew for each scene, it would take half the time
        return {
            (one, other): _gap(keys[one], keys[other], size, grids)
            for one, other in itertools.combinations([k for k in keys if keys[k]], 2)
        }


def _gap(
    one: Mapping[str, Any], other: Mapping[str, Any], size: int,
    grids: Mapping[str, Georeference],
) -> Gap:  # fmt: skip
    best: tuple[float, float | None, str] = (np.inf, None, "")
    for scene in sorted(set(one) & set(other)):
        side = pixel_metres(grids[scene]) if scene in grids else None
        pixels, metres = box_gap(_points(one[scene]), _points(other[scene]), size, side)
        if pixels < best[0]:
            best = (pixels, metres, scene)
    return Gap(
        pixels=None if np.isinf(best[0]) else best[0], metres=best[1], scene=best[2],
        overlapping=_overlapping(one, other, size, grids),
    )  # fmt: skip


def _points(corners: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.stack(corners, axis=1).astype(np.float64)


def box_gap(
    one: np.ndarray, other: np.ndarray, size: int, side: tuple[float, float] | None
) -> tuple[float, float | None]:
    """The least distance between two sets of squares, given their corners (N, 2), in pixels and,
    with the pixels' (height, width) in metres, on the ground."""
    from scipy.spatial import cKDTree  # half a second to load

    # The nearest by the larger of both distances; the nearest by Euclid is not much farther.
    near, _ = cKDTree(other).query(one, p=np.inf)
    reach = max(0.0, near.min() - size) * np.sqrt(2) + size
    candidates = one[near <= reach + 1e-9]
    pairs = cKDTree(other).query_ball_point(candidates, reach + 1e-9, p=np.inf)
    pixels, metres = np.inf, np.inf
    for corner, found in zip(candidates, pairs, strict=True):
        apart = np.maximum(np.abs(other[found] - corner) - size, 0)
        pixels = min(pixels, float(np.hypot(*apart.T).min()))
        if side is not None:
            metres = min(metres, float(np.hypot(*(apart * side).T).min()))
        if pixels == 0:
            break
    return pixels, metres if side is not None else None


def pixel_metres(where: Georeference) -> tuple[float, float] | None:
    """A pixel's (height, width) in metres at the grid's middle; None where it has no CRS."""
    if not (where.crs and where.located):
        return None
    col, row = where.width / 2, where.height / 2
    here, down, right = _on_the_globe(where, np.array([[row, col], [row + 1, col], [row, col + 1]]))
    return float(np.linalg.norm(down - here)), float(np.linalg.norm(right - here))


def _on_the_globe(where: Georeference, places: np.ndarray) -> np.ndarray:
    """Pixels (row, column) as points on the ellipsoid (N, 3), metres from its centre."""
    lon, lat = np.radians(where.to_lonlat(places[:, 1], places[:, 0]))
    normal = _RADIUS / np.sqrt(1 - _E2 * np.sin(lat) ** 2)
    across = normal * np.cos(lat)
    return np.stack(
        [across * np.cos(lon), across * np.sin(lon), normal * (1 - _E2) * np.sin(lat)], axis=1
    )


def _overlapping(
    one: Mapping[str, Any], other: Mapping[str, Any], size: int,
    grids: Mapping[str, Georeference],
) -> int | None:  # fmt: skip
    """Pairs of patches of different scenes whose centres are nearer than the smaller one's side:
    such squares overlap, however they are turned. Squares that only touch are left out."""
    metres = {s: pixel_metres(grids[s]) for s in {*one, *other} if s in grids}
    sides = {s: min(m) * size * _TOUCHING for s, m in metres.items() if m is not None}
    placed = list(sides)
    if len(placed) < 2:
        return 0 if placed else None
    clouds = [_cloud(split, placed, size, grids, sides) for split in (one, other)]
    if not all(len(points) for points, _, _ in clouds):
        return 0
    from scipy.spatial import cKDTree

    (points, scenes, reach), (others, other_scenes, _) = clouds
    pairs = cKDTree(others).query_ball_point(points, reach)
    return sum(
        int((other_scenes[found] != scene).sum())
        for scene, found in zip(scenes, pairs, strict=True) if found
    )  # fmt: skip


def _cloud(
    split: Mapping[str, Any], placed: list[str], size: int,
    grids: Mapping[str, Georeference], sides: Mapping[str, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """A split's patch centres on the globe, their scenes' numbers, and how near counts."""
    points, scenes, reach = [np.empty((0, 3))], [np.empty(0, int)], [np.empty(0)]
    for number, scene in enumerate(placed):
        if scene in split:
            found = _on_the_globe(grids[scene], _points(split[scene]) + size / 2)
            points.append(found)
            scenes.append(np.full(len(found), number))
            reach.append(np.full(len(found), sides[scene]))
    return np.concatenate(points), np.concatenate(scenes), np.concatenate(reach)

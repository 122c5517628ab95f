"""Where the scenes of a dataset lie: their outlines, in degrees."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from ...transforms.georeference import Georeference, transform_points
from ..separation import read_georeferences

_EDGE = 4  # points along each side of an outline


@dataclasses.dataclass(frozen=True)
class Places:
    """Scenes with a place on the ground, and how many have none.

    Attributes:
      outlines: scene to its outline (4 * _EDGE, 2), longitude and latitude in degrees, WGS 84.
      grids: every scene's grid.
    """

    outlines: dict[str, np.ndarray]
    grids: dict[str, Georeference]

    @property
    def unplaced(self) -> int:
        return len(self.grids) - len(self.outlines)

    @functools.cached_property
    def centres(self) -> dict[str, np.ndarray]:
        return {k: o.mean(axis=0) for k, o in self.outlines.items()}


def find_places(scenes: Path) -> Places:
    """The scenes of scenes.jsonl; all those of one CRS are transformed at once."""
    grids = read_georeferences(scenes)
    points: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, grid in grids.items():
        if grid.crs and grid.located:
            xy = np.stack(grid.to_map(*_border(grid)), axis=1)
            points.setdefault(grid.crs, []).append((name, xy))
    outlines: dict[str, np.ndarray] = {}
    for crs, found in points.items():
        xs, ys = np.concatenate([xy for _, xy in found]).T
        lonlat = np.stack(transform_points(crs, "EPSG:4326", xs, ys), axis=1)
        for (name, _), outline in zip(found, np.split(lonlat, len(found)), strict=True):
            if np.isfinite(outline).all():
                outlines[name] = _unbroken(outline)
    return Places(dict(sorted(outlines.items())), grids)


def _border(grid: Georeference) -> tuple[np.ndarray, np.ndarray]:
    """Points round a grid, (columns, rows)."""
    t = np.arange(_EDGE) / _EDGE
    zero, one = np.zeros(_EDGE), np.ones(_EDGE)
    cols = np.concatenate([t, one, 1 - t, zero])
    rows = np.concatenate([zero, t, one, 1 - t])
    return cols * grid.width, rows * grid.height


def _unbroken(outline: np.ndarray) -> np.ndarray:
    """An outline over the date line goes on beyond 180 degrees."""
    if np.ptp(outline[:, 0]) <= 180:
        return outline
    return outline + np.where(outline[:, :1] < 0, [360, 0], 0)

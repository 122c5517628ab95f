"""Where a grid's pixels lie on the ground, and the way there and back."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from rasterio import warp
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, GCPTransformer


@dataclasses.dataclass(frozen=True)
class Georeference:
    """The grid of a scene: its size, and how it is placed.

    Attributes:
      height, width: pixels.
      crs: WKT, or "" where there is none.
      transform: the affine's six numbers (a, b, c, d, e, f), pixel to map. Where ``gcps`` place
        the grid, their least-squares fit.
      gcps: ground control points (row, column, x, y), for grids that no affine places; else empty.
      assumed: what was taken for granted to place it, in words.
    """

    height: int
    width: int
    crs: str
    transform: tuple[float, ...]
    gcps: tuple[tuple[float, float, float, float], ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def affine(self) -> Affine:
        return Affine(*self.transform)

    @property
    def located(self) -> bool:
        """Whether pixels can be told from map coordinates."""
        return bool(self.gcps) or self.affine != Affine.identity()

    def to_pixels(self, xs: Any, ys: Any) -> tuple[np.ndarray, np.ndarray]:
        """Map coordinates (in ``crs``) as fractional (columns, rows): (0, 0) is the outer corner
        of the first pixel."""
        xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
        if self.gcps:
            with _gcp_transformer(self.gcps) as transformer:
                rows, cols = transformer.rowcol(xs, ys, op=_same)
            return np.asarray(cols, np.float64), np.asarray(rows, np.float64)
        a, b, c, d, e, f = tuple(~self.affine)[:6]
        return a * xs + b * ys + c, d * xs + e * ys + f

    def to_map(self, cols: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Fractional (columns, rows) as map coordinates (x, y) in ``crs``."""
        cols, rows = np.asarray(cols, np.float64), np.asarray(rows, np.float64)
        if self.gcps:
            with _gcp_transformer(self.gcps) as transformer:
                xs, ys = transformer.xy(rows, cols, offset="ul")
            return np.asarray(xs, np.float64), np.asarray(ys, np.float64)
        a, b, c, d, e, f = self.transform[:6]
        return a * cols + b * rows + c, d * cols + e * rows + f

    def to_lonlat(self, cols: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Fractional (columns, rows) as degrees (longitude, latitude), WGS 84; NaN without CRS."""
        xs, ys = self.to_map(cols, rows)
        if not self.crs:
            return np.full_like(xs, np.nan), np.full_like(ys, np.nan)
        return transform_points(self.crs, "EPSG:4326", xs, ys)


def transform_points(
    source: str, target: str, xs: np.ndarray, ys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points from one CRS to another (any text that PROJ knows), x (longitude) first. Those
    that have no place there become NaN."""
    if _crs(source) == _crs(target) or not len(xs):
        return xs, ys
    try:
        x, y = warp.transform(_crs(source), _crs(target), xs, ys)[:2]
    except CPLE_BaseError:  # one point that PROJ refuses fails them all
        if len(xs) == 1:
            return np.full(1, np.nan), np.full(1, np.nan)
        middle = len(xs) // 2
        halves = (slice(middle), slice(middle, None))
        parts = [transform_points(source, target, xs[half], ys[half]) for half in halves]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    lost = ~(np.isfinite(x) & np.isfinite(y))
    return np.where(lost, np.nan, x), np.where(lost, np.nan, y)


@functools.lru_cache(maxsize=256)
def _crs(text: str) -> CRS:
    return CRS.from_user_input(text)


def _gcp_transformer(gcps: tuple[tuple[float, float, float, float], ...]) -> GCPTransformer:
    return GCPTransformer([GroundControlPoint(row=r, col=c, x=x, y=y) for r, c, x, y in gcps])


def _same(value: Any) -> Any:
    return value

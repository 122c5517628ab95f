"""The grid that a scene's bands share: where each lies, whether they agree, which one is chosen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rasterio import warp
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine, array_bounds, from_gcps

from .errors import SceneError
from .georeference import Georeference, transform_points
from .sections import TargetGrid

# A warped block reads all the source pixels under it: 512 x 128 target pixels in GDAL.
_BLOCK_PIXELS = 512 * 128
_MOST_SOURCE_BYTES = 256 << 20
_MOST_PIXELS = 1 << 40


def georeference_of(dataset: Any) -> Georeference:
    """Where a raster's pixels lie, and what has to be assumed for it."""
    transform, crs = dataset.transform, dataset.crs
    gcps: tuple[tuple[float, float, float, float], ...] = ()
    assumed = []
    points, points_crs = dataset.gcps
    if transform == Affine.identity() and len(points) >= 3:
        crs, gcps = points_crs or crs, tuple((p.row, p.col, p.x, p.y) for p in points)
        transform = from_gcps(points)
        off = _fit_error(transform, gcps)
        assumed.append(
            f"located by {len(gcps)} ground control points alone: transform is their affine fit, "
            f"off by up to {off:.1f} pixels"
        )
    elif transform == Affine.identity():
        assumed.append(
            "a CRS but no transform: map coordinates are taken to be pixels"
            if crs else "no georeference: coordinates are pixels"
        )  # fmt: skip
    elif not crs:
        assumed.append("no CRS: map coordinates are of an unknown system")
    return Georeference(
        dataset.height, dataset.width, crs.to_wkt() if crs else "", tuple(transform)[:6], gcps,
        tuple(assumed),
    )  # fmt: skip


def _fit_error(fit: Affine, gcps: tuple[tuple[float, float, float, float], ...]) -> float:
    if fit.is_degenerate:
        return math.inf
    rows, cols, xs, ys = np.array(gcps).T
    found_cols, found_rows = ~fit @ (xs, ys)
    return float(np.hypot(found_cols - cols, found_rows - rows).max())


def grid_difference(raster: Georeference, scene: Georeference) -> str:
    """How a raster's grid differs from the scene's, in words; empty where it does not.

    Bounds often differ in the last digits between files of one grid, so corners are compared,
    in pixels of the scene, to a hundredth. A raster without any georeference lies on the grid of
    a scene of its size.
    """
    if (raster.height, raster.width) != (scene.height, scene.width):
        return (
            f"is {raster.width} x {raster.height}, but the scene is {scene.width} x {scene.height}"
        )
    if raster.gcps == scene.gcps and raster.transform == scene.transform:
        different = raster.crs and scene.crs and not _same_crs(raster.crs, scene.crs)
        return f"has CRS {crs_name(raster)}, but the scene's is {crs_name(scene)}" * bool(different)
    if not raster.located and not raster.crs:
        return ""
    if not _same_crs(raster.crs, scene.crs):
        return f"has CRS {crs_name(raster)}, but the scene's is {crs_name(scene)}"
    if scene.affine.is_degenerate or raster.gcps or scene.gcps:
        return "has another transform"
    for col, row in ((0, 0), (scene.width, 0), (0, scene.height), (scene.width, scene.height)):
        x, y = ~scene.affine @ (raster.affine @ (col, row))
        off = max(abs(x - col), abs(y - row))
        if off > 0.01:
            return f"lies {off:.2f} pixels off the scene's grid at corner ({row}, {col})"
    return ""


def _same_crs(one: str, other: str) -> bool:
    return one == other or (
        bool(one and other) and CRS.from_wkt(one) == CRS.from_wkt(other)
    )  # fmt: skip


def crs_name(where: Georeference) -> str:
    if not where.crs:
        return "none"
    crs = CRS.from_wkt(where.crs)
    return crs.to_string() if crs.to_epsg() else where.crs.split('"')[1]


def target_grid(bands: Mapping[str, Georeference], wanted: TargetGrid | None) -> Georeference:
    """The one grid of a scene's bands.

    Without ``wanted``, the bands' own where they share one, else the finest band's (the first of
    equals). ``reference`` names a band. ``crs`` and ``resolution`` lay a grid over the finest
    band's extent, its corner on a multiple of the resolution, so that scenes align.

    Raises:
      SceneError: the bands cannot be related, or the grid cannot be laid.
    """
    first = next(iter(bands))
    several = any(
        w is not bands[first] and grid_difference(w, bands[first]) for w in bands.values()
    )
    new = wanted is not None and bool(wanted.crs or wanted.resolution)
    chosen = first
    if several or new:
        chosen = min(bands, key=lambda b: _pixel_metres(bands[b]))
    if wanted and new:
        return _new_grid(bands[chosen], wanted)
    if wanted and wanted.reference:
        if wanted.reference not in bands:
            listed = ", ".join(bands)
            reason = f"has no band {wanted.reference!r} for grid.reference: it has {listed}"
            raise SceneError(reason, step="plan")
        chosen = wanted.reference
    if not several:
        return bands[chosen]
    for name, where in bands.items():
        if grid_difference(where, bands[chosen]):
            _must_be_related(where, bands[chosen], f"band {name}", f"band {chosen}")
    return _noted(bands[chosen], f"bands of several grids: brought onto that of band {chosen}")


def _noted(where: Georeference, note: str) -> Georeference:
    return dataclasses.replace(where, assumed=(*where.assumed, note))


def _must_be_related(raster: Georeference, scene: Georeference, what: str, to: str) -> None:
    """Raises SceneError unless one grid can be warped onto the other."""
    difference = grid_difference(raster, scene)
    if scene.gcps:
        reason = (
            f"{what} {difference}, and {to} is located by control points: "
            "give grid: {crs, resolution} to warp to"
        )
    elif not (raster.located and scene.located and raster.crs and scene.crs):
        reason = f"{what} {difference}, and without a georeference of both it cannot be warped"
    elif not _overlap(raster, scene):
        reason = f"{what} does not overlap {to}: check their CRS and transform"
    else:
        return
    raise SceneError(reason, step="plan")


def must_be_related(raster: Georeference, scene: Georeference, what: str) -> None:
    """As for bands, for anything that is to be warped onto the scene's grid.

    Raises:
      SceneError: it cannot be.
    """
    _must_be_related(raster, scene, what, "the scene")


def _outline(where: Georeference) -> tuple[np.ndarray, np.ndarray]:
    """Map coordinates of points along a grid's edge."""
    t = np.linspace(0, 1, 9)
    cols = np.concatenate([t, np.ones(9), t, np.zeros(9)]) * where.width
    rows = np.concatenate([np.zeros(9), t, np.ones(9), t]) * where.height
    return where.to_map(cols, rows)


def _overlap(one: Georeference, other: Georeference) -> bool:
    xs, ys = _outline(one)
    try:
        xs, ys = transform_points(one.crs, other.crs, xs, ys)
    except CRSError:
        return False
    cols, rows = other.to_pixels(xs, ys)
    fine = np.isfinite(cols) & np.isfinite(rows)
    if not fine.any():
        return False
    return bool(
        cols[fine].max() > 0 and rows[fine].max() > 0
        and cols[fine].min() < other.width and rows[fine].min() < other.height
    )  # fmt: skip


def _pixel_metres(where: Georeference) -> float:
    """A pixel's side at the grid's middle, metres; infinite where it cannot be told."""
    if not (where.crs and where.located):
        return math.inf
    col, row = where.width / 2, where.height / 2
    lon, lat = where.to_lonlat([col, col + 1, col], [row, row, row + 1])
    east = np.radians(lon[1:] - lon[0]) * np.cos(np.radians(lat[0]))
    north = np.radians(lat[1:] - lat[0])
    area = abs(east[0] * north[1] - east[1] * north[0])
    # Rounded, so that equal resolutions in two projections count as equal.
    return float(f"{6371000 * math.sqrt(area):.3g}") if np.isfinite(area) else math.inf


def _new_grid(base: Georeference, wanted: TargetGrid) -> Georeference:
    if not (base.crs and base.located):
        raise SceneError("has no georeference: it cannot be brought onto grid.crs", step="plan")
    try:
        crs = CRS.from_user_input(wanted.crs) if wanted.crs else CRS.from_wkt(base.crs)
        placed: dict[str, Any] = (
            {"gcps": [_control_point(p) for p in base.gcps]}
            if base.gcps
            else dict(zip(("left", "bottom", "right", "top"), _bounds(base), strict=True))
        )
        transform, width, height = warp.calculate_default_transform(
            CRS.from_wkt(base.crs), crs, base.width, base.height, **placed,
            resolution=wanted.resolution,
        )  # fmt: skip
        if wanted.resolution:
            transform, width, height = warp.aligned_target(
                transform, width, height, wanted.resolution
            )
    except (CRSError, ValueError) as e:
        raise SceneError(f"cannot be brought onto grid.crs: {e}", step="plan") from None
    if width * height > _MOST_PIXELS:
        reason = f"grid.resolution gives {width} x {height} pixels: choose a coarser one"
        raise SceneError(reason, step="plan")
    grid = Georeference(height, width, crs.to_wkt(), tuple(transform)[:6])
    return _noted(grid, f"warped to {crs.to_string()[:40]}, pixels of {abs(transform.a):g}")


def _bounds(where: Georeference) -> tuple[float, float, float, float]:
    if where.affine.b == where.affine.d == 0:
        return tuple(array_bounds(where.height, where.width, where.affine))
    xs, ys = _outline(where)
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def _control_point(gcp: tuple[float, float, float, float]) -> Any:
    row, col, x, y = gcp
    return GroundControlPoint(row=row, col=col, x=x, y=y, z=0)


def check_ratio(source: Georeference, target: Georeference, pixel_bytes: int) -> None:
    """Refuses a target so coarse that one of its blocks would read a great part of the source.

    Raises:
      SceneError: as said.
    """
    area = (_pixel_metres(target) / max(_pixel_metres(source), 1e-9)) ** 2
    most = min(area * _BLOCK_PIXELS, source.height * source.width)
    if math.isfinite(most) and most * pixel_bytes > _MOST_SOURCE_BYTES:
        reason = (
            f"the grid is {math.sqrt(area):.0f} times coarser than the raster: choose a finer "
            "grid.resolution, or coarsen the raster first (gdalwarp -tr)"
        )
        raise SceneError(reason, step="plan")

"""Splits by polygons: which patches lie wholly within a split's zone."""

from __future__ import annotations

import functools

import numpy as np
import shapely

from .errors import SceneError, describe
from .georeference import Georeference, transform_points
from .ground import metres_in_pixels, need_place, nowhere
from .sections import Split
from .storage import local_copy, stamps
from .values import as_text

# How far a patch may reach out of its zone, in pixels: zones that were drawn along pixels come
# back from a projection with rounding.
_SLACK = 1e-3


def by_polygons(
    split: Split, size: int, where: Georeference, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """The split whose polygons hold all of a patch's footprint, grown by buffer / 2 on every side,
    intp (N,); else -1. Ground that two splits' polygons hold is no split's, so patches of
    different splits are ``buffer`` apart.

    Raises:
      SceneError: the polygons cannot be read or say no split, or the scene cannot be placed.
    """
    need_place(where)
    if not len(rows):
        return np.zeros(0, np.intp)
    down = right = np.full(len(rows), (split.buffer or 0.0) / 2)
    if split.unit == "metres" and split.buffer:
        down, right = metres_in_pixels(where, split.buffer / 2, rows + size / 2, cols + size / 2)
    low = np.stack([cols - right, rows - down])
    high = np.stack([cols + size + right, rows + size + down])
    footprints = shapely.box(*(low + _SLACK), *(high - _SLACK))
    found = np.full(len(rows), -1, np.intp)
    for i, zone in enumerate(_zones(split, where, low.min(axis=1), high.max(axis=1))):
        shapely.prepare(zone)
        found[shapely.covers(zone, footprints)] = i
    return found


def _zones(
    split: Split, where: Georeference, low: np.ndarray, high: np.ndarray
) -> list[shapely.Geometry]:
    """Each split's polygons in pixels (x is the column), without ground that another's hold too.

    Only what is near the box from ``low`` to ``high`` (column, row) is projected: elsewhere, the
    scene's projection may not hold. Edges are straight in the file's CRS.
    """
    path = split.path or ""
    crs, texts, shapes = _read(path, split.attribute, stamps([path]).get(path, ""))
    if not np.isin(texts, split.names).any():
        raise SceneError(
            f"no polygon's {split.attribute} names a split ({', '.join(split.names)}), but "
            f"{', '.join(sorted(set(texts))[:8]) or 'there is none'}: name them in split.fractions",
            step="split", file=path,
        )  # fmt: skip

    def to_pixels(points: np.ndarray) -> np.ndarray:
        return np.stack(where.to_pixels(*transform_points(crs, where.crs, *points.T)), axis=1)

    border = shapely.get_coordinates(
        shapely.segmentize(shapely.box(*low, *high), (high - low).max() / 64)
    )
    try:
        edge = np.stack(transform_points(where.crs, crs, *where.to_map(*border.T)))
        least, most = edge.min(axis=1), edge.max(axis=1)
        extent = (most - least).max()
        near = shapely.intersection(
            shapes, shapely.box(*(least - extent / 10), *(most + extent / 10))
        )
        near = shapely.transform(shapely.segmentize(near, extent / 256), to_pixels)
    except Exception as e:  # GDAL's own errors have no public base class
        raise nowhere(describe(e)) from e
    near = shapely.make_valid(near)
    zones = [shapely.union_all(near[texts == name]) for name in split.names]
    return [
        shapely.difference(zone, shapely.union_all(zones[:i] + zones[i + 1 :]))
        for i, zone in enumerate(zones)
    ]


@functools.lru_cache(maxsize=4)
def _read(path: str, attribute: str, changed: str) -> tuple[str, np.ndarray, np.ndarray]:
    """A vector file's CRS, and each feature's text and geometry. ``changed`` is for the cache."""
    import pyogrio  # half a second, with pandas: for those who have polygons

    try:
        with local_copy(path) as local:
            fields = pyogrio.read_info(local)["fields"].tolist()
            if attribute not in fields:
                raise SceneError(
                    f"has no attribute {attribute!r}: set split.attribute to one of its "
                    f"{', '.join(fields) or '(none)'}",
                    step="split", file=path,
                )  # fmt: skip
            meta, _, shapes, (values,) = pyogrio.raw.read(local, columns=[attribute])
        shapes = shapely.make_valid(shapely.force_2d(shapely.from_wkb(shapes)))
    except (RuntimeError, ValueError, OSError, shapely.errors.ShapelyError) as e:
        raise SceneError(
            f"not read as polygons ({describe(e)}): set split.path to a vector file",
            step="split", file=path,
        ) from e  # fmt: skip
    if not meta["crs"]:
        raise SceneError(
            "has no CRS: add its .prj, or write it as GeoPackage or GeoJSON",
            step="split", file=path,
        )  # fmt: skip
    texts = ["" if v is None else as_text(v) for v in values.tolist()]
    return meta["crs"], np.array(texts, object), shapes

"""Vector files: reading them (GDAL's OGR through pyogrio), and bringing them onto a scene's grid."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import numpy as np
import rasterio.errors
import shapely
from pydantic import AfterValidator
from rasterio.crs import CRS

from ..errors import SceneError, describe
from ..georeference import Georeference, transform_points
from ..storage import local_copy
from .table import stamp
from .values import not_there

# In place of a CRS: coordinates are (column, row), (0, 0) the outer corner of the first pixel.
PIXEL = "pixel"
_POLYGONS = (3, 6)  # shapely's type ids of Polygon and MultiPolygon
# Pixel coordinates are kept to 2^-20 of a pixel: moving them by whole pixels is then exact, so
# that a window shows what the whole scene would.
_GRAIN = 2.0**20


def _known_crs(v: str) -> str:
    try:
        if v != PIXEL:
            CRS.from_user_input(v)
    except rasterio.errors.CRSError:
        raise ValueError(
            f"{v!r} is no CRS: give one as EPSG:32633, WKT or PROJ, or pixel"
        ) from None
    return v


# A CRS in a label's section: any text that PROJ knows, or "pixel".
LabelCrs = Annotated[str, AfterValidator(_known_crs)]


@dataclasses.dataclass(frozen=True, eq=False)
class VectorTable:
    """A layer of a vector file. Shared by threads: not to be changed.

    Attributes:
      path: the file.
      geometries: shapely geometries (N,), two-dimensional.
      fields: attribute name to its values (N,); dates and times are ISO 8601 text.
      crs: WKT, ``"pixel"``, or "" where neither the file nor the label says.
      unreadable: geometries that are absent or could not be read, and so are left out.
    """

    path: str
    geometries: np.ndarray
    fields: dict[str, np.ndarray]
    crs: str
    unreadable: int = 0


def read_vector(
    path: str, columns: tuple[str, ...] = (), layer: str | None = None, crs: str | None = None
) -> VectorTable:
    """Reads a layer whole, or has it from the last time.

    Args:
      path: any file that OGR reads.
      columns: the attributes wanted.
      layer: which layer; needed only where there are several.
      crs: in place of the file's own: any text that PROJ knows, or ``"pixel"``.

    Raises:
      SceneError: there is no such file, layer or attribute, it cannot be read, or its coordinates
        do not fit its CRS.
    """
    return _read(path, stamp(path), columns, layer, crs)


@functools.lru_cache(maxsize=4)
def _read(
    path: str, _stamp: str, columns: tuple[str, ...], layer: str | None,
    crs: str | None,
) -> VectorTable:  # fmt: skip
    import pyogrio  # half a second, with pandas: for those who have vector files

    try:
        with local_copy(path) as local:
            meta, wkb, values = _layer(local, path, columns, layer)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as e:
        raise SceneError(
            f"cannot be read as a vector file ({describe(e)})", step="label", file=path
        ) from None
    if wkb is None:
        raise SceneError("has no geometries: give a vector file", step="label", file=path)
    geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    there = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    fields = {name: np.empty(0, object) for name in columns}
    fields |= {str(k): v[there] for k, v in zip(meta["fields"], values, strict=True)}
    geometries = geometries[there]
    given = crs or meta["crs"] or ""
    if given and given != PIXEL:
        given = CRS.from_user_input(given).to_wkt()
        if len(geometries):
            check_degrees(given, shapely.total_bounds(geometries), path)
    return VectorTable(path, geometries, fields, given, int((~there).sum()))


def _layer(local: str, path: str, columns: tuple[str, ...], layer: str | None) -> tuple[Any, ...]:
    """What pyogrio tells of a layer, its geometries and the columns' values."""
    import pyogrio

    layers = [str(name) for name in pyogrio.list_layers(local)[:, 0]]
    layer = layer if layer is not None else _only(layers, path)
    if layer not in layers:
        raise SceneError(not_there("layer", layer, layers), step="label", file=path)
    info = pyogrio.read_info(local, layer=layer)
    known = [str(name) for name in info["fields"]]
    for name in columns if info["features"] else ():  # a GeoJSON without any has no fields
        if name not in known:
            raise SceneError(not_there("attribute", name, known), step="label", file=path)
    meta, _, wkb, values = pyogrio.raw.read(
        local, layer=layer, columns=list(columns), force_2d=True, datetime_as_string=True
    )
    return meta, wkb, values


def _only(layers: list[str], path: str) -> str:
    if len(layers) == 1:
        return layers[0]
    reason = f"has {len(layers)} layers: give the label one as layer: {', '.join(layers)}"
    raise SceneError(reason, step="label", file=path)


def check_degrees(crs: str, bounds: Any, path: str) -> None:
    """That coordinates said to be degrees can be: GeoJSON without a ``crs`` member is in EPSG:4326
    (RFC 7946, section 4), whatever its writer meant.

    Args:
      crs: as WKT.
      bounds: x0, y0, x1, y1; NaN where there are no coordinates.
      path: for the error.

    Raises:
      SceneError: they cannot.
    """
    x, y = np.abs([bounds[0], bounds[2]]).max(), np.abs([bounds[1], bounds[3]]).max()
    if CRS.from_user_input(crs).is_geographic and (x > 360.001 or y > 90.001):
        raise SceneError(
            f"is said to be in degrees, but has coordinates such as ({bounds[0]:.7g}, "
            f"{bounds[1]:.7g}): they look like projected metres, so give the label their crs, "
            "as in crs: EPSG:32633",
            step="label", file=path,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """What of a table touches a scene, in its pixel coordinates (x = column, y = row).

    Attributes:
      geometries: simple ones (N,): of many parts, each stands for itself.
      rows: each one's row in the table (N,).
      outside: rows that lie wholly beyond the scene.
      unplaced: rows that the scene's CRS has no place for.
    """

    geometries: np.ndarray
    rows: np.ndarray
    outside: int
    unplaced: int


def to_pixels(table: VectorTable, where: Georeference, buffer: float | None = None) -> Placed:
    """Brings geometries onto a scene's grid.

    Where that bends straight lines (another CRS, ground control points), lines are first cut into
    pieces of 1/128 of the scene. Invalid polygons are made valid.

    Args:
      table: the geometries.
      where: the scene's grid.
      buffer: widens geometries by so many units of the table's CRS.

    Raises:
      SceneError: the scene or the file lacks a CRS to bring them together.
    """
    source = source_crs(table.crs, where, table.path)
    shapes = _valid(table.geometries)
    if buffer is not None:
        shapes = shapely.buffer(shapes, buffer)
    shapes, rows = shapely.get_parts(shapes, return_index=True)
    if source != PIXEL and len(shapes):
        box = _surroundings(source, where, table.path)
        near = shapely.intersects(shapes, shapely.box(*box))
        shapes, rows = shapes[near], rows[near]
        if where.gcps or not _same_crs(source, where.crs):
            # Far away, polynomials and projections fold back onto the scene.
            shapes, inner = shapely.get_parts(
                shapely.intersection(shapes, shapely.box(*box)), return_index=True
            )
            rows = rows[inner]
            shapes = shapely.segmentize(shapes, max(box[2] - box[0], box[3] - box[1]) / (3 * 128))

    def forward(xy: np.ndarray) -> np.ndarray:
        cols, lines = points_to_pixels(xy[:, 0], xy[:, 1], source, where)
        return np.round(np.stack([cols, lines], axis=1) * _GRAIN) / _GRAIN

    shapes = shapely.transform(shapes, forward)
    xy, of = shapely.get_coordinates(shapes, return_index=True)
    lost = np.isin(np.arange(len(shapes)), of[~np.isfinite(xy).all(axis=1)])
    unplaced = np.setdiff1d(rows[lost], rows[~lost])
    shapes, rows = _valid(shapes[~lost]), rows[~lost]
    inside = shapely.intersects(shapes, shapely.box(0, 0, where.width, where.height))
    shapes, rows = shapes[inside], rows[inside]
    outside = len(table.geometries) - len(np.unique(rows)) - len(unplaced)
    return Placed(shapes, rows, outside, len(unplaced))


def _valid(shapes: np.ndarray) -> np.ndarray:
    """Polygons, made valid: a bow-tie becomes two triangles. What collapses to a line is left out."""
    shapes = shapes.copy()
    bad = np.isin(shapely.get_type_id(shapes), _POLYGONS) & ~shapely.is_valid(shapes)
    for i in np.flatnonzero(bad):
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapes[i])))
        areas = parts[shapely.get_type_id(parts) == _POLYGONS[0]]
        shapes[i] = shapely.multipolygons(areas)
    return shapes


def source_crs(crs: str, where: Georeference, path: str) -> str:
    """The CRS that a file's coordinates are to be brought from: a CRS, ``"pixel"``, or "" for the
    scene's own map coordinates.

    Raises:
      SceneError: it cannot be told.
    """
    if crs == PIXEL:
        return PIXEL
    if where.crs and not crs:
        raise SceneError("has no CRS: give the label one, as in crs: EPSG:4326",
                         step="label", file=path)  # fmt: skip
    if not where.crs and not where.located and crs:
        raise SceneError(
            "is in a CRS, but the scene has neither CRS nor transform: georeference the scene, or "
            "give the label crs: pixel if the coordinates are (column, row)",
            step="label", file=path,
        )  # fmt: skip
    if crs and not where.crs:
        # A scene that is placed without a CRS (a world file) is taken to be in the file's.
        xs, ys = where.to_map([0, where.width], [0, where.height])
        degrees = CRS.from_user_input(crs).is_geographic
        if degrees and (np.abs(xs).max() > 360.001 or np.abs(ys).max() > 90.001):
            raise SceneError(
                "is in degrees, and the scene, which has no CRS, is not: give the scene its CRS "
                "(gdal_edit.py -a_srs), or the label coordinates of the scene's system",
                step="label", file=path,
            )  # fmt: skip
        return ""
    return crs


def points_to_pixels(
    xs: np.ndarray, ys: np.ndarray, source: str, where: Georeference
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates as fractional (columns, rows); NaN where a point has no place in the scene's CRS.

    Args:
      xs, ys: float64 (N,).
      source: as ``source_crs`` gives it.
      where: the scene's grid.
    """
    if source == PIXEL or not len(xs):
        return xs, ys
    cols, rows = where.to_pixels(
        *(transform_points(source, where.crs, xs, ys) if source else (xs, ys))
    )
    lost = ~(np.isfinite(cols) & np.isfinite(rows))
    return np.where(lost, np.nan, cols), np.where(lost, np.nan, rows)


def near_scene(
    xs: np.ndarray, ys: np.ndarray, source: str, where: Georeference, path: str
) -> np.ndarray:
    """Which points lie in or around a scene, bool (N,); the others cannot lie in it."""
    if source == PIXEL:
        return np.asarray(np.isfinite(xs) & np.isfinite(ys))
    x0, y0, x1, y1 = _surroundings(source, where, path)
    return np.asarray((xs >= x0) & (xs <= x1) & (ys >= y0) & (ys <= y1))


def _surroundings(source: str, where: Georeference, path: str) -> tuple[float, ...]:
    """The scene's extent in a file's CRS, three times as wide and high: x0, y0, x1, y1.

    A lattice of points all over the scene, for a scene that holds a pole has it in its middle.
    """
    cols, rows = np.meshgrid(np.linspace(0, where.width, 21), np.linspace(0, where.height, 21))
    xs, ys = where.to_map(cols.ravel(), rows.ravel())
    if source:
        xs, ys = transform_points(where.crs, source, xs, ys)
    there = np.isfinite(xs) & np.isfinite(ys)
    if not there.any():
        reason = "is in a CRS that has no place for the scene: check the label's crs"
        raise SceneError(reason, step="label", file=path)
    x0, x1, y0, y1 = xs[there].min(), xs[there].max(), ys[there].min(), ys[there].max()
    return x0 - (x1 - x0), y0 - (y1 - y0), x1 + (x1 - x0), y1 + (y1 - y0)


def _same_crs(one: str, other: str) -> bool:
    return one in ("", other) or CRS.from_user_input(one) == CRS.from_user_input(other)

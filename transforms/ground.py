"""Patches' footprints on the ground: on one plane for the whole globe, and metres as pixels."""

from __future__ import annotations

import numpy as np

from .errors import SceneError, describe
from .georeference import Georeference

# WGS 84: semi-major axis in metres, squared eccentricity.
_A, _E2 = 6378137.0, 0.00669437999014
_E = np.sqrt(_E2)
# EPSG:6933's standard parallel is 30 degrees; its scale on the equator is Snyder's (10-13).
_K0 = np.cos(np.radians(30)) / np.sqrt(1 - _E2 * np.sin(np.radians(30)) ** 2)

AROUND = float(2 * np.pi * _A * _K0)
"""The plane's whole width, metres."""

# A footprint's centre, then its corners and edges' midpoints, as (down, right) in sides.
_OUTLINE = np.array([(1, 1), (0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]) / 2


def on_the_plane(
    where: Georeference, size: int, rows: np.ndarray, cols: np.ndarray, buffer: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Footprints on the plane of EASE-Grid 2.0 (EPSG:6933), in metres from its south-west corner:
    x and y, each (3, N) of the least, the centre's and the greatest.

    The greatest and the least are those of the outline's corners and midpoints, with buffer / 2 of
    true distance added. That is k as long eastwards on the plane, and 1 / k northwards; within its
    reach, k is taken where it is worst. x may pass the plane's edges by a turn.

    Args:
      where: the scene's grid.
      size: a patch's side, pixels.
      rows, cols: the patches' corners, pixels, (N,).
      buffer: metres.

    Raises:
      SceneError: the scene has no CRS, or reaches where its projection does not.

    Source: Brodzik et al., "EASE-Grid 2.0", ISPRS Int. J. Geo-Inf. 1(1), 2012; Snyder, "Map
    Projections: A Working Manual", USGS PP 1395, 1987, section 10.
    """
    lon, lat = lonlat(where, cols + _OUTLINE[:, 1:] * size, rows + _OUTLINE[:, :1] * size)
    lon = lon + 360 * np.round((lon[0] - lon) / 360)  # none the other way round the globe
    phi = np.radians(lat)
    x = _A * _K0 * np.radians(lon) + AROUND / 2
    y = _northing(phi) - _northing(np.array(-np.pi / 2))
    least, most = phi.min(axis=0), phi.max(axis=0)
    spread = buffer / 2 / (_A * (1 - _E2))  # radians; nowhere is the radius of curvature less
    polewards = np.minimum(np.maximum(-least, most) + spread, np.pi / 2)
    inwards = np.where(least * most > 0, np.minimum(np.abs(least), np.abs(most)) - spread, 0)
    east = np.minimum(buffer / 2 * _scale(polewards), AROUND / 2)
    north = buffer / 2 / _scale(np.maximum(inwards, 0))
    return (
        np.stack([x.min(axis=0) - east, x[0] % AROUND, x.max(axis=0) + east]),
        np.stack([y.min(axis=0) - north, y[0], y.max(axis=0) + north]),
    )


def _northing(phi: np.ndarray) -> np.ndarray:
    """Snyder's (10-15) with (3-12): y in metres of latitudes in radians."""
    s = np.sin(phi)
    q = (1 - _E2) * (s / (1 - _E2 * s**2) + np.arctanh(_E * s) / _E)
    return np.asarray(_A * q / (2 * _K0))


def _scale(phi: np.ndarray) -> np.ndarray:
    """k: how long a metre of a parallel is on the plane."""
    return np.asarray(_K0 * np.sqrt(1 - _E2 * np.sin(phi) ** 2) / np.maximum(np.cos(phi), 1e-9))


def metres_in_pixels(
    where: Georeference, metres: float, rows: np.ndarray, cols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far a circle of that radius reaches around each pixel: along rows and along columns,
    in pixels, (N,) each.

    A pixel's sides are measured on the ellipsoid WGS 84; with their metric G, the circle reaches
    metres * sqrt((G^-1)_ii) along axis i.

    Raises:
      SceneError: the scene has no CRS, or reaches where its projection does not.
    """
    lon, lat = lonlat(
        where, np.stack([cols, cols, cols + 1]), np.stack([rows, rows + 1, rows])
    )  # fmt: skip
    phi = np.radians(lat[0])
    w = 1 - _E2 * np.sin(phi) ** 2
    turn = (lon[1:] - lon[0] + 180) % 360 - 180
    east = np.radians(turn) * _A * np.cos(phi) / np.sqrt(w)
    north = np.radians(lat[1:] - lat[0]) * _A * (1 - _E2) / w**1.5
    metric = np.einsum("in,jn->nij", east, east) + np.einsum("in,jn->nij", north, north)
    inverse = np.linalg.inv(metric)
    return metres * np.sqrt(inverse[:, 0, 0]), metres * np.sqrt(inverse[:, 1, 1])


def lonlat(
    where: Georeference, cols: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fractional pixels as degrees (longitude, latitude), in arrays of the same shape.

    Raises:
      SceneError: the scene has no CRS, or reaches where its projection does not.
    """
    need_place(where)
    try:
        lon, lat = where.to_lonlat(cols.ravel(), rows.ravel())
    except Exception as e:  # GDAL's own errors have no public base class
        raise nowhere(describe(e)) from e
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise nowhere("points outside of the projection")
    return lon.reshape(cols.shape), lat.reshape(rows.shape)


def need_place(where: Georeference) -> None:
    """Raises SceneError for a scene that is not known to be anywhere."""
    if not (where.crs and where.located):
        missing = "CRS" if where.located else "georeference"
        raise SceneError(
            f"has no {missing}, and the split goes by the ground: give it one, or split by scene, "
            "or by block with unit: pixels",
            step="split",
        )


def nowhere(reason: str) -> SceneError:
    """The error for a scene that reaches where its projection does not."""
    return SceneError(
        f"its patches cannot be placed on the globe ({reason}): correct its CRS and transform, "
        "or split by scene, or by block with unit: pixels",
        step="split",
    )

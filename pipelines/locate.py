"""Where a patch lies: on the map, in its source, in the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..loader.spec import DatasetError, DatasetSpec
from ..transforms.grids import crs_name
from ..transforms.locating import (
    Key,
    Scene,
    centre,
    corners,
    corners_lonlat,
    find_record,
    read_record,
    read_scenes,
    record_key,
    scene_of,
)  # fmt: skip
from ..transforms.tiling import Grid, Spots
from .separation import pixel_metres

_DROPPED = "in no split: it was dropped (min_valid, sampling or the splits' buffer)"


def named(out: str | Path, key: str | None, split: str, index: int | None) -> Key:
    """The patch that a command line names, by key or by split and index.

    Raises:
      ConfigError: the key is none.
      DatasetError: there is no such record.
    """
    if key is not None:
        return Key.parse(key)
    return record_key(read_record(out, DatasetSpec.load(out), split, index or 0))


def record_place(out: str | Path, text: str) -> tuple[str, int]:
    """The split and index of the record with a key.

    Raises:
      ConfigError: it is no key.
      DatasetError: there is no such record.
    """
    found = locate(out, Key.parse(text))
    if found["record"] is None:
        raise DatasetError(f"{text}: {_DROPPED}: nothing to show")
    return found["record"]["split"], found["record"]["index"]


def locate(out: str | Path, key: Key) -> dict[str, Any]:
    """All that is known of where a patch lies, as plain JSON values.

    Returns:
      ``key``, ``scene_id``, ``row``, ``col``; ``record`` (split, index, shard, position), None
      where no split has it; ``source`` files; ``window`` (row, column, height, width in the
      scene's grid, within the scene); ``crs`` and ``crs_wkt``, None where there is none;
      ``corner``, ``centre`` and ``corners`` in map coordinates; ``lonlat`` of the corners in
      degrees, WGS 84, or None and ``no_lonlat`` says why; ``pixel_size`` (along a row and down
      a column, map units) and ``pixel_metres`` (height, width); ``assumed``.

    Raises:
      DatasetError: no such scene, or its grid has no such patch.
    """
    spec, scenes = DatasetSpec.load(out), read_scenes(out)
    scene = scene_of(scenes, key.scene_id)
    size = spec.features["image"].shape[0]
    record = find_record(out, spec, scenes, key)
    if record is None:
        _must_be_on_the_grid(spec, scene, key, size)
    where, place = scene.where, (key.row, key.col, size)
    around = corners(where, *place)
    lonlat = corners_lonlat(where, *place)
    top, left = max(0, key.row), max(0, key.col)
    bottom, right = min(where.height, key.row + size), min(where.width, key.col + size)
    a, b, _, d, e, _ = where.transform[:6]
    return {
        "key": str(key),
        "scene_id": key.scene_id,
        "row": key.row,
        "col": key.col,
        "record": None if record is None else vars(record),
        "source": list(scene.source),
        "scene_size": [where.height, where.width],
        "window": [top, left, bottom - top, right - left],
        "crs": crs_name(where) if where.crs else None,
        "crs_wkt": where.crs or None,
        "corner": around[0].tolist(),
        "centre": list(centre(where, *place)),
        "corners": around.tolist(),
        "lonlat": None if lonlat is None else lonlat.tolist(),
        "no_lonlat": "" if lonlat is not None else _why_nowhere(scene),
        "pixel_size": [float((a * a + d * d) ** 0.5), float((b * b + e * e) ** 0.5)],
        "pixel_metres": pixel_metres(where),
        "assumed": list(where.assumed),
    }


def _why_nowhere(scene: Scene) -> str:
    if not scene.where.crs:
        return "the scene has no CRS"
    if not scene.where.located:
        return "the scene has a CRS but no transform"
    return "the patch lies outside of what the CRS covers"


def _must_be_on_the_grid(spec: DatasetSpec, scene: Scene, key: Key, size: int) -> None:
    tile, where = spec.config.get("tile", {}), scene.where
    edge = tile.get("edge", "drop")
    grid: Grid | Spots = Grid(where.height, where.width, size, tile.get("stride") or size, edge)
    if scene.centres is not None:
        grid = Spots.around(scene.centres, where.height, where.width, size, edge)
    rows, cols = grid.corners()
    far = abs(rows.astype(int) - key.row) + abs(cols.astype(int) - key.col)
    if not len(far) or far.min():
        near = far.argmin() if len(far) else None
        hint = "" if near is None else f": did you mean {key.scene_id}/{rows[near]}/{cols[near]}?"
        raise DatasetError(f"no patch {key}: the scene's grid has none there{hint}")


def lines(found: dict[str, Any]) -> list[str]:
    """What ``locate`` found, to be read."""
    row, col, height, width = found["window"]
    whole_height, whole_width = found["scene_size"]
    record = found["record"]
    metres = found["pixel_metres"]
    size = " x ".join(f"{v:.10g}" for v in found["pixel_size"])
    rows = [
        ("record", _DROPPED if record is None else
         f"{record['split']} {record['index']}: number {record['position']} in {record['shard']}"),
        ("source", ", ".join(found["source"])),
        ("window", f"rows {row} to {row + height}, columns {col} to {col + width} "
         f"of {whole_height} x {whole_width} pixels"),
        ("CRS", found["crs"] or "none: coordinates are of an unknown system"),
        ("corner", _point(found["corner"])),
        ("centre", _point(found["centre"])),
        ("pixel", size + (f" map units, {metres[1]:.4g} x {metres[0]:.4g} m" if metres else "")),
        ("lon, lat", "; ".join(f"{x:.7f}, {y:.7f}" for x, y in found["lonlat"])
         if found["lonlat"] else f"none: {found['no_lonlat']}"),
        *(("assumed", note) for note in found["assumed"]),
    ]  # fmt: skip
    return [found["key"], *(f"  {name:9}{text}" for name, text in rows)]


def _point(point: list[float]) -> str:
    return f"x {point[0]:.10g}, y {point[1]:.10g}"


def geojson(found: dict[str, Any]) -> dict[str, Any]:
    """The patch as a GeoJSON Feature, its geometry null where it is not known to be anywhere.

    Format: RFC 7946; a patch across the antimeridian is cut there (section 3.1.9).
    """
    left_out = ("lonlat", "corners", "crs_wkt")
    return {
        "type": "Feature",
        "id": found["key"],
        "geometry": _outline(found["lonlat"]) if found["lonlat"] else None,
        "properties": {k: v for k, v in found.items() if k not in left_out},
    }


def _outline(lonlat: list[list[float]]) -> dict[str, Any]:
    from shapely import affinity, box
    from shapely.geometry import MultiPolygon, Polygon, mapping
    from shapely.geometry.polygon import orient

    first = lonlat[0][0]
    # None the other way round the globe.
    outline = Polygon([(x + 360 * round((first - x) / 360), y) for x, y in lonlat])
    parts = [
        affinity.translate(outline.intersection(box(at - 180, -90, at + 180, 90)), -at)
        for at in (-360, 0, 360)
    ]
    whole = [orient(p) for p in parts if isinstance(p, Polygon) and not p.is_empty]
    return dict(mapping(whole[0] if len(whole) == 1 else MultiPolygon(whole)))

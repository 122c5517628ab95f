"""collection.json and scenes.geojson: the dataset as a STAC collection, its scenes as items.

Formats: github.com/radiantearth/stac-spec 1.1, github.com/stac-extensions/projection 2.0.

STAC wants a place of each item and a time: a scene without CRS or without time has no item, and a
dataset of which no scene has a place has no collection. Nothing is guessed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from rasterio.crs import CRS

from ...loader.spec import DatasetSpec
from ...transforms.georeference import Georeference, transform_points
from .tfds import tfds_name
from .words import about, baked_by, document, made, units

COLLECTION, ITEMS = "collection.json", "scenes.geojson"
_VERSION = "1.1.0"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_SIDE = 4  # points of an outline's side: sides of a map bend on the ellipsoid
_DEGREES = 7  # decimals: a centimetre
_TYPES = {"complex64": "cfloat32", "complex128": "cfloat64", "bool": "other"}  # STAC's own names


def files(
    spec: DatasetSpec, scenes: Sequence[Mapping[str, Any]], statistics: Mapping[str, Any]
) -> dict[str, str]:
    """File name to text; ``scenes`` are the lines of scenes.jsonl."""
    outlines = _outlines(scenes)
    placed = [(s, o) for s, o in zip(scenes, outlines, strict=True) if o is not None]
    if not placed:
        return {}
    times = sorted(str(s["properties"]["time"]) for s in scenes if s["properties"].get("time"))
    # As text at once: the more objects are kept, the longer Python's collector goes through them.
    items = [
        orjson.dumps(_item(s, o, spec)).decode() for s, o in placed if s["properties"].get("time")
    ]
    words = f"{about(spec)} {made(spec)} Of {len(scenes):,} scenes, {len(placed):,} have a place "
    words += f"and {len(items):,} a place and a time, without which STAC knows no item."
    collection: dict[str, Any] = {
        "type": "Collection",
        "stac_version": _VERSION,
        "id": tfds_name(spec.name),
        "title": spec.name,
        "description": words,
        "license": _license(spec),
        "providers": [{"name": spec.created_by, "roles": ["processor"]}],
        "extent": {
            "spatial": {"bbox": [_whole([_bbox(o) for _, o in placed])]},
            "temporal": {"interval": [[times[0], times[-1]] if times else [None, None]]},
        },
        "bands": list(_bands(spec, statistics)),
        "links": [],
        "assets": dict(_assets(spec)),
    }
    found = {}
    if items:
        link = {"rel": "items", "href": f"./{ITEMS}", "type": "application/geo+json"}
        collection["links"].append(link)
        lines = ",\n".join(items)
        head = orjson.dumps({"type": "FeatureCollection", "description": made(spec)}).decode()
        found[ITEMS] = f'{head[:-1]},"features":[\n{lines}\n]}}\n'
    return found | {COLLECTION: document(collection)}


def _outlines(scenes: Sequence[Mapping[str, Any]]) -> list[np.ndarray | None]:
    """Each scene's outline, (points, 2) of longitude and latitude, or None where it has no place.
    Scenes of one CRS are transformed at once."""
    t = np.arange(_SIDE) / _SIDE
    cols = np.concatenate([0 * t, t, 0 * t + 1, 1 - t])
    rows = np.concatenate([t, 0 * t + 1, 1 - t, 0 * t])
    by_crs: dict[str, list[int]] = {}
    corners: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for i, s in enumerate(scenes):
        gcps = tuple(tuple(p) for p in s["gcps"])
        where = Georeference(s["height"], s["width"], s["crs"], tuple(s["transform"]), gcps)
        if where.crs and where.located:
            by_crs.setdefault(where.crs, []).append(i)
            corners[i] = where.to_map(cols * where.width, rows * where.height)
    found: list[np.ndarray | None] = [None] * len(scenes)
    for crs, members in by_crs.items():
        xs, ys = (np.concatenate([corners[i][axis] for i in members]) for axis in (0, 1))
        lons, lats = (
            x.reshape(len(members), -1) for x in transform_points(crs, "EPSG:4326", xs, ys)
        )
        known = np.isfinite(lons + lats).all(axis=1) & (np.abs(lats) <= 90).all(axis=1)
        for i, lon, lat in zip(np.array(members)[known], lons[known], lats[known], strict=True):
            found[i] = _ring(lon, lat)
    return found


def _ring(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """An outline, counterclockwise, with longitudes that go on past 180. Round a pole it is all
    that lies poleward."""
    closed = np.append(lon, lon[0])
    if np.abs(np.diff(closed)).max() > 180:
        closed = np.unwrap(closed, period=360)
        if abs(closed[-1] - closed[0]) > 180:
            south, north = (lat.min(), 90) if lat.mean() > 0 else (-90, lat.max())
            box = [[-180, south], [180, south], [180, north], [-180, north]]
            return np.array(box).round(_DEGREES)
        lon = closed[:-1]
        lon = lon - 360 * np.floor((lon.min() + 180) / 360)
    turn = lon[:-1] @ lat[1:] - lon[1:] @ lat[:-1] + lon[-1] * lat[0] - lon[0] * lat[-1]
    ring = np.stack([lon, lat], axis=-1).round(_DEGREES)
    return ring if turn > 0 else ring[::-1]


def _bbox(outline: np.ndarray) -> list[float]:
    """West, south, east, north; west is greater than east across longitude 180."""
    (west, south), (east, north) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
    return [west, south, round(east - 360, _DEGREES) if east > 180 else east, north]


def _whole(boxes: Sequence[Sequence[float]]) -> list[float]:
    """The box around all; from -180 to 180 where one of them crosses that longitude."""
    west, south, east, north = np.asarray(boxes).T
    lons = (-180.0, 180.0) if (west > east).any() else (float(west.min()), float(east.max()))
    return [lons[0], float(south.min()), lons[1], float(north.max())]


def _geometry(outline: np.ndarray) -> dict[str, Any]:
    """A polygon; two of them where longitude 180 cuts it."""
    if outline[:, 0].max() <= 180:
        ring = outline.tolist()
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    from shapely import affinity, box, geometry, make_valid

    whole = make_valid(geometry.Polygon(outline))
    west = whole.intersection(box(-180, -90, 180, 90))
    east = affinity.translate(whole.intersection(box(180, -90, 540, 90)), -360)
    parts = [p for half in (west, east) for p in getattr(half, "geoms", [half])]
    polygons = [geometry.polygon.orient(p) for p in parts if p.geom_type == "Polygon"]
    return dict(geometry.mapping(geometry.MultiPolygon(polygons)))


def _item(scene: Mapping[str, Any], outline: np.ndarray, spec: DatasetSpec) -> dict[str, Any]:
    projection = _projection(scene["crs"]) | {"proj:shape": [scene["height"], scene["width"]]}
    if not scene["gcps"]:
        projection["proj:transform"] = scene["transform"]
    sources = [str(source).split("#")[0] for source in scene["source"]]
    return {
        "type": "Feature",
        "stac_version": _VERSION,
        "stac_extensions": [_PROJECTION],
        "id": scene["id"],
        "collection": tfds_name(spec.name),
        "geometry": _geometry(outline),
        "bbox": _bbox(outline),
        "properties": {
            "datetime": scene["properties"]["time"],
            **projection,
            "scenefeed:patches": scene["patches"],
        },
        "links": [{"rel": "collection", "href": f"./{COLLECTION}", "type": "application/json"}],
        "assets": {
            "source" if i == 0 else f"source{i + 1}": {"href": href, "roles": ["source"]}
            for i, href in enumerate(dict.fromkeys(sources))
        },
    }


@functools.lru_cache(maxsize=256)
def _projection(wkt: str) -> dict[str, Any]:
    crs = CRS.from_wkt(wkt)
    code = crs.to_epsg()
    return {"proj:code": f"EPSG:{code}"} if code else {
        "proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019"),
    }  # fmt: skip


def crs_name(wkt: str) -> str:
    """An EPSG code, else what its WKT calls it; "" for none."""
    if not wkt:
        return ""
    quoted = re.search(r'"([^"]*)"', wkt)
    return _projection(wkt)["proj:code"] or (quoted[1] if quoted else wkt)


def _license(spec: DatasetSpec) -> str:
    """An SPDX identifier as it is given; ``other`` for words, and where there is none."""
    given = str(spec.config.get("license", ""))
    return given if re.fullmatch(r"[A-Za-z0-9.+-]+", given) else "other"


def _bands(spec: DatasetSpec, statistics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    image = spec.features["image"]
    for name, unit in units(spec).items():
        band: dict[str, Any] = {"name": name, "data_type": _TYPES.get(image.dtype, image.dtype)}
        if unit in ("dB", "radians"):
            band["unit"] = unit
        else:
            band["description"] = f"values {unit}"
        found = (statistics.get("bands") or {}).get(name)
        if found and found["count"] and not baked_by(spec):
            keys = {"minimum": "min", "maximum": "max", "mean": "mean", "stddev": "std"}
            band["statistics"] = {k: found[v] for k, v in keys.items()}
        yield band


def _assets(spec: DatasetSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "dataset", {"href": "./dataset.json", "type": "application/json", "roles": ["metadata"]}
    yield "croissant", {
        "href": "./croissant.json", "type": "application/ld+json", "roles": ["metadata"],
    }  # fmt: skip
    for split in spec.splits.values():
        for shard in split.shards:
            yield shard.path.rsplit("/", 1)[-1], {
                "href": f"./{shard.path}", "roles": ["data"], "type": "application/x-tfrecord",
            }  # fmt: skip

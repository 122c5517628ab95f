"""STAC: scenes on the globe, and no place that is guessed."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds

from scenefeed.loader import DatasetSpec
from scenefeed.pipelines.metadata import stac


@pytest.mark.slow
def test_stac_places_what_has_a_place(odd, wide):
    import pystac

    collection = pystac.Collection.from_file(odd / "collection.json")
    collection.validate()
    boxes = []
    for name in ("a_ice", "c_sea"):
        with rasterio.open(odd.parent / f"{name}.tif") as src:
            boxes.append(transform_bounds(src.crs, "EPSG:4326", *src.bounds))
    west, south, east, north = np.array(boxes).T
    expected = [west.min(), south.min(), east.max(), north.max()]
    np.testing.assert_allclose(collection.extent.spatial.bboxes[0], expected, atol=1e-3)
    start, end = collection.extent.temporal.intervals[0]
    assert (start.isoformat(), end.isoformat()) == (
        "2018-07-01T00:00:00+00:00", "2018-07-05T00:00:00+00:00",
    )  # fmt: skip
    assert collection.license == "CC-BY-4.0"
    assert "Of 3 scenes, 2 have a place and 1 a place and a time" in collection.description
    assert [b["name"] for b in collection.extra_fields["bands"]] == ["VV", "VH"]
    (item,) = pystac.ItemCollection.from_file(odd / "scenes.geojson")
    assert item.id == "a_ice"
    np.testing.assert_allclose(item.bbox, boxes[0], atol=1e-3)
    assert not (wide / "scenes.geojson").exists()  # it has no time
    pystac.Collection.from_file(wide / "collection.json").validate()


def scene(name, crs, transform, gcps=()):
    wkt = rasterio.crs.CRS.from_user_input(crs).to_wkt() if crs else ""
    return {"id": name, "crs": wkt, "transform": transform, "gcps": gcps, "height": 1000,
            "width": 2000, "properties": {"time": "2018-07-01T00:00:00Z"}, "patches": {"train": 1},
            "source": ["/a.nc#x", "/a.nc#y", "s3://b/c.tif"]}  # fmt: skip


CORNERS = [[0, 0, 10, 50], [0, 2000, 10.2, 50], [1000, 0, 10, 49.9], [1000, 2000, 10.2, 49.9]]
AT = [10, 0, 500000, 0, -10, 5e6]


@pytest.mark.parametrize(
    ("crs", "transform", "gcps", "bbox", "kind", "code"),
    [
        ("EPSG:32633", AT, (), None, "Polygon", "EPSG:32633"),
        ("EPSG:32633", [10, 3, 500000, 3, -10, 5e6], (), (15, 45.06345, 15.29242, 45.2072),
         "Polygon", "EPSG:32633"),
        ("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80", [10, 0, 5e5, 0, -10, 5e5], (), None,
         "Polygon", None),
        ("EPSG:4326", AT, CORNERS, (10, 49.9, 10.2, 50), "Polygon", "EPSG:4326"),
        ("EPSG:32701", [100, 0, 100000, 0, -100, 8e6], (), None, "MultiPolygon", "EPSG:32701"),
        ("EPSG:3995", [1000, 0, -1e6, 0, -1000, 5e5], (), (-180, 79.73642, 180, 90), "Polygon",
         "EPSG:3995"),
    ],
)  # fmt: skip
def test_stac_items_across_the_world(odd, crs, transform, gcps, bbox, kind, code):
    import pystac

    found = stac.files(DatasetSpec.load(odd), [scene("s", crs, transform, gcps)], {})
    pystac.Collection.from_dict(json.loads(found["collection.json"])).validate()
    (item,) = json.loads(found["scenes.geojson"])["features"]
    if bbox is None:
        a, _, c, _, e, f = transform
        bbox = transform_bounds(crs, "EPSG:4326", c, f + 1000 * e, c + 2000 * a, f)
    np.testing.assert_allclose(item["bbox"], bbox, atol=2e-3)
    assert item["geometry"]["type"] == kind
    assert item["properties"]["proj:code"] == code
    assert [a["href"] for a in item["assets"].values()] == ["/a.nc", "s3://b/c.tif"]
    # The projection extension's schema is on the network: the core alone is validated here.
    pystac.Item.from_dict({**item, "stac_extensions": []}).validate()


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("", AT), ("EPSG:4326", [1, 0, 0, 0, 1, 0]), ("EPSG:32633", [1e7, 0, 5e5, 0, -1e7, 5e6])],
)
def test_no_place_is_guessed(odd, crs, transform):
    assert stac.files(DatasetSpec.load(odd), [scene("s", crs, transform)], {}) == {}

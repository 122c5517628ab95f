"""Hashes, and splits of every kind."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio.warp
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin

from scenefeed.transforms.errors import SceneError
from scenefeed.transforms.georeference import Georeference
from scenefeed.transforms.ground import AROUND, metres_in_pixels, on_the_plane
from scenefeed.transforms.hashing import key_hash, patch_hashes
from scenefeed.transforms.sections import Split
from scenefeed.transforms.splits import split_indexes

THREE = {"train": 0.8, "val": 0.1, "test": 0.1}
HALF = {"train": 0.5, "val": 0.3, "test": 0.2}
NOWHERE = Georeference(20000, 20000, "", (1, 0, 0, 0, 1, 0))


def corners(down, across, stride=64):
    r, c = np.meshgrid(np.arange(down) * stride, np.arange(across) * stride, indexing="ij")
    return r.ravel().astype(np.int32), c.ravel().astype(np.int32)


ROWS, COLS = corners(200, 200)


def at(x, y, resolution=10.0, crs="EPSG:32633", height=4096, width=4096):
    transform = tuple(from_origin(x, y, resolution, resolution))[:6]
    return Georeference(height, width, CRS.from_user_input(crs).to_wkt(), transform)


def split_of(by, rows=ROWS, cols=COLS, *, seed=0, scene="s", where=NOWHERE, size=64, about=None,
             fractions=THREE, **more):  # fmt: skip
    split = Split(by=by, fractions=fractions, **more)
    return split_indexes(split, seed, size, scene, where, about or {}, rows, cols)


def gaps(low, high):
    """Distances between the boxes of two sets, (N, M): Euclidean, 0 where they touch."""
    apart = np.maximum(low[0][:, None] - high[1][None], low[1][None] - high[0][:, None])
    return np.hypot(*np.maximum(apart, 0).transpose(2, 0, 1))


def nearest(low, high, found):
    """The least distance between patches of different splits."""
    least = np.inf
    for one in np.unique(found[found >= 0]):
        for other in np.unique(found[found > one]):
            a, b = found == one, found == other
            least = min(least, gaps((low[a], low[b]), (high[a], high[b])).min())
    return least


# Hashes


def test_hashes_are_fixed_for_good():
    # Datasets must shard the same with any later version: these numbers may not change.
    found = patch_hashes(0, "order", "scene", np.array([0, 64]), np.array([0, 128]))
    assert found.tolist() == [8875094536976824591, 8796883437930973181]
    found = patch_hashes(0, "split", "scene-1", np.array([0, 0, 0]), np.array([0, 0, 1]))
    assert found.tolist() == [352112905902587826, 352112905902587826, 2974036645262358454]
    assert key_hash(5, "split", "ü") == 6870705424340055141


@pytest.mark.parametrize(
    ("by", "block", "seed", "expected"),
    [
        ("patch", None, 0, "0221200100000220020000100200002200102201"),
        ("patch", None, 7, "0000101000011210101010220000011000201111"),
        ("block", 100, 0, "0000111000001110220000012200000111112000"),
        ("block", 100, 7, "0011011000110110000000000000000000002000"),
        ("block", 128, 0, "0000111100001111220000002200000011112200"),
    ],
)
def test_draws_are_those_of_the_first_version(by, block, seed, expected):
    more = {"block": block} if block else {}
    rows, cols = corners(5, 8)
    found = split_of(by, rows, cols, seed=seed, scene="scene-1", fractions=HALF, **more)
    assert "".join(map(str, found)) == expected
    assert found.dtype == np.intp


def test_scenes_draw_as_in_the_first_version():
    found = [split_of("scene", *corners(1, 1), scene=f"s{i}", fractions=HALF) for i in range(40)]
    assert "".join(str(f[0]) for f in found) == "0010002110120012222001202100011000210102"


def test_hashes_spread_evenly_and_never_meet():
    found = patch_hashes(3, "order", "scene", ROWS - 6400, COLS - 6400)
    assert len(np.unique(found)) == len(found)
    counts, _ = np.histogram(found.astype(np.float64), bins=64, range=(0, 2.0**64))
    expected = len(found) / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # chi-squared, 63 degrees, p < 1e-5
    assert abs(np.corrcoef(found.astype(float), np.arange(len(found)))[0, 1]) < 0.02


# By patch, scene and block


def test_split_by_patch_keeps_the_shares():
    share = np.bincount(split_of("patch")) / len(ROWS)
    assert np.allclose(share, [0.8, 0.1, 0.1], atol=0.01)
    assert (split_of("patch") == split_of("patch")).all()
    assert (split_of("patch") != split_of("patch", seed=1)).any()


def test_split_by_scene_gives_a_scene_to_one_split():
    drawn = [split_of("scene", scene=f"scene{i}") for i in range(200)]
    assert all(len(set(d.tolist())) == 1 for d in drawn)
    assert set(np.bincount([d[0] for d in drawn]) > 5) == {True}


def test_split_by_block_never_divides_a_block():
    drawn, blocks = split_of("block", block=1000), {}
    for split, r, c in zip(drawn, ROWS // 1000, COLS // 1000, strict=True):
        blocks.setdefault((r, c), set()).add(int(split))
    assert {len(s) for s in blocks.values()} == {1}
    assert len(set(drawn.tolist())) == 3


def test_without_a_split_all_is_train():
    assert (split_indexes(None, 0, 64, "s", NOWHERE, {}, ROWS, COLS) == 0).all()


@pytest.mark.parametrize(
    ("size", "stride", "block", "buffer"),
    [(64, 64, 256, 0), (64, 32, 300, 50), (32, 48, 400, 200), (16, 16, 64.5, 16), (50, 7, 210, 1)],
)
def test_pixel_blocks_with_a_buffer_are_that_far_apart(size, stride, block, buffer):
    rows, cols = corners(40, 40, stride)
    rows, cols = rows - 100, cols - 50  # padded patches may begin outside
    plain = split_of("block", rows, cols, size=size, fractions=HALF, block=block)
    found = split_of("block", rows, cols, size=size, fractions=HALF, block=block, buffer=buffer)
    assert set(found.tolist()) > {-1}
    assert ((found == plain) | (found == -1)).all()
    low = np.stack([rows, cols], axis=1)
    assert nearest(low, low + size, found) >= buffer
    # By brute force: each grown footprint's pixels, sampled densely, are in blocks of its split.
    for i in range(0, len(rows), 37):
        half = buffer / 2
        r, c = (np.unique(np.append(np.arange(k - half, k + size + half, 0.5), k + size + half - 1e-9))
                for k in (rows[i], cols[i]))  # fmt: skip
        br, bc = (np.unique(v // block).astype(int) for v in (r, c))
        grid = [a.ravel() for a in np.meshgrid(br, bc)]
        inside = split_of("block", *grid, fractions=HALF, block=1)
        assert (found[i] >= 0) == (len(set(inside.tolist())) == 1)


# Blocks on the ground


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3413", "EPSG:4326"])
def test_the_plane_is_that_of_epsg_6933(crs):
    where = at(15.0, 47.0, 1e-4, crs) if crs == "EPSG:4326" else at(600000, -900000, 30, crs)
    rows, cols = corners(4, 4, 900)
    x, y = on_the_plane(where, 256, rows, cols)
    px, py = where.to_map(cols + 128, rows + 128)
    px, py = rasterio.warp.transform(where.crs, CRS.from_epsg(6933), px, py)
    _, south = rasterio.warp.transform(CRS.from_epsg(4326), CRS.from_epsg(6933), [0], [-90])
    np.testing.assert_allclose(x[1] - AROUND / 2, px, atol=1e-3)
    np.testing.assert_allclose(y[1] + south[0], py, atol=1e-3)
    assert (np.diff(x, axis=0) > 0).all()
    assert (np.diff(y, axis=0) > 0).all()


def test_metres_are_as_far_on_the_plane_as_the_scale_says():
    where = at(500000, 7500000)  # 67.6 N, in the middle of the zone, where its scale is 0.9996
    rows, cols = corners(2, 2, 500)
    x, y = on_the_plane(where, 64, rows, cols)
    gx, gy = on_the_plane(where, 64, rows, cols, buffer=2000)
    # A patch of 640 m of the grid says how long a metre is on the plane.
    assert np.allclose((gx[2] - x[2]) / 1000, (x[2] - x[0]) / 640, rtol=5e-3)
    assert np.allclose((gy[2] - y[2]) / 1000, (y[2] - y[0]) / 640, rtol=5e-3)
    # The buffer is never short: not where the meridian is the grid's.
    assert (gx[2] - x[2])[0] / 1000 >= (x[2] - x[0])[0] / (640 / 0.9996)


@pytest.mark.parametrize(
    ("y", "block", "buffer"), [(5000000, 4000, 500), (200000, 3000, 1000), (-8500000, 6000, 0)]
)
def test_ground_blocks_with_a_buffer_are_that_far_apart_across_scenes(y, block, buffer):
    # Three scenes that overlap on the ground; UTM is true to 4e-4.
    low, found = [], []
    for i, shift in enumerate((0, 4330, -7770)):
        where = at(500000 + shift, y - shift, 10)
        rows, cols = corners(30, 30, 40)
        low.append(np.stack(where.to_map(cols, rows + 64), axis=1))
        found.append(
            split_of("block", rows, cols, scene=f"s{i}", where=where, block=block, buffer=buffer,
                     unit="metres", fractions=HALF)
        )  # fmt: skip
    low, found = np.concatenate(low), np.concatenate(found)
    assert len(set(found.tolist()) - {-1}) > 1
    assert 0.02 < (found >= 0).mean() < 1
    assert nearest(low, low + 640, found) >= buffer * (1 - 4e-4)


def test_scenes_that_overlap_on_the_ground_draw_alike():
    rows, cols = corners(40, 40)
    more = {"block": 3000, "unit": "metres", "fractions": HALF}
    one = split_of("block", rows, cols, scene="a", where=at(500000, 5000000), **more)
    # The same ground from 10 pixels further west and north, and with pixels of twice the size.
    two = split_of("block", rows + 10, cols + 10, scene="b", where=at(499900, 5000100), **more)
    assert (one == two).all()
    assert len(set(one.tolist())) == 3
    coarse = split_of("block", rows // 2, cols // 2, size=32, scene="c",
                      where=at(500000, 5000000, 20), **more)  # fmt: skip
    assert (one == coarse).all()
    # The same places in longitude and latitude: centres alike, but for those on a block's edge.
    x, y = at(500000, 5000000).to_map(cols + 32, rows + 32)
    lon, lat = rasterio.warp.transform("EPSG:32633", "EPSG:4326", x, y)
    degrees = at(0, 90, 1e-5, "EPSG:4326")
    r, c = ((90 - np.array(lat)) / 1e-5 - 2).round(), (np.array(lon) / 1e-5 - 2).round()
    other = split_of("block", r.astype(int), c.astype(int), size=4, where=degrees, **more)
    assert (one == other).mean() > 0.995


def test_blocks_go_round_the_globe():
    # Scenes on either side of the antimeridian, and one across it (UTM zone 1).
    rows, cols = corners(1, 60)
    more = {"block": 40000, "unit": "metres", "fractions": HALF, "size": 64}
    across = at(0, 10000, 100, "EPSG:32601")
    x, y = across.to_map(cols + 32, rows + 32)
    lon, lat = (np.array(v) for v in rasterio.warp.transform("EPSG:32601", "EPSG:4326", x, y))
    assert lon.min() < -179
    assert lon.max() > 179
    found = split_of("block", rows, cols, where=across, **more)
    degrees = at(-180, 1, 1e-3, "EPSG:4326")
    r, c = ((1 - lat) / 1e-3).round().astype(int), (((lon + 180) % 360) / 1e-3).round().astype(int)
    there = split_of("block", r, c, where=degrees, **more | {"size": 0})
    assert (found == there).mean() > 0.95
    buffered = split_of("block", rows, cols, where=across, buffer=10, **more)
    assert (buffered >= 0).any()


def test_the_pole_is_within_reach():
    where = at(-200000, 200000, 1000, "EPSG:3413")
    rows, cols = corners(10, 10, 40)
    more = {"block": 500000, "unit": "metres", "fractions": HALF, "size": 40}
    assert (split_of("block", rows, cols, where=where, buffer=5000, **more) >= -1).all()


@pytest.mark.parametrize(
    ("where", "said"),
    [(NOWHERE, "no georeference"),
     (Georeference(9, 9, "", (10, 0, 0, 0, -10, 0)), "no CRS"),
     (at(9e7, 9e7, 10, "+proj=geos +h=35785831 +lon_0=0"), "cannot be placed")],
)  # fmt: skip
def test_ground_blocks_need_ground(where, said):
    with pytest.raises(SceneError, match=said) as caught:
        split_of("block", where=where, block=1000, unit="metres")
    assert caught.value.step == "split"
    assert "unit: pixels" in str(caught.value)


# By date and column

DATES = {"train": ("2016-01-01", "2017-12-31"), "val": ("2018-01-01", "2018-06-30"),
         "test": ("2018-07-01", None)}  # fmt: skip


@pytest.mark.parametrize(
    ("time", "expected"),
    [("2016-01-01T00:00:00Z", 0), ("2017-12-31T23:59:59Z", 0), ("2018-06-30T12:00:00Z", 1),
     ("2030-01-01T00:00:00Z", 2), ("2015-12-31T23:59:59Z", -1), ("2018-07-01T01:00:00+02:00", 1)],
)  # fmt: skip
def test_split_by_date_takes_whole_days(time, expected):
    found = split_of("date", *corners(2, 2), dates=DATES, about={"time": time})
    assert found.tolist() == [expected] * 4


@pytest.mark.parametrize("about", [{}, {"time": None}, {"time": "spring"}])
def test_split_by_date_needs_a_time(about):
    with pytest.raises(SceneError, match=r"scenes\.time"):
        split_of("date", dates=DATES, about=about)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("peru", 0), (1, 1), (1.0, 1), ("1", 1), ("1.0", 1), (True, 2), ("True", 2), ("01", -1),
     ("chile", -1)],
)  # fmt: skip
def test_split_by_column_compares_text(value, expected):
    values = {"train": ["peru"], "val": [1], "test": [True]}
    found = split_of("column", *corners(1, 2), column="region", values=values,
                     about={"region": value})  # fmt: skip
    assert found.tolist() == [expected] * 2


def test_a_column_may_name_the_split_itself():
    assert (split_of("column", column="split", about={"split": "val"}) == 1).all()
    with pytest.raises(SceneError, match=r"'dev', which is no split .train, val, test."):
        split_of("column", column="split", about={"split": "dev"})
    with pytest.raises(SceneError, match=r"no value for 'split'.*known of it: orbit"):
        split_of("column", column="split", about={"orbit": 3, "split": None})


# By polygons


def zones(path, shapes, crs="EPSG:32633", attribute="split", driver="GPKG"):
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array([s for _, s in shapes], object)),
        [np.array([n for n, _ in shapes], object)], [attribute], crs=crs,
        geometry_type="Polygon", driver=driver,
    )  # fmt: skip
    return str(path)


def boxes(rows, cols, size, grow=0.0):
    """Footprints in pixels (column, row)."""
    return shapely.box(cols - grow, rows - grow, cols + size + grow, rows + size + grow)


@pytest.mark.parametrize(("unit", "buffer"), [("pixels", 0), ("pixels", 30), ("metres", 300)])
def test_patches_wholly_in_a_zone_are_of_its_split(tmp_path, unit, buffer):
    where = at(500000, 5000000)
    rows, cols = corners(30, 30)
    # Two polygons of train touch at x = 505120; val overlaps train's second between 508000 and
    # 509000; another's name does not count.
    shapes = [("train", shapely.box(500000, 4985000, 505120, 5000000)),
              ("train", shapely.box(505120, 4985000, 509000, 5000000)),
              ("val", shapely.box(508000, 4985000, 518000, 5000000)),
              ("other", shapely.box(500000, 4980000, 518000, 4984000))]  # fmt: skip
    path = zones(tmp_path / "z.gpkg", shapes)
    found = split_of("polygons", rows, cols, where=where, path=path, unit=unit, buffer=buffer)
    grown = buffer / 2 * (10 if unit == "pixels" else 1)
    left, right = 500000 + cols * 10.0 - grown, 500000 + cols * 10.0 + 640 + grown
    bottom, top = 5000000 - rows * 10.0 - 640 - grown, 5000000 - rows * 10.0 + grown
    train = (left >= 500000) & (right <= 508000) & (bottom >= 4985000) & (top <= 5000000)
    val = (left >= 509000) & (right <= 518000) & (bottom >= 4985000) & (top <= 5000000)
    assert (found == np.where(train, 0, np.where(val, 1, -1))).all()
    assert set(found.tolist()) == {-1, 0, 1}
    low = np.stack([left + grown, bottom + grown], axis=1)
    assert nearest(low, low + 640, found) >= 2 * grown - 1


def test_zones_come_in_another_crs(tmp_path):
    # A zone in degrees whose edges run straight in degrees; world-wide ones do no harm.
    where = at(300000, 5500000, 100)
    rows, cols = corners(30, 30)
    shapes = [("train", shapely.box(12.5, 48, 14, 49.4)), ("val", shapely.box(14, -80, 179, 85))]
    path = tmp_path / "z.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {"zone": n}, "geometry": shapely.geometry.mapping(s)}
        for n, s in shapes]}))  # fmt: skip
    found = split_of("polygons", rows, cols, where=where, path=str(path), attribute="zone")
    t = np.linspace(0, 1, 33)
    u = np.concatenate([t, t, 0 * t, 0 * t + 1])[:, None] * 64
    v = np.concatenate([0 * t, 0 * t + 1, t, t])[:, None] * 64
    lon, lat = where.to_lonlat((cols + u).ravel(), (rows + v).ravel())
    lon, lat = lon.reshape(-1, len(rows)), lat.reshape(-1, len(rows))
    train = ((lon > 12.5) & (lon < 14) & (lat > 48) & (lat < 49.4)).all(axis=0)
    val = (lon > 14).all(axis=0)
    assert set(found.tolist()) == {-1, 0, 1}
    assert (found == np.where(train, 0, np.where(val, 1, -1))).mean() > 0.998


def test_a_rotated_scene_is_placed_too(tmp_path):
    where = Georeference(999, 999, at(0, 0).crs, (6.0, 8.0, 500000, 8.0, -6.0, 5000000))
    rows, cols = corners(10, 10)
    shape = shapely.Polygon([(502000, 5000000), (506000, 5004000), (507000, 4999000)])
    found = split_of("polygons", rows, cols, where=where, unit="metres", buffer=200,
                     path=zones(tmp_path / "z.gpkg", [("test", shape)]))  # fmt: skip
    expected = [
        shape.covers(shapely.transform(b, lambda p: np.stack(where.to_map(*p.T), axis=1)))
        for b in boxes(rows, cols, 64, 10.0)
    ]
    assert (found == np.where(expected, 2, -1)).all()
    assert 0 < np.mean(expected) < 1


def test_metres_in_pixels_of_any_grid():
    down, right = metres_in_pixels(at(500000, 5000000), 100, *corners(2, 2))
    assert np.allclose([down, right], 10, rtol=1e-3)
    degrees = at(15, 60, 0.001, "EPSG:4326")
    down, right = metres_in_pixels(degrees, 1000, *corners(1, 1))
    # A degree at 60 N: 111412 m of meridian, 55800 m of parallel (Snyder, table 1-ff.).
    assert np.allclose([1000 / down[0], 1000 / right[0]], [111.412, 55.800], rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.crs. was not provided")
def test_zones_that_cannot_be_used_are_said_so(tmp_path):
    where, shape = at(500000, 5000000), shapely.box(500000, 4990000, 510000, 5000000)
    good = zones(tmp_path / "z.gpkg", [("train", shape)])
    with pytest.raises(SceneError, match="no CRS"):
        split_of("polygons", path=zones(tmp_path / "no.shp", [("train", shape)], None,
                                        driver="ESRI Shapefile"), where=where)  # fmt: skip
    with pytest.raises(SceneError, match=r"no attribute 'zone'.*its split"):
        split_of("polygons", path=good, attribute="zone", where=where)
    with pytest.raises(SceneError, match=r"names a split .a, b., but train"):
        split_of("polygons", path=good, fractions={"a": 0.5, "b": 0.5}, where=where)
    with pytest.raises(SceneError, match="not read as polygons"):
        split_of("polygons", path=str(tmp_path / "absent.gpkg"), where=where)
    with pytest.raises(SceneError, match="no georeference"):
        split_of("polygons", path=good)

"""Point labels, against a loop over patches and points."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pydantic import ValidationError
from rasterio import warp

from scenefeed.transforms.errors import SceneError
from scenefeed.transforms.georeference import Georeference
from scenefeed.transforms.labels.points import PointsLabel
from scenefeed.transforms.scenes import Asset, SceneFiles
from scenefeed.transforms.tiling import Grid, Spots
from tests.conftest import write_raster
from tests.transforms.stages import column, stage

UTM33 = rasterio.crs.CRS.from_epsg(32633).to_wkt()
WHERE = Georeference(60, 80, UTM33, (10, 0, 500000, 0, -10, 5000000))
PIXELS = Georeference(60, 80, "", (1, 0, 0, 0, 1, 0))


def write_csv(path, header, rows, delimiter=","):
    lines = [header, *rows]
    path.write_text("\n".join(delimiter.join(map(str, line)) for line in lines) + "\n")
    return path


def scene_with(path, scene_id="s", **properties) -> SceneFiles:
    assets = (Asset("/scenes/s.tif"),)
    return SceneFiles(scene_id, assets, labels={"y": str(path)}, properties=properties)


def patches_of(label, scene, where=WHERE, size=16, grid=None, budget=20_000):
    """The label's columns over all patches, which are labelled, the burner and the features."""
    grid = grid or Grid(where.height, where.width, size, size, "drop")
    features = label.plan("y", scene, where, size)
    burner = label.open("y", scene, where, size, features)
    parts, labelled = [], []
    for window in grid.windows(8, (size, size), budget):
        out = {k: np.full(window.count, 99, f.dtype) for k, f in features.items()}
        labelled.append(burner.patches(window, out))
        order = list(zip(*(c.tolist() for c in window.corners()), strict=True))
        parts += [(at, {k: v[i] for k, v in out.items()}) for i, at in enumerate(order)]
    parts = dict(parts)
    corners = list(zip(*(c.tolist() for c in grid.corners()), strict=True))
    columns = {k: np.array([parts[at][k] for at in corners]) for k in features}
    return columns, np.concatenate(labelled), burner, features


def looped(corners, side, shift, cols, rows, values, gather):
    result = []
    for r, c in zip(*corners, strict=True):
        r, c = r + shift, c + shift
        inside = (rows >= r) & (rows < r + side) & (cols >= c) & (cols < c + side)
        result.append(gather(values[inside]))
    return np.array(result)


@pytest.mark.parametrize(("size", "stride"), [(16, 16), (16, 6), (7, 20)])
def test_means_and_deviations_of_the_points_in_each_patch(tmp_path, size, stride):
    rng = np.random.default_rng(1)
    cols, rows = rng.uniform(-5, 85, 300), rng.uniform(-5, 65, 300)
    cols[:20], rows[:20] = np.round(cols[:20]), np.round(rows[:20])  # on pixels' borders
    values = rng.normal(size=300)
    path = write_csv(tmp_path / "y.csv", ["col", "row", "v"],
                     zip(cols.tolist(), rows.tolist(), values.tolist(), strict=True))  # fmt: skip
    label = PointsLabel(path="y", value="v", x="col", y="row", crs="pixel")
    grid = Grid(60, 80, size, stride, "shift")
    found, labelled, burner, features = patches_of(label, scene_with(path), size=size, grid=grid)
    inside = (cols >= 0) & (cols < 80) & (rows >= 0) & (rows < 60)
    at = np.floor(cols[inside]), np.floor(rows[inside]), values[inside]
    corners = grid.corners()
    count = looped(corners, size, 0, *at, len)
    assert np.array_equal(found["y_count"], count)
    assert np.array_equal(labelled, count > 0)
    some = count > 0
    for name, gather in (("y", np.mean), ("y_std", np.std)):
        expected = looped(corners, size, 0, *at, lambda v, g=gather: g(v) if len(v) else np.nan)
        assert found[name].dtype == np.float32
        assert np.allclose(found[name][some], expected[some], atol=1e-6)
        assert np.isnan(found[name][~some]).all()
    assert (~inside).sum() == burner.tally["y_outside"] > 0
    assert {k: (f.dtype, f.kind, f.shape, f.encoding) for k, f in features.items()} == {
        "y": ("float32", "value", (), "scalar"),
        "y_count": ("int64", "int", (), "scalar"),
        "y_std": ("float32", "value", (), "scalar"),
    }


def test_one_point_has_no_deviation(tmp_path):
    path = write_csv(tmp_path / "y.csv", ["x", "y", "v"], [(3, 3, 0.1)])
    found, labelled, _, _ = patches_of(PointsLabel(path="y", value="v"), scene_with(path), PIXELS)
    assert (found["y"][0], found["y_std"][0], labelled.sum()) == (np.float32(0.1), 0, 1)


def test_the_most_frequent_class(tmp_path):
    rng = np.random.default_rng(2)
    cols, rows = rng.integers(0, 80, 150), rng.integers(0, 60, 150)
    kinds = rng.choice(["wheat", "maize", "oats", "weed"], 150)
    path = write_csv(tmp_path / "y.csv", ["x", "y", "crop"], zip(cols, rows, kinds, strict=True))
    label = PointsLabel(path="y", value="crop", task="class", classes=("wheat", "oats", "maize"))
    found, labelled, burner, features = patches_of(label, scene_with(path), PIXELS, size=8)
    ids = np.array([{"wheat": 0, "oats": 1, "maize": 2, "weed": -1}[k] for k in kinds])
    at = cols[ids >= 0], rows[ids >= 0], ids[ids >= 0]
    corners = Grid(60, 80, 8, 8, "drop").corners()
    expected = looped(
        corners, 8, 0, *at, lambda v: np.argmax(np.bincount(v, minlength=3)) if len(v) else -1
    )
    assert np.array_equal(found["y"], expected)
    assert np.array_equal(labelled, expected >= 0)
    assert burner.tally["y_unclassed"] == (kinds == "weed").sum()
    assert features["y"].names == ("wheat", "oats", "maize")
    assert features["y"].ignore == (-1,)
    assert (found["y"].dtype, found["y_count"].dtype) == (np.int64, np.int64)


def test_classes_as_they_come(tmp_path):
    path = write_csv(tmp_path / "a.csv", ["x", "y", "k"], [(1, 1, "b"), (20, 1, "a")])
    label = PointsLabel(path="y", value="k", task="class")
    found, _, _, features = patches_of(label, scene_with(path), PIXELS)
    assert (features["y"].names, found["y"][:3].tolist()) == (("a", "b"), [1, 0, -1])
    path = write_csv(tmp_path / "b.csv", ["x", "y", "k"], [(1, 1, 7), (20, 1, "3.0")])
    found, _, _, features = patches_of(label, scene_with(path), PIXELS)
    assert (features["y"].names, found["y"][:3].tolist()) == ((), [7, 3, -1])


def test_landsat_points(data):
    with rasterio.open(data / "landsat7/landsat_multiband.tif") as src:
        where = Georeference(src.height, src.width, src.crs.to_wkt(), tuple(src.transform)[:6])
        affine = src.transform
    path = data / "landsat7/landsat96_points.shp"
    label = PointsLabel(path="y", value="label", task="class")
    found, _, burner, features = patches_of(label, scene_with(path), where, 32)
    meta, _, wkb, (labels,) = pyogrio.raw.read(path, columns=["label"])
    shapes = shapely.from_wkb(wkb)
    xs, ys = warp.transform(meta["crs"], where.crs, shapely.get_x(shapes), shapely.get_y(shapes))
    rows, cols = (np.array(v) for v in rasterio.transform.rowcol(affine, xs, ys))
    names = tuple(sorted(set(labels)))
    assert features["y"].names == names
    inside = (cols >= 0) & (cols < where.width) & (rows >= 0) & (rows < where.height)
    ids = np.array([names.index(v) for v in labels])
    expected = looped(
        Grid(where.height, where.width, 32, 32, "drop").corners(), 32, 0,
        cols[inside], rows[inside], ids[inside],
        lambda v: np.argmax(np.bincount(v)) if len(v) else -1,
    )  # fmt: skip
    assert np.array_equal(found["y"], expected)
    assert burner.tally["y_outside"] == (~inside).sum() > 0


def test_stations_of_a_csv_lie_in_degrees(data):
    # SCAN's stations; a scene around one of them.
    path = data / "soil/rzsm_scan_s1/sites_textures.csv"
    (x,), (y,) = warp.transform("EPSG:4326", "EPSG:32605", [-159.58], [61.58])
    crs = rasterio.crs.CRS.from_epsg(32605).to_wkt()
    where = Georeference(64, 64, crs, (30, 0, x - 30 * 20.5, 0, -30, y + 30 * 40.5))
    found, labelled, burner, _ = patches_of(
        PointsLabel(path="y", value="clay_fract"), scene_with(path), where
    )
    assert labelled.nonzero()[0].tolist() == [2 * 4 + 1]
    assert (found["y"][9], found["y_count"][9]) == (8.0, 1)
    assert burner.tally["y_outside"] + 1 + burner.tally["y_unreadable"] == 226


def test_points_around_the_time_of_the_scene(tmp_path):
    rows = [
        (5, 5, 1, "2020-06-01T12:00:00Z"),
        (5, 5, 2, "2020-06-01 08:30"),  # without a zone: UTC
        (5, 5, 4, "2020/06/01 16:00+02:00"),
        (5, 5, 8, "2020-06-02"),
        (5, 5, 16, "some day"),
    ]
    path = write_csv(tmp_path / "y.csv", ["x", "y", "v", "when"], rows)
    scene = scene_with(path, time="2020-06-01T10:00:00+00:00")
    for within, values in ((0, []), (2, [1, 2]), (4, [1, 2, 4]), (14, [1, 2, 4, 8])):
        label = PointsLabel(path="y", value="v", time="when", within=within)
        found, _, burner, _ = patches_of(label, scene, PIXELS)
        assert found["y_count"][0] == len(values)
        assert not values or found["y"][0] == np.float32(np.mean(values))
        assert burner.tally["y_unreadable"] == 1
    with pytest.raises(SceneError, match=r"has no time.*within 14 h"):
        label.plan("y", scene_with(path), PIXELS, 16)


def test_rows_that_belong_to_a_scene(tmp_path):
    rows = [(5, 5, 1, "s"), (5, 5, 3, "s"), (5, 5, 100, "t")]
    path = write_csv(tmp_path / "y.csv", ["x", "y", "v", "scene_id"], rows)
    label = PointsLabel(path="y", value="v", scene="scene_id")
    assert patches_of(label, scene_with(path, "s"), PIXELS)[0]["y"][0] == 2
    assert patches_of(label, scene_with(path, "t"), PIXELS)[0]["y"][0] == 100
    assert not patches_of(label, scene_with(path, "u"), PIXELS)[1].any()


@pytest.mark.parametrize("size", [5, 6])
def test_patches_centred_on_points(tmp_path, size):
    rows = [(10.9, 12.1, 1), (10.1, 12.9, 3), (11.5, 12.5, 7), (1, 1, 9), (500, 1, 9)]
    path = write_csv(tmp_path / "y.csv", ["x", "y", "v"], rows)
    label, scene = PointsLabel(path="y", value="v", center=True), scene_with(path)
    centres = label.centres("y", scene, PIXELS)
    assert centres.dtype == np.int64
    assert centres.tolist() == [[1, 1], [12, 10], [12, 11]]
    spots = Spots.around([*map(tuple, centres.tolist())], 60, 80, size, "drop")
    found, labelled, _, _ = patches_of(label, scene, PIXELS, size, grid=spots)
    assert found["y"].tolist() == [2, 7]
    assert found["y_count"].tolist() == [2, 1]
    assert labelled.all()
    assert PointsLabel(path="y", value="v").centres("y", scene, PIXELS) is None


def test_delimiters_marks_and_bad_numbers(tmp_path):
    path = tmp_path / "y.csv"
    for delimiter in ";\t":
        rows = [(1, 1, 2.5), (1, "?", 1), (1, 1, "n/a"), (1, 1), (1, 1, "inf")]
        write_csv(path, ["\ufeffLongitude", "Latitude", "v"], rows, delimiter)
        label = PointsLabel(path="y", value="v", crs="pixel")
        found, _, burner, _ = patches_of(label, scene_with(path), PIXELS)
        assert (found["y"][0], found["y_count"][0]) == (2.5, 1)
        assert burner.tally["y_unreadable"] == 4


def test_many_points_and_patches_take_no_time(tmp_path):
    rng = np.random.default_rng(3)
    where = Georeference(4096, 4096, "", (1, 0, 0, 0, 1, 0))
    xy = rng.uniform(0, 4096, (50_000, 2))
    features = [{"type": "Feature", "properties": {"v": 1},
                 "geometry": {"type": "Point", "coordinates": p}} for p in xy.tolist()]  # fmt: skip
    path = tmp_path / "y.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    label, scene = PointsLabel(path="y", value="v", crs="pixel"), scene_with(path)
    columns = label.plan("y", scene, where, 16)
    burner = label.open("y", scene, where, 16, columns)
    grid = Grid(4096, 4096, 16, 16, "drop")
    total = 0
    for window in grid.windows(8, (256, 256), 10**7):
        out = {k: np.empty(window.count, f.dtype) for k, f in columns.items()}
        burner.patches(window, out)
        total += out["y_count"].sum()
    assert total == 50_000


def test_files_that_cannot_be_used(tmp_path):
    def refused(path, label, where=WHERE):
        with pytest.raises(SceneError) as caught:
            patches_of(label, scene_with(path), where)
        assert (caught.value.step, caught.value.file) == ("label", str(path))
        return caught.value.reason

    path, label = tmp_path / "y.csv", PointsLabel(path="y", value="v")
    assert "No such file" in refused(path, label)
    write_csv(path, ["lon", "lat", "vv"], [(15, 45, 1)])
    assert "no column 'v': did you mean 'vv'?" in refused(path, label)
    write_csv(path, ["site", "v"], [(15, 45)])
    assert "no columns lon and lat" in refused(path, label)
    write_csv(path, ["x", "y", "v"], [(15, 45, 1)])
    assert "has no CRS: give the label one" in refused(path, label)
    write_csv(path, ["lon", "lat", "v"], [(500005, 4999995, 1)])
    assert "look like projected metres" in refused(path, label)
    assert "neither CRS nor transform" in refused(
        write_csv(path, ["lon", "lat", "v"], [(15, 45, 1)]), label, PIXELS
    )
    write_csv(path, ["lon", "lat", "v"], [("15,1", "45,2", 1)], ";")
    assert "no numbers in its columns lon and lat" in refused(path, label)
    path.write_bytes(b"lon,lat,v\n15,45,\xe9\n")
    assert "save it as CSV in UTF-8" in refused(path, label)
    path.write_text("")
    assert "is empty" in refused(path, label)
    polygon = {"type": "Polygon", "coordinates": [[[15, 45], [16, 45], [16, 46], [15, 45]]]}
    feature = {"type": "Feature", "properties": {"v": 1}, "geometry": polygon}
    shapes = tmp_path / "y.geojson"
    shapes.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert "more than points" in refused(shapes, label)


def test_what_would_be_no_label_anywhere_is_told(tmp_path):
    def refused(where=WHERE, **section):
        with pytest.raises(SceneError) as caught:
            PointsLabel(path="y", value="v", **section).plan("y", scene_with(path), where, 16)
        return caught.value.reason

    path = write_csv(tmp_path / "y.csv", ["lon", "lat", "v"], [(15, 45, "wood"), (15, 45, "field")])
    assert "no numbers in v, but such as 'wood'" in refused()
    assert "no class 'wod': did you mean 'wood'" in refused(task="class", classes=["wod"])
    unknown = Georeference(60, 80, "", WHERE.transform)
    assert "is in degrees, and the scene, which has no CRS, is not" in refused(
        unknown, task="class"
    )


@pytest.mark.parametrize(
    "section", [{"time": "t"}, {"within": 3}, {"x": "a"}, {"classes": ["a"]}, {"crs": "nowhere"}]
)
def test_sections_that_cannot_be(section):
    with pytest.raises(ValidationError):
        PointsLabel(path="y", value="v", **section)


def test_an_ismn_station_as_a_table_of_points(tmp_path, data):
    """A station file's first line says where it is, the others what it measured and when."""
    folder = data / "soil/ismn/Data_seperate_files_header_20170810_20180809/COSMOS"
    rows, measured = [], {}
    for path in sorted(folder.rglob("*.stm")):
        place, *lines = filter(str.strip, path.read_text().splitlines())
        _, _, station, lat, lon, *_ = place.split()
        for line in lines:
            day, hour, value, *_ = line.split()
            rows.append([station, lon, lat, f"{day} {hour}", value])
            measured[station, f"{day} {hour}"] = float(value)
    write_csv(tmp_path / "ismn.csv", ["station", "lon", "lat", "time", "sm"], rows)
    write_raster(
        tmp_path / "S1_20170815T120500.tif", np.ones((1, 64, 64), np.float32), crs="EPSG:4326",
        origin=(-97.52, 36.63), resolution=0.001,
    )  # fmt: skip
    label = {"kind": "points", "path": str(tmp_path / "ismn.csv"), "value": "sm", "time": "time",
             "within": 0.5}  # fmt: skip
    (staged,), dead = stage(
        tmp_path, scenes={"time": r"_(\d{8}T\d{6})"}, labels={"sm": label}, tile={"size": 16},
        sample={"labelled": True},
    )  # fmt: skip
    assert not dead
    assert (staged.grid_count, staged.staged) == (16, 1)
    assert column(staged.path, "sm_count").tolist() == [1]
    assert column(staged.path, "sm")[0] == np.float32(measured["ARM-1", "2017/08/15 12:00"])

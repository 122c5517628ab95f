"""Vector labels: drawn window by window, against rasterio drawing the whole scene at once."""

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pydantic import ValidationError
from rasterio import warp
from rasterio.control import GroundControlPoint
from rasterio.features import rasterize
from rasterio.transform import Affine, GCPTransformer

from scenefeed.loader.spec import Feature
from scenefeed.transforms.errors import SceneError
from scenefeed.transforms.georeference import Georeference
from scenefeed.transforms.labels.vector import VectorLabel
from scenefeed.transforms.labels.vectorfile import read_vector, to_pixels
from scenefeed.transforms.scenes import Asset, SceneFiles
from scenefeed.transforms.tiling import Grid
from tests.conftest import write_raster
from tests.transforms.stages import mosaic, stage

UTM = "EPSG:32633"
NORTH_UP = Affine(10, 0, 500000, 0, -10, 5000000)


def grid(transform=NORTH_UP, height=90, width=130, crs=UTM) -> Georeference:
    wkt = rasterio.crs.CRS.from_user_input(crs).to_wkt() if crs else ""
    return Georeference(height, width, wkt, tuple(transform)[:6])


def grid_of(path) -> Georeference:
    with rasterio.open(path) as src:
        gcps, crs = src.gcps
        points = tuple((p.row, p.col, p.x, p.y) for p in gcps)
        crs = crs if points else src.crs
        return Georeference(src.height, src.width, crs.to_wkt(), tuple(src.transform)[:6], points)


def write_geojson(path: Path, shapes, crs: str | None = UTM, **fields) -> Path:
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shape) if shape else None,
         "properties": {k: v[i] for k, v in fields.items()}}
        for i, shape in enumerate(shapes)
    ]  # fmt: skip
    document = {"type": "FeatureCollection", "features": features}
    if crs:
        document["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(document))
    return path


def scene_with(path) -> SceneFiles:
    return SceneFiles("s", (Asset("/scenes/s.tif"),), labels={"y": str(path)})


def burn(label: VectorLabel, path, where: Georeference, size=32, stride=None, budget=60_000):
    """The mask of the whole scene from its patches, the burner, and what plan said."""
    scene = scene_with(path)
    columns = label.plan("y", scene, where, size)
    burner = label.open("y", scene, where, size, columns)
    dtype = columns["y"].dtype
    mask = np.full((where.height + 2 * size, where.width + 2 * size), 77, dtype)
    for window in Grid(where.height, where.width, size, stride or size, "pad").windows(
        8, (size, size), budget
    ):
        out = {"y": np.full((window.count, size, size), 99, dtype)}
        burner.patches(window, out)
        for patch, r, c in zip(out["y"], *window.corners(), strict=True):
            mask[r : r + size, c : c + size] = patch
    return mask[: where.height, : where.width], burner, columns["y"]


def reference(shapes, values, where: Georeference, all_touched=False):
    return rasterize(
        list(zip(shapes, values, strict=True)), out_shape=(where.height, where.width),
        transform=where.affine, all_touched=all_touched, dtype="uint8",
    )  # fmt: skip


def some_shapes(where: Georeference, seed=0):
    """Polygons (one with a hole, one of two parts), lines and points, some beyond the scene."""
    rng = np.random.default_rng(seed)

    def at(points):
        return np.stack(where.to_map(points[:, 0], points[:, 1]), axis=1)

    middles = rng.uniform(-10, [where.width + 10, where.height + 10], (24, 2))
    angles = np.sort(rng.uniform(0, 2 * np.pi, (24, 9)), axis=1)
    rings = [
        at(m + np.stack([np.cos(a), np.sin(a)], 1) * rng.uniform(4, 14, (9, 1)))
        for m, a in zip(middles, angles, strict=True)
    ]
    polygons = [p for p in map(shapely.Polygon, rings) if p.is_valid]
    hole = shapely.Polygon(
        at(np.array([(20.3, 20.1), (70.2, 22.6), (66, 61.7), (18.4, 55)]))
    ).difference(shapely.Polygon(at(np.array([(30.7, 30.2), (50.1, 32.9), (44.6, 47)]))))
    lines = [shapely.LineString(at(rng.uniform(-20, 120, (4, 2)))) for _ in range(4)]
    points = [shapely.Point(p) for p in at(rng.uniform(0, 80, (5, 2)))]
    many = shapely.MultiPolygon([shapely.Polygon(at(np.array([(x, 2.3), (x + 6, 2.1), (x, 9.8)])))
                                 for x in (3.4, 90.2)])  # fmt: skip
    return [*polygons, hole, many, *lines, *points]


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize(
    "transform",
    [
        NORTH_UP,
        Affine(10, 0, 500000, 0, 10, 4999100),  # south up
        Affine(8.57, 5.15, 500000, 5.15, -8.57, 5000000),  # rotated by 31 degrees
    ],
)
def test_windows_are_the_whole_scene_drawn_at_once(tmp_path, transform, all_touched):
    where = grid(transform)
    shapes = some_shapes(where)
    values = [i % 3 for i in range(len(shapes))]
    path = write_geojson(tmp_path / "y.geojson", shapes, kind=[f"k{v}" for v in values])
    label = VectorLabel(path="y", attribute="kind", classes=("k0", "k1", "k2"),
                        all_touched=all_touched)  # fmt: skip
    order = np.argsort(values, kind="stable")
    expected = reference([shapes[i] for i in order], [values[i] + 1 for i in order], where,
                         all_touched)  # fmt: skip
    for size, stride, budget in ((32, 32, 60_000), (16, 12, 1), (200, 200, 10**7)):
        mask, _, feature = burn(label, path, where, size, stride, budget)
        assert np.array_equal(mask, expected)
    assert len(np.unique(expected)) == 4
    assert feature == Feature((200, 200), "uint8", "mask", "tensor",
                              names=("background", "k0", "k1", "k2"))  # fmt: skip


def test_landsat_polygons_of_another_datum(data):
    where = grid_of(data / "landsat7/landsat_multiband.tif")
    path = data / "landsat7/landsat96_polygons.shp"
    mask, burner, feature = burn(VectorLabel(path="y", attribute="label"), path, where, 64)
    meta, _, wkb, fields = pyogrio.raw.read(path, columns=["label"])
    shapes = shapely.from_wkb(wkb)
    names = ("background", *sorted(set(fields[0])))
    assert feature.names == names
    moved = warp.transform_geom(meta["crs"], where.crs, [s.__geo_interface__ for s in shapes])
    values = [names.index(v) for v in fields[0]]
    order = np.argsort(values, kind="stable")
    expected = reference([moved[i] for i in order], [values[i] for i in order], where)
    assert np.array_equal(mask, expected)
    inside = shapely.intersects(
        shapely.from_geojson([json.dumps(m) for m in moved]),
        shapely.box(*rasterio.transform.array_bounds(where.height, where.width, where.affine)),
    )
    assert burner.tally["y_outside"] == (~inside).sum()
    assert mask.any()


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize(
    ("image", "labels", "crs"),
    [
        ("sample_geotiff.tif", "geotiff_labels.geojson", None),
        ("sample_geotiff_custom_proj.tif", "geotiff_custom_proj_labels.geojson", "scene"),
    ],
)
def test_buildings(data, image, labels, crs, all_touched):
    where = grid_of(data / "buildings" / image)
    path = data / "buildings" / labels
    label = VectorLabel(path="y", crs=crs and where.crs, all_touched=all_touched)
    mask, _, feature = burn(label, path, where, 128, budget=10**6)
    shapes = shapely.from_wkb(pyogrio.raw.read(path)[2])
    assert np.array_equal(mask, reference(shapes, [1] * len(shapes), where, all_touched))
    assert mask.any()
    assert feature.names == ("background", "y")


def test_geojson_that_cannot_be_degrees(data):
    where = grid_of(data / "buildings/sample_geotiff_custom_proj.tif")
    path = data / "buildings/geotiff_custom_proj_labels.geojson"
    with pytest.raises(SceneError, match=r"look like projected metres.*crs: EPSG"):
        burn(VectorLabel(path="y"), path, where)


def test_ground_control_points(data, tmp_path):
    where = grid_of(data / "sar/complex/slc.tif")
    lon, lat = where.to_map([200, 700, 650, 180], [100, 150, 500, 420])
    field = shapely.Polygon(np.stack([lon, lat], 1))
    far = shapely.box(lon[0] + 60, lat[0] - 30, lon[0] + 90, lat[0] - 5)
    path = write_geojson(tmp_path / "y.geojson", [field, far], crs=None)
    mask, burner, _ = burn(VectorLabel(path="y"), path, where, 256, budget=10**7)
    xy = shapely.get_coordinates(shapely.segmentize(field, 0.001))
    gcps = [GroundControlPoint(row=r, col=c, x=x, y=y) for r, c, x, y in where.gcps]
    with GCPTransformer(gcps) as transformer:
        rows, cols = transformer.rowcol(xy[:, 0], xy[:, 1], op=np.asarray)
    expected = rasterize([shapely.Polygon(np.stack([cols, rows], 1))], out_shape=mask.shape)
    assert (mask != expected).sum() <= 2  # lines are cut at other places
    assert expected.sum() > 100_000
    assert burner.tally["y_outside"] == 1


def test_long_lines_follow_the_projection(tmp_path):
    where = grid(Affine(100, 0, 300000, 0, -100, 5500000), 500, 400)
    world = shapely.Polygon([(-170, 49.4), (170, 49.4), (170, 85), (-170, 85)])
    path = write_geojson(tmp_path / "y.geojson", [world], crs=None)
    mask, burner, _ = burn(VectorLabel(path="y"), path, where, 200, budget=10**7)
    cols, rows = np.meshgrid(np.arange(400) + 0.5, np.arange(500) + 0.5)
    latitude = where.to_lonlat(cols.ravel(), rows.ravel())[1].reshape(500, 400)
    assert (mask.astype(bool) != (latitude > 49.4)).sum() <= 4
    assert 0 < mask.sum() < mask.size
    assert burner.tally["y_outside"] == burner.tally["y_unplaced"] == 0


def test_a_polygon_of_many_vertices_is_cut_to_windows_unseen(tmp_path):
    where = grid()
    angle = np.linspace(0, 2 * np.pi, 6000, endpoint=False)
    radius = 380 + 60 * np.sin(31 * angle)
    star = shapely.Polygon(np.stack([500650 + radius * np.cos(angle),
                                     4999550 + radius * np.sin(angle)], 1))  # fmt: skip
    path = write_geojson(tmp_path / "y.geojson", [star])
    for touched in (False, True):
        mask, _, _ = burn(VectorLabel(path="y", all_touched=touched), path, where, 16, budget=1)
        assert np.array_equal(mask, reference([star], [1], where, touched))


def test_classes_compare_as_text_and_others_are_counted(tmp_path):
    where = grid(height=20, width=20)
    boxes = [shapely.box(500000 + x, 4999800, 500000 + x + 50, 5000000) for x in (0, 50, 100, 150)]
    path = write_geojson(tmp_path / "y.geojson", boxes, code=[1, 2.0, 7, None])
    mask, burner, feature = burn(VectorLabel(path="y", attribute="code", classes={"2": 5, 1: 3},
                                             background=9), path, where)  # fmt: skip
    assert mask[0, ::5].tolist() == [3, 5, 9, 9]
    assert burner.tally["y_unclassed"] == 2
    assert feature.names == ("0", "1", "2", "1", "4", "2")
    found, _, feature = burn(VectorLabel(path="y", attribute="code"), path, where)
    assert feature.names == ("background", "1", "2", "7")
    assert found[0, ::5].tolist() == [1, 2, 3, 0]


def test_ids_are_the_whole_datasets(tmp_path):
    where = grid(height=8, width=8)
    path = write_geojson(tmp_path / "y.geojson", [shapely.box(500000, 4999920, 500080, 5000000)],
                         kind=["oak"])  # fmt: skip
    label, scene = VectorLabel(path="y", attribute="kind"), scene_with(path)
    planned = label.plan("y", scene, where, 8)["y"]
    assert planned.names == ("background", "oak")
    columns = {"y": Feature((8, 8), "uint8", "mask", "tensor", (), ("background", "ash", "oak"))}
    out = {"y": np.zeros((1, 8, 8), np.uint8)}
    window = next(iter(Grid(8, 8, 8, 8, "drop").windows(8, (8, 8), 10**6)))
    label.open("y", scene, where, 8, columns).patches(window, out)
    assert (out["y"] == 2).all()
    many = {"y": Feature((8, 8), "uint8", "mask", "tensor", (), tuple(map(str, range(300))))}
    with pytest.raises(SceneError, match="300 values over all scenes"):
        label.open("y", scene, where, 8, many)


def test_beyond_the_scene_is_ignored_where_something_is(tmp_path):
    where = grid(height=10, width=10)
    path = write_geojson(tmp_path / "y.geojson", [shapely.box(499000, 4999000, 501000, 5001000)])
    scene = scene_with(path)
    window = next(iter(Grid(10, 10, 16, 16, "pad").windows(8, (16, 16), 10**6)))
    for ignore, dtype, outside in (((), "uint8", 0), ((255,), "uint8", 255), ((-1,), "int16", -1)):
        label = VectorLabel(path="y", ignore=ignore)
        columns = label.plan("y", scene, where, 16)
        assert columns["y"].dtype == dtype
        out = {"y": np.zeros((1, 16, 16), dtype)}
        label.open("y", scene, where, 16, columns).patches(window, out)
        assert (out["y"][0, :10, :10] == 1).all()
        assert (out["y"][0, 10:] == outside).all()
        assert (out["y"][0, :, 10:] == outside).all()


def test_only_background_is_not_labelled_if_ignored(tmp_path):
    where = grid(height=32, width=32)
    path = write_geojson(tmp_path / "y.geojson", [shapely.Point(500005, 4999995)])
    label, scene = VectorLabel(path="y", ignore=(0,)), scene_with(path)
    columns = label.plan("y", scene, where, 16)
    window = next(iter(Grid(32, 32, 16, 16, "drop").windows(8, (32, 32), 10**6)))
    out = {"y": np.zeros((4, 16, 16), np.uint8)}
    labelled = label.open("y", scene, where, 16, columns).patches(window, out)
    assert labelled.tolist() == [True, False, False, False]


def test_bow_ties_and_buffers(tmp_path):
    where = grid(height=20, width=20)
    bow = shapely.Polygon([(500000, 5000000), (500200, 4999800), (500200, 5000000),
                           (500000, 4999800)])  # fmt: skip
    path = write_geojson(tmp_path / "bow.geojson", [bow])
    mask, _, _ = burn(VectorLabel(path="y"), path, where)
    assert np.array_equal(mask, reference([shapely.make_valid(bow)], [1], where))
    point = shapely.Point(500100, 4999900)
    path = write_geojson(tmp_path / "point.geojson", [point, None])
    mask, burner, _ = burn(VectorLabel(path="y", buffer=42), path, where)
    assert np.array_equal(mask, reference([point.buffer(42)], [1], where))
    assert burner.tally["y_unreadable"] == 1


def test_pixel_coordinates_need_no_crs(tmp_path):
    where = Georeference(20, 30, "", (1, 0, 0, 0, 1, 0))
    path = write_geojson(tmp_path / "y.geojson", [shapely.box(3, 5, 10, 8)], crs=None)
    mask, _, _ = burn(VectorLabel(path="y", crs="pixel"), path, where)
    expected = np.zeros((20, 30))
    expected[5:8, 3:10] = 1
    assert np.array_equal(mask, expected)
    with pytest.raises(SceneError, match=r"neither CRS nor transform.*crs: pixel"):
        burn(VectorLabel(path="y"), path, where)


@pytest.mark.filterwarnings("ignore:.crs. was not provided")
def test_a_shapefile_without_a_prj(tmp_path):
    box = shapely.box(500000, 4999900, 500100, 5000000)
    path = tmp_path / "y.shp"
    pyogrio.raw.write(path, shapely.to_wkb(np.array([box])), [np.array(["a"])], ["kind"],
                      geometry_type="Polygon", crs=None)  # fmt: skip
    with pytest.raises(SceneError, match="has no CRS: give the label one"):
        burn(VectorLabel(path="y"), path, grid())
    expected = reference([box], [1], grid())
    assert np.array_equal(burn(VectorLabel(path="y", crs=UTM), path, grid())[0], expected)
    assert np.array_equal(burn(VectorLabel(path="y"), path, grid(crs=None))[0], expected)


def test_layers(tmp_path):
    path = tmp_path / "y.gpkg"
    for i, layer in enumerate(("roads", "fields")):
        box = shapely.box(500000 + 100 * i, 4999900, 500100 + 100 * i, 5000000)
        pyogrio.raw.write(path, shapely.to_wkb(np.array([box])), [np.array(["a"])], ["kind"],
                          layer=layer, geometry_type="Polygon", crs=UTM)  # fmt: skip
    mask, _, _ = burn(VectorLabel(path="y", layer="fields"), path, grid())
    assert mask[0, [0, 10]].tolist() == [0, 1]
    with pytest.raises(SceneError, match=r"2 layers.*roads, fields"):
        burn(VectorLabel(path="y"), path, grid())
    with pytest.raises(SceneError, match=r"no layer 'field'.*mean 'fields'"):
        burn(VectorLabel(path="y", layer="field"), path, grid())
    with pytest.raises(SceneError, match=r"no attribute 'kinds'.*mean 'kind'"):
        burn(VectorLabel(path="y", layer="fields", attribute="kinds"), path, grid())


def test_classes_that_no_geometry_has(data):
    path = data / "landsat7/landsat96_polygons.shp"
    label = VectorLabel(path=str(path), attribute="label", classes=["forrest", "wasser"])
    with pytest.raises(SceneError, match="no class 'forrest': did you mean 'forest'"):
        burn(label, path, grid())


def test_absent_and_damaged_files(tmp_path):
    gone = tmp_path / "gone.geojson"
    with pytest.raises(SceneError, match="No such file") as caught:
        burn(VectorLabel(path="y"), gone, grid())
    assert caught.value.step == "label"
    assert caught.value.file == str(gone)
    label = VectorLabel(path="y", attribute="kind", missing="ignore")
    mask, burner, feature = burn(label, gone, grid())
    assert not mask.any()
    assert burner.tally == {"y_missing": 1}
    assert feature.names == ("background",)
    bad = tmp_path / "bad.geojson"
    bad.write_text('{"type": "FeatureCollection", "features": [')
    with pytest.raises(SceneError, match="cannot be read as a vector file"):
        burn(VectorLabel(path="y"), bad, grid())


def test_a_changed_file_is_read_again(tmp_path):
    path = write_geojson(tmp_path / "y.geojson", [shapely.Point(500005, 4999995)])
    assert len(read_vector(str(path)).geometries) == 1
    write_geojson(path, [shapely.Point(500005, 4999995)] * 2)
    assert len(read_vector(str(path)).geometries) == 2


def test_what_no_projection_places_is_counted(tmp_path):
    where = Georeference(100, 100, grid().crs, (2e5, 0, -9.5e6, 0, -2e5, 1e7))
    shapes = [shapely.Point(15, 45), shapely.Point(105.1, 0)]
    table = read_vector(str(write_geojson(tmp_path / "y.geojson", shapes, crs=None)))
    placed = to_pixels(table, where)
    assert (len(placed.geometries), placed.outside + placed.unplaced) == (1, 1)


@pytest.mark.parametrize(
    "section",
    [
        {"classes": ["a"]},
        {"attribute": "k", "classes": ["a", "a"]},
        {"attribute": "k", "classes": [1, "1"]},
        {"attribute": "k", "classes": {"a": -1}},
        {"attribute": "k", "background": 3},
        {"background": 1},
        {"crs": "EPSG:0"},
        {"ignore": [2**40]},
    ],
)
def test_sections_that_cannot_be(section):
    with pytest.raises(ValidationError):
        VectorLabel(path="y", **section)


@pytest.mark.parametrize("attribute", [None, "k"])
def test_a_file_without_features_is_all_background(tmp_path, attribute):
    (tmp_path / "p.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    label = {"kind": "vector", "path": str(tmp_path / "p.geojson"), "attribute": attribute}
    (staged,), dead = stage(tmp_path, labels={"y": label})
    assert not dead
    assert (mosaic(staged.path, "y") == 0).all()

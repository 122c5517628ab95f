"""Bands and labels on other grids: what is staged against rasterio's own WarpedVRT."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from scipy.ndimage import map_coordinates

from scenefeed.transforms import reading, staging
from tests.conftest import write_raster
from tests.transforms.stages import column, mosaic, stage

RNG = np.random.default_rng(0)


def smooth(height, width, bands=1, dtype="float32"):
    y, x = np.mgrid[:height, :width]
    waves = [100 + 50 * np.sin(x / (7 + b)) * np.cos(y / (5 + b)) for b in range(bands)]
    return np.stack(waves).astype(dtype)


def vrt_read(path, like, resampling, **more):
    """A raster on another's grid, by rasterio alone."""
    with rasterio.open(path) as src, WarpedVRT(
        src, crs=like.crs, transform=like.transform, width=like.width, height=like.height,
        resampling=Resampling[resampling], **more,
    ) as vrt:  # fmt: skip
        return vrt.read()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_a_coarser_band_comes_onto_the_finest_ones_grid(tmp_path, dtype, resampling):
    fine = write_raster(tmp_path / "s_B02.tif", smooth(120, 120, dtype=dtype), resolution=10)
    coarse = write_raster(tmp_path / "s_B05.tif", smooth(60, 60, dtype=dtype), resolution=20)
    (staged,), dead = stage(
        tmp_path, None, scenes={"bands": {"B05": "*_B05.tif", "B02": "*_B02.tif"}},
        grid={"resampling": resampling}, tile={"size": 40},
    )  # fmt: skip
    assert not dead
    assert "brought onto that of band B02" in staged.header.where.assumed[-1]
    found = mosaic(staged.path)
    with rasterio.open(fine) as src:
        assert np.array_equal(found[..., 1], src.read(1))
        assert np.array_equal(found[..., 0], vrt_read(coarse, src, resampling)[0])
    assert found.dtype == dtype


def test_a_named_reference_and_a_band_in_another_crs(tmp_path):
    write_raster(tmp_path / "s_vv.tif", smooth(100, 100), resolution=10)
    with rasterio.open(tmp_path / "s_vv.tif") as src:
        bounds = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
    origin = (bounds[0] - 0.001, bounds[3] + 0.001)
    dem = write_raster(
        tmp_path / "s_dem.tif", smooth(90, 90), crs="EPSG:4326", origin=origin, resolution=0.0002
    )
    (staged,), _ = stage(
        tmp_path, None, scenes={"bands": {"dem": "*_dem.tif", "vv": "*_vv.tif"}},
        grid={"reference": "vv"}, tile={"size": 50},
    )  # fmt: skip
    with rasterio.open(tmp_path / "s_vv.tif") as src:
        expected = vrt_read(dem, src, "bilinear")[0]
    assert np.allclose(mosaic(staged.path)[..., 0], expected, rtol=1e-6)


def test_windows_join_without_a_seam(tmp_path, monkeypatch):
    """Read in many windows or in one: the same pixels."""
    write_raster(tmp_path / "s.tif", smooth(400, 700, 2), resolution=10)
    grid = {"crs": "EPSG:3857", "resolution": 14, "resampling": "cubic"}
    (whole,), _ = stage(tmp_path, grid=grid, tile={"size": 32}, out=tmp_path)
    monkeypatch.setattr(staging, "WINDOW_BYTES", 1 << 17)
    (tmp_path / "again").mkdir()
    (parts,), _ = stage(tmp_path, grid=grid, tile={"size": 32}, out=tmp_path / "again")
    assert np.array_equal(mosaic(whole.path), mosaic(parts.path))
    where = whole.header.where
    with rasterio.open(tmp_path / "s.tif") as src, WarpedVRT(
        src, crs="EPSG:3857", transform=where.affine, width=where.width, height=where.height,
        resampling=Resampling.cubic, nodata=np.nan,
    ) as vrt:  # fmt: skip
        expected = np.moveaxis(np.nan_to_num(vrt.read()), 0, -1)
    found = mosaic(whole.path)
    expected = expected[: found.shape[0], : found.shape[1]]
    both = (found != 0) & (expected != 0)
    assert both.mean() > 0.99 * (expected != 0).mean()
    # GDAL approximates coordinates along what it warps at once, to an eighth of a pixel.
    assert np.allclose(found[both], expected[both], atol=1)
    assert where.affine.c % 14 == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("nodata", [None, 7])
def test_where_a_warped_band_has_no_data_is_invalid(tmp_path, dtype, nodata):
    pixels = np.full((2, 64, 64), 50, dtype)
    pixels[0, 20:40, 20:40] = 7
    write_raster(tmp_path / "s.tif", pixels, nodata=nodata, resolution=10)
    (staged,), _ = stage(
        tmp_path, grid={"crs": "EPSG:4326", "resampling": "nearest"},
        tile={"size": 16, "edge": "pad"}, clean={"fill": 99},
    )  # fmt: skip
    found = mosaic(staged.path)
    where = staged.header.where
    # What lies beyond the source, by warping ones.
    ones = write_raster(tmp_path / "o/ones.tif", np.ones((1, 64, 64), np.uint8), resolution=10)
    with (
        rasterio.open(ones) as src,
        WarpedVRT(
            src, crs="EPSG:4326", transform=where.affine, width=where.width, height=where.height
        ) as vrt,
    ):
        reached = np.zeros(found.shape[:2], bool)
        reached[: where.height, : where.width] = vrt.read(1) > 0
    assert (found[~reached] == 99).all()
    assert (found[reached][:, 1] == 50).all()
    assert set(np.unique(found[reached][:, 0])) == ({50, 7} if nodata is None else {50, 99})


def test_an_alpha_band_and_a_mask_file_are_warped_along(tmp_path):
    pixels = np.full((1, 64, 64), 50, np.uint8)
    path = write_raster(tmp_path / "s.tif", pixels, resolution=10)
    mask = np.full((64, 64), 255, np.uint8)
    mask[:32] = 0
    with rasterio.open(path, "r+") as src:
        src.write_mask(mask)
    options = {"crs": "EPSG:32633", "resolution": 20, "resampling": "nearest"}
    (staged,), _ = stage(tmp_path, grid=options, tile={"size": 32}, clean={"fill": 1})
    found = mosaic(staged.path)[..., 0]
    assert (found[:16] == 1).all()
    assert (found[16:] == 50).all()


def test_control_points_alone(tmp_path, data):
    """The SLC's own grid is kept without ``grid``; with it, it is warped as rasterio warps it."""
    path = data / "sar/complex/slc.tif"
    (native,), dead = stage(tmp_path, str(path), clean={"complex": "amplitude"})
    assert not dead
    where = native.header.where
    assert (where.height, where.width, len(where.gcps)) == (674, 1094, 210)
    assert "210 ground control points" in where.assumed[0]
    with rasterio.open(path) as src:
        expected = np.abs(src.read(1))
        points, crs = src.gcps
        found = mosaic(native.path)[..., 0]
        assert np.allclose(found, expected[: found.shape[0], : found.shape[1]], rtol=1e-6)
        # A control point's own place, there and back.
        col, row = where.to_pixels([points[50].x], [points[50].y])
        assert (abs(col[0] - points[50].col), abs(row[0] - points[50].row)) < (3, 3)
        (tmp_path / "b").mkdir()
        (warped,), _ = stage(
            tmp_path, str(path), out=tmp_path / "b", clean={"complex": "amplitude"},
            grid={"crs": "EPSG:32618", "resolution": 100, "resampling": "nearest"},
        )  # fmt: skip
        grid = warped.header.where
        expected = np.zeros((grid.height, grid.width), np.complex64)
        reproject(
            rasterio.band(src, 1), expected, gcps=points, src_crs=crs, dst_crs="EPSG:32618",
            dst_transform=grid.affine, resampling=Resampling.nearest,
        )  # fmt: skip
    found = mosaic(warped.path)[..., 0]
    expected = np.abs(expected)[: found.shape[0], : found.shape[1]]
    assert (found > 0).mean() > 0.2
    # GDAL approximates coordinates to an eighth of a pixel: nearest may fall to the other side.
    assert np.isclose(found, expected, rtol=1e-5).mean() > 0.95


def test_rotated_and_south_up_grids_keep_their_own_pixels(tmp_path):
    pixels = smooth(64, 64)
    for name, transform in {
        "rotated": Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10),
        "south_up": Affine(10, 0, 5e5, 0, 10, 5e6),
    }.items():
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", count=1, height=64, width=64,
            dtype="float32", crs="EPSG:32633", transform=transform,
        ) as out:  # fmt: skip
            out.write(pixels)
    staged, dead = stage(tmp_path, tile={"size": 32}, scalars=["longitude", "latitude"])
    assert not dead
    for scene in staged:
        assert np.array_equal(mosaic(scene.path)[..., 0], pixels[0])
        with rasterio.open(tmp_path / f"{scene.id}.tif") as src:
            x, y = src.transform @ (16, 16)
            lon, lat = rasterio.warp.transform(src.crs, "EPSG:4326", [x], [y])
        assert column(scene.path, "longitude")[0] == pytest.approx(lon[0], rel=1e-6)
        assert column(scene.path, "latitude")[0] == pytest.approx(lat[0], rel=1e-6)


def test_what_is_assumed_without_a_georeference(tmp_path):
    def write(name, crs, transform):
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", count=1, height=64, width=64,
            dtype="uint8", crs=crs, transform=transform,
        ) as out:  # fmt: skip
            out.write(np.ones((1, 64, 64), np.uint8))

    write("identity", "EPSG:32633", Affine.identity())
    write("nothing", None, Affine.identity())
    write("nowhere", None, Affine(10, 0, 5e5, 0, -10, 5e6))
    staged, dead = stage(tmp_path)
    assert not dead
    assumed = {s.id: s.header.where.assumed[0] for s in staged}
    assert "a CRS but no transform" in assumed["identity"]
    assert "no georeference" in assumed["nothing"]
    assert "no CRS" in assumed["nowhere"]


def test_bands_that_cannot_be_related(tmp_path):
    write_raster(tmp_path / "s_a.tif", smooth(64, 64), crs=None)
    write_raster(tmp_path / "s_b.tif", smooth(32, 32), crs=None, resolution=20)
    bands = {"a": "*_a.tif", "b": "*_b.tif"}
    _, (dead,) = stage(tmp_path, None, scenes={"bands": bands})
    assert "without a georeference of both it cannot be warped" in dead.reason
    assert dead.step == "plan"
    _, (dead,) = stage(
        tmp_path, None, scenes={"bands": bands}, grid={"crs": "EPSG:32633", "resolution": 10}
    )
    assert "no georeference" in dead.reason
    write_raster(tmp_path / "s_a.tif", smooth(64, 64))
    write_raster(tmp_path / "s_b.tif", smooth(32, 32), resolution=20)
    _, (dead,) = stage(tmp_path, None, scenes={"bands": bands}, grid={"reference": "c"})
    assert "has no band 'c' for grid.reference: it has a, b" in dead.reason


def test_a_grid_far_too_coarse_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=40000, width=40000, dtype="float32",
        crs="EPSG:32633", transform=Affine(1, 0, 4e5, 0, -1, 5e6), tiled=True, sparse_ok=True,
    ):  # fmt: skip
        pass
    _, (dead,) = stage(tmp_path, grid={"crs": "EPSG:32633", "resolution": 200}, tile={"size": 64})
    assert "200 times coarser" in dead.reason


@pytest.mark.parametrize("change", [{"resolution": 25}, {"crs": "EPSG:3857"}, {"origin": True}])
def test_a_label_on_another_grid_is_warped_by_nearest(tmp_path, change):
    write_raster(tmp_path / "s.tif", smooth(96, 96), resolution=10)
    classes = RNG.integers(0, 4, (1, 60, 60), np.uint8)
    origin, resolution, crs = (499950, 5000050), change.get("resolution", 20), "EPSG:32633"
    if "crs" in change:
        crs, resolution = "EPSG:3857", 30
        xs, ys = rasterio.warp.transform("EPSG:32633", crs, [499900], [5000100])
        origin = (xs[0], ys[0])
    if "origin" in change:
        origin = (500403, 5000050)  # the scene's left part has no label
    path = write_raster(
        tmp_path / "l/s.tif", classes, origin=origin, resolution=resolution, crs=crs
    )
    label = {"path": str(tmp_path / "l/{id}.tif"), "ignore": [255]}
    (staged,), dead = stage(tmp_path, labels={"y": label}, tile={"size": 32})
    assert not dead
    with rasterio.open(tmp_path / "s.tif") as src:
        expected = vrt_read(path, src, "nearest", nodata=255)[0]
    found = mosaic(staged.path, "y")
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    if "origin" in change:
        assert (found[:, :40] == 255).all()
        assert staged.tallies["y_beyond"] == (expected == 255).sum()


def test_label_values_are_replaced_and_ignored_ones_counted(tmp_path):
    write_raster(tmp_path / "s.tif", smooth(64, 64))
    classes = RNG.integers(0, 5, (1, 64, 64), np.uint8)
    write_raster(tmp_path / "l/s.tif", classes)
    label = {
        "path": str(tmp_path / "l/{id}.tif"), "values": {4: -1, 1: 2, 2: 1}, "ignore": [-1],
    }  # fmt: skip
    (staged,), _ = stage(tmp_path, labels={"y": label}, tile={"size": 32})
    expected = np.array([0, 2, 1, 3, -1])[classes[0]]
    found = mosaic(staged.path, "y")
    assert found.dtype == np.int16
    assert np.array_equal(found, expected)
    assert staged.tallies["y_ignored"] == (expected == -1).sum()


def test_a_label_may_be_absent_for_some_scenes(tmp_path):
    for name in ("a", "b"):
        write_raster(tmp_path / f"{name}.tif", smooth(64, 64))
    write_raster(tmp_path / "l/a.tif", np.ones((1, 64, 64), np.uint8))
    label = {"path": str(tmp_path / "l/{id}.tif"), "ignore": [255]}
    staged, (dead,) = stage(tmp_path, labels={"y": label})
    assert (len(staged), dead.scene, dead.step) == (1, "b", "label")
    staged, dead = stage(tmp_path, labels={"y": {**label, "missing": "ignore"}})
    assert not dead
    assert {s.id: set(column(s.path, "y").ravel()) for s in staged} == {"a": {1}, "b": {255}}
    staged, _ = stage(
        tmp_path, labels={"y": {**label, "missing": "ignore"}}, sample={"labelled": True}
    )
    assert {s.id: s.staged for s in staged} == {"a": 1, "b": 0}


def test_a_real_label_in_another_crs(tmp_path, data):
    """Landsat's labelled pixels have a CRS of their own."""
    scene = data / "landsat7/lsat7_2000_10.tif"
    label = data / "landsat7/landsat96_labelled_pixels.tif"
    (staged,), dead = stage(
        tmp_path, _manifest(tmp_path, scene), tile={"size": 50},
        labels={"y": {"path": str(label).replace("landsat96", "{what}")}},
    )  # fmt: skip
    assert not dead
    with rasterio.open(scene) as src:
        expected = vrt_read(label, src, "nearest")[0]
    found = mosaic(staged.path, "y")
    assert len(np.unique(found)) > 2
    assert np.array_equal(found, expected[: found.shape[0], : found.shape[1]])


def test_one_map_under_all_scenes_needs_a_georeference(tmp_path):
    for name, origin in (("a", (500000, 5000000)), ("b", (500320, 5000000))):
        write_raster(tmp_path / f"s/{name}.tif", smooth(32, 32), origin=origin)
    classes = RNG.integers(1, 4, (1, 32, 64), np.uint8)
    label = {"path": str(write_raster(tmp_path / "map.tif", classes))}
    staged, dead = stage(tmp_path, "s/*.tif", labels={"y": label}, tile={"size": 32})
    assert not dead
    found = {s.id: mosaic(s.path, "y") for s in staged}
    assert np.array_equal(np.hstack([found["a"], found["b"]]), classes[0])
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", count=1, height=32, width=32, dtype="uint8"
    ) as plain:
        plain.write(classes[:, :, :32])
    _, dead = stage(tmp_path, "s/*.tif", labels={"y": label}, tile={"size": 32})
    assert ["put {id}" in d.reason for d in dead] == [True, True]


def _manifest(folder, scene):
    """A property fills in what the label's path leaves open."""
    (folder / "m.csv").write_text(f"id,path,what\nlandsat,{scene},landsat96\n")
    return str(folder / "m.csv")


def test_complex_bands_become_their_parts(tmp_path, data):
    paths = {p: str(data / f"sar/spacenet6/sar_{p.lower()}.tif") for p in ("HH", "VV")}
    bands = {p: f"{path}" for p, path in paths.items()}
    parts = ["amplitude", "phase", "intensity", "real", "imag"]
    (staged,), dead = stage(
        tmp_path, None, scenes={"bands": bands, "id": "(sar)"}, clean={"complex": parts},
        tile={"size": 50},
    )  # fmt: skip
    assert not dead
    assert staged.header.bands[:6] == (*(f"HH_{p}" for p in parts), "VV_amplitude")
    found = mosaic(staged.path)
    with rasterio.open(paths["VV"]) as src:
        z = src.read(1)
    expected = [np.abs(z), np.angle(z), np.abs(z) ** 2, z.real, z.imag]
    for i, plane in enumerate(expected):
        assert np.allclose(found[..., 5 + i], plane, rtol=1e-5)
    assert found.dtype == np.float32


def test_scale_and_offset_of_the_metadata_on_request(tmp_path):
    pixels = RNG.integers(1, 1000, (2, 64, 64), np.uint16)
    pixels[:, :8] = 0
    path = write_raster(tmp_path / "s.tif", pixels, nodata=0)
    with rasterio.open(path, "r+") as src:
        src.scales, src.offsets = (0.5, 2.0), (10.0, 0.0)
    (raw,), _ = stage(tmp_path)
    assert mosaic(raw.path).dtype == np.uint16
    (staged,), _ = stage(tmp_path, clean={"scale_offset": True, "fill": -1})
    expected = np.stack([pixels[0] * 0.5 + 10, pixels[1] * 2.0], axis=-1)
    expected[:8] = -1
    found = mosaic(staged.path)
    assert found.dtype == np.float32
    assert np.allclose(found, expected)


def test_reader_reaches_beyond_every_edge(tmp_path):
    from scenefeed.transforms.config import parse
    from scenefeed.transforms.scenes import Asset, SceneFiles
    from scenefeed.transforms.tiling import Window

    pixels = smooth(20, 30)
    scene = SceneFiles("s", (Asset(str(write_raster(tmp_path / "s.tif", pixels))),))
    with reading.SceneReader(scene, parse({}, "t")) as reader:
        none = np.zeros(0)
        found, bad = reader.read(Window(-2, 25, 10, 8, none, none), margin=1)
    padded = np.pad(pixels[0], 5)[2:14, 29:39]
    known = np.pad(np.ones((20, 30), bool), 5)[2:14, 29:39]
    assert np.array_equal(np.where(bad[0], 0, found[0]), padded)
    assert np.array_equal(~bad[0], known)


@pytest.mark.parametrize("angle", [0, 30, 85, 90])
def test_a_rotated_raster_is_interpolated_not_smoothed(tmp_path, angle):
    pixels = RNG.normal(size=(1, 300, 300)).astype(np.float32)
    transform = Affine.translation(5e5, 5e6) @ Affine.rotation(angle) @ Affine.scale(10, -10)
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", count=1, height=300, width=300, dtype="float32",
        crs="EPSG:32633", transform=transform,
    ) as out:  # fmt: skip
        out.write(pixels)
    (staged,), dead = stage(
        tmp_path, grid={"crs": "EPSG:32633", "resolution": 10}, clean={"fill": float("nan")}
    )
    assert not dead
    found, grid = mosaic(staged.path)[..., 0], staged.header.where
    rows, cols = np.mgrid[: found.shape[0], : found.shape[1]] + 0.5
    xs, ys = grid.to_map(cols, rows)
    a, b, c, d, e, f = tuple(~transform)[:6]
    places = np.stack([d * xs + e * ys + f, a * xs + b * ys + c]) - 0.5
    inside = ((places > 1) & (places < 298)).all(axis=0) & np.isfinite(found)
    assert inside.mean() > 0.2
    expected = map_coordinates(pixels[0], places, order=1)
    assert np.abs(found - expected)[inside].max() < 0.6
    assert np.sqrt(np.square(found - expected)[inside].mean()) < 0.05


def test_a_band_that_resampling_names_must_be_there(tmp_path):
    write_raster(tmp_path / "s.tif", smooth(64, 64), names=("vv",))
    _, (dead,) = stage(tmp_path, grid={"resolution": 20, "resampling": {"vh": "nearest"}})
    assert "no band 'vh' for grid.resampling: it has vv" in dead.reason

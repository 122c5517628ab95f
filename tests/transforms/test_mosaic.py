"""Mosaics: patches' own pixels put together again are the scene, to the pixel."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from scenefeed.loader import DatasetError, DatasetSpec, Reader
from scenefeed.transforms.errors import ConfigError, JobError
from scenefeed.transforms.mosaic import Mosaic
from tests.conftest import errors, write_raster
from tests.conftest import in_process as scenefeed


def own_pixels(out, scene_id, path, **options):
    """A mosaic of a scene's own images, in the order of the shuffle, some patches at a time."""
    spec = DatasetSpec.load(out)
    image = spec.features["image"]
    options = {"bands": image.shape[-1], "dtype": image.dtype, **options}
    with Mosaic(out, scene_id, path, **options) as mosaic:
        for split in (k for k, s in spec.splits.items() if s.num_examples):
            reader = Reader(out, split)
            own = np.random.default_rng(0).permutation(reader.of_scene(scene_id))
            for part in np.array_split(own, 3):
                batch = reader.batch(part)
                mosaic.add(batch["row"], batch["col"], batch["image"])
    return path


def described(out, height, width, size=4, **scene):
    """A dataset of one scene without patches: all that a mosaic needs."""
    line = {"id": "s", "source": ["s.tif"], "height": height, "width": width, "crs": "",
            "transform": [1, 0, 0, 0, 1, 0], "patches": {}, **scene}  # fmt: skip
    (out / "scenes.jsonl").write_text(json.dumps(line) + "\n")
    image = {"shape": [size, size, 1], "dtype": "float32", "kind": "image", "encoding": "tensor"}
    (out / "dataset.json").write_text(
        json.dumps({"format": "scenefeed/1", "name": "d", "features": {"image": image},
                    "splits": {}, "config": {}, "inputs": "", "created_by": ""})
    )  # fmt: skip
    return out


@pytest.mark.parametrize("edge", ["pad", "shift", "drop"])
def test_a_flood_chip_comes_back_with_its_place(data, tmp_path, edge):
    source = data / "flood/S1Hand/Spain_7370579_S1Hand.tif"
    out = tmp_path / "out"
    scenefeed("convert", source, "--output", out, "--tile_size", 96, "--stride", 70,
              "--edge", edge, "--split_by", "patch", "--num_shards", 2)  # fmt: skip
    path = own_pixels(out, source.stem, tmp_path / "m.tif", names=["VV", "VH"])
    with rasterio.open(path) as found, rasterio.open(source) as src:
        assert (found.crs, found.transform, found.shape) == (src.crs, src.transform, src.shape)
        assert found.descriptions == ("VV", "VH")
        assert (found.compression.name, found.block_shapes) == ("deflate", [(512, 512)] * 2)
        pixels, whole = found.read(), np.nan_to_num(src.read())
    covered = 512 if edge != "drop" else (512 - 96) // 70 * 70 + 96
    assert np.array_equal(pixels[:, :covered, :covered], whole[:, :covered, :covered])
    assert np.isnan(pixels[:, covered:]).all()
    assert np.isnan(pixels[:, :, covered:]).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.tif", "out"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("landsat7/landsat_multiband.tif", "float32"),
        ("multispectral/rasterio/RGB.byte.tif", "uint8"),
    ],
)
def test_optical_scenes_come_back(data, tmp_path, name, dtype):
    source = data / name
    scenefeed("convert", source, "--output", tmp_path / "out", "--edge", "pad", "--stride", 48)
    path = own_pixels(tmp_path / "out", source.stem, tmp_path / "m.tif")
    with rasterio.open(path) as found, rasterio.open(source) as src:
        assert (found.crs, found.transform) == (src.crs, src.transform)
        assert np.array_equal(found.read(), np.where(src.read_masks() > 0, src.read(), 0))
        assert set(found.dtypes) == {dtype}


def test_a_warped_scene_lies_where_gdal_warps_it_to(data, tmp_path):
    source = data / "flood/S1Hand/India_900498_S1Hand.tif"
    (tmp_path / "c.yaml").write_text(
        f"scenes: {{paths: ['{source}']}}\n"
        "grid: {crs: 'EPSG:32646', resolution: 20, resampling: nearest}\n"
        "clean: {fill: nan}\ntile: {size: 64, stride: 50, edge: pad}\n"
    )
    scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    path = own_pixels(tmp_path / "out", source.stem, tmp_path / "m.tif")
    with rasterio.open(path) as found, rasterio.open(source) as src:
        assert found.crs.to_epsg() == 32646
        assert found.res == (20, 20)
        assert found.transform.c % 20 == found.transform.f % 20 == 0
        with WarpedVRT(
            src, crs=found.crs, transform=found.transform, width=found.width,
            height=found.height, resampling=Resampling.nearest, nodata=np.nan,
        ) as warped:  # fmt: skip
            expected = warped.read()
        pixels = found.read()
    assert np.isnan(pixels).any()  # the corners
    # Windows are warped apart, so that a pixel between two sources may fall to the other.
    assert np.mean((pixels == expected) | (np.isnan(pixels) & np.isnan(expected))) > 0.995


@pytest.mark.parametrize("turned", [Affine(8, 3, 5e5, 2, -9, 5e6), Affine(10, 0, 5e5, 0, 10, 5e6)])
def test_rotated_and_south_up_transforms_stay(tmp_path, turned):
    crs = rasterio.crs.CRS.from_epsg(32633).to_wkt()
    described(tmp_path, 10, 12, crs=crs, transform=list(turned)[:6])
    with Mosaic(tmp_path, "s", tmp_path / "m.tif") as mosaic:
        mosaic.add([0], [4], np.ones((1, 4, 4)))
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.transform == turned
        assert found.crs.to_epsg() == 32633


def test_control_points_stay_control_points(tmp_path):
    points = [(0, 0, 10, 50), (0, 12, 11, 50.1), (10, 0, 10.1, 49), (10, 12, 11.2, 49.2)]
    described(tmp_path, 10, 12, crs=rasterio.crs.CRS.from_epsg(4326).to_wkt(), gcps=points)
    with Mosaic(tmp_path, "s", tmp_path / "m.tif") as mosaic:
        mosaic.add([0], [4], np.ones((1, 4, 4)))
    with rasterio.open(tmp_path / "m.tif") as found:
        gcps, crs = found.gcps
    assert crs.to_epsg() == 4326
    assert [(p.row, p.col, p.x, p.y) for p in gcps] == points
    assert all(isinstance(p, GroundControlPoint) for p in gcps)


def by_hand(rows, cols, values, shape, size):
    """All predictions of each pixel, NaN where there are no more: (N, height, width)."""
    layers = np.full((len(rows), *shape), np.nan)
    for layer, row, col, value in zip(layers, rows, cols, values, strict=True):
        for i in range(size):
            for j in range(size):
                if 0 <= row + i < shape[0] and 0 <= col + j < shape[1]:
                    layer[row + i, col + j] = value[i, j]
    return layers


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:All-NaN")
@pytest.mark.parametrize(("mode", "reduce"), [("mean", np.nanmean), ("max", np.nanmax)])
def test_overlaps_are_averaged_or_the_greatest_is_taken(tmp_path, mode, reduce):
    rng = np.random.default_rng(1)
    described(tmp_path, 11, 13)
    rows, cols = rng.integers(-3, 11, 40), rng.integers(-3, 13, 40)
    values = rng.normal(size=(40, 4, 4)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan  # no prediction
    with Mosaic(tmp_path, "s", tmp_path / "m.tif", mode=mode) as mosaic:
        for part in np.array_split(np.arange(40), 7):
            mosaic.add(rows[part], cols[part], values[part])
    expected = reduce(by_hand(rows, cols, values, (11, 13), 4), axis=0)
    with rasterio.open(tmp_path / "m.tif") as found:
        np.testing.assert_allclose(found.read(1), expected, rtol=1e-5, atol=1e-6)


def test_bands_that_miss_values_of_their_own_are_averaged_by_themselves(tmp_path):
    described(tmp_path, 4, 4)
    one, two = np.full((1, 4, 4, 2), 1.0), np.full((1, 4, 4, 2), 3.0)
    one[..., 1] = np.nan
    with Mosaic(tmp_path, "s", tmp_path / "m.tif", bands=2) as mosaic:
        mosaic.add([0], [0], one)
        mosaic.add([0], [0], two)
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.read()[:, 0, 0].tolist() == [2, 3]


def test_classes_of_patches_fill_them_and_the_last_one_stays(tmp_path):
    described(tmp_path, 8, 10)
    with Mosaic(tmp_path, "s", tmp_path / "m.tif", dtype="uint8") as mosaic:
        mosaic.add([0, 2], [0, 2], [7, 3])
    expected = np.full((8, 10), 255)
    expected[:4, :4], expected[2:6, 2:6] = 7, 3
    with rasterio.open(tmp_path / "m.tif") as found:
        assert np.array_equal(found.read(1), expected)
        assert found.nodata == 255
        assert found.read_masks(1)[7, 9] == 0


def test_probabilities_of_patches_are_averaged_where_they_overlap(tmp_path):
    described(tmp_path, 4, 6)
    with Mosaic(tmp_path, "s", tmp_path / "m.tif", bands=2, nodata=-1) as mosaic:
        mosaic.add([0, 0], [0, 1], [[0.25, 0.75], [0.75, 0.25]])
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.read()[:, 0].tolist() == [
            [0.25, 0.5, 0.5, 0.5, 0.75, -1], [0.75, 0.5, 0.5, 0.5, 0.25, -1]
        ]  # fmt: skip


def test_a_prediction_that_breaks_off_leaves_the_older_map(tmp_path):
    described(tmp_path, 4, 4)
    (tmp_path / "m.tif").write_bytes(b"older")
    before = sorted(p.name for p in tmp_path.iterdir())

    def breaks_off():
        with Mosaic(tmp_path, "s", tmp_path / "m.tif") as mosaic:
            mosaic.add([0], [0], np.ones((1, 4, 4)))
            raise KeyError("model")

    with pytest.raises(KeyError, match="model"):
        breaks_off()
    assert (tmp_path / "m.tif").read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "uint8", "mode": "mean"}, "mean (of floats), last or max"),
        ({"dtype": "bool"}, "dtype bool: give float32"),
        ({"mode": "median"}, "mean (of floats), last or max"),
        ({"bands": 2, "names": ["a"]}, "1 names for 2 bands"),
        ({"dtype": "uint8", "nodata": -1}, "nodata -1 does not fit uint8"),
        ({"dtype": "uint8", "nodata": float("nan")}, "nodata nan does not fit uint8"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, options, words):
    described(tmp_path, 4, 4)
    with pytest.raises(ConfigError) as e:
        Mosaic(tmp_path, "s", tmp_path / "m.tif", **options)
    assert words in str(e.value)


def test_predictions_that_do_not_fit_are_refused(tmp_path):
    described(tmp_path, 8, 8)
    with pytest.raises(DatasetError, match="no scene 'S' among 1: there are s"):
        Mosaic(tmp_path, "S", tmp_path / "m.tif")
    with pytest.raises(JobError, match="cannot be written"), Mosaic(tmp_path, "s", "/none/m.tif"):
        pass
    with Mosaic(tmp_path, "s", tmp_path / "m.tif") as mosaic:
        with pytest.raises(ConfigError, match=r"shape \(2, 4, 3\) for 2 patches"):
            mosaic.add([0, 4], [0, 4], np.ones((2, 4, 3)))
        with pytest.raises(ConfigError, match="patch 0/8 is not on scene s"):
            mosaic.add([0, 0], [0, 8], np.ones(2))
        with pytest.raises(ConfigError, match=r"shape \(3, 4, 4\) for 2 patches"):
            mosaic.add([0, 4], [0, 4], np.ones((3, 4, 4)))


BIG = """
import resource, sys
import numpy as np
from scenefeed.transforms.mosaic import Mosaic
out, side = sys.argv[1], int(sys.argv[2])
starts = np.arange(0, side - 63, 64)
rows, cols = (a.ravel() for a in np.meshgrid(starts, starts, indexing="ij"))
order = np.random.default_rng(0).permutation(len(rows))
with Mosaic(out, "s", f"{out}/m.tif") as mosaic:
    for part in np.array_split(order, -(-len(order) // 256)):
        values = np.broadcast_to(rows[part, None, None] + cols[part, None, None], (len(part), 64, 64))
        mosaic.add(rows[part], cols[part], values.astype("float32"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(out, side):
    described(out, side, side, size=64)
    code = [sys.executable, "-c", BIG, str(out), str(side)]
    done = subprocess.run(code, capture_output=True, text=True, check=True, timeout=170)
    return int(done.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path):
    small, large = peak(tmp_path, 512), peak(tmp_path, 8192)  # 1 MiB and 256 MiB of float32
    assert large - small < 160 << 20
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.overviews(1)
        assert found.read(1, window=((64 * 70, 64 * 71), (64 * 9, 64 * 10))).tolist() == (
            np.full((64, 64), 64 * 79).tolist()
        )
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 >= large


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Two scenes of 40 x 50, patches of 16 that overlap, two splits."""
    folder = tmp_path_factory.mktemp("mosaic")
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        write_raster(folder / f"scenes/{name}.tif", rng.normal(size=(1, 40, 50)).astype("float32"))
    scenefeed("convert", folder / "scenes", "--output", folder / "out", "--tile_size", 16,
              "--stride", 12, "--edge", "shift", "--split_by", "patch")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def predictions(converted, tmp_path_factory):
    """The images' own pixels of both scenes, in the order of the records, as .npz; and those of
    scene a by row, then column, as .npy."""
    folder = tmp_path_factory.mktemp("predictions")
    out, parts = converted / "out", []
    for split in (k for k, s in DatasetSpec.load(out).splits.items() if s.num_examples):
        reader = Reader(out, split)
        parts.append(reader.batch(range(len(reader))))
    found = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    row, col, ids = found["row"], found["col"], found["scene_id"].astype(str)
    np.savez(folder / "all.npz", row=row, col=col, scene_id=ids, values=found["image"])
    own = ids == "a"
    order = np.lexsort((col[own], row[own]))
    np.save(folder / "a.npy", found["image"][own][order])
    np.savez(folder / "none.npz", row=row, col=col)
    np.savez(folder / "odd.npz", row=row, col=col[1:], values=found["image"])
    np.savez(folder / "text.npz", row=ids, col=col, values=found["image"])
    np.save(folder / "short.npy", found["image"][:3])
    np.save(folder / "text.npy", np.full(own.sum(), "water"))
    np.save(folder / "objects.npy", np.array([{}, {}], object), allow_pickle=True)
    np.save(folder / "ids.npy", np.arange(own.sum()))
    return folder


@pytest.mark.parametrize("name", ["all.npz", "a.npy"])
def test_the_command_writes_the_scene_again(converted, predictions, tmp_path, name):
    done = scenefeed("mosaic", converted / "out", "a", predictions / name,
                     "--output", tmp_path / "m.tif", "--json", tmp_path / "m.json")  # fmt: skip
    assert "40 x 50 x 1 float32, mean where they overlap" in done.stdout
    figures = json.loads((tmp_path / "m.json").read_text())
    assert (figures["patches"], figures["nodata"]) == (12, None)
    with rasterio.open(tmp_path / "m.tif") as m, rasterio.open(converted / "scenes/a.tif") as src:
        assert np.array_equal(m.read(), src.read())
        assert (m.crs, m.transform) == (src.crs, src.transform)


def test_the_command_takes_ids_and_chooses_their_dtype(converted, predictions, tmp_path):
    scenefeed("mosaic", converted / "out", "a", predictions / "ids.npy",
              "--output", tmp_path / "m.tif", "--nodata", "-1")  # fmt: skip
    with rasterio.open(tmp_path / "m.tif") as found:
        assert (found.dtypes, found.nodata) == (("int16",), -1)
        assert found.read(1)[0, 0] == 0
        assert found.read(1)[-1, -1] == 11


@pytest.mark.parametrize(
    ("scene", "name", "code", "words"),
    [
        ("aa", "a.npy", 1, "no scene 'aa' among 2: did you mean a?"),
        ("b", "none.npz", 2, "none.npz: has no values"),
        ("b", "text.npz", 2, "row and col are whole numbers"),
        ("b", "odd.npz", 2, "give as many of each"),
        (
            "a",
            "short.npy",
            2,
            "predictions of shape (3, 16, 16, 1), but the dataset has 12 records",
        ),
        ("a", "text.npy", 2, "give integers or floats"),
        ("a", "objects.npy", 2, "is no NumPy file of plain arrays"),
        ("a", "gone.npy", 2, "gone.npy: no such file"),
    ],
)
def test_what_is_no_prediction_is_one_line(
    converted, predictions, tmp_path, scene, name, code, words
):
    done = scenefeed("mosaic", converted / "out", scene, predictions / name,
                     "--output", tmp_path / "m.tif", code=code)  # fmt: skip
    (line,) = errors(done)
    assert words in line
    assert not list(tmp_path.iterdir())

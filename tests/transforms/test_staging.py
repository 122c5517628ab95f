"""Headers and staging: what is staged against what rasterio reads."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio

from scenefeed.loader.stage import patch_offsets
from scenefeed.transforms import gathering, staging
from scenefeed.transforms.assign import Ordered, Pointers
from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import JobError
from scenefeed.transforms.gathering import gather
from scenefeed.transforms.planning import features, plan_scene
from scenefeed.transforms.scenes import Asset, SceneFiles
from scenefeed.transforms.speckle import lee
from scenefeed.transforms.stagefile import read_columns, read_contents
from scenefeed.transforms.stagewriter import StageWriter, writing
from scenefeed.transforms.staging import StagedScene
from tests.conftest import write_raster
from tests.transforms.stages import column, mosaic, stage

RNG = np.random.default_rng(0)


def expected_patches(path, size, fill=0.0, step=None):
    """Every whole patch by rasterio alone: pixels with each band's bad values filled, and the
    share of pixels that are valid in every band."""
    with rasterio.open(path) as src:
        pixels, masks = src.read(), src.read_masks() > 0
        if np.issubdtype(pixels.dtype, np.floating):
            masks &= np.isfinite(pixels)
        pixels = np.where(masks, pixels, np.array(fill, pixels.dtype))
        valid = masks.all(axis=0)
    for r in range(0, pixels.shape[1] - size + 1, step or size):
        for c in range(0, pixels.shape[2] - size + 1, step or size):
            area = (slice(r, r + size), slice(c, c + size))
            yield (r, c), np.moveaxis(pixels[:, *area], 0, -1), valid[area].mean()


def check_against_rasterio(stage_path, source, size, **kw):
    with h5py.File(stage_path) as file:
        keys = list(zip(file["row"][:].tolist(), file["col"][:].tolist(), strict=True))
        images, valid = file["image"][:], file["valid"][:]
        attributes = dict(file.attrs)
    expected = {key: (image, share) for key, image, share in expected_patches(source, size, **kw)}
    assert sorted(keys) == sorted(expected)
    for key, image, share in zip(keys, images, valid, strict=True):
        assert np.array_equal(image, expected[key][0]), key
        assert share == pytest.approx(expected[key][1], abs=1e-6)
    return attributes


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64},
                                    {"interleave": "band", "compress": "deflate"}])  # fmt: skip
def test_every_patch_is_what_rasterio_reads(tmp_path, dtype, layout):
    pixels = (RNG.random((3, 150, 210)) * 100).astype(dtype)
    source = write_raster(tmp_path / "s.tif", pixels, names=("R", "G", "B"), **layout)
    (staged,), dead = stage(tmp_path, tile={"size": 32, "stride": 24})
    assert not dead
    attributes = check_against_rasterio(staged.path, source, 32, step=24)
    with h5py.File(staged.path) as file:
        assert file["image"].dtype == dtype
        assert file["row"].dtype == file["col"].dtype == np.int32
    assert attributes["scene_id"] == "s"
    assert list(attributes["bands"]) == ["R", "G", "B"]
    with rasterio.open(source) as src:
        assert rasterio.crs.CRS.from_wkt(attributes["crs"]) == src.crs
        assert attributes["transform"].tolist() == list(src.transform)[:6]


def test_nodata_nan_and_masks(tmp_path):
    values = RNG.integers(1, 200, (2, 64, 64)).astype("int16")
    values[0, :10] = values[1, 5:20, :7] = -1
    write_raster(tmp_path / "nodata.tif", values, nodata=-1)
    floats = RNG.random((2, 64, 64)).astype("float32")
    floats[0, :10], floats[1, 20, 20], floats[0, 40, 3] = np.nan, np.inf, -np.inf
    write_raster(tmp_path / "nan.tif", floats, nodata=np.nan)
    write_raster(tmp_path / "nothing_said.tif", floats)
    numbers = floats.copy()
    numbers[np.isnan(numbers)] = -9999
    write_raster(tmp_path / "number.tif", numbers, nodata=-9999)
    for name in ("nodata", "nan", "nothing_said", "number"):
        (tmp_path / "stage").mkdir(exist_ok=True)
        (staged,), _ = stage(tmp_path, f"{name}.tif", tile={"size": 16}, clean={"fill": -5})
        check_against_rasterio(staged.path, tmp_path / f"{name}.tif", 16, fill=-5)


def test_a_mask_band_and_alpha(tmp_path):
    pixels = RNG.integers(1, 255, (3, 32, 32), np.uint8)
    path = write_raster(tmp_path / "m.tif", pixels)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as src:
        src.write_mask(RNG.random((32, 32)) > 0.3)
    (staged,), _ = stage(tmp_path, tile={"size": 16}, clean={"fill": 9})
    check_against_rasterio(staged.path, path, 16, fill=9)


def test_nodata_by_value_and_none(tmp_path):
    write_raster(tmp_path / "s.tif", np.array([[[0, 1], [2, 2]]], "int16"), nodata=0)
    (by_value,), _ = stage(tmp_path, tile={"size": 2}, clean={"nodata": 2, "fill": 7})
    with h5py.File(by_value.path) as file:
        assert file["image"][0, ..., 0].tolist() == [[0, 1], [7, 7]]
        assert file["valid"][0] == 0.5
    (none,), _ = stage(tmp_path, tile={"size": 2}, clean={"nodata": "none", "fill": 7})
    with h5py.File(none.path) as file:
        assert file["image"][0, ..., 0].tolist() == [[0, 1], [2, 2]]
        assert file["valid"][0] == 1


def test_min_valid_keeps_what_reaches_it(tmp_path):
    pixels = np.ones((1, 16, 64), "float32")
    for i in range(4):  # patches with 0, 1/4, 2/4 and 3/4 invalid
        pixels[0, : i * 4, i * 16 : (i + 1) * 16] = np.nan
    write_raster(tmp_path / "s.tif", pixels)
    (staged,), _ = stage(tmp_path, tile={"size": 16}, clean={"min_valid": 0.5})
    with h5py.File(staged.path) as file:
        assert file["col"][:].tolist() == [0, 16, 32]
        assert file["valid"][:].tolist() == [1, 0.75, 0.5]
    assert (staged.staged, staged.grid_count) == (3, 4)


def test_pad_and_shift_at_the_edge(tmp_path):
    pixels = RNG.integers(1, 99, (1, 20, 20), np.uint8)
    write_raster(tmp_path / "s.tif", pixels)
    write_raster(tmp_path / "l/s.tif", pixels[:, ::-1])
    labels = {"y": {"path": str(tmp_path / "l/{id}.tif"), "ignore": [255]}}
    tile, clean = {"size": 16, "edge": "pad"}, {"fill": 200}
    (padded,), _ = stage(tmp_path, tile=tile, clean=clean, labels=labels)
    whole = np.full((32, 32), 200, np.uint8)
    whole[:20, :20] = pixels[0]
    mask = np.full((32, 32), 255, np.uint8)
    mask[:20, :20] = pixels[0, ::-1]
    with h5py.File(padded.path) as file:
        for image, label, r, c, valid in zip(
            *(file[k][:] for k in ("image", "y", "row", "col", "valid")), strict=True
        ):
            area = (slice(r, r + 16), slice(c, c + 16))
            assert np.array_equal(image[..., 0], whole[area])
            assert np.array_equal(label, mask[area])
            assert valid == pytest.approx((whole[area] != 200).mean())
    (shifted,), _ = stage(tmp_path, tile={"size": 16, "edge": "shift"})
    with h5py.File(shifted.path) as file:
        keys = sorted(zip(file["row"][:].tolist(), file["col"][:].tolist(), strict=True))
        assert keys == [(0, 0), (0, 4), (4, 0), (4, 4)]
        assert (file["valid"][:] == 1).all()


def test_bands_in_files_of_their_own_make_one_image(tmp_path):
    a, b = RNG.integers(0, 255, (1, 64, 64), np.uint8), RNG.integers(-9, 9, (1, 64, 64), np.int16)
    write_raster(tmp_path / "x_a.tif", a)
    write_raster(tmp_path / "x_b.tif", b)
    bands = {"A": "*_a.tif", "B": "*_b.tif"}
    (staged,), _ = stage(tmp_path, scenes={"bands": bands})
    with h5py.File(staged.path) as file:
        assert file["image"].dtype == np.int16
        assert np.array_equal(file["image"][0], np.stack([a[0], b[0]], axis=-1))
        assert list(file.attrs["bands"]) == ["A", "B"]


def test_scenes_of_two_dtypes_share_the_larger(tmp_path):
    write_raster(tmp_path / "a.tif", np.full((1, 64, 64), 200, np.uint8))
    write_raster(tmp_path / "b.tif", np.full((1, 64, 64), -300, np.int16))
    staged, _ = stage(tmp_path)
    for scene, value in zip(staged, (200, -300), strict=True):
        with h5py.File(scene.path) as file:
            assert file["image"].dtype == np.int16
            assert (file["image"][:] == value).all()


def test_scenes_whose_bands_differ_from_most_are_dead_letters(tmp_path):
    for name, bands in (("a", 3), ("b", 1), ("c", 1)):
        write_raster(tmp_path / f"{name}.tif", np.ones((bands, 64, 64), np.uint8))
    staged, (dead,) = stage(tmp_path)
    assert [s.id for s in staged] == ["b", "c"]
    assert dead.scene == "a"
    assert "b1, b2, b3" in dead.reason


def one_dead(folder, words, step, **config):
    staged, (dead,) = stage(folder, **config)
    assert not staged
    assert dead.step == step
    assert words in dead.reason
    assert "\n" not in dead.to_json()
    assert not list((folder / "stage").iterdir())
    return dead


def test_a_file_that_opens_and_fails_halfway_leaves_nothing(tmp_path):
    pixels = RNG.integers(0, 255, (1, 256, 256), np.uint8)
    path = write_raster(tmp_path / "s.tif", pixels, compress="deflate", tiled=True,
                        blockxsize=64, blockysize=64)  # fmt: skip
    content = bytearray(path.read_bytes())
    content[-3000:] = bytes(3000)
    path.write_bytes(content)
    with rasterio.open(path) as src:
        assert src.read(window=((0, 64), (0, 64))).size
    dead = one_dead(tmp_path, "opens, but cannot be read", "read")
    assert dead.file == str(path)
    assert dead.window is not None


def test_empty_and_foreign_files(tmp_path):
    (tmp_path / "s.tif").write_bytes(b"")
    one_dead(tmp_path, "empty (0 bytes)", "plan")
    (tmp_path / "s.tif").write_text("not a raster")
    one_dead(tmp_path, "cannot be opened", "plan")


def test_a_tile_larger_than_the_scene(tmp_path):
    write_raster(tmp_path / "s.tif", np.ones((1, 32, 32), np.uint8))
    one_dead(tmp_path, "a tile of 64 is larger than the scene (32 x 32)", "plan")


def test_bands_off_each_others_grid_or_not_single(tmp_path):
    bands = {"A": "*_a.tif", "B": "*_b.tif"}
    write_raster(tmp_path / "x_a.tif", np.ones((1, 64, 64), np.uint8))
    write_raster(tmp_path / "x_b.tif", np.ones((1, 64, 64), np.uint8), origin=(600000, 5e6))
    one_dead(tmp_path, "band B does not overlap band A", "plan", scenes={"bands": bands})
    write_raster(tmp_path / "x_b.tif", np.ones((1, 64, 64), np.uint8))
    write_raster(tmp_path / "x_a.tif", np.ones((3, 64, 64), np.uint8))
    one_dead(tmp_path, "band A has 3 bands", "plan", scenes={"bands": bands})
    (tmp_path / "x_b.tif").unlink()
    one_dead(tmp_path, "has no file for band B", "plan", scenes={"bands": bands})


def test_padding_with_an_ignore_value_that_the_label_cannot_hold(tmp_path):
    write_raster(tmp_path / "s.tif", np.ones((1, 40, 40), np.uint8))
    write_raster(tmp_path / "l/s.tif", np.ones((1, 40, 40), np.uint8))
    labels = {"y": {"path": str(tmp_path / "l/{id}.tif"), "ignore": [-1]}}
    (staged,), _ = stage(tmp_path, tile={"size": 32, "edge": "pad"}, labels=labels)
    with h5py.File(staged.path) as file:
        assert set(np.unique(file["y"][:])) == {0, 1}


def test_many_stage_files_with_few_open(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_OPEN", 3)
    for i in range(8):
        writer = StageWriter(tmp_path / f"{i}.h5", {"image": ((2,), "uint8")}, 2)
        writer.space(2)["image"][:] = [[i, 0], [i, 1]]
        writer.commit(np.arange(2), np.arange(2), np.ones(2), np.ones(2, bool))
        writer.finish({})
    key, offsets = np.arange(2), [patches(tmp_path / f"{i}.h5")["image"] for i in range(8)]
    groups = [
        Pointers(str(i), str(tmp_path / f"{i}.h5"), key, key, key, {"image": offsets[i]})
        for i in range(8)
    ]
    before = len(os.listdir("/proc/self/fd"))
    shard = Ordered(groups)
    with gather(shard, {"image": 2}) as read:
        for i in RNG.integers(0, 16, 50).tolist():
            # By their places, of which each scene has 0 and 1.
            assert read(slice(i, i + 1)) == {"image": [bytes([i % 8, i // 8])]}
            assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert len(os.listdir("/proc/self/fd")) == before


def patches(path):
    """Where a stage file's tensors lie."""
    with h5py.File(path) as file:
        return {k: patch_offsets(v) for k, v in file.items() if v.ndim > 1}


def test_gdals_cache_stays_small_for_good(tmp_path):
    from rasterio._env import get_gdal_config

    from scenefeed.transforms.rasters import GDAL_CACHE_BYTES, gdal_environment

    for _ in range(2):
        with gdal_environment():
            assert int(get_gdal_config("GDAL_CACHEMAX")) == GDAL_CACHE_BYTES == 64 << 20
    with rasterio.Env():
        assert int(get_gdal_config("GDAL_CACHEMAX")) == GDAL_CACHE_BYTES


def test_a_surprise_in_one_scene_is_its_dead_letter(tmp_path, monkeypatch):
    import scenefeed.transforms.planning as planning

    def surprise(*_):
        raise ZeroDivisionError("of all things")

    write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    monkeypatch.setattr(planning, "read_header", surprise)
    one_dead(tmp_path, "ZeroDivisionError: of all things", "plan")


def test_fill_and_bands_that_do_not_fit(tmp_path):
    write_raster(tmp_path / "s.tif", np.ones((2, 64, 64), np.uint8))
    one_dead(tmp_path, "fill -1 does not fit its dtype uint8", "plan", clean={"fill": -1})
    one_dead(tmp_path, "clean.fill gives 3 values", "plan", clean={"fill": [1, 2, 3]})
    one_dead(tmp_path, "has 2 bands, but scenes.bands names 3", "plan",
             scenes={"bands": ["A", "B", "C"]})  # fmt: skip


def test_bands_chosen_by_their_description(tmp_path):
    pixels = RNG.integers(0, 255, (3, 64, 64), np.uint8)
    write_raster(tmp_path / "s.tif", pixels, names=("R", "G", "B"))
    (staged,), _ = stage(tmp_path, scenes={"bands": ["B", "R"]})
    with h5py.File(staged.path) as file:
        assert np.array_equal(file["image"][0], np.moveaxis(pixels[[2, 0]], 0, -1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"origin": (600000, 5000000)}, "the label does not overlap the scene"),
        ({"crs": "EPSG:32634"}, "the label does not overlap the scene"),
        ({"crs": None, "shape": (1, 32, 32)}, "without a georeference of both"),
        ({"shape": (2, 64, 64)}, "has 2 bands"),
        (None, "no such file"),
    ],
)
def test_a_label_that_cannot_be_had(tmp_path, change, words):
    write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    if change is not None:
        pixels = np.ones(change.pop("shape", (1, 64, 64)), np.uint8)
        write_raster(tmp_path / "l/s.tif", pixels, **change)
    labels = {"y": {"path": str(tmp_path / "l/{id}.tif")}}
    dead = one_dead(tmp_path, words, "label", labels=labels)
    assert dead.file.endswith("l/s.tif")


def test_last_digits_of_a_grid_do_not_count(tmp_path):
    write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    write_raster(tmp_path / "l/s.tif", np.ones((1, 64, 64), np.uint8), origin=(500000.01, 5e6))
    staged, dead = stage(tmp_path, labels={"y": {"path": str(tmp_path / "l/{id}.tif")}})
    assert not dead
    assert staged


def test_staging_again_reuses_what_is_whole_and_matches(tmp_path):
    path = write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    (first,), _ = stage(tmp_path)
    (second,), _ = stage(tmp_path)
    assert (first.reused, second.reused) == (False, True)
    assert first.counts == second.counts
    (third,), _ = stage(tmp_path, clean={"fill": 3})
    assert not third.reused
    write_raster(path, np.full((1, 64, 64), 2, np.uint8))
    (fourth,), _ = stage(tmp_path, clean={"fill": 3})
    assert not fourth.reused


def test_a_staged_scene_goes_through_its_line(tmp_path):
    write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    (staged,), _ = stage(tmp_path)
    line = staged.to_json(str(tmp_path))
    assert json.loads(line)["stage"] == "stage/s.h5"
    again = StagedScene.from_json(line, "/moved")
    assert again.path == "/moved/stage/s.h5"
    assert (again.id, again.header, again.counts) == (staged.id, staged.header, staged.counts)


def test_stage_files_are_of_the_earliest_format(tmp_path):
    """That of HDF5 2's own choice tells in its root when a file was made."""
    with writing(tmp_path / "s.h5", {"image": ((2,), "uint8")}, 2) as writer:
        assert writer._file.get_access_plist().get_libver_bounds() == (
            h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST,
        )  # fmt: skip
        writer.finish({})
    content = (tmp_path / "s.h5").read_bytes()
    assert content[:9] == b"\x89HDF\r\n\x1a\n\x00"  # a superblock of version 0


def test_stage_file_reads_by_index_what_h5py_reads(tmp_path):
    columns = {"image": ((9, 9, 2), "float32"), "y": ((9, 9), "uint8")}
    writer = StageWriter(tmp_path / "s.h5", columns, 5000)
    kept = []
    for count in (1, 700, 1500, 3, 900):
        space = writer.space(count)
        space["image"][:] = RNG.random((count, 9, 9, 2))
        space["y"][:] = RNG.integers(0, 9, (count, 9, 9))
        keep = RNG.random(count) > 0.4
        kept.append((space["image"][keep].copy(), space["y"][keep].copy()))
        key = np.arange(count)
        writer.commit(key, key, np.ones(count), keep)
    writer.finish({})
    images, masks = (np.concatenate(x) for x in zip(*kept, strict=True))
    with h5py.File(tmp_path / "s.h5") as file:
        assert np.array_equal(file["image"][:], images)
        assert np.array_equal(file["y"][:], masks)
    path, key = str(tmp_path / "s.h5"), np.arange(len(images))
    group = Pointers("s", path, key, key, key, patches(path))
    with gather(Ordered([group]), {"image": 9 * 9 * 8, "y": 81}) as read:
        for i in (0, 1, 57, 1000, len(images) - 1):
            found = read(slice(i, i + 2))
            assert found["image"] == [image.tobytes() for image in images[i : i + 2]]
            assert found["y"] == [mask.tobytes() for mask in masks[i : i + 2]]
    assert len(read_columns(path, ["row"])["row"]) == len(images)


def test_a_small_scene_carries_what_its_file_holds(tmp_path, monkeypatch):
    pixels = RNG.random((2, 100, 130)).astype("float32")
    pixels[:, 40:60, 50:90] = np.nan
    write_raster(tmp_path / "s.tif", pixels)
    write_raster(tmp_path / "l/s.tif", (RNG.random((1, 100, 130)) > 0.5).astype("uint8"))
    (tmp_path / "s.csv").write_text("path,site,level\ns.tif,Ås,-2.5\n")
    sections = {
        "pattern": "s.csv", "tile": {"size": 16}, "scalars": ["site", "level"],
        "labels": {"mask": {"path": str(tmp_path / "l/{id}.tif")}}, "clean": {"min_valid": 0.5},
    }  # fmt: skip
    (staged,), dead = stage(tmp_path, **sections)
    assert not dead
    held = read_contents(staged.path, features(staged.header, parse({"tile": {"size": 16}}, "")))
    assert 0 < len(held.rows) < staged.grid_count
    assert set(held.offsets) == {"image", "mask"}
    assert held.texts == {"site": "Ås"}
    assert set(held.values["level"]) == {-2.5}
    for kind in ("offsets", "values"):
        found, expected = getattr(staged.contents, kind), getattr(held, kind)
        assert found.keys() == expected.keys()
        for k in expected:
            assert np.array_equal(found[k], expected[k])
            assert found[k].dtype == expected[k].dtype
    assert np.array_equal(staged.contents.rows, held.rows)
    assert np.array_equal(staged.contents.cols, held.cols)
    assert staged.contents.texts == held.texts
    monkeypatch.setattr(staging, "MOST_CARRIED", len(held.rows) - 1)
    Path(staged.path).unlink()
    (large,), _ = stage(tmp_path, **sections)
    assert large.contents is None


def test_a_stage_file_that_is_none_says_what_to_do(tmp_path):
    (tmp_path / "s.h5").write_bytes(b"nothing")
    with pytest.raises(JobError, match="remove it and convert again"):
        read_contents(str(tmp_path / "s.h5"), {})
    key = np.zeros(1, int)
    for name, words in (("s.h5", "cut off"), ("none.h5", "is gone")):
        group = Pointers("s", str(tmp_path / name), key, key, key, {"image": key})
        with pytest.raises(JobError, match=words), gather(Ordered([group]), {"image": 81}) as read:
            read(slice(0, 1))
    with pytest.raises(JobError, match="remove it and convert again"):
        read_columns(str(tmp_path / "none.h5"), ["row"])


def test_features_describe_the_records(tmp_path):
    write_raster(tmp_path / "s.tif", np.ones((2, 64, 64), np.uint8), names=("VV", "VH"))
    write_raster(tmp_path / "l/s.tif", np.ones((1, 64, 64), np.int16))
    config = parse({"labels": {"y": {"path": "{id}", "ignore": [-1]}}, "tile": {"size": 8}}, "t")
    scene = SceneFiles("s", (Asset(str(tmp_path / "s.tif")),), (), {"y": str(tmp_path / "l/s.tif")})
    planned = plan_scene(scene, config)
    found = features(planned.header, config)
    assert found["image"].to_json() == {
        "shape": [8, 8, 2], "dtype": "uint8", "kind": "image", "encoding": "tensor",
        "bands": ["VV", "VH"],
    }  # fmt: skip
    assert found["y"].ignore == (-1,)
    assert list(found) == ["image", "y", "scene_id", "row", "col"]


def test_filters_leave_no_seam_between_windows(tmp_path, monkeypatch):
    """Filtered in many small windows or in one: the same pixels, and those of the whole image."""
    power = RNG.gamma(4, 0.05, (2, 300, 420)).astype(np.float32)
    power[:, 40:60, 100:130] = np.nan
    write_raster(tmp_path / "s.tif", power, tiled=True, blockxsize=64, blockysize=64)
    clean = {"speckle": {"size": 9, "looks": 4}, "to_db": True, "features": {"ratio": "b1 - b2"}}
    (whole,), _ = stage(tmp_path, clean=clean, tile={"size": 30})
    monkeypatch.setattr(staging, "WINDOW_BYTES", 60_000)
    (tmp_path / "parts").mkdir()
    (parts,), _ = stage(tmp_path, clean=clean, tile={"size": 30}, out=tmp_path / "parts")
    found = mosaic(whole.path)
    assert np.array_equal(found, mosaic(parts.path))
    bad = np.isnan(power[0])
    filtered = [10 * np.log10(lee(np.nan_to_num(band), bad, 9, 4)) for band in power]
    expected = np.stack([*filtered, filtered[0] - filtered[1]], axis=-1)
    expected[bad] = 0
    assert np.allclose(found, expected, atol=1e-4)


def test_invalid_pixels_take_their_bands_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "WINDOW_BYTES", 4096)
    pixels = RNG.normal(100, 10, (2, 64, 96)).astype(np.float32)
    pixels[0, :20] = np.nan
    write_raster(tmp_path / "s.tif", pixels)
    write_raster(tmp_path / "t.tif", np.full((2, 64, 96), np.nan, np.float32))
    pixels[:, 60:] = 1000  # beyond the last whole patch of 30, and in the mean
    write_raster(tmp_path / "u.tif", pixels)
    staged, _ = stage(tmp_path, clean={"fill": "mean"}, tile={"size": 30, "stride": 10})
    fill = column(staged[2].path, "image")[0, 0, 0, 0]
    assert np.allclose(fill, np.nanmean(pixels[0].astype(np.float64)))
    (tmp_path / "u.tif").unlink()
    pixels[:, 60:] = RNG.normal(100, 10, (2, 4, 96))
    write_raster(tmp_path / "s.tif", pixels)
    staged, _ = stage(tmp_path, clean={"fill": "mean"}, tile={"size": 32})
    found = mosaic(staged[0].path)
    assert np.allclose(found[:20, :, 0], np.nanmean(pixels[0].astype(np.float64)))
    assert np.array_equal(found[..., 1], pixels[1])
    assert (mosaic(staged[1].path) == 0).all()  # no pixel to take a mean of


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_values_packed_into_integers_come_back(tmp_path, dtype):
    pixels = RNG.uniform(-35, 10, (1, 64, 64)).astype(np.float32)
    write_raster(tmp_path / "s.tif", pixels)
    (staged,), _ = stage(tmp_path, clean={"dtype": dtype, "range": [-30, 5]})
    stored = mosaic(staged.path)[..., 0]
    config = parse({"clean": {"dtype": dtype, "range": [-30, 5]}}, "t")
    factor, offset = features(staged.header, config)["image"].scale
    step = 35 / (np.iinfo(dtype).max - np.iinfo(dtype).min)
    assert stored.dtype == dtype
    assert np.abs(stored * factor + offset - np.clip(pixels[0], -30, 5)).max() <= step * 0.51
    assert staged.tallies["saturated"] == (np.abs(pixels + 12.5) > 17.5 + step / 2).sum()


def test_patches_round_places_whatever_the_edge(tmp_path):
    pixels = RNG.normal(size=(1, 100, 100)).astype(np.float32)
    write_raster(tmp_path / "s.tif", pixels, crs=None, origin=(0, 100), resolution=1)
    (tmp_path / "p.csv").write_text("x,y,v\n50.5,49.5,1\n2.5,97.5,2\n50.5,49.5,3\n500,500,9\n")
    label = {"kind": "points", "path": str(tmp_path / "p.csv"), "x": "x", "y": "y", "value": "v",
             "crs": "pixel", "center": True}  # fmt: skip
    for edge, expected in {"drop": [(41, 42)], "pad": [(41, 42), (89, -6)]}.items():
        (staged,), dead = stage(tmp_path, labels={"y": label}, tile={"size": 16, "edge": edge})
        assert not dead
        corners = list(zip(column(staged.path, "row"), column(staged.path, "col"), strict=True))
        assert sorted(corners) == expected
        first = column(staged.path, "image")[0, ..., 0]
        assert np.array_equal(first, pixels[0, corners[0][0] : corners[0][0] + 16, 42:58])
        assert column(staged.path, "y").tolist() == [2, 2][: len(expected)]
        assert column(staged.path, "y_count")[0] == 2

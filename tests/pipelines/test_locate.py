"""locate: from a record back to the map, and to where the record lies."""

import json

import numpy as np
import pytest
import rasterio
from rasterio import warp

from scenefeed.loader import DatasetError, DatasetSpec, Reader
from scenefeed.pipelines.locate import geojson, lines, locate
from scenefeed.transforms.errors import ConfigError
from scenefeed.transforms.georeference import Georeference
from scenefeed.transforms.locating import (
    Key,
    Scene,
    find_record,
    read_record,
    read_scenes,
    record_key,
    scene_keys,
)
from tests.conftest import errors, write_raster
from tests.conftest import in_process as scenefeed


def records(out):
    spec = DatasetSpec.load(out)
    for split in (k for k, s in spec.splits.items() if s.num_examples):
        reader = Reader(out, split)
        for i in range(len(reader)):
            yield split, i, reader[i]


@pytest.mark.parametrize("compressed", [False, True])
def test_every_record_is_found_by_its_key(small_dataset, gzipped_dataset, compressed):
    plain, out = small_dataset / "out", gzipped_dataset if compressed else small_dataset / "out"
    spec, scenes, seen = DatasetSpec.load(out), read_scenes(out), set()
    for split, i, record in records(plain):
        found = find_record(out, spec, scenes, record_key(record))
        assert (found.split, found.index) == (split, i)
        shard = next(s for s in spec.splits[split].shards if s.path == found.shard)
        assert 0 <= found.position < shard.num_examples
        seen.add((found.shard, found.position))
        again = read_record(out, spec, split, i)
        assert record_key(again) == record_key(record)
        assert np.array_equal(again["image"], record["image"])
    assert len(seen) == 32
    assert find_record(out, spec, scenes, Key("a", 0, 1)) is None


@pytest.mark.parametrize("compressed", [False, True])
def test_a_scenes_keys_are_those_of_its_grid(small_dataset, gzipped_dataset, compressed):
    out = gzipped_dataset if compressed else small_dataset / "out"
    rows, cols = scene_keys(out, DatasetSpec.load(out), "b")
    assert rows.tolist() == np.repeat([0, 16, 32, 48], 4).tolist()
    assert cols.tolist() == [0, 16, 32, 48] * 4
    assert not len(scene_keys(out, DatasetSpec.load(out), "c")[0])


def test_a_reader_knows_a_scenes_records(small_dataset):
    reader = Reader(small_dataset / "out", "train")
    own = reader.of_scene("a")
    found = reader.batch(own)
    assert set(found["scene_id"]) == {"a"}
    places = list(zip(found["row"].tolist(), found["col"].tolist(), strict=True))
    assert places == sorted(places)
    assert len(own) + len(reader.of_scene("b")) == len(reader)


@pytest.mark.slow
def test_records_of_scenes_in_groups_are_found(tmp_path):
    """Past 128 scenes, scenes are spread over shards of their own."""
    rng = np.random.default_rng(0)
    for i in range(150):
        write_raster(tmp_path / f"scenes/s{i}.tif", rng.normal(size=(1, 8, 8)).astype("float32"))
    out = tmp_path / "out"
    scenefeed("convert", tmp_path / "scenes", "--output", out, "--tile_size", 4, "--split_by",
              "patch", "--num_shards", 7)  # fmt: skip
    spec, scenes = DatasetSpec.load(out), read_scenes(out)
    for split, i, record in records(out):
        found = find_record(out, spec, scenes, record_key(record))
        assert (found.split, found.index) == (split, i)


def test_map_coordinates_are_rasterios(data, tmp_path):
    source = data / "landsat7/landsat_multiband.tif"
    out = tmp_path / "out"
    scenefeed("convert", source, "--output", out, "--tile_size", 100, "--edge", "pad")
    ends = []
    with rasterio.open(source) as src:
        for _, _, record in records(out):
            found = locate(out, record_key(record))
            row, col = int(record["row"]), int(record["col"])
            around = [(col, row), (col + 100, row), (col + 100, row + 100), (col, row + 100)]
            xy = np.array([src.transform @ p for p in around])
            np.testing.assert_allclose(found["corners"], xy, rtol=1e-12)
            np.testing.assert_allclose(found["corner"], xy[0], rtol=1e-12)
            np.testing.assert_allclose(found["centre"], xy.mean(axis=0), rtol=1e-12)
            lonlat = np.transpose(warp.transform(src.crs, "EPSG:4326", *xy.T))
            np.testing.assert_allclose(found["lonlat"], lonlat, atol=1e-9)
            top, left, height, width = found["window"]
            area = (top, top + height), (left, left + width)
            pixels = np.where(src.read_masks(window=area) > 0, src.read(window=area), 0)
            image = np.moveaxis(record["image"], -1, 0)
            assert np.array_equal(image[:, :height, :width], pixels)
            assert (found["pixel_size"], found["crs"]) == ([28.5, 28.5], "EPSG:32119")
            ends.append((top + height, left + width))
    assert max(ends) == src.shape


def test_control_points_place_a_patch_near_their_own(data, tmp_path):
    source = data / "sar/complex/slc.tif"
    (tmp_path / "c.yaml").write_text(
        f"scenes: {{paths: ['{source}']}}\nclean: {{complex: amplitude}}\n"
        "tile: {size: 32, edge: pad}\n"
    )
    scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    with rasterio.open(source) as src:
        points, _ = src.gcps
        middle = next(p for p in points if 200 < p.row < 400 and 300 < p.col < 700)
    key = Key("slc", int(middle.row) // 32 * 32, int(middle.col) // 32 * 32)
    found = locate(tmp_path / "out", key)
    (west, south), (east, north) = np.min(found["lonlat"], axis=0), np.max(found["lonlat"], axis=0)
    assert west - 1e-3 < middle.x < east + 1e-3
    assert south - 1e-3 < middle.y < north + 1e-3
    assert any("ground control points" in note for note in found["assumed"])


ODD = '<b>a #1\'s "é" %s-.x'


@pytest.mark.slow
def test_keys_of_odd_scenes_and_no_crs_are_said_in_words(tmp_path):
    write_raster(tmp_path / f"{ODD}.tif", np.ones((1, 8, 8), np.uint8), crs=None)
    out = tmp_path / "out"
    scenefeed("convert", tmp_path / f"{ODD}.tif", "--output", out, "--tile_size", 4)
    done = scenefeed("locate", out, f"{ODD}/4/0", "--json", tmp_path / "x.json")
    assert done.stdout.splitlines()[0] == f"{ODD}/4/0"
    assert "lon, lat none: the scene has no CRS" in done.stdout
    assert "CRS      none" in done.stdout
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["crs"], found["lonlat"]) == (None, None)
    assert found["corner"] == [500000, 5000000 - 40]
    done = scenefeed("locate", out, f"{ODD}/4/0", "--geojson")
    feature = json.loads(done.stdout)
    assert (feature["geometry"], feature["id"]) == (None, f"{ODD}/4/0")
    index = found["record"]["index"]
    done = scenefeed("locate", out, "--split", "train", "--index", index, "--geojson")
    assert json.loads(done.stdout) == feature


def test_geojson_is_a_closed_ring_counterclockwise(small_dataset):
    found = locate(small_dataset / "out", Key("a", 16, 32))
    (ring,) = geojson(found)["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert sorted(ring[:-1]) == sorted(map(tuple, found["lonlat"]))
    x, y = np.array(ring).T
    assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0


def test_a_patch_across_the_antimeridian_is_cut_there():
    found = {"key": "s/0/0", "lonlat": [[179, 1], [-179.5, 1], [-179.5, 0], [179, 0]]}
    geometry = geojson(found)["geometry"]
    assert geometry["type"] == "MultiPolygon"
    areas = []
    for (ring,) in geometry["coordinates"]:
        x, y = np.array(ring).T
        assert (np.abs(x) <= 180).all()
        areas.append(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)
    assert sorted(areas) == pytest.approx([0.5, 1])


def test_a_dropped_patch_has_a_place_and_no_record(tmp_path):
    pixels = np.ones((1, 8, 8), np.float32)
    pixels[0, :4, :4] = np.nan
    write_raster(tmp_path / "s.tif", pixels)
    out = tmp_path / "out"
    scenefeed("convert", tmp_path / "s.tif", "--output", out, "--tile_size", 4,
              "--min_valid", 0.5)  # fmt: skip
    found = locate(out, Key("s", 0, 0))
    assert found["record"] is None
    assert "in no split: it was dropped" in "\n".join(lines(found))
    (line,) = errors(scenefeed("show", out, "--key", "s/0/0", code=1))
    assert "in no split" in line


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["aa/0/0"], 1, "no scene 'aa' among 2: did you mean a?"),
        (["a/0/15"], 1, "no patch a/0/15: the scene's grid has none there: did you mean a/0/16?"),
        (["a/64/64"], 1, "did you mean a/48/48?"),
        (["a"], 2, "'a' is no key: give scene/row/column"),
        (["a/x/0"], 2, "'a/x/0' is no key"),
        ([], 2, "give a KEY"),
        (["a/0/0", "--index", "3"], 2, "give a KEY"),
        (["--index", "99"], 1, "no record 99 in split train: it has"),
        (["--split", "tran", "--index", "0"], 1, "no split 'tran'"),
        (["--index", "-1"], 2, "not a number from 0"),
    ],
)
def test_a_patch_that_is_not_there_is_one_line(small_dataset, argv, code, words):
    (line,) = errors(scenefeed("locate", small_dataset / "out", *argv, code=code))
    assert words in line


def test_no_scenes_file_is_one_line(tmp_path, small_dataset):
    (tmp_path / "dataset.json").write_text((small_dataset / "out/dataset.json").read_text())
    with pytest.raises(DatasetError, match=r"scenes.jsonl: not there"):
        locate(tmp_path, Key("a", 0, 0))


def test_keys_are_read_from_the_right():
    assert Key.parse("a b/-3/7") == Key("a b", -3, 7)
    with pytest.raises(ConfigError):
        Key.parse("a/1.5/7")
    assert Scene("a", (), Georeference(1, 1, "", (1, 0, 0, 0, 1, 0)), {}).centres is None

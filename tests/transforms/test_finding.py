"""Finding scenes by name."""

from pathlib import Path

import pytest

from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import ConfigError
from scenefeed.transforms.finding import find_scenes


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def find(folder, **scenes):
    return find_scenes(parse({"scenes": scenes}, "test"), folder)


def test_paths_globs_and_folders_sorted_each_once(tmp_path):
    touch(tmp_path, "s/b.tif", "s/a.TIF", "s/notes.txt", "s/a.tif.aux.xml")
    for paths in (["s"], ["s/*.tif", "s/*.TIF"], ["s/b.tif", "s"], [str(tmp_path / "s")]):
        found = find(tmp_path, paths=paths)
        assert [s.id for s in found] == ["a", "b"]
        assert found[1].files == (str(tmp_path / "s/b.tif"),)


def test_id_from_a_regex_and_labels_by_id(tmp_path):
    touch(tmp_path, "S1/Ghana_1_S1Hand.tif")
    config = parse(
        {
            "scenes": {"paths": ["S1/*.tif"], "id": "(.+)_S1Hand"},
            "labels": {"water": {"path": "L/{id}_LabelHand.tif"}},
        },
        "test",
    )
    (scene,) = find_scenes(config, tmp_path)
    assert scene.id == "Ghana_1"
    assert scene.labels == {"water": str(tmp_path / "L/Ghana_1_LabelHand.tif")}


def test_one_file_a_band(tmp_path):
    touch(tmp_path, "d/x_vv.tif", "d/x_vh.tif", "d/y_vh.tif", "d/y_vv.tif", "d/other.tif")
    bands = {"VV": "*_vv.tif", "VH": "*_vh.tif"}
    for scenes in ({"paths": ["d"]}, {"paths": ["d/*.tif"]}):
        found = find(tmp_path, bands=bands, **scenes)
        assert [s.id for s in found] == ["x", "y"]
        assert [Path(f).name for f in found[0].files] == ["x_vv.tif", "x_vh.tif"]
        assert found[0].bands == ("VV", "VH")
    without_paths = find(tmp_path, bands={k: f"d/{v}" for k, v in bands.items()})
    assert [s.id for s in without_paths] == ["x", "y"]
    by_regex = find(tmp_path, paths=["d/?_v*.tif"], bands=bands, id="(.)_v.")
    assert [s.id for s in by_regex] == ["x", "y"]


@pytest.mark.parametrize(
    ("scenes", "words"),
    [
        ({}, "no scenes: give paths"),
        ({"paths": ["no/*.tif"]}, r"no scene matches 'no/\*\.tif'"),
        ({"paths": ["no.tif"]}, "no such file or folder"),
        ({"paths": ["texts"]}, "no rasters among its 2 files"),
        ({"paths": ["nested"]}, r"beside 1 folders: try '.*nested/\*\*/\*\.tif'"),
        ({"paths": ["a", "b"]}, "two scenes have the id 'x'.*scenes.id"),
        ({"paths": ["a"], "id": "(y)"}, "does not match its stem 'x'"),
        ({"paths": ["m.csv"]}, "lists no scene"),
        ({"paths": ["bands"], "bands": {"VV": "*.tif"}, "id": "(p)"}, "two files for band VV"),
        ({"paths": ["a"], "bands": {"VV": "*_vv.tif"}}, "no file matches the band patterns"),
    ],
)
def test_each_mistake_is_named(tmp_path, scenes, words):
    touch(tmp_path, "a/x.tif", "b/x.tif", "texts/a.txt", "texts/b.md", "nested/in/x.tif", "m.csv")
    touch(tmp_path, "bands/p_vv.tif", "bands/pq_vv.tif")
    with pytest.raises(ConfigError, match=words):
        find(tmp_path, **scenes)


def test_a_scene_that_lacks_a_band_is_told_by_its_plan(tmp_path):
    touch(tmp_path, "x_vv.tif", "x_vh.tif", "y_vv.tif")
    bands = {"VV": "*_vv.tif", "VH": "*_vh.tif"}
    good, bad = find(tmp_path, paths=["*.tif"], bands=bands)
    assert not good.problem
    assert bad.problem == "has no file for band VH (pattern '*_vh.tif')"


def test_fingerprint_follows_files_and_configuration(tmp_path):
    touch(tmp_path, "a.tif")
    (scene,) = find(tmp_path, paths=["a.tif"])
    first = scene.fingerprint("config")
    assert first == scene.fingerprint("config") != scene.fingerprint("another")
    (tmp_path / "a.tif").write_bytes(b"longer")
    assert scene.fingerprint("config") != first
    (tmp_path / "a.tif").unlink()
    assert scene.fingerprint("config") != first

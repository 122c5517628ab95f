"""Finding scenes by name."""

import json
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
    assert scene.fingerprint("config") == first  # what was found at launch
    (scene,) = find(tmp_path, paths=["a.tif"])
    assert scene.fingerprint("config") != first


def _item(name, assets, **properties):
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
        "properties": properties,
        "assets": {k: {"href": v, "type": "image/tiff"} for k, v in assets.items()},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "geojson", "stac", "collection"])
def test_manifests_of_every_kind_list_the_same_scenes(tmp_path, kind):
    rows = [
        {"id": f"s{i}", "VV": f"x/{i} vv.tif", "VH": f"x/{i}_vh.tif", "site": "Åre", "depth": i,
         "date": f"2018-07-0{i + 1}T05:26:23Z"}
        for i in range(2)
    ]  # fmt: skip
    items = [
        _item(
            r["id"],
            {"VH": r["VH"], "VV": r["VV"]},
            datetime=r["date"],
            site="Åre",
            depth=r["depth"],
        )
        for r in rows
    ]
    features = [{"type": "Feature", "geometry": None, "properties": r} for r in rows]
    text = {
        "csv": "\n".join([",".join(rows[0]), *(",".join(map(str, r.values())) for r in rows)]),
        "jsonl": "\n".join(map(json.dumps, rows)),
        "json": json.dumps(rows),
        "geojson": json.dumps({"type": "FeatureCollection", "features": features}),
        "stac": json.dumps(items[0]),
        "collection": json.dumps({"type": "FeatureCollection", "features": items}),
    }[kind]
    suffix = {"stac": "json", "collection": "json"}.get(kind, kind)
    (tmp_path / f"m.{suffix}").write_text(text)
    config = parse(
        {"scenes": {"paths": f"m.{suffix}", "bands": ["VV", "VH"]},
         "labels": {"y": {"path": "masks/{site}_{id}.tif"}}}, "t",
    )  # fmt: skip
    scenes = find_scenes(config, tmp_path)
    assert [s.id for s in scenes] == (["s0"] if kind == "stac" else ["s0", "s1"])
    first = scenes[0]
    assert first.bands == ("VV", "VH")
    assert first.files == (f"{tmp_path}/x/0 vv.tif", f"{tmp_path}/x/0_vh.tif")
    assert first.properties["time"] == "2018-07-01T05:26:23Z"
    assert (first.properties["site"], first.properties["depth"]) == ("Åre", 0)
    assert first.labels == {"y": f"{tmp_path}/masks/Åre_s0.tif"}


def test_a_slash_in_the_id_sees_folders(tmp_path):
    for name in ("cat/1", "dog/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"two scenes have the id '1'.*sees folders too"):
        find_scenes(parse({"scenes": {"paths": "*/*.png"}}, "t"), tmp_path)
    config = parse({"scenes": {"paths": "*/*.png", "id": "([^/]+/[^/]+)$"}}, "t")
    assert [s.id for s in find_scenes(config, tmp_path)] == ["cat-1", "dog-1"]


def test_an_id_that_is_no_file_name_costs_one_scene(tmp_path):
    rows = [{"id": "a/b", "path": "x.tif"}, {"id": "ok", "path": "y.tif"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scenes = find_scenes(parse({"scenes": {"paths": "m.jsonl"}}, "t"), tmp_path)
    problems = {s.id: s.problem for s in scenes}
    assert problems["ok"] == ""
    (bad,) = set(problems) - {"ok"}
    assert "/" not in bad
    assert "the id 'a/b' cannot be a file name: rename it" in problems[bad]


def test_hidden_files_are_not_scenes(tmp_path):
    for name in ("a.tif", "._a.tif"):
        (tmp_path / name).write_bytes(b"x")
    assert [s.id for s in find_scenes(parse({"scenes": {"paths": "."}}, "t"), tmp_path)] == ["a"]


@pytest.mark.parametrize("beside", ["p.dbf", "p.prj", "s.tfw"])
def test_files_beside_count_for_the_fingerprint(tmp_path, beside):
    for name in ("s.tif", "p.shp"):
        (tmp_path / name).write_bytes(b"x")
    config = parse(
        {"scenes": {"paths": "s.tif"}, "labels": {"y": {"kind": "vector", "path": "p.shp"}}}, "t"
    )
    (scene,) = find_scenes(config, tmp_path)
    before = scene.fingerprint("")
    (tmp_path / beside).write_bytes(b"x")
    (scene,) = find_scenes(config, tmp_path)
    assert scene.fingerprint("") != before

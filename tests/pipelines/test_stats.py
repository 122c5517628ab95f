"""Statistics by the real command: against NumPy over the records, cached, without leakage."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from scenefeed.loader import Reader
from scenefeed.pipelines.cli import main
from scenefeed.pipelines.grouping import group_scenes, held_tokens
from scenefeed.transforms.errors import JobError
from tests.conftest import errors, write_raster


def scene(folder, name, seed):
    rng = np.random.default_rng(seed)
    write_raster(folder / f"scenes/{name}.tif", rng.normal(seed, 2, (2, 64, 64)).astype("float32"))
    write_raster(folder / f"labels/{name}.tif", rng.integers(0, 3, (1, 64, 64), np.uint8))


YAML = """\
scenes: {paths: [scenes], bands: [VV, VH]}
labels: {water: {kind: raster, path: 'labels/{id}.tif', ignore: [2]}}
tile: {size: 16}
split: {by: patch, fractions: {train: 0.7, val: 0.3}}
statistics: {normalize: zscore}
"""


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate("ab"):
        scene(tmp_path, name, i)
    (tmp_path / "config.yaml").write_text(YAML)
    return tmp_path


@pytest.fixture
def scenefeed(capsys):
    """The command in this process: to import tf.Transform takes seconds."""

    def run(*words, code=0):
        found = main([str(w) for w in words])
        done = capsys.readouterr()
        assert found == code, done.err
        lines = [x for x in done.err.splitlines() if x.startswith("scenefeed")]
        return done.out, lines

    return run


def statistics(out):
    return json.loads((out / "statistics.json").read_text())


@pytest.fixture
def convert(scenefeed, folder):
    config, out = folder / "config.yaml", folder / "out"
    return lambda *flags, **more: scenefeed(
        "convert", "--config", config, "--output", out, *flags, **more
    )


def test_statistics_are_those_of_the_training_records(folder, convert):
    said, _ = convert()
    found, records = statistics(folder / "out"), Reader(folder / "out", "train")
    whole = records.batch(range(len(records)))
    assert found["patches"] == len(records)
    for i, name in enumerate(("VV", "VH")):
        values = whole["image"][..., i].astype(float)
        band = found["bands"][name]
        assert band["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert band["variance"] == pytest.approx(values.var(), rel=1e-12)
        assert (band["min"], band["max"]) == (values.min(), values.max())
        assert f"{name}: mean {values.mean():.6g}" in said
    counts = {str(c): int((whole["water"] == c).sum()) for c in (0, 1)}
    assert found["labels"]["water"]["counts"] == counts
    assert found["labels"]["water"]["ignored"] == int((whole["water"] == 2).sum())
    dataset = json.loads((folder / "out/dataset.json").read_text())
    assert found["inputs"] == dataset["inputs"]

    import tensorflow as tf
    import tensorflow_transform as tft

    graph = tft.TFTransformOutput(str(folder / "out"))
    image = graph.transform_raw_features({"image": tf.constant(whole["image"])})["image"].numpy()
    assert image.dtype == np.float32
    np.testing.assert_allclose(image.astype(float).mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(image.astype(float).std(axis=(0, 1, 2)), 1, rtol=1e-6)


def test_a_conversion_counts_its_scenes_itself(folder, convert, monkeypatch):
    from scenefeed.pipelines import statistics as computing

    def afterwards(*_):
        raise AssertionError("scenes are counted after the conversion")

    monkeypatch.setattr(computing, "_counting_pipeline", afterwards)
    convert()
    assert statistics(folder / "out")["patches"] == len(Reader(folder / "out", "train"))
    assert not (folder / "out/statistics.tmp").exists()
    scene(folder, "c", 7)
    convert()
    assert len(set(os.listdir(folder / "out/analysis_cache"))) == 3


def test_the_analysis_begins_while_records_are_written(folder, convert, monkeypatch):
    from scenefeed.pipelines import analysis, analyst, runner

    asked, run = [], runner.run

    def ask(*_, **__):
        asked.append((folder / "out/dataset.json").exists())
        raise JobError("the analysis failed")

    def lost(build, options):
        run(build, options)
        assert list(analysis._begun) == [str(folder / "out")]
        raise JobError("a worker was lost")

    monkeypatch.setattr(analyst, "is_beside", lambda: True)
    monkeypatch.setattr(analyst, "ask", ask)
    monkeypatch.setattr(analyst, "warm_up", lambda *_, **__: None)
    _, lines = convert(code=1)
    assert (asked, lines) == ([False], ["scenefeed: the analysis failed"])
    assert (folder / "out/dataset.json").exists()
    monkeypatch.setattr(runner, "run", lost)
    _, lines = convert("--overwrite", code=1)
    assert lines == ["scenefeed: a worker was lost"]
    assert not analysis._begun


@pytest.mark.parametrize("listed", ["[]", '{"a": 1}', '{"a": [["b"]]}', '{"a": [null]}', "{", ""])
def test_a_list_of_groups_that_is_none_holds_nothing(tmp_path, listed):
    held = tmp_path / "held"
    held.mkdir()
    (held / "groups.json").write_text(listed)
    assert held_tokens(held) == frozenset()
    groups = group_scenes(held, {"b"}, tmp_path / "cache")
    assert [(g.tokens, g.fresh) for g in groups.values()] == [(("b",), True)]


def test_a_conversion_that_ends_without_records_leaves_no_counts(folder, convert, monkeypatch):
    from scenefeed.pipelines import analyst, runner

    monkeypatch.setattr(analyst, "warm_up", lambda *_, **__: None)  # nothing is analyzed
    convert("--tile_size", 128, code=1)
    assert json.loads((folder / "out/metrics.json").read_text())["status"] == "empty"
    assert not (folder / "out/statistics.tmp").exists()

    def lost(build, options):
        assert (folder / "out/statistics.tmp").is_dir()
        raise JobError("a worker was lost")

    monkeypatch.setattr(runner, "run", lost)
    convert(code=1)
    assert not (folder / "out/statistics.tmp").exists()


@pytest.mark.slow
def test_added_scenes_reuse_the_cache_and_other_kinds_count_nothing_again(
    folder, convert, scenefeed
):
    convert()
    groups = set(os.listdir(folder / "out/analysis_cache"))
    assert len(groups) == 2  # one group, and the list of them
    # If it were read, this would fail.
    for path in (folder / "out/stage").glob("*.h5"):
        path.rename(path.with_suffix(".away"))
        path.touch()
    scenefeed("stats", folder / "out", "--normalize", "minmax")
    found = statistics(folder / "out")
    assert found["normalize"] == "minmax"
    bands = found["bands"].values()
    assert found["transform"]["image"]["offset"] == [b["min"] for b in bands]
    config = json.loads((folder / "out/dataset.json").read_text())["config"]
    assert config["statistics"]["normalize"] == "minmax"
    for path in (folder / "out/stage").glob("*.away"):
        path.rename(path.with_suffix(".h5"))

    scene(folder, "c", 7)
    convert()
    more = set(os.listdir(folder / "out/analysis_cache"))
    assert groups < more
    assert len(more) == 3
    (folder / "again").mkdir()
    scenefeed(
        "convert", "--config", folder / "config.yaml", "--output", folder / "again/out",
        "--direct_num_workers=1",
    )  # fmt: skip
    new, anew = statistics(folder / "out"), statistics(folder / "again/out")
    assert new == anew
    assert new["fingerprint"] == anew["fingerprint"]
    assert new["normalize"] == "zscore"


@pytest.mark.slow
def test_a_validation_pixel_changes_nothing(folder, convert):
    convert()
    before = statistics(folder / "out")
    records = Reader(folder / "out", "val")
    key = records[0]
    import rasterio

    with rasterio.open(folder / f"scenes/{key['scene_id']}.tif", "r+") as file:
        pixels = file.read()
        pixels[:, key["row"] : key["row"] + 16, key["col"] : key["col"] + 16] = 1e6
        file.write(pixels)
    convert()
    assert Reader(folder / "out", "val").batch(range(len(records)))["image"].max() == 1e6
    after = statistics(folder / "out")
    assert after["inputs"] != before["inputs"]
    assert after["fingerprint"] == before["fingerprint"]


@pytest.mark.slow
def test_a_function_of_ones_own_is_named_on_the_command_line(
    folder, convert, scenefeed, monkeypatch
):
    (folder / "mine.py").write_text(
        "import tensorflow as tf\n"
        "import tensorflow_transform as tft\n"
        "def centred(inputs):\n"
        "    image = tf.cast(inputs['image'], tf.float32)\n"
        "    return {'image': image - tft.mean(image), 'water': tf.cast(inputs['water'], tf.int64)}\n"
        "def broken(inputs):\n"
        "    return {'image': inputs['picture']}\n"
    )
    text = (folder / "config.yaml").read_text().replace("zscore", "'mine:centred'")
    (folder / "config.yaml").write_text(text)
    monkeypatch.chdir(folder)
    _, lines = convert(code=2)
    assert lines == [
        "scenefeed: statistics.normalize mine:centred: is code: say --normalize mine:centred on the "
        "command line to have it run"
    ]
    convert("--normalize", "mine:centred")
    assert statistics(folder / "out")["transform"] is None
    assert len(scenefeed("stats", folder / "out", code=2)[1]) == 1  # dataset.json names it

    import tensorflow as tf
    import tensorflow_transform as tft

    records = Reader(folder / "out", "train")
    whole = records.batch(range(len(records)))
    graph = tft.TFTransformOutput(str(folder / "out"))
    given = {name: tf.constant(whole[name]) for name in ("image", "water")}
    found = graph.transform_raw_features(given)
    mean = whole["image"].astype(float).mean()
    np.testing.assert_allclose(found["image"], whole["image"] - mean, atol=1e-5)
    assert np.array_equal(found["water"], whole["water"])

    stats = ("stats", folder / "out", "--normalize")
    _, (line,) = scenefeed(*stats, "mine:broken", code=1)
    assert "mine:broken: " in line
    assert "picture" in line
    _, (line,) = scenefeed(*stats, "mine:none", code=2)
    assert "give MODULE:FUNCTION" in line


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once_and_its_modules_are_found(folder):
    scripts = folder / "scripts"
    scripts.mkdir()
    (scripts / "mine.py").write_text(
        "def own(inputs):\n"
        "    import tensorflow as tf\n"
        "    print('traced in', __import__('os').getpid())\n"
        "    return {'image': tf.cast(inputs['image'], tf.float32)}\n"
    )
    (scripts / "script.py").write_text(
        "import os\n"
        "from scenefeed.pipelines.cli import main\n"
        "print('script in', os.getpid())\n"
        "main(['convert', '--config', 'config.yaml', '--output', 'out', '--normalize', 'mine:own'])\n"
    )
    done = subprocess.run(
        [sys.executable, scripts / "script.py"], cwd=folder, capture_output=True, text=True,
        timeout=170, check=True,
    )  # fmt: skip
    assert errors(done) == []
    lines = [x.split(" in ") for x in done.stdout.splitlines()]
    (script,) = (x[1] for x in lines if x[0] == "script")
    assert script not in {x[1] for x in lines if x[0] == "traced"} != set()
    assert statistics(folder / "out")["normalize"] == "mine:own"


def test_stats_without_stage_files_says_so(folder, convert, scenefeed):
    convert("--drop_stage")
    assert statistics(folder / "out")["patches"]  # computed before they went
    _, (line,) = scenefeed("stats", folder / "out", code=2)
    assert "--drop_stage" in line
    shutil.rmtree(folder / "out/records")
    _, (line,) = scenefeed("stats", folder / "nothing", code=2)
    assert "was not written by `scenefeed convert`" in line


@pytest.mark.slow
def test_balanced_sampling_counts_what_is_kept(folder, convert):
    with (folder / "config.yaml").open("a") as file:
        file.write("sample: {balance: {label: water, ratios: {0: 1, 1: 2}}}\n")
    convert()
    records = Reader(folder / "out", "train")
    found = statistics(folder / "out")
    assert 0 < found["patches"] == len(records)
    values = records.batch(range(len(records)))["image"][..., 0].astype(float)
    assert found["bands"]["VV"]["mean"] == pytest.approx(values.mean(), rel=1e-12)


@pytest.mark.slow
def test_baked_records_hold_what_the_graph_gives(folder, convert, scenefeed):
    convert()
    raw = Reader(folder / "out", "train")
    before = raw.batch(range(len(raw)))
    text = (folder / "config.yaml").read_text().replace("zscore", "quantile, bake: true")
    (folder / "config.yaml").write_text(text)
    convert()
    baked = Reader(folder / "out", "train")
    after = baked.batch(range(len(baked)))

    import tensorflow as tf
    import tensorflow_transform as tft

    graph = tft.TFTransformOutput(str(folder / "out"))
    expected = graph.transform_raw_features({"image": tf.constant(before["image"])})["image"]
    assert np.array_equal(after["image"], expected)
    for name in ("water", "row", "col", "scene_id"):
        assert np.array_equal(after[name], before[name])
    fingerprint = json.loads((folder / "out/dataset.json").read_text())["fingerprint"]
    said, _ = convert()
    assert "nothing to do" in said
    scenefeed("verify", folder / "out")
    _, (line,) = scenefeed("stats", folder / "out", code=2)
    assert "scenefeed shard" in line
    scenefeed("shard", folder / "out")
    assert json.loads((folder / "out/dataset.json").read_text())["fingerprint"] == fingerprint


@pytest.mark.slow
def test_polygons_that_changed_are_counted_again(folder, convert):
    import shapely
    from pyogrio.raw import write

    def zones(train, val):
        west, north = 500000, 5000000
        boxes = [
            shapely.box(west + a * 10, north - 640, west + b * 10, north) for a, b in (train, val)
        ]
        path = folder / "zones.geojson"
        path.unlink(missing_ok=True)
        write(
            path, shapely.to_wkb(boxes), [np.array(["train", "val"], object)], ["split"],
            geometry_type="Polygon", crs="EPSG:32633", driver="GeoJSON",
        )  # fmt: skip

    text = (folder / "config.yaml").read_text()
    begin, end = text.index("split:"), text.index("statistics:")
    polygons = "split: {by: polygons, path: zones.geojson, fractions: {train: 0.5, val: 0.5}}\n"
    (folder / "config.yaml").write_text(text[:begin] + polygons + text[end:])
    found = []
    for train, val in (((0, 32), (32, 64)), ((32, 64), (0, 32))):  # as many patches, but others
        zones(train, val)
        convert("--overwrite")
        records = Reader(folder / "out", "train")
        values = records.batch(range(len(records)))["image"][..., 0].astype(float)
        band = statistics(folder / "out")["bands"]["VV"]
        assert band["mean"] == pytest.approx(values.mean(), rel=1e-12)
        found.append(band["mean"])
    assert found[0] != found[1]


@pytest.mark.slow
def test_what_fails_leaves_what_was_there(folder, convert, scenefeed, monkeypatch):
    convert()
    before = (folder / "out/statistics.json").read_bytes()
    _, (line,) = scenefeed("stats", folder / "out", "--normalize", "nothing:here", code=2)
    assert "nothing:here" in line
    (folder / "bad.py").write_text("def f(inputs):\n    raise RuntimeError('no')\n")
    (folder / "worse.py").write_text("def f(:\n")
    monkeypatch.chdir(folder)
    assert len(scenefeed("stats", folder / "out", "--normalize", "bad:f", code=1)[1]) == 1
    assert len(scenefeed("stats", folder / "out", "--normalize", "worse:f", code=2)[1]) == 1
    (folder / "bake.yaml").write_text("statistics: {normalize: zscore, bake: true}\n")
    _, (line,) = scenefeed("stats", folder / "out", "--config", folder / "bake.yaml", code=2)
    assert "scenefeed shard" in line
    assert (folder / "out/statistics.json").read_bytes() == before

    # A cache that is damaged in any way counts for nothing.
    cache = folder / "out/analysis_cache"
    for damage in ("empty", "cut", "stray", "no list"):
        (group,) = (p for p in cache.iterdir() if p.is_dir())
        (entry,) = group.iterdir()
        if damage == "empty":
            entry.unlink()
        elif damage == "cut":
            entry.write_bytes(entry.read_bytes()[:50])
        elif damage == "stray":
            (group / "note.txt").touch()
        else:
            (cache / "groups.json").write_text("[]")
        scenefeed("stats", folder / "out")
        assert (folder / "out/statistics.json").read_bytes() == before, damage


@pytest.mark.slow
def test_another_normalization_after_the_stage_files_went(folder, convert):
    convert("--drop_stage")
    said, _ = convert("--normalize", "minmax", "--drop_stage")
    assert "normalize: minmax" in said
    assert not (folder / "out/stage").exists()
    assert statistics(folder / "out")["normalize"] == "minmax"

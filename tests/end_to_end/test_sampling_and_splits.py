"""Sampling and splits through the real command, counted again from the records."""

import json

import numpy as np
import pytest
import rasterio

from scenefeed.loader import Reader
from tests.conftest import errors, write_raster
from tests.conftest import in_process as scenefeed

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two scenes of 512 x 512 with a mask whose 16 x 16 patches are of one class each: 0 is
    common, 2 is rare, and some are unlabelled (255)."""
    folder = tmp_path_factory.mktemp("sampling")
    for i, name in enumerate(("a", "b")):
        pixels = RNG.normal(size=(1, 512, 512)).astype(np.float32)
        origin = (500000 + 5120 * i, 5000000)
        write_raster(folder / f"s/{name}.tif", pixels, origin=origin)
        classes = RNG.choice([0, 1, 2, 255], (32, 32), p=[0.6, 0.2, 0.1, 0.1]).astype(np.uint8)
        mask = np.kron(classes, np.ones((16, 16), np.uint8))[None]
        write_raster(folder / f"l/{name}.tif", mask, origin=origin)
    return folder


def convert(scenes, name, code=0, **config):
    values = {
        "scenes": {"paths": ["s"]}, "tile": {"size": 16}, "records": {"num_shards": 2},
        "labels": {"y": {"path": "l/{id}.tif", "ignore": [255], "classes": ["land", "wet", "ice"]}},
    }  # fmt: skip
    path = scenes / f"{name}.yaml"
    path.write_text(json.dumps(values | config))
    done = scenefeed("convert", "--config", path, "--output", scenes / name, code=code)
    return scenes / name, done


def records(out, split="train"):
    reader = Reader(out, split=split)
    return reader.batch(np.arange(len(reader)))


def truth(scenes):
    """Patches by class, from the label rasters."""
    counts: dict[int, int] = {}
    for name in ("a", "b"):
        with rasterio.open(scenes / f"l/{name}.tif") as src:
            values, n = np.unique(src.read(1)[::16, ::16], return_counts=True)
        for value, count in zip(values.tolist(), n.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + count
    return counts


def test_labelled_patches_in_the_declared_ratios(scenes):
    out, _ = convert(
        scenes, "balanced",
        sample={"labelled": True, "balance": {"label": "y", "ratios": {"land": 2, "wet": 1, 2: 1}}},
    )  # fmt: skip
    found = records(out)["y"][:, 0, 0]
    kept = {c: int((found == c).sum()) for c in (0, 1, 2, 255)}
    counts = truth(scenes)
    assert kept[255] == 0
    assert kept[2] == counts[2]
    assert abs(kept[1] - counts[2]) <= 2
    assert abs(kept[0] - 2 * counts[2]) <= 2
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["patches"]["kept"] == sum(kept.values())
    assert metrics["patches"]["grid"] == 2048
    assert metrics["tallies"]["y_ignored"] == counts[255] * 256
    again = ("--output", scenes / "four", "--direct_num_workers", 4, "--stride", 16)
    scenefeed("convert", "--config", scenes / "balanced.yaml", *again)
    other = json.loads((scenes / "four/metrics.json").read_text())
    assert other["fingerprint"] == metrics["fingerprint"]


def test_a_fraction_and_a_cap_for_each_scene(scenes):
    out, _ = convert(
        scenes, "capped", sample={"fraction": 0.5, "per_scene": 100}, clean={"fill": "mean"}
    )
    scenefeed("verify", out)
    ids = records(out)["scene_id"]
    assert {i: int((ids == i).sum()) for i in set(ids)} == {"a": 100, "b": 100}
    # Another cap needs no scene: the stage files hold all patches.
    (scenes / "more.yaml").write_text("sample: {fraction: 0.5}\n")
    scenefeed("shard", out, "--config", scenes / "more.yaml")
    (scenes / "more.yaml").write_text("sample: {labelled: true}\n")
    done = scenefeed("shard", out, "--config", scenes / "more.yaml", code=2)
    assert "sample.labelled changed" in errors(done)[0]


@pytest.mark.parametrize(("unit", "block", "buffer"), [("pixels", 128, 48), ("metres", 1500, 400)])
def test_blocks_with_a_buffer_lie_apart_and_verify_says_so(scenes, unit, block, buffer):
    split = {
        "by": "block", "block": block, "buffer": buffer, "unit": unit,
        "fractions": {"train": 0.6, "test": 0.4},
    }  # fmt: skip
    out, _ = convert(scenes, f"blocks_{unit}", split=split)
    corners = {}
    for name in ("train", "test"):
        found = records(out, name)
        # One plane for both scenes, pixels of 10 m: b lies 512 pixels east of a.
        cols = found["col"] + np.where(found["scene_id"] == "b", 512, 0)
        corners[name] = np.stack([found["row"], cols], axis=1)
    apart = np.maximum(np.abs(corners["train"][:, None] - corners["test"][None]) - 16, 0)
    least = np.hypot(*np.moveaxis(apart, -1, 0)).min()
    if unit == "metres":
        assert least * 10 >= buffer * 0.98
    else:
        same = records(out, "train")["scene_id"][:, None] == records(out, "test")["scene_id"][None]
        least = np.hypot(*np.moveaxis(apart[same], -1, 0)).min()
        assert least >= buffer
    report = scenefeed("verify", out, "--json", scenes / "verify.json").stdout
    assert "train, test: at least" in report
    found = json.loads((scenes / "verify.json").read_text())["separation"]["train, test"]
    if unit == "pixels":
        assert found["pixels"] == pytest.approx(least)
    # A dataset that claims a larger buffer than it has does not pass.
    spec = json.loads((out / "dataset.json").read_text())
    spec["config"]["split"]["buffer"] = 10 * buffer
    (out / "dataset.json").write_text(json.dumps(spec))
    done = scenefeed("verify", out, code=1)
    assert any("train and test come within" in line for line in errors(done))


def test_scenes_and_patches_that_repeat_are_reported(scenes, tmp_path):
    pixels = RNG.normal(size=(1, 64, 64)).astype(np.float32)
    pixels[:, :16, 16:32] = pixels[:, :16, :16]
    for name in ("one", "same"):
        write_raster(tmp_path / f"s/{name}.tif", pixels)
    (tmp_path / "c.yaml").write_text(
        "scenes: {paths: [s]}\ntile: {size: 16}\nsplit: {by: scene, fractions: {train: .5, val: .5}}\n"
        "records: {seed: 3}\n"
    )
    done = scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    assert "scenes one, same hold the same images" in done.stdout
    assert "2 patches repeat another's image in their scene" in done.stdout
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["duplicate_scenes"] == [["one", "same"]]
    done = scenefeed("verify", tmp_path / "out", "--json", tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())["duplicates"]
    splits = {k: v for k, v in metrics["patches"]["by_split"].items() if v}
    assert found == {"records": 17, "across_splits": 15 if len(splits) == 2 else 0}
    assert "17 records repeat another's image" in done.stdout


def test_splits_by_a_column_and_by_date(scenes, tmp_path):
    rows = ["path,region,date", f"{scenes}/s/a.tif,north,2018-06-01",
            f"{scenes}/s/b.tif,south,2019-06-01"]  # fmt: skip
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    common = f"scenes: {{paths: [{tmp_path}/m.csv]}}\ntile: {{size: 64}}\nscalars: [region, time]\n"
    for name, split in {
        "column": "{by: column, column: region, values: {train: north, test: [south]}}",
        "date": "{by: date, dates: {train: [null, 2018-12-31], test: [2019-01-01, null]}}",
    }.items():
        (tmp_path / "c.yaml").write_text(common + f"split: {split}\n")
        out = tmp_path / name
        scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", out)
        train, test = records(out, "train"), records(out, "test")
        assert set(train["scene_id"]) == {"a"}
        assert set(test["scene_id"]) == {"b"}
        assert set(test["region"]) == {"south"}
        assert set(test["time"]) == {1559347200}
        assert len(train["row"]) == len(test["row"]) == 64

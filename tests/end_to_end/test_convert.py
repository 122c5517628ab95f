"""The real command on made scenes: determinism, resuming, failure, memory."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from scenefeed.loader import DatasetSpec, Reader
from scenefeed.loader.index import record_files
from tests.conftest import errors, scenefeed, write_raster


def fingerprint(out):
    return json.loads((out / "dataset.json").read_text())["fingerprint"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--direct_num_workers=1"],
        ["--direct_num_workers=4"],
        ["--direct_running_mode=in_memory"],
        pytest.param(
            ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"],
            marks=pytest.mark.slow,
        ),
        ["--runner", "DirectRunner"],
    ],
    ids=" ".join,
)
def test_same_fingerprint_with_any_workers_in_any_mode(small_dataset, tmp_path, flags):
    config = small_dataset / "config.yaml"
    scenefeed("convert", *flags, "--config", config, "--output", tmp_path / "out")
    assert fingerprint(tmp_path / "out") == fingerprint(small_dataset / "out")
    for shard in (tmp_path / "out/records").iterdir():
        assert shard.read_bytes() == (small_dataset / "out/records" / shard.name).read_bytes()


@pytest.mark.slow
def test_another_seed_is_another_shuffle_of_the_same_patches(small_dataset, tmp_path):
    out, config = tmp_path / "out", small_dataset / "config.yaml"
    scenefeed("convert", "--config", config, "--output", out, "--seed", 9)
    assert fingerprint(out) != fingerprint(small_dataset / "out")


def test_what_a_dataset_is(small_dataset):
    out = small_dataset / "out"
    spec = json.loads((out / "dataset.json").read_text())
    assert spec["format"] == "scenefeed/1"
    assert spec["name"] == "small"
    assert set(spec["splits"]) == {"train", "val", "test"}
    for name in ("train", "val"):
        paths = [s["path"] for s in spec["splits"][name]["shards"]]
        assert paths == [f"records/{name}-0000{i}-of-00003.tfrecord" for i in range(3)]
    assert spec["splits"]["test"]["shards"] == []
    assert spec["config"]["tile"] == {"size": 16, "stride": None, "edge": "drop"}
    scenes = [json.loads(x) for x in (out / "scenes.jsonl").read_text().splitlines()]
    assert [s["id"] for s in scenes] == ["a", "b"]
    assert sum(sum(s["patches"].values()) for s in scenes) == 32
    assert (out / "errors.jsonl").read_text() == ""
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["patches"]["kept"] == 32
    assert metrics["bytes"]["source"] == sum(
        (small_dataset / f"scenes/{n}.tif").stat().st_size for n in "ab"
    )
    assert 50e6 < metrics["peak_memory_bytes"] < 1.5 * 2**30
    assert sorted(p.name for p in (out / "stage").iterdir()) == ["a.h5", "b.h5"]


def test_a_second_run_has_nothing_to_do_and_a_third_goes_on(small_dataset, tmp_path):
    out, config = tmp_path / "out", small_dataset / "config.yaml"
    shutil.copytree(small_dataset / "out", out)
    first = fingerprint(out)
    again = scenefeed("convert", "--config", config, "--output", out)
    assert "nothing to do" in again.stdout
    # Broken off before the end: no dataset.json, a stage file missing, strays about.
    (out / "dataset.json").unlink()
    (out / "stage/b.h5").unlink()
    (out / "stage/.b.h5.0.tmp").write_bytes(b"half")
    (out / "records/beam-temp-train-0").mkdir()
    done = scenefeed("convert", "--config", config, "--output", out)
    assert "2 done (1 staged before)" in done.stdout
    assert fingerprint(out) == first
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob("beam-temp*"))
    # A damaged shard is not whole.
    shard = next((out / "records").glob("train-00000*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    scenefeed("convert", "--config", config, "--output", out)
    assert fingerprint(out) == first
    scenefeed("verify", out)


def test_another_configuration_is_refused_unless_overwritten(small_dataset, tmp_path):
    out, config = tmp_path / "out", small_dataset / "config.yaml"
    shutil.copytree(small_dataset / "out", out)
    argv = ["convert", "--config", config, "--output", out, "--tile_size", 32]
    (line,) = errors(scenefeed(*argv, code=2))
    assert "another configuration (tile.size was 16, now 32)" in line
    assert fingerprint(out) == fingerprint(small_dataset / "out")
    scenefeed(*argv, "--overwrite")
    assert Reader(out)[0]["image"].shape == (32, 32, 2)
    scenefeed("verify", out)


def names(records):
    return [f"records/{path.name}" for path in records.iterdir()]


@pytest.mark.slow
def test_shard_writes_again_without_the_scenes(small_dataset, tmp_path):
    out, config = tmp_path / "out", small_dataset / "config.yaml"
    shutil.copytree(small_dataset / "out", out)
    scenefeed("shard", out, "--num_shards", 5, "--seed", 4, "--compression", "gzip")
    spec = DatasetSpec.load(out)
    assert len(spec.splits["train"].shards) == 5
    assert spec.compression == "gzip"
    # Nothing of before is left; gzip has no indexes.
    assert sorted(names(out / "records")) == sorted(record_files(spec))
    assert len(record_files(spec)) == 10
    scenefeed("verify", out)
    scenefeed("shard", out, "--num_shards", 2, "--compression", "none")
    found = names(out / "records")
    assert sorted(found) == sorted(record_files(DatasetSpec.load(out)))
    assert [Path(x).suffix for x in sorted(found)] == [".idx", ".tfrecord"] * 4
    scenefeed("verify", out)
    # Back again: the same as convert had made.
    scenefeed("shard", out, "--num_shards", 3, "--seed", 1, "--compression", "none")
    assert fingerprint(out) == fingerprint(small_dataset / "out")
    assert "nothing to do" in scenefeed("convert", "--config", config, "--output", out).stdout
    (out / "stage/a.h5").unlink()
    (line,) = errors(scenefeed("shard", out, code=2))
    assert "a.h5: the stage file is gone" in line


@pytest.mark.slow
def test_drop_stage(small_dataset, tmp_path):
    out = tmp_path / "out"
    scenefeed("convert", "--config", small_dataset / "config.yaml", "--output", out, "--drop_stage")
    assert not (out / "stage").exists()
    assert fingerprint(out) == fingerprint(small_dataset / "out")
    scenefeed("verify", out)
    stages = tmp_path / "stages"
    stages.mkdir()
    (stages / "another.h5").write_bytes(b"of another dataset")
    flags = ("--config", small_dataset / "config.yaml", "--overwrite", "--output", out)
    scenefeed("convert", *flags, "--stage_dir", "stages", cwd=tmp_path)
    one, another, two = sorted(p.name for p in stages.iterdir())
    assert (one[:2], another, two[:2]) == ("a-", "another.h5", "b-")
    tiles = ("--tile_size", 8, "--output", tmp_path / "other", "--stage_dir", stages)
    scenefeed("convert", *flags[:2], *tiles)  # another dataset of the same scenes
    assert len(list(stages.iterdir())) == 5
    scenefeed("shard", out, "--seed", 2)
    scenefeed("shard", out, "--seed", 1)
    assert fingerprint(out) == fingerprint(small_dataset / "out")
    scenefeed("convert", *flags, "--stage_dir", stages, "--drop_stage")
    assert len(list(stages.iterdir())) == 3


def test_a_bad_scene_is_a_dead_letter_and_the_others_go_on(tmp_path):
    for name in ("a", "b", "c"):
        write_raster(tmp_path / f"s/{name}.tif", np.ones((1, 64, 64), np.uint8), compress="deflate")
    (tmp_path / "s/b.tif").write_bytes((tmp_path / "s/b.tif").read_bytes()[:250])
    (tmp_path / "s/d.tif").write_bytes(b"")
    out = tmp_path / "out"
    done = scenefeed("convert", tmp_path / "s", "--output", out, code=1)
    assert "2 scenes failed, more than --max_failed 0" in errors(done)[-1]
    letters = [json.loads(x) for x in (out / "errors.jsonl").read_text().splitlines()]
    assert [x["scene"] for x in letters] == ["b", "d"]
    assert all(x["file"].endswith(f"{x['scene']}.tif") and x["reason"] for x in letters)
    assert Reader(out).spec.splits["train"].num_examples == 2
    scenefeed("verify", out)
    done = scenefeed("convert", tmp_path / "s", "--output", tmp_path / "o2", "--max_failed", 2)
    assert len(errors(done)) == 2


@pytest.mark.slow
def test_a_failed_scene_is_tried_again_and_shard_keeps_its_letter(tmp_path):
    write_raster(tmp_path / "s/a.tif", np.ones((1, 64, 64), np.uint8))
    bad = write_raster(tmp_path / "s/b.tif", np.ones((1, 64, 64), np.uint8))
    whole, stat = bad.read_bytes(), bad.stat()
    bad.write_bytes(bytes(len(whole)))
    os.utime(bad, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    out = tmp_path / "out"
    argv = ["convert", tmp_path / "s", "--output", out]
    scenefeed(*argv, code=1)
    scenefeed("shard", out, code=1)
    assert json.loads((out / "errors.jsonl").read_text())["scene"] == "b"
    bad.write_bytes(whole)
    os.utime(bad, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = scenefeed(*argv)
    assert "2 done (1 staged before), 0 failed" in done.stdout
    assert (out / "errors.jsonl").read_text() == ""


@pytest.mark.slow
def test_a_fill_of_nan_can_be_run_again(tmp_path):
    pixels = np.ones((1, 64, 64), np.float32)
    pixels[0, :5] = np.nan
    write_raster(tmp_path / "a.tif", pixels)
    argv = ["convert", tmp_path / "a.tif", "--output", tmp_path / "o", "--fill", "nan"]
    scenefeed(*argv)
    assert "nothing to do" in scenefeed(*argv).stdout
    assert np.isnan(Reader(tmp_path / "o")[0]["image"][:5]).all()
    scenefeed("verify", tmp_path / "o")


@pytest.mark.slow
def test_nothing_usable_and_everything_dropped(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"junk")
    done = scenefeed("convert", tmp_path / "a.tif", "--output", tmp_path / "o", code=1)
    assert "no scene could be used: all 1 failed" in errors(done)[-1]
    write_raster(tmp_path / "b.tif", np.full((1, 64, 64), np.nan, np.float32))
    argv = ["convert", tmp_path / "b.tif", "--output", tmp_path / "o", "--min_valid", 0.1]
    done = scenefeed(*argv, code=1)
    assert "every patch was dropped" in errors(done)[-1]
    assert not (tmp_path / "o/dataset.json").exists()


def test_a_full_disk_is_one_line_and_loses_nothing(small_dataset, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system needs root and mount")
    try:
        argv = ["convert", "--config", small_dataset / "config.yaml", "--output", disk / "out"]
        done = scenefeed(*argv, code=1)
        (line,) = errors(done)
        assert "No space left on device: make room or choose another --output" in line
        assert not list(disk.rglob("*.tmp"))
        assert not (disk / "out/dataset.json").exists()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        scenefeed(*argv)
        assert fingerprint(disk / "out") == fingerprint(small_dataset / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path):
    """Peak memory of a scene of 256 MiB is that of one of 64 MiB, which fills GDAL's cache, give or
    take 64 MiB."""
    peaks = []
    for side in (4096, 8192):
        pixels = np.zeros((1, side, side), np.float32)
        write_raster(tmp_path / f"{side}.tif", pixels, tiled=True, blockxsize=512, blockysize=512)
        del pixels
        out = tmp_path / f"out{side}"
        scenefeed("convert", tmp_path / f"{side}.tif", "--output", out, "--tile_size", 64)
        metrics = json.loads((out / "metrics.json").read_text())
        peaks.append(metrics["peak_memory_bytes"])
        shutil.rmtree(out)
    assert peaks[1] < peaks[0] + (64 << 20)
    assert peaks[1] < 1 << 30


@pytest.mark.slow
def test_check_measures_and_exits_1_when_a_target_is_missed(small_dataset, tmp_path):
    report = tmp_path / "check.json"
    done = scenefeed("check", small_dataset / "out", "--batch_size", 8, "--json", report,
                     "--seconds", 0.1, "--step_ms", 1, "--memory_gib", 8,
                     "--load_seconds", 1e-9, code=1)  # fmt: skip
    results = json.loads(report.read_text())["results"]
    missed = [r for r in results if r["met"] is False]
    assert [r["name"] for r in missed if not r["name"].endswith(", cold")] == [
        "Feed: 5 x 8 shuffled", "load: 5 x 8 shuffled"
    ]  # fmt: skip
    assert {"conversion", "peak memory, load"} <= {r["name"] for r in results}
    assert done.stdout.count("MISSED") == len(missed)
    assert set(errors(done)) >= {f"scenefeed: {r['name']}: {r['advice']}" for r in missed}


def test_synth_is_deterministic_and_converts(tmp_path):
    for name in ("one", "two"):
        scenefeed("synth", tmp_path / name, "--size", 600, "--scenes", 2, "--seed", 3)
    for path in sorted((tmp_path / "one").rglob("*.tif")):
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == twin.read_bytes()
    out = tmp_path / "out"
    scenefeed("convert", "--config", tmp_path / "one/dataset.yaml", "--output", out)
    reader = Reader(out)
    assert reader.spec.features["image"].bands == ("VV", "VH")
    batch = reader.batch(range(len(reader)))
    water = batch["water"] == 1
    assert 0.02 < water.mean() < 0.6
    assert batch["image"][water].mean() < batch["image"][~water].mean() - 5  # dB
    with h5py.File(out / "stage/synth_00.h5") as file:
        assert file["image"].shape[1:] == (64, 64, 2)

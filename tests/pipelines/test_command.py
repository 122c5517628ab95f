"""The command: flags, exit codes, one line for each mistake."""

import json

import numpy as np
import pytest

from scenefeed.pipelines.options import build_parser, config_from, join_numbers
from tests.conftest import scenefeed, write_raster


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.float32))


def config(*argv):
    args, rest = build_parser("0").parse_known_args(join_numbers(["convert", *argv]))
    assert not rest
    return config_from(args)[0]


def test_flags_win_over_yaml(tmp_path):
    (tmp_path / "c.yaml").write_text("tile: {size: 32, edge: pad}\nrecords: {seed: 3}\n")
    found = config("--config", str(tmp_path / "c.yaml"), "--output", "o", "--tile_size", "16",
                   "--bands", "VV,VH", "--to_db", "--num_shards", "5")  # fmt: skip
    assert (found.tile.size, found.tile.edge, found.records.seed) == (16, "pad", 3)
    assert found.scenes.bands == ("VV", "VH")
    assert found.clean.to_db
    assert found.records.num_shards == 5


@pytest.mark.parametrize(
    "clip",
    [["--clip=-30,5"], ["--clip", "-30,5"], ["--clip", "-30", "5"], ["--clip", "-3e1", "5.0"]],
)
def test_limits_may_be_negative_however_they_are_written(clip):
    assert config(*clip, "--output", "o", "x.tif").clean.clip == (-30, 5)
    found = config("--fill", "-1", "--nodata", "-9999", "--output", "o", "x.tif").clean
    assert (found.fill, found.nodata) == (-1, -9999)
    assert config("--fill=-1,2", "--output", "o").clean.fill == (-1, 2)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: COMMAND"),
        (["convrt"], "did you mean convert?"),
        (["convert", "x.tif"], "required: --output"),
        (["convert", "x.tif", "--output", "o", "--tile_sise", "3"], "did you mean --tile_size?"),
        (["convert", "x.tif", "--output", "o", "--edge", "pat"], "did you mean pad?"),
        (["convert", "x.tif", "--output", "o", "--direct_num_worker=3"], "--direct_num_workers?"),
        (["verify", "o", "--fast"], "unknown argument --fast"),
        (["convert", "--output", "o"], "no scenes"),
        (["convert", "nothing.tif", "--output", "o"], "no such file or folder"),
        (["convert", "s.tif", "--output", "o", "--config", "no.yaml"], "no.yaml: No such file"),
        (["convert", "s.tif", "--output", "o", "--tile_size", "0"], "tile.size"),
        (["convert", "s.tif", "--output", "s.tif"], "is a file"),
        (["synth", "o", "--size", "3"], "--size of at least 16"),
        (["shard", "."], "scenes.jsonl: not there"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_2(scene, argv, words):
    done = scenefeed(*argv, code=2, cwd=scene.parent)
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not (scene.parent / "o").exists()


@pytest.mark.parametrize("command", ["verify", "check"])
def test_no_dataset_is_exit_1(tmp_path, command):
    (line,) = scenefeed(command, tmp_path, code=1).stderr.splitlines()
    assert "holds no complete dataset" in line


def test_dry_run_tells_the_plan_and_writes_nothing(scene, tmp_path):
    write_raster(tmp_path / "small.tif", np.ones((1, 8, 8), np.float32))
    done = scenefeed("convert", tmp_path, "--output", tmp_path / "out", "--dry_run",
                     "--tile_size", 16, "--json", tmp_path / "plan.json", code=1)  # fmt: skip
    assert "s: 64 x 64, b1 float32, grid 4 x 4 = 16 patches" in done.stdout
    assert "skip small: a tile of 16 is larger than the scene" in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["patches"] == 16
    assert plan["shards"] == {"train": 1}
    assert [s["scene"] for s in plan["skipped"]] == ["small"]
    assert not (tmp_path / "out").exists()


def test_help_names_every_command():
    done = scenefeed("--help")
    for command in ("convert", "shard", "verify", "check", "synth"):
        assert command in done.stdout
        assert "usage" in scenefeed(command, "--help").stdout

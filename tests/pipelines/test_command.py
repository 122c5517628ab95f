"""The command: flags, exit codes, one line for each mistake."""

import json

import numpy as np
import pytest

from scenefeed.pipelines.arguments import join_numbers
from scenefeed.pipelines.commands import build_parser
from scenefeed.pipelines.options import config_from
from tests.conftest import errors, write_raster
from tests.conftest import in_process as scenefeed


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
        (["verify", "o", "--jsn", "x"], "did you mean --json?"),
        (["verify", "o", "p"], "unexpected argument p"),
        (["shard", "o", "--dry_run"], "unknown flag --dry_run"),
        (["shard", "o", "--tile_size", "3"], "unknown flag --tile_size"),
        (["convert", "s.tif", "--output", "o", "-tile_size", "32"], "did you mean --tile_size?"),
        (
            ["convert", "s.tif", "--output", "o", "--json", "no/x.json"],
            "no/x.json cannot be written",
        ),
        (["convert", "s.tif", "--output", "o[1]"], "choose another name"),
        (["check", "o", "--batch_size", "0"], "0 is not a number from 1"),
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


def test_scenes_may_stand_behind_flags(tmp_path):
    for name in "ab":
        write_raster(tmp_path / f"{name}.tif", np.ones((1, 64, 64), np.float32))
    done = scenefeed("convert", "a.tif", "--output", "o", "--runner", "DirectRunner", "b.tif",
                     "--dry_run", cwd=tmp_path)  # fmt: skip
    assert "2 scenes, 2 patches" in done.stdout


def test_flags_put_another_split_and_size_in_place_of_the_yamls(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "split: {by: block, block: 512, fractions: {train: 0.9, dev: 0.1}}\n"
        "records: {num_shards: 4}\n"
    )
    argv = ["--config", str(tmp_path / "c.yaml"), "--output", "o"]
    found = config(*argv, "--split_by", "patch", "--shard_mb", "8")
    assert (found.split.by, found.split.block) == ("patch", None)
    assert found.split.fractions == {"train": 0.9, "dev": 0.1}
    assert (found.records.num_shards, found.records.shard_mb) == (None, 8)
    assert config(*argv, "--split_by", "block").split.block == 512


def test_folders_with_brackets_in_their_names(tmp_path):
    folder = tmp_path / "run[1]"
    write_raster(folder / "a.tif", np.ones((1, 64, 64), np.float32))
    done = scenefeed("convert", "*.tif", "--output", tmp_path / "o", "--dry_run", cwd=folder)
    assert "1 scenes, 1 patches" in done.stdout


def test_dry_run_refuses_what_a_run_would_refuse(small_dataset):
    argv = ["--config", small_dataset / "config.yaml", "--output", small_dataset / "out"]
    (line,) = scenefeed("convert", *argv, "--tile_size", 8, "--dry_run", code=2).stderr.splitlines()
    assert "another configuration" in line


def test_records_of_something_else_are_left_alone(scene, tmp_path):
    foreign = tmp_path / "o/records/train-00000-of-00001.tfrecord"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"theirs")
    (line,) = scenefeed("convert", scene, "--output", tmp_path / "o", code=2).stderr.splitlines()
    assert "something else" in line
    assert foreign.read_bytes() == b"theirs"


def test_a_scalar_that_no_scene_has(scene, tmp_path):
    (tmp_path / "m.csv").write_text(f"id,path,inc_angle\na,{scene},30.5\n")
    (tmp_path / "c.yaml").write_text("scenes: {paths: [m.csv]}\nscalars: [inc_angel]\n")
    argv = ["--config", tmp_path / "c.yaml", "--output", tmp_path / "o"]
    (line,) = errors(scenefeed("convert", *argv, "--dry_run", code=1))
    assert "scalars: has no property 'inc_angel': did you mean 'inc_angle'?" in line


def test_no_patch_left_says_what_took_them(scene, tmp_path):
    (tmp_path / "m.csv").write_text(f"id,path,region\na,{scene},north\n")
    (tmp_path / "c.yaml").write_text(
        "scenes: {paths: [m.csv]}\n"
        "split: {by: column, column: region, values: {train: south, val: east}}\n"
    )
    argv = ["--config", tmp_path / "c.yaml", "--output", tmp_path / "o"]
    (line,) = errors(scenefeed("convert", *argv, code=1))
    assert "sample and split leave none of" in line

"""Scenes staged while the command starts: the same comes out, and nothing is left behind.

Processes are forked before Beam is imported, so that all of it runs in fresh Pythons."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scenefeed.transforms import headstart
from scenefeed.transforms.scenes import Asset, SceneFiles
from tests.conftest import errors, scenefeed, write_raster


@pytest.fixture
def folder(tmp_path):
    """Five scenes, one of another dtype, each with a mask."""
    rng = np.random.default_rng(3)
    for i, dtype in enumerate(("uint8", "int16", "uint8", "uint8", "uint8")):
        pixels = rng.integers(0, 200, (2, 64, 64)).astype(dtype)
        write_raster(tmp_path / f"scenes/s{i}.tif", pixels)
        write_raster(tmp_path / f"labels/s{i}.tif", rng.integers(0, 3, (1, 64, 64), np.uint8))
    (tmp_path / "config.yaml").write_text(
        "scenes: {paths: [scenes]}\n"
        "labels: {water: {kind: raster, path: 'labels/{id}.tif', ignore: [2]}}\n"
        "tile: {size: 16}\n"
        "split: {by: patch, fractions: {train: 0.7, val: 0.3, test: 0}}\n"
    )
    return tmp_path


# What a script begins with: two processes, whatever the machine has, of these five scenes.
BEGIN = """
import os, signal, sys, time
from pathlib import Path
from scenefeed.transforms import headstart, staging
from scenefeed.transforms.config import load_yaml, parse
from scenefeed.transforms.finding import find_scenes
from scenefeed.transforms.headstart import HeadStart
from scenefeed.transforms.planning import agree, fit, plan_scene
from scenefeed.transforms.staging import stage_scene

def wait_for(done):
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)

def ready(plans, number):
    return fit(plans[number], agree(plans))

here, stage, own = Path.cwd(), str(Path("stage").resolve()), f":{os.getpid()}"
os.makedirs(stage)
config = parse(load_yaml("config.yaml"), "config.yaml")
scenes = find_scenes(config, here)
plain = [plan_scene(s, config) for s in scenes]
"""


def run(code: str, folder, expected: int = 0, begin: str = BEGIN) -> str:
    """What a script prints, run in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", begin + code], cwd=folder, timeout=100, check=False,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def contents(folder):
    """Every file but those that tell times and sizes of processes."""
    found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {str(k): p.read_bytes() for k, p in found.items() if p.name != "metrics.json"}


def test_the_same_comes_out(folder):
    """A flag of Beam's means no head start, since only Beam knows what it says."""
    (folder / "scenes/s3.tif").write_bytes(b"no raster")
    write_raster(folder / "scenes/s4.tif", np.ones((3, 64, 64), np.uint8))  # one band more
    argv = ("convert", "--config", folder / "config.yaml", "--output")
    ahead = scenefeed(*argv, folder / "out", code=1)
    plain = scenefeed(*argv, folder / "plain", "--direct_num_workers=2", code=1)
    assert contents(folder / "out") == contents(folder / "plain")
    letters = [json.loads(x) for x in (folder / "out/errors.jsonl").read_text().splitlines()]
    assert [(d["scene"], d["step"]) for d in letters] == [("s3", "plan"), ("s4", "plan")]
    assert errors(ahead) == [x.replace("/plain", "/out") for x in errors(plain)]
    metrics, expected = (
        json.loads((folder / out / "metrics.json").read_text()) for out in ("out", "plain")
    )
    for key in ("scenes", "patches", "bytes", "tallies", "worker_bytes", "workers"):
        assert metrics[key] == expected[key]
    phases = metrics["phases"]
    assert sum(phases.values()) == pytest.approx(metrics["wall_seconds"], abs=0.01)
    work = metrics["conversion"]["work_seconds"] - phases["write"]
    assert 0 < work < phases["stage"] + 1e-6
    # A run that was broken off finds what was staged.
    (folder / "out/dataset.json").unlink()
    (folder / "out/stage/s0.h5").unlink()
    scenefeed(*argv, folder / "out", code=1)
    assert contents(folder / "out") == contents(folder / "plain")
    again = json.loads((folder / "out/metrics.json").read_text())["scenes"]
    assert again == {"done": 3, "reused": 2, "failed": 2}


def test_what_the_processes_have_done_is_taken(folder):
    code = """
with HeadStart(scenes, config, stage, False, 2) as start:
    wait_for(lambda: all(f.done() for f in start._staged))
    plans = [headstart.plan(s, config) for s in scenes]
    assert plans == plain
    staged = [headstart.stage(ready(plans, i), config, stage, False) for i in range(5)]
assert not headstart.is_under_way()
assert not any(s.usage.worker.endswith(own) or s.reused for s in staged)
print(*(s.id for s in staged))
again = [headstart.stage(ready(plain, i), config, stage, False) for i in range(5)]
assert all(s.usage.worker.endswith(own) and s.reused for s in again)
keys = ("id", "path", "staged", "header", "content", "fingerprint", "stage_bytes", "tallies")
assert [[getattr(s, k) for k in keys] for s in again] == [
    [getattr(s, k) for k in keys] for s in staged]
"""
    assert run(code, folder) == "s0 s1 s2 s3 s4\n"


# Scene s0 takes a process as long as it must.
SLOW = (
    BEGIN
    + """
def slow(scene, *given):
    Path(f"begun-{scene.id}").touch()
    if scene.id == "s0" and not os.getpid() == int(own[1:]):
        wait_for(Path("go-on").exists)
    return stage_scene(scene, *given)

headstart.stage_scene = slow
"""
)


def test_what_is_begun_is_waited_for_and_the_rest_is_ones_own(folder):
    """When the pipeline has come, processes begin nothing."""
    code = """
import threading
with HeadStart(scenes, config, stage, False, 1) as start:
    wait_for(Path("begun-s0").exists)
    plans = [headstart.plan(s, config) for s in scenes]
    found = [headstart.stage(ready(plans, i), config, stage, False) for i in (4, 3)]
    assert all(s.usage.worker.endswith(own) for s in found)
    threading.Timer(0.3, Path("go-on").touch).start()
    theirs = headstart.stage(ready(plans, 0), config, stage, False)
    assert Path("go-on").exists() and not theirs.usage.worker.endswith(own)
    start._processes[0].join(30)
    print(sorted(p.name for p in here.glob("begun-*")))
    assert headstart.stage(ready(plans, 1), config, stage, False).usage.worker.endswith(own)
"""
    assert run(code, folder, begin=SLOW) == "['begun-s0', 'begun-s3', 'begun-s4']\n"


def test_what_a_killed_process_was_at_is_done_again(folder):
    code = """
with HeadStart(scenes, config, stage, False, 1) as start:
    wait_for(Path("begun-s0").exists)
    os.kill(start._processes[0].pid, signal.SIGKILL)
    plans = [headstart.plan(s, config) for s in scenes]
    assert plans == plain
    found = [headstart.stage(ready(plans, i), config, stage, False) for i in range(5)]
print(*(s.id for s in found if s.usage.worker.endswith(own) and not s.reused))
"""
    assert run(code, folder, begin=SLOW) == "s0 s1 s2 s3 s4\n"


def test_who_fails_there_fails_in_the_pipeline(folder):
    code = """
def broken(*given):
    raise MemoryError

headstart.stage_scene = broken
with HeadStart(scenes, config, stage, False, 2) as start:
    wait_for(lambda: all(f.done() for f in start._staged))
    plans = [headstart.plan(s, config) for s in scenes]
    try:
        headstart.stage(ready(plans, 0), config, stage, False)
    except MemoryError:
        print("as ever")
"""
    assert run(code, folder) == "as ever\n"


# The command, whose import of Beam fails when half of a stage file is written.
HALF = """
from scenefeed.pipelines import cli, lean
from scenefeed.transforms.stagefile import StageWriter
from scenefeed.transforms.errors import JobError

def half_written():
    return list(here.glob("out/stage/.*.tmp"))

def commit(*given):
    time.sleep(60)

def import_beam():
    wait_for(half_written)
    (fail)

StageWriter.commit, lean.import_beam = commit, import_beam
headstart.how_many = lambda scenes: 2
code = cli.main(["convert", "--config", "config.yaml", "--output", "out"])
print([str(p) for p in here.glob("out/**/*") if p.is_file()])
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("fail", "code"), [("raise KeyboardInterrupt", 130), ("raise JobError('no Beam')", 1)]
)
def test_nothing_half_is_left_of_a_command_that_ends(folder, fail, code):
    assert run(HALF.replace("(fail)", fail), folder, code) == "[]\n"


def test_processes_end_with_a_command_that_is_killed(folder):
    code = """
with HeadStart(scenes, config, stage, False, 2) as start:
    wait_for(Path("begun-s0").exists)
    print(*(p.pid for p in start._processes), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    pids = [int(p) for p in run(code, folder, -signal.SIGKILL, SLOW).split()]
    end = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(pids) == 2


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def test_where_there_is_none(monkeypatch):
    def scenes(number, path="a.tif"):
        return [SceneFiles(f"s{i}", (Asset(path),)) for i in range(number)]

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    monkeypatch.setattr("sys.modules", {k: v for k, v in sys.modules.items() if k != "apache_beam"})
    assert [headstart.how_many(scenes(n)) for n in (0, 1, 2, 3, 9)] == [0, 1, 2, 3, 3]
    assert headstart.how_many(scenes(10_000)) == 0
    assert headstart.how_many(scenes(2, "s3://bucket/a.tif")) == 0
    for name, value in (
        ("threading.active_count", lambda: 2),
        ("sys.platform", "darwin"),
        ("os.sched_getaffinity", lambda _: range(1)),
        ("sys.modules", sys.modules | {"apache_beam": None}),
    ):
        with monkeypatch.context() as other:
            other.setattr(name, value)
            assert headstart.how_many(scenes(3)) == 0

"""What the command's own processes do: the same comes out, and nothing is left behind.

Processes are forked before Beam is imported, so that all of it runs in fresh Pythons."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scenefeed.transforms import processes
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


# What a script begins with.
BEGIN = """
import multiprocessing, os, signal, sys, threading, time
from pathlib import Path
from scenefeed.transforms import processes
from scenefeed.transforms.config import load_yaml, parse
from scenefeed.transforms.finding import find_scenes
from scenefeed.transforms.processes import Processes
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
    """A flag of Beam's means no processes, since only Beam knows what it says."""
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


def test_processes_plan_and_stage(folder):
    code = """
with Processes(scenes, config, stage, False, 2):
    assert processes.are_at_work()
    plans = [processes.plan(s, config) for s in scenes]
    assert plans == plain
    staged = [processes.stage(ready(plans, i), config, stage, False) for i in range(5)]
    used = processes.usages()
    assert {u.worker for u in used} >= {s.usage.worker for s in staged} and len(used) == 2
    assert all(u.peak >= u.rss > 1 << 20 and u.cpu > 0 for u in used)
assert not processes.are_at_work() and not processes.usages()
assert not any(s.usage.worker.endswith(own) or s.reused for s in staged)
print(*(s.id for s in staged))
again = [processes.stage(ready(plain, i), config, stage, False) for i in range(5)]
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

processes.stage_scene = slow
"""
)


def test_the_last_process_begins_when_the_pipeline_asks(folder):
    """Until then a core is the command's own."""
    code = """
with Processes(scenes, config, stage, False, 2):
    wait_for(Path("begun-s0").exists)
    time.sleep(0.5)
    print(sorted(p.name for p in here.glob("begun-*")))
    plans = [processes.plan(s, config) for s in scenes]
    found = [processes.stage(ready(plans, i), config, stage, False) for i in (4, 3, 2, 1)]
    assert not Path("stage/s0.h5").exists()
    threading.Timer(0.3, Path("go-on").touch).start()
    found.append(processes.stage(ready(plans, 0), config, stage, False))
    print(*(s.id for s in found if not s.usage.worker.endswith(own)))
    print(len({s.usage.worker for s in found}))
"""
    assert run(code, folder, begin=SLOW) == "['begun-s0']\ns4 s3 s2 s1 s0\n2\n"


@pytest.mark.parametrize("count", [1, 3])
def test_what_killed_processes_were_at_is_done_again(folder, count):
    code = """
with Processes(scenes, config, stage, False, (count)):
    wait_for(Path("begun-s0").exists)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    plans = [processes.plan(s, config) for s in scenes]
    assert plans == plain
    found = [processes.stage(ready(plans, i), config, stage, False) for i in range(5)]
mine = [s.id for s in found if s.usage.worker.endswith(own)]
assert len(mine) == 5 or (count) > 1
print(*(s.id for s in found), "s0" in mine)
"""
    assert run(code.replace("(count)", str(count)), folder, begin=SLOW) == "s0 s1 s2 s3 s4 True\n"


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_that_is_killed_while_it_plans(folder, count):
    """The scene whose plan is lost is the one that widens the dtype of all."""
    code = """
def dying(scene, config):
    if scene.id == "s1" and own != f":{os.getpid()}":
        os.kill(os.getpid(), signal.SIGKILL)
    return plan_scene(scene, config)

processes.plan_scene = dying
with Processes(scenes, config, stage, False, (count)):
    plans = [processes.plan(s, config) for s in scenes]
    assert plans == plain
    found = [processes.stage(ready(plans, i), config, stage, False) for i in range(5)]
print(*(s.header.dtype for s in found))
"""
    assert run(code.replace("(count)", str(count)), folder) == "int16 int16 int16 int16 int16\n"


def test_who_waits_when_it_ends_does_nothing(folder):
    code = """
from scenefeed.transforms.errors import JobError

with Processes(scenes, config, stage, False, 1) as held:
    plans = [processes.plan(s, config) for s in scenes]
for ask in (lambda: held.plan(scenes[0], config),
            lambda: held.stage(ready(plans, 0), config, stage, False)):
    try:
        ask()
    except JobError as e:
        print(e)
"""
    assert run(code, folder) == "the conversion has ended\n" * 2


def test_what_cannot_be_sent_is_done_again(folder):
    code = """
def odd(scene, *given):
    found = stage_scene(scene, *given)
    if own != f":{os.getpid()}":
        object.__setattr__(found, "tallies", lambda: None)
    return found

processes.stage_scene = odd
with Processes(scenes, config, stage, False, 1):
    plans = [processes.plan(s, config) for s in scenes]
    found = [processes.stage(ready(plans, i), config, stage, False) for i in range(5)]
print({s.usage.worker.endswith(own) for s in found})
"""
    assert run(code, folder) == "{True}\n"


# What a shard of all training patches is filled with.
SHARD = """
from scenefeed.transforms import records
from scenefeed.transforms.assign import assign_scene, plan_shards
from scenefeed.transforms.choosing import choose
from scenefeed.transforms.planning import features, record_bytes
from scenefeed.transforms.stagefile import read_contents

def shard(staged):
    layout = agree(plain)
    found = features(layout, config)
    counts = {s.id: choose(s, config, {}).counts(config) for s in staged}
    shards = plan_shards(counts, record_bytes(layout, config), config)
    parts = []
    for s in staged:
        held = read_contents(s.path, found)
        choice = choose(s, config, {}, held)
        parts += [p.pack(config.records.seed) for split, _, p in assign_scene(s, choice, shards, held, config)
                  if split == "train"]
    return parts, found, None
"""


def test_shards_are_filled_there_with_the_same_bytes(folder):
    code = """
with Processes(scenes, config, stage, False, 2):
    plans = [processes.plan(s, config) for s in scenes]
    given = shard([processes.stage(ready(plans, i), config, stage, False) for i in range(5)])
    found = processes.fill("found", *given)
    assert processes.fill("no/such/folder", *given) is None
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    assert processes.fill("found", *given) is None
mine = records.fill("expected", *given)
assert Path("found").read_bytes() == Path("expected").read_bytes()
assert list(found.lengths) == list(mine.lengths) and len(mine.lengths) > 10
assert (found.num_bytes, found.sha256) == (mine.num_bytes, mine.sha256)
assert not found.usage.worker.endswith(own)
assert processes.fill("found", *given) is None
print("same")
"""
    assert run(code, folder, begin=BEGIN + SHARD) == "same\n"


@pytest.mark.parametrize("share", [0, 1])
def test_scenes_are_counted_there(folder, share):
    """At once, or behind all that are staged."""
    code = """
from scenefeed.transforms.statistics.counting import Counting

processes._HELD = (share)
os.makedirs("counts")
counting = Counting("counts", "salt")
with Processes(scenes, config, stage, False, 2, counting) as held:
    plans = [processes.plan(s, config) for s in scenes]
    staged = [processes.stage(ready(plans, i), config, stage, False) for i in range(5)]
    processes.wait_counted()
    there = sorted(os.listdir("counts"))
    late = [held.is_counted(s) for s in staged]
print(len(there), all(x.endswith(".npz") for x in there), *late)
"""
    late = " ".join([str(bool(share))] * 5)
    assert run(code.replace("(share)", str(share)), folder) == f"5 True {late}\n"


@pytest.mark.parametrize("strict", [False, True])
def test_what_was_not_counted_there_is_counted_by_the_pipeline(folder, strict):
    code = """
from scenefeed.transforms.statistics.counting import Counting

def failing(scene, config, counting):
    os.kill(os.getpid(), signal.SIGKILL) if scene.id == "s1" else keep(scene, config, counting)

keep, processes.keep_counts = processes.keep_counts, failing
os.makedirs("counts")
counting = Counting("counts", "salt")
with Processes(scenes, config, stage, False, 2, counting) as held:
    plans = [processes.plan(s, config) for s in scenes]
    staged = [processes.stage(ready(plans, i), config, stage, False) for i in range(5)]
    processes.wait_counted()
    print(len(os.listdir("counts")), *(held.is_counted(s) for s in staged))
    processes.keep_counts = keep
    from scenefeed.transforms.pipeline import _CountScene
    chosen = [processes.choose(s, config, {}).counts(config) for s in staged]
    for s, counts in zip(staged, chosen):
        s = processes.dataclasses.replace(s, counts=counts)
        list(_CountScene(config, counting, strict=(strict)).process(s))
    print(len(os.listdir("counts")))
"""
    told = run(code.replace("(strict)", str(strict)), folder)
    assert told == "4 True False True True True\n5\n"


def test_a_disk_that_is_full_in_the_last_block(folder):
    code = """
import resource
staged = [stage_scene(s, ready(plain, i).header, config, stage, False)
          for i, s in enumerate(scenes)]
given = shard(staged)
size = records.fill("whole", *given).num_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (size - 10, size - 10))
try:
    records.fill("cut", *given)
except OSError as e:
    print(e.strerror)
"""
    assert run(code, folder, begin=BEGIN + SHARD) == "File too large\n"


def test_what_fails_there_fails_in_the_pipeline(folder):
    code = """
def broken(*given):
    raise MemoryError(os.getpid())

processes.stage_scene = broken
with Processes(scenes, config, stage, False, 2):
    plans = [processes.plan(s, config) for s in scenes]
    for i in range(5):
        try:
            processes.stage(ready(plans, i), config, stage, False)
        except MemoryError as e:
            print(e.args == (os.getpid(),))
"""
    assert run(code, folder) == "True\n" * 5


# The command, whose import of Beam fails when half of a stage file is written.
HALF = """
from scenefeed.pipelines import cli, lean
from scenefeed.transforms.stagewriter import StageWriter
from scenefeed.transforms.errors import JobError

def half_written():
    return list(here.glob("out/stage/.*.tmp"))

def commit(*given):
    time.sleep(60)

def import_beam():
    wait_for(half_written)
    (fail)

StageWriter.commit, lean.import_beam = commit, import_beam
processes.how_many = lambda scenes: 2
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
with Processes(scenes, config, stage, False, 2):
    wait_for(Path("begun-s0").exists)
    print(*(p.pid for p in multiprocessing.active_children()), flush=True)
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
    assert [processes.how_many(scenes(n)) for n in (0, 1, 2, 9)] == [0, 4, 4, 4]
    assert processes.how_many(scenes(2, "s3://bucket/a.tif")) == 0
    for name, value in (
        ("threading.active_count", lambda: 2),
        ("sys.platform", "darwin"),
        ("os.sched_getaffinity", lambda _: range(1)),
        ("sys.modules", sys.modules | {"apache_beam": None}),
    ):
        with monkeypatch.context() as other:
            other.setattr(name, value)
            assert processes.how_many(scenes(3)) == 0

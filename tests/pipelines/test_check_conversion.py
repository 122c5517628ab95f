"""check's figures of a conversion: metrics.json, a sample, the machine's limits, memory."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest

from scenefeed.loader.spec import DatasetError, DatasetSpec
from scenefeed.pipelines.check import sample
from scenefeed.pipelines.check.conversion import conversion
from scenefeed.pipelines.check.limits import measure_limits
from scenefeed.pipelines.check.memory import tracking
from scenefeed.pipelines.check.targets import targets_from
from scenefeed.pipelines.metrics import _conversion, _phases
from scenefeed.transforms.errors import ConfigError, JobError
from scenefeed.transforms.usage import Usage
from tests.conftest import write_raster

STEPS = ["read", "clean", "tile", "labels", "stage", "gather", "serialize", "write"]
TARGETS = targets_from()


@pytest.fixture
def dataset(small_dataset, tmp_path):
    return shutil.copytree(small_dataset / "out", tmp_path / "out")


@pytest.fixture
def scenes(small_dataset):
    return str(small_dataset / "scenes")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Limits as they were measured once: most tests are about what is made of them."""
    limits = {
        "cores": 2, "core_mb_per_s": 900.0, "memcpy_mb_per_s": 4000.0,
        "memcpy_all_mb_per_s": 6000.0, "write_mb_per_s": 300.0, "read_mb_per_s": 600.0,
        "copy_mb_per_s": 800.0, "cached": False,
    }  # fmt: skip
    monkeypatch.setattr(
        "scenefeed.pipelines.check.conversion.measure_limits", lambda _: dict(limits)
    )
    return limits


def rewrite(dataset, change):
    path = dataset / "metrics.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))
    return metrics


def large(metrics, seconds=100.0, work=90.0, cpu=1.6, gb=1.0):
    """A run of ``gb`` GB, whose steps used ``cpu`` processors."""
    metrics["conversion"] = {
        "source_bytes": gb * 1e9, "seconds": seconds, "mb_per_s": gb * 1e3 / seconds,
        "work_seconds": work,
    }  # fmt: skip
    metrics["bytes"]["source"] = gb * 1e9
    metrics["worker_seconds"] = dict.fromkeys(STEPS, 2 * work / len(STEPS))
    metrics["worker_cpu_seconds"] = dict.fromkeys(STEPS, cpu * work / len(STEPS))
    metrics["worker_bytes"] = dict.fromkeys(STEPS, int(gb * 1e9))
    metrics["workers"] = 2


def test_metrics_tell_each_step_by_clock_processor_and_bytes(dataset):
    metrics = json.loads((dataset / "metrics.json").read_text())
    assert list(metrics["worker_seconds"]) == list(metrics["worker_cpu_seconds"]) == STEPS
    moved = metrics["worker_bytes"]
    assert moved["read"] == moved["clean"] == moved["tile"] == 2 * 64 * 64 * 2 * 4
    assert moved["labels"] == 2 * 64 * 64
    assert moved["gather"] == moved["serialize"] == moved["tile"] + moved["labels"]
    spec = DatasetSpec.load(str(dataset))
    assert moved["write"] == sum(s.num_bytes for s in spec.splits.values()) > moved["gather"]
    assert moved["stage"] == sum(os.path.getsize(p) for p in (dataset / "stage").iterdir())
    for step, seconds in metrics["worker_cpu_seconds"].items():
        assert 0 <= seconds <= metrics["worker_seconds"][step] + 0.1
    phases = metrics["phases"]
    assert sum(phases.values()) == pytest.approx(metrics["wall_seconds"], abs=0.01)
    assert phases["start"] > phases["stage"] > 0 < phases["write"]
    work = metrics["conversion"]["work_seconds"] - phases["write"]
    assert 0 < work <= phases["stage"] + 1e-6
    assert metrics["cpu_seconds"] > sum(metrics["worker_cpu_seconds"].values())
    for phase in ("stage", "write"):
        assert 50e6 < metrics["memory"][phase]["peak_bytes"] <= metrics["peak_memory_bytes"]


def test_counting_grows_with_pixels_and_is_work():
    here = Usage.now().worker

    def done(begin, end, worker=here):
        return SimpleNamespace(
            seconds={"x": end - begin}, usage=Usage(worker, end, 1, 1, 1.0),
            header=SimpleNamespace(file_bytes=1000),
        )  # fmt: skip

    scenes, shards = [done(5, 8), done(6, 10)], [done(17, 20)]
    plain = SimpleNamespace(started=2, counting=None, is_here=True, workers=2)
    found = _phases(plain, scenes, shards, 19)
    assert found == {"start": 3, "stage": 5, "write": 3, "other": 8}
    assert _conversion(plain, scenes, scenes, shards, 19)["work_seconds"] == 8
    counted = SimpleNamespace(started=2, counting=object(), is_here=True, workers=2)
    found = _phases(counted, scenes, shards, 19)
    assert found == {"start": 3, "stage": 5, "count": 7, "write": 3, "other": 1}
    assert _conversion(counted, scenes, scenes, shards, 19)["work_seconds"] == 15
    assert "count" not in _phases(counted, [], shards, 19)
    # One process did all, beside the start: of two workers it would have been half as long.
    ahead = [done(3, 6, "other"), done(6, 10, "other"), done(10, 13, "other")]
    assert _phases(plain, ahead, shards, 19)["stage"] == 10
    assert _conversion(plain, ahead, ahead, shards, 19)["work_seconds"] == 5 + 3
    assert _conversion(plain, ahead[:2], ahead[:2], shards, 19)["work_seconds"] == 4 + 3


def test_start_up_counts_once_when_it_is_extrapolated(dataset):
    rewrite(dataset, large)
    results, section = conversion(dataset, TARGETS)
    whole, many, memory = results
    assert (whole["name"], whole["value"], whole["met"]) == ("conversion", 10, None)
    assert many["name"] == "conversion of 100 GB"
    assert many["value"] == 10 + 90 * 100
    assert many["met"] is False
    assert section["hours_per_100_gb"] == pytest.approx(9010 / 3600)
    assert section["start_seconds"] == 10
    assert section["mb_per_s_per_core"] == 5
    assert section["core_seconds_per_gb"] == pytest.approx(1.6 * 90)
    assert memory["met"] is True
    shares = [s["share"] for s in section["stages"].values()]
    assert shares == [pytest.approx(1 / 8)] * 8
    assert section["stages"]["read"]["of_limit"] == pytest.approx(1e3 / (180 / 8) / 600)


@pytest.mark.parametrize(
    ("cpu", "work", "changed", "bound", "words"),
    [
        (1.6, 90, {}, "cpu", "processors were busy 80%"),
        (0.4, 10, {"write_mb_per_s": 250.0}, "disk", "250 written, needs 97% of that time"),
        (0.4, 10, {"memcpy_all_mb_per_s": 1000.0, "write_mb_per_s": 900.0}, "memory", "needs 80%"),
        (0.4, 90, {}, "waiting", "nothing was used more than 20% (cpu)"),
    ],
)
def test_the_bound_is_what_was_used_most(dataset, quick, monkeypatch, cpu, work, changed, bound, words):  # fmt: skip
    rewrite(dataset, lambda m: large(m, work + 10, work, cpu))
    monkeypatch.setattr(
        "scenefeed.pipelines.check.conversion.measure_limits", lambda _: quick | changed
    )
    strict = targets_from(convert_mb_per_s=1e6)
    (_, missed, _), section = conversion(dataset, strict)
    assert section["bound"] == bound
    assert missed["met"] is False
    assert words in missed["advice"]


def test_the_disk_is_named_where_the_page_cache_hid_it(dataset):
    rewrite(dataset, lambda m: large(m, 12, 2))
    _, section = conversion(dataset, TARGETS)
    assert section["uses"]["disk"] == pytest.approx((1e3 / 600 + 2e3 / 300) / 2)
    assert any("which the page cache hid" in w for w in section["warnings"])


def test_small_conversions_get_no_verdict(dataset):
    (whole, many, _), _ = conversion(dataset, targets_from(convert_mb_per_s=1e6))
    assert whole["met"] is many["met"] is None
    assert "no verdict from less than 100 MB" in many["words"]


def test_an_older_metrics_json_gives_its_rate_alone(dataset):
    def older(metrics):
        large(metrics)
        for key in ("worker_cpu_seconds", "worker_bytes", "phases", "memory", "cpu_seconds"):
            del metrics[key]
        del metrics["conversion"]["work_seconds"]

    rewrite(dataset, older)
    results, section = conversion(dataset, TARGETS)
    assert [r["name"] for r in results] == ["conversion", "peak memory, conversion"]
    assert results[0]["met"] is False
    assert "slowest step was read" in results[0]["advice"]
    assert section["bound"] is None
    assert section["hours_per_100_gb"] == pytest.approx(1e4 / 3600)
    assert "of an older version" in section["warnings"][0]


def test_a_run_that_found_its_scenes_staged_has_no_rate(dataset):
    rewrite(dataset, lambda m: m.update(conversion=None))
    (whole, _), section = conversion(dataset, TARGETS)
    assert whole["value"] is whole["met"] is None
    assert section["bound"] is None


def test_without_metrics_json_there_is_one_line(dataset):
    (dataset / "metrics.json").unlink()
    with pytest.raises(DatasetError, match=r"metrics\.json: cannot be read .* convert"):
        conversion(dataset, TARGETS)


@pytest.mark.parametrize("text", ["{", "[1]", "null", "{}", '{"bytes": {"source": 1}}'])
def test_a_damaged_metrics_json_is_one_line(dataset, text):
    (dataset / "metrics.json").write_text(text)
    with pytest.raises(
        DatasetError, match=r"metrics\.json: (cannot be read|says nothing of) .*convert"
    ):
        conversion(dataset, TARGETS)


def test_a_leak_is_reported(dataset):
    grown = {"leak": True, "bytes": 3 << 30, "seconds": 60.0, "noise_bytes": 16 << 20}
    rewrite(dataset, lambda m: m["memory"]["write"].update(growth=grown))
    _, section = conversion(dataset, TARGETS)
    assert any("grew while scenes were written: 3072 MiB in 60 s" in w for w in section["warnings"])


def test_limits_of_this_machine(tmp_path):
    limits = measure_limits(tmp_path, 0.1)
    rates = {k: v for k, v in limits.items() if k.endswith("_mb_per_s")}
    assert len(rates) == 6
    assert all(10 < rate < 1e6 for rate in rates.values())
    assert limits["cores"] == len(os.sched_getaffinity(0))
    assert not list(tmp_path.iterdir())


def test_no_room_to_measure_the_disk_is_one_line(tmp_path):
    code = (
        "import json, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from scenefeed.pipelines.check.limits import measure_limits\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "print(json.dumps(measure_limits(Path(sys.argv[1]), 0.1)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    limits = json.loads(done.stdout)
    assert "File too large" in limits["problem"]
    assert "write_mb_per_s" not in limits
    assert limits["memcpy_mb_per_s"] > 0


def test_memory_of_a_process_tree(tmp_path):
    holds = "import time; held = bytearray(b'x' * (200 << 20)); print(flush=True); time.sleep(60)"
    # The process that holds memory is a grandchild.
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    # Not of this process's tree, which holds and frees what other tests used.
    with tracking(process.pid, interval=0.02) as memory:
        process.stdout.readline()
        taken = len(memory.samples)
        while len(memory.samples) < taken + 3:
            time.sleep(0.02)
        os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()
    assert 200 << 20 <= memory.peak_bytes < 400 << 20
    times = [t for t, _ in memory.samples]
    assert times == sorted(times)


def test_the_sample_is_the_first_scenes_that_fit(dataset, scenes):
    config = DatasetSpec.load(str(dataset)).config
    both = sample.choose(config, [scenes])
    assert [s.id for s in both.scenes] == ["a", "b"]
    assert both.num_bytes == sum(os.path.getsize(f"{scenes}/{x}.tif") for x in "ab")
    # Labels are found from the folder above the scenes, as the configuration had them.
    assert [os.path.exists(s.labels["water"]) for s in both.scenes] == [True, True]
    one = sample.choose(config, [scenes], both.num_bytes - 1)
    assert ([s.id for s in one.scenes], one.found) == (["a"], 2)
    assert len(sample.choose(config, [scenes], 10).scenes) == 1


def test_scenes_that_are_not_there_and_labels_that_are_not(dataset, scenes, tmp_path):
    config = DatasetSpec.load(str(dataset)).config
    with pytest.raises(ConfigError, match="nothing"):
        sample.choose(config, [str(tmp_path / "nothing.tif")])
    alone = write_raster(tmp_path / "alone/c.tif", np.zeros((2, 64, 64), np.float32))
    with pytest.raises(ConfigError, match=r"labels of c\.tif are not where .* run this in"):
        sample.choose(config, [str(alone)])


def test_no_room_for_the_sample_is_one_line(dataset, scenes, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5))
    with pytest.raises(JobError, match=r"the sample takes up to 0 MB there, and 0 MB are free"):
        conversion(dataset, TARGETS, [scenes])


@pytest.mark.slow
def test_a_sample_is_converted_several_times_and_leaves_nothing(dataset, scenes):
    before = sorted(dataset.parent.rglob("*"))
    results, section = conversion(dataset, TARGETS, [scenes])
    assert section["from"] == "sample"
    assert len(results[0]["samples"]) == len(section["seconds"]) == sample.REPEATS
    assert results[0]["spread"][0] <= results[0]["value"] <= results[0]["spread"][1]
    assert section["source_bytes"] == sum(os.path.getsize(f"{scenes}/{x}.tif") for x in "ab")
    assert list(section["stages"]) == STEPS
    assert all(50e6 < t["peak_bytes"] < 2**31 for t in section["tree"])
    assert sorted(dataset.parent.rglob("*")) == before


@pytest.mark.slow
def test_what_cannot_be_converted_is_one_line(dataset, scenes, small_dataset, tmp_path):
    labels = small_dataset / "labels"  # of one band
    with pytest.raises(JobError, match=r"not converted: a: has 1 bands, but scenes\.bands names 2"):
        conversion(dataset, TARGETS, [str(labels)], seconds=0)
    folder = tmp_path / "scenes"
    shutil.copytree(scenes, folder)
    shutil.copytree(labels, tmp_path / "labels")
    whole = (folder / "b.tif").read_bytes()
    (folder / "b.tif").write_bytes(whole[: len(whole) // 2])
    results, section = conversion(dataset, TARGETS, [str(folder)], seconds=0)
    assert any("left out: b: " in w for w in section["warnings"])
    assert "no verdict" in results[-1]["words"]  # one repetition

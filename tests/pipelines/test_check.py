"""check by the real command, over records that were never converted, and over a conversion."""

import json
import os
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

from scenefeed.loader.spec import DatasetSpec, Split
from scenefeed.pipelines.check import cold, loading, table, worker
from scenefeed.pipelines.check.targets import PUBLISHED, Loading, Memory
from scenefeed.pipelines.cli import main
from scenefeed.pipelines.compare import compare
from scenefeed.pipelines.events import of_check
from scenefeed.pipelines.report.measured import check_table
from scenefeed.transforms.errors import JobError
from tests.conftest import scenefeed
from tests.loader.datasets import write_dataset

QUICK = ("--seconds", 0.01, "--step_ms", 1)


@pytest.fixture
def without_tensorflow(monkeypatch):
    """Importing it takes ten seconds."""
    monkeypatch.setattr(loading, "has_tensorflow", lambda: False)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "out", np.arange(60) % 3, shards=2)


@pytest.fixture
def check(capsys, tmp_path, without_tensorflow):
    def run(folder, *flags, code=0):
        found = main(["check", str(folder), "--json", str(tmp_path / "check.json"),
                      *map(str, (*QUICK, *flags))])  # fmt: skip
        done = capsys.readouterr()
        assert found == code, done.err
        said = [x for x in done.err.splitlines() if "the machine was busy" not in x]
        written = tmp_path / "check.json"
        report = json.loads(written.read_text()) if written.exists() else None
        return report, done.out, said

    return run


def by_name(report):
    return {r["name"]: r for r in report["results"]}


def test_figures_follow_from_the_samples(check, dataset):
    report, table, said = check(dataset, "--batch_size", 8)
    found = by_name(report)
    warm, first = found["Feed: 5 x 8 shuffled"], found["Feed: first batch, cold"]
    size = sum(p.stat().st_size for p in dataset.glob("records/*.tfrecord")) / 60
    assert len(warm["samples"]) >= 3
    assert warm["value"] == statistics.median(warm["samples"]) > 0
    assert warm["spread"] == [min(warm["samples"]), max(warm["samples"])]
    assert warm["p95"] == pytest.approx(np.percentile(warm["samples"], 95))
    assert warm["patches_per_s"] == pytest.approx(40 / warm["value"])
    assert warm["mb_per_s"] == pytest.approx(40 / warm["value"] * size / 1e6)
    chosen = found["Feed: 5 x 8 shuffled, cold"]
    assert len(chosen["samples"]) == len(first["samples"]) >= 3
    opened = report["loading"]["feeds"]["Feed"]["opened"]
    assert max(opened["resident"]) <= loading.LEFT
    assert opened["first_batch_of_a_process_seconds"] not in first["samples"]
    assert report["loading"]["feeds"]["Feed"]["warm"]["resident"] == 1
    assert 0 < found["Feed: utilization, steps of 1 ms"]["value"] <= 100
    assert 2**-10 < found["peak memory, Feed"]["value"] < 1  # a process with NumPy
    assert (report["split"], report["records"], report["met"]) == ("train", 60, True)
    assert report["machine"]["cores"] == os.cpu_count()
    assert 0 <= report["machine"]["busy"] <= 1
    assert said == []
    line = next(x for x in table.splitlines() if x.startswith("Feed: 5 x 8 shuffled  "))
    assert f"{warm['value']:.3g} s" in line
    assert "<= 2 s" in line
    assert "ok: " in line


def test_no_module_of_the_folder_it_runs_in_is_imported(check, dataset, monkeypatch):
    """An invariant: nothing in data is executed, also by `cd OUT; scenefeed check .`"""
    for name in ("statistics", "struct", "subprocess"):
        (dataset / f"{name}.py").write_text("raise SystemExit('it was run')")
    monkeypatch.chdir(dataset)
    report, _, said = check(".", "--batch_size", 8)
    assert report["met"], said
    (row,) = compare(".", alternatives=["feed"], batch_size=8, work=str(dataset))["rows"]
    assert row["status"] == "run", row["why"]


def test_what_was_not_measured_is_said_in_the_table(check, dataset):
    """No metrics.json, no TensorFlow: the rest is measured, and nothing is missed."""
    report, table, _ = check(dataset, "--batch_size", 8)
    for name, words in (("conversion", "metrics.json"), ("load: 5 x 8", "TensorFlow is not")):
        (line,) = (x for x in table.splitlines() if x.startswith(name))
        assert words in line
        assert "not measured" in line
    assert by_name(report)["conversion"]["met"] is None


def test_each_missed_target_is_named_with_advice(check, dataset, tmp_path):
    (tmp_path / "t.yaml").write_text(
        "loading: {seconds: 0, batch_size: 8, first_batch_seconds: 0}\nmemory: {gib: 0}\n"
    )
    report, table, said = check(dataset, "--targets", tmp_path / "t.yaml", code=1)
    missed = [r["name"] for r in report["results"] if r["met"] is False]
    assert missed == [
        "Feed: 5 x 8 shuffled", "Feed: 5 x 8 shuffled, cold", "Feed: first batch, cold",
        "peak memory, Feed",
    ]  # fmt: skip
    assert [x.split(": ", 1)[1].startswith(n) for x, n in zip(said, missed, strict=True)] == [
        True
    ] * 4
    assert table.count("MISSED") == 4
    for line in said[:3]:
        assert f"of {os.cpu_count()} processors busy and" in line
    assert "a batch is 0 MiB" in said[3]
    check(
        dataset, "--targets", tmp_path / "t.yaml", "--load_seconds", 60, "--memory_gib", 9, code=1
    )


def test_the_advice_says_what_bounded_the_feed(dataset):
    spec = DatasetSpec.load(dataset)
    section = {"batch_size": 8, "page_cache": "posix_fadvise", "disk_mb_per_s": 400}
    for used, words in (
        ((0.95, 0.0), "the processor bounds it"),
        ((0.2, 300.0), "300 of the 400 MB/s read from the disk: the disk bounds it"),
        ((0.2, 0.0), "it waited for something else"),
    ):
        view = loading._View("Feed", None, spec, "train", PUBLISHED, section)
        said = view._advice("x", dict(zip(("cores_busy", "disk_mb_per_s"), used, strict=True)))
        assert words in said
    section["page_cache"] = "remote"
    assert "waits for its store" in view._advice("x", {"cores_busy": 0.1, "disk_mb_per_s": 0})


def test_a_remote_dataset_has_no_cold_figure(dataset):
    used = {"cores_busy": 0.1, "disk_mb_per_s": 0.0, "resident": None}
    found = {
        "opened": {"seconds": [9] * 3, "first_batch_seconds": [1, 2, 3], **used, "resident": [None]},
        "warm": {"seconds": [3, 4, 5], **used},
        "memory": {"peak_bytes": 1, "growth": None}, "utilization": [0.5] * 3,
    }  # fmt: skip
    section = {
        "batch_size": 8, "page_cache": "remote", "disk_mb_per_s": None, "step_ms": 1, "warnings": []
    }  # fmt: skip
    targets = PUBLISHED.model_copy(update={"loading": Loading(batch_size=8)})
    spec = DatasetSpec.load(dataset)
    results = loading._View("Feed", found, spec, "train", targets, section).results()
    warm, chilled, first, *_ = results
    assert (warm["value"], warm["met"]) == (4, False)
    assert "the feed waits for its store: give it cache=FOLDER" in warm["advice"]
    assert (chilled["value"], chilled["met"]) == (None, None)
    assert chilled["words"].startswith("a remote dataset")
    assert (first["name"], first["value"]) == ("Feed: first batch", 2)
    grown = results[-1]
    assert (grown["shown"], grown["words"]) == ("too short to tell", "give --seconds 60")
    assert loading._files("s3://bucket/out", spec, "train") == ()


@pytest.mark.parametrize(
    ("leak", "rate", "met", "words"),
    [(True, 9, False, "95 %: 1 to 20"), (False, 9, None, "within its noise"), (False, 3, True, "")],
)
def test_growth_is_missed_where_it_is_no_noise(dataset, leak, rate, met, words):
    mib = 2**20 / 60  # bytes a second that are a MiB a minute
    grown = {"low": mib, "high": 20 * mib, "bytes_per_s": rate * mib, "bytes": 2**20, "seconds": 60}
    peak, growth, section = memory_of(dataset, grown | {"leak": leak})
    assert peak["met"] is True
    assert growth["value"] == pytest.approx(rate)
    assert growth["met"] is met
    assert words in growth["words"]
    assert [f"grew by {rate:.1f} MiB a minute over 60 s" in growth["advice"]] == [leak]
    assert len(section["warnings"]) == leak


def memory_of(dataset, grown):
    """A peak, a growth, and the section of a feed whose memory grew so."""
    section = {"batch_size": 8, "warnings": []}
    targets = PUBLISHED.model_copy(update={"memory": Memory(growth_mib_per_minute=4)})
    held = {"memory": {"peak_bytes": 1, "growth": grown}}
    view = loading._View("Feed", held, DatasetSpec.load(dataset), "train", targets, section)
    return *view._memory(), section


@pytest.mark.parametrize(
    ("low", "seconds", "leak", "met", "shown", "words"),
    [
        (-50, 2, False, None, "too short to tell", "over 2 s: give --seconds 60"),
        (1, 2, False, None, "too short to tell", "over 2 s: give --seconds 60"),
        (1, 2, True, True, "3 MiB/min", "over 2 s, 95 %: 1 to 9 MiB/min"),
        (-50, 40, False, True, "none seen", "over 40 s, 95 %: -50 to 9 MiB/min"),
        (1, 40, False, True, "3 MiB/min", "over 40 s, 95 %: 1 to 9 MiB/min"),
    ],
)
def test_growth_that_tells_nothing_is_no_figure(dataset, low, seconds, leak, met, shown, words):
    mib = 2**20 / 60
    grown = {"low": low * mib, "high": 9 * mib, "bytes_per_s": 3 * mib, "bytes": 2**20}
    _, growth, _ = memory_of(dataset, grown | {"seconds": seconds, "leak": leak})
    assert growth["value"] == pytest.approx(3)  # which the JSON keeps
    assert (growth["met"], growth["words"]) == (met, words)
    machine = {"cores": 1, "memory_gib": 1}
    report = {"dataset": "", "split": "", "records": 1, "machine": machine, "results": [growth]}
    (*_, line) = table(report).splitlines()
    figure = shown == "3 MiB/min"
    assert ("  3 MiB/min  " in line, f"  {shown}  " in line) == (figure, True)
    (row,) = check_table(report).rows
    assert (row[1], row[2]) == (shown, "3 to 3" if figure else "")
    assert ("memory growth, Feed/MiB/min" in of_check(report)) is figure


def test_fewer_patches_than_a_batch_are_no_verdict(check, dataset):
    report, _, said = check(dataset, "--load_seconds", 0)
    found = by_name(report)["Feed: 5 x 60 shuffled"]
    assert (found["met"], found["target"]) == (None, None)
    (line,) = said
    assert "train has 60 patches, fewer than a batch of 1,024" in line
    assert "--batch_size" in line
    assert line.removeprefix("scenefeed: ") in report["warnings"]


def test_an_empty_split_is_one_line(check, dataset):
    spec = DatasetSpec.load(dataset)
    spec.splits["val"] = Split.of([])
    (dataset / "dataset.json").write_text(spec.to_json())
    _, _, (line,) = check(dataset, "--split", "val", code=1)
    assert "split 'val' is empty" in line
    _, _, (line,) = check(dataset, "--split", "vla", code=1)
    assert "vla" in line


def test_damage_that_a_worker_finds_is_one_line(check, dataset):
    for path in dataset.glob("records/*.tfrecord"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    _, _, (line,) = check(dataset, "--batch_size", 60, code=1)
    assert ".tfrecord" in line
    (dataset / "records").rename(dataset / "gone")
    _, _, (line,) = check(dataset, code=1)
    assert "the shard is missing" in line


def test_without_permission_to_drop_caches_the_shards_alone_leave(check, dataset, monkeypatch):
    monkeypatch.setattr(cold, "DROP", dataset / "drop")
    report, _, (line,) = check(dataset, "--batch_size", 8, "--drop_caches")
    assert f"--drop_caches: no permission to write {dataset}" in line
    assert report["loading"]["page_cache"] == "posix_fadvise"


def test_files_that_cannot_leave_memory_are_not_measured_cold(check, dataset):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("there is no /dev/shm")
    folder = memory / f"check-{os.getpid()}"
    shutil.copytree(dataset, folder)
    try:
        report, _, _ = check(folder, "--batch_size", 8)
    finally:
        shutil.rmtree(folder)
    found = by_name(report)["Feed: 5 x 8 shuffled, cold"]
    assert (found["value"], found["met"]) == (None, None)
    assert found["words"].startswith("100% of the shards stay in memory")
    assert "Feed: first batch" in by_name(report)


def test_a_worker_that_is_killed_is_one_line(dataset, tmp_path, monkeypatch):
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    job = worker.Job(str(dataset), "train", "Feed", 8, 5, 0.01, 0.001, (), False, False, "auto")
    with pytest.raises(
        JobError, match=r"measured Feed ended with signal 9: .*smaller --batch_size"
    ):
        worker.measured(job)


def test_a_dataset_s_program_is_not_run(check, dataset):
    spec = json.loads((dataset / "dataset.json").read_text())
    spec["config"]["statistics"] = {"normalize": "mine:f"}
    (dataset / "dataset.json").write_text(json.dumps(spec))
    report, _, said = check(dataset, "--batch_size", 8)
    assert any("mine:f is a program, and is not run" in line for line in said)
    assert by_name(report)["Feed: 5 x 8 shuffled"]["value"] > 0


@pytest.mark.parametrize("flag", ["--load_seconds", "--memory_gib", "--convert_mb_per_s"])
@pytest.mark.parametrize("value", ["fast", "-1", "nan", "inf"])
def test_flags_that_are_no_targets_are_usage_errors(dataset, capsys, flag, value):
    with pytest.raises(SystemExit) as e:
        main(["check", str(dataset), flag, value])
    assert e.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{flag}: {value} is not a number from 0" in line


def test_a_targets_file_that_is_wrong_is_exit_2(check, dataset, tmp_path):
    (tmp_path / "t.yaml").write_text("loading: {second: 1}")
    _, _, (line,) = check(dataset, "--targets", tmp_path / "t.yaml", code=2)
    assert "t.yaml: loading.second: unknown key; did you mean 'seconds'?" in line
    _, _, (line,) = check(dataset, "--targets", tmp_path / "no.yaml", code=2)
    assert "no.yaml: No such file" in line


@pytest.mark.slow
def test_all_of_it_over_a_conversion(small_dataset, tmp_path):
    """TensorFlow's feed and a model, compressed shards."""
    pytest.importorskip("tensorflow")
    out = tmp_path / "out"
    shutil.copytree(small_dataset / "out", out)
    scenefeed("shard", out, "--compression", "gzip")
    scenefeed("check", out, "--batch_size", 4, "--json", tmp_path / "c.json", *QUICK,
              "--convert_mb_per_s", 0, "--memory_gib", 9, "--load_seconds", 60)  # fmt: skip
    report = json.loads((tmp_path / "c.json").read_text())
    found = by_name(report)
    for feed in ("Feed", "load"):
        for name in ("5 x 4 shuffled", "5 x 4 shuffled, cold"):
            assert found[f"{feed}: {name}"]["met"]
        assert found[f"peak memory, {feed}"]["value"] > 0
    assert found["peak memory, load"]["value"] > 3 * found["peak memory, Feed"]["value"]
    model = report["loading"]["feeds"]["load"]["model"]
    assert found[f"load: utilization, a model on {model['device']}"]["value"] > 0
    assert model["parameters"] > 4000

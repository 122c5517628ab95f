"""Reading shards on workers: what readings come to, and the job on this machine's runner."""

import itertools
import json
import os
import shutil

import apache_beam as beam
import pytest

from scenefeed.loader import DatasetError, DatasetSpec
from scenefeed.loader.spec import Shard
from scenefeed.pipelines.check import distributed as job
from scenefeed.pipelines.check.targets import Loading, Targets
from scenefeed.pipelines.cli import main
from scenefeed.pipelines.runner import pipeline_options
from scenefeed.transforms.errors import ConfigError, JobError
from scenefeed.transforms.throughput import Reading, ShardReadings

MB = 1_000_000


def shard(name, *readings, size=100 * MB, records=1000):
    return ShardReadings(f"/d/{name}", Shard(name, records, size, ""), readings)


def reading(worker, start, seconds, records=1000, waited=0.0, cpu=0.0):
    host, process = worker.split(":")
    return Reading(host, int(process), start, seconds, waited, cpu, records)


def test_rates_of_hosts_are_added_each_by_its_own_clock():
    """Host a reads two shards at once and then waits; host b, whose clock is far off, reads one."""
    found = job.summarize([
        shard("x", reading("a:1", 10.0, 2.0)),
        shard("y", reading("a:2", 11.0, 2.0)),
        shard("w", reading("a:2", 20.0, 1.0)),
        shard("z", reading("b:1", 5000.0, 0.5)),
    ])  # fmt: skip
    # a: from 10 to 13 and from 20 to 21; b: half a second.
    assert found["patches_per_s"] == [pytest.approx(3000 / 4 + 1000 / 0.5)]
    assert found["mb_per_s"] == [pytest.approx(300 / 4 + 100 / 0.5)]
    assert found["readers"] == pytest.approx(5 / 4 + 1)
    rates = {w["worker"]: w["mb_per_s"] for w in found["workers"]}
    assert rates == {"a:1": pytest.approx(50), "a:2": pytest.approx(200 / 3), "b:1": 200}
    assert found["shard_mb_per_s"] == {"median": 75, "least": 50, "most": 200}


def slow_one(name="s3"):
    """Ten shards at 100 MB/s, one of them at 10."""
    return [
        shard(n, *(reading("h:7", 100.0 * p + i, took, waited=waited) for p in range(3)))
        for i in range(10)
        for n, took, waited in [(name, 10.0, 9.9) if i == 3 else (f"s{i}", 1.0, 0.1)]
    ]


def test_a_shard_far_slower_than_the_others_is_named():
    found = job.summarize(slow_one())
    assert found["slowest"][0]["path"] == "s3"
    assert len(found["slowest"]) == 5
    (line,) = found["warnings"]
    assert "shard s3 was read at 10 MB/s on worker h:7, the median one at 100" in line
    assert "waited for bytes 99% of the time" in line


def test_one_slow_reading_of_three_is_no_slow_shard():
    shards = [shard(f"s{i}", *[reading("h:7", p, 1.0) for p in range(3)]) for i in range(3)]
    once = (reading("h:7", 0, 50.0), *shards[1].readings[1:])
    found = job.summarize([shards[0], shard("s1", *once), shards[2]])
    assert found["warnings"] == []
    assert found["shard_mb_per_s"]["least"] == 100


def missed(shards, target=1e9):
    targets = Targets(loading=Loading(batches=1, batch_size=int(target), seconds=1))
    found = job.verdict({"split": "train", **job.summarize(shards)}, targets)
    assert found["met"] is False
    return found


def test_the_verdict_is_by_the_batches_that_are_asked_for():
    found = job.verdict(job.summarize(slow_one()), Targets())
    assert (found["target"], found["unit"], found["side"]) == (2560, "patches/s", "at least")
    # 10 shards of 1,000 records in 13 s: the slow one overlaps with the six after it.
    assert found["samples"] == [pytest.approx(10_000 / 13)] * 3
    assert found["met"] is False
    once = [shard(r.id, r.readings[0]) for r in slow_one()]
    assert job.verdict(job.summarize(once), Targets())["met"] is None


@pytest.mark.parametrize(
    ("waited", "cpu", "count", "said"),
    [
        (0.9, 0.1, 3, "waiting for bytes 90% of the time: put the dataset on faster storage"),
        (0.1, 0.8, 3, "computing 80%: it takes 10 readers, and the split has 3 shards"),
        (0.1, 0.8, 30, "computing 80%: use 10 workers"),
        (0.1, 0.2, 30, "computing 20%: workers had no processor for the rest"),
    ],
)
def test_advice_is_what_was_measured(waited, cpu, count, said):
    """One worker, one shard after the other, of 1,000 records in a second each."""
    shards = [
        shard(f"s{i}", *(reading("h:7", 100 * p + i, 1.0, 1000, waited, cpu) for p in range(3)))
        for i in range(count)
    ]
    advice = missed(shards, 10_000)["advice"]
    assert "1.0 shards were read at once" in advice
    assert said in advice


def test_a_path_with_braces_is_said_as_it_is():
    assert (
        "shard records/{value}.tfrecord was"
        in missed(slow_one("records/{value}.tfrecord"))["advice"]
    )


@pytest.fixture
def out(small_dataset, tmp_path):
    shutil.copytree(small_dataset / "out", tmp_path / "out")
    return tmp_path / "out"


def test_on_threads_of_this_machine(out):
    (result,), found = job.distributed(str(out), None, pipeline_options([]), Targets())
    shards = DatasetSpec.load(out).splits["train"].shards
    assert (found["split"], found["shards"]) == ("train", len(shards))
    assert found["records"] == sum(s.num_examples for s in shards)
    assert found["bytes"] == sum((out / s.path).stat().st_size for s in shards)
    assert {w["worker"] for w in found["workers"]} == {f"{os.uname().nodename}:{os.getpid()}"}
    assert sum(w["readings"] for w in found["workers"]) == job.PASSES * len(shards)
    assert result["samples"] == found["patches_per_s"]
    assert len(result["samples"]) == job.PASSES
    assert min(result["samples"]) > 0
    said = "\n".join(job.lines(found))
    assert all(s["path"] in said for s in found["slowest"])


def test_no_pass_begins_before_the_one_before_has_ended(out, monkeypatch):
    seen = []
    monkeypatch.setattr(job, "summarize", lambda read: seen.extend(read) or {})
    monkeypatch.setattr(job, "verdict", lambda *_: {})
    job.distributed(str(out), "train", pipeline_options([]), Targets())
    passes = list(zip(*(r.readings for r in seen), strict=True))
    assert len(passes) == job.PASSES
    for one, following in itertools.pairwise(passes):
        assert max(r.start + r.seconds for r in one) <= min(r.start for r in following)


@pytest.mark.slow
def test_on_processes_of_this_machine(out):
    options = pipeline_options(["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    _, found = job.distributed(str(out), "train", options, Targets())
    assert sum(w["readings"] for w in found["workers"]) == job.PASSES * found["shards"]
    assert f":{os.getpid()}" not in str(found["workers"])


def test_no_step_shuffles_by_chance(out):
    spec = DatasetSpec.load(out)
    held = [ShardReadings(str(out / s.path), s) for s in spec.splits["train"].shards]
    pipeline = beam.Pipeline()
    job._reading(spec, held, "x")(pipeline)
    steps = pipeline.to_runner_api().components.transforms.values()
    names = " ".join(s.unique_name for s in steps)
    assert "Pass1" in names
    assert "ReshufflePerKey" not in names
    assert "AddRandomKeys" not in names


def measured(out, split=None, flags=()):
    return job.distributed(str(out), split, pipeline_options(flags), Targets())


def test_a_shard_that_is_gone_or_damaged_is_one_line(out):
    one, two, *_ = (out / s.path for s in DatasetSpec.load(out).splits["train"].shards)
    data = bytearray(one.read_bytes())
    data[len(data) // 2] ^= 1
    one.write_bytes(data)
    host = os.uname().nodename
    with pytest.raises(DatasetError, match=rf"{one}: record \d+ .*checksum.*, on worker {host}: "):
        measured(out)
    one.unlink()
    two.unlink()
    said = rf"{one}: is not there, on worker {host} \(and 1 shards more\): mount the dataset there"
    with pytest.raises(DatasetError, match=said):
        measured(out)


def test_other_bad_input_is_one_line(out):
    with pytest.raises(DatasetError, match="no split 'tes'"):
        measured(out, "tes")
    with pytest.raises(DatasetError, match="is empty"):
        measured(out, "test")
    flags = ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:9", "--environment_type=EXTERNAL"]
    with pytest.raises(ConfigError, match=f"OUT {out}: is on this machine.*--shared_disk"):
        measured(out, flags=flags)
    with pytest.raises(JobError, match="no job server answers"):
        job.distributed(str(out), None, pipeline_options(flags), Targets(), shared_disk=True)
    assert not list(out.glob(".readings*"))


def test_workers_that_have_another_folder_of_that_name(out, tmp_path, monkeypatch):
    """What they write is not here."""
    monkeypatch.setattr(job, "_keep", lambda read, file: None)
    with pytest.raises(JobError, match="figures of 0 shards came back of 3"):
        measured(out)
    monkeypatch.undo()
    with pytest.raises(JobError, match=r"cannot write its figures there .*--temp_location"):
        job._keep([], str(tmp_path / "none" / "x.json"))


def command(capsys, *words):
    code = main(["check", *map(str, words), "--runner=DirectRunner"])
    said = capsys.readouterr()
    return code, said.out, [x for x in said.err.splitlines() if x.startswith("scenefeed")]


def test_by_the_command(out, tmp_path, capsys):
    file = tmp_path / "check.json"
    code, said, lines = command(capsys, out, "--load_seconds=1e-6", "--json", file)
    found = json.loads(file.read_text())
    assert "loading" not in found
    assert all(s["path"] in said for s in found["distributed"]["slowest"])
    (result,) = [r for r in found["results"] if r["name"] == "read by all workers"]
    assert (code, result["met"], result["target"]) == (1, False, 5 * 1024 / 1e-6)
    assert f"scenefeed: read by all workers: {result['advice']}" in lines
    (out / found["distributed"]["slowest"][0]["path"]).unlink()
    code, _, lines = command(capsys, out)
    assert (code, len(lines)) == (1, 1)
    assert "is not there, on worker" in lines[0]

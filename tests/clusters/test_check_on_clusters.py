"""check as a job: shards read by workers of real clusters."""

import json
import os
import shlex
import shutil
from urllib.request import urlopen

import pytest

from scenefeed.loader import DatasetSpec
from tests.clusters.conftest import LocalCluster
from tests.conftest import errors, scenefeed
from tests.storage.conftest import s3  # noqa: F401 - a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

EASY = ("--load_seconds=1000", "--convert_mb_per_s=0", "--memory_gib=100")


def checked(out, folder, *flags, code=None):
    """What ``check`` says, and the distributed part of its figures."""
    file = folder / "check.json"
    done = scenefeed("check", out, "--json", file, *flags, code=code, seconds=500)
    return done, json.loads(file.read_text())["distributed"] if file.exists() else None


def read_by_workers(found, spec, said):
    split = spec.splits["train"]
    assert (found["split"], found["shards"]) == ("train", len(split.shards))
    assert (found["records"], found["bytes"]) == (split.num_examples, split.num_bytes)
    assert sum(w["readings"] for w in found["workers"]) == 3 * len(split.shards)
    assert all(w["worker"].startswith(os.uname().nodename) for w in found["workers"])
    assert len(found["patches_per_s"]) == 3
    assert min(found["patches_per_s"]) > 0
    assert all(s["path"] in said for s in found["slowest"])


def jobs(cluster):
    with urlopen(f"{cluster.status()['rest']}/jobs/overview", timeout=10) as reply:
        return {job["jid"]: job["state"] for job in json.load(reply)["jobs"]}


def test_on_flink(flink_cluster, scenes, tmp_path):
    out, flags = scenes.parent / "direct", flink_cluster.up()
    before = jobs(flink_cluster)
    files = sorted(out.rglob("*"))
    done, found = checked(out, tmp_path, *flags, "--parallelism=2", *EASY, code=0)
    read_by_workers(found, DatasetSpec.load(out), done.stdout)
    assert [s for j, s in jobs(flink_cluster).items() if j not in before] == ["FINISHED"]
    assert sorted(out.rglob("*")) == files


def test_a_damaged_shard_on_flink(flink_cluster, scenes, tmp_path):
    """Told once, by the shard's own name, and not after Flink's restarts."""
    out, flags = tmp_path / "out", flink_cluster.up()
    shutil.copytree(scenes.parent / "direct", out)
    shard = next((out / "records").glob("train*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    before = jobs(flink_cluster)
    done, _ = checked(out, tmp_path, *flags, "--parallelism=1", code=1)
    (line,) = errors(done)
    assert line.startswith(f"scenefeed: {shard}: record ")
    assert f"on worker {os.uname().nodename}" in line
    assert [s for j, s in jobs(flink_cluster).items() if j not in before] == ["FINISHED"]
    assert not list(out.glob(".readings*"))


def test_workers_that_do_not_see_the_dataset(flink_cluster, scenes, tmp_path):
    flags = [f for f in flink_cluster.up() if f != "--shared_disk"]
    done, _ = checked(scenes.parent / "direct", tmp_path, *flags, code=2)
    (line,) = errors(done)
    assert line.startswith(f"scenefeed: OUT {scenes.parent / 'direct'}: is on this machine")


def test_from_a_bucket(s3, scenes, tmp_path, monkeypatch):  # noqa: F811
    """Workers that see no disk but a bucket."""
    out = scenes.parent / "direct"
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        s3.put(f"checked/{path.relative_to(out)}", path)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    before, asked = s3.list(), len(s3.log.requests)
    cluster = LocalCluster("flink", tmp_path / "cluster")
    try:
        flags = shlex.split(cluster.run("up", "flink"))
        flags.remove("--shared_disk")
        done, found = checked(
            f"{s3.root}/checked", tmp_path, *flags, "--parallelism=2", *EASY, code=0
        )
    finally:
        cluster.run("down")
    read_by_workers(found, DatasetSpec.load(out), done.stdout)
    assert s3.list() == before
    sent = sum(r.sent for r in s3.log.requests[asked:] if "/records/train-" in r.path)
    assert sent >= 3 * found["bytes"]


def test_on_spark(spark_cluster, scenes, tmp_path):
    out = scenes.parent / "direct"
    done, found = checked(out, tmp_path, *spark_cluster.up(), *EASY, code=0)
    read_by_workers(found, DatasetSpec.load(out), done.stdout)

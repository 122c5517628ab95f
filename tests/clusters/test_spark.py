"""A standalone Spark of a master and workers, with Beam's job server and Python worker pool."""

import json
import os
import re
import shutil
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.clusters.conftest import LocalCluster, converting, fingerprint, interrupt
from tests.conftest import ROOT, scenefeed
from tests.deploy.docs import doc_commands, run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def flags(spark_cluster):
    return spark_cluster.up()


def convert(*args, code=0):
    """The real command, with the time that Spark's many stages take on a busy machine."""
    return scenefeed("convert", *args, code=code, seconds=600)


def applications(cluster):
    """What the master has seen finish."""
    with urllib.request.urlopen(f"{cluster.status()['web']}/json/", timeout=10) as reply:
        return json.load(reply)["completedapps"]


def executors(worker):
    """Process ids of a worker's executors: the children of any of its threads."""
    lists = Path(f"/proc/{worker}/task").glob("*/children")
    return [int(pid) for each in lists for pid in each.read_text().split()]


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_bytes_as_on_one_machine(spark_needs, scenes, tmp_path, workers):
    """On executors of the cluster, whatever a flag says: never in the job server itself."""
    cluster, out = LocalCluster("spark", tmp_path / "cluster"), tmp_path / "out"
    try:
        flags = cluster.run("up", "spark", "--workers", str(workers)).split()
        convert(
            "--config", scenes, "--output", out, "--num_shards", 4, *flags,
            "--spark_master_url=local[4]",
        )  # fmt: skip
        (application,) = applications(cluster)
        log = (cluster.folder / "logs" / "master.log").read_text()
        used = re.findall(rf"Launching executor {application['id']}/\d+ on worker (\S+)", log)
    finally:
        cluster.run("down")
    assert (application["state"], application["cores"]) == ("FINISHED", workers)
    assert len(set(used)) == workers
    assert fingerprint(out) == fingerprint(scenes.parent / "direct")


@pytest.mark.parametrize("step", ["stage/.*.tmp", "records/beam-temp-train-*/*.tfrecord"])
def test_a_killed_executor(spark_cluster, flags, scenes, tmp_path, step):
    out = tmp_path / "out"
    with converting(scenes, out, flags, step) as job:
        pids = spark_cluster.status()["pids"]
        found = {n: executors(pids[n]) for n in ("worker-0", "worker-1")}
        worker, (executor, *_) = next((n, e) for n, e in found.items() if e)
        os.kill(executor, signal.SIGKILL)
        assert job.poll() is None, "it had ended before the kill"
        assert job.wait(600) == 0, job.stderr.read()
    application = max(applications(spark_cluster), key=lambda x: x["id"])
    log = (spark_cluster.folder / "logs" / f"{worker}.log").read_text()
    killed = rf"Executor {application['id']}/\d+ finished with state (KILLED|FAILED|EXITED)"
    assert re.search(killed, log)
    assert fingerprint(out) == fingerprint(scenes.parent / "direct")


def test_an_interrupt_cancels_the_job(spark_cluster, flags, scenes, tmp_path):
    """Its executors end with it, and the job server takes the next."""
    before = {x["id"] for x in applications(spark_cluster)}
    with converting(scenes, tmp_path / "out", flags) as job:
        pids = spark_cluster.status()["pids"]
        assert [pid for n in (0, 1) for pid in executors(pids[f"worker-{n}"])]
        interrupt(job, tmp_path / "out")
    assert len({x["id"] for x in applications(spark_cluster)} - before) == 1
    assert not [pid for n in (0, 1) for pid in executors(pids[f"worker-{n}"])]


def test_a_bad_scene_is_a_dead_letter(flags, scenes, tmp_path):
    good = next((scenes.parent / "scenes").glob("*.tif"))
    (tmp_path / "bad.tif").write_bytes(good.read_bytes()[:5000])
    out = tmp_path / "out"
    convert(good, tmp_path / "bad.tif", "--output", out, "--tile_size", 64, *flags, code=1)
    (line,) = (out / "errors.jsonl").read_text().splitlines()
    assert "bad.tif" in line
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["scenes"] == {"done": 1, "reused": 0, "failed": 1}


def test_the_page(spark_cluster):
    """docs/spark.md, command by command; its last stops the cluster."""
    out = ROOT / "demo" / "spark"
    shutil.rmtree(out, ignore_errors=True)
    run("\n".join(doc_commands("spark")), LOCAL_CLUSTER=str(spark_cluster.folder))
    assert fingerprint(out / "out") == fingerprint(out / "direct")

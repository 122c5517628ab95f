"""A standalone Flink of two task managers, with Beam's job server and Python worker pool."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.clusters.conftest import LocalCluster, converting, fingerprint, interrupt
from tests.conftest import ROOT, errors, scenefeed
from tests.deploy.docs import doc_commands, run
from tests.end_to_end.test_real_scenes import YAML
from tests.storage.conftest import s3  # noqa: F401 - a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def flags(flink_cluster):
    return flink_cluster.up()


def metrics(out):
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.parametrize("parallelism", [1, 4])
def test_the_same_bytes_as_on_one_machine(flags, scenes, tmp_path, parallelism):
    scenefeed(
        "convert", "--config", scenes, "--output", tmp_path / "out", "--num_shards", 4,
        *flags, f"--parallelism={parallelism}",
    )  # fmt: skip
    assert fingerprint(tmp_path / "out") == fingerprint(scenes.parent / "direct")
    ours, direct = metrics(tmp_path / "out"), metrics(scenes.parent / "direct")
    for key in ("scenes", "patches", "bytes", "shards", "tallies"):
        assert ours[key] == direct[key]


def test_the_same_statistics_as_on_one_machine(flags, scenes, tmp_path):
    for name, options in (("flink", [*flags, "--parallelism=2"]), ("direct", [])):
        scenefeed(
            "convert", "--config", scenes, "--output", tmp_path / name, "--num_shards", 4,
            "--normalize", "zscore", *options, seconds=300,
        )  # fmt: skip
    found, expected = (
        json.loads((tmp_path / name / "statistics.json").read_text())
        for name in ("flink", "direct")
    )
    assert found == expected
    assert found["patches"] > 100
    scenefeed("stats", tmp_path / "flink", "--normalize", "minmax", *flags, "--parallelism=2")
    again = json.loads((tmp_path / "flink/statistics.json").read_text())
    assert again["bands"] == expected["bands"]


def test_a_bad_scene_is_a_dead_letter(flags, scenes, tmp_path):
    good = scenes.parent / "scenes"
    (tmp_path / "bad.tif").write_bytes(next(good.glob("*.tif")).read_bytes()[:5000])
    out = tmp_path / "out"
    scenefeed(
        "convert", next(good.glob("*.tif")), tmp_path / "bad.tif", "--output", out,
        "--tile_size", 64, *flags, "--parallelism=1", code=1,
    )  # fmt: skip
    (line,) = (out / "errors.jsonl").read_text().splitlines()
    assert "bad.tif" in line
    assert metrics(out)["scenes"] == {"done": 1, "reused": 0, "failed": 1}


@pytest.mark.parametrize("step", ["stage/.*.tmp", "records/beam-temp-train-*/*.tfrecord"])
def test_a_killed_task_manager(flink_cluster, flags, scenes, tmp_path, step):
    """The other one takes over."""
    out = tmp_path / "out"
    with converting(scenes, out, [*flags, "--parallelism=2"], step) as job:
        os.kill(flink_cluster.status()["pids"]["task-manager-0"], signal.SIGKILL)
        assert job.poll() is None, "it had ended before the kill"
        assert job.wait(300) == 0, job.stderr.read()
    log = (flink_cluster.folder / "logs" / "job-manager.log").read_text()
    assert "task-manager-0 is no longer reachable" in log
    assert fingerprint(out) == fingerprint(scenes.parent / "direct")


def jobs(rest):
    with urllib.request.urlopen(f"{rest}/jobs/overview", timeout=10) as reply:
        return json.load(reply)["jobs"]


def test_an_interrupt_cancels_the_job(flink_cluster, flags, scenes, tmp_path):
    out, rest = tmp_path / "out", flink_cluster.status()["rest"]
    before = {job["jid"] for job in jobs(rest)}
    with converting(scenes, out, [*flags, "--parallelism=1"]) as job:
        interrupt(job, out)
    (state,) = [job["state"] for job in jobs(rest) if job["jid"] not in before]
    assert state == "CANCELED"


def test_no_worker_pool(flink_cluster, flags, scenes, tmp_path):
    """Told once Flink has used up its restarts."""
    flink_cluster.stop("worker-pool")
    out = tmp_path / "out"
    done = scenefeed(
        "convert", "--config", scenes, "--output", out, *flags, "--parallelism=1", code=1,
        seconds=300,
    )  # fmt: skip
    (line,) = errors(done)
    address = next(f for f in flags if f.startswith("--environment_config=")).split("=")[1]
    assert f"no workers answer at --environment_config {address}: start a worker pool" in line
    assert not (out / "dataset.json").exists()


# A site's own start-up file: as if a package were not installed.
HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r} and "-c" in sys.orig_argv:  # workers, not the pool that starts them
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def pool_without(flink_cluster, tmp_path):
    """Another worker pool, whose workers lack a package."""

    def start(name):
        (tmp_path / "sitecustomize.py").write_text(HIDDEN.format(name=name))
        flink_cluster.stop("worker-pool")
        cluster = LocalCluster("flink", flink_cluster.folder)
        cluster.env["PYTHONPATH"] = str(tmp_path)
        return cluster.up()

    yield start
    flink_cluster.stop("worker-pool")


def test_workers_without_scenefeed(pool_without, scenes, tmp_path):
    flags, out = pool_without("scenefeed"), tmp_path / "out"
    done = scenefeed(
        "convert", "--config", scenes, "--output", out, *flags, "--parallelism=1", code=1,
        seconds=300,
    )  # fmt: skip
    (line,) = errors(done)
    assert "a worker has no scenefeed: install the version that this command is of" in line
    assert not (out / "dataset.json").exists()


def test_workers_that_do_not_come_up(pool_without, scenes, tmp_path):
    """Flink waits for ever; the command says where to look."""
    flags, out = pool_without("apache_beam"), tmp_path / "out"
    job = subprocess.Popen(
        [sys.executable, "-m", "scenefeed.pipelines.cli", "convert", "--config", scenes,
         "--output", out, *flags, "--parallelism=1"], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = next(x for x in job.stderr if x.startswith("scenefeed"))
        assert "nothing for 180 s: it waits for its turn, or its workers do not come up" in line
        assert job.poll() is None
        job.send_signal(signal.SIGINT)
        assert job.wait(60) == 130
    finally:
        job.kill()


def test_real_scenes(flags, data, tmp_path):
    """The flood chips, as tests/end_to_end converts them on one machine."""
    (tmp_path / "floods.yaml").write_text(YAML.format(data=data))
    for name, options in (("flink", [*flags, "--parallelism=2"]), ("direct", [])):
        scenefeed(
            "convert", "--config", tmp_path / "floods.yaml", "--output", tmp_path / name, *options
        )
    assert metrics(tmp_path / "flink")["scenes"] == {"done": 7, "reused": 0, "failed": 0}
    assert fingerprint(tmp_path / "flink") == fingerprint(tmp_path / "direct")


def test_from_bucket_to_bucket(flink_cluster, s3, scenes, tmp_path, monkeypatch):  # noqa: F811
    """Workers that see no disk but a bucket: scenes, stage files and the dataset on S3."""
    for kind in ("scenes", "labels"):
        for path in sorted((scenes.parent / kind).glob("*.tif")):
            s3.put(f"cluster/{kind}/{path.name}", path)
    config = tmp_path / "c.yaml"
    text = scenes.read_text()
    for kind in ("scenes", "labels"):
        text = text.replace(f'"{kind}/', f'"{s3.root}/cluster/{kind}/')
    config.write_text(text)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    cluster = LocalCluster("flink", tmp_path / "cluster")
    try:
        flags = shlex.split(cluster.run("up", "flink"))
        flags.remove("--shared_disk")
        scenefeed(
            "convert", "--config", config, "--output", f"{s3.root}/cluster/out", "--num_shards", 4,
            *flags, seconds=500,
        )  # fmt: skip
    finally:
        cluster.run("down")
    found = json.loads(s3.get("cluster/out/dataset.json"))["fingerprint"]
    assert found == fingerprint(scenes.parent / "direct")
    assert len([n for n in s3.list() if n.startswith("cluster/out/stage/")]) == 16
    logs = "".join(p.read_text(errors="replace") for p in cluster.folder.glob("logs/*"))
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in logs


def test_the_page(flink_cluster):
    """docs/flink.md, command by command; its last stops the cluster."""
    out = ROOT / "demo" / "flink"
    shutil.rmtree(out, ignore_errors=True)
    run("\n".join(doc_commands("flink")), LOCAL_CLUSTER=str(flink_cluster.folder))
    assert fingerprint(out / "out") == fingerprint(out / "direct")

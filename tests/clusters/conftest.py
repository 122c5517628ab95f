"""Real clusters on this machine, one of each engine for a whole session of tests."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.engines.processes import Cluster
from tests.conftest import ROOT, scenefeed

TOOLS = {"flink": ("java", "mvn"), "spark": ("java", "mvn"), "prism": ("go",)}


class LocalCluster:
    """``deploy/local-cluster`` for one engine, in a folder of its own."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "LOCAL_CLUSTER": str(folder)}

    def stop(self, name: str) -> None:
        Cluster(self.folder, self.folder).stop(name)

    def run(self, *args: str) -> str:
        command = [str(ROOT / "deploy" / "local-cluster"), *args]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self) -> list[str]:
        """Starts what does not run; the flags for convert."""
        return shlex.split(self.run("up", self.engine))

    def status(self) -> dict:
        return json.loads(self.run("status", "--json"))


@pytest.fixture(scope="session")
def flink_cluster(tmp_path_factory) -> Iterator[LocalCluster]:
    yield from _cluster("flink", tmp_path_factory.mktemp("flink"))


@pytest.fixture(scope="session")
def spark_needs() -> None:
    skip_without(TOOLS["spark"], "spark")


@pytest.fixture(scope="session")
def spark_cluster(tmp_path_factory) -> Iterator[LocalCluster]:
    yield from _cluster("spark", tmp_path_factory.mktemp("spark"))


@pytest.fixture(scope="session")
def prism_cluster(tmp_path_factory) -> Iterator[LocalCluster]:
    yield from _cluster("prism", tmp_path_factory.mktemp("prism"))


def skip_without(tools: tuple[str, ...], engine: str) -> None:
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{engine} needs {' and '.join(missing)} on PATH")


def _cluster(engine: str, folder: Path) -> Iterator[LocalCluster]:
    skip_without(TOOLS[engine], engine)
    cluster = LocalCluster(engine, folder)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.run("down")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """A configuration of eight made scenes; beside it, ``direct`` is what DirectRunner makes."""
    folder = tmp_path_factory.mktemp("scenes")
    scenefeed("synth", folder, "--scenes", 8, "--size", 1024)
    config = folder / "dataset.yaml"
    scenefeed("convert", "--config", config, "--output", folder / "direct", "--num_shards", 4)
    return config


def fingerprint(out: Path) -> str:
    return json.loads((out / "dataset.json").read_text())["fingerprint"]


@contextlib.contextmanager
def converting(
    scenes: Path, out: Path, flags: list[str], step: str = "stage/.*.tmp"
) -> Iterator[subprocess.Popen[str]]:
    """The real command in the background, once there is a file of ``step``, and before its end."""
    job = subprocess.Popen(
        [sys.executable, "-m", "scenefeed.pipelines.cli", "convert", "--config", scenes,
         "--output", out, "--num_shards", "4", *flags],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not list(out.glob(step)):
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.01)
        yield job
    finally:
        job.kill()


def interrupt(job: subprocess.Popen[str], out: Path) -> None:
    """Ctrl-C: the command says one line, and no worker writes on."""
    job.send_signal(signal.SIGINT)
    assert job.wait(60) == 130
    *_, line = [x for x in job.stderr if x.startswith("scenefeed")]
    assert "interrupted: the same command goes on from here" in line
    time.sleep(2)  # for what a worker was about to rename
    left = sorted(out.rglob("*"))
    time.sleep(8)
    assert sorted(out.rglob("*")) == left
    assert not (out / "dataset.json").exists()

"""Prism with Beam's Python worker pool, with workers in our own process, and started by Beam."""

import subprocess

import pytest

from tests.clusters.conftest import fingerprint, shell_blocks
from tests.conftest import ROOT, scenefeed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]


@pytest.fixture
def flags(prism_cluster):
    return prism_cluster.up()


@pytest.mark.parametrize("where", ["pool", "loopback"])
def test_the_same_bytes_as_on_one_machine(flags, scenes, tmp_path, where):
    out = tmp_path / "out"
    if where == "loopback":
        flags = [*flags[:2], "--environment_type=LOOPBACK"]
    scenefeed("convert", "--config", scenes, "--output", out, "--num_shards", 4, *flags)
    assert fingerprint(out) == fingerprint(scenes.parent / "direct")


def test_started_by_beam(prism_cluster, scenes, tmp_path):
    out, binary = tmp_path / "out", prism_cluster.status()["prism"]
    scenefeed(
        "convert", "--config", scenes, "--output", out, "--num_shards", 4,
        "--runner=PrismRunner", f"--prism_location={binary}",
    )  # fmt: skip
    assert fingerprint(out) == fingerprint(scenes.parent / "direct")


def test_the_page(prism_cluster):
    """docs/prism.md, command by command; its last stops the cluster."""
    script = "set -euo pipefail\nrm -rf demo/prism\n" + shell_blocks("prism.md")
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=prism_cluster.env, capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    out = ROOT / "demo" / "prism"
    assert fingerprint(out / "out") == fingerprint(out / "direct")

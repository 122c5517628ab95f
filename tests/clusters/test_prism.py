"""Prism with Beam's Python worker pool, with workers in our own process, and started by Beam."""

import shutil

import pytest

from tests.clusters.conftest import converting, fingerprint, interrupt
from tests.conftest import ROOT, scenefeed
from tests.deploy.docs import doc_commands, run

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


def test_an_interrupt_cancels_the_job(flags, scenes, tmp_path):
    with converting(scenes, tmp_path / "out", flags) as job:
        interrupt(job, tmp_path / "out")


def test_started_by_beam(prism_cluster, scenes, tmp_path):
    out, binary = tmp_path / "out", prism_cluster.status()["prism"]
    scenefeed(
        "convert", "--config", scenes, "--output", out, "--num_shards", 4,
        "--runner=PrismRunner", f"--prism_location={binary}", "--shared_disk",
    )  # fmt: skip
    assert fingerprint(out) == fingerprint(scenes.parent / "direct")


def test_the_page(prism_cluster):
    """docs/prism.md, command by command; its last stops the cluster."""
    out = ROOT / "demo" / "prism"
    shutil.rmtree(out, ignore_errors=True)
    run("\n".join(doc_commands("prism")), LOCAL_CLUSTER=str(prism_cluster.folder))
    assert fingerprint(out / "out") == fingerprint(out / "direct")

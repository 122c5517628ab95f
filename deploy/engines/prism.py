"""Prism, Beam's own runner for one machine, with Python workers in a pool."""

from __future__ import annotations

from pathlib import Path

from . import workers
from .fetching import run, tool
from .processes import HOST, Cluster

MODULE = "github.com/apache/beam/sdks/v2/go/cmd/prism"


def up(cluster: Cluster, _workers: int) -> list[str]:
    """Starts Prism and a worker pool; the flags that run a pipeline on it.

    Prism asks the pool for one worker process a job, whatever the number asked for.
    """
    job, web = cluster.port("job-server"), cluster.port("web")
    binary = _prism(cluster.cache)
    cluster.start("prism", [binary, f"-job_port={job}", f"-web_port={web}", "-log_kind=text"])
    pool = workers.up(cluster)
    cluster.wait_for("prism", job)
    cluster.remember(web=f"http://{HOST}:{web}", prism=str(binary))
    return ["--runner=PortableRunner", f"--job_endpoint={HOST}:{job}", *pool]


def _prism(cache: Path) -> Path:
    """The binary of the installed Beam's version, built by Go."""
    version = workers.beam_version()
    binary = cache / f"prism-{version}"
    if not binary.exists():
        go = tool("go", f"Go, or put Beam's prism at {binary}")
        run([go, "install", f"{MODULE}@v{version}"], {"GOBIN": str(cache)})
        (cache / "prism").rename(binary)
    return binary

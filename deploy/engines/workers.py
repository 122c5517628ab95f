"""Beam's Python worker pool: what a runner asks for workers (--environment_type=EXTERNAL)."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

from .processes import HOST, Cluster, LaunchError

POOL = Path(__file__).with_name("pool.py")


def up(cluster: Cluster, name: str = "worker-pool") -> list[str]:
    """Starts a pool in this Python, which must hold scenefeed; the flags that name it."""
    port = cluster.port(name)
    # The pool starts `python`: the one that comes first on PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    cluster.start(name, [sys.executable, POOL, port], {"PATH": path})
    cluster.wait_for(name, port)
    return ["--environment_type=EXTERNAL", f"--environment_config={HOST}:{port}"]


def beam_version() -> str:
    """Of the Python that runs this.

    Raises:
      LaunchError: it has no Beam.
    """
    try:
        return metadata.version("apache-beam")
    except metadata.PackageNotFoundError:
        raise LaunchError(
            f"{sys.executable} has no apache-beam: put the bin folder of scenefeed's environment "
            "first on PATH"
        ) from None

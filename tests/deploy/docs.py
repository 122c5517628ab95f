"""The commands in the pages of docs/: each is run by a test, or says that nobody ran it.

A test of a page runs what ``doc_commands("page")`` gives, in order; tests/deploy/test_docs.py fails
where a page has such commands and no test asks for them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PAGES = ("flink", "spark", "prism", "dataflow", "ec2", "kubernetes", "storage")
NEVER_RUN = re.compile(r"\*Never run by us: \S.*\.\*")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(the line before it, its commands) of each ``sh`` block."""
    for match in re.finditer(r"^```sh\n(.*?)^```$", text, re.M | re.S):
        before = [line for line in text[: match.start()].splitlines() if line.strip()]
        yield (before[-1] if before else ""), match.group(1)


def doc_commands(page: str) -> list[str]:
    """The blocks of docs/PAGE.md that must be run, in order."""
    text = (ROOT / f"docs/{page}.md").read_text()
    return [commands for before, commands in blocks(text) if not NEVER_RUN.fullmatch(before)]


def run(commands: str, cwd: Path = ROOT, **environment: str) -> str:
    """Runs a block with our Python first on PATH; its output. Fails where any command does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PATH": path, **environment},
    )  # fmt: skip
    assert not done.returncode, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout

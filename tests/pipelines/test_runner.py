"""Running pipelines on this machine."""

import os
import time

import apache_beam as beam
import pytest

from scenefeed.pipelines.convert import many_small
from scenefeed.pipelines.runner import pipeline_options, process_count, run
from scenefeed.transforms.scenes import Asset, SceneFiles


@pytest.mark.parametrize(
    ("scenes", "num_bytes", "processes"),
    [(1000, 1 << 20, 3), (999, 1 << 20, 0), (1000, 5 << 20, 0)],
)
def test_processes_where_scenes_are_many_and_small(tmp_path, scenes, num_bytes, processes):
    path = tmp_path / "scene.tif"
    path.touch()
    os.truncate(path, num_bytes)
    found = many_small([SceneFiles(str(i), (Asset(str(path)),)) for i in range(scenes)])
    workers = "--direct_num_workers=3"
    assert process_count(pipeline_options([workers], processes=found)) == processes
    threads = [workers, "--direct_running_mode=multi_threading"]
    assert process_count(pipeline_options(threads, processes=found)) == 0


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

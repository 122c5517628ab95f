"""Running pipelines on this machine."""

import time

import apache_beam as beam

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

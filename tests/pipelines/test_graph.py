"""The graph of a conversion, and what is checked of its result."""

import base64
import bz2
import dataclasses

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2

from scenefeed.loader.spec import Shard, Split
from scenefeed.pipelines.convert import convert_pipeline, shard_pipeline
from scenefeed.pipelines.folder import staged_scenes
from scenefeed.pipelines.results import Run, _check_counts
from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import JobError
from scenefeed.transforms.pipeline import Given, Spread
from scenefeed.transforms.scenes import Asset, SceneFiles
from tests.eager import run_beam

SCENES = [SceneFiles(f"s{i}", (Asset(f"/s{i}.tif"),)) for i in range(50)]


def test_spreading_keeps_every_scene():
    assert sorted(s.id for s in run_beam(SCENES, Spread())) == sorted(s.id for s in SCENES)


def test_the_given_scenes_need_no_code_of_ours_before_they_are_grouped():
    """A worker on Flink that lacks scenefeed is told of at once only behind a stage that it ran."""
    pipeline = beam.Pipeline()
    _ = pipeline | "Scenes" >> Given(SCENES)
    ours = {}
    for step in pipeline.to_runner_api().components.transforms.values():
        if step.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload).do_fn.payload
            code = bz2.decompress(base64.b64decode(payload))
            assert b"apache_beam" in code
            ours[step.unique_name] = b"scenefeed" in code
    assert len(ours) > 3
    assert [name for name in ours if ours[name]] == ["Scenes/Scenes"]


def test_all_given_scenes_arrive():
    found = run_beam([None], _Give(SCENES))
    assert sorted(found, key=lambda s: s.id) == sorted(SCENES, key=lambda s: s.id)
    assert run_beam([None], _Give([])) == []


class _Give(beam.PTransform):
    """Given at the root of the pipeline of what this is applied to."""

    def __init__(self, scenes):
        super().__init__()
        self._scenes = scenes

    def expand(self, pcoll):
        return pcoll.pipeline | "Given" >> Given(self._scenes)


def test_no_step_shuffles_by_chance(small_dataset):
    """Beam's Reshuffle, also that of Create, draws keys by chance: what a runner computes again
    after a loss would fall otherwise, and scenes come twice or not at all."""
    run = Run(str(small_dataset / "out"), parse({}, ""), "", 0.0, 0)
    again = staged_scenes(small_dataset / "out")
    for build in (convert_pipeline(run, SCENES), shard_pipeline(run, again)):
        pipeline = beam.Pipeline()
        build(pipeline)
        steps = pipeline.to_runner_api().components.transforms.values()
        assert len(steps) > 30
        names = " ".join(s.unique_name for s in steps)
        assert "MaybeReshuffle" in names  # Create has a place for one, and may leave it empty
        assert "ReshufflePerKey" not in names
        assert "AddRandomKeys" not in names


def test_records_lost_or_repeated_by_a_runner_fail_the_job(small_dataset):
    scenes = staged_scenes(small_dataset / "out")
    counts = {name: sum(s.counts[name] for s in scenes) for name in ("train", "val")}
    splits = {k: Split.of([Shard("x", n, 1, "", 0)]) for k, n in counts.items()}
    _check_counts(splits, scenes)
    more = splits | {"val": Split.of([Shard("x", counts["val"] + 1, 1, "", 0)])}
    with pytest.raises(
        JobError, match=f"{counts['val'] + 1} records were written of {counts['val']}"
    ):
        _check_counts(more, scenes)
    none = [dataclasses.replace(s, counts={}) for s in scenes]
    with pytest.raises(JobError, match="lost or repeated"):
        _check_counts({"train": Split.of([])}, [*none, none[0]])

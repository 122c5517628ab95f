"""convert: scenes to a dataset; shard: the records again, from the stage files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from ..loader.spec import Feature
from ..transforms.baking import Baking
from ..transforms.errors import DeadLetter
from ..transforms.headers import SceneHeader
from ..transforms.pipeline import (
    DEAD,
    AssignAndWrite,
    Choose,
    Count,
    Given,
    Plan,
    Stage,
    Told,
    agreed,
    scenes_of,
)
from ..transforms.planning import PlannedScene, features
from ..transforms.scenes import SceneFiles
from ..transforms.shards import WrittenShard
from ..transforms.staging import StagedScene
from ..transforms.storage import join, path_of
from . import analysis
from .folder import read_lines
from .results import ERRORS, RECORDS, Run, finish


def convert_pipeline(run: Run, scenes: Sequence[SceneFiles]) -> Callable[[Any], None]:
    """The whole conversion as a function that builds it: plan, stage, assign, write, finish."""

    def build(pipeline: Any) -> None:
        given = pipeline | "Scenes" >> Given(scenes).with_output_types(SceneFiles)
        planned = given | "Plan" >> Plan(run.config)
        layout = agreed(planned.main)
        staged = planned.main | "Stage" >> Stage(run.config, run.stage, layout, bool(run.stage_dir))
        dead = planned[DEAD], staged[DEAD]
        _write_and_finish(pipeline, run, staged.main, layout, dead)

    return build


def shard_pipeline(
    run: Run, scenes: Sequence[StagedScene], baking: Baking | None = None
) -> Callable[[Any], None]:
    """The second half alone, from stage files that are there."""

    def build(pipeline: Any) -> None:
        staged = pipeline | "StagedScenes" >> Given(scenes).with_output_types(StagedScene)
        layout = agreed(staged | "Headers" >> beam.Map(_as_planned))
        kept = [DeadLetter.from_json(line) for line in read_lines(path_of(run.out) / ERRORS)]
        dead = pipeline | "DeadLettersOfConvert" >> beam.Create(kept, reshuffle=False)
        _write_and_finish(pipeline, run, staged, layout, (dead,), baking)

    return build


def _write_and_finish(
    pipeline: Any, run: Run, staged: Any, layout: Any, dead: tuple[Any, ...],
    baking: Baking | None = None,
) -> None:  # fmt: skip
    chosen = staged | "Choose" >> Choose(run.config, layout)
    staged, letters = chosen.main, (*dead, chosen[DEAD]) | "DeadLetters" >> beam.Flatten()
    told = staged | "Told" >> Told()
    if run.counting:
        counted = staged | "Count" >> Count(run.config, run.counting, strict=False)
        if run.is_here:
            _ = (
                pipeline
                | "OnceCounted" >> beam.Impulse()
                | "Analyze" >> beam.Map(_begin_analysis, run, AsList(told), AsList(counted))
            )
    shards = staged | "Write" >> AssignAndWrite(run.config, join(run.out, RECORDS), layout, baking)
    layout = AsSingleton(layout, default_value=None)
    finish = beam.Map(_finish, run, layout, AsList(shards), AsList(told), AsList(letters))
    _ = pipeline | "Once" >> beam.Impulse() | "Finish" >> finish


def _as_planned(scene: StagedScene) -> PlannedScene:
    return PlannedScene(SceneFiles(scene.id, ()), scene.header)


def _begin_analysis(_: bytes, run: Run, told: Iterable[bytes], counted: Iterable[Any]) -> None:
    """Begins the analysis beside the writing. ``counted`` is there when all scenes are counted, or
    will be by processes of ours."""
    analysis.begin(run, scenes_of(told))


def _finish(
    _: bytes, run: Run, layout: SceneHeader | None, shards: Iterable[WrittenShard],
    told: Iterable[bytes], dead: Iterable[DeadLetter],
) -> None:  # fmt: skip
    found: dict[str, Feature] = features(layout, run.config) if layout else {}
    finish(run, found, shards, scenes_of(told), dead)

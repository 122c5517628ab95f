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
from ..transforms.pipeline import DEAD, Agree, AssignAndWrite, Choose, Count, Plan, Spread, Stage
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
        planned = (
            pipeline
            | "Scenes" >> beam.Create(list(scenes), reshuffle=False)
            | "Plan" >> Plan(run.config)
        )
        layout = planned.main | "AgreeOnLayout" >> beam.CombineGlobally(Agree())
        staged = planned.main | "Stage" >> Stage(run.config, run.stage, layout, bool(run.stage_dir))
        dead = (planned[DEAD], staged[DEAD]) | "DeadLetters" >> beam.Flatten()
        _write_and_finish(pipeline, run, staged.main, layout, dead)

    return build


def shard_pipeline(
    run: Run, scenes: Sequence[StagedScene], baking: Baking | None = None
) -> Callable[[Any], None]:
    """The second half alone, from stage files that are there."""

    def build(pipeline: Any) -> None:
        staged = (
            pipeline
            | "StagedScenes" >> beam.Create(list(scenes), reshuffle=False)
            | "SpreadScenes" >> Spread().with_output_types(StagedScene)
        )
        layout = (
            staged
            | "Headers" >> beam.Map(_as_planned)
            | "AgreeOnLayout" >> beam.CombineGlobally(Agree())
        )
        kept = [DeadLetter.from_json(line) for line in read_lines(path_of(run.out) / ERRORS)]
        dead = pipeline | "DeadLettersOfConvert" >> beam.Create(kept, reshuffle=False)
        _write_and_finish(pipeline, run, staged, layout, dead, baking)

    return build


def _write_and_finish(
    pipeline: Any, run: Run, staged: Any, layout: Any, dead: Any, baking: Baking | None = None
) -> None:
    chosen = staged | "Choose" >> Choose(run.config, layout)
    staged, dead = chosen.main, (dead, chosen[DEAD]) | "AllDeadLetters" >> beam.Flatten()
    if run.counting:
        counted = staged | "Count" >> Count(run.config, run.counting, strict=False)
        if run.is_here:
            _ = (
                pipeline
                | "OnceCounted" >> beam.Create([None])
                | "Analyze" >> beam.Map(analysis.begin, run, AsList(staged), AsList(counted))
            )
    shards = staged | "Write" >> AssignAndWrite(run.config, join(run.out, RECORDS), layout, baking)
    (
        pipeline
        | "Once" >> beam.Create([None])
        | "Finish"
        >> beam.Map(_finish, run, AsSingleton(layout), AsList(shards), AsList(staged), AsList(dead))
    )


def _as_planned(scene: StagedScene) -> PlannedScene:
    return PlannedScene(SceneFiles(scene.id, ()), scene.header)


def _finish(
    _: None, run: Run, layout: SceneHeader | None, shards: Iterable[WrittenShard],
    scenes: Iterable[StagedScene], dead: Iterable[DeadLetter],
) -> None:  # fmt: skip
    found: dict[str, Feature] = features(layout, run.config) if layout else {}
    finish(run, found, shards, scenes, dead)

"""The PTransforms of convert and shard: wiring alone, the work is in plain functions.

    Plan -> Stage -> Choose -> Assign -> WriteShards

Elements are headers, counts and pointers. Pixels go from a scene to its stage file, and from
there to a shard, inside one function call each.
"""

from __future__ import annotations

import dataclasses
import pickle
import zlib
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsSingleton, TaggedOutput

from ..loader.spec import Feature
from . import processes
from .assign import SplitPlan, assign_scene, plan_shards
from .baking import Baking
from .choosing import Rates, choose, count_classes, rates_of
from .config import Config
from .errors import DeadLetter, JobError, SceneError, as_scene_error
from .headers import SceneHeader
from .planning import PlannedScene, agree, features, fit, record_bytes
from .scenes import SceneFiles
from .shards import Key, WriteShards, WrittenShard
from .stagefile import read_contents
from .staging import StagedScene
from .statistics.counting import Counting
from .statistics.scene import keep_counts

DEAD = "dead_letters"


class Given(beam.PTransform):  # type: ignore[misc]
    """The scenes of a list, handed out to workers: SceneFiles or StagedScenes.

    They are bytes until then, so that the first stage of the job needs no code of ours. On Flink a
    worker that lacks it says so at once only if it could run another stage before; else Flink waits
    three minutes for it. All of them are one element, compressed: Beam packs a transform's values
    three times over (by bzip2, 0.2 ms a scene each time), and looks at each one's type.
    """

    def __init__(self, scenes: Iterable[SceneFiles | StagedScene]):
        super().__init__()
        pairs = [(scene.id, pickle.dumps(scene)) for scene in scenes]
        self._packed = zlib.compress(pickle.dumps(pairs), level=1)

    def expand(self, pipeline: Any) -> Any:
        return (
            pipeline
            | "Packed" >> beam.Create([self._packed], reshuffle=False)
            | "Unpack" >> beam.Map(zlib.decompress)
            | "Pickled" >> beam.FlatMap(pickle.loads).with_output_types(tuple[str, bytes])
            | "Group" >> beam.GroupByKey()
            | "Scenes" >> beam.FlatMap(lambda group: map(pickle.loads, group[1]))
        )


class Told(beam.PTransform):  # type: ignore[misc]
    """StagedScenes in; as bytes out, for steps that are given all of them.

    Beam weighs what it gives to a step beside its input, object by object: half a millisecond for a
    scene.
    """

    def expand(self, staged: Any) -> Any:
        return staged | beam.Map(_told).with_output_types(bytes)


def _told(scene: StagedScene) -> bytes:
    # Nobody but who writes the records asks where patches lie.
    return pickle.dumps(dataclasses.replace(scene, contents=None))


def scenes_of(told: Iterable[bytes]) -> list[StagedScene]:
    """The scenes that ``Told`` told of."""
    return [pickle.loads(scene) for scene in told]


class Spread(beam.PTransform):  # type: ignore[misc]
    """PlannedScenes, StagedScenes or shards (all have an id), handed out to workers anew.

    Beam's ``Reshuffle`` draws its keys by chance. A runner that computes again what a lost worker
    held (Spark) then draws others, and elements come twice or not at all: seen with an executor
    killed while shards were written.
    """

    def expand(self, scenes: Any) -> Any:
        return (
            scenes
            | "ById" >> beam.Map(_with_id).with_output_types(tuple[str, Any])
            | "Group" >> beam.GroupByKey()
            | "Scenes" >> beam.FlatMap(lambda group: group[1])
        )


def _with_id(scene: Any) -> tuple[str, Any]:
    return (scene.scene if isinstance(scene, PlannedScene) else scene).id, scene


@beam.typehints.with_input_types(SceneFiles)
class Plan(beam.PTransform):  # type: ignore[misc]
    """SceneFiles in; PlannedScene out, and dead letters under ``DEAD``."""

    def __init__(self, config: Config):
        super().__init__()
        self._config = config

    def expand(self, scenes: Any) -> Any:
        read = beam.ParDo(_PlanScene(self._config))
        return scenes | "ReadHeader" >> read.with_outputs(DEAD, main="main")


class OurVersion(beam.DoFn):  # type: ignore[misc]
    """Refuses workers that have another scenefeed than the command that launched the job."""

    def __init__(self) -> None:
        self._launched = metadata.version("scenefeed")

    def setup(self) -> None:
        here = metadata.version("scenefeed")
        if here != self._launched:
            raise JobError(
                f"a worker has scenefeed {here}, and the command is of {self._launched}: install "
                "the same on both sides"
            )


class _PlanScene(OurVersion):
    def __init__(self, config: Config):
        super().__init__()
        self._config = config
        self._dead = Metrics.counter("scenefeed", "scenes-failed")

    def process(self, scene: SceneFiles) -> Iterator[Any]:
        result = processes.plan(scene, self._config)
        if isinstance(result, DeadLetter):
            self._dead.inc()
            yield TaggedOutput(DEAD, result)
        else:
            yield result


@beam.typehints.with_input_types(PlannedScene)
class Stage(beam.PTransform):  # type: ignore[misc]
    """PlannedScene in; StagedScene out, and dead letters under ``DEAD``.

    Args:
      config: the configuration.
      folder: where stage files lie.
      layout: the dataset's layout, a PCollection of one SceneHeader, or of none.
      shared: other datasets may have stage files there too.
    """

    def __init__(self, config: Config, folder: str, layout: Any, shared: bool = False):
        super().__init__()
        self._config, self._folder, self._layout = config, folder, layout
        self._shared = shared

    def expand(self, planned: Any) -> Any:
        return (
            planned
            | "SpreadScenes" >> Spread()
            | "StageScene"
            >> beam.ParDo(
                _StageScene(self._config, self._folder, self._shared), AsSingleton(self._layout)
            ).with_outputs(DEAD, main="main")
        )


class _StageScene(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: Config, folder: str, shared: bool):
        self._config, self._folder, self._shared = config, folder, shared
        self._dead = Metrics.counter("scenefeed", "scenes-failed")
        self._patches = Metrics.counter("scenefeed", "patches-staged")
        self._bytes = Metrics.counter("scenefeed", "pixel-bytes-read")

    def process(self, planned: PlannedScene, layout: SceneHeader) -> Iterator[Any]:
        try:
            ready = fit(planned, layout)
            staged = processes.stage(ready, self._config, self._folder, self._shared)
        except Exception as e:
            error = as_scene_error(e, "stage", planned.scene.files[0])
            self._dead.inc()
            yield TaggedOutput(DEAD, DeadLetter.of(planned.scene.id, error))
            return
        self._patches.inc(staged.staged)
        self._bytes.inc(staged.read_bytes)
        yield staged


class Agree(beam.CombineFn):  # type: ignore[misc]
    """PlannedScenes to the dataset's layout. One small header a scene is held."""

    def create_accumulator(self) -> list[PlannedScene]:
        return []

    def add_input(self, held: list[PlannedScene], scene: PlannedScene) -> list[PlannedScene]:
        held.append(scene)
        return held

    def merge_accumulators(self, parts: Iterable[list[PlannedScene]]) -> list[PlannedScene]:
        return [scene for part in parts for scene in part]

    def extract_output(self, held: list[PlannedScene]) -> SceneHeader | None:
        return agree(held)


def agreed(planned: Any) -> Any:
    """The dataset's layout, a PCollection of one SceneHeader; empty without scenes."""
    return planned | "AgreeOnLayout" >> beam.CombineGlobally(Agree()).without_defaults()


@beam.typehints.with_input_types(StagedScene)
class Choose(beam.PTransform):  # type: ignore[misc]
    """StagedScene in; the same with its patches split, sampled and counted out, and dead letters
    under ``DEAD``.

    Args:
      config: the configuration.
      layout: the dataset's layout, a PCollection of one SceneHeader, or of none.
    """

    def __init__(self, config: Config, layout: Any):
        super().__init__()
        self._config, self._layout = config, layout

    def expand(self, staged: Any) -> Any:
        rates: Any = {}
        if self._config.sample.balance:
            listing = beam.combiners.ToListCombineFn()
            rates = AsSingleton(
                staged
                | "CountClasses" >> beam.ParDo(_CountClasses(self._config))
                | "AllClasses" >> beam.CombineGlobally(listing).without_defaults()
                | "Rates" >> beam.Map(rates_of, AsSingleton(self._layout), self._config),
                default_value={},
            )
        choose = _Choose(self._config)
        return staged | "ChoosePatches" >> beam.ParDo(choose, rates).with_outputs(DEAD, main="main")


class _CountClasses(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: Config):
        self._config = config

    def process(self, scene: StagedScene) -> Iterator[Any]:
        try:
            yield count_classes(scene, self._config)
        except SceneError:
            return  # _Choose meets the same, and makes the dead letter


class _Choose(OurVersion):
    def __init__(self, config: Config):
        super().__init__()
        self._config = config
        self._dead = Metrics.counter("scenefeed", "scenes-failed")

    def process(self, scene: StagedScene, rates: Rates) -> Iterator[Any]:
        try:
            counts = choose(scene, self._config, rates).counts(self._config)
        except Exception as e:
            self._dead.inc()
            error = as_scene_error(e, "split", scene.files[0])
            yield TaggedOutput(DEAD, DeadLetter.of(scene.id, error))
            return
        yield dataclasses.replace(scene, counts=counts, rates=rates)


@beam.typehints.with_input_types(StagedScene)
class AssignAndWrite(beam.PTransform):  # type: ignore[misc]
    """StagedScene in; WrittenShard out, for every split.

    Args:
      config: the configuration.
      folder: where shards go.
      layout: the dataset's layout, a PCollection of one SceneHeader, or of none.
      baking: what becomes of images; None to leave them as they are.
    """

    def __init__(self, config: Config, folder: str, layout: Any, baking: Baking | None = None):
        super().__init__()
        self._config, self._folder, self._layout = config, folder, layout
        self._baking = baking

    def expand(self, staged: Any) -> Any:
        config, counting = self._config, beam.combiners.ToDictCombineFn()
        counts = (
            staged
            | "Counts" >> beam.Map(lambda s: (s.id, s.counts))
            | "AllCounts" >> beam.CombineGlobally(counting).without_defaults()
        )
        layout = AsSingleton(self._layout, default_value=None)
        plans = counts | "PlanShards" >> beam.Map(_plan_shards, layout, config)
        plans = AsSingleton(plans, default_value={})
        found = self._layout | "Features" >> beam.Map(features, config)
        found = AsSingleton(found, default_value={})
        return (
            staged
            | "SpreadStaged" >> Spread()
            | "AssignShards"
            >> beam.ParDo(_AssignScene(config), plans, found).with_output_types(tuple[Key, bytes])
            | "WriteShards"
            >> WriteShards(
                self._folder, config.splits, found, config.records.compression, plans, self._baking
            )
        )


def _plan_shards(
    counts: dict[str, dict[str, int]], layout: SceneHeader | None, config: Config
) -> dict[str, SplitPlan]:
    return plan_shards(counts, record_bytes(layout, config), config) if layout else {}


class _AssignScene(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: Config):
        self._config = config

    def process(
        self, scene: StagedScene, plans: dict[str, SplitPlan], features: dict[str, Feature]
    ) -> Iterator[tuple[Key, bytes]]:
        found = scene.contents or read_contents(scene.path, features)
        choice = choose(scene, self._config, scene.rates, found)
        for split, shard, pointers in assign_scene(scene, choice, plans, found, self._config):
            yield (split, shard), pointers.pack(self._config.records.seed)


@beam.typehints.with_input_types(StagedScene)
class Count(beam.PTransform):  # type: ignore[misc]
    """StagedScene in; what each contributes to the statistics goes to a folder, or will.

    Args:
      config: the configuration.
      counting: which scenes, and where to.
      strict: a scene that cannot be counted ends the job; else it is left to a later one.
    """

    def __init__(self, config: Config, counting: Counting, strict: bool = True):
        super().__init__()
        self._config, self._counting, self._strict = config, counting, strict

    def expand(self, staged: Any) -> Any:
        count = _CountScene(self._config, self._counting, self._strict)
        return staged | "CountScene" >> beam.ParDo(count)


class _CountScene(OurVersion):
    def __init__(self, config: Config, counting: Counting, strict: bool):
        super().__init__()
        self._config, self._counting, self._strict = config, counting, strict

    def process(self, scene: StagedScene) -> Iterator[Any]:
        try:
            count = keep_counts if self._strict else processes.count
            count(scene, self._config, self._counting)
        except Exception:  # whatever it is, records are written without it
            if self._strict:
                raise
        return iter(())


__all__ = [
    "DEAD", "AssignAndWrite", "Choose", "Count", "Given", "Plan", "Spread", "Stage",
    "Told", "WrittenShard", "scenes_of",
]  # fmt: skip

"""Planning: headers opened, the dataset's layout agreed on, patches counted. No pixels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ..loader.spec import Feature
from .config import Config
from .errors import DeadLetter, JobError, SceneError, as_scene_error
from .headers import SceneHeader, read_header
from .labels.values import not_there
from .rasters import gdal_environment
from .scalars import COMPUTED
from .scenes import SceneFiles
from .staging import columns


@dataclasses.dataclass(frozen=True)
class PlannedScene:
    """A scene whose header was read."""

    scene: SceneFiles
    header: SceneHeader


def plan_scene(scene: SceneFiles, config: Config) -> PlannedScene | DeadLetter:
    """Reads one scene's header; a scene that cannot be used becomes a dead letter."""
    try:
        with gdal_environment(scene):
            return PlannedScene(scene, read_header(scene, config))
    except Exception as e:
        file = scene.files[0] if scene.assets else ""
        return DeadLetter.of(scene.id, as_scene_error(e, "plan", file))


def agree(planned: Iterable[PlannedScene]) -> SceneHeader | None:
    """The dataset's layout: the bands that most scenes have, dtypes that hold all of those, and
    the names of every scene's classes.

    Of equally frequent bands, those of the scene whose id comes first. None without scenes.

    Raises:
      JobError: a label differs in kind between scenes, or no scene has a scalar that is asked for.
    """
    scenes = sorted(planned, key=lambda p: p.scene.id)
    if not scenes:
        return None
    frequency = Counter(p.header.bands for p in scenes)
    bands = max(frequency, key=lambda b: frequency[b])  # the first of equals, in order of id
    alike = [p.header for p in scenes if p.header.bands == bands]
    merged = {
        name: _merged(name, [h.columns[name] for h in alike if name in h.columns])
        for name in alike[0].columns
    }
    _check_scalars(alike)
    dtype = np.result_type(*(h.dtype for h in alike)).name
    return dataclasses.replace(alike[0], dtype=dtype, columns=merged)


def _check_scalars(headers: Sequence[SceneHeader]) -> None:
    """That every scalar is known of some scene: a misspelt one would be NaN throughout."""
    known = {k for h in headers for k in h.properties}
    for name in headers[0].columns:
        if name not in (*headers[0].owners, *COMPUTED, *known):
            raise JobError(f"scalars: {not_there('property', name, sorted(known))}")


def _merged(name: str, found: Sequence[Feature]) -> Feature:
    """One column as it holds every scene's values."""
    first = found[0]
    kinds = {f.kind for f in found}
    if kinds == {"int", "value"}:
        return Feature((), "float32", "value", "scalar")  # NaN where a scene has none
    if len(kinds) > 1 and "text" in kinds and kinds <= {"int", "value", "text"}:
        return Feature((), "string", "text", "scalar")
    if len(kinds) > 1:
        listed = " and ".join(sorted(kinds))
        raise JobError(
            f"label {name!r} is a {listed} in different scenes: say which with its task or classes"
        )
    dtype = first.dtype
    if dtype != "string":
        dtype = np.result_type(*(f.dtype for f in found)).name
    return dataclasses.replace(first, dtype=dtype, names=_all_names([f.names for f in found]))


def _all_names(found: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The classes' names by id: as declared where all scenes agree, else the sorted union, after
    what all begin with (a mask's background)."""
    different = set(found)
    if len(different) == 1:
        return found[0]
    whole = [f for f in different if f]
    background = whole[0][:1] if all(f[:1] == ("background",) for f in whole) else ()
    rest = {n for f in whole for n in f[len(background) :]}
    return (*background, *sorted(rest, key=_natural))


def _natural(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


def fit(planned: PlannedScene, layout: SceneHeader) -> PlannedScene:
    """The scene with the dataset's dtypes and classes.

    Raises:
      SceneError: its bands differ from the dataset's.
    """
    header = planned.header
    if header.bands != layout.bands:
        raise SceneError(
            f"has bands {', '.join(header.bands)}, but most scenes have {', '.join(layout.bands)}: "
            "choose common ones with scenes.bands, or convert it apart",
            step="plan",
            file=planned.scene.files[0],
        )
    header = dataclasses.replace(header, dtype=layout.dtype, columns=layout.columns)
    return dataclasses.replace(planned, header=header)


def features(layout: SceneHeader, config: Config) -> dict[str, Feature]:
    """What dataset.json says of the records."""
    shape, dtype = columns(layout, config)["image"]
    image = Feature(shape, dtype, "image", "tensor", bands=layout.bands, scale=_scale(config))
    if config.statistics.bake:
        image = dataclasses.replace(image, dtype="float32", scale=())
    keys = {
        "row": Feature((), "int64", "int", "scalar"),
        "col": Feature((), "int64", "int", "scalar"),
    }
    text = Feature((), "string", "text", "scalar")
    return {"image": image, **layout.columns, "scene_id": text, **keys}


def _scale(config: Config) -> tuple[float, ...]:
    """(factor, offset) by which stored values times factor plus offset are the cleaned ones."""
    clean = config.clean
    if not (clean.range and clean.dtype):
        return ()
    low, high = clean.range
    info = np.iinfo(clean.dtype)
    factor = (high - low) / (info.max - info.min)
    return (factor, low - info.min * factor)


def record_bytes(layout: SceneHeader, config: Config) -> int:
    """About how much one record takes: its tensors, and 128 bytes around them."""
    parts = columns(layout, config)
    del parts["invalid"]
    if config.statistics.bake:
        parts["image"] = parts["image"][0], "float32"
    return 128 + sum(
        int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        for shape, dtype in parts.values()
    )

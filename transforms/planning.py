"""Planning: headers opened, the dataset's layout agreed on, patches counted. No pixels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ..loader.spec import Feature
from .config import Config
from .errors import DeadLetter, SceneError, as_scene_error
from .headers import SceneHeader, read_header
from .rasters import gdal_environment
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
        with gdal_environment():
            return PlannedScene(scene, read_header(scene, config))
    except Exception as e:
        return DeadLetter.of(scene.id, as_scene_error(e, "plan", scene.files[0]))


def agree(planned: Iterable[PlannedScene]) -> SceneHeader | None:
    """The dataset's layout: the bands that most scenes have, dtypes that hold all of those.

    Of equally frequent bands, those of the scene whose id comes first. None without scenes.
    """
    scenes = sorted(planned, key=lambda p: p.scene.id)
    if not scenes:
        return None
    frequency = Counter(p.header.bands for p in scenes)
    bands = max(frequency, key=lambda b: frequency[b])  # the first of equals, in order of id
    alike = [p.header for p in scenes if p.header.bands == bands]
    labels = {
        name: np.result_type(*(h.label_dtypes[name] for h in alike)).name
        for name in alike[0].label_dtypes
    }
    dtype = np.result_type(*(h.dtype for h in alike)).name
    return dataclasses.replace(alike[0], dtype=dtype, label_dtypes=labels)


def fit(planned: PlannedScene, layout: SceneHeader) -> PlannedScene:
    """The scene with the dataset's dtypes.

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
    header = dataclasses.replace(header, dtype=layout.dtype, label_dtypes=layout.label_dtypes)
    return dataclasses.replace(planned, header=header)


def features(layout: SceneHeader, config: Config) -> dict[str, Feature]:
    """What dataset.json says of the records."""
    found = {}
    for name, (shape, dtype) in columns(layout, config).items():
        if name == "image":
            found[name] = Feature(shape, dtype, "image", "tensor", bands=layout.bands)
        else:
            ignore = config.labels[name].ignore
            found[name] = Feature(shape, dtype, "mask", "tensor", ignore=ignore)
    found["scene_id"] = Feature((), "string", "text", "scalar")
    found["row"] = found["col"] = Feature((), "int64", "int", "scalar")
    return found


def record_bytes(layout: SceneHeader, config: Config) -> int:
    """About how much one record takes: its tensors, and 128 bytes around them."""
    tensors = columns(layout, config).values()
    return 128 + sum(
        int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in tensors
    )

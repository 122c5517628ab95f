"""Auxiliary scalars: what a record can say of its patch beside pixels and labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..loader.spec import Feature
from .errors import SceneError
from .georeference import Georeference
from .scenes import Properties, SceneFiles
from .sources.safe import incidence_at
from .values import epoch_seconds

# Those that are not simply a property: degrees (WGS 84) of the patch's centre, and seconds since
# 1970 (UTC) of the acquisition.
COMPUTED = ("longitude", "latitude", "time")


def plan_scalars(wanted: tuple[str, ...], scene: SceneFiles) -> dict[str, Feature]:
    """The columns of the scalars that are asked for.

    A property that a scene lacks is NaN, or "" where others have text.

    Raises:
      SceneError: the acquisition's time is asked for and not known.
    """
    if "time" in wanted:
        _seconds(scene)
    return {name: _feature(name, scene.properties.get(name)) for name in wanted}


def _feature(name: str, value: object) -> Feature:
    if name == "time":
        return Feature((), "int64", "int", "scalar")
    if name in COMPUTED or value is None or isinstance(value, float):
        return Feature((), "float32", "value", "scalar")
    if isinstance(value, bool | int):
        return Feature((), "int64", "int", "scalar")
    return Feature((), "string", "text", "scalar")


def text_scalars(columns: Mapping[str, Feature], properties: Properties) -> dict[str, str]:
    """The scalars that are text: one value a scene."""
    return {
        k: "" if properties.get(k) is None else str(properties[k])
        for k, f in columns.items() if f.kind == "text"
    }  # fmt: skip


def scalar_values(
    names: tuple[str, ...], scene: SceneFiles, where: Georeference, size: int,
    rows: np.ndarray, cols: np.ndarray,
) -> dict[str, np.ndarray | float]:  # fmt: skip
    """The values of numeric scalars for patches whose corners are given: arrays (N,), or one
    number where all share it.

    Raises:
      SceneError: the acquisition's time is asked for and not known.
    """
    out: dict[str, np.ndarray | float] = {}
    middle_rows, middle_cols = rows + size / 2, cols + size / 2
    if "longitude" in names or "latitude" in names:
        lon, lat = where.to_lonlat(middle_cols, middle_rows)
        out |= {"longitude": lon, "latitude": lat}
    for name in names:
        value = scene.properties.get(name)
        if name == "time":
            out[name] = _seconds(scene)
        elif name == "incidence_angle" and scene.assets[0].source == "safe" and where.gcps:
            out[name] = incidence_at(scene.assets[0], middle_rows, middle_cols)
        elif name not in out and not isinstance(value, str):
            out[name] = np.nan if value is None else float(value)
    return out


def _seconds(scene: SceneFiles) -> float:
    time = scene.properties.get("time")
    if not isinstance(time, str):
        raise SceneError(
            "has no acquisition time: give scenes.time (a regular expression on the file's stem), "
            "or a manifest with a time column",
            step="plan", file=scene.files[0],
        )  # fmt: skip
    return epoch_seconds(time)

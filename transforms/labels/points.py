"""Measurements at points: soil moisture at stations, classes seen in the field."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import shapely
from pydantic import Field, model_validator

from ...loader.spec import Feature
from ..errors import SceneError
from ..georeference import Georeference
from ..scenes import SceneFiles
from ..tiling import Window
from ..values import as_text
from .base import Burner, Label
from .table import SUFFIXES, read_table, stamp
from .values import (
    Classes,
    as_number,
    check_classes,
    class_ids,
    in_order,
    is_whole,
    names_by_id,
    not_there,
)
from .vectorfile import (
    LabelCrs,
    check_degrees,
    near_scene,
    points_to_pixels,
    read_vector,
    source_crs,
)

_LONGITUDE, _LATITUDE = ("lon", "longitude", "long", "lng"), ("lat", "latitude")


class PointsLabel(Label):
    """Points with a value, brought together in each patch that holds some.

    Regression gives the mean, as ``name``, with ``name_std`` (of the population) and
    ``name_count``; class gives the most frequent one (of several, the smallest id) and
    ``name_count``. A patch without points is NaN, or -1, and not labelled.

    Attributes:
      path: a CSV table or a vector file of points; ``{id}`` stands for the scene's id.
      value: the column or attribute of the value.
      x, y: a table's columns of coordinates; without them lon or longitude or x, and so on.
      layer, crs: as a vector label's; columns named for degrees are in EPSG:4326.
      classes: values with ids from 0 in this order, or each with its id. Without them integers
        are ids, and other values sorted.
      time, within: only points whose time is so many hours around the scene's. A time without a
        zone is in UTC, a day begins at midnight.
      scene: the column of the id of the scene that a point belongs to.
      center: patches are centred on the points' pixels, and take only what lies in these.
    """

    kind: Literal["points"] = "points"
    path: str
    value: str
    x: str | None = None
    y: str | None = None
    layer: str | None = None
    crs: LabelCrs | None = None
    task: Literal["regression", "class"] = "regression"
    classes: Classes | None = None
    time: str | None = None
    within: Annotated[float, Field(ge=0)] | None = None
    scene: str | None = None
    center: bool = False

    @model_validator(mode="after")
    def _belongs_together(self) -> PointsLabel:
        if (self.time is None) != (self.within is None):
            raise ValueError("time and within belong together, as in {time: date, within: 12}")
        if (self.x is None) != (self.y is None):
            raise ValueError("x and y belong together: give both columns")
        if self.classes and self.task != "class":
            raise ValueError("classes are for task: class")
        return self

    def plan(
        self, name: str, scene: SceneFiles, where: Georeference, size: int
    ) -> dict[str, Feature]:
        points = self._read(scene.labels[name])
        source_crs(points.crs, where, points.path)
        _acquired(self, scene)
        count = {f"{name}_count": Feature((), "int64", "int", "scalar")}
        if self.task == "regression":
            if len(points.values) and not np.isfinite(points.numbers).any():
                raise SceneError(
                    f"has no numbers in {self.value}, but such as {points.values[0]!r}: give "
                    "another value, or say task: class",
                    step="label", file=points.path,
                )  # fmt: skip
            value = Feature((), "float32", "value", "scalar")
            return {name: value, **count, f"{name}_std": value}
        names = points.names
        if self.classes:
            ids = class_ids(self.classes, 0)
            check_classes(ids, points.texts, self.value, points.path)
            names = names_by_id(ids)
        return {name: Feature((), "int64", "class", "scalar", names=names, ignore=(-1,)), **count}

    def open(
        self, name: str, scene: SceneFiles, where: Georeference, size: int,
        columns: Mapping[str, Feature],
    ) -> Burner:  # fmt: skip
        burner = PointsBurner(name, size, self.center, self.task == "class")
        points = self._read(scene.labels[name])
        cols, rows, chosen = _in_scene(self, points, scene, where, burner.count, name)
        if self.task == "regression":
            values = points.numbers[chosen]
            usable, what = np.isfinite(values), "unreadable"
        else:
            texts = [points.texts[i] for i in chosen.tolist()]
            values = _ids(texts, self.classes, columns[name].names)
            usable, what = values >= 0, "unclassed"
        burner.count(f"{name}_{what}", int((~usable).sum()))
        burner.take(cols[usable], rows[usable], values[usable])
        return burner

    def centres(self, name: str, scene: SceneFiles, where: Georeference) -> np.ndarray | None:
        if not self.center:
            return None
        points = self._read(scene.labels[name])
        cols, rows, _ = _in_scene(self, points, scene, where, lambda *_: None, name)
        return np.unique(np.stack([rows, cols], axis=1), axis=0)

    def _read(self, path: str) -> Points:
        return _read(path, stamp(path), self.value, self.x, self.y, self.time, self.scene,
                     self.layer, self.crs)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """The points of a file. Shared by threads: not to be changed.

    Attributes:
      path: the file.
      xs, ys: coordinates (N,).
      values: as they stand in the file (N,).
      seconds: times since 1970, UTC (N,); NaN where there is none; None if not asked for.
      scenes: scenes' ids (N,); None if not asked for.
      crs: as VectorTable's.
      unreadable: rows without usable coordinates, which are left out.
    """

    path: str
    xs: np.ndarray
    ys: np.ndarray
    values: list[Any]
    seconds: np.ndarray | None
    scenes: np.ndarray | None
    crs: str
    unreadable: int

    @functools.cached_property
    def numbers(self) -> np.ndarray:
        return np.array([as_number(v) for v in self.values], np.float64)

    @functools.cached_property
    def texts(self) -> list[str]:
        return [as_text(v) for v in self.values]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The sorted values, as classes; none where all of them are ids themselves."""
        found = set(self.texts) - {""}
        return () if all(is_whole(v) and int(v) >= 0 for v in found) else tuple(in_order(found))


@functools.lru_cache(maxsize=4)
def _read(
    path: str, _stamp: str, value: str, x: str | None, y: str | None,
    time: str | None, scene: str | None, layer: str | None, crs: str | None,
) -> Points:  # fmt: skip
    wanted = tuple(dict.fromkeys(c for c in (value, time, scene) if c))
    lost = 0
    if path.lower().endswith(SUFFIXES):
        table = read_table(path)
        x, y = (x, y) if x and y else _coordinates(path, table.header)
        for column in (x, y, *wanted):
            if column not in table.header:
                raise SceneError(not_there("column", column, table.header),
                                 step="label", file=path)  # fmt: skip
        xs, ys = (np.array([as_number(v) for v in table.column(c)]) for c in (x, y))
        fields: Mapping[str, Any] = {c: table.column(c) for c in wanted}
        degrees = x.lower() in _LONGITUDE and y.lower() in _LATITUDE
        crs = crs or ("EPSG:4326" if degrees else "")
    else:
        vector = read_vector(path, wanted, layer, crs)
        if not np.isin(shapely.get_type_id(vector.geometries), (0, 4)).all():
            reason = "holds more than points: give points, or make it a label of kind: vector"
            raise SceneError(reason, step="label", file=path)
        shapes, rows = shapely.get_parts(vector.geometries, return_index=True)
        xs, ys = shapely.get_x(shapes), shapely.get_y(shapes)
        fields = {c: vector.fields[c][rows].tolist() for c in wanted}
        crs, lost = vector.crs, vector.unreadable
    there = np.flatnonzero(np.isfinite(xs) & np.isfinite(ys))
    if len(xs) and not len(there):
        reason = f"has no numbers in its columns {x} and {y}: give the label x and y"
        raise SceneError(reason, step="label", file=path)
    taken = {c: [v[i] for i in there.tolist()] for c, v in fields.items()}
    xs, ys, lost = xs[there], ys[there], lost + len(xs) - len(there)
    if crs and crs != "pixel" and len(xs):
        check_degrees(crs, (xs.min(), ys.min(), xs.max(), ys.max()), path)
    return Points(
        path, xs, ys, taken[value],
        np.array([_seconds(v) for v in taken[time]], np.float64) if time else None,
        np.array([as_text(v) for v in taken[scene]], object) if scene else None,
        crs, lost,
    )  # fmt: skip


def _coordinates(path: str, header: tuple[str, ...]) -> tuple[str, str]:
    """The columns of coordinates, by their names."""
    lower = {name.lower(): name for name in reversed(header)}
    found = [next((lower[n] for n in names if n in lower), None)
             for names in ((*_LONGITUDE, "x"), (*_LATITUDE, "y"))]  # fmt: skip
    if found[0] is None or found[1] is None:
        reason = (f"has no columns lon and lat, or x and y: give the label x and y, of "
                  f"{', '.join(header[:12])}")  # fmt: skip
        raise SceneError(reason, step="label", file=path)
    return found[0], found[1]


def _seconds(value: Any) -> float:
    try:
        time = datetime.datetime.fromisoformat(str(value).strip().replace("/", "-"))
    except ValueError:
        return np.nan
    return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()


def _acquired(label: PointsLabel, scene: SceneFiles) -> float:
    """The scene's time in seconds since 1970; NaN where the label asks for none."""
    if label.time is None:
        return np.nan
    found = _seconds(scene.properties.get("time") or "")
    if np.isnan(found):
        raise SceneError(
            f"has no time, and its points are to be within {label.within:g} h of it: give "
            "scenes.time, or leave out within",
            step="label", file=scene.files[0],
        )  # fmt: skip
    return found


def _in_scene(
    label: PointsLabel, points: Points, scene: SceneFiles, where: Georeference, count: Any,
    name: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """The pixels (columns, rows) of the points that belong to a scene and lie in it, int64, and
    which points these are."""
    chosen = np.arange(len(points.xs))
    if points.scenes is not None:
        chosen = chosen[points.scenes[chosen] == as_text(scene.id)]
    if points.seconds is not None and label.within is not None:
        apart = np.abs(points.seconds[chosen] - _acquired(label, scene))
        count(f"{name}_unreadable", int(np.isnan(apart).sum()))
        chosen = chosen[apart <= label.within * 3600]
    candidates = len(chosen)
    source = source_crs(points.crs, where, points.path)
    xs, ys = points.xs[chosen], points.ys[chosen]
    near = near_scene(xs, ys, source, where, points.path)
    cols, rows = points_to_pixels(xs[near], ys[near], source, where)
    with np.errstate(invalid="ignore"):
        inside = (cols >= 0) & (cols < where.width) & (rows >= 0) & (rows < where.height)
    chosen = chosen[near][inside]
    count(f"{name}_outside", candidates - len(chosen))
    count(f"{name}_unreadable", points.unreadable)
    return cols[inside].astype(np.int64), rows[inside].astype(np.int64), chosen


def _ids(texts: Iterable[str], classes: Any, names: tuple[str, ...]) -> np.ndarray:
    """Class ids of values; -1 for one that is none of the classes."""
    known = class_ids(classes or names, 0)
    if not known:
        return np.array([int(t) if is_whole(t) else -1 for t in texts], np.int64)
    return np.array([known.get(t, -1) for t in texts], np.int64)


class PointsBurner(Burner):
    """Points, looked up by patch.

    Args:
      column: the name of the label.
      size: a patch's side, pixels.
      center: only what lies in a patch's middle pixel.
      classes: whether values are class ids.
    """

    def __init__(self, column: str, size: int, center: bool, classes: bool):
        super().__init__()
        self._column, self._classes = column, classes
        self._shift, self._side = (size // 2, 1) if center else (0, size)
        self._tree, self._values = shapely.STRtree([]), np.zeros(0)

    def take(self, cols: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
        """Takes in points, by their pixels. They stand in the middle of these, so that no patch
        border runs through one."""
        self._tree, self._values = shapely.STRtree(shapely.points(cols + 0.5, rows + 0.5)), values

    def patches(self, window: Window, out: Mapping[str, np.ndarray]) -> np.ndarray | None:
        rows, cols = (c.astype(np.float64) + self._shift for c in window.corners())
        boxes = shapely.box(cols, rows, cols + self._side, rows + self._side)
        patch, point = self._tree.query(boxes)
        values = self._values[point]
        counts = np.bincount(patch, minlength=len(boxes))
        out[f"{self._column}_count"][...] = counts
        if self._classes:
            out[self._column][...] = _most_frequent(patch, values, len(boxes))
        else:
            with np.errstate(invalid="ignore"):
                mean = np.bincount(patch, values, len(boxes)) / counts
                squares = np.bincount(patch, (values - mean[patch]) ** 2, len(boxes))
                out[self._column][...] = mean
                out[f"{self._column}_std"][...] = np.sqrt(squares / counts)
        return np.asarray(counts > 0)


def _most_frequent(patch: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """Each patch's most frequent id, of several the smallest; -1 where there is none."""
    result = np.full(count, -1, np.int64)
    if len(patch):
        pairs, often = np.unique(np.stack([patch, ids], axis=1), axis=0, return_counts=True)
        order = np.lexsort((pairs[:, 1], -often, pairs[:, 0]))
        first, at = np.unique(pairs[order, 0], return_index=True)
        result[first] = pairs[order[at], 1]
    return result

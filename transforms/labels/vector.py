"""Polygons, lines and points, drawn as a mask."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import shapely
from pydantic import Field, model_validator
from rasterio.features import rasterize

from ...loader.spec import Feature
from ..errors import SceneError
from ..georeference import Georeference
from ..scenes import SceneFiles
from ..tiling import Window
from ..values import as_text
from .base import Label, MaskBurner
from .values import Classes, check_classes, class_ids, in_order, names_by_id
from .vectorfile import LabelCrs, Placed, VectorTable, read_vector, to_pixels

BACKGROUND = "background"
_LARGE = 1000  # coordinates; a geometry of more is cut to each window before it is drawn
# An odd one keeps the cut's own edges off the window and off coordinates, which are round.
_MARGIN = 2.3456789
# GDAL draws in these.
_DTYPES = ("uint8", "uint16", "int16", "int32")
_Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class VectorLabel(Label):
    """A vector file, drawn onto each scene's grid as rasterio does: polygons by pixel centres (or
    ``all_touched``), lines and points one pixel wide, geometries of later classes on top.

    Attributes:
      path: the file; ``{id}`` stands for the scene's id.
      layer, crs: where the file has several, or does not say its own; ``crs: pixel`` if its
        coordinates are (column, row).
      attribute: what tells classes; without it, all that is drawn is 1.
      classes: its values, with ids from 1 in this order, or each with its id; without them, the
        values that are there, sorted. Geometries of other values are not drawn.
      background: the value of pixels that nothing is drawn on.
      buffer: widens what is drawn, in units of the file's CRS.
      ignore: values that do not label a pixel; the first also fills patches beyond the scene.
      missing: what a scene without the file is: a failure, or all background.
    """

    kind: Literal["vector"] = "vector"
    path: str
    layer: str | None = None
    crs: LabelCrs | None = None
    attribute: str | None = None
    classes: Classes | None = None
    background: _Int32 = 0
    buffer: float | None = None
    all_touched: bool = False
    ignore: tuple[_Int32, ...] = ()
    missing: Literal["fail", "ignore"] = "fail"

    @model_validator(mode="after")
    def _belongs_together(self) -> VectorLabel:
        if self.classes and not self.attribute:
            raise ValueError("classes are values of an attribute: give attribute too")
        if self.attribute and not self.classes and self.background:
            raise ValueError(f"background {self.background} needs classes: ids count from it")
        if not self.attribute and self.background == 1:
            raise ValueError("background 1 is what geometries are drawn as: give another")
        return self

    def plan(
        self, name: str, scene: SceneFiles, where: Georeference, size: int
    ) -> dict[str, Feature]:
        table = self._read(name, scene)
        ids = self._fixed_ids(name)
        if ids and self.attribute and table is not None:
            check_classes(ids, self._values(name, table), self.attribute, table.path)
        if ids is None:
            values = set() if table is None else set(self._values(name, table))
            ids = class_ids(in_order(values - {"", BACKGROUND}), 1)
        numbers = [*ids.values(), self.background, *self.ignore]
        dtype = next(d for d in _DTYPES if _holds(d, numbers))
        if 0 <= self.background <= max(ids.values(), default=0):
            ids = ids | {BACKGROUND: self.background}
        names = names_by_id(ids)
        return {name: Feature((size, size), dtype, "mask", "tensor", names=names,
                              ignore=self.ignore)}  # fmt: skip

    def open(
        self, name: str, scene: SceneFiles, where: Georeference, size: int,
        columns: Mapping[str, Feature],
    ) -> MaskBurner:  # fmt: skip
        feature = columns[name]
        ids, background = self._fixed_ids(name), self.background
        if ids is None:
            ids = {value: i for i, value in enumerate(feature.names)}
            background = ids.pop(BACKGROUND, 0)
            if not _holds(feature.dtype, [len(feature.names)]):
                raise SceneError(
                    f"attribute {self.attribute} has {len(feature.names)} values over all scenes, "
                    "too many to tell them scene by scene: list those wanted in classes",
                    step="label", file=scene.labels[name],
                )  # fmt: skip
        outside = self.ignore[0] if self.ignore else background
        burner = VectorBurner(name, size, self, np.dtype(feature.dtype), where, background, outside)
        table = self._read(name, scene)
        if table is None:
            burner.count(f"{name}_missing", 1)
            return burner
        placed = to_pixels(table, where, self.buffer)
        burner.draw(placed, self._values(name, table), ids)
        burner.count(f"{name}_unreadable", table.unreadable)
        return burner

    def _read(self, name: str, scene: SceneFiles) -> VectorTable | None:
        path = scene.labels[name]
        if self.missing == "ignore" and not os.path.exists(path):
            return None
        columns = (self.attribute,) if self.attribute else ()
        return read_vector(path, columns, self.layer, self.crs)

    def _fixed_ids(self, name: str) -> dict[str, int] | None:
        """The ids that the configuration gives; None where they come from the files' values."""
        if self.classes:
            return class_ids(self.classes, 1)
        return None if self.attribute else {name: 1}

    def _values(self, name: str, table: VectorTable) -> list[str]:
        if not self.attribute:
            return [name] * len(table.geometries)
        return [as_text(v) for v in table.fields[self.attribute].tolist()]


class VectorBurner(MaskBurner):
    """Draws what touches a window.

    Args:
      column, size: as MaskBurner's.
      label: how to draw.
      dtype: of the mask.
      where: the scene's grid.
      background: the value of pixels that nothing is drawn on.
      outside: the value of pixels beyond the scene.
    """

    def __init__(
        self, column: str, size: int, label: VectorLabel, dtype: np.dtype, where: Georeference,
        background: int, outside: int,
    ):  # fmt: skip
        super().__init__(column, size, label.ignore)
        self._all_touched, self._dtype, self._where = label.all_touched, dtype, where
        self._background, self._outside = background, outside
        self._tree = shapely.STRtree([])
        self._values = np.zeros(0, dtype)

    def draw(self, placed: Placed, values: list[str], ids: Mapping[str, int]) -> None:
        """Takes in what is to be drawn.

        Args:
          placed: the geometries.
          values: the table's values, row by row.
          ids: value to id, later ones on top.
        """
        order = {value: i for i, value in enumerate(ids)}
        ranks = np.array([order.get(values[row], -1) for row in placed.rows.tolist()], np.int64)
        drawn = np.flatnonzero(ranks >= 0)
        drawn = drawn[np.argsort(ranks[drawn], kind="stable")]
        numbers = np.array(list(ids.values()), np.int64)
        self._values = numbers[ranks[drawn]].astype(self._dtype) if len(drawn) else self._values
        self._tree = shapely.STRtree(placed.geometries[drawn])
        self.count(f"{self._column}_outside", placed.outside)
        self.count(f"{self._column}_unplaced", placed.unplaced)
        self.count(f"{self._column}_unclassed", len(np.unique(placed.rows[ranks < 0])))

    def pixels(self, window: Window) -> np.ndarray:
        out = np.full((window.height, window.width), self._background, self._dtype)
        right, bottom = window.col + window.width, window.row + window.height
        near = (window.col - _MARGIN, window.row - _MARGIN, right + _MARGIN, bottom + _MARGIN)
        found = np.sort(self._tree.query(shapely.box(*near)))
        if len(found):
            shapes = self._tree.geometries[found]
            large = shapely.get_num_coordinates(shapes) > _LARGE
            large &= (shapely.get_dimensions(shapes) == 2) & shapely.is_valid(shapes)
            shapes[large] = shapely.clip_by_rect(shapes[large], *near)
            shapes = shapely.transform(shapes, lambda xy: xy - (window.col, window.row))
            drawn = [(shape, value) for shape, value in
                     zip(shapes, self._values[found].tolist(), strict=True)
                     if not shape.is_empty]  # fmt: skip
            if drawn:
                rasterize(drawn, out=out, all_touched=self._all_touched)
        top, left = max(0, -window.row), max(0, -window.col)
        out[:top], out[:, :left] = self._outside, self._outside
        out[max(0, self._where.height - window.row) :] = self._outside
        out[:, max(0, self._where.width - window.col) :] = self._outside
        return out


def _holds(dtype: str, numbers: list[int]) -> bool:
    limits = np.iinfo(dtype)
    return all(limits.min <= n <= limits.max for n in numbers)

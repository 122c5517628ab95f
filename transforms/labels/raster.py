"""A mask from a raster, on the scene's grid or any other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from rasterio.windows import Window as RasterWindow

from ...loader.spec import Feature
from ..claims import check_claims
from ..errors import SceneError
from ..georeference import Georeference
from ..grids import check_ratio, georeference_of, grid_difference, must_be_related
from ..rasters import RASTER_ERRORS, numpy_dtype, open_raster, unreadable
from ..scenes import SceneFiles
from ..sections import Resampling
from ..tiling import Window
from ..warping import read_warped, warped
from .base import Burner, Label, MaskBurner

# What a mask can hold.
Value = Annotated[int, Field(ge=-(1 << 31), lt=1 << 32)]


class RasterLabel(Label):
    """A mask raster: one a scene, found by its id, or a map that lies under all scenes.

    Attributes:
      path: ``{id}`` and ``{<property>}`` stand for the scene's. A path without them is a map's,
        which needs a georeference to tell each scene's part of it.
      band: which of its bands, from 1.
      ignore: values that do not label a pixel, after ``values``. The first of them stands where
        the raster does not reach; else 0 (NaN for floats).
      values: values to replace by others; those that are not named stay.
      classes: names by value, for dataset.json.
      resampling: how it is brought onto the scene's grid, where it lies on another.
      missing: what a scene without the file becomes: a dead letter, or unlabelled.
    """

    kind: Literal["raster"] = "raster"
    path: str
    band: Annotated[int, Field(ge=1)] = 1
    ignore: tuple[Value, ...] = ()
    values: dict[Value, Value] = {}
    classes: tuple[str, ...] = ()
    resampling: Resampling = "nearest"
    missing: Literal["fail", "ignore"] = "fail"

    def plan(
        self, name: str, scene: SceneFiles, where: Georeference, size: int
    ) -> dict[str, Feature]:
        path = scene.labels[name]
        if self._absent(path):
            dtype = np.result_type(*(np.min_scalar_type(v) for v in (*self.ignore, 0)))
        else:
            with _errors_are_the_labels(path), open_raster(path, "label") as source:
                self._check(source, where)
                dtype = self._dtype(source)
        return {
            name: Feature(
                (size, size), dtype.name, "mask", "tensor", names=self.classes, ignore=self.ignore
            )
        }

    def open(
        self, name: str, scene: SceneFiles, where: Georeference, size: int,
        columns: Mapping[str, Feature],
    ) -> Burner:  # fmt: skip
        path = scene.labels[name]
        dtype = np.dtype(columns[name].dtype)
        return _RasterBurner(self, None if self._absent(path) else path, name, where, size, dtype)

    def _absent(self, path: str) -> bool:
        return self.missing == "ignore" and not os.path.exists(path)

    def _dtype(self, source: Any) -> np.dtype[Any]:
        dtype = numpy_dtype(source.dtypes[self.band - 1])
        if dtype.kind not in "iu":
            return dtype
        for value in self.values.values():
            if not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
                dtype = np.result_type(dtype, np.min_scalar_type(value))
        return dtype

    def _check(self, source: Any, where: Georeference) -> None:
        check_claims(source, source.name)
        if self.band > source.count or (source.count > 1 and "band" not in self.model_fields_set):
            reason = f"has {source.count} bands: say which with band" if source.count > 1 else (
                f"has no band {self.band}")  # fmt: skip
            raise SceneError(reason, step="label", file=source.name)
        own = georeference_of(source)
        if "{" not in self.path and not (own.located and own.crs):
            reason = (
                "is not georeferenced, and its path is the same for every scene: put {id} where "
                "the scene's id stands"
            )
            raise SceneError(reason, step="label", file=source.name)
        if grid_difference(own, where):
            must_be_related(own, where, "the label")
            item = numpy_dtype(source.dtypes[self.band - 1]).itemsize
            check_ratio(own, where, item * source.count)


@contextlib.contextmanager
def _errors_are_the_labels(path: str) -> Any:
    try:
        yield
    except SceneError as e:
        raise SceneError(e.reason, step="label", file=e.file or path, window=e.window) from None


class _RasterBurner(MaskBurner):
    def __init__(
        self, label: RasterLabel, path: str | None, name: str, where: Georeference, size: int,
        dtype: np.dtype[Any],
    ):  # fmt: skip
        super().__init__(name, size, label.ignore)
        self._label, self._where, self._dtype = label, where, dtype
        self._path = path or ""
        self._stack = contextlib.ExitStack()
        self._source: Any = None
        self._warped = False
        floating = dtype.kind == "f"
        held = (v for v in label.ignore if floating or np.can_cast(np.min_scalar_type(v), dtype))
        self._empty = next(held, np.nan if floating else 0)
        if path is not None:
            with contextlib.ExitStack() as stack:
                self._open(stack, path)
                self._stack = stack.pop_all()

    def _open(self, stack: contextlib.ExitStack, path: str) -> None:
        self._source = stack.enter_context(open_raster(path, "label"))
        self._bands = self._source.count
        own = georeference_of(self._source)
        if grid_difference(own, self._where):
            self._source = stack.enter_context(
                warped(self._source, own, self._where, self._label.resampling, None, False)
            )
            self._warped = True

    def pixels(self, window: Window) -> np.ndarray:
        whole = np.full((window.height, window.width), self._empty, self._dtype)
        top, left = max(window.row, 0), max(window.col, 0)
        bottom = min(window.row + window.height, self._where.height)
        right = min(window.col + window.width, self._where.width)
        if self._source is None or bottom <= top or right <= left:
            return whole
        rows, cols = (
            (top - window.row, bottom - window.row),
            (left - window.col, right - window.col),
        )
        part = whole[slice(*rows), slice(*cols)]
        found, reached = self._read((top, left, bottom - top, right - left))
        if self._label.values:
            before = found.astype(self._dtype)
            found = before.copy()
            for value, new in self._label.values.items():
                found[before == value] = new
        if reached is None:
            part[...] = found
        else:
            np.copyto(part, found.astype(self._dtype), where=reached)
            self.count(f"{self._column}_beyond", int((~reached).sum()))
        return whole

    def _read(self, area: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        """An area's values, and where the raster reaches (None for everywhere)."""
        row, col, height, width = area
        try:
            if not self._warped:
                window = RasterWindow(col, row, width, height)
                return self._source.read(self._label.band, window=window), None
            found = np.empty((1, height, width), self._source.dtypes[self._label.band - 1])
            read_warped(self._source, [self._label.band], area, found)
            if self._source.count == self._bands:
                return found[0], ~np.isnan(found[0])
            alpha = np.empty((1, height, width), self._source.dtypes[-1])
            read_warped(self._source, [self._source.count], area, alpha)
            return found[0], alpha[0] > 0
        except RASTER_ERRORS as e:
            raise unreadable(self._path, area, "label", e) from None

    def close(self) -> None:
        self._stack.close()

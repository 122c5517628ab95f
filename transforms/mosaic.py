"""Predictions over one scene's patches, put together into a GeoTIFF on the scene's own grid."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.shutil import copy as raster_copy
from rasterio.windows import Window

from ..loader.spec import DatasetSpec
from .errors import ConfigError, JobError, describe
from .georeference import Georeference
from .locating import read_scenes, scene_of
from .rasters import gdal_environment

MODES = ("mean", "last", "max")
_BLOCK = 256  # a patch touches few blocks more than it must, and GDAL's cache holds hundreds


class Mosaic:
    """A scene's predictions as a raster that aligns with the scene to the pixel.

        with Mosaic("out", "India_900498", "water.tif", names=["water"]) as mosaic:
            mosaic.add(batch["row"], batch["col"], model(batch["image"]))

    What is added goes to a temporary file through GDAL's block cache of 64 MiB, so memory does
    not grow with the scene. On leaving the block without an error, it becomes a tiled, compressed
    GeoTIFF with overviews (cloud optimized), under its name at once; otherwise nothing is left.

    Args:
      out: the dataset's folder; scenes.jsonl and dataset.json are read, no pixels.
      scene_id: which scene.
      path: the GeoTIFF.
      bands: values a pixel.
      dtype: of the raster.
      nodata: what pixels hold that nothing was added to; by default NaN, and for integers the
        greatest value of unsigned, the least of signed ones.
      mode: where patches overlap: ``mean`` (floats alone; their default), ``last`` (the default
        of integers, which may be classes) or ``max``. NaN is no prediction, and changes nothing.
      names: of the bands.

    Raises:
      DatasetError: no dataset, or no such scene.
      ConfigError: arguments that do not fit each other.
    """

    def __init__(
        self, out: str | Path, scene_id: str, path: str | Path, bands: int = 1,
        dtype: str = "float32", nodata: float | None = None, mode: str = "",
        names: Sequence[str] = (),
    ):  # fmt: skip
        self.dtype = np.dtype(dtype)
        if self.dtype.kind not in "fiu" or self.dtype == np.float16:
            raise ConfigError(f"dtype {dtype}: give float32, float64 or an integer")
        real = self.dtype.kind == "f"
        self.mode = mode or ("mean" if real else "last")
        if self.mode not in MODES or (self.mode == "mean" and not real):
            raise ConfigError(f"mode {self.mode!r} of {dtype}: mean (of floats), last or max")
        if names and len(names) != bands:
            raise ConfigError(f"{len(names)} names for {bands} bands: give one each")
        self.size = int(DatasetSpec.load(out).features["image"].shape[0])
        self.where = scene_of(read_scenes(out), scene_id).where
        self.nodata = default_nodata(self.dtype) if nodata is None else nodata
        if not real and self.nodata not in range(np.iinfo(dtype).min, np.iinfo(dtype).max + 1):
            raise ConfigError(f"nodata {self.nodata:g} does not fit {dtype}: choose another")
        self._path, self._bands, self._names, self._scene = Path(path), bands, names, scene_id

    def __enter__(self) -> Mosaic:
        with self._writing(), contextlib.ExitStack() as stack:
            hidden = tempfile.TemporaryDirectory(
                prefix=f".{self._path.name}.", suffix=".tmp", dir=self._path.parent
            )
            self._folder = Path(stack.enter_context(hidden))
            stack.enter_context(gdal_environment())
            self._raster = self._open("values.tif", self.dtype, self.nodata)
            if self.mode == "mean":
                self._seen = self._open("counts.tif", np.dtype(np.uint16), 0)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, *error: object) -> None:
        with self._stack, self._writing():
            if self.mode == "mean":
                self._seen.close()
            if kind is None:
                self._describe()
            self._raster.close()
            if kind is None:
                self._finish()

    def add(self, rows: Any, cols: Any, values: Any) -> None:
        """Adds patches' predictions.

        Args:
          rows, cols: the patches' corners, as records have them, (N,).
          values: (N, size, size) or (N, size, size, bands); or one a patch, (N,) or (N, bands).

        Raises:
          ConfigError: another shape, or a patch that is not on the scene.
        """
        rows, cols = np.atleast_1d(rows), np.atleast_1d(cols)
        patches = self._patches(np.asarray(values), len(rows))
        height, width, size = self.where.height, self.where.width, self.size
        off = (rows <= -size) | (rows >= height) | (cols <= -size) | (cols >= width)
        if off.any():
            at = int(np.flatnonzero(off)[0])
            raise ConfigError(
                f"patch {rows[at]}/{cols[at]} is not on scene {self._scene}, which is {height} rows "
                f"by {width} columns: are these predictions of another scene?"
            )
        with self._writing():
            for row, col, patch in zip(rows.tolist(), cols.tolist(), patches, strict=True):
                top, left = max(0, -row), max(0, -col)
                inside = patch[:, top : height - row, left : width - col]
                self._merge(Window(col + left, row + top, *inside.shape[:0:-1]), inside)

    def _patches(self, values: np.ndarray, count: int) -> np.ndarray:
        """Values as (N, bands, size, size)."""
        size, bands = self.size, self._bands
        shapes = [(count, size, size, bands), (count, bands)]
        if bands == 1:
            shapes += [(count, size, size), (count,)]
        if values.shape not in shapes:
            listed = ", ".join(map(str, shapes))
            raise ConfigError(
                f"predictions of shape {values.shape} for {count} patches: give one of {listed}"
            )
        if values.ndim < 3:
            values = np.broadcast_to(values.reshape(count, 1, 1, bands), (count, size, size, bands))
        return np.moveaxis(values.reshape(count, size, size, bands), -1, 1)

    def _merge(self, window: Window, new: np.ndarray) -> None:
        """Merges (bands, height, width) into a window."""
        known = ~np.isnan(new) if new.dtype.kind == "f" else np.ones(new.shape, bool)
        new = new.astype(self.dtype)
        if self.mode == "last" and known.all():
            self._raster.write(new, window=window)
            return
        old = self._raster.read(window=window)
        if self.mode == "last":
            merged = np.where(known, new, old)
        elif self.mode == "max":
            empty = np.isnan(old) if math.isnan(self.nodata) else old == self.nodata
            merged = np.where(known & (empty | (new > old)), new, old)
        else:
            seen = self._seen.read(window=window) + known.astype(np.uint16)
            before = np.where(seen > 1, old, new)
            # A mean that runs is exact of equal values, which a sum's is not.
            step = ((new - before) / np.maximum(seen, 1)).astype(self.dtype)
            merged = np.where(known, before + step, old)
            self._seen.write(seen, window=window)
        self._raster.write(merged, window=window)

    def _open(self, name: str, dtype: np.dtype[Any], nodata: float) -> Any:
        return rasterio.open(
            self._folder / name, "w+", driver="GTiff", count=self._bands, dtype=dtype.name,
            nodata=nodata,
            height=self.where.height, width=self.where.width, interleave="pixel", tiled=True,
            blockxsize=_BLOCK, blockysize=_BLOCK, bigtiff="YES",
            sparse_ok=True,  # blocks that nothing is written to read as nodata
        )  # fmt: skip

    def _describe(self) -> None:
        place(self._raster, self.where)
        if self._names:
            self._raster.descriptions = tuple(self._names)

    def _finish(self) -> None:
        done = self._folder / self._path.name
        raster_copy(
            self._folder / "values.tif", done, driver="COG", compress="DEFLATE", level=1, predictor="YES",
            overview_resampling="AVERAGE" if self.mode == "mean" else "NEAREST",
            bigtiff="IF_SAFER", num_threads="ALL_CPUS",
        )  # fmt: skip
        os.replace(done, self._path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, rasterio.errors.RasterioError) as e:
            raise JobError(
                f"{self._path}: cannot be written ({describe(e)}): choose another path, or make room "
                "there for the scene's pixels"
            ) from e


def place(raster: Any, where: Georeference) -> None:
    """Gives a raster that is open for writing a scene's place."""
    crs = CRS.from_wkt(where.crs) if where.crs else None
    if where.gcps:
        points = [GroundControlPoint(row=r, col=c, x=x, y=y) for r, c, x, y in where.gcps]
        raster.gcps = (points, crs)
        return
    if crs:
        raster.crs = crs
    if where.located:
        raster.transform = where.affine


def default_nodata(dtype: np.dtype[Any]) -> float:
    """What a pixel without a prediction holds, where nobody says."""
    if dtype.kind == "f":
        return math.nan
    return float(np.iinfo(dtype).max if dtype.kind == "u" else np.iinfo(dtype).min)

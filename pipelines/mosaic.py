"""Predictions in a NumPy file to a map of one scene."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..loader.spec import DatasetSpec
from ..transforms.errors import ConfigError
from ..transforms.locating import read_scenes, scene_keys, scene_of
from ..transforms.mosaic import Mosaic, default_nodata

_AT_ONCE = 64  # patches that are added together
_WANTED = (
    "give a .npz with row, col and values (and scene_id, where it holds several scenes), or a .npy "
    "of values by row, then column"
)


def write_mosaic(
    out: str, scene_id: str, predictions: str, output: str, *, split: str | None = None,
    mode: str = "", nodata: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Writes a GeoTIFF of predictions that a file holds.

    Args:
      out: the dataset.
      scene_id: which scene.
      predictions: a .npz with ``row``, ``col``, ``values`` and perhaps ``scene_id``, or a .npy of
        values alone, for all records of the scene (or of ``split``) by row, then column.
      output: the GeoTIFF.
      split: whose records a .npy is of; all by default.
      mode, nodata: as ``Mosaic`` takes them.

    Returns:
      ``output``, ``scene_id``, ``patches``, ``bands``, ``dtype``, ``mode``, ``nodata`` (None for
      NaN), ``height``, ``width``.

    Raises:
      DatasetError: no such scene.
      ConfigError: the file does not hold predictions of it.
    """
    spec = DatasetSpec.load(out)
    scene_of(read_scenes(out), scene_id)
    rows, cols, values = _read(predictions, out, spec, scene_id, split)
    dtype = _dtype(values, nodata)
    bands = values.shape[-1] if values.ndim in (2, 4) else 1
    with Mosaic(out, scene_id, output, bands, dtype, nodata, mode) as mosaic:
        for first in range(0, len(rows), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            mosaic.add(rows[part], cols[part], values[part])
    return {
        "output": output, "scene_id": scene_id, "patches": len(rows), "bands": bands,
        "dtype": dtype, "mode": mosaic.mode,
        "nodata": None if math.isnan(mosaic.nodata) else mosaic.nodata,
        "height": mosaic.where.height, "width": mosaic.where.width,
    }  # fmt: skip


def _read(
    path: str, out: str, spec: DatasetSpec, scene_id: str, split: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of a scene's predictions."""
    found = _load(path)
    if isinstance(found, np.ndarray):
        rows, cols = scene_keys(out, spec, scene_id, split)
        if found.ndim == 0 or len(found) != len(rows):
            raise ConfigError(
                f"{path}: predictions of shape {found.shape}, but {split or 'the dataset'} has "
                f"{len(rows)} records of {scene_id}: {_WANTED}"
            )
        return rows, cols, found
    if missing := {"row", "col", "values"} - found.keys():
        raise ConfigError(f"{path}: has no {', '.join(sorted(missing))}: {_WANTED}")
    rows, cols, values = found["row"], found["col"], found["values"]
    if not (rows.ndim == cols.ndim == 1 and values.ndim and len(rows) == len(cols) == len(values)):
        raise ConfigError(
            f"{path}: row {rows.shape}, col {cols.shape} and values {values.shape}: give as many "
            "of each"
        )
    if not (rows.dtype.kind in "iu" and cols.dtype.kind in "iu"):
        raise ConfigError(f"{path}: row and col are whole numbers, not {rows.dtype}, {cols.dtype}")
    if "scene_id" in found:
        own = np.broadcast_to(found["scene_id"].astype(str), rows.shape) == scene_id
        rows, cols, values = rows[own], cols[own], values[own]
    if not len(rows):
        raise ConfigError(f"{path}: holds no predictions of {scene_id}")
    return rows, cols, values


def _load(path: str) -> np.ndarray | dict[str, np.ndarray]:
    if not Path(path).exists():
        raise ConfigError(f"{path}: no such file: {_WANTED}")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = found if isinstance(found, np.ndarray) else {k: found[k] for k in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise ConfigError(f"{path}: is no NumPy file of plain arrays: {_WANTED}") from None
    return arrays


def _dtype(values: np.ndarray, nodata: float | None) -> str:
    """The raster's dtype: of numbers with a fraction float32 or float64, of integers the smallest
    that holds them, and a value for nodata besides."""
    if values.dtype.kind == "f":
        return "float64" if values.dtype == np.float64 else "float32"
    if values.dtype.kind not in "biu" or not values.size:
        raise ConfigError(f"predictions are {values.dtype}: give integers or floats")
    low, high = int(values.min()), int(values.max())
    for name in ("uint8", "int16", "uint16", "int32", "uint32"):
        kind = np.iinfo(name)
        empty = default_nodata(np.dtype(name)) if nodata is None else nodata
        beside = empty < low or empty > high
        if kind.min <= min(low, empty) and max(high, empty) <= kind.max and beside:
            return name
    raise ConfigError(
        f"predictions from {low} to {high} leave no integer for nodata that GDAL writes: give "
        "another --nodata, or floats"
    )

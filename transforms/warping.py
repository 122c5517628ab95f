"""Reading a raster as it looks on another grid, window by window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import rasterio
from rasterio import warp
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from .georeference import Georeference, transform_points


def _scales(source: Georeference, target: Georeference) -> dict[str, str]:
    """GDAL's XSCALE and YSCALE: target pixels for each source pixel, at the target's middle.

    GDAL guesses them from the extent of what it warps at once; of a part of a rotated raster it
    guesses wrong, and then smooths what it should not.
    """
    col, row = target.width / 2, target.height / 2
    xs, ys = target.to_map([col, col + 1, col], [row, row, row + 1])
    xs, ys = transform_points(target.crs, source.crs, xs, ys)
    cols, rows = source.to_pixels(xs, ys)
    steps = np.hypot(cols[1:] - cols[0], rows[1:] - rows[0])
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        return {}
    steps = np.where(np.abs(steps - 1) < 0.02, 1, steps)  # projections differ by as much
    return {"XSCALE": str(float(1 / steps[0])), "YSCALE": str(float(1 / steps[1]))}


def warped(
    dataset: Any,
    source: Georeference,
    target: Georeference,
    resampling: str,
    src_nodata: Any,
    masked: bool,
) -> WarpedVRT | GcpWarp:
    """A raster as it looks on the target's grid, read window by window, never whole.

    Where it has no data, it is ``src_nodata``, or NaN where that is None and it is of floats.
    Integers without ``src_nodata``, and what has a mask, get an alpha band after their bands, 0
    where there is no data.

    Args:
      dataset: open; keep it open.
      source: its own grid.
      target: the grid that is wanted.
      resampling: rasterio's name.
      src_nodata: the value that means no data, or None.
      masked: whether the last band is a mask that says where there is no data.
    """
    floating = np.issubdtype(np.dtype(dataset.dtypes[0].replace("_int16", "64")), np.inexact)
    options: dict[str, Any] = {
        "crs": CRS.from_wkt(target.crs), "transform": target.affine,
        "width": target.width, "height": target.height,
        "resampling": Resampling[resampling], "src_nodata": src_nodata,
    }  # fmt: skip
    scales = _scales(source, target)
    if masked:
        options["src_alpha"] = dataset.count
    if masked or (src_nodata is None and not floating):
        options["add_alpha"] = True
    else:
        options["nodata"] = math.nan if src_nodata is None else src_nodata
    if dataset.transform == Affine.identity() and dataset.gcps[0]:
        return GcpWarp(dataset, target, resampling, src_nodata, scales)
    return WarpedVRT(dataset, **options, **scales)


class GcpWarp:
    """What ``WarpedVRT`` should do for a raster that is located by control points: given a grid,
    rasterio's forgets the points (1.4). ``rasterio.warp.reproject`` does not.

    Stands in for it where ``read_warped`` reads: it has the raster's bands, and an alpha band
    after them. It warps whole blocks, so that a pixel is the same whatever window it is read in.
    """

    BLOCK = (256, 512)

    def __init__(
        self, dataset: Any, target: Georeference, resampling: str, src_nodata: Any,
        scales: dict[str, str],
    ):  # fmt: skip
        self._dataset, self._target = dataset, target
        self._resampling, self._nodata = Resampling[resampling], src_nodata
        self._scales = scales
        self.count = dataset.count + 1
        self.dtypes = (*dataset.dtypes, dataset.dtypes[0])
        self.block_shapes = [self.BLOCK] * self.count

    def __enter__(self) -> GcpWarp:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, indexes: list[int], window: RasterWindow) -> np.ndarray:
        """(bands, height, width) of a window; the alpha band is 1 where there is data, else 0."""
        row, col = int(window.row_off), int(window.col_off)
        bottom, right = row + int(window.height), col + int(window.width)
        (high, wide), out = self.BLOCK, []
        for index in indexes:
            rows = [
                np.hstack(
                    [self._block(index, r, c) for c in range(col // wide * wide, right, wide)]
                )
                for r in range(row // high * high, bottom, high)
            ]
            out.append(np.vstack(rows)[row % high :, col % wide :])
        return np.stack(out)[:, : bottom - row, : right - col]

    def _block(self, index: int, row: int, col: int) -> np.ndarray:
        alpha = index == self.count
        dtype = np.dtype(self._dataset.dtypes[0].replace("_int16", "64"))
        wide = np.complex128 if dtype.kind == "c" else np.float64
        out = np.full(self.BLOCK, np.nan, wide)
        points, crs = self._dataset.gcps
        warp.reproject(
            rasterio.band(self._dataset, 1 if alpha else index), out, gcps=points,
            src_crs=crs or self._dataset.crs, src_nodata=self._nodata,
            dst_crs=CRS.from_wkt(self._target.crs), dst_nodata=np.nan,
            dst_transform=self._target.affine @ Affine.translation(col, row),
            resampling=self._resampling, **self._scales,
        )  # fmt: skip
        if alpha:
            return np.isfinite(out).astype(dtype)
        if dtype.kind in "iu":
            out = np.rint(np.nan_to_num(out))
        return out.astype(dtype)


def read_warped(vrt: WarpedVRT | GcpWarp, indexes: list[int], area: Any, out: np.ndarray) -> None:
    """Fills ``out`` (bands, height, width) with an area (row, column, height, width) of a warped
    raster.

    GDAL warps a large request as one, and approximates coordinates along it; a request lower
    than a block it serves from whole blocks. So rows are read a block at a time, and a pixel is
    the same whatever window it is read in.
    """
    row, col, height, width = area
    step = vrt.block_shapes[0][0]
    start = row
    while start < row + height:
        end = min(row + height, (start // step + 1) * step)
        window = RasterWindow(col, start, width, end - start)
        out[:, start - row : end - row] = vrt.read(indexes, window=window)
        start = end


def has_mask(dataset: Any) -> bool:
    """Whether a mask file or an alpha band says where a raster has data."""
    return any(
        MaskFlags.per_dataset in flags or MaskFlags.alpha in flags
        for flags in dataset.mask_flag_enums
    )

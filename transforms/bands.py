"""A scene's bands, open: which file each comes from, and how its values are had."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from .claims import check_claims
from .config import Config
from .errors import SceneError
from .georeference import Georeference
from .grids import check_ratio, georeference_of, grid_difference, target_grid
from .rasters import RASTER_ERRORS, numpy_dtype, open_asset, unreadable
from .scenes import SceneFiles
from .sections import Clean
from .warping import has_mask, read_warped, warped

Rectangle = tuple[int, int, int, int]  # row, column, height, width


@dataclasses.dataclass
class Opened:
    """An open file, and the bands that are wanted of it.

    Attributes:
      file: its name, for people.
      dataset: rasterio's.
      indexes: which of its bands, from 1.
      names: the bands' names.
      where: the file's own grid.
    """

    file: str
    dataset: Any
    indexes: list[int]
    names: tuple[str, ...]
    where: Georeference

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(numpy_dtype(self.dataset.dtypes[i - 1]) for i in self.indexes))


def open_bands(
    stack: contextlib.ExitStack, scene: SceneFiles, config: Config, step: str
) -> list[Opened]:
    """Opens a scene's files, in the order of its bands. ``stack`` closes them.

    Raises:
      SceneError: a file cannot be opened, or its bands are not those wanted.
    """
    opened = []
    for number, asset in enumerate(scene.assets):
        dataset = stack.enter_context(open_asset(asset, step))
        if step == "plan":  # once is enough
            check_claims(dataset, str(asset))
        if scene.bands:
            names: tuple[str, ...] = (scene.bands[number],)
            if dataset.count > 1:
                reason = f"has {dataset.count} bands: one file a band needs one each"
                raise SceneError(f"band {names[0]} {reason}", step="plan", file=str(asset))
            indexes = [1]
        else:
            names = band_names(dataset, config.scenes.bands, str(asset))
            indexes = _indexes(dataset, names)
        opened.append(Opened(str(asset), dataset, indexes, names, georeference_of(dataset)))
    return opened


def band_names(dataset: Any, wanted: Any, file: str) -> tuple[str, ...]:
    """The names of a file's bands: the configuration's, else its own descriptions, else b1 ...

    Raises:
      SceneError: the configuration names another number, and none of its descriptions.
    """
    described = tuple(d or "" for d in dataset.descriptions)
    named = all(described) and len(set(described)) == len(described)
    if wanted is None:
        return described if named else tuple(f"b{i}" for i in dataset.indexes)
    if len(wanted) != dataset.count and not (named and set(wanted) <= set(described)):
        raise SceneError(
            f"has {dataset.count} bands{' (' + ', '.join(described) + ')' if named else ''}, "
            f"but scenes.bands names {len(wanted)}: {', '.join(wanted)}",
            step="plan", file=file,
        )  # fmt: skip
    return tuple(wanted)


def _indexes(dataset: Any, names: tuple[str, ...]) -> list[int]:
    described = list(dataset.descriptions)
    if set(names) <= set(described):
        return [described.index(b) + 1 for b in names]
    return list(dataset.indexes)


def scene_grid(opened: list[Opened], config: Config) -> Georeference:
    """The grid that all of a scene's bands are read on.

    Raises:
      SceneError: they cannot be brought onto one.
    """
    bands = {n: o.where for o in opened for n in o.names}
    wanted = config.grid.resampling if config.grid else ""
    for name in wanted if isinstance(wanted, dict) else ():
        if name not in bands:
            listed = ", ".join(bands)
            reason = f"has no band {name!r} for grid.resampling: it has {listed}"
            raise SceneError(reason, step="plan")
    return target_grid(bands, config.grid)


class BandReader:
    """Some bands of a scene from one file, on the scene's grid, as the values that are wanted.

    Args:
      stack: closes what is opened here.
      opened: the file.
      config: the configuration.
      grid: the scene's grid; a file on another is warped to it.
    """

    def __init__(
        self, stack: contextlib.ExitStack, opened: Opened, config: Config, grid: Georeference
    ):
        clean = config.clean
        self._nodata = clean.nodata
        self._dataset = opened.dataset
        self._file = opened.file
        self._indexes = opened.indexes
        self.dtype = self._raw_dtype = opened.dtype
        self.names = opened.names
        self._warped = self._alpha = False
        self._inner_nodata: float | None = None
        if opened.where is not grid and grid_difference(opened.where, grid):
            self._warp(stack, opened, config, grid)
        self._parts = clean.complex_parts if self._raw_dtype.kind == "c" else ()
        if self._parts:
            self.names = part_names(self.names, self._parts)
            self.dtype = np.dtype(np.float32)
        self._scaling = _scaling(opened) if clean.scale_offset else None
        if self._scaling is not None:
            self.dtype = np.result_type(self.dtype, np.float32)

    def _warp(
        self, stack: contextlib.ExitStack, opened: Opened, config: Config, grid: Georeference
    ) -> None:
        source = opened.dataset
        if config.grid is None:
            names = {"bilinear"}
        else:
            names = {config.grid.resampling_of(n) for n in opened.names}
        if len(names) > 1:
            reason = f"grid.resampling differs within one file's bands: {', '.join(sorted(names))}"
            raise SceneError(reason, step="plan", file=opened.file)
        check_ratio(opened.where, grid, self._raw_dtype.itemsize * source.count)
        if self._nodata == "auto":
            self._inner_nodata = source.nodata
        elif self._nodata != "none":
            self._inner_nodata = float(self._nodata)
        masked = self._nodata == "auto" and has_mask(source)
        if masked and not any(MaskFlags.alpha in f for f in source.mask_flag_enums):
            listed = ",".join(map(str, source.indexes))
            source = stack.enter_context(rasterio.open(f"vrt://{source.name}?bands={listed},mask"))
        try:
            self._dataset = stack.enter_context(
                warped(source, opened.where, grid, names.pop(), self._inner_nodata, masked)
            )
        except (*RASTER_ERRORS, IndexError) as e:
            reason = f"cannot be warped to the scene's grid: {e}"
            raise SceneError(reason, step="plan", file=opened.file) from None
        self._warped = True
        self._alpha = self._dataset.count > source.count or masked
        if self._raw_dtype == np.float64:
            self.dtype = np.dtype(np.float32)

    @property
    def block(self) -> tuple[int, int]:
        """(height, width) of what is decoded at once."""
        height, width = self._dataset.block_shapes[self._indexes[0] - 1]
        return int(height), int(width)

    def read(self, area: Rectangle, out: np.ndarray) -> np.ndarray | None:
        """Fills ``out`` (bands, height, width) with an area that lies within the scene.

        Returns:
          Where there is no data by the file's own word, bool of the same shape, or None for
          nowhere. What is not finite is not looked for.

        Raises:
          SceneError: a block cannot be read.
        """
        raw = out
        if self._parts or out.dtype != self._raw_dtype:
            raw = np.empty((len(self._indexes), *out.shape[1:]), self._raw_dtype)
        row, col, height, width = area
        window = RasterWindow(col, row, width, height)
        try:
            if self._warped:
                read_warped(self._dataset, self._indexes, area, raw)
            else:
                self._dataset.read(self._indexes, window=window, out=raw)
            bad = self._bad(raw, area)
        except RASTER_ERRORS as e:
            raise unreadable(self._file, area, "read", e) from None
        if raw is out:
            return bad
        if self._parts:
            for i, part in enumerate(self._parts):
                for band in range(len(raw)):
                    out[band * len(self._parts) + i] = _COMPLEX[part](raw[band])
            return None if bad is None else np.repeat(bad, len(self._parts), axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = raw
        if self._scaling is not None:
            for band, (scale, offset) in zip(out, self._scaling, strict=True):
                band *= out.dtype.type(scale)
                band += out.dtype.type(offset)
        return bad

    def _bad(self, raw: np.ndarray, area: Rectangle) -> np.ndarray | None:
        """Where the file (or ``clean.nodata``) says that there is no data."""
        if self._alpha:
            alpha = np.empty((1, *raw.shape[1:]), raw.dtype)
            read_warped(self._dataset, [self._dataset.count], area, alpha)
            return None if alpha.all() else np.broadcast_to(alpha == 0, raw.shape)
        if self._warped:
            value = self._inner_nodata
            return None if value is None else np.asarray(raw == value)
        if self._nodata == "none":
            return None
        if self._nodata != "auto":
            return np.asarray(raw == self._nodata)
        flags = [self._dataset.mask_flag_enums[i - 1] for i in self._indexes]
        values = [self._dataset.nodatavals[i - 1] for i in self._indexes]
        if all(
            f == [MaskFlags.all_valid]
            or (f == [MaskFlags.nodata] and v is not None and np.isnan(v))
            for f, v in zip(flags, values, strict=True)
        ):
            return None  # NaN is found with everything else that is not finite
        window = RasterWindow(area[1], area[0], area[3], area[2])
        return np.asarray(self._dataset.read_masks(self._indexes, window=window) == 0)


def part_names(names: tuple[str, ...], parts: tuple[str, ...]) -> tuple[str, ...]:
    """Complex bands' names as their parts': ``VV`` where there is one, else ``VV_phase`` ..."""
    return names if len(parts) == 1 else tuple(f"{n}_{p}" for n in names for p in parts)


def _intensity(z: np.ndarray) -> np.ndarray:
    return np.asarray(z.real.astype(np.float32) ** 2 + z.imag.astype(np.float32) ** 2)


_COMPLEX: Mapping[str, Any] = {
    "amplitude": np.abs, "intensity": _intensity, "phase": np.angle,
    "real": np.real, "imag": np.imag,
}  # fmt: skip


def _scaling(opened: Opened) -> list[tuple[float, float]] | None:
    """(scale, offset) of each band by the file's metadata, None where they change nothing."""
    found = [(opened.dataset.scales[i - 1], opened.dataset.offsets[i - 1]) for i in opened.indexes]
    return None if all(pair == (1, 0) for pair in found) else found


def fills_of(clean: Clean, bands: int, file: str) -> tuple[float, ...]:
    """The fill of each band; zeros where it is the band's mean, which only pixels can tell.

    Raises:
      SceneError: another number of values than bands.
    """
    if clean.fill == "mean":
        return (0.0,) * bands
    if not isinstance(clean.fill, tuple):
        return (clean.fill,) * bands
    if len(clean.fill) != bands:
        reason = f"has {bands} bands, but clean.fill gives {len(clean.fill)} values"
        raise SceneError(reason, step="plan", file=file)
    return clean.fill

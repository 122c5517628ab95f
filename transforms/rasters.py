"""Opening rasters, and reading them window by window."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio._env import set_gdal_config
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from .config import Clean
from .errors import SceneError, describe
from .scenes import SceneFiles
from .tiling import Window

if TYPE_CHECKING:
    from .headers import SceneHeader

# What one window of pixels may take, all bands: large enough that blocks are decoded once,
# small enough that two workers with their patches stay far below the memory target.
WINDOW_BYTES = 16 << 20
# GDAL's own block cache; its default is 5 % of the machine's memory.
GDAL_CACHE_BYTES = 64 << 20

# Drivers that fetch from a network, by a file that looks local.
_NETWORK_DRIVERS = (
    "WMS WMTS WCS WFS HTTP OGCAPI EEDA EEDAI PLMOSAIC RASTERLITE2 DAAS NGW STACTA STACIT"
)
# Once and for good, since it is the process's: an Env that ends in one thread would hand the
# default back to the others.
set_gdal_config("GDAL_CACHEMAX", GDAL_CACHE_BYTES)
# For good, since the filters that `warnings.catch_warnings` swaps are shared by all threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
_CURL_NOTHING = "scenefeed-opens-nothing-by-url"


@contextlib.contextmanager
def gdal_environment() -> Iterator[None]:
    """GDAL with no code from VRTs, and no network."""
    options: dict[str, Any] = {
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "GDAL_SKIP": _NETWORK_DRIVERS,
        "CPL_VSIL_CURL_ALLOWED_FILENAME": _CURL_NOTHING,
    }
    with rasterio.Env(**options):
        yield


def open_raster(path: str, step: str) -> Any:
    """A rasterio dataset, opened for reading in this thread.

    Raises:
      SceneError: it is missing, empty, or not a raster.
    """
    try:
        if os.path.getsize(path) == 0:
            raise SceneError("the file is empty (0 bytes): fetch it again", step=step, file=path)
        return rasterio.open(path)
    except FileNotFoundError:
        raise SceneError("no such file", step=step, file=path) from None
    except (RasterioError, OSError, ValueError) as e:
        raise SceneError(f"cannot be opened: {describe(e)}", step=step, file=path) from None


def band_indexes(source: Any, bands: tuple[str, ...]) -> list[int]:
    """Which of a multi-band file's bands are wanted: by description, else in file order."""
    described = list(source.descriptions)
    if set(bands) <= set(described):
        return [described.index(b) + 1 for b in bands]
    return list(source.indexes)


def numpy_dtype(name: str) -> np.dtype[Any]:
    # rasterio reads GDAL's complex integers, which numpy lacks, as complex64.
    return np.dtype("complex64" if name.startswith("complex_int") else name)


class SceneReader:
    """A scene's open files, read window by window into buffers that are used again.

    Belongs to one thread. Use as a context manager.
    """

    def __init__(self, scene: SceneFiles, header: SceneHeader, clean: Clean):
        self._scene, self._header, self._clean = scene, header, clean
        self._stack = contextlib.ExitStack()
        self._buffer = np.empty(0, np.uint8)

    def __enter__(self) -> SceneReader:
        with contextlib.ExitStack() as stack:
            header = self._header
            opened = [stack.enter_context(open_raster(f, "read")) for f in self._scene.files]
            self._labels = {
                name: stack.enter_context(open_raster(f, "label"))
                for name, f in self._scene.labels.items()
            }
            indexes = (
                [band_indexes(opened[0], header.bands)] if len(opened) == 1 else [[1]] * len(opened)
            )
            self._sources = list(zip(opened, indexes, strict=True))
            self._dtype = np.result_type(
                *(numpy_dtype(s.dtypes[i - 1]) for s, listed in self._sources for i in listed)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels (bands, height, width), and where they are bad (bool, same shape) or None.

        Bad means nodata or masked out by the file's own metadata, not finite, or beyond the
        scene. The pixels' buffer is used again by the next call.

        Raises:
          SceneError: a block cannot be read.
        """
        inside, shape = self._inside(window)
        size = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        if self._buffer.nbytes < size:
            self._buffer = np.empty(size, np.uint8)
        pixels = self._buffer[:size].view(self._dtype).reshape(shape)
        bad: np.ndarray | None = None
        band = 0
        for source, indexes in self._sources:
            part = slice(band, band + len(indexes))
            self._read(source, indexes, inside, pixels[part], "read")
            found = self._bad(source, indexes, inside, pixels[part])
            if found is not None:
                bad = np.zeros(shape, bool) if bad is None else bad
                bad[part] |= found
            band += len(indexes)
        if np.issubdtype(self._dtype, np.inexact):
            finite = np.isfinite(pixels)
            if not finite.all():
                bad = ~finite if bad is None else bad | ~finite
        return self._beyond(window, pixels, bad)

    def read_label(self, name: str, window: Window, ignore: tuple[int, ...]) -> np.ndarray:
        """A label's pixels (1, height, width); beyond the scene the first of ``ignore`` that its
        dtype holds, else 0."""
        source = self._labels[name]
        inside, shape = self._inside(window)
        pixels = np.empty((1, *shape[1:]), numpy_dtype(source.dtypes[0]))
        self._read(source, [1], inside, pixels, "label")
        if shape[1:] == (window.height, window.width):
            return pixels
        held = (v for v in ignore if np.can_cast(np.min_scalar_type(v), pixels.dtype))
        whole = np.full((1, window.height, window.width), next(held, 0), pixels.dtype)
        whole[:, : shape[1], : shape[2]] = pixels
        return whole

    def _inside(self, window: Window) -> tuple[RasterWindow, tuple[int, int, int]]:
        height = min(window.height, self._header.height - window.row)
        width = min(window.width, self._header.width - window.col)
        bands = len(self._header.bands)
        return RasterWindow(window.col, window.row, width, height), (bands, height, width)

    def _beyond(
        self, window: Window, pixels: np.ndarray, bad: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        bands, height, width = pixels.shape
        if (height, width) == (window.height, window.width):
            return pixels, bad
        whole = np.zeros((bands, window.height, window.width), pixels.dtype)
        whole[:, :height, :width] = pixels
        outside = np.ones(whole.shape, bool)
        outside[:, :height, :width] = False if bad is None else bad
        return whole, outside

    def _read(
        self, source: Any, indexes: list[int], inside: RasterWindow, out: np.ndarray, step: str
    ) -> None:
        try:
            source.read(indexes, window=inside, out=out)
        except (RasterioError, OSError, ValueError) as e:
            raise _unreadable(source, inside, step, e) from None

    def _bad(
        self, source: Any, indexes: list[int], inside: RasterWindow, pixels: np.ndarray
    ) -> np.ndarray | None:
        """Where the file (or ``clean.nodata``) says that there is no data."""
        wanted = self._clean.nodata
        if wanted == "none":
            return None
        if wanted != "auto":
            return np.asarray(pixels == wanted)
        flags = [source.mask_flag_enums[i - 1] for i in indexes]
        values = [source.nodatavals[i - 1] for i in indexes]
        if all(
            f == [MaskFlags.all_valid]
            or (f == [MaskFlags.nodata] and v is not None and np.isnan(v))
            for f, v in zip(flags, values, strict=True)
        ):
            return None  # NaN is found with everything else that is not finite
        try:
            return np.asarray(source.read_masks(indexes, window=inside) == 0)
        except (RasterioError, OSError, ValueError) as e:
            raise _unreadable(source, inside, "read", e) from None


def _unreadable(source: Any, inside: RasterWindow, step: str, error: Exception) -> SceneError:
    window = (int(inside.row_off), int(inside.col_off), int(inside.height), int(inside.width))
    return SceneError(
        f"opens, but cannot be read: {describe(error)}", step=step, file=source.name, window=window
    )

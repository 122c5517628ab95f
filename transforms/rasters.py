"""Opening rasters: GDAL's settings, and its failures in one line."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
from rasterio._env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from .errors import SceneError, describe
from .scenes import Asset

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

RASTER_ERRORS = (RasterioError, OSError, ValueError)


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


def open_asset(asset: Asset, step: str) -> Any:
    """A rasterio dataset, opened for reading in this thread by the asset's source.

    Raises:
      SceneError: it is missing, empty, or not a raster.
    """
    from .sources import SOURCES  # sources open rasters in their turn

    try:
        if os.path.getsize(asset.path) == 0:
            reason = "the file is empty (0 bytes): fetch it again"
            raise SceneError(reason, step=step, file=str(asset))
        return SOURCES[asset.source].open(asset)
    except FileNotFoundError:
        raise SceneError("no such file", step=step, file=str(asset)) from None
    except RASTER_ERRORS as e:
        reason = f"cannot be opened: {describe(e)}"
        raise SceneError(reason, step=step, file=str(asset)) from None


def open_raster(path: str, step: str) -> Any:
    """``open_asset`` of a file that GDAL reads."""
    return open_asset(Asset(path), step)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype that rasterio reads a band as. GDAL's complex integers, which numpy lacks, are
    read as complex64."""
    return np.dtype("complex64" if name.startswith("complex_int") else name)


def unreadable(
    file: str, window: tuple[int, int, int, int], step: str, error: Exception
) -> SceneError:
    """A failure to read a window (row, column, height, width) of a raster that did open."""
    reason = f"opens, but cannot be read: {describe(error)}"
    return SceneError(reason, step=step, file=file, window=window)

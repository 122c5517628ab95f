"""Opening rasters: GDAL's settings, and its failures in one line."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import rasterio
from rasterio._env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from .errors import SceneError, describe
from .scenes import Asset, SceneFiles
from .storage import size_of

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
_LOOK = "GDAL_DISABLE_READDIR_ON_OPEN"
_CURL_NOTHING = "scenefeed-opens-nothing-by-url"

RASTER_ERRORS = (RasterioError, OSError, ValueError)


@contextlib.contextmanager
def gdal_environment(scene: SceneFiles | None = None) -> Iterator[None]:
    """GDAL with no code from VRTs; and no network, unless ``scene`` itself is remote."""
    options: dict[str, Any] = {"GDAL_VRT_ENABLE_PYTHON": "NO", "GDAL_SKIP": _NETWORK_DRIVERS}
    if scene is not None and scene.remote:
        # Listing a folder of thousands to look for masks beside the scene is many requests.
        look = "TRUE" if scene.has_sidecars else "EMPTY_DIR"
        options |= _REMOTE | {_LOOK: look} | _endpoints(os.environ)
    else:
        options["CPL_VSIL_CURL_ALLOWED_FILENAME"] = _CURL_NOTHING
        # Else each file that is opened lists its folder, or asks for fifty files. Said in any case:
        # what an Env of the main thread says, others inherit.
        look = "EMPTY_DIR" if scene is not None and scene.alone else os.environ.get(_LOOK, "FALSE")
        options[_LOOK] = look
        # Not GTIFF_DIRECT_IO, which takes 0.3 core-seconds a GB less: strips past the end of a file
        # that is cut off are then anything that memory holds, without an error (GDAL 3.10).
    with rasterio.Env(**options):
        yield


# Servers that are busy are asked again.
_REMOTE = {"GDAL_HTTP_MAX_RETRY": "5", "GDAL_HTTP_RETRY_DELAY": "0.5"}


def _endpoints(environ: Mapping[str, str]) -> dict[str, str]:
    """GDAL's words for servers that are not Amazon's or Google's, from the variables that their
    own clients read."""
    found = {}
    if url := environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"):
        scheme, host = url.split("://", 1)
        found["AWS_S3_ENDPOINT"] = host.rstrip("/")
        found["AWS_HTTPS"] = "YES" if scheme == "https" else "NO"
        found["AWS_VIRTUAL_HOSTING"] = "FALSE"
    if url := environ.get("STORAGE_EMULATOR_HOST"):
        host = url if "://" in url else f"http://{url}"
        found["CPL_GS_ENDPOINT"] = f"{host.rstrip('/')}/"
        found["GS_NO_SIGN_REQUEST"] = "YES"
    if user := environ.get("HADOOP_USER_NAME"):
        found["WEBHDFS_USERNAME"] = user
    return found


def open_asset(asset: Asset, step: str) -> Any:
    """A rasterio dataset, opened for reading in this thread by the asset's source.

    Raises:
      SceneError: it is missing, empty, or not a raster.
    """
    from .sources import SOURCES  # sources open rasters in their turn

    try:
        if size_of(asset.path) == 0:
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

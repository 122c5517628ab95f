"""Rasters that GDAL reads, with their subdatasets. What no other source claims comes here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import rasterio
from rasterio.errors import RasterioIOError

from ..scenes import Asset, SceneFiles
from ..sections import Scenes
from ..storage import gdal_name, is_remote
from .base import Source

_HDF5 = b"\x89HDF\r\n\x1a\n"
# What GDAL does not recognize, told by its first bytes.
_FOREIGN = {
    b"PK\x03\x04": "is a zip archive, and no SAFE product: unpack it",
    b"\x0e\x03\x13\x01": "is HDF4, which this build of GDAL does not read: convert it to NetCDF or "
    "GeoTIFF first",
}  # fmt: skip


class RasterSource(Source):
    """One scene a file; ``Asset.part`` is a subdataset's name, or the end of it."""

    name = "raster"

    def claims(self, path: Path, head: bytes) -> bool:
        return True

    def find(self, path: Path, scenes: Scenes) -> list[SceneFiles]:
        return [SceneFiles(path.stem, (Asset(str(path), scenes.subdataset or ""),))]

    def open(self, asset: Asset) -> Any:
        local = not is_remote(asset.path)
        if local and not os.path.isdir(asset.path):
            _check_hdf5(asset.path)
        try:
            dataset = rasterio.open(gdal_name(asset.path))
        except RasterioIOError as e:
            if "not recognized" not in str(e) or not local or os.path.isdir(asset.path):
                raise
            raise ValueError(_foreign(asset.path)) from None
        if not asset.part:
            return dataset
        with dataset:
            return rasterio.open(_subdataset(dataset, asset.part))


def _check_hdf5(path: str) -> None:
    """Refuses damaged HDF5 (NetCDF 4 included). Beyond the first thread, GDAL's HDF5 writes its
    whole stack to standard error and no reason to the error; h5py's does the contrary.

    Raises:
      OSError: it is damaged.
    """
    with open(path, "rb") as file:
        head = file.read(len(_HDF5))
    # The first of a family of files, which GDAL knows by the 0 in its name, is no file by itself.
    if head == _HDF5 and not Path(path).stem.endswith("0"):
        h5py.File(path, "r").close()


def _foreign(path: str) -> str:
    """Why GDAL does not recognize a file."""
    with open(path, "rb") as file:
        head = file.read(4)
    return _FOREIGN.get(head, "is no raster that GDAL knows, or its beginning is damaged")


def _subdataset(dataset: Any, part: str) -> str:
    """GDAL's name of a subdataset, given its own name or the end of it.

    Raises:
      ValueError: none is called so, or several are.
    """
    wanted = part.strip("/")
    names: dict[str, str] = {s: _own_name(s) for s in dataset.subdatasets}
    found = [s for s, n in names.items() if n == wanted] or [
        s for s, n in names.items() if n.endswith(f"/{wanted}")
    ]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(sorted(names.values())[:12]) or "none"
    problem = f"{len(found)} subdatasets end in" if found else "no subdataset is called"
    raise ValueError(f"{problem} {part!r}: there are {listed}")


def _own_name(subdataset: str) -> str:
    """``HDF5:"/path/file.h5"://group/name`` and ``netcdf:/path/file.nc:name`` as the name."""
    return str(subdataset).rsplit(":", 1)[-1].strip('"/')

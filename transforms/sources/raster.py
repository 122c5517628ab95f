"""Rasters that GDAL reads, with their subdatasets. What no other source claims comes here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rasterio

from ..scenes import Asset, SceneFiles
from ..sections import Scenes
from .base import Source


class RasterSource(Source):
    """One scene a file; ``Asset.part`` is a subdataset's name, or the end of it."""

    name = "raster"

    def claims(self, path: Path, head: bytes) -> bool:
        return True

    def find(self, path: Path, scenes: Scenes) -> list[SceneFiles]:
        return [SceneFiles(path.stem, (Asset(str(path), scenes.subdataset or ""),))]

    def open(self, asset: Asset) -> Any:
        dataset = rasterio.open(asset.path)
        if not asset.part:
            return dataset
        with dataset:
            return rasterio.open(_subdataset(dataset, asset.part))


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

"""Pixels that no driver reads where they lie, as a dataset in memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import rasterio
from rasterio.io import MemoryFile


def in_memory(pixels: np.ndarray, descriptions: tuple[str, ...] = ()) -> Any:
    """(bands, height, width) as a rasterio dataset without CRS; closing it frees the memory.

    Args:
      pixels: of a dtype that GeoTIFF has.
      descriptions: the bands' names; none to leave them unnamed.
    """
    bands, height, width = pixels.shape
    with MemoryFile() as file:
        with file.open(
            driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype.name,
            interleave="band",
        ) as out:  # fmt: skip
            for number, band in enumerate(pixels, start=1):
                out.write(np.ascontiguousarray(band), number)
            if descriptions:
                out.descriptions = descriptions
        content = file.read()
    # Of a file object, rasterio keeps the bytes for as long as the dataset is open.
    return rasterio.open(io.BytesIO(content))

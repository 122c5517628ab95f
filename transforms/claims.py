"""What headers claim, checked before it is believed, so that no claim becomes an allocation."""

from __future__ import annotations

import os
import struct
from typing import Any

from .errors import SceneError
from .rasters import numpy_dtype

# Headers that claim more are refused before anything is allocated.
MAX_BANDS = 1024
MAX_BLOCK_BYTES = 256 << 20
MAX_EXPANSION, EXPANSION_FROM = 100_000, 16 << 30
# Of a JPEG 2000 tile, GDAL decodes 1024 x 1024 pixels at a time and goes through the whole tile's
# packets for each, so that time grows with the square of the tile. Products hold tiles of 1024
# (Sentinel-2), single sheets of orthophotos up to 20000 in one tile.
MAX_JPEG2000_TILE = 20_000 * 20_000
_JPEG2000_START = b"\xff\x4f\xff\x51"  # markers SOC and SIZ; ISO/IEC 15444-1, A.5.1
_JPEG2000_HEAD = 1 << 20


def check_claims(source: Any, file: str) -> None:
    """Refuses headers that no file of that size can keep, or no worker can hold.

    Raises:
      SceneError: as said.
    """

    def refuse(reason: str) -> None:
        raise SceneError(reason, step="plan", file=file)

    if source.count == 0:
        names = [s.rsplit(":", 1)[-1].strip('"/') for s in source.subdatasets]
        listed = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        refuse("has no bands of its own" + (
            f"; it holds {len(names)} subdatasets ({listed}): name one with scenes.subdataset"
            if names else " and no subdatasets"))  # fmt: skip
    if source.count > MAX_BANDS:
        refuse(f"the header claims {source.count} bands (at most {MAX_BANDS}): not read")
    item = max(numpy_dtype(d).itemsize for d in source.dtypes)
    height, width = source.block_shapes[0]
    if height * width * item > MAX_BLOCK_BYTES:
        refuse(
            f"the header claims {source.width} x {source.height} pixels in blocks of "
            f"{width} x {height}, more than {MAX_BLOCK_BYTES >> 20} MiB each: not read; "
            "rewrite it tiled (gdal_translate -co TILED=YES)"
        )
    if source.driver.startswith("JP2"):
        height, width = _jpeg2000_tile(source.name)
        if height * width > MAX_JPEG2000_TILE:
            refuse(
                f"holds {width} x {height} pixels in one JPEG 2000 tile, which is gone through "
                "again for every part that is read: not read; rewrite it tiled (gdal_translate "
                "-of GTiff -co TILED=YES)"
            )
    claimed = source.width * source.height * source.count * item
    size = sum(os.path.getsize(f) for f in source.files if os.path.exists(f))
    if claimed > EXPANSION_FROM and claimed > size * MAX_EXPANSION:
        refuse(
            f"the header claims {source.width} x {source.height} pixels ({claimed >> 30} GiB) "
            f"in a file of {size} bytes: not read"
        )


def _jpeg2000_tile(path: str) -> tuple[int, int]:
    """The (height, width) of a JPEG 2000 file's largest tile by its code stream's header; (0, 0)
    where that is not found at the beginning of a plain file."""
    try:
        with open(path, "rb") as file:
            head = file.read(_JPEG2000_HEAD)
    except OSError:
        return 0, 0
    start = head.find(_JPEG2000_START)
    size = head[start + 8 : start + 32]
    if start < 0 or len(size) < 24:
        return 0, 0
    right, bottom, left, top, width, height = struct.unpack(">6I", size)
    return min(height, bottom - top), min(width, right - left)

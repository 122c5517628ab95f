"""What headers claim, checked before it is believed, so that no claim becomes an allocation."""

from __future__ import annotations

import os
from typing import Any

from .errors import SceneError
from .rasters import numpy_dtype

# Headers that claim more are refused before anything is allocated.
MAX_BANDS = 1024
MAX_BLOCK_BYTES = 256 << 20
MAX_EXPANSION, EXPANSION_FROM = 100_000, 16 << 30


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
    claimed = source.width * source.height * source.count * item
    size = sum(os.path.getsize(f) for f in source.files if os.path.exists(f))
    if claimed > EXPANSION_FROM and claimed > size * MAX_EXPANSION:
        refuse(
            f"the header claims {source.width} x {source.height} pixels ({claimed >> 30} GiB) "
            f"in a file of {size} bytes: not read"
        )

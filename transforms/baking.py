"""Normalizing patches on their way into records, for ``statistics: {bake: true}``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Baking:
    """What becomes of a staged patch: (clip(x, low, high) - offset) / scale in float32.

    Attributes:
      dtype: of the staged patch.
      num_bytes: of it.
      transform: band by band, as in statistics.json: offset, scale, low, high.
    """

    dtype: str
    num_bytes: int
    transform: Mapping[str, Any]

    def __call__(self, patch: bytes) -> bytes:
        """A patch's bytes as float32's."""
        rows = {k: np.asarray(v, np.float32) for k, v in self.transform.items() if v is not None}
        image = np.frombuffer(patch, self.dtype).reshape(-1, len(rows["offset"]))
        found = image.astype(np.float32)
        if "low" in rows:
            np.clip(found, rows["low"], rows["high"], out=found)
        found -= rows["offset"]
        found *= 1 / rows["scale"]  # as the graph does
        return found.tobytes()

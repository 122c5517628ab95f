"""synth: deterministic SAR-like scenes with water masks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from ..transforms.errors import ConfigError

LOOKS = 4  # of the speckle
STRIP = 512

_YAML = """\
# Made by `scenefeed synth`: two bands of SAR-like backscatter in dB, and where there is water.
name: synth
scenes:
  paths: ["scenes/*.tif"]
  bands: [VV, VH]
labels:
  water: {kind: raster, path: "labels/{id}.tif"}
tile: {size: 64}
split: {by: block, block: 512, fractions: {train: 0.8, val: 0.1, test: 0.1}}
records: {shard_mb: 64, seed: 0}
"""


def synth(out: Path, scenes: int, size: int, seed: int) -> dict[str, Any]:
    """Writes ``out/scenes``, ``out/labels`` and ``out/dataset.yaml``.

    A smooth field of backscatter, low where there is water, under multiplicative gamma speckle
    (the usual model of multi-look intensity), in dB: VV and VH, float32, GeoTIFF tiled 512, one
    scene beside the other in UTM 33N at 10 m. The same seed gives the same pixels.

    Raises:
      ConfigError: a number out of range.
    """
    if scenes < 1 or size < 16:
        raise ConfigError("synth needs --scenes of at least 1 and --size of at least 16")
    start = time.perf_counter()
    for folder in ("scenes", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for number in range(scenes):
        _scene(out, number, size, np.random.default_rng([seed, number]))
    (out / "dataset.yaml").write_text(_YAML)
    return {
        "scenes": scenes,
        "size": size,
        "bytes": scenes * size * size * 8,
        "seconds": time.perf_counter() - start,
    }


def _scene(out: Path, number: int, size: int, rng: np.random.Generator) -> None:
    block = min(512, max(16, size // 16 * 16))
    profile = {
        "driver": "GTiff", "height": size, "width": size, "crs": "EPSG:32633", "tiled": True,
        "transform": from_origin(500000 + number * size * 10, 5000000, 10, 10),
        "blockxsize": block, "blockysize": block, "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    waves = rng.uniform(-12, 12, (6, 2)), rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.5, 1, 6)
    name = f"synth_{number:02d}.tif"
    with (
        rasterio.open(out / "scenes" / name, "w", count=2, dtype="float32", **profile) as scene,
        rasterio.open(out / "labels" / name, "w", count=1, dtype="uint8", **profile) as label,
    ):
        scene.descriptions = ("VV", "VH")
        for row in range(0, size, STRIP):
            height = min(STRIP, size - row)
            field = _field(row, height, size, waves)
            water = field < -0.8
            window = Window(0, row, size, height)
            label.write(water.astype(np.uint8), 1, window=window)
            for band, (land, wet) in enumerate(((0.1, 0.008), (0.02, 0.002)), start=1):
                power = np.where(water, np.float32(wet), np.float32(land) * np.exp(0.3 * field))
                power *= rng.standard_gamma(LOOKS, power.shape, np.float32) / LOOKS
                decibels = 10 * np.log10(np.maximum(power, np.float32(1e-6)))
                scene.write(decibels.astype(np.float32), band, window=window)


def _field(row: int, height: int, size: int, waves: Any) -> np.ndarray:
    """A sum of slow waves over the scene, about -3 to 3, float32 (height, size)."""
    y = np.arange(row, row + height, dtype=np.float32)[:, None] / np.float32(size)
    x = np.arange(size, dtype=np.float32)[None, :] / np.float32(size)
    total = np.zeros((height, size), np.float32)
    for (ky, kx), phase, gain in zip(*waves, strict=True):
        # sin(a + b) from factors of one row and one column: a few products instead of sines.
        a, b = np.float32(ky) * y + np.float32(phase), np.float32(kx) * x
        total += np.float32(gain) * (np.sin(a) * np.cos(b) + np.cos(a) * np.sin(b))
    return total

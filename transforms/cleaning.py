"""Cleaning a window of pixels: decibels, limits, fill."""

from __future__ import annotations

from typing import Any

import numpy as np

from .config import Clean


def clean(
    pixels: np.ndarray, bad: np.ndarray | None, config: Clean, fills: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cleans (bands, height, width) pixels, in place where the dtype allows.

    Decibels first (10 log10, so that power of 0 or less becomes bad), then the limits, then each
    bad value of a band becomes that band's fill, which the limits do not touch.

    Args:
      pixels: the window; float32 comes back from ``to_db``, else its own dtype.
      bad: where there is no data, bool, the same shape; None for nowhere.
      config: what to do.
      fills: one value a band.

    Returns:
      The pixels, and where a pixel is valid in every band, bool (height, width), or None for
      everywhere.
    """
    if config.to_db:
        pixels, bad = _decibels(pixels, bad)
    if config.clip is not None:
        low, high = _limits(config.clip, pixels.dtype)
        np.clip(pixels, low, high, out=pixels)
    if bad is None:
        return pixels, None
    for band, fill in enumerate(fills):
        np.copyto(pixels[band], np.array(fill).astype(pixels.dtype), where=bad[band])
    return pixels, np.logical_not(bad.any(axis=0))


def _decibels(power: np.ndarray, bad: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    positive = power > 0
    dark = None if positive.all() else ~positive
    values = power.astype(np.float32, copy=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log10(values, out=values if values is power else None)
    values *= np.float32(10)
    # A positive float64 below float32's range becomes 0, and its logarithm -inf.
    finite = np.isfinite(values)
    if dark is not None or not finite.all():
        dark = ~finite if dark is None else dark | ~finite
        bad = dark if bad is None else bad | dark
    return values, bad


def _limits(clip: tuple[float, float], dtype: np.dtype[Any]) -> tuple[np.generic, np.generic]:
    """Limits in the pixels' own dtype, so that clipping does not widen it."""
    low, high = clip
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        low = min(max(np.ceil(low), info.min), info.max)
        high = max(min(np.floor(high), info.max), info.min)
    return dtype.type(low), dtype.type(high)

"""The Lee filter, for the multiplicative speckle of radar intensity.

Source: J.-S. Lee, "Digital image enhancement and noise filtering by use of local statistics",
IEEE Transactions on Pattern Analysis and Machine Intelligence 2(2), 1980.
"""

from __future__ import annotations

import numpy as np

# Rows are filtered so many pixels at a time: the float64 sums stay small, and in the cache.
_STRIP_PIXELS = 1 << 16


def lee(image: np.ndarray, bad: np.ndarray | None, size: int, looks: float) -> np.ndarray:
    """Filters one band of linear intensity.

    From the mean m and the variance v of a pixel's window, and the speckle's squared coefficient
    of variation C = 1 / looks, the signal's variance is s = max(0, (v - m^2 C) / (1 + C)), and
    the pixel I becomes m + s / v (I - m). Bad pixels and what is beyond the edges do not count.

    A pixel depends on nothing but its window, to the last bit: a part of an image with
    ``size // 2`` more pixels on each side gives what the whole image gives. (scipy's
    ``correlate1d`` sums each window by itself; the running sums of its ``uniform_filter`` carry
    rounding along the line, so that results would depend on where a window begins.)

    Args:
      image: float32 (height, width), linear and finite where it is not bad.
      bad: where there is no data, bool (height, width); None for nowhere.
      size: the window's side in pixels, odd.
      looks: the equivalent number of looks.

    Returns:
      A new float32 (height, width); bad pixels keep what they had.
    """
    height, width = image.shape
    radius = size // 2
    rows = max(size, _STRIP_PIXELS // (width + 2 * radius))
    out = np.empty(image.shape, np.float32)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - radius), min(height, bottom + radius)
        values = np.zeros((bottom - top + 2 * radius, width + 2 * radius))
        weights = np.zeros(values.shape, np.float32)
        into = np.s_[first - top + radius : last - top + radius, radius : radius + width]
        good = True if bad is None else ~bad[first:last]
        np.copyto(values[into], image[first:last], where=good)
        weights[into] = good
        out[top:bottom] = _filtered(values, weights, size, looks)
    if bad is not None:
        np.copyto(out, image, where=bad)
    return out


def _filtered(values: np.ndarray, weights: np.ndarray, size: int, looks: float) -> np.ndarray:
    """Float64 values, 0 where the weight is: ``size - 1`` fewer rows and columns come back."""
    count = np.maximum(_box(weights, size), 1)
    mean = _box(values, size) / count
    variance = _box(values * values, size) / count - mean * mean
    speckle = 1 / looks
    signal = np.maximum(variance - mean * mean * speckle, 0) / (1 + speckle)
    gain = np.divide(signal, variance, out=np.zeros_like(mean), where=variance > 0)
    radius = size // 2
    middle = values[radius : radius + len(mean), radius : radius + mean.shape[1]]
    return np.asarray(mean + gain * (middle - mean))


def _box(values: np.ndarray, size: int) -> np.ndarray:
    """The sums of all size x size squares."""
    from scipy.ndimage import correlate1d  # few conversions need it, and all would load it

    radius, ones = size // 2, np.ones(size)
    sums = correlate1d(correlate1d(values, ones, axis=0), ones, axis=1)
    return np.asarray(sums[radius:-radius, radius:-radius])

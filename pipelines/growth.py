"""Whether memory grows: a line through what a process held, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LEAST_SAMPLES = 8
MOST_SAMPLES = 300  # their pairs are what the slope is the median of
WARM_UP = 1 / 3  # of the time, left out: buffers and pools fill then
LEAST_BYTES = 16 << 20  # what an allocator takes and gives back as it likes


def growth(samples: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    """The slope of memory after warm-up, and whether it is a leak.

    The slope is Theil's and Sen's: the median of the slopes of all pairs of samples, which a few
    peaks do not move. ``low`` and ``high`` bound it with 95 % (P. K. Sen, Estimates of the
    regression coefficient based on Kendall's tau, JASA 63:1379, 1968, without ties). Samples of
    memory follow from each other, so this interval alone is too narrow; it is a leak where also
    the growth over the samples stands out of their scatter around the line: more than three times
    its standard deviation (1.4826 x the median absolute deviation), and than ``LEAST_BYTES``.

    Args:
      samples: (seconds, bytes) in any order.

    Returns:
      ``bytes_per_s``, ``low``, ``high``; ``bytes``, the growth over ``seconds``; ``noise_bytes``,
      the bound; ``samples``, how many; ``leak``. None of fewer than ``LEAST_SAMPLES``.
    """
    found = np.array(sorted(samples), np.float64).reshape(-1, 2)
    if len(found):
        found = found[found[:, 0] >= found[0, 0] + WARM_UP * np.ptp(found[:, 0])]
    found = found[:: -(-len(found) // MOST_SAMPLES) or 1]
    n = len(found)
    if n < LEAST_SAMPLES or not np.ptp(found[:, 0]):
        return None
    x, y = found.T
    i, j = np.triu_indices(n, 1)
    apart = x[j] > x[i]
    slopes = np.sort((y[j] - y[i])[apart] / (x[j] - x[i])[apart])
    half = 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = slopes[max(0, round((len(slopes) - half) / 2))]
    high = slopes[min(len(slopes) - 1, round((len(slopes) + half) / 2))]
    slope, seconds = float(np.median(slopes)), float(np.ptp(x))
    scatter = y - slope * x
    noise = 3 * 1.4826 * float(np.median(np.abs(scatter - np.median(scatter))))
    noise = max(noise, LEAST_BYTES)
    return {
        "bytes_per_s": slope, "low": float(low), "high": float(high), "bytes": slope * seconds,
        "seconds": seconds, "noise_bytes": noise, "samples": n,
        "leak": bool(low > 0 and slope * seconds > noise),
    }  # fmt: skip

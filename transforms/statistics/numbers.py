"""Statistics of many numbers that merge exactly: in any order, on any number of workers, to the
same result.

Sums are kept as fractions, so that adding scenes up rounds nothing. Values are counted in buckets:
8- and 16-bit integers each on its own, all others by the upper half of their float32, so that a
bucket is at most 1/128 of its values wide over all of float32's range.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

QUANTILES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)
BINS = 64
BUCKETS = 1 << 16
_EXACT = {np.dtype(t) for t in ("int8", "uint8", "int16", "uint16")}


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Statistics of one band, or of a label's values.

    Attributes:
      count: valid values.
      invalid: values that are not.
      total, squares: their exact sum, and the exact sum of their squares.
      least, most: infinities where there is no value.
      codes: of the buckets that hold something, ascending as their values do, int64 (n,).
      counts: how many values each holds, int64 (n,).
      counted: how many values were looked at for it; of a sample each counts for several.
    """

    count: int = 0
    invalid: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)
    least: float = math.inf
    most: float = -math.inf
    codes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    counted: int = 0

    @classmethod
    def merged(cls, parts: Sequence[Numbers]) -> Numbers:
        """All of them as one."""
        codes, places = np.unique(np.concatenate([p.codes for p in parts]), return_inverse=True)
        counts = np.zeros(len(codes), np.int64)
        np.add.at(counts, places, np.concatenate([p.counts for p in parts]))
        return cls(
            sum(p.count for p in parts), sum(p.invalid for p in parts),
            sum((p.total for p in parts), Fraction(0)),
            sum((p.squares for p in parts), Fraction(0)),
            min(p.least for p in parts), max(p.most for p in parts), codes, counts,
            sum(p.counted for p in parts),
        )  # fmt: skip

    @property
    def mean(self) -> float:
        return float(self.total / self.count)

    @property
    def variance(self) -> float:
        """Of the population (not the sample), as ``numpy.var`` gives it."""
        return float(self.squares / self.count - (self.total / self.count) ** 2)

    def quantiles(self, shares: Iterable[float], dtype: str) -> list[float]:
        """Quantiles as ``numpy.quantile`` interpolates them: exact for integers of up to 16 bits,
        else within 1/128 of the value."""
        low, high = limits(self.codes, dtype)
        before = np.cumsum(self.counts) - self.counts
        return [self._quantile(share, low, high, before) for share in shares]

    def _quantile(
        self, share: float, low: np.ndarray, high: np.ndarray, before: np.ndarray
    ) -> float:
        if share in (0, 1):  # which a sample does not tell
            return self.most if share else self.least
        rank = share * (self.count - 1)
        first = math.floor(rank)
        values = []
        for place in (first, min(first + 1, self.count - 1)):
            i = int(np.searchsorted(before, place, "right")) - 1
            within = (place - before[i] + 0.5) / self.counts[i]
            value = float(low[i] + (high[i] - low[i]) * within)
            values.append(min(max(value, self.least), self.most))
        return values[0] + (values[1] - values[0]) * (rank - first)

    def to_json(self, dtype: str) -> dict[str, Any]:
        """As statistics.json holds it; null for what no value tells."""
        shares = {str(q): None for q in QUANTILES}
        if not self.count:
            none = dict.fromkeys(("mean", "variance", "std", "min", "max"))
            return {"count": 0, **none, "quantiles": shares, "histogram": None, "sampled": None}
        return {
            "count": self.count,
            "mean": self.mean,
            "variance": self.variance,
            "std": math.sqrt(self.variance),
            "min": self.least,
            "max": self.most,
            "quantiles": dict(zip(shares, self.quantiles(QUANTILES, dtype), strict=True)),
            "histogram": self._histogram(dtype),
            "sampled": self.counted / self.count,
        }

    def _histogram(self, dtype: str) -> dict[str, list[float]]:
        """Bins between the first and the last hundredth; the outer ones reach to least and most,
        since few values far off would leave all others in one bin."""
        first, last = self.quantiles((0.01, 0.99), dtype)
        if not first < last:
            first, last = self.least, self.most
        edges = np.linspace(first, last, BINS + 1)
        edges[0], edges[-1] = self.least, self.most
        if not (np.diff(edges) > 0).all():  # one value, or too near to each other for floats
            edges = self.least + np.linspace(-0.5, 0.5, BINS + 1) * max(1.0, abs(self.least))
        low, high = (np.clip(x, self.least, self.most) for x in limits(self.codes, dtype))
        if np.dtype(dtype) in _EXACT:
            counts, _ = np.histogram(low, edges, weights=self.counts)
        else:  # a bucket's values lie anywhere in it
            after = np.cumsum(self.counts)
            steps = np.ravel([after - self.counts, after], "F")
            below = np.round(np.interp(edges, np.ravel([low, high], "F"), steps))
            below[0], below[-1] = 0, self.count
            counts = np.diff(below)
        return {"edges": edges.tolist(), "counts": counts.astype(np.int64).tolist()}


def buckets_of(values: np.ndarray) -> np.ndarray:
    """The bucket of each value, uint8 or uint16, to be counted; the same shape."""
    if values.dtype.itemsize == 1:
        return values.view(np.uint8)
    if values.dtype in _EXACT:
        return values.view(np.uint16)
    floats = values.astype("<f4", copy=False)
    return floats.view("<u2").reshape(*values.shape, 2)[..., 1]


def codes_of(buckets: np.ndarray, dtype: str) -> np.ndarray:
    """Buckets' numbers in the order of their values, int64."""
    buckets = buckets.astype(np.int64)
    kind = np.dtype(dtype)
    if kind in _EXACT:
        half = 1 << (8 * kind.itemsize - 1)
        return (buckets ^ half) - half if kind.kind == "i" else buckets
    return np.where(buckets < 0x8000, buckets, 0x7FFF - buckets)


def limits(codes: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value of each bucket, float64."""
    if np.dtype(dtype) in _EXACT:
        return codes.astype(np.float64), codes.astype(np.float64)
    magnitude = np.where(codes < 0, -1 - codes, codes).astype(np.uint32)
    near = (magnitude << 16).view(np.float32).astype(np.float64)
    far = ((magnitude << 16) | 0xFFFF).view(np.float32).astype(np.float64)
    far[magnitude == 0] = 0  # up to 9e-41, which no one means
    return np.where(codes < 0, -far, near), np.where(codes < 0, -near, far)

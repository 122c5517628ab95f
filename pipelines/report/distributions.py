"""Histograms and class counts of a sample of records, in the form of statistics.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...loader.spec import Feature

BINS = 64
Described = dict[str, Any]
_CLASSES = 256  # a mask with more values than this is one of measurements


def fills(config: dict[str, Any], count: int) -> np.ndarray:
    """What invalid values hold, band by band (count,); NaN where it is another in each scene."""
    fill = config.get("clean", {}).get("fill", 0.0)
    known = np.nan if fill == "mean" else fill
    # Features computed from bands come after them, and share the last one's.
    given = np.atleast_1d(np.array(known, float))
    return np.concatenate([given, np.full(count, given[-1])])[:count]


def valid(image: np.ndarray, fill: np.ndarray) -> Any:
    """Which values (..., C) are taken as valid. Records do not say: a float that is the fill value
    is not, and an integer where all bands of its pixel are."""
    if image.dtype.kind in "iu":
        filled = (image == np.rint(fill)).all(axis=-1, keepdims=True)
        return np.broadcast_to(~filled, image.shape)
    return np.isfinite(image) & (image != fill.astype(image.dtype))


def describe(values: np.ndarray, everything: int, like: Described | None = None) -> Described:
    """Count, share of invalid values, moments and histogram.

    Args:
      values: valid values (N,).
      everything: how many values there are, invalid ones too.
      like: another split's, whose bins are taken; what lies ``beyond`` them is counted.
    """
    exact = values.astype(np.float64)
    found: Described = {
        "count": len(values), "invalid": 1 - len(values) / everything if everything else 0.0,
    }  # fmt: skip
    if not len(values):
        return found | dict.fromkeys(("mean", "std", "min", "max", "histogram"))
    edges = np.array(like["histogram"]["edges"]) if like and has_bins(like) else bins(exact)
    counts, _ = np.histogram(exact, edges)
    return found | {
        "mean": float(exact.mean()), "std": float(exact.std()),
        "min": float(exact.min()), "max": float(exact.max()),
        "beyond": len(values) - int(counts.sum()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }  # fmt: skip


def has_bins(described: Described) -> bool:
    """Whether there were values to make a histogram of."""
    return bool((described.get("histogram") or {}).get("edges"))


def bins(values: np.ndarray) -> np.ndarray:
    """Edges of at most BINS bins for what a picture should show: the values' range, without far
    outliers such as nodata that no header declares."""
    low, high = np.quantile(values, [0.001, 0.999])
    margin = 0.1 * (high - low)
    low, high = max(values.min(), low - margin), min(values.max(), high + margin)
    if (values == np.rint(values)).all():  # as many whole numbers in each bin
        low, high = np.floor(low), np.ceil(high)
        width = np.ceil((high - low + 1) / BINS)
        return np.arange(low - 0.5, high + width, width)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    return np.linspace(low, high, BINS + 1)


def has_classes(feature: Feature, values: np.ndarray) -> bool:
    """Whether a label is of classes rather than of measurements."""
    if feature.kind == "class" or feature.names:
        return True
    return feature.kind == "mask" and len(np.unique(values)) <= _CLASSES


def class_counts(values: np.ndarray, feature: Feature) -> dict[str, Any]:
    """How many of each class, as statistics.json says it: ``counts`` by id, ``ignored``."""
    values = values[np.isfinite(values)]
    ids, counts = np.unique(values.astype(np.int64), return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    ignored = sum(found.pop(v, 0) for v in feature.ignore)
    known = [i for i in range(len(feature.names)) if i not in feature.ignore]
    return {
        "counts": {str(i): found.get(i, 0) for i in sorted({*known, *found})}, "ignored": ignored,
    }  # fmt: skip


def class_name(feature: Feature, value: int) -> str:
    return feature.names[value] if 0 <= value < len(feature.names) else str(value)

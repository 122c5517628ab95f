"""statistics.json: what is known of the training split, and how its images are normalized."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...loader.spec import DatasetSpec, Feature
from ..sections import Statistics
from .numbers import Numbers
from .partial import MOST_CLASSES, Partial

FORMAT = "scenefeed-statistics/1"
_ALL = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


def document(partial: Partial, spec: DatasetSpec, asked: Statistics, split: str) -> dict[str, Any]:
    """The whole of statistics.json.

    Its ``fingerprint`` covers the numbers, not which files they are from (``inputs``).

    Args:
      partial: of all scenes.
      spec: the dataset's.
      asked: how to normalize.
      split: which one was counted.
    """
    image = spec.features["image"]
    bands = {
        name: {"invalid": _share(band), **band.to_json(image.dtype)}
        for name, band in zip(image.bands, partial.bands, strict=True)
    }
    images = transform(partial.bands, image.dtype, asked)
    warnings = _odd_bands(partial, image.bands, split)
    for name, low, high in zip(
        image.bands, images["low"] or (), images["high"] or (), strict=False
    ):
        if low == high and bands[name]["min"] != bands[name]["max"]:
            warnings.append(
                f"band {name}: the quantiles {asked.quantiles} are one value, {low:g}: it becomes 0 "
                "where images are normalized; give others in statistics.quantiles"
            )
    labels = {
        name: _label(name, spec.features[name], partial, split, warnings)
        for name in (*partial.classes, *partial.values)
    }
    numbers = {
        "split": split,
        "patches": partial.patches,
        "normalize": asked.normalize,
        "warnings": warnings,
        "transform": None if asked.function else {"image": images},
        "bands": bands,
        "labels": labels,
    }
    text = json.dumps(numbers, sort_keys=True).encode()
    fingerprint = hashlib.sha256(text).hexdigest()
    return {"format": FORMAT, "fingerprint": fingerprint, "inputs": spec.inputs, **numbers}


def _odd_bands(partial: Partial, names: Sequence[str], split: str) -> list[str]:
    """Warnings where there is nothing to normalize by."""
    if not partial.patches:
        return [f"split {split} has no patch: nothing is known, images stay as they are"]
    warnings = []
    for name, band in zip(names, partial.bands, strict=True):
        if not band.count:
            warnings.append(f"band {name} has no valid value in split {split}")
        elif band.least == band.most:
            warnings.append(
                f"band {name} has one value, {band.least:g}, in all of split {split}: it becomes "
                "0 where images are normalized"
            )
    return warnings


def transform(bands: tuple[Numbers, ...], dtype: str, asked: Statistics) -> dict[str, Any]:
    """What images become: (clip(image, low, high) - offset) / scale, in float32, band by band.

    A band without a spread is divided by 1, and one without values stays as it is.
    """
    found: dict[str, Any] = {"offset": [], "scale": [], "low": None, "high": None}
    limits = []
    for band in bands:
        offset, spread = 0.0, 1.0
        if band.count and asked.normalize == "zscore":
            offset, spread = band.mean, band.variance**0.5
        elif band.count and asked.normalize == "minmax":
            offset, spread = band.least, band.most - band.least
        elif band.count and asked.normalize == "quantile":
            low, high = band.quantiles(asked.quantiles, dtype)
            offset, spread = low, high - low
            limits.append((low, high))
        elif asked.normalize == "quantile":
            limits.append(_ALL)
        found["offset"].append(offset)
        # What float32 cannot tell from nothing would blow rounding errors up.
        told = np.finfo(np.float32).tiny < np.float32(spread) < np.inf
        found["scale"].append(spread if told else 1.0)
    if limits:
        found["low"], found["high"] = (list(each) for each in zip(*limits, strict=True))
    return found


def _share(band: Numbers) -> float | None:
    whole = band.count + band.invalid
    return band.invalid / whole if whole else None


def _label(
    name: str, feature: Feature, partial: Partial, split: str, warnings: list[str]
) -> dict[str, Any]:
    if name in partial.values:
        numbers = partial.values[name]
        return {"kind": "value", "invalid": numbers.invalid, **numbers.to_json(feature.dtype)}
    found = partial.classes[name]
    counts = {c: n for c, n in (found or {}).items() if c not in feature.ignore}
    ignored = None if found is None else sum(found.values()) - sum(counts.values())
    named = {i: n for i, n in enumerate(feature.names) if n and i not in feature.ignore}
    if found is None:
        warnings.append(
            f"label {name} has more than {MOST_CLASSES:,} different values: too many for classes, "
            "so that none are counted"
        )
        named = {}
    absent = [c for c in named if c not in counts]
    for c in absent:
        warnings.append(f"label {name}: class {named[c]} ({c}) is not in split {split}: no weight")
    whole = dict(sorted((counts | dict.fromkeys(absent, 0)).items()))
    return {
        "kind": feature.kind,
        "counts": {str(c): n for c, n in whole.items()},
        "names": list(feature.names),
        "ignored": ignored,
        "weights": {str(c): w for c, w in _weights(whole).items()},
        "absent": [named[c] for c in absent],
    }


def _weights(counts: Mapping[int, int]) -> dict[int, float | None]:
    """Inversely as often as a class is there, 1 on average over all examples; None for a class
    that is not there."""
    there = [n for n in counts.values() if n]
    whole = sum(there)
    return {c: whole / (len(there) * n) if n else None for c, n in counts.items()}

"""Which patches are kept: a share, a balance of classes, at most so many of each scene.

Every choice is a hash of (seed, purpose, key), scene by scene, so that it depends on no order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .hashing import key_hash, patch_hashes, uniform
from .sections import Sample

_CHUNK = 1 << 22  # pixels whose classes are counted at once
_SPAN = 1 << 12  # a wider range of values is not counted by a table


def patch_classes(labels: np.ndarray, ignore: tuple[int, ...]) -> np.ndarray:
    """The class of each patch, int64 (N,): of a mask (N, ...) the most frequent value, the smallest
    of several; of a class column (N,) the value itself. -1 where there is none.

    Args:
      labels: integers, or floats that hold integers.
      ignore: values that are no class; nor are -1 and NaN.
    """
    flat = labels.reshape(len(labels), math.prod(labels.shape[1:]))
    step = max(1, _CHUNK // max(1, flat.shape[1]))
    parts = [_most_frequent(flat[i : i + step], ignore) for i in range(0, len(flat), step)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _most_frequent(values: np.ndarray, ignore: tuple[int, ...]) -> np.ndarray:
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, -1)
    values = values.astype(np.int64)
    values[np.isin(values, ignore)] = -1
    if values.shape[1] == 1:
        return values[:, 0]
    low, high = (int(values.min()), int(values.max())) if values.size else (-1, -1)
    if high - low >= _SPAN:
        return np.array([_of_one(v) for v in values], np.int64)
    # A patch has a row of the table, a value a column.
    width = high - low + 1
    most = np.full(len(values), -1, np.int64)
    step = max(1, _CHUNK // width)
    for i in range(0, len(values), step):
        part = values[i : i + step]
        cells = part - low + np.arange(len(part))[:, None] * width
        table = np.bincount(cells.ravel(), minlength=len(part) * width).reshape(-1, width)
        if low <= -1 <= high:
            table[:, -1 - low] = 0
        most[i : i + step] = np.where(table.any(axis=1), table.argmax(axis=1) + low, -1)
    return most


def _of_one(values: np.ndarray) -> int:
    found, counts = np.unique(values[values != -1], return_counts=True)
    return int(found[counts.argmax()]) if len(found) else -1


def class_counts(
    classes: np.ndarray, splits: np.ndarray, names: Sequence[str]
) -> dict[str, dict[int, int]]:
    """How many patches of each class each split has, without those of no class (-1).

    Args:
      classes: of ``patch_classes``, (N,).
      splits: indexes into ``names``, -1 for none, (N,).
      names: the splits.
    """
    counts = {}
    for i, name in enumerate(names):
        found, number = np.unique(classes[(splits == i) & (classes != -1)], return_counts=True)
        counts[name] = dict(zip(found.tolist(), number.tolist(), strict=True))
    return counts


def keep_rates(
    counts: Mapping[str, Mapping[int, int]], ratios: Mapping[int, float]
) -> dict[str, dict[int, float]]:
    """Per split, the share of each class to keep, so that what is kept is in the ratios and as much
    as can be: the class that is scarcest for its ratio is kept whole. A class without a ratio is
    not kept; one with a ratio that a split lacks does not count there.

    Args:
      counts: split to class to patches.
      ratios: class to its part, 0 or more.
    """
    rates = {}
    for split, found in counts.items():
        parts = {c: r for c, r in ratios.items() if r > 0 and found.get(c)}
        whole = min((found[c] / r for c, r in parts.items()), default=0.0)
        rates[split] = {c: min(1.0, whole * parts.get(c, 0.0) / n) for c, n in found.items() if n}
    return rates


def selected(
    sample: Sample, seed: int, scene_id: str, rows: np.ndarray, cols: np.ndarray,
    splits: np.ndarray, names: Sequence[str], classes: np.ndarray | None,
    rates: Mapping[str, Mapping[int, float]] | None,
) -> np.ndarray:  # fmt: skip
    """Which patches of one scene are kept, bool (N,): of those in a split, ``fraction``, then a
    balance of classes, then at most ``per_scene``. Splits that ``sample.splits`` leaves out are
    kept whole.

    Args:
      sample: the section.
      seed: of all draws.
      scene_id: the scene's id.
      rows, cols: the patches' corners, pixels, (N,).
      splits: indexes into ``names``, -1 for none, (N,).
      names: the splits.
      classes: of ``patch_classes``, (N,); needed for ``rates``.
      rates: of ``keep_rates`` over the whole dataset; None to leave classes as they are.
    """

    def lowest(purpose: str, among: np.ndarray, number: int) -> np.ndarray:
        hashes = patch_hashes(seed, purpose, scene_id, rows[among], cols[among])
        kept = np.zeros(len(rows), bool)
        kept[among[np.argsort(hashes, kind="stable")[:number]]] = True
        return kept

    kept = splits >= 0
    limited = [i for i, name in enumerate(names) if sample.splits is None or name in sample.splits]
    open_to_draws = np.isin(splits, limited)
    if sample.fraction < 1:
        hashes = patch_hashes(seed, "sample", scene_id, rows, cols)
        kept &= ~open_to_draws | (uniform(hashes) < sample.fraction)
    if rates is not None and classes is not None:
        balanced = np.zeros(len(rows), bool)
        for name, value, among in _groups(kept & open_to_draws, splits, names, classes):
            rate = rates.get(name, {}).get(value, 0.0)
            key = f"{scene_id}\0{name}\0{value}"
            balanced |= lowest("balance", among, _rounded(rate * len(among), seed, key))
        kept &= ~open_to_draws | balanced
    if sample.per_scene is not None:
        among = np.flatnonzero(kept & open_to_draws)
        kept &= ~open_to_draws | lowest("cap", among, sample.per_scene)
    return kept


def _groups(
    among: np.ndarray, splits: np.ndarray, names: Sequence[str], classes: np.ndarray
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(split, class, indexes of patches) of each pair that there is."""
    for i, name in enumerate(names):
        here = among & (splits == i)
        for value in np.unique(classes[here]).tolist():
            yield name, value, np.flatnonzero(here & (classes == value))


def _rounded(number: float, seed: int, key: str) -> int:
    """Up with the probability of the fraction, by a hash: over many scenes, the sum is right."""
    whole = round(number, 6)  # 29.999999999 is 30
    draw = (key_hash(seed, "balance", key) >> 11) * 2.0**-53
    return int(whole) + (draw < whole - int(whole))

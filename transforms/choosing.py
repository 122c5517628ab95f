"""Which patches of a staged scene go where: splits and sampling together, by keys alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from .config import Config
from .errors import JobError
from .headers import SceneHeader
from .sampling import class_counts, keep_rates, patch_classes, selected
from .splits import split_indexes
from .stagefile import Contents, read_chunks, read_columns
from .staging import StagedScene

# Split to class to the share of its patches that is kept.
Rates = Mapping[str, Mapping[int, float]]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The patches of one scene.

    Attributes:
      rows, cols: corners of all staged patches, int32 (N,).
      splits: each one's split as an index into ``config.splits``, -1 for none, intp (N,).
    """

    rows: np.ndarray
    cols: np.ndarray
    splits: np.ndarray

    def counts(self, config: Config) -> dict[str, int]:
        """Patches by split."""
        names = config.splits
        found = np.bincount(self.splits[self.splits >= 0], minlength=len(names))
        return dict(zip(names, found.tolist(), strict=True))


def splits_of(
    config: Config, scene_id: str, header: SceneHeader, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """Each patch's split before sampling, as in ``Choice``.

    Raises:
      SceneError: what the split goes by is not known of this scene.
    """
    return split_indexes(
        config.split, config.records.seed, config.tile.size, scene_id, header.where,
        header.properties, rows, cols,
    )  # fmt: skip


def choose(
    scene: StagedScene, config: Config, rates: Rates, found: Contents | None = None
) -> Choice:
    """Splits and samples a staged scene. The same on every call.

    Args:
      scene: the scene.
      config: the configuration.
      rates: what balancing keeps of each class.
      found: what its stage file holds, where that was read already.

    Raises:
      SceneError: what the split goes by is not known of this scene.
      JobError: the stage file cannot be read.
    """
    rows, cols = _corners(scene, found)
    splits = splits_of(config, scene.id, scene.header, rows, cols)
    classes = _classes(scene, config) if config.sample.balance else None
    keep = selected(
        config.sample, config.records.seed, scene.id, rows, cols, splits, config.splits,
        classes, rates,
    )  # fmt: skip
    return Choice(rows, cols, np.where(keep, splits, -1))


def _corners(scene: StagedScene, found: Contents | None = None) -> tuple[np.ndarray, np.ndarray]:
    if found := found or scene.contents:
        return found.rows, found.cols
    rows, cols = read_columns(scene.path, ["row", "col"]).values()
    return rows, cols


def count_classes(scene: StagedScene, config: Config) -> dict[str, dict[int, int]]:
    """Patches by split and class, before balancing; empty where nothing is balanced."""
    if not config.sample.balance:
        return {}
    rows, cols = _corners(scene)
    splits = splits_of(config, scene.id, scene.header, rows, cols)
    fraction = config.sample.model_copy(update={"balance": None, "per_scene": None})
    keep = selected(
        fraction, config.records.seed, scene.id, rows, cols, splits, config.splits, None, {},
    )  # fmt: skip
    return class_counts(_classes(scene, config)[keep], splits[keep], config.splits)


def rates_of(
    counts: Iterable[Mapping[str, Mapping[int, int]]], layout: SceneHeader | None, config: Config
) -> Rates:
    """The share of each class to keep, from every scene's counts.

    Raises:
      JobError: a ratio is given for a class that does not exist.
    """
    balance = config.sample.balance
    if balance is None or layout is None:
        return {}
    whole: dict[str, dict[int, int]] = {}
    for each in counts:
        for split, by_class in each.items():
            held = whole.setdefault(split, {})
            for number, count in by_class.items():
                held[number] = held.get(number, 0) + count
    names = layout.columns[balance.label].names
    ratios = {}
    for given, ratio in balance.ratios.items():
        if isinstance(given, str) and given in names:
            ratios[names.index(given)] = ratio
        elif isinstance(given, int) or given.lstrip("-").isdigit():
            ratios[int(given)] = ratio
        else:
            listed = ", ".join(n for n in names if n) or "numbers"
            raise JobError(f"sample.balance.ratios: no class {given!r}: there are {listed}")
    return keep_rates(whole, ratios)


def _classes(scene: StagedScene, config: Config) -> np.ndarray:
    assert config.sample.balance is not None
    name = config.sample.balance.label
    ignore = scene.header.columns[name].ignore
    parts = [patch_classes(chunk, ignore) for chunk in read_chunks(scene.path, name)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)

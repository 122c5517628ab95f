"""statistics.json: what ``scenefeed stats`` found in the training split, and how it is normalized.

Format ``scenefeed-statistics/1``. Reading it needs NumPy alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .spec import DatasetError, DatasetSpec
from .storage import join, read_file

FORMAT = "scenefeed-statistics/1"
FILE_NAME = "statistics.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Normalization:
    """(clip(float32(x), low, high) - offset) x (1 / scale), band by band, in float32.

    The reciprocal is rounded to float32 before it is multiplied by: TensorFlow makes that of a
    division wherever it optimizes a graph, and so all feeds give the same bits.

    Attributes:
      offset, scale: float32 (C,).
      low, high: float32 (C,), or None where nothing is clipped.
    """

    offset: np.ndarray
    scale: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def __post_init__(self) -> None:
        finite = all(np.isfinite(v).all() for v in self._values())
        if not finite or not (self.scale > np.finfo(np.float32).tiny).all():
            raise DatasetError("normalize: values must be finite, and std (or max - min) above 0")

    @property
    def factor(self) -> np.ndarray:
        """1 / scale, float32 (C,)."""
        return np.float32(1) / self.scale

    @classmethod
    def of(cls, given: Mapping[str, Any], bands: int) -> Normalization:
        """From {"mean", "std"} or {"min", "max"}, each a number or one a band.

        Raises:
          DatasetError: other keys, not as many as bands, not finite, or nothing to divide by.
        """
        try:
            each = {k: np.broadcast_to(np.asarray(v, np.float64), bands) for k, v in given.items()}
        except (TypeError, ValueError):
            raise DatasetError(
                f"normalize: give a number, or one for each of {bands} bands"
            ) from None
        if set(each) == {"mean", "std"}:
            low, spread = each["mean"], each["std"]
        elif set(each) == {"min", "max"}:
            low, spread = each["min"], each["max"] - each["min"]
        else:
            raise DatasetError("normalize: give {'mean', 'std'} or {'min', 'max'}")
        return cls(low.astype(np.float32), spread.astype(np.float32))

    def same(self, other: Normalization) -> bool:
        """Whether both give the same."""
        mine, theirs = self._values(), other._values()
        return len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))

    def _values(self) -> list[np.ndarray]:
        return [v for v in (self.offset, self.scale, self.low, self.high) if v is not None]


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """The whole of statistics.json, and where it lies.

    Attributes:
      folder: the dataset's folder or URL.
      inputs: what the dataset was made from that it was computed from, as in dataset.json.
      split, patches: of which split, over how many patches.
      normalize: none, zscore, minmax, quantile, or a function of the user's, ``module:name``.
      normalization: what it comes to; None for none, and for a function.
      bands: name to count, mean, variance, std, min, max, quantiles, histogram, ...
      labels: name to kind, counts, weights, ... or to a value's quantiles.
    """

    folder: str
    inputs: str
    split: str
    patches: int
    normalize: str
    normalization: Normalization | None
    bands: dict[str, dict[str, Any]]
    labels: dict[str, dict[str, Any]]
    warnings: tuple[str, ...] = ()

    @property
    def function(self) -> str:
        """The user's own, ``module:name``, which is in the dataset's ``transform_fn``; or ""."""
        return self.normalize if ":" in self.normalize else ""

    def class_weights(self, label: str) -> dict[int, float]:
        """Balanced weights by class id: patches (pixels, of a mask) / (classes x the class's own).
        Classes that do not occur have none.

        Raises:
          DatasetError: it has no classes.
        """
        weights = self.labels.get(label, {}).get("weights")
        if not isinstance(weights, dict):
            raise DatasetError(f"class_weights: {FILE_NAME} has no weights of {label!r}")
        return {int(k): float(v) for k, v in weights.items() if v is not None}

    @classmethod
    def load(cls, folder: str | Path, spec: DatasetSpec | None = None) -> Statistics:
        """Reads ``folder/statistics.json``.

        Args:
          spec: the dataset's, where it was read already.

        Raises:
          DatasetError: not there, damaged, or of another dataset than is in the folder.
        """
        path, again = join(folder, FILE_NAME), f"run `scenefeed stats {folder}`"
        try:
            spec = spec or DatasetSpec.load(folder)
            found = cls.from_json(json.loads(read_file(path)), spec, str(folder))
        except FileNotFoundError:
            raise DatasetError(f"{path}: not there: {again}") from None
        except OSError as e:
            raise DatasetError(f"{path}: {e.strerror or e}") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            what = f"{type(e).__name__}: {e}"
            raise DatasetError(
                f"{path}: damaged, or of another version ({what}): {again}"
            ) from None
        except DatasetError as e:
            raise DatasetError(f"{path}: {e}: {again}") from None
        if found.inputs != spec.inputs:
            raise DatasetError(f"{path}: of another dataset than {folder} holds now: {again}")
        return found

    @classmethod
    def from_json(cls, d: dict[str, Any], spec: DatasetSpec, folder: str = "") -> Statistics:
        """From the file's content; bands come in the order of the image's.

        Raises:
          ValueError, LookupError, TypeError, ...: it is not such.
        """
        if d["format"] != FORMAT:
            raise ValueError(f"format {d['format']!r}, this scenefeed reads {FORMAT!r}")
        bands = {name: d["bands"][name] for name in spec.features["image"].bands or d["bands"]}
        return cls(
            folder, str(d["inputs"]), str(d["split"]), int(d["patches"]), str(d["normalize"]),
            None if d["normalize"] == "none" else _normalization(d["transform"], len(bands)),
            bands, dict(d["labels"]), tuple(d.get("warnings", ())),
        )  # fmt: skip


def _normalization(transform: Any, bands: int) -> Normalization | None:
    if transform is None:
        return None
    given = {k: v for k, v in transform["image"].items() if v is not None}
    values = {k: np.array(v, np.float32) for k, v in given.items()}
    if any(v.shape != (bands,) for v in values.values()):
        raise ValueError(f"transform: not one number for each of {bands} bands")
    return Normalization(**values)


Choice = Normalization | Statistics | None


def chosen(
    asked: Any, folders: list[str], specs: list[DatasetSpec], baked_too: bool = False
) -> Choice:
    """What a feed's option ``normalize`` comes to; a ``Statistics`` where it is a function.

    Args:
      asked: the option.
      folders, specs: of the datasets that are fed together.
      baked_too: what is fed is not normalized also where the records are.

    Raises:
      DatasetError: it cannot be had.
    """
    image = specs[0].features["image"]
    if asked is None or asked is False or asked == "none":
        return None
    if isinstance(asked, Mapping):
        return Normalization.of(asked, image.shape[-1])
    if isinstance(asked, Normalization):
        return asked
    if isinstance(asked, Statistics):
        if image.bands and tuple(asked.bands) != image.bands:
            theirs, mine = ", ".join(asked.bands), ", ".join(image.bands)
            raise DatasetError(f"normalize: statistics of bands {theirs}; the dataset has {mine}")
        return asked if asked.function else asked.normalization
    if asked not in ("auto", "dataset"):
        raise DatasetError(
            f"normalize {asked!r}: 'auto', 'dataset', None, {{'mean', 'std'}}, {{'min', 'max'}}, or "
            "a dataset's Statistics"
        )
    found = [_own(asked, f, s, baked_too) for f, s in zip(folders, specs, strict=True)]
    first = found[0]
    if not all(_agree(first, other) for other in found[1:]):
        raise DatasetError(
            "normalize: the datasets' own normalizations differ: give one for all, as "
            f"normalize=Statistics.load({folders[0]!r}), or normalize=None"
        )
    return first


def _own(asked: str, folder: str, spec: DatasetSpec, baked_too: bool) -> Choice:
    wanted = spec.config.get("statistics", {})
    baked = wanted.get("bake", False) and not baked_too
    if asked == "auto" and (wanted.get("normalize") in (None, "none") or baked):
        return None
    if baked:
        raise DatasetError(
            f"normalize='dataset': the records of {folder} are normalized already "
            "(statistics.bake): leave normalize out"
        )
    try:
        found = Statistics.load(folder, spec)
    except DatasetError as e:
        raise DatasetError(f"{e}, or give normalize=None") from None
    if asked == "dataset" and found.normalize == "none":
        raise DatasetError(
            f"normalize='dataset': {folder} has no normalization of its own: set "
            f"statistics.normalize and run `scenefeed stats {folder}`, or give normalize=None"
        )
    if asked == "auto" and found.function:
        raise DatasetError(
            f"normalize: {folder} brings a program, {found.function}, which is not run unasked: give "
            "normalize='dataset' to `load` to have it run, or normalize=None"
        )
    return found if found.function else found.normalization


def _agree(one: Choice, other: Choice) -> bool:
    if isinstance(one, Normalization) and isinstance(other, Normalization):
        return one.same(other)
    return one is None and other is None


def weights_of(asked: Any, folders: list[str], specs: list[DatasetSpec]) -> Any:
    """The option ``class_weights``, numbers in place of the word "statistics".

    Raises:
      DatasetError: they cannot be had.
    """
    from .options import by_label

    if asked is None or "statistics" not in (
        asked, *(asked.values() if isinstance(asked, Mapping) else ())
    ):  # fmt: skip
        return asked
    if len(specs) > 1:
        raise DatasetError("class_weights='statistics' is of one dataset: give {class: weight}")
    label, _ = by_label(asked, specs[0], "class_weights")
    return {label: Statistics.load(folders[0], specs[0]).class_weights(label)}

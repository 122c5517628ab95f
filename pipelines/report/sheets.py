"""Which patches a report shows: of each split, and of each class."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...loader.spec import DatasetSpec, Feature
from ..drawing import colour_bands, percentile_limits
from .distributions import class_name, has_classes

OF_SPLIT, OF_CLASS = 12, 4  # patches shown of a split, and of a class in a split
SPLITS, CLASSES = 8, 24  # that get a sheet, of all labels together
SIDE = 160  # pixels; larger patches are thinned out


@dataclasses.dataclass(frozen=True)
class Picture:
    """One patch: the bands that are shown (H, W, 1 to 3), its mask or None, what it is."""

    split: str
    scene: str
    row: int
    col: int
    image: np.ndarray
    mask: np.ndarray | None
    label: str
    note: str


@dataclasses.dataclass
class Sheet:
    """Pictures under one heading.

    Attributes:
      title: the split, or label and class.
      kind: split or class.
      label: the mask that lies over them, or "".
      pictures: by hash; of a class, those nearest to half of it.
      only: the one class of the mask that is shown; None for all.
    """

    title: str
    kind: str
    label: str
    pictures: list[Picture]
    only: int | None = None


def shown_bands(spec: DatasetSpec) -> list[int]:
    image = spec.features["image"]
    return list(colour_bands(image.bands, image.shape[-1]))


def masks(spec: DatasetSpec) -> list[str]:
    return [k for k in spec.labels if spec.features[k].kind == "mask"]


def pick(split: str, sample: dict[str, np.ndarray], spec: DatasetSpec) -> list[Sheet]:
    """A split's sheet, and its part of each class's."""
    count = len(sample["row"])
    first = next((k for k in masks(spec) if has_classes(spec.features[k], sample[k])), "")
    chosen = range(min(OF_SPLIT, count))
    sheets = [
        Sheet(split, "split", first, [_picture(split, sample, i, spec, first) for i in chosen])
    ]
    for label in spec.labels:
        feature, values = spec.features[label], sample[label]
        if not has_classes(feature, values):
            continue
        for value in classes(feature, values):
            share = (values == value).reshape(count, -1).mean(axis=1)
            # Half of a patch shows the class's borders; of equals, the first by hash.
            best = np.argsort(np.where(share, abs(share - 0.5), 1), kind="stable")[:OF_CLASS]
            over = label if feature.kind == "mask" else ""
            pictures = [
                _picture(split, sample, i, spec, over, f"{share[i]:.0%}" if values.ndim > 1 else "")
                for i in best.tolist() if share[i]
            ]  # fmt: skip
            title = f"{label}: {class_name(feature, value)}"
            only = value if feature.kind == "mask" else None
            sheets.append(Sheet(title, "class", over, pictures, only))
    return sheets


def classes(feature: Feature, values: np.ndarray) -> list[int]:
    """A label's classes: those with names, or those that a sample has."""
    ids = range(len(feature.names))
    found = ids or np.unique(values[np.isfinite(values)]).astype(int).tolist()
    return [v for v in found if v not in feature.ignore]


def joined(parts: list[list[Sheet]]) -> tuple[list[Sheet], int]:
    """Sheets of all splits, one a split and one a class, and how many were left out."""
    splits = [sheets[0] for sheets in parts]
    by_class: dict[tuple[str, str], Sheet] = {}
    for sheet in (s for sheets in parts for s in sheets[1:]):
        found = by_class.setdefault(
            (sheet.title, sheet.label),
            Sheet(sheet.title, "class", sheet.label, [], sheet.only),
        )
        found.pictures += sheet.pictures
    kept = splits[:SPLITS] + list(by_class.values())[:CLASSES]
    return kept, len(splits) + len(by_class) - len(kept)


def limits_of(image: np.ndarray, spec: DatasetSpec, valid: np.ndarray) -> list[tuple[float, float]]:
    """One stretch for all sheets: percentiles of the valid values of the bands shown."""
    return [percentile_limits(image[..., i][valid[..., i]]) for i in shown_bands(spec)]


def _picture(
    split: str, sample: dict[str, np.ndarray], i: int, spec: DatasetSpec, label: str, note: str = ""
) -> Picture:
    image = sample["image"][i]
    step = max(1, -(-max(image.shape[:2]) // SIDE))
    # A copy: a view would hold the whole sample.
    thin = image[::step, ::step, shown_bands(spec)].copy()
    mask = sample[label][i][::step, ::step].copy() if label else None
    said = [note] if note else []
    for name in spec.labels:
        feature, value = spec.features[name], sample[name][i]
        if feature.kind in ("class", "value"):
            said.append(f"{name} {_text(feature, value)}")
    return Picture(
        split, str(sample["scene_id"][i]), int(sample["row"][i]), int(sample["col"][i]), thin,
        mask, label, ", ".join(said),
    )  # fmt: skip


def _text(feature: Feature, value: Any) -> str:
    if feature.kind == "value":
        return f"{value:.4g}" if np.isfinite(value) else "unknown"
    return "ignored" if int(value) in feature.ignore else class_name(feature, int(value))

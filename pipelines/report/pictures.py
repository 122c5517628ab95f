"""Pictures of patches for contact sheets: each as it is, and with its mask over it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...loader.spec import DatasetSpec, Feature
from ..drawing import legend, overlay, stretch
from .distributions import fills
from .sheets import Picture, Sheet, shown_bands
from .style import data_uri

BUDGET = 4 << 20  # bytes of all pictures, as text in the page
_QUALITY = 88


@dataclasses.dataclass(frozen=True)
class Cell:
    """One picture of a sheet: ``over`` is the same with its mask over it, "" without one."""

    image: str
    over: str
    width: int
    height: int
    alt: str
    scene: str
    place: str
    note: str


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A sheet as a page shows it; ``key`` has the classes that lie over it: (name, colour)."""

    id: str
    title: str
    kind: str
    label: str
    cells: Sequence[Cell]
    key: Sequence[tuple[str, str]]


def draw(
    sheets: list[Sheet], spec: DatasetSpec, limits: list[tuple[float, float]]
) -> list[Drawn]:  # fmt: skip
    """All sheets, in ``BUDGET`` bytes: each gets its share, and shows as many as fit."""
    left, drawn = BUDGET, []
    for i, sheet in enumerate(sheets):
        room = left // (len(sheets) - i)
        cells: list[Cell] = []
        for picture in sheet.pictures:
            cell = _cell(picture, sheet, spec, limits)
            room -= len(cell.image) + len(cell.over)
            if room < 0 and cells:
                break
            cells.append(cell)
        left -= sum(len(c.image) + len(c.over) for c in cells)
        drawn.append(
            Drawn(f"sheet-{i}", sheet.title, sheet.kind, sheet.label, cells, _key(sheet, spec))
        )
    return drawn


def _cell(
    picture: Picture, sheet: Sheet, spec: DatasetSpec, limits: list[tuple[float, float]]
) -> Cell:  # fmt: skip
    image, chosen = spec.features["image"], shown_bands(spec)
    names = [image.bands[i] if image.bands else "" for i in chosen]
    photograph = image.dtype == "uint8" and image.shape[-1] == 3
    fill = [float(fills(spec.config, image.shape[-1])[i]) for i in chosen]
    if photograph:  # as it is
        limits = [(0.0, 255.0)] * 3
    colours = stretch(picture.image, names, fill=fill, limits=limits, scale=image.scale)
    over = ""
    if picture.mask is not None:
        feature = spec.features[picture.label]
        tinted = overlay(colours, picture.mask, feature.ignore, feature.names)
        clear = _clear(picture.mask, feature, sheet.only)
        over = _jpeg(np.where(clear[..., None], colours, tinted))
    place = f"{picture.scene}, row {picture.row}, column {picture.col}"
    said = [picture.split, picture.note] if sheet.kind == "class" else [picture.note]
    note = ", ".join(filter(None, said))
    height, width = colours.shape[:2]
    return Cell(
        _jpeg(colours), over, width, height, f"Patch of {place}{f': {note}' if note else ''}",
        picture.scene, f"{picture.row}, {picture.col}", note,
    )  # fmt: skip


def _clear(mask: np.ndarray, feature: Feature, only: int | None) -> Any:
    """Where a mask lies over nothing: all but one class; else, of two classes, the first."""
    return np.asarray(mask != only if only is not None else (mask == 0) & (len(feature.names) == 2))


def _key(sheet: Sheet, spec: DatasetSpec) -> list[tuple[str, str]]:
    """The classes that lie over a sheet's pictures."""
    if not sheet.label:
        return []
    feature = spec.features[sheet.label]
    masks = [p.mask for p in sheet.pictures if p.mask is not None]
    values = np.unique(np.concatenate([m.ravel() for m in masks])) if masks else np.empty(0)
    clear = dict(zip(values.tolist(), _clear(values, feature, sheet.only).tolist(), strict=True))
    return [
        (name, "" if clear[value] else colour)
        for value, name, colour in legend(values, feature.ignore, feature.names)
        if sheet.only in (None, value)
    ]


def _jpeg(colours: np.ndarray) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(colours).save(out, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return data_uri(out.getvalue(), "image/jpeg")

"""Patches as PNG files: colours, each band, each label; or a sheet of several."""

from __future__ import annotations

import json
import math
import os
import textwrap
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..loader.spec import DatasetError, DatasetSpec, Feature
from ..transforms.errors import ConfigError
from ..transforms.locating import read_record, record_key
from ..transforms.storage import path_of
from . import drawing

MOST_BANDS = 12
"""Panels of bands in one picture; the others are left out, and the picture says so."""
MOST_PATCHES = 200
"""Patches in one sheet."""
_MOST_CLASSES = 64  # a mask of more values is a measurement
_INCHES, _DPI = 2.6, 110


class Painter:
    """Draws a dataset's records.

    Args:
      out: the dataset.
      bands: names (or numbers, from 1) of up to three bands to show as colours.
      whole: stretch by the training split's quantiles (statistics.json), not by each patch's.

    Raises:
      ConfigError: no such band; matplotlib is not installed.
      DatasetError: no dataset, or no statistics.
    """

    def __init__(self, out: str | Path, bands: Sequence[str] = (), whole: bool = False):
        try:
            import matplotlib  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError(
                "matplotlib is not installed: pip install 'scenefeed[report]'"
            ) from None
        self.out, self.spec = out, DatasetSpec.load(out)
        self.image = self.spec.features["image"]
        count = self.image.shape[-1]
        self.names = self.image.bands or tuple(f"b{i + 1}" for i in range(count))
        self.chosen = [self._number(b) for b in bands] or list(
            drawing.colour_bands(self.names, count)
        )
        if len(self.chosen) > 3:
            raise ConfigError(f"--bands {','.join(bands)}: a picture has three colours")
        fill = self.spec.config.get("clean", {}).get("fill", 0.0)
        self.fill = [math.nan] * count if fill == "mean" else np.broadcast_to(fill, count).tolist()
        self.limits = _limits(out, self.names) if whole else None

    def _number(self, band: str) -> int:
        if band in self.names:
            return self.names.index(band)
        if band.isdigit() and 1 <= int(band) <= len(self.names):
            return int(band) - 1
        raise ConfigError(f"--bands: no band {band!r}: there are {', '.join(self.names[:20])}")

    def colours(self, image: np.ndarray) -> np.ndarray:
        """An image (H, W, C) as uint8 (H, W, 3)."""
        return drawing.stretch(
            image, self.names, chosen=self.chosen, fill=self.fill, limits=self.limits,
            scale=self.image.scale,
        )  # fmt: skip

    def patch(self, split: str, index: int) -> Any:
        """A Matplotlib figure of one record: its colours, bands and labels."""
        record = read_record(self.out, self.spec, split, index)
        colours = self.colours(record["image"])
        shown = " ".join(self._colour_names())
        panels: list[tuple[Any, ...]] = [(_draw_picture, f"colours: {shown}", colours)]
        for name, feature in self.spec.features.items():
            if feature.kind == "mask":
                panels.append((_draw_mask, name, record[name], feature, colours))
        for i, name in enumerate(self.names[:MOST_BANDS]):
            band = record["image"][..., i]
            limits = self.limits[i] if self.limits else None
            grey = drawing.grey(
                band, name, fill=self.fill[i], limits=limits, scale=self.image.scale
            )
            panels.append((_draw_picture, f"{name}\n{_range(band, self.fill[i])}", grey))
        more = len(self.names) - MOST_BANDS
        figure, axes = _figure(len(panels))
        for axis, (draw, *what) in zip(axes, panels, strict=False):
            draw(axis, *what)
        lines = [f"{record_key(record)}", f"{split} {index}", *self._values(record)]
        if more > 0:
            lines.append(f"{MOST_BANDS} of {len(self.names)} bands are shown")
        _caption(figure, lines)
        return figure

    def _colour_names(self) -> list[str]:
        names = [self.names[i] for i in self.chosen]
        if len(names) == 2:
            sign = "/" if drawing.is_radar(names) else "-"
            names.append(f"{names[0]}{sign}{names[1]}")
        return names

    def _values(self, record: dict[str, Any]) -> list[str]:
        """The record's labels and scalars that are one value each, in words."""
        return [
            f"{name}: {_words(record[name], feature)}"
            for name, feature in self.spec.features.items()
            if feature.encoding == "scalar" and name not in ("scene_id", "row", "col")
        ]

    def sheet(self, places: Sequence[tuple[str, int]]) -> Any:
        """A figure of several records, (split, index) each: colours, with the first mask over
        them."""
        figure, axes = _figure(len(places))
        masks = [k for k, f in self.spec.features.items() if f.kind == "mask"]
        for axis, (split, index) in zip(axes, places, strict=False):
            record = read_record(self.out, self.spec, split, index)
            key = textwrap.fill(str(record_key(record)), 30)
            title = "\n".join([f"{split} {index}", key, *self._values(record)[:2]])
            colours = self.colours(record["image"])
            if masks:
                feature = self.spec.features[masks[0]]
                _draw_mask(axis, title, record[masks[0]], feature, colours)
            else:
                _draw_picture(axis, title, colours)
        return figure


def save(figure: Any, path: str | Path) -> None:
    """Writes a figure as PNG, under its name at once."""
    import warnings

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # ids in scripts that the font lacks
            figure.savefig(
                temporary, format="png", dpi=_DPI, bbox_inches="tight"
            )  # with all legends
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _figure(panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    across = panels if panels <= 4 else math.ceil(math.sqrt(panels * 1.4))
    down = -(-panels // across)
    size = _INCHES * across, (_INCHES + 0.55) * down + 0.3
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.08))
    axes = list(np.atleast_1d(figure.subplots(down, across)).ravel())
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def _title(axis: Any, text: str) -> None:
    axis.set_title(text, fontsize=8, parse_math=False)


def _draw_picture(axis: Any, title: str, picture: np.ndarray) -> None:
    _title(axis, title)
    axis.imshow(picture, interpolation="nearest", cmap="gray", vmin=0, vmax=255)


def _draw_mask(
    axis: Any, title: str, mask: np.ndarray, feature: Feature, colours: np.ndarray
) -> None:
    """A mask of classes over the picture, with its legend; one of measurements by itself."""
    if mask.dtype.kind == "f" and not _is_classes(mask):
        _title(axis, f"{title}\n{_range(mask, math.nan)}")
        axis.imshow(mask, interpolation="nearest", cmap="viridis")
        return
    from matplotlib.patches import Patch

    _draw_picture(axis, title, drawing.overlay(colours, mask, feature.ignore, feature.names))
    shares = {v: float((mask == v).mean()) for v in np.unique(mask).tolist()}
    found = drawing.legend(mask, feature.ignore, feature.names)
    handles = [
        Patch(
            facecolor=colour or "none", edgecolor="#555", label=f"{name} {_percent(shares[value])}"
        )
        for value, name, colour in found[:8]
    ]
    shown = axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=6,
                        ncols=2, frameon=False)  # fmt: skip
    for text in shown.get_texts():
        text.set_parse_math(False)


def _is_classes(mask: np.ndarray) -> bool:
    values = np.unique(mask[np.isfinite(mask)])
    return len(values) <= _MOST_CLASSES and bool((values == np.rint(values)).all())


def _caption(figure: Any, lines: Sequence[str]) -> None:
    text = "\n".join(textwrap.fill(line, 110) for line in lines)
    figure.suptitle(text, fontsize=8, parse_math=False)


def _range(band: np.ndarray, fill: float) -> str:
    """A band's least and greatest valid value, in words."""
    if band.dtype.kind == "c":
        band = np.abs(band)
    finite = band[np.isfinite(band)]
    known = finite[finite != fill]
    if known.size:
        form = "d" if known.dtype.kind in "iu" else ".4g"
        low, high = (format(v, form) for v in (known.min(), known.max()))
        words = [f"{low}, constant" if low == high else f"{low} to {high}"]
    else:
        words = ["no valid value"]
    if finite.size > known.size:
        words.append(f"{_percent(1 - known.size / finite.size)} are {fill:g}")
    if band.size > finite.size:
        words.append(f"{_percent(1 - finite.size / band.size)} not finite")
    return ", ".join(words)


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _words(value: Any, feature: Feature) -> str:
    if feature.kind == "class" and 0 <= int(value) < len(feature.names):
        return f"{feature.names[int(value)]} ({int(value)})"
    if feature.kind == "class" and int(value) in feature.ignore:
        return f"{int(value)}, no label"
    return f"{value:.6g}" if feature.kind == "value" else str(value)


def _limits(out: str | Path, names: Sequence[str]) -> list[tuple[float, float] | None]:
    """The 2nd and 98th percentile of each band over the training split."""
    path = path_of(out) / "statistics.json"
    if not path.exists():
        raise DatasetError(
            f"{path}: not there: run `scenefeed stats {out}`, or leave --stretch split out"
        )
    try:
        quantiles = [json.loads(path.read_text())["bands"][n]["quantiles"] for n in names]
        ends = [(q["0.02"], q["0.98"]) for q in quantiles]
    except (ValueError, KeyError, TypeError) as e:
        raise DatasetError(
            f"{path}: has no quantiles of {', '.join(names)} ({type(e).__name__} {e}): "
            f"run `scenefeed stats {out}` again"
        ) from None
    return [None if None in pair else pair for pair in ends]

"""Patches as pictures: bands stretched to 8 bits, masks laid over them. NumPy alone.

    colours = stretch(image, bands)                 # (H, W, C), names -> uint8 (H, W, 3)
    greys = [grey(image[..., i], name) for i, name in enumerate(bands)]    # uint8 (H, W) each
    tinted = overlay(colours, mask, ignore, names)  # uint8 (H, W, 3)
    for value, name, colour in legend(mask, ignore, names): ...

``fill`` (a number, one a band, or None) is what invalid values hold: they, NaN and infinities
decide nothing, and are black. ``limits`` ((low, high) or None a band, of values as they are stored,
such as a split's quantiles) gives patches of one sheet one stretch; without it each is stretched by its own
2nd and 98th percentile. ``scale`` is the image feature's (factor, offset).
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

PERCENTILES = (2, 98)
# Names of SAR bands: a polarization somewhere in them. Their power spans decades.
_RADAR = re.compile(r"(?<![a-z])(vv|vh|hh|hv)(?![a-z])", re.IGNORECASE)
# Bands that are red, green and blue by their names; the second are Sentinel-2's.
_NATURAL = (("red", "green", "blue"), ("r", "g", "b"), ("b04", "b03", "b02"))
_ALPHA = 0.45
# Okabe and Ito, "Color Universal Design", 2008, without black: told apart by the colour-blind.
_PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
_IGNORED = "#9a9a9a"

Limits = Sequence[tuple[float, float] | None]
Fill = float | Sequence[float] | None


def is_radar(bands: Sequence[str]) -> bool:
    """Whether all bands are SAR's by their names."""
    return bool(bands) and all(_RADAR.search(name) for name in bands)


def colour_bands(bands: Sequence[str], count: int) -> tuple[int, ...]:
    """The bands that a picture shows: red, green and blue where names say so, else the first
    three, or as many as there are."""
    lower = [name.lower() for name in bands]
    for names in _NATURAL:
        if all(name in lower for name in names):
            return tuple(lower.index(name) for name in names)
    return tuple(range(min(3, count)))


def stretch(
    image: np.ndarray, bands: Sequence[str] = (), *, chosen: Sequence[int] | None = None,
    fill: Fill = None, limits: Limits | None = None, scale: Sequence[float] = (),
) -> np.ndarray:  # fmt: skip
    """An image as colours, uint8 (H, W, 3).

    One band is grey. Two are red and green, and blue is their difference (in decibels, so for
    SAR their ratio). An image of three bands of bytes is taken for a photograph: its bands are
    stretched alike, so that colours stay.

    Args:
      image: (H, W, C), any dtype.
      bands: their names, C of them or none.
      chosen: up to three bands to show, by number; by ``colour_bands`` by default.
      fill, limits, scale: as the module says; of all C bands.
    """
    chosen = list(colour_bands(bands, image.shape[-1]) if chosen is None else chosen)
    names = [bands[i] if bands else "" for i in chosen]
    fills = np.broadcast_to(np.array(np.nan if fill is None else fill, float), image.shape[-1:])
    layers = [
        _values(image[..., i], name, fills[i], limits[i] if limits else None, scale)
        for i, name in zip(chosen, names, strict=True)
    ]
    if len(layers) == 1:
        layers *= 3
    elif len(layers) == 2:
        (one, _), (other, _) = layers
        layers.append((one - other, (np.nan, np.nan)))
    elif image.dtype == np.uint8 and image.shape[-1] == 3 and not limits:
        every = np.concatenate([values[~np.isnan(values)] for values, _ in layers])
        layers = [(values, percentile_limits(every)) for values, _ in layers]
    return np.stack([_bytes(values, ends) for values, ends in layers], axis=-1)


def grey(
    band: np.ndarray, name: str = "", *, fill: float | None = None,
    limits: tuple[float, float] | None = None, scale: Sequence[float] = (),
) -> np.ndarray:  # fmt: skip
    """One band (H, W) as grey, uint8 (H, W)."""
    return _bytes(*_values(band, name, np.nan if fill is None else fill, limits, scale))


def _values(
    band: np.ndarray, name: str, fill: float, limits: tuple[float, float] | None,
    scale: Sequence[float],
) -> tuple[np.ndarray, tuple[float, float]]:  # fmt: skip
    """A band as float64 with NaN where it is invalid, and its limits, NaN for none; SAR's power in
    decibels."""
    with np.errstate(all="ignore"):
        lost = (band == float(fill)) | ~np.isfinite(band)
        real = np.abs(band) if _complex(band) else band
        values = np.where(lost, np.nan, real.astype(np.float64))
        ends = np.array([np.nan, np.nan] if limits is None else limits, float)
        if scale:
            values, ends = (x * scale[0] + scale[1] for x in (values, ends))
        # What goes below 0 is in decibels already.
        below = (values < 0).any() or (ends < 0).any()
        if _complex(band) or (_RADAR.search(name) and not below):
            values, ends = _decibels(values), _decibels(ends)
    return values, (float(ends[0]), float(ends[1]))


def _complex(band: np.ndarray) -> bool:
    return band.dtype.kind == "c"


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.where(power > 0, power, np.nan))


def _bytes(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values as 0 to 255 between limits; a band of one value is the middle grey, NaN is black."""
    known = ~np.isnan(values)
    if not np.isfinite(limits).all():
        limits = percentile_limits(values[known])
    low, high = limits
    if not high > low:
        return np.where(known, 128, 0).astype(np.uint8)
    shown = np.clip((values - low) / (high - low), 0, 1)
    return np.where(known, np.rint(np.nan_to_num(shown) * 255), 0).astype(np.uint8)


def percentile_limits(values: np.ndarray) -> tuple[float, float]:
    """What a stretch of finite values goes from and to; (0, 0) for none, equal for a constant."""
    values = _without_outcasts(_without_outcasts(values, np.min), np.max)
    if not len(values):
        return 0.0, 0.0
    low, high = np.percentile(values, PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    return float(low), float(high)


def _without_outcasts(values: np.ndarray, end: Any) -> np.ndarray:
    """Without the value at one end where it lies far off all the others, as nodata does that no
    header declares (-9999, -32768, -3.4e38)."""
    if not len(values):
        return values
    rest = values[values != end(values)]
    if not len(rest):
        return values
    spread = np.subtract(*np.percentile(rest, PERCENTILES[::-1]))
    gap = abs(float(end(rest)) - float(end(values)))
    return rest if 0 < 3 * spread < gap else values


def legend(
    mask: np.ndarray, ignore: Sequence[int] = (), names: Sequence[str] = ()
) -> list[tuple[int, str, str]]:
    """What a mask of classes holds: (value, name, colour as ``#rrggbb``), "" where it is not
    tinted: the background by its name, or 0 where classes have no names."""
    found = []
    for value in np.unique(mask[np.isfinite(mask)]).astype(int).tolist():
        name = names[value] if 0 <= value < len(names) else str(value)
        if value in ignore:
            found.append((value, f"{name} (ignored)", _IGNORED))
        else:
            plain = name == "background" if names else value == 0
            found.append((value, name, "" if plain else class_colour(value)))
    return found


def class_colour(value: int) -> str:
    """A class's colour, the same wherever it is drawn."""
    if 0 <= value < len(_PALETTE):
        return _PALETTE[value]
    # Turns of the golden ratio lie far from each other, however many there are.
    rgb = colorsys.hsv_to_rgb(value * 0.6180339887 % 1, 0.65, 0.85)
    return "#" + "".join(f"{round(255 * x):02x}" for x in rgb)


def overlay(
    rgb: np.ndarray, mask: np.ndarray, ignore: Sequence[int] = (), names: Sequence[str] = ()
) -> np.ndarray:
    """A picture tinted by a mask's classes, uint8 (H, W, 3); what is ignored is striped grey.

    Under a tint the picture is grey: false colours would mix with it.

    Args:
      rgb: uint8 (H, W, 3).
      mask: (H, W), class ids.
      ignore: ids that mean "do not learn from this".
      names: of classes, by id.
    """
    out, under = rgb.astype(np.float32), rgb.mean(axis=-1, dtype=np.float32)
    rows, cols = np.indices(mask.shape)
    stripes = (rows + cols) // max(1, mask.shape[0] // 64) % 4 < 2
    for value, _, colour in legend(mask, ignore, names):
        if colour:
            where = mask == value
            out[where] = under[where, None]
            where &= stripes if value in ignore else True
            tint = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
            out[where] = (1 - _ALPHA) * out[where] + _ALPHA * tint
    return np.rint(out).astype(np.uint8)

"""Cleaning a window of pixels: speckle, decibels, limits, features, the stored dtype, fill."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import SceneError
from .expressions import Expression
from .sections import Clean
from .speckle import lee

# Values are computed and converted so many at a time, so that what lies between takes no memory.
_STRIP_PIXELS = 1 << 16

FLOAT32 = np.dtype(np.float32)


def output_bands(config: Clean, inputs: Sequence[str]) -> tuple[str, ...]:
    """The bands of a cleaned scene: its own, then the features.

    Raises:
      ValueError: ``to_db``, ``clip`` or a feature names a band that there is not, or a feature
        has a band's name.
    """
    _check_known("to_db", config.to_db if isinstance(config.to_db, tuple) else (), inputs)
    _check_known("clip", config.clip if isinstance(config.clip, dict) else (), inputs)
    for name, text in config.features.items():
        if name in inputs:
            raise ValueError(f"features: {name} is a band already: give the feature another name")
        _check_known(f"features: {name}", sorted(Expression(text).bands), inputs)
    return (*inputs, *config.features)


def _check_known(where: str, names: Iterable[str], bands: Sequence[str]) -> None:
    for name in names:
        if name not in bands:
            near = difflib.get_close_matches(name, bands, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(bands)}"
            raise ValueError(f"{where}: there is no band {name!r}: {hint}")


def output_dtype(config: Clean, inputs_dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of cleaned pixels: as configured, else float32 for what is computed."""
    if config.dtype:
        return np.dtype(config.dtype)
    return FLOAT32 if config.computes else np.dtype(inputs_dtype)


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """A window, clean.

    Attributes:
      pixels: (bands, height, width), the features after the bands, in the stored dtype.
      valid: where every band is valid, bool (height, width); None for everywhere.
      marks: where each band is bad, and holds its fill, bool (height, width); None for nowhere.
      saturated: how many valid values the dtype could not hold, so that its limit is stored.
    """

    pixels: np.ndarray
    valid: np.ndarray | None
    marks: list[np.ndarray | None]
    saturated: int


class Cleaner:
    """Cleans the windows of one scene. Holds no pixels, so any thread may use it.

    Args:
      config: what to do.
      inputs: the scene's bands.
      dtype: what is stored, from ``output_dtype``.
      fills: what is stored for bad values, one for each of ``output_bands``, as stored: neither
        ``clip`` nor ``range`` is applied to it. Integers round it.

    Attributes:
      fills: what bad values hold, as stored, one a band.
      margin: how many more pixels a filter wants on each side of a window.

    Raises:
      ValueError: as ``output_bands``, or the dtype cannot hold a fill.
    """

    def __init__(
        self, config: Clean, inputs: tuple[str, ...], dtype: np.dtype[Any],
        fills: tuple[float, ...],
    ):  # fmt: skip
        output_bands(config, inputs)
        self._config, self._inputs, self._dtype = config, inputs, np.dtype(dtype)
        self.fills = [_held(fill, self._dtype) for fill in fills]
        self._features = [Expression(text) for text in config.features.values()]
        self._used = frozenset[str]().union(*(e.bands for e in self._features))
        self.margin = config.speckle.size // 2 if config.speckle else 0

    def __call__(
        self, pixels: np.ndarray, bad: np.ndarray | None,
        margins: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> Cleaned:  # fmt: skip
        """Cleans a window, in place where bands and dtype stay as they are.

        The order is: the speckle filter on power (on the bands of ``to_db`` if there are some),
        decibels, limits, features, the stored dtype, fill.

        Args:
          pixels: (bands, height, width); overwritten.
          bad: where there is no data (NaN and infinity included), the same shape; None for
            nowhere. It is not changed.
          margins: how many pixels more there are than wanted, at the top, bottom, left and right.

        Raises:
          SceneError: ``clip`` lets no value of the pixels' dtype pass.
        """
        stored, marks, saturated = self.unfilled(pixels, bad, margins)
        invalid = _either(marks)
        if invalid is None or not invalid.any():
            return Cleaned(stored, None, marks, saturated)
        for band, fill, mark in zip(stored, self.fills, marks, strict=True):
            if mark is not None:
                np.copyto(band, fill, where=mark)
        return Cleaned(stored, ~invalid, marks, saturated)

    def unfilled(
        self, pixels: np.ndarray, bad: np.ndarray | None,
        margins: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> tuple[np.ndarray, list[np.ndarray | None], int]:  # fmt: skip
        """All of it but the fill: the pixels as stored, where each band is bad (bool (height,
        width), or None for nowhere) and how many values were saturated. Bad values are anything.
        """
        top, bottom, left, right = margins
        inner = np.s_[top : pixels.shape[1] - bottom, left : pixels.shape[2] - right]
        out = pixels[:, *inner] if any(margins) else pixels
        in_place = pixels.dtype == self._dtype and not self._features
        if not in_place:
            bands = len(self._inputs) + len(self._features)
            out = np.empty((bands, *out.shape[1:]), self._dtype)
        marks: list[np.ndarray | None] = []
        saturated = 0
        cleaned: dict[str, np.ndarray] = {}
        for i, name in enumerate(self._inputs):
            values, mark, beyond = self._band(
                name, pixels[i], None if bad is None else bad[i], inner
            )
            marks.append(mark)
            saturated += beyond
            if self._config.range or not np.may_share_memory(values, out):
                saturated += _store(values, mark, out[i], self._config.range)
            if name in self._used:
                cleaned[name] = out[i] if out.dtype == FLOAT32 else values
        found = dict(zip(self._inputs, marks, strict=True))
        for i, expression in enumerate(self._features, len(self._inputs)):
            mark = _either(found[b] for b in expression.bands)
            mark, beyond = _feature(expression, cleaned, mark, out[i], self._config.range)
            marks.append(mark)
            saturated += beyond
        return out, marks, saturated

    def _band(
        self, name: str, band: np.ndarray, mark: np.ndarray | None, inner: tuple[slice, slice]
    ) -> tuple[np.ndarray, np.ndarray | None, int]:
        """One band's inner window up to its limits, where it is bad, and how many of its values
        float32 could not hold."""
        config, saturated = self._config, 0
        decibels = config.to_db is True or bool(config.to_db and name in config.to_db)
        speckle = config.speckle if decibels or not config.to_db else None
        if speckle is None:
            band, mark = band[inner], None if mark is None else mark[inner]
        if config.computes and band.dtype != FLOAT32:
            values = np.empty(band.shape, FLOAT32)
            saturated = _store(band, mark, values)
            band = values
        if decibels:
            # Before the filter, which would spread what has no power into what has.
            mark = _either((mark, _unless(band > 0)))
        if speckle is not None:
            band = lee(band, mark, speckle.size, speckle.looks)[inner]
            mark = None if mark is None else mark[inner]
        if decibels:
            with np.errstate(divide="ignore", invalid="ignore"):
                np.log10(band, out=band)
            band *= np.float32(10)
        clip = config.clip.get(name) if isinstance(config.clip, dict) else config.clip
        if clip is not None:
            low, high = _limits(clip, band.dtype)
            np.clip(band, low, high, out=band)
        return band, mark, saturated


def band_sums(
    pixels: np.ndarray, bad: Sequence[np.ndarray | None] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """What a scene's means are made of, window by window.

    Args:
      pixels: (bands, height, width).
      bad: where each band is bad, bool, as ``Cleaner.unfilled`` gives it; None for nowhere.

    Returns:
      The sums of each band's valid values, float64 (bands,), and how many there are, int64.
    """
    sums, counts = np.zeros(len(pixels)), np.zeros(len(pixels), np.int64)
    for i, band in enumerate(pixels):
        mark = None if bad is None else bad[i]
        good: Any = True if mark is None else ~mark
        sums[i] = band.sum(dtype=np.float64, where=good)
        counts[i] = band.size if mark is None else np.count_nonzero(good)
    return sums, counts


def _feature(
    expression: Expression, bands: Mapping[str, np.ndarray], mark: np.ndarray | None,
    out: np.ndarray, scale: tuple[float, float] | None,
) -> tuple[np.ndarray | None, int]:  # fmt: skip
    """Computes a feature into ``out``. Gives where it is bad, and how many are saturated."""
    computed = np.ones(out.shape, bool)
    saturated = 0
    for part in _strips(out.shape):
        values = expression({b: bands[b][part] for b in expression.bands})
        np.isfinite(values, out=computed[part])
        here = _either((None if mark is None else mark[part], _unless(computed[part])))
        saturated += _store(values, here, out[part], scale)
    return _either((mark, _unless(computed))), saturated


def _store(
    values: np.ndarray, mark: np.ndarray | None, out: np.ndarray,
    scale: tuple[float, float] | None = None,
) -> int:  # fmt: skip
    """Writes values in ``out``'s dtype, which may be their own memory.

    With a scale (low, high) these become the least and the greatest of an integer dtype, and
    what is between lies between. Integers are rounded, halves to even; what is then beyond the
    dtype's limits becomes the limit.

    Returns:
      How many values were beyond, those not counted that ``mark`` calls bad.
    """
    if scale is None and np.can_cast(values.dtype, out.dtype):
        out[...] = values
        return 0
    integer = np.issubdtype(out.dtype, np.integer)
    info: Any = np.iinfo(out.dtype) if integer else np.finfo(out.dtype)
    least, greatest = float(info.min), float(info.max)
    saturated = 0
    for part in _strips(values.shape):
        exact = values[part].astype(np.float64)
        if scale is not None:
            exact = (exact - scale[0]) / (scale[1] - scale[0]) * (greatest - least) + least
        if mark is not None:
            exact[mark[part]] = 0
        with np.errstate(over="ignore"):
            rounded = np.rint(exact) if integer else exact.astype(out.dtype)
        saturated += int(np.count_nonzero((rounded < least) | (rounded > greatest)))
        out[part] = np.clip(rounded, least, greatest)
    return saturated


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _STRIP_PIXELS // max(1, shape[1]))
    return (slice(top, top + rows) for top in range(0, shape[0], rows))


def _either(marks: Iterable[np.ndarray | None]) -> np.ndarray | None:
    """Where any of them is; None for nowhere."""
    given = [m for m in marks if m is not None]
    return functools.reduce(np.logical_or, given) if given else None


def _unless(good: np.ndarray) -> np.ndarray | None:
    return None if good.all() else ~good


def _held(fill: float, dtype: np.dtype[Any]) -> np.generic:
    """A fill in the stored dtype.

    Raises:
      ValueError: it does not fit.
    """
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        if not (math.isfinite(fill) and info.min <= round(fill) <= info.max):
            raise ValueError(
                f"fill {fill:g} does not fit {dtype}: give a value from {info.min} to {info.max}"
            )
        return dtype.type(round(fill))  # type: ignore[no-any-return]
    with np.errstate(over="ignore"):
        held: np.generic = np.float64(fill).astype(dtype)
    if np.isinf(held) and math.isfinite(fill):
        raise ValueError(
            f"fill {fill:g} does not fit {dtype}: give one up to {np.finfo(dtype).max:g}"
        )
    return held


def _limits(clip: tuple[float, float], dtype: np.dtype[Any]) -> tuple[np.generic, np.generic]:
    """Limits in the pixels' own dtype, so that clipping does not widen it.

    Raises:
      SceneError: no integer lies between them.
    """
    low, high = clip
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        low = info.min if low <= info.min else math.ceil(min(low, info.max + 1))
        high = info.max if high >= info.max else math.floor(max(high, info.min - 1))
        if low > high:
            raise SceneError(
                f"clip {list(clip)} lets no value of {dtype} pass: give the limits in the "
                "scene's own units, or set scale_offset",
                step="clean",
            )
    return dtype.type(low), dtype.type(high)

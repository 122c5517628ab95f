"""Counting one scene's numbers, patch by patch.

Each patch is summed on its own, in float64, and the patches' sums are added up without rounding, so
that neither the order of patches nor their grouping matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from .numbers import BUCKETS, Numbers, buckets_of, codes_of

# So many values are summed at a time, that they stay in the processor's cache in float64; and so
# many are counted, that a table of all buckets is little beside them.
_SUMMED, _COUNTED = 1 << 17, 1 << 18
# So many pixels behind each other are of a sample.
_RUN = 16
# Where the squares are so many times those about the mean, these are not told by a difference.
_NEAR = 1e4
# So many patches' sums are kept before they are added up.
_KEPT = 4096


class Tally:
    """Statistics of the bands of one scene, or of one column of numbers.

    Args:
      dtype: of the values.
      bands: how many there are.
      sampled: of patches without invalid values, count one of so many pixels by buckets, in place
        of them all. Sums, least and most are of all.
    """

    def __init__(self, dtype: str, bands: int, sampled: int = 1):
        self._dtype, self._bands, self._sampled = dtype, bands, sampled
        self._whole, self._sample = _Table(dtype, bands), _Table(dtype, bands)
        self._sums: list[np.ndarray] = []
        self._kept = 0
        # Of each band: count, sum and sum of squares, as Python's integers and fractions.
        self._exact = np.full((bands, 3), Fraction(0), object)
        self._least, self._most = np.full(bands, np.inf), np.full(bands, -np.inf)
        self._invalid = np.zeros(bands, np.int64)
        self._memory: dict[str, np.ndarray] = {}

    def add(self, values: np.ndarray, bad: np.ndarray | None = None) -> None:
        """Adds patches.

        Args:
          values: (patches, pixels, bands).
          bad: which values do not count, bool, the same shape; None for none of them.
        """
        self._count(values, bad)
        for part, gone in _strips(values, bad, _SUMMED):
            self._add_sums(part, gone)

    def _count(self, values: np.ndarray, bad: np.ndarray | None) -> None:
        """Counts values by buckets."""
        table, some = self._whole, self._sampled
        if some > 1 and bad is None and not values.shape[1] % (_RUN * some**2):
            table, values = self._sample, _sample(values, some)
        buckets = buckets_of(values)
        for band in range(self._bands):
            found = buckets[..., band]
            if bad is not None:
                self._invalid[band] += np.count_nonzero(bad[..., band])
                found = found[~bad[..., band]]
            table.add(band, found)

    def _lent(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Memory that the next strip uses again: its first touch costs more than a sum."""
        size = math.prod(shape)
        held = self._memory.get(name)
        if held is None or held.size < size:
            held = self._memory[name] = np.empty(size, dtype)
        return held[:size].reshape(shape)

    def add_images(self, values: np.ndarray, invalid: np.ndarray, fill: np.ndarray) -> None:
        """Adds patches whose invalid values hold ``fill``, and are told by their number alone.

        Valid values can equal the fill: which of those that equal it are meant makes no
        difference to any sum, so that the right number of them is added as valid.

        Args:
          values: (patches, pixels, bands).
          invalid: how many of each patch's values are, (patches, bands).
          fill: of each band, (bands,).

        Raises:
          ValueError: more values are said to be invalid than hold the fill.
        """
        partly = invalid.any(axis=1)
        if not partly.any():
            self.add(values)
            return
        self.add(values[~partly])
        values, invalid = values[partly], invalid[partly].astype(np.int64)
        held = fill.astype(values.dtype)
        bad = (values == held) | (np.isnan(values) & np.isnan(held)) if (
            values.dtype.kind == "f"
        ) else values == held  # fmt: skip
        valid = np.count_nonzero(bad, axis=1) - invalid
        if (valid < 0).any():
            raise ValueError("fewer values hold the fill than are invalid")
        self.add(values, bad)
        for band in range(self._bands):
            self._add_repeated(band, held[band], int(valid[:, band].sum()))

    def _add_repeated(self, band: int, value: Any, count: int) -> None:
        if not count:
            return
        self._invalid[band] -= count
        self._whole.repeat(band, buckets_of(np.array([value]))[0], count)
        sums = np.zeros((1, 3, self._bands))
        sums[0, 0, band], sums[0, 1, band] = count, float(value)
        self._keep(sums)
        self._least[band] = min(self._least[band], float(value))
        self._most[band] = max(self._most[band], float(value))

    def _add_sums(self, values: np.ndarray, bad: np.ndarray | None) -> None:
        """Each patch's count, mean, and sum of squares about it."""
        planes = self._lent("planes", (len(values), self._bands, values.shape[1]), np.float64)
        np.copyto(planes, values.transpose(0, 2, 1))
        gone = None if bad is None else bad.transpose(0, 2, 1)
        counts: Any = planes.shape[2]
        if gone is None:
            least, most = planes.min(axis=2), planes.max(axis=2)
        else:
            counts = counts - np.count_nonzero(gone, axis=2)
            least = np.where(gone, np.inf, planes).min(axis=2)
            most = np.where(gone, -np.inf, planes).max(axis=2)
            planes[gone] = 0
        sums = np.empty((len(planes), 3, self._bands))
        sums[:, 0] = counts
        sums[:, 1], sums[:, 2] = _moments(planes, gone, counts)
        self._keep(sums)
        self._least = np.minimum(self._least, least.min(axis=0))
        self._most = np.maximum(self._most, most.max(axis=0))

    def _keep(self, sums: np.ndarray) -> None:
        self._sums.append(sums)
        self._kept += len(sums)
        if self._kept >= _KEPT:
            self._add_up()

    def _add_up(self) -> None:
        if self._kept:
            sums = np.concatenate(self._sums)
            self._exact += [_added(*sums[:, :, band].T) for band in range(self._bands)]
            self._sums, self._kept = [], 0

    def numbers(self) -> list[Numbers]:
        """The statistics of each band."""
        self._add_up()
        return [self._numbers(band, *self._exact[band]) for band in range(self._bands)]

    def _numbers(self, band: int, count: int, total: Fraction, squares: Fraction) -> Numbers:
        count, invalid = int(count), int(self._invalid[band])
        if not count:
            return Numbers(invalid=invalid)
        least, most = float(self._least[band]), float(self._most[band])
        if least == most:  # no rounding in what has no spread
            total = Fraction(least) * count
            squares = Fraction(least) * total
        all_, some = self._whole.counts(band), self._sample.counts(band)
        table = all_ + self._sampled * some
        (buckets,) = np.nonzero(table)
        codes = codes_of(buckets, self._dtype)
        order = np.argsort(codes)
        return Numbers(
            count, invalid, total, squares, least, most,
            codes[order], table[buckets][order], int(all_.sum() + some.sum()),
        )  # fmt: skip


class _Table:
    """How often each bucket is there, by band. Values wait until there are many: each time a whole
    table is added."""

    def __init__(self, dtype: str, bands: int):
        size = np.dtype(dtype).itemsize
        self._counts = np.zeros((bands, 256 if size == 1 else BUCKETS), np.int64)
        self._dtype = np.uint8 if size == 1 else np.uint16
        self._waiting: dict[int, np.ndarray] = {}
        self._filled = [0] * bands
        self._places = np.empty(0, np.intp)  # bincount's own dtype

    def add(self, band: int, buckets: np.ndarray) -> None:
        if buckets.size > _COUNTED:
            flat = buckets.ravel()
            for start in range(0, len(flat), _COUNTED):
                self.add(band, flat[start : start + _COUNTED])
            return
        if self._filled[band] + buckets.size > _COUNTED:
            self._count(band)
        if band not in self._waiting:
            self._waiting[band] = np.empty(_COUNTED, self._dtype)
        first = self._filled[band]
        self._filled[band] += buckets.size
        room = self._waiting[band][first : self._filled[band]]
        np.copyto(room.reshape(buckets.shape), buckets)

    def repeat(self, band: int, bucket: int, count: int) -> None:
        """Adds one value that is there so often."""
        self._counts[band, bucket] += count

    def counts(self, band: int) -> np.ndarray:
        self._count(band)
        counts: np.ndarray = self._counts[band]
        return counts

    def _count(self, band: int) -> None:
        held = self._waiting.get(band, self._places)[: self._filled[band]]
        if len(self._places) < len(held):
            self._places = np.empty(_COUNTED, np.intp)
        places = self._places[: len(held)]
        np.copyto(places, held)
        self._counts[band] += np.bincount(places, minlength=self._counts.shape[1])
        self._filled[band] = 0


def _sample(values: np.ndarray, some: int) -> np.ndarray:
    """One of so many pixels of each patch (n, pixels, bands), a view (n, some, k, 16, bands): in each
    of so many parts of the patch another run of those that lie one behind the other."""
    patches, pixels, bands = values.shape
    runs = values.reshape(patches, some, pixels // (_RUN * some**2), some, _RUN, bands)
    return np.moveaxis(runs.diagonal(axis1=1, axis2=3), -1, 1)


def _strips(
    values: np.ndarray, bad: np.ndarray | None, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Whole patches, of about so many values at a time."""
    step = max(1, most // max(1, values[0].size)) if len(values) else 1
    for i in range(0, len(values), step):
        yield values[i : i + step], None if bad is None else bad[i : i + step]


def _moments(
    planes: np.ndarray, gone: np.ndarray | None, counts: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Means, and sums of squares about them, (n, bands).

    Args:
      planes: float64 (n, bands, pixels), 0 where values are gone.
      gone: which are, or None.
      counts: how many are not.
    """
    sums = planes.sum(axis=2)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ncp,ncp->nc", planes, planes)
        means = sums / np.maximum(counts, 1)
        about = squares - sums * means
        near = ~(squares <= _NEAR * about)  # also what is too large to be squared
    if near.any():
        apart = planes[near] - means[near][:, None]
        if gone is not None:
            apart[gone[near]] = 0
        about[near] = np.einsum("kp,kp->k", apart, apart)
    return means, about


def _added(
    counts: np.ndarray, means: np.ndarray, squares: np.ndarray
) -> tuple[int, Fraction, Fraction]:
    """Patches' values, their sum and that of their squares, from each patch's count, mean, and
    squares about the mean: added up exactly, by Python's integers."""
    n, (m, unit), (s, other) = (
        counts.astype(np.int64).astype(object),
        _whole(means),
        _whole(squares),
    )
    return n.sum(), (n * m).sum() * unit, (n * m * m).sum() * unit**2 + s.sum() * other


def _whole(values: np.ndarray) -> tuple[np.ndarray, Fraction]:
    """Float64 as Python's integers, and what these are multiples of.

    Raises:
      OverflowError: not finite.
    """
    if not np.isfinite(values).all():
        raise OverflowError("values above 1e153 are too large to be squared")
    parts, exponents = np.frexp(values)
    least = int(exponents.min())
    whole = np.ldexp(parts, 53).astype(np.int64).astype(object)
    return whole << (exponents - least).astype(object), Fraction(2) ** (least - 53)

"""Reading many small parts of remote files: neighbours by one request, requests at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ..loader.storage import file_system
from .errors import JobError, describe

# A request costs about as much as this many bytes (30 ms at 10 MB/s): gaps are read, not skipped.
GAP_BYTES = 256 << 10
RANGE_BYTES = 8 << 20  # of one request, at most
BATCH_BYTES = 32 << 20  # of the requests that are made at once: what is held in memory


@dataclasses.dataclass(frozen=True)
class Range:
    """One request: bytes ``start`` to ``end`` of ``url``. The parts that begin at ``offsets``,
    relative to ``start``, are wanted at ``places``."""

    url: str
    start: int
    end: int
    offsets: list[int]
    places: list[int]
    size: int


def ranges(url: str, offsets: np.ndarray, places: np.ndarray, size: int) -> Iterator[Range]:
    """The requests that read parts of a file.

    Args:
      url: the file.
      offsets: where the parts begin, int64 (N,), in any order.
      places: where each is wanted, int64 (N,).
      size: bytes of each.
    """
    order = np.argsort(offsets)
    offsets, places = offsets[order], places[order]
    for part in coalesced(offsets, size):
        start = int(offsets[part.start])
        inner = (offsets[part] - start).tolist()
        yield Range(url, start, start + inner[-1] + size, inner, places[part].tolist(), size)


def coalesced(offsets: np.ndarray, size: int) -> Iterator[slice]:
    """Which of sorted offsets one request reads: those with small gaps between.

    Args:
      offsets: int64 (N,), ascending.
      size: bytes at each.
    """
    first = 0
    for i in range(1, len(offsets) + 1):
        if i < len(offsets):
            gap = offsets[i] - offsets[i - 1] - size
            if gap <= GAP_BYTES and offsets[i] + size - offsets[first] <= RANGE_BYTES:
                continue
        yield slice(first, i)
        first = i


def fetch(wanted: Iterable[Range], store: Callable[[int, bytes], object]) -> None:
    """Makes the requests; ``store(place, data)`` gets each part.

    Raises:
      JobError: a file is missing, cannot be read or is cut off.
    """
    batch: list[Range] = []
    held = 0
    for each in wanted:
        batch.append(each)
        held += each.end - each.start
        if held >= BATCH_BYTES:
            _fetch_at_once(batch, store)
            batch, held = [], 0
    if batch:
        _fetch_at_once(batch, store)


def _fetch_at_once(batch: Sequence[Range], store: Callable[[int, bytes], object]) -> None:
    system, _ = file_system(batch[0].url)
    inner = {url: file_system(url)[1] for url in {r.url for r in batch}}
    paths = [inner[r.url] for r in batch]
    starts, ends = [r.start for r in batch], [r.end for r in batch]
    found = system.cat_ranges(paths, starts, ends, on_error="return")
    for each, data in zip(batch, found, strict=True):
        if isinstance(data, Exception) or len(data) != each.end - each.start:
            short = isinstance(data, bytes) and f"cut off before byte {each.end}"
            raise JobError(
                f"{each.url}: {short or f'cannot be read ({describe(data)})'}: if it is gone or "
                "damaged, remove it and its .npz, and convert again"
            )
        for at, place in zip(each.offsets, each.places, strict=True):
            store(place, data[at : at + each.size])

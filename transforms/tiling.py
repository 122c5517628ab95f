"""The patch grid: where patches lie in a scene, and the windows that are read to cut them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np


def offsets(length: int, size: int, stride: int, edge: str) -> np.ndarray:
    """Where patches begin along one axis, in pixels, int64.

    ``drop`` keeps whole patches; ``pad`` goes on until every pixel is covered; ``shift`` moves
    the last patch back so that it ends with the scene.
    """
    if edge != "pad" and length < size:
        return np.zeros(0, np.int64)
    whole = max(0, (length - size) // stride + 1)
    starts = np.arange(whole, dtype=np.int64) * stride
    rest = length - (int(starts[-1]) + size if whole else 0)
    if rest > 0 and edge == "shift":
        return np.append(starts, length - size)
    if rest > 0 and edge == "pad":
        more = -(-max(0, length - size) // stride) + 1
        padded = np.arange(more, dtype=np.int64) * stride
        return padded[padded < length]  # with gaps between patches, the next may begin outside
    return starts


@dataclasses.dataclass(frozen=True)
class Window:
    """A rectangle of pixels, and the patches cut from it (a run of grid rows and columns).

    ``height`` and ``width`` may reach past the scene where patches are padded.
    """

    row: int
    col: int
    height: int
    width: int
    rows: np.ndarray
    cols: np.ndarray

    @property
    def count(self) -> int:
        return len(self.rows) * len(self.cols)

    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """The patches' corners, row-major: two int32 arrays (count,)."""
        return _corners(self.rows, self.cols)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The patches of one scene."""

    height: int
    width: int
    size: int
    stride: int
    edge: str

    @property
    def rows(self) -> np.ndarray:
        return offsets(self.height, self.size, self.stride, self.edge)

    @property
    def cols(self) -> np.ndarray:
        return offsets(self.width, self.size, self.stride, self.edge)

    @property
    def count(self) -> int:
        return len(self.rows) * len(self.cols)

    @property
    def shape(self) -> tuple[int, ...]:
        """Patches down and across."""
        return len(self.rows), len(self.cols)

    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """All patches' corners, row-major: two int32 arrays (count,)."""
        return _corners(self.rows, self.cols)

    def windows(self, pixel_bytes: int, block: tuple[int, int], budget: int) -> Iterator[Window]:
        """Windows that together hold every patch once, each within about ``budget`` bytes, as
        are its patches.

        A window spans whole blocks of the file where the budget allows, so that no block is
        decoded twice; it is never smaller than one patch.

        Args:
          pixel_bytes: bytes of one pixel, all bands and labels.
          block: the file's (height, width) of a block.
          budget: bytes a window may take.
        """
        rows, cols = self.rows, self.cols
        if not len(rows) or not len(cols):
            return
        wanted = max(1, -(-block[0] // self.stride))
        across = min(len(cols), max(1, -(-block[1] // self.stride)))
        fits = self._most(budget // (self._span(across) * pixel_bytes))
        down = min(len(rows), max(1, min(wanted, fits)))
        across = min(len(cols), max(1, self._most(budget // (self._span(down) * pixel_bytes))))
        whole = max(1, -(-block[1] // self.stride))
        if whole < across < len(cols):
            across = across // whole * whole
        if across >= len(cols):
            spare = self._most(budget // (self._span(len(cols)) * pixel_bytes))
            down = min(len(rows), max(down, spare // wanted * wanted))
        # Where patches overlap, they take more than the pixels they are cut from.
        most = max(1, budget // (self.size**2 * pixel_bytes))
        across = min(across, most)
        down = min(down, max(1, most // across))
        for i in range(0, len(rows), down):
            for j in range(0, len(cols), across):
                yield self._window(rows[i : i + down], cols[j : j + across])

    def _span(self, patches: int) -> int:
        return (patches - 1) * self.stride + self.size

    def _most(self, pixels: int) -> int:
        """How many patches fit in that many pixels along one axis."""
        return (pixels - self.size) // self.stride + 1

    def _window(self, rows: np.ndarray, cols: np.ndarray) -> Window:
        row, col = int(rows[0]), int(cols[0])
        return Window(
            row, col, int(rows[-1]) + self.size - row, int(cols[-1]) + self.size - col, rows, cols
        )


@dataclasses.dataclass(frozen=True)
class Spots:
    """The patches of one scene where they are not a grid: one at each of some places.

    Attributes:
      rows, cols: the patches' corners, int64 (N,), in reading order.
      size: their side.
    """

    rows: np.ndarray
    cols: np.ndarray
    size: int

    @classmethod
    def around(
        cls, centres: Sequence[tuple[int, int]], height: int, width: int, size: int, edge: str
    ) -> Spots:
        """Patches with these pixels (row, column) in their middle, at ``size // 2``. Where one
        passes the scene's edge, ``drop`` leaves it out and ``pad`` keeps it; ``shift`` moves it
        inside, so that its point is no longer in the middle."""
        corners = np.array(sorted(set(centres)), np.int64).reshape(-1, 2) - size // 2
        most = np.array([height - size, width - size])
        if edge == "shift" and (most >= 0).all():
            corners = np.unique(np.clip(corners, 0, most), axis=0)
        elif edge != "pad":
            corners = corners[((corners >= 0) & (corners <= most)).all(axis=1)]
        return cls(corners[:, 0], corners[:, 1], size)

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows),)

    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """All patches' corners: two int32 arrays (count,)."""
        return self.rows.astype(np.int32), self.cols.astype(np.int32)

    def windows(self, pixel_bytes: int, block: tuple[int, int], budget: int) -> Iterator[Window]:
        """One window a patch."""
        for row, col in zip(self.rows, self.cols, strict=True):
            yield Window(int(row), int(col), self.size, self.size, np.array([row]), np.array([col]))


def cut(pixels: np.ndarray, window: Window, size: int, out: np.ndarray) -> None:
    """Copies a window's patches: (bands, height, width) into ``out`` (count, size, size, bands).

    One strided copy a band where patches lie edge to edge, one a patch otherwise.
    """
    bands = len(pixels)
    down, across = len(window.rows), len(window.cols)
    grid = out.reshape(down, across, size, size, bands)
    if _edge_to_edge(window.rows, size) and _edge_to_edge(window.cols, size):
        for band in range(bands):
            view = pixels[band].reshape(down, size, across, size)
            grid[..., band] = view.transpose(0, 2, 1, 3)
        return
    for i, r in enumerate((window.rows - window.row).tolist()):
        for j, c in enumerate((window.cols - window.col).tolist()):
            grid[i, j] = pixels[:, r : r + size, c : c + size].transpose(1, 2, 0)


def _edge_to_edge(starts: np.ndarray, size: int) -> bool:
    return bool((np.diff(starts) == size).all())


def _corners(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r, c = np.meshgrid(rows, cols, indexing="ij")
    return r.ravel().astype(np.int32), c.ravel().astype(np.int32)

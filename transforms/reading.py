"""Reading a scene window by window."""

from __future__ import annotations

import contextlib

import numpy as np

from .bands import BandReader, open_bands, scene_grid
from .config import Config
from .scenes import SceneFiles
from .tiling import Window


class SceneReader:
    """A scene's open files, read window by window into a buffer that is used again.

    Belongs to one thread. Use as a context manager.

    Attributes:
      grid: the grid that windows lie on.
      names: of the bands that are read.
      dtype: what they are read as.
      block: (height, width) of what is decoded at once, of the first file.
    """

    def __init__(self, scene: SceneFiles, config: Config, step: str = "read"):
        self._scene, self._config, self._step = scene, config, step
        self._stack = contextlib.ExitStack()
        self._buffer = np.empty(0, np.uint8)

    def __enter__(self) -> SceneReader:
        with contextlib.ExitStack() as stack:
            self.opened = open_bands(stack, self._scene, self._config, self._step)
            self.grid = scene_grid(self.opened, self._config)
            self._bands = [BandReader(stack, o, self._config, self.grid) for o in self.opened]
            self.names = tuple(n for b in self._bands for n in b.names)
            self.dtype = np.result_type(*(b.dtype for b in self._bands))
            self.block = self._bands[0].block
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, window: Window, margin: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels (bands, height, width), and where they are bad (bool, same shape) or None.

        Bad means nodata or masked out by the file's own metadata, not finite, or beyond the
        scene. The pixels' buffer is used again by the next call.

        Args:
          window: what to read.
          margin: so many pixels more on every side.

        Raises:
          SceneError: a block cannot be read.
        """
        row, col = window.row - margin, window.col - margin
        height, width = window.height + 2 * margin, window.width + 2 * margin
        top, left = max(row, 0), max(col, 0)
        bottom = max(top, min(row + height, self.grid.height))
        right = max(left, min(col + width, self.grid.width))
        pixels = self._lend((len(self.names), bottom - top, right - left))
        bad: np.ndarray | None = None
        if pixels.size:
            bad = self._read((top, left, bottom - top, right - left), pixels)
        if pixels.shape[1:] == (height, width):
            return pixels, bad
        whole = np.zeros((len(pixels), height, width), pixels.dtype)
        outside = np.ones(whole.shape, bool)
        inside = (slice(None), slice(top - row, bottom - row), slice(left - col, right - col))
        whole[inside], outside[inside] = pixels, False if bad is None else bad
        return whole, outside

    def _lend(self, shape: tuple[int, int, int]) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        if self._buffer.nbytes < size:
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size].view(self.dtype).reshape(shape)

    def _read(self, area: tuple[int, int, int, int], pixels: np.ndarray) -> np.ndarray | None:
        bad: np.ndarray | None = None
        band = 0
        for reader in self._bands:
            part = slice(band, band + len(reader.names))
            found = reader.read(area, pixels[part])
            if found is not None:
                bad = np.zeros(pixels.shape, bool) if bad is None else bad
                bad[part] |= found
            band += len(reader.names)
        if np.issubdtype(self.dtype, np.inexact):
            finite = np.isfinite(pixels)
            if not finite.all():
                bad = ~finite if bad is None else bad | ~finite
        return bad

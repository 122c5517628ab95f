"""What a label is: something that is burnt onto a scene's grid, window by window.

A kind of label is one class, derived from ``Label``: a section of the configuration that can say
what columns it adds to a record, and open itself for one scene. Kinds of others register under
the entry point group ``scenefeed.labels``.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping

import numpy as np

from ...loader.spec import Feature
from ..georeference import Georeference
from ..scenes import SceneFiles
from ..sections import Section
from ..tiling import Window, cut


class Burner(abc.ABC):
    """A label, open for one scene. Belongs to one thread.

    Attributes:
      tally: counts for scenes.jsonl and metrics.json, such as ignored pixels.
    """

    def __init__(self) -> None:
        self.tally: dict[str, int] = {}

    def count(self, name: str, number: int) -> None:
        self.tally[name] = self.tally.get(name, 0) + int(number)

    @abc.abstractmethod
    def patches(self, window: Window, out: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Fills the label's columns with a window's patches.

        Args:
          window: which patches; row-major, ``window.corners()`` gives where they begin.
          out: column name to an array (count, ...) to be filled whole.

        Returns:
          Which patches are labelled, bool (count,); None where all are.

        Raises:
          SceneError: the label cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing open
        """Lets go of files."""


class MaskBurner(Burner):
    """A label that is a mask: one value a pixel.

    Args:
      column: the name of its only column.
      size: a patch's side, pixels.
      ignore: values that do not label a pixel.
    """

    def __init__(self, column: str, size: int, ignore: tuple[int, ...] = ()):
        super().__init__()
        self._column, self._size, self._ignore = column, size, ignore

    @abc.abstractmethod
    def pixels(self, window: Window) -> np.ndarray:
        """The mask (height, width) of a window, which may reach beyond the scene."""

    def patches(self, window: Window, out: Mapping[str, np.ndarray]) -> np.ndarray | None:
        masks = out[self._column]
        cut(self.pixels(window)[None], window, self._size, masks[..., None])
        if not self._ignore:
            return None
        ignored = masks == self._ignore[0]
        for value in self._ignore[1:]:
            ignored |= masks == value
        number = int(np.count_nonzero(ignored))
        self.count(f"{self._column}_ignored", number)
        return ~ignored.reshape(len(masks), -1).all(axis=1) if number else None


class Label(Section):
    """The configuration of one label, and what it does. ``kind`` names it in the YAML."""

    def plan(
        self, name: str, scene: SceneFiles, where: Georeference, size: int
    ) -> dict[str, Feature]:
        """The columns that it adds, from headers alone: name to shape, dtype, kind, names.

        Args:
          name: the label's own name, the first of its columns'.
          scene: the scene, with its properties.
          where: the scene's grid.
          size: a patch's side, pixels.

        Raises:
          SceneError: it cannot be had for this scene.
        """
        raise NotImplementedError

    def open(
        self, name: str, scene: SceneFiles, where: Georeference, size: int,
        columns: Mapping[str, Feature],
    ) -> Burner:  # fmt: skip
        """Opens it for one scene. ``columns`` are as the whole dataset has them: dtypes hold every
        scene's values, names are every scene's."""
        raise NotImplementedError

    def centres(self, name: str, scene: SceneFiles, where: Georeference) -> np.ndarray | None:
        """Where patches are to be centred, (row, column) int64 (N, 2); None to leave the grid."""
        return None

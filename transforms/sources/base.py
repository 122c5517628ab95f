"""What a source is: one kind of input that scenes are found in and opened from.

Whatever it holds, it opens as a rasterio dataset: windows, masks, warping and every dtype then
work alike. Sources of others register under the entry point group ``scenefeed.sources``.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, ClassVar

from ..scenes import Asset, SceneFiles
from ..sections import Scenes
from ..storage import is_remote, size_of


class Source(abc.ABC):
    """One kind of input. Stateless: one instance serves all threads.

    Attributes:
      name: what ``Asset.source`` says of its files.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def claims(self, path: Path, head: bytes) -> bool:
        """Whether a file or folder is of this kind.

        Args:
          path: absolute.
          head: the file's first 512 bytes (suffixes lie); b"" for a folder.
        """

    @abc.abstractmethod
    def find(self, path: Path, scenes: Scenes) -> list[SceneFiles]:
        """The scenes in it, without opening any pixels.

        A scene that is known to be unusable is given with its ``problem`` set.

        Raises:
          ConfigError: nothing in it is as the configuration says.
        """

    def size(self, asset: Asset) -> int:
        """Bytes on disk, for rates."""
        if is_remote(asset.path):
            return size_of(asset.path)
        path = Path(asset.path)
        if path.is_dir():
            return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        return path.stat().st_size

    @abc.abstractmethod
    def open(self, asset: Asset) -> Any:
        """A rasterio dataset, opened for reading in this thread.

        Raises:
          OSError, ValueError, rasterio.errors.RasterioError: it cannot be opened; the caller puts
            the message in one line.
        """

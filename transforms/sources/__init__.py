"""Kinds of input, one file each.

``SOURCES`` maps a source's name to it, in the order in which they are asked whether a file is
theirs: those that others register under the entry point group ``scenefeed.sources`` first, ours
next, and last what GDAL reads, which takes anything.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from ..errors import ConfigError
from ..storage import is_remote, read_range
from .arrays import NumpySource
from .base import Source
from .raster import RasterSource
from .safe import SafeSource
from .table import TableSource

HEAD_BYTES = 512
_LOCAL_ONLY = frozenset((".npy", ".npz", ".zip", ".safe"))

SOURCES: dict[str, Source] = {
    entry.name: entry.load()() for entry in metadata.entry_points(group="scenefeed.sources")
}
SOURCES |= {s.name: s for s in (SafeSource(), NumpySource(), TableSource(), RasterSource())}


def read_head(path: Path) -> bytes:
    """The first bytes of a file; none of a folder, or of what cannot be read."""
    if is_remote(path):
        return read_range(str(path), 0, HEAD_BYTES)
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def source_of(path: Path) -> Source:
    """The source that a file or folder belongs to, told by its content; what is remote is told
    by its name, since asking for each of 10,000 files' beginnings takes minutes.

    Raises:
      ConfigError: a remote file that is read whole, not by ranges.
    """
    if is_remote(path):
        if path.suffix.lower() in _LOCAL_ONLY:
            raise ConfigError(f"{path}: {path.suffix} files are read from local disks only")
        return SOURCES["raster"]
    head = read_head(path)
    return next(s for s in SOURCES.values() if s.claims(path, head))


__all__ = ["SOURCES", "Source", "read_head", "source_of"]

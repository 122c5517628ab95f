"""Which way a feed reads a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from .options import Options
from .records import Draw, Paths, Records
from .spec import DatasetError, DatasetSpec
from .storage import is_remote, open_file
from .stream import Opener, Stream

SOURCES = ("auto", "index", "stream", "stage")


def drawn_from(
    path: Paths, split: str | None, source: str, options: Options, opener: Opener = open_file
) -> Draw:
    """What the feed's batches are made of.

    Raises:
      DatasetError: an unknown source, the dataset cannot be read, or an option does not fit.
    """
    if source not in SOURCES:
        raise DatasetError(f"source {source!r}: one of {', '.join(SOURCES)}")
    if source == "auto":
        source = _fitting(path, options)
    if source == "stream":
        return Stream(path, split, options, opener)
    return Records(path, split, options, stage=source == "stage")


def _fitting(path: Paths, options: Options) -> str:
    """The index where records can be found by offset cheaply."""
    first = path if not isinstance(path, Sequence) or isinstance(path, str) else path[0]
    local = not is_remote(first) and DatasetSpec.load(first).compression == "none"
    return "index" if local or options.cache is not None else "stream"

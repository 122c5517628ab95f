"""Tables of text with a header line: CSV, with commas, semicolons or tabs."""

from __future__ import annotations

import csv
import dataclasses
import functools

from ..errors import SceneError
from ..storage import local_copy, stamps

SUFFIXES = (".csv", ".tsv", ".txt")


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A table's text, row by row; rows may be shorter than the header."""

    path: str
    header: tuple[str, ...]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """A column's text, "" where a row ends before it."""
        i = self.header.index(name)
        return [row[i].strip() if i < len(row) else "" for row in self.rows]


def stamp(path: str) -> str:
    """What tells a file from an older one, so that a cache lets go of a file that changed.

    Raises:
      SceneError: there is no such file.
    """
    found = stamps([path]).get(path)
    if found is None:
        reason = "cannot be read (No such file or directory): mend the label's path"
        raise SceneError(reason, step="label", file=path)
    return found


def read_table(path: str) -> Table:
    """Reads a table, or has it from the last time; the delimiter is what the header has most of.

    Raises:
      SceneError: there is none, or it is not UTF-8 text with a header.
    """
    return _read(path, stamp(path))


@functools.lru_cache(maxsize=4)
def _read(path: str, _stamp: str) -> Table:
    try:
        with local_copy(path) as local, open(local, newline="", encoding="utf-8-sig") as f:
            head = f.readline()
            f.seek(0)
            rows = [r for r in csv.reader(f, delimiter=max(",;\t", key=head.count)) if any(r)]
    except (UnicodeDecodeError, csv.Error, OSError) as e:
        raise SceneError(
            f"is no CSV table ({e}): save it as CSV in UTF-8", step="label", file=path
        ) from None
    if not rows:
        raise SceneError("is empty: give a CSV table with a header", step="label", file=path)
    return Table(path, tuple(name.strip() for name in rows[0]), rows[1:])

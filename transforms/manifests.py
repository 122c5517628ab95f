"""Tables that list scenes: CSV, JSON lines, JSON, GeoJSON and STAC items."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import json
import math
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .sections import Columns
from .stac import is_item, item_files
from .storage import SCHEMES, is_remote
from .values import Value, as_text, epoch_seconds, parse_time, typed

__all__ = ["Row", "epoch_seconds", "is_manifest", "parse_time", "read_manifest"]

_TABLES = frozenset((".csv", ".tsv"))
_LINES = frozenset((".jsonl", ".ndjson"))
_DOCUMENTS = frozenset((".json", ".geojson"))
MANIFEST_SUFFIXES = _TABLES | _LINES | _DOCUMENTS

# What columns are called where the configuration does not say.
_IDS = ("id", "scene_id")
_PATHS = ("path", "file", "filename", "image", "href")
_TIMES = ("time", "datetime", "date", "acquired")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclasses.dataclass(frozen=True)
class Row:
    """One scene of a manifest.

    Attributes:
      id: as the manifest says; None where it does not.
      path: the file with all bands, absolute; None where each band has its own.
      bands: band name to file, absolute; empty where one file has all.
      properties: the other columns; ``time`` is ISO 8601, UTC, where it is known.
      line: where it stands: the line of a table or of JSON lines, else the entry's number, from 1.
      problem: why it cannot be used; "" where it can.
    """

    id: str | None
    path: str | None
    bands: dict[str, str]
    properties: dict[str, Value]
    line: int
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """One row as it is read: column to value, text throughout if ``untyped``."""

    line: int
    values: dict[str, Any]
    untyped: bool = False
    problem: str = ""


def is_manifest(path: Path, head: bytes) -> bool:
    """Whether a file lists scenes.

    Args:
      path: its suffix must be a manifest's.
      head: its first bytes, which must agree.
    """
    suffix, text = path.suffix.lower(), head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if suffix in _TABLES:
        return bool(text) and b"\0" not in head
    if suffix in _LINES:
        return text.lstrip(b"\x1e").startswith(b"{")
    if suffix not in _DOCUMENTS or not text.startswith((b"{", b"[")):
        return False
    try:  # what kind of document it is may stand at its end
        return _entries(json.loads(path.read_bytes())) is not None
    except (OSError, ValueError):
        return suffix == ".geojson"  # so that reading it says what is wrong


def read_manifest(path: Path, columns: Columns, bands: tuple[str, ...] | None) -> list[Row]:
    """A manifest's rows, in its order. Files are not looked for.

    Args:
      path: absolute.
      columns: which columns say what, where they are not called as by default.
      bands: the bands that are wanted: columns or assets of these names hold their files.

    Raises:
      ConfigError: it cannot be read, is empty, lacks a column, or names no files at all.
    """
    if path.suffix.lower() in _TABLES:
        records, assets = _read_table(path), []
    else:
        entries = list(_read_entries(path))
        records = [Record(line, dict(_values(e))) for line, e in entries]
        assets = [e["assets"] if is_item(e) else {} for _, e in entries]
    if not records:
        raise ConfigError(f"{path}: lists no scene: write one a row below the column names")
    if any(assets):
        rows = _stac_rows(path, records, assets, columns, bands)
    else:
        rows = _plain_rows(path, records, columns, bands)
    if all(not row.path and not row.bands for row in rows):
        raise ConfigError(f"{path}:{rows[0].line}: {rows[0].problem}, nor does any other row")
    return rows


# Rows


def _plain_rows(
    path: Path, records: list[Record], columns: Columns, bands: tuple[str, ...] | None
) -> list[Row]:
    header = list(dict.fromkeys(name for record in records for name in record.values))
    named = (columns.id, columns.path, columns.time, *(columns.bands or {}).values())
    _need_columns(path, header, *named)
    id_column = columns.id or _first(header, _IDS)
    band_columns = dict(columns.bands or {}) or _band_columns(path, records, header, columns, bands)
    path_column = None if band_columns else columns.path or _first(header, _PATHS)
    if not band_columns and path_column is None:
        raise ConfigError(
            f"{path}: no column holds the scenes' files (it has {', '.join(header)}): "
            "call it path, or name it in scenes.columns.path"
        )
    rows = []
    for record in records:
        left, problem = dict(record.values), record.problem
        scene_id, file = (_text(left.pop(c, None)) if c else None for c in (id_column, path_column))
        files = {b: _text(left.get(c)) for b, c in band_columns.items()}
        for column in band_columns.values():
            left.pop(column, None)
        missing = [b for b, f in files.items() if not f]
        if path_column and not file:
            problem = problem or f"names no file in column {path_column}"
        elif missing:
            problem = problem or f"names no file for band {', '.join(missing)}"
        left = {k: typed(v) if record.untyped else v for k, v in left.items()}
        given = {b: f for b, f in files.items() if f}
        rows.append(_row(path, record.line, scene_id, file, given, left, columns, problem))
    return rows


def _band_columns(
    path: Path, records: list[Record], header: list[str], columns: Columns,
    bands: tuple[str, ...] | None,
) -> dict[str, str]:  # fmt: skip
    """The wanted bands' columns, if there is one for each, and they hold files: beside a column of
    paths, ``vv`` may as well hold a mean backscatter."""
    wanted = bands or ()
    if columns.path or not any(b in header for b in wanted):
        return {}
    if _first(header, _PATHS):
        found = [r.values.get(b) for r in records for b in wanted]
        found = [typed(v) if isinstance(v, str) else v for v in found]
        numbers = any(isinstance(v, int | float) for v in found)
        if numbers or any(b not in header for b in wanted):
            return {}
    _need_columns(path, header, *wanted)
    return {b: b for b in wanted}


def _stac_rows(
    path: Path, records: list[Record], assets: list[Mapping[str, Any]], columns: Columns,
    bands: tuple[str, ...] | None,
) -> list[Row]:  # fmt: skip
    """Rows of STAC items; ``columns.path`` and ``columns.bands`` name assets."""
    header = list(dict.fromkeys(name for record in records for name in record.values))
    _need_columns(path, header, columns.id, columns.time)
    keys = list(dict.fromkeys(key for item in assets for key in item))
    _need_columns(path, keys, columns.path, *(columns.bands or {}).values(), kind="asset")
    rows = []
    for record, item in zip(records, assets, strict=True):
        left = dict(record.values)
        scene_id = _text(left.pop(columns.id or "id", None))
        file, files, problem = item_files(item, columns, bands)
        rows.append(_row(path, record.line, scene_id, file, files, left, columns, problem))
    return rows


def _row(
    manifest: Path, line: int, scene_id: str | None, file: str | None, bands: dict[str, str],
    properties: dict[str, Value], columns: Columns, problem: str,
) -> Row:  # fmt: skip
    """Files made absolute, the time made ISO."""
    names = [columns.time] if columns.time else _all(properties, _TIMES)
    given = {n: v for n in names if (v := properties.get(n)) is not None}
    times = {n: t for n, v in given.items() if (t := parse_time(v)) is not None}
    if columns.time and given and not times:
        said = given[columns.time]
        problem = problem or f"its {columns.time} {said!r} is no date: write it as 2018-07-01"
    chosen = next(iter(times), "time")
    left = {k: v for k, v in properties.items() if k not in (chosen, "time")}
    if times:
        left["time"] = times[chosen]
    located = {b: _locate(manifest.parent, f) for b, f in bands.items()}
    path = _locate(manifest.parent, file) if file else None
    remote = [f for f in (path, *located.values()) if f and is_remote(f)]
    unknown = [f for f in remote if f.split("://", 1)[0] not in SCHEMES]
    if unknown and not problem:
        problem = f"cannot be reached (known are s3://, gs:// and hdfs://): download {unknown[0]}"
    return Row(scene_id, path, located, left, line, problem)


def _locate(folder: Path, file: str) -> str:
    """An absolute path; a URL as it is."""
    if file.casefold().startswith("file://"):
        file = urllib.parse.unquote(urllib.parse.urlsplit(file).path)
    elif _URL.match(file):
        return file
    if is_remote(folder):
        return str(folder / file)
    return os.path.abspath(os.path.join(folder, os.path.expanduser(file)))


def _need_columns(path: Path, header: list[str], *names: str | None, kind: str = "column") -> None:
    for name in names:
        if name is not None and name not in header:
            near = difflib.get_close_matches(name, header, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(header)}"
            raise ConfigError(f"{path}: no {kind} {name!r}: {hint}")


def _first(header: list[str], names: Iterable[str]) -> str | None:
    return next(iter(_all(header, names)), None)


def _all(header: Iterable[str], names: Iterable[str]) -> list[str]:
    """The columns of these names, in the names' order; case does not count."""
    columns = list(header)
    return [c for n in names for c in sorted(columns, key=n.__ne__) if c.casefold() == n]


# Reading


def _read_table(path: Path) -> list[Record]:
    """The records of CSV; columns without a name are left out."""
    text = _read_text(path)
    first = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").split("\n", 1)[0])
    delimiter = max("\t,;" if path.suffix.lower() == ".tsv" else ",;\t", key=first.count)
    csv.field_size_limit(1 << 30)  # outlines of scenes pass the default of 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    records, end = [], 0
    try:
        for fields in reader:
            line, end = end + 1, reader.line_num
            if not any(f.strip() for f in fields):
                continue
            if not header:
                header = [f.strip() for f in fields]
                continue
            spare = len(fields) - len(header)
            problem = f"has {len(fields)} fields, and the header {len(header)}" if spare > 0 else ""
            pairs = zip(header, fields + [""] * -spare, strict=False)
            records.append(Record(line, {k: v for k, v in pairs if k}, True, problem))
    except csv.Error as e:
        raise ConfigError(f"{path}:{reader.line_num}: not CSV: {e}") from None
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise ConfigError(f"{path}: two columns are called {twice!r}: rename one")
    return records


def _read_entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of JSON lines, or (number, object) of a JSON document."""
    text = _read_text(path)
    if path.suffix.lower() not in _LINES:
        entries = _entries(_parse_json(text, str(path)))
        if entries is None:
            raise ConfigError(
                f"{path}: not a manifest: it holds no list of objects, no GeoJSON features and no "
                "STAC items"
            )
        yield from enumerate(entries, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r\x1e")  # RFC 8142 begins each with a record separator
        if line:
            entry = _parse_json(line, f"{path}:{number}")
            if not isinstance(entry, dict):
                raise ConfigError(f"{path}:{number}: not a JSON object: write one scene a line")
            yield number, entry


def _entries(document: Any) -> list[dict[str, Any]] | None:
    """The scenes of a JSON document; None where it is none that lists scenes."""
    if isinstance(document, dict):
        kind = document.get("type")
        if kind == "Feature":
            return [document]
        document = (
            document.get("features") if kind in ("FeatureCollection", "ItemCollection") else None
        )
    if isinstance(document, list) and all(isinstance(e, dict) for e in document):
        return document
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}: give the path of a manifest") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text: save it as UTF-8") from None


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise ConfigError(f"{where}: not JSON: {e}") from None


# Values


def _values(entry: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """The columns of one JSON entry; of a feature, its properties and id."""
    if entry.get("type") != "Feature":
        yield from _flat(entry)
        return
    properties = dict(entry.get("properties") or {})
    if is_item(entry) and properties.get("datetime") is None:
        # STAC: datetime is null where a range is given.
        properties["datetime"] = properties.get("start_datetime")
    yield from _flat(properties)
    if entry.get("id") is not None:
        yield "id", str(entry["id"])


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    """Nested keys joined by dots; lists are dropped, numbers that are none are None."""
    for key, v in value.items():
        if isinstance(v, dict):
            yield from _flat(v, f"{prefix}{key}.")
        elif not isinstance(v, list):
            yield prefix + key, None if isinstance(v, float) and not math.isfinite(v) else v


def _text(value: Value) -> str | None:
    """An id or a path: text as it stands, whole numbers without a point."""
    if value is None:
        return None
    return (value.strip() if isinstance(value, str) else as_text(value)) or None

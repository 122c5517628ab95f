"""A table of small images: JSON records that hold their pixels, as in the Statoil/C-CORE iceberg
challenge (https://www.kaggle.com/c/statoil-iceberg-classifier-challenge/data).

A JSON array of objects, or one object a line. Lists of numbers are bands (square and row-major, or
lists of rows); plain values are properties.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import json
import math
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ..scenes import Asset, Properties, SceneFiles
from ..sections import Scenes
from .base import Source
from .memory import in_memory

MAX_RECORD = 16 << 20  # bytes of text
# Shorter lists are no images: a bounding box has 4 numbers, a geotransform up to 16.
MIN_SIDE = 5
_NO_VALUE = ("", "na", "nan")
# Types of GeoJSON and STAC objects: their lists of numbers are coordinates.
_GEOGRAPHIC = frozenset(
    "Feature FeatureCollection Catalog Collection Point MultiPoint LineString MultiLineString "
    "Polygon MultiPolygon GeometryCollection".split()
)
_BOM = b"\xef\xbb\xbf"
_BETWEEN = re.compile(rb"[\s,\[\]]*")  # what may lie between records
_BORDER = re.compile(rb'[,}\n]\s*(?=\{\s*")')  # what looks like the end of one and a next
_DECODER = json.JSONDecoder()


class TableSource(Source):
    """One scene a record; ``Asset.part`` is its place in the file, ``start:end`` in bytes."""

    name = "table"

    def claims(self, path: Path, head: bytes) -> bool:
        if head.removeprefix(_BOM).lstrip()[:1] not in (b"[", b"{"):
            return False
        with path.open("rb") as file:
            records = _records(file.read(MAX_RECORD))
        first = next((r.content for r in records if not r.fault), {})
        kind = first.get("type")
        geographic = isinstance(kind, str) and kind in _GEOGRAPHIC
        return not geographic and bool(_bands(first)[0])

    def find(self, path: Path, scenes: Scenes) -> list[SceneFiles]:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = [_summary(r, scenes.columns.id or "id") for r in _records(data)]
        # What most records hold is what each should.
        most = collections.Counter(s.bands for s in found if s.bands).most_common(1)
        bands = most[0][0] if most else ()
        if isinstance(scenes.bands, tuple) and set(scenes.bands) <= set(bands):
            bands = scenes.bands
        return [
            SceneFiles(
                s.id or f"{path.stem}_{number}", (Asset(str(path), s.part, self.name),),
                properties=s.properties, problem=s.problem(bands),
            )
            for number, s in enumerate(found)
        ]  # fmt: skip

    def open(self, asset: Asset) -> Any:
        start, end = map(int, asset.part.split(":"))
        with open(asset.path, "rb") as file:
            file.seek(start)
            bands, faults = _bands(_parsed(file.read(end - start)))
        if not bands or len({b.shape for b in bands.values()}) > 1:
            raise ValueError(f"holds no bands of one shape: {_listed(faults)}")
        return in_memory(np.stack(list(bands.values())).astype(np.float32), tuple(bands))

    def size(self, asset: Asset) -> int:
        start, end = map(int, asset.part.split(":"))
        return end - start


def _parsed(text: bytes) -> Any:
    """orjson is several times as fast, and refuses NaN, which JSON does not have."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


@dataclasses.dataclass(frozen=True)
class _Record:
    """A record, and where it is: bytes ``start`` to ``end``. ``fault`` says what is wrong with
    its JSON; its content is then what could be told."""

    start: int
    end: int
    content: dict[str, Any]
    fault: str = ""


def _records(data: bytes | mmap.mmap) -> Iterator[_Record]:
    """A file's records in order. A damaged one ends where the next seems to begin.

    Text is decoded as Latin-1, a character a byte: JSON's own signs are ASCII, and so characters
    count as bytes.
    """
    size = len(data)
    begin, text, fault = 0, "", ""
    at = len(_BOM) if data[:3] == _BOM else 0
    array_opened = data[at : at + 512].lstrip()[:1] == b"["
    while (at := _skip(data, at)) < size:
        if at >= begin + len(text):
            begin, text = at, data[at : at + MAX_RECORD].decode("latin-1")
        try:
            content, end = _DECODER.raw_decode(text, at - begin)
            end += begin
            if not isinstance(content, dict):
                raise ValueError("is not an object")
            if not text[at - begin : end - begin].isascii():
                content = json.loads(data[at:end])
            fault = ""
        except (ValueError, RecursionError) as e:
            if begin < at and begin + len(text) < size:  # the window may have cut it off
                begin, text = at, data[at : at + MAX_RECORD].decode("latin-1")
                continue
            where = begin + getattr(e, "pos", at - begin)
            fault = f"is damaged at byte {where}: {getattr(e, 'msg', e)}"
            end = _border(data, at, where)
            content = _told(data[at : min(end, at + MAX_RECORD)])
        yield _Record(at, end, content, fault)
        at = end
    if array_opened and not fault and data[-512:].rstrip()[-1:] != b"]":
        yield _Record(size, size, {}, "is missing: the file ends without its closing bracket")


def _skip(data: bytes | mmap.mmap, at: int) -> int:
    match = _BETWEEN.match(data, at)
    return match.end() if match else at


def _border(data: bytes | mmap.mmap, start: int, error: int) -> int:
    """Where the record after a damaged one begins. The error may be found in that one's first
    character, behind the border."""
    before = max(start, error - 512)
    match = _BORDER.search(data, max(before, before + len(data[before:error].rstrip()) - 1))
    return match.end() if match else len(data)


def _told(damaged: bytes) -> dict[str, Any]:
    """The plain values of a damaged record that can still be made out."""
    found = {}
    pattern = rb'("(?:[^"\\]|\\.)*")\s*:\s*("(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*)(?=\s*[,}])'
    for match in re.finditer(pattern, damaged):
        try:
            found[json.loads(match.group(1))] = json.loads(match.group(2))
        except ValueError:
            continue
    return found


def _bands(content: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A record's images (height, width), float64, and why its other lists are none."""
    bands, faults = {}, {}
    for key, value in content.items():
        if isinstance(value, list) and value:
            try:
                bands[key] = _image(value)
            except (TypeError, ValueError, OverflowError) as e:
                faults[key] = str(e)
    return bands, faults


def _image(values: list[Any]) -> np.ndarray:
    """Numbers, or rows of numbers, as (height, width).

    Raises:
      TypeError, ValueError, OverflowError: they are not numbers, or make no rectangle.
    """
    # An array takes numbers only, where NumPy would read text as one.
    if not isinstance(values[0], list):
        side = math.isqrt(len(values))
        if side * side != len(values):
            raise ValueError(f"has {len(values)} values, which make no square")
        image = np.asarray(array.array("d", values)).reshape(side, side)
    else:
        rows = [array.array("d", row) for row in values]
        widths = sorted({len(row) for row in rows})
        if len(widths) > 1:
            raise ValueError(f"has rows of {widths[0]} and of {widths[-1]} values")
        image = np.asarray(rows)
    if min(image.shape) < MIN_SIDE:
        raise ValueError(f"is {image.shape[0]} x {image.shape[1]}, too small for an image")
    return image


@dataclasses.dataclass(frozen=True)
class _Summary:
    """What is kept of a record: everything but its pixels."""

    id: str
    part: str
    properties: Properties
    bands: tuple[str, ...]
    shapes: frozenset[tuple[int, ...]]
    faults: dict[str, str]
    fault: str

    def problem(self, wanted: tuple[str, ...]) -> str:
        """Why it cannot be used; "" where it can."""
        missing = {b: self.faults.get(b, "is missing") for b in wanted if b not in self.bands}
        if self.fault:
            return f"record {self.part} {self.fault}"
        if missing or not self.bands:
            return f"record {self.part}: {_listed(missing)}"
        if len(self.shapes) > 1:
            return f"record {self.part}: bands of shapes {', '.join(map(str, sorted(self.shapes)))}"
        return ""


def _summary(record: _Record, id_key: str) -> _Summary:
    bands, faults = _bands(record.content)
    id_value = record.content.get(id_key)
    return _Summary(
        id=str(id_value) if isinstance(id_value, str | int) else "",
        part=f"{record.start}:{record.end}",
        properties={k: _plain(v) for k, v in record.content.items()
                    if k != id_key and not isinstance(v, list | dict)},
        bands=tuple(bands), shapes=frozenset(b.shape for b in bands.values()),
        faults=faults, fault=record.fault,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """A property's value; None for what stands for none."""
    if isinstance(value, str) and value.strip().lower() in _NO_VALUE:
        return None
    return None if isinstance(value, float) and math.isnan(value) else value


def _listed(faults: dict[str, str]) -> str:
    return "; ".join(f"{band} {why}" for band, why in faults.items()) or "no list is an image"

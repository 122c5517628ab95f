"""NumPy's .npy and .npz (format: numpy.lib.format), read window by window where they lie.

GDAL has no driver for them, but its raw VRT bands read any file whose pixels lie at even distances
(https://gdal.org/en/stable/drivers/raster/vrt.html#vrt-descriptions-for-raw-files). What they
cannot read goes through memory.
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.lib import format as npy

from ..scenes import Asset, SceneFiles
from ..sections import Scenes
from .base import Source
from .memory import in_memory

MAX_LOADED = 1 << 30  # bytes
_NUMBERS = "biufc"  # kinds of dtypes

_GDAL_TYPES = {
    "bool": "Byte", "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16",
    "uint32": "UInt32", "int32": "Int32", "uint64": "UInt64", "int64": "Int64",
    "float32": "Float32", "float64": "Float64", "complex64": "CFloat32", "complex128": "CFloat64",
}  # fmt: skip
# Of the dtypes that GDAL lacks, those that have a wider one.
_WIDER = {"float16": np.float32, "bool": np.uint8, "longdouble": np.float64,
          "float128": np.float64, "clongdouble": np.complex128, "complex256": np.complex128}  # fmt: skip


class NumpySource(Source):
    """One scene a file; ``Asset.part`` is the name of an array in a .npz."""

    name = "numpy"

    def claims(self, path: Path, head: bytes) -> bool:
        if head.startswith(npy.MAGIC_PREFIX):
            return True
        if not head.startswith(b"PK\x03\x04"):
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return False
        return bool(members) and all(m.endswith(".npy") for m in members)

    def find(self, path: Path, scenes: Scenes) -> list[SceneFiles]:
        with path.open("rb") as file:
            alone = file.read(6) == npy.MAGIC_PREFIX
        if alone:
            return [SceneFiles(path.stem, (Asset(str(path), "", self.name),))]
        bands: tuple[str, ...] = ()
        try:
            names, bands = _chosen(_images(path), scenes)
        except (OSError, ValueError, zipfile.BadZipFile) as e:
            whole = (Asset(str(path), "", self.name),)
            return [SceneFiles(path.stem, whole, problem=" ".join(str(e).split()))]
        return [SceneFiles(path.stem, tuple(Asset(str(path), n, self.name) for n in names), bands)]

    def open(self, asset: Asset) -> Any:
        array = _locate(asset)
        if array.mapped:
            with rasterio.Env(GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE="ALL"):
                return rasterio.open(_raw_vrt(array, asset.part))
        return in_memory(_load(asset, array), (asset.part,) if array.grid[0] == 1 else ())


@dataclasses.dataclass(frozen=True)
class _Array:
    """An array as its header has it, and where its values are.

    Attributes:
      path: the file as GDAL calls it.
      offset: of the first value, bytes.
    """

    path: str
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def bands_last(self) -> bool:
        return len(self.shape) == 3 and self.shape[-1] <= self.shape[0]

    @property
    def grid(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        if len(self.shape) == 2:
            return (1, *self.shape)
        a, b, c = self.shape
        return (c, a, b) if self.bands_last else (a, b, c)

    @property
    def mapped(self) -> bool:
        """Whether GDAL can read single lines of it at little cost: not in Fortran order, where a
        line's pixels are spread over the whole file."""
        return self.dtype.name in _GDAL_TYPES and not self.fortran


def _images(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a .npz's 2-D and 3-D arrays of numbers, by name."""
    with zipfile.ZipFile(path) as archive:
        names = [m.removesuffix(".npy") for m in archive.namelist()]
    images = {}
    for name in names:
        with _stream(Asset(str(path), name)) as stream:
            shape, _, dtype = _header(stream)
        if len(shape) in (2, 3) and dtype.kind in _NUMBERS:
            images[name] = shape
    return images


def _chosen(
    images: dict[str, tuple[int, ...]], scenes: Scenes
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which arrays make the scene, and the bands' names where there is one array a band.

    Raises:
      ValueError: that cannot be told.
    """
    there = ", ".join(f"{n} {s}" for n, s in images.items()) or "no 2-D or 3-D array of numbers"
    if scenes.subdataset:
        if scenes.subdataset not in images:
            raise ValueError(f"has no array {scenes.subdataset!r} (scenes.subdataset): has {there}")
        return (scenes.subdataset,), ()
    if len(images) == 1:
        return tuple(images), ()
    planes = tuple(n for n, s in images.items() if len(s) == 2)
    wanted = scenes.bands if isinstance(scenes.bands, tuple) else ()
    bands = wanted or planes
    chosen = wanted if set(wanted) & set(planes) else planes
    missing = [b for b in chosen if b not in planes]
    if missing:
        raise ValueError(f"has no 2-D array for band {', '.join(missing)}: has {there}")
    if len(chosen) != len(bands):
        raise ValueError(f"has {there}, but scenes.bands names {', '.join(wanted)}")
    unclear = chosen is planes and len(images) > len(planes)
    if unclear or len({images[n] for n in chosen}) != 1:
        raise ValueError(
            f"has {there}: name one array with scenes.subdataset, or 2-D ones of one shape "
            "with scenes.bands"
        )
    return chosen, bands


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, dtype) of a .npy; leaves the stream at the first value.

    Raises:
      ValueError: it is damaged.
    """
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(stream)
    if version not in readers:
        raise ValueError(f"has .npy version {version}: save it again with numpy.save")
    try:
        return readers[version](stream)
    except tokenize.TokenError as e:
        raise ValueError(f"has a damaged .npy header ({e})") from None


def _locate(asset: Asset) -> _Array:
    """Finds an array's values, and refuses what has no pixels or too few bytes.

    Raises:
      ValueError: as said.
    """
    with _stream(asset) as stream:
        shape, fortran, dtype = _header(stream)
        path, offset = asset.path, stream.tell()
    size = os.path.getsize(asset.path)
    if asset.part:
        start, member = _member(asset)
        if member.compress_type == zipfile.ZIP_STORED:
            offset, size = offset + start, min(size, start + member.file_size)
        else:
            path, size = f"/vsizip/{{{asset.path}}}/{member.filename}", member.file_size
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"holds {dtype}, which are not numbers: save numbers with numpy.save")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"has shape {shape}: (H, W), (bands, H, W) or (H, W, bands) is needed")
    array = _Array(path, offset, dtype, shape, fortran)
    if array.nbytes > size - offset:
        raise ValueError(
            f"is cut off: its header says {array.nbytes} bytes of values, and it has "
            f"{max(0, size - offset)}: write it again"
        )
    return array


@contextmanager
def _stream(asset: Asset) -> Iterator[IO[bytes]]:
    """An array's .npy, from its beginning.

    Raises:
      ValueError: no such array, or it cannot be read.
    """
    if not asset.part:
        with open(asset.path, "rb") as file:
            yield file
        return
    try:
        with zipfile.ZipFile(asset.path) as archive, archive.open(f"{asset.part}.npy") as member:
            yield member
    except KeyError:
        raise ValueError(f"has no array {asset.part!r}") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as e:  # RuntimeError: encrypted
        raise ValueError(f"cannot be read as .npz: {e}") from None


def _member(asset: Asset) -> tuple[int, zipfile.ZipInfo]:
    """Where a member's bytes begin in the zip: behind a header of its own, whose last two fields
    are the lengths of a name and of what else follows (APPNOTE.TXT, 4.3.7)."""
    with zipfile.ZipFile(asset.path) as archive:
        member = archive.getinfo(f"{asset.part}.npy")
    with open(asset.path, "rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return member.header_offset + 30 + name + extra, member


def _raw_vrt(array: _Array, description: str) -> str:
    """A VRT whose bands are the array's, where they lie."""
    bands, height, width = array.grid
    item = array.dtype.itemsize
    pixel = item * bands if array.bands_last else item
    band = item if array.bands_last else item * height * width
    named = f"<Description>{escape(description)}</Description>" if bands == 1 else ""
    rows = (
        f'<VRTRasterBand dataType="{_GDAL_TYPES[array.dtype.name]}" band="{number + 1}" '
        f'subClass="VRTRawRasterBand">{named}'
        f'<SourceFilename relativeToVRT="0">{escape(array.path)}</SourceFilename>'
        f"<ImageOffset>{array.offset + number * band}</ImageOffset>"
        f"<PixelOffset>{pixel}</PixelOffset><LineOffset>{pixel * width}</LineOffset>"
        f"<ByteOrder>{'MSB' if array.dtype.str[0] == '>' else 'LSB'}</ByteOrder></VRTRasterBand>"
        for number in range(bands)
    )
    body = "".join(rows)
    return f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{body}</VRTDataset>'


def _load(asset: Asset, array: _Array) -> np.ndarray:
    """The values (bands, height, width), of a dtype that GDAL has.

    Raises:
      ValueError: they are too many.
    """
    if array.nbytes > MAX_LOADED:
        raise ValueError(
            f"is {array.nbytes >> 20} MiB of {array.dtype} in an order or dtype that is read "
            f"whole (at most {MAX_LOADED >> 20} MiB): save it in C order as float32 (numpy.save)"
        )
    with _stream(asset) as stream:
        values = npy.read_array(stream, allow_pickle=False)
    native = _WIDER.get(array.dtype.name, array.dtype.newbyteorder("="))
    pixels = np.moveaxis(values, -1, 0) if array.bands_last else values
    return pixels.reshape(array.grid).astype(native, copy=False)

"""Sentinel-1 and Sentinel-2 products in ESA's SAFE format: folders and zips.

Layouts: Sentinel-1 Product Specification (S1-RS-MDA-52-7441) and Sentinel-2 Products
Specification Document (S2-PDGS-TAS-DI-PSD).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
import rasterio

from ..scenes import Asset, Properties, SceneFiles
from ..sections import Scenes
from .base import Source

MAX_XML = 64 << 20  # bytes
_MANIFEST = "manifest.safe"
_S1_IMAGE = re.compile(r"measurement/s1[a-z]-([a-z0-9]+)-[a-z]+-(vv|vh|hh|hv)-[^/]*\.tiff?", re.I)
_S2_IMAGE = re.compile(
    r"GRANULE/([^/]+)/(?:IMG_DATA/(?:R\d\dm/)?|QI_DATA/(?=[^/]*_PVI\.))[^./][^/]*_"
    r"(B\d\d|B8A|AOT|WVP|SCL|TCI|PVI)(?:_(\d\d)m)?\.jp2", re.I,
)  # fmt: skip
_ON_DEMAND = ("AOT", "WVP", "SCL", "TCI", "PVI")  # only when named
# RuntimeError: a zip's member is encrypted.
_DAMAGED = (OSError, ValueError, KeyError, RuntimeError, ElementTree.ParseError,
            zipfile.BadZipFile, zlib.error)  # fmt: skip


class SafeSource(Source):
    """One scene a product, one asset a band; ``Asset.part`` is a zip's member."""

    name = "safe"

    def claims(self, path: Path, head: bytes) -> bool:
        if path.is_dir():
            return path.name.lower().endswith(".safe") or (path / _MANIFEST).is_file()
        if path.name.lower() == _MANIFEST:
            return True
        if not head.startswith(b"PK\x03\x04"):
            return False
        try:
            return bool(_roots(path))
        except (OSError, zipfile.BadZipFile):
            return False

    def find(self, path: Path, scenes: Scenes) -> list[SceneFiles]:
        if path.is_file() and path.name.lower() != _MANIFEST:
            return [_scene(_zipped(path, root), scenes) for root in _roots(path)]
        return [_scene(_unpacked(path if path.is_dir() else path.parent), scenes)]

    def open(self, asset: Asset) -> Any:
        if asset.part:
            return rasterio.open(f"/vsizip/{{{asset.path}}}/{asset.part}")
        return rasterio.open(asset.path)


@dataclasses.dataclass(frozen=True)
class _Product:
    """A product's files, by their names within it.

    Attributes:
      id: its name.
      path: the folder or the zip.
      files: names within the product, to where they are.
    """

    id: str
    path: Path
    files: Mapping[str, Asset]

    def read(self, pattern: str) -> bytes:
        """The content of the first file whose name matches.

        Raises:
          KeyError: none does.
        """
        for name in sorted(self.files):
            if re.fullmatch(pattern, name, re.I):
                return _read(self.files[name])
        raise KeyError(pattern)


def _unpacked(folder: Path) -> _Product:
    files = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            files[path.relative_to(folder).as_posix()] = Asset(str(path), "", SafeSource.name)
    return _Product(_without_safe(folder.name), folder, files)


def _zipped(path: Path, root: str) -> _Product:
    with zipfile.ZipFile(path) as archive:
        inside = [m for m in archive.namelist() if m.startswith(root)]
    files = {m.removeprefix(root): Asset(str(path), m, SafeSource.name) for m in inside}
    return _Product(_without_safe(root.rstrip("/") or path.stem), path, files)


def _roots(path: Path) -> list[str]:
    """The folders in a zip that are products: ``name.SAFE/``, or "" where it is one itself."""
    with zipfile.ZipFile(path) as archive:
        manifests = (re.fullmatch(rf"([^/]+/)?{_MANIFEST}", m, re.I) for m in archive.namelist())
        return sorted(m.group(1) or "" for m in manifests if m)


def _without_safe(name: str) -> str:
    return re.sub(r"\.safe$", "", name, flags=re.I)


def _read(asset: Asset) -> bytes:
    """A small file, whole.

    Raises:
      ValueError: it is beyond what such a file can be.
    """
    with contextlib.ExitStack() as stack:
        file: IO[bytes]
        if asset.part:
            archive = stack.enter_context(zipfile.ZipFile(asset.path))
            try:
                file = stack.enter_context(archive.open(asset.part))
            except KeyError:
                raise FileNotFoundError(f"no {asset.part} in {asset.path}") from None
        else:
            file = stack.enter_context(open(asset.path, "rb"))
        content = file.read(MAX_XML + 1)
    if len(content) > MAX_XML:
        raise ValueError(f"{asset} is larger than {MAX_XML >> 20} MiB: not read")
    return content


def _scene(product: _Product, scenes: Scenes) -> SceneFiles:
    wanted = scenes.bands if isinstance(scenes.bands, tuple) else ()
    try:
        images = _images(product)
        names = _chosen(images, wanted)
    except ValueError as e:
        whole = (Asset(str(product.path), "", SafeSource.name),)
        return SceneFiles(product.id, whole, properties=_named(product.id), problem=str(e))
    assets = tuple(product.files[images[n]] for n in names)
    return SceneFiles(
        product.id, assets, wanted or names, properties=_properties(product, assets[0])
    )


def _images(product: _Product) -> dict[str, str]:
    """Band names to files within the product, sorted; of several resolutions the finest.

    Raises:
      ValueError: there are none, or a band has several.
    """
    s1 = [(m, n) for n in sorted(product.files) if (m := _S1_IMAGE.fullmatch(n))]
    s2 = [(m, n) for n in sorted(product.files) if (m := _S2_IMAGE.fullmatch(n))]
    if not s1 and not s2:
        raise ValueError("holds no measurement/*.tiff and no GRANULE/*/IMG_DATA/*.jp2")
    images: dict[str, str] = {}
    swaths = {m.group(1).upper() for m, _ in s1}
    for m, name in s1:
        swath, polarisation = m.group(1).upper(), m.group(2).upper()
        band = polarisation if len(swaths) == 1 else f"{swath}_{polarisation}"
        if band in images:
            raise ValueError(f"holds several images of {band}: give them as files, one a scene")
        images[band] = name
    if len({m.group(1) for m, _ in s2}) > 1:
        raise ValueError("holds several granules: give their images as files, with scenes.bands")
    for m, name in sorted(s2, key=lambda found: found[0].group(3) or ""):
        images.setdefault(m.group(2).upper(), name)
    return dict(sorted(images.items(), key=lambda item: _rank(item[0])))


def _rank(band: str) -> tuple[bool, str, bool, str]:
    """Sorts B8A behind B08, co-polarised bands (VV, HH) first, and what is not asked for last."""
    swath, _, polarisation = band.rpartition("_")
    crossed = len(polarisation) == 2 and polarisation[0] != polarisation[1]
    return band in _ON_DEMAND, swath, crossed, band.replace("8A", "08A")


def _chosen(images: Mapping[str, str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The bands that make the scene.

    Raises:
      ValueError: they are not there, or on several grids.
    """
    there = ", ".join(images)
    known = {b.upper(): b for b in images}
    missing = [b for b in wanted if b.upper() not in known]
    if missing:
        raise ValueError(f"has no band {', '.join(missing)}: has {there}")
    names = tuple(known[b.upper()] for b in wanted) or tuple(
        b for b in images if b not in _ON_DEMAND
    )
    if not names:
        raise ValueError(f"has only {there}: name what you want in scenes.bands")
    swaths = {b.rpartition("_")[0] for b in names}
    if len(swaths) > 1:
        raise ValueError(
            f"has swaths on grids of their own ({there}): name bands of one in scenes.bands"
        )
    return names


def _properties(product: _Product, image: Asset) -> Properties:
    """What names and metadata say; what is missing or damaged there is left out."""
    stem = PurePosixPath(image.part or image.path).stem
    found: dict[str, Any] = {**_named(stem), **_named(product.id)}
    with contextlib.suppress(*_DAMAGED):
        manifest = ElementTree.fromstring(product.read(_MANIFEST))
        orbit = manifest.findtext(".//{*}pass")
        number = manifest.findtext(".//{*}relativeOrbitNumber")
        found |= {"orbit": orbit.lower()} if orbit else {}
        found |= {"relative_orbit": int(number)} if number else {}
    with contextlib.suppress(*_DAMAGED):
        if _S1_IMAGE.search(image.part or image.path):
            angles = incidence_grid(_read(_annotation(image)))[2]
            found["incidence_angle"] = round(float(angles.mean()), 4)
        else:
            found |= _s2_angles(product.read(r"GRANULE/[^/]+/MTD_TL\.xml"))
    return found


def _named(name: str) -> dict[str, Any]:
    """What a product's or an image's name says."""
    found: dict[str, Any] = {}
    # Old Sentinel-2 names give the time of production first, and that of sensing behind a V.
    time = re.search(r"_V(\d{8}T\d{6})", name) or re.search(r"[_-](\d{8}T\d{6})", name, re.I)
    if time:
        with contextlib.suppress(ValueError):
            taken = datetime.datetime.strptime(time.group(1).upper(), "%Y%m%dT%H%M%S")
            found["time"] = f"{taken.isoformat()}Z"
    if platform := re.match(r"S([12][A-D])[_-]", name, re.I):
        found["platform"] = f"Sentinel-{platform.group(1).upper()}"
    if orbit := re.search(r"_R(\d{3})_", name):
        found["relative_orbit"] = int(orbit.group(1))
    return found


def _s2_angles(metadata: bytes) -> dict[str, float]:
    """The tile's mean zenith angles in degrees: the sun's, and the view's over all bands."""
    root = ElementTree.fromstring(metadata)
    paths = {
        "sun_zenith": ".//{*}Mean_Sun_Angle/{*}ZENITH_ANGLE",
        "incidence_angle": ".//{*}Mean_Viewing_Incidence_Angle/{*}ZENITH_ANGLE",
    }
    values = {key: [float(e.text or "nan") for e in root.findall(p)] for key, p in paths.items()}
    return {key: round(sum(v) / len(v), 4) for key, v in values.items() if v}


def incidence_grid(annotation: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The geolocation grid of a Sentinel-1 annotation file.

    Returns:
      lines (L,) and pixels (P,) of the measurement, and incidence angles (L, P) in degrees, all
      float64.

    Raises:
      ValueError, xml.etree.ElementTree.ParseError: it is damaged, or has no such grid.
    """
    points = [
        [float(point.findtext(key) or "nan") for key in ("line", "pixel", "incidenceAngle")]
        for point in ElementTree.fromstring(annotation).iter("geolocationGridPoint")
    ]
    grid = np.array(sorted(points)).reshape(-1, 3)
    lines, pixels = np.unique(grid[:, 0]), np.unique(grid[:, 1])
    regular = len(lines) * len(pixels) == len(grid) and np.isfinite(grid).all()
    if not regular or min(len(lines), len(pixels)) < 2:
        raise ValueError(f"its {len(grid)} geolocation grid points form no grid")
    return lines, pixels, grid[:, 2].reshape(len(lines), len(pixels))


def incidence_at(asset: Asset, rows: Any, cols: Any) -> np.ndarray:
    """The incidence angle of a Sentinel-1 measurement, bilinear between the points of its
    annotation's geolocation grid, and as at the edge beyond them.

    Args:
      asset: one that ``SafeSource.find`` gave.
      rows: (N,) lines, may be fractional; 0 is the first line's centre.
      cols: (N,) pixels, likewise.

    Returns:
      degrees (N,), float64.

    Raises:
      OSError, ValueError, xml.etree.ElementTree.ParseError: no annotation, or a damaged one.
    """
    interpolate = _interpolator(asset)
    lines, pixels = interpolate.grid
    rows = np.clip(np.asarray(rows, np.float64), lines[0], lines[-1])
    cols = np.clip(np.asarray(cols, np.float64), pixels[0], pixels[-1])
    return np.asarray(interpolate(np.stack([rows, cols], axis=-1)))


@functools.lru_cache(maxsize=32)
def _interpolator(asset: Asset) -> Any:
    lines, pixels, angles = incidence_grid(_read(_annotation(asset)))
    from scipy.interpolate import RegularGridInterpolator  # few need it, and all would load it

    return RegularGridInterpolator((lines, pixels), angles)


def _annotation(image: Asset) -> Asset:
    """The file that describes a measurement: annotation/ beside measurement/, the same stem."""
    path = PurePosixPath(image.part or image.path)
    beside = str(path.parent.parent / "annotation" / f"{path.stem}.xml")
    return dataclasses.replace(image, **{"part" if image.part else "path": beside})

"""Opening rasters: headers checked before they are believed, pixels read window by window."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
from rasterio._env import set_gdal_config
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from .config import Clean, Config
from .errors import SceneError, describe
from .scenes import SceneFiles
from .tiling import Grid, Window

# What one window of pixels may take, all bands: large enough that blocks are decoded once,
# small enough that two workers with their patches stay far below the memory target.
WINDOW_BYTES = 16 << 20
# GDAL's own block cache; its default is 5 % of the machine's memory.
GDAL_CACHE_BYTES = 64 << 20
# Headers that claim more are refused before anything is allocated.
MAX_BANDS = 1024
MAX_BLOCK_BYTES = 256 << 20
MAX_PATCH_BYTES = 256 << 20
MAX_EXPANSION, EXPANSION_FROM = 100_000, 16 << 30

# Drivers that fetch from a network, by a file that looks local.
_NETWORK_DRIVERS = (
    "WMS WMTS WCS WFS HTTP OGCAPI EEDA EEDAI PLMOSAIC RASTERLITE2 DAAS NGW STACTA STACIT"
)
# Once and for good, since it is the process's: an Env that ends in one thread would hand the
# default back to the others.
set_gdal_config("GDAL_CACHEMAX", GDAL_CACHE_BYTES)
# For good, since the filters that `warnings.catch_warnings` swaps are shared by all threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
_CURL_NOTHING = "scenefeed-opens-nothing-by-url"


@contextlib.contextmanager
def gdal_environment() -> Iterator[None]:
    """GDAL with no code from VRTs, and no network."""
    options: dict[str, Any] = {
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "GDAL_SKIP": _NETWORK_DRIVERS,
        "CPL_VSIL_CURL_ALLOWED_FILENAME": _CURL_NOTHING,
    }
    with rasterio.Env(**options):
        yield


@dataclasses.dataclass(frozen=True)
class SceneHeader:
    """What a scene's headers say, checked.

    Attributes:
      bands: names, in order.
      dtype: the smallest numpy dtype that holds every band's.
      height, width: pixels.
      crs: WKT, or "" where there is none.
      transform: the affine's six numbers (a, b, c, d, e, f), pixel to map.
      block: the first file's block (height, width).
      label_dtypes: label name to dtype.
      file_bytes: size of the image files.
    """

    bands: tuple[str, ...]
    dtype: str
    height: int
    width: int
    crs: str
    transform: tuple[float, ...]
    block: tuple[int, int]
    label_dtypes: dict[str, str]
    file_bytes: int

    def grid(self, config: Config) -> Grid:
        tile = config.tile
        return Grid(self.height, self.width, tile.size, tile.step, tile.edge)


def open_raster(path: str, step: str) -> Any:
    """A rasterio dataset, opened for reading in this thread.

    Raises:
      SceneError: it is missing, empty, or not a raster.
    """
    try:
        if os.path.getsize(path) == 0:
            raise SceneError("the file is empty (0 bytes): fetch it again", step=step, file=path)
        return rasterio.open(path)
    except FileNotFoundError:
        raise SceneError("no such file", step=step, file=path) from None
    except (RasterioError, OSError, ValueError) as e:
        raise SceneError(f"cannot be opened: {describe(e)}", step=step, file=path) from None


def read_header(scene: SceneFiles, config: Config) -> SceneHeader:
    """Opens a scene's files and labels, and checks what their headers claim.

    Raises:
      SceneError: for anything that would make the scene unusable.
    """
    if scene.problem:
        raise SceneError(scene.problem, step="plan", file=scene.files[0])
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_raster(f, "plan")) for f in scene.files]
        for source in sources:
            _check_claims(source)
        first = sources[0]
        if scene.bands:
            _check_bands(scene, sources)
        dtype = np.result_type(*(d for s in sources for d in map(_numpy_dtype, s.dtypes)))
        header = SceneHeader(
            bands=_band_names(scene, config, first),
            dtype="float32" if config.clean.to_db else dtype.name,
            height=first.height,
            width=first.width,
            crs=first.crs.to_wkt() if first.crs else "",
            transform=tuple(first.transform)[:6],
            block=tuple(first.block_shapes[0]),
            label_dtypes={
                name: _check_label(stack, first, path) for name, path in scene.labels.items()
            },
            file_bytes=sum(os.path.getsize(f) for f in scene.files),
        )
        _check_configuration(header, config, scene, dtype)
        return header


def _check_claims(source: Any) -> None:
    """Refuses headers that no file of that size can keep, or no worker can hold."""

    def refuse(reason: str) -> None:
        raise SceneError(reason, step="plan", file=source.name)

    if source.count == 0:
        names = [s.rsplit(":", 1)[-1].lstrip("/") for s in source.subdatasets]
        listed = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        refuse("has no bands of its own" + (
            f"; it holds {len(names)} subdatasets ({listed}): extract the one you need"
            if names else " and no subdatasets"))  # fmt: skip
    if source.count > MAX_BANDS:
        refuse(f"the header claims {source.count} bands (at most {MAX_BANDS}): not read")
    item = max(_numpy_dtype(d).itemsize for d in source.dtypes)
    height, width = source.block_shapes[0]
    if height * width * item > MAX_BLOCK_BYTES:
        refuse(
            f"the header claims {source.width} x {source.height} pixels in blocks of "
            f"{width} x {height}, more than {MAX_BLOCK_BYTES >> 20} MiB each: not read; "
            "rewrite it tiled (gdal_translate -co TILED=YES)"
        )
    claimed = source.width * source.height * source.count * item
    size = sum(os.path.getsize(f) for f in source.files if os.path.exists(f))
    if claimed > EXPANSION_FROM and claimed > size * MAX_EXPANSION:
        refuse(
            f"the header claims {source.width} x {source.height} pixels ({claimed >> 30} GiB) "
            f"in a file of {size} bytes: not read"
        )


def _check_configuration(
    header: SceneHeader, config: Config, scene: SceneFiles, source_dtype: np.dtype[Any]
) -> None:
    """What the configuration asks for must fit the scene."""
    file, size = scene.files[0], config.tile.size
    if not header.grid(config).count:
        raise SceneError(
            f"a tile of {size} is larger than the scene ({header.width} x {header.height}): "
            "use a smaller tile.size, or edge: pad",
            step="plan", file=file,
        )  # fmt: skip
    patch_bytes = size * size * len(header.bands) * np.dtype(header.dtype).itemsize
    if patch_bytes > MAX_PATCH_BYTES:
        raise SceneError(
            f"a patch of {size} x {size} x {len(header.bands)} takes {patch_bytes >> 20} MiB "
            f"(at most {MAX_PATCH_BYTES >> 20}): use a smaller tile.size",
            step="plan", file=file,
        )  # fmt: skip
    if np.issubdtype(source_dtype, np.complexfloating) and (
        config.clean.to_db or config.clean.clip
    ):
        raise SceneError(
            f"is {source_dtype}: to_db and clip need real values", step="plan", file=file
        )
    for fill in fills(config.clean, len(header.bands), file):
        with np.errstate(all="ignore"):
            held = np.array(fill).astype(header.dtype)
        if not (held == fill or np.isnan(held) or np.isclose(held, fill, rtol=1e-6, atol=0)):
            raise SceneError(
                f"fill {fill:g} does not fit its dtype {header.dtype}: choose another clean.fill",
                step="plan", file=file,
            )  # fmt: skip


def fills(clean: Clean, bands: int, file: str) -> tuple[float, ...]:
    """The fill of each band.

    Raises:
      SceneError: another number of values than bands.
    """
    if not isinstance(clean.fill, tuple):
        return (clean.fill,) * bands
    if len(clean.fill) != bands:
        raise SceneError(
            f"has {bands} bands, but clean.fill gives {len(clean.fill)} values",
            step="plan",
            file=file,
        )
    return clean.fill


def _band_names(scene: SceneFiles, config: Config, source: Any) -> tuple[str, ...]:
    if scene.bands:
        return scene.bands
    described = tuple(d or "" for d in source.descriptions)
    named = all(described) and len(set(described)) == len(described)
    wanted = config.scenes.bands
    if wanted is None:
        return described if named else tuple(f"b{i}" for i in source.indexes)
    if len(wanted) != source.count and not (named and set(wanted) <= set(described)):
        raise SceneError(
            f"has {source.count} bands{' (' + ', '.join(described) + ')' if named else ''}, "
            f"but scenes.bands names {len(wanted)}: {', '.join(wanted)}",
            step="plan", file=source.name,
        )  # fmt: skip
    return tuple(wanted)


def band_indexes(source: Any, bands: tuple[str, ...]) -> list[int]:
    """Which of a multi-band file's bands are wanted: by description, else in file order."""
    described = list(source.descriptions)
    if set(bands) <= set(described):
        return [described.index(b) + 1 for b in bands]
    return list(source.indexes)


def _check_bands(scene: SceneFiles, sources: list[Any]) -> None:
    """Files of one band each, all on the first one's grid."""
    first = sources[0]
    for name, source in zip(scene.bands, sources, strict=True):
        problem = ""
        if source.count != 1:
            problem = f"has {source.count} bands: one file a band needs one each"
        elif difference := _grid_difference(source, first):
            problem = f"{difference}, unlike band {scene.bands[0]}: bring them onto one grid"
        if problem:
            raise SceneError(f"band {name} {problem}", step="plan", file=source.name)


def _check_label(stack: contextlib.ExitStack, scene: Any, path: str) -> str:
    """A label raster must have one band, on the scene's grid; gives its dtype."""
    label = stack.enter_context(open_raster(path, "label"))
    _check_claims(label)
    if label.count != 1:
        raise SceneError(f"has {label.count} bands: a mask label has one", step="label", file=path)
    if difference := _grid_difference(label, scene):
        reason = f"the label {difference}: warp it to the scene's grid"
        raise SceneError(reason, step="label", file=path)
    return _numpy_dtype(label.dtypes[0]).name


def _grid_difference(raster: Any, scene: Any) -> str:
    """How a raster's grid differs from the scene's, in words; empty where it does not.

    Bounds often differ in the last digits between files of one grid, so corners are compared,
    in pixels of the scene, to a hundredth.
    """
    if (raster.height, raster.width) != (scene.height, scene.width):
        return (
            f"is {raster.width} x {raster.height}, but the scene is {scene.width} x {scene.height}"
        )
    if raster.crs != scene.crs:
        return f"has CRS {raster.crs or 'none'}, but the scene's is {scene.crs or 'none'}"
    if raster.transform == scene.transform or scene.transform.is_degenerate:
        return "" if raster.transform == scene.transform else "has another transform"
    for col, row in ((0, 0), (scene.width, 0), (0, scene.height), (scene.width, scene.height)):
        x, y = ~scene.transform @ (raster.transform @ (col, row))
        off = max(abs(x - col), abs(y - row))
        if off > 0.01:
            return f"lies {off:.2f} pixels off the scene's grid at corner ({row}, {col})"
    return ""


def _size(source: Any) -> str:
    return f"{source.width} x {source.height} x {source.count}"


def _numpy_dtype(name: str) -> np.dtype[Any]:
    # rasterio reads GDAL's complex integers, which numpy lacks, as complex64.
    return np.dtype("complex64" if name.startswith("complex_int") else name)


class SceneReader:
    """A scene's open files, read window by window into buffers that are used again.

    Belongs to one thread. Use as a context manager.
    """

    def __init__(self, scene: SceneFiles, header: SceneHeader, clean: Clean):
        self._scene, self._header, self._clean = scene, header, clean
        self._stack = contextlib.ExitStack()
        self._buffer = np.empty(0, np.uint8)

    def __enter__(self) -> SceneReader:
        with contextlib.ExitStack() as stack:
            header = self._header
            opened = [stack.enter_context(open_raster(f, "read")) for f in self._scene.files]
            self._labels = {
                name: stack.enter_context(open_raster(f, "label"))
                for name, f in self._scene.labels.items()
            }
            indexes = (
                [band_indexes(opened[0], header.bands)] if len(opened) == 1 else [[1]] * len(opened)
            )
            self._sources = list(zip(opened, indexes, strict=True))
            self._dtype = np.result_type(
                *(_numpy_dtype(s.dtypes[i - 1]) for s, listed in self._sources for i in listed)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels (bands, height, width), and where they are bad (bool, same shape) or None.

        Bad means nodata or masked out by the file's own metadata, not finite, or beyond the
        scene. The pixels' buffer is used again by the next call.

        Raises:
          SceneError: a block cannot be read.
        """
        inside, shape = self._inside(window)
        size = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        if self._buffer.nbytes < size:
            self._buffer = np.empty(size, np.uint8)
        pixels = self._buffer[:size].view(self._dtype).reshape(shape)
        bad: np.ndarray | None = None
        band = 0
        for source, indexes in self._sources:
            part = slice(band, band + len(indexes))
            self._read(source, indexes, inside, pixels[part], "read")
            found = self._bad(source, indexes, inside, pixels[part])
            if found is not None:
                bad = np.zeros(shape, bool) if bad is None else bad
                bad[part] |= found
            band += len(indexes)
        if np.issubdtype(self._dtype, np.inexact):
            finite = np.isfinite(pixels)
            if not finite.all():
                bad = ~finite if bad is None else bad | ~finite
        return self._beyond(window, pixels, bad)

    def read_label(self, name: str, window: Window, ignore: tuple[int, ...]) -> np.ndarray:
        """A label's pixels (1, height, width); beyond the scene the first of ``ignore`` that its
        dtype holds, else 0."""
        source = self._labels[name]
        inside, shape = self._inside(window)
        pixels = np.empty((1, *shape[1:]), _numpy_dtype(source.dtypes[0]))
        self._read(source, [1], inside, pixels, "label")
        if shape[1:] == (window.height, window.width):
            return pixels
        held = (v for v in ignore if np.can_cast(np.min_scalar_type(v), pixels.dtype))
        whole = np.full((1, window.height, window.width), next(held, 0), pixels.dtype)
        whole[:, : shape[1], : shape[2]] = pixels
        return whole

    def _inside(self, window: Window) -> tuple[RasterWindow, tuple[int, int, int]]:
        height = min(window.height, self._header.height - window.row)
        width = min(window.width, self._header.width - window.col)
        bands = len(self._header.bands)
        return RasterWindow(window.col, window.row, width, height), (bands, height, width)

    def _beyond(
        self, window: Window, pixels: np.ndarray, bad: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        bands, height, width = pixels.shape
        if (height, width) == (window.height, window.width):
            return pixels, bad
        whole = np.zeros((bands, window.height, window.width), pixels.dtype)
        whole[:, :height, :width] = pixels
        outside = np.ones(whole.shape, bool)
        outside[:, :height, :width] = False if bad is None else bad
        return whole, outside

    def _read(
        self, source: Any, indexes: list[int], inside: RasterWindow, out: np.ndarray, step: str
    ) -> None:
        try:
            source.read(indexes, window=inside, out=out)
        except (RasterioError, OSError, ValueError) as e:
            raise _unreadable(source, inside, step, e) from None

    def _bad(
        self, source: Any, indexes: list[int], inside: RasterWindow, pixels: np.ndarray
    ) -> np.ndarray | None:
        """Where the file (or ``clean.nodata``) says that there is no data."""
        wanted = self._clean.nodata
        if wanted == "none":
            return None
        if wanted != "auto":
            return np.asarray(pixels == wanted)
        flags = [source.mask_flag_enums[i - 1] for i in indexes]
        values = [source.nodatavals[i - 1] for i in indexes]
        if all(
            f == [MaskFlags.all_valid]
            or (f == [MaskFlags.nodata] and v is not None and np.isnan(v))
            for f, v in zip(flags, values, strict=True)
        ):
            return None  # NaN is found with everything else that is not finite
        try:
            return np.asarray(source.read_masks(indexes, window=inside) == 0)
        except (RasterioError, OSError, ValueError) as e:
            raise _unreadable(source, inside, "read", e) from None


def _unreadable(source: Any, inside: RasterWindow, step: str, error: Exception) -> SceneError:
    window = (int(inside.row_off), int(inside.col_off), int(inside.height), int(inside.width))
    return SceneError(
        f"opens, but cannot be read: {describe(error)}", step=step, file=source.name, window=window
    )

"""Scene headers: checked before they are believed, so that no claim becomes an allocation."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

import numpy as np

from .config import Clean, Config
from .errors import SceneError
from .rasters import numpy_dtype, open_raster
from .scenes import SceneFiles
from .tiling import Grid

# Headers that claim more are refused before anything is allocated.
MAX_BANDS = 1024
MAX_BLOCK_BYTES = 256 << 20
MAX_PATCH_BYTES = 256 << 20
MAX_EXPANSION, EXPANSION_FROM = 100_000, 16 << 30


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
        dtype = np.result_type(*(d for s in sources for d in map(numpy_dtype, s.dtypes)))
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
    item = max(numpy_dtype(d).itemsize for d in source.dtypes)
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
    return numpy_dtype(label.dtypes[0]).name


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

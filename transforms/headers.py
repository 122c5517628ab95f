"""Scene headers: what a scene is, told without reading pixels, and checked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..loader.spec import Feature
from .bands import Opened, fills_of
from .cleaning import output_bands, output_dtype
from .config import Config
from .errors import SceneError
from .georeference import Georeference
from .rasters import numpy_dtype
from .reading import SceneReader
from .scalars import plan_scalars
from .scenes import Properties, SceneFiles
from .sources import SOURCES
from .tiling import Grid, Spots

MAX_PATCH_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class SceneHeader:
    """What a scene's headers say, checked.

    Attributes:
      bands: the image's, in order: those read, then those computed.
      dtype: the image's.
      where: its grid.
      block: the first file's block (height, width).
      columns: what labels and scalars add to a record.
      owners: which label each of its columns belongs to.
      centres: where patches are centred (row, column), where a label says so; else None.
      properties: what is known of the scene beside pixels.
      file_bytes: size of the image files.
    """

    bands: tuple[str, ...]
    dtype: str
    where: Georeference
    block: tuple[int, int]
    columns: Mapping[str, Feature]
    owners: Mapping[str, str]
    centres: tuple[tuple[int, int], ...] | None
    properties: Properties
    file_bytes: int

    def grid(self, config: Config) -> Grid | Spots:
        tile = config.tile
        if self.centres is not None:
            return Spots.around(
                self.centres, self.where.height, self.where.width, tile.size, tile.edge
            )
        return Grid(self.where.height, self.where.width, tile.size, tile.step, tile.edge)

    def to_json(self) -> dict[str, Any]:
        """As a line of scenes.jsonl holds it."""
        values = dataclasses.asdict(self)
        where = values.pop("where")
        return {**where, **values, "columns": {k: f.to_json() for k, f in self.columns.items()}}

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> SceneHeader:
        where = Georeference(
            d["height"], d["width"], d["crs"], tuple(d["transform"]),
            tuple(tuple(p) for p in d["gcps"]), tuple(d["assumed"]),
        )  # fmt: skip
        centres = None if d["centres"] is None else tuple((r, c) for r, c in d["centres"])
        return cls(
            tuple(d["bands"]), d["dtype"], where, tuple(d["block"]),
            {k: Feature.from_json(f) for k, f in d["columns"].items()}, d["owners"], centres,
            d["properties"], d["file_bytes"],
        )  # fmt: skip


def read_header(scene: SceneFiles, config: Config) -> SceneHeader:
    """Opens a scene's files and labels, and checks what their headers claim.

    Raises:
      SceneError: for anything that would make the scene unusable.
    """
    file = scene.files[0] if scene.assets else ""
    if scene.problem:
        raise SceneError(scene.problem, step="plan", file=file)
    size = config.tile.size
    with _at(file), SceneReader(scene, config, "plan") as reader:
        where, opened = reader.grid, reader.opened
        columns: dict[str, Feature] = {}
        owners: dict[str, str] = {}
        centres = None
        for name, label in config.labels.items():
            planned = label.plan(name, scene, where, size)
            owners |= dict.fromkeys(planned, name)
            _add(columns, planned)
            found = label.centres(name, scene, where)
            centres = centres if found is None else found
        _add(columns, plan_scalars(config.scalars, scene))
        header = SceneHeader(
            bands=_output_bands(config, reader.names),
            dtype=output_dtype(config.clean, reader.dtype).name,
            where=where,
            block=reader.block,
            columns=columns,
            owners=owners,
            centres=None if centres is None else tuple((int(r), int(c)) for r, c in centres),
            properties=scene.properties,
            file_bytes=_bytes(scene),
        )
        _check_configuration(header, config, file, opened)
        return header


def _add(columns: dict[str, Feature], more: Mapping[str, Feature]) -> None:
    for name in more:
        if name in columns:
            raise SceneError(f"two labels or scalars make a column {name!r}", step="plan")
    columns |= more


def _output_bands(config: Config, names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return output_bands(config.clean, names)
    except ValueError as e:
        raise SceneError(f"clean: {e}", step="plan") from None


@contextlib.contextmanager
def _at(file: str) -> Any:
    """Names the scene's file where an error names none."""
    try:
        yield
    except SceneError as e:
        e.file = e.file or file
        raise


def _bytes(scene: SceneFiles) -> int:
    """Bytes on disk; several bands of one file count once."""
    sizes = {a.path: SOURCES[a.source].size(a) for a in scene.assets}
    return sum(sizes.values())


def _check_configuration(
    header: SceneHeader, config: Config, file: str, opened: list[Opened]
) -> None:
    """What the configuration asks for must fit the scene."""
    size, where = config.tile.size, header.where
    dtype = np.result_type(*(numpy_dtype(d) for o in opened for d in o.dataset.dtypes))

    def refuse(reason: str) -> None:
        raise SceneError(reason, step="plan", file=file)

    if header.centres is None and not header.grid(config).count:
        refuse(
            f"a tile of {size} is larger than the scene ({where.width} x {where.height}): "
            "use a smaller tile.size, or edge: pad"
        )
    patch_bytes = size * size * len(header.bands) * np.dtype(header.dtype).itemsize
    if patch_bytes > MAX_PATCH_BYTES:
        refuse(
            f"a patch of {size} x {size} x {len(header.bands)} takes {patch_bytes >> 20} MiB "
            f"(at most {MAX_PATCH_BYTES >> 20}): use a smaller tile.size"
        )
    clean = config.clean
    if (
        dtype.kind == "c"
        and not clean.complex_parts
        and (clean.clip or clean.computes or clean.dtype)
    ):
        refuse(
            f"is {dtype}: to_db, clip, speckle, features and dtype need real values: choose "
            "clean.complex: amplitude, intensity, phase, real or imag"
        )  # fmt: skip
    for fill in fills_of(clean, len(header.bands), file):
        with np.errstate(all="ignore"):
            held = np.array(fill).astype(header.dtype)
        if not (held == fill or np.isnan(held) or np.isclose(held, fill, rtol=1e-3, atol=0)):
            refuse(
                f"fill {fill:g} does not fit its dtype {header.dtype}: choose another clean.fill"
            )


__all__ = ["SceneHeader", "read_header"]

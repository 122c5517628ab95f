"""Staging: one scene's pixels, read once, cleaned, cut and written as one HDF5 file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xxhash

from ..loader.spec import Feature
from .bands import fills_of
from .cleaning import Cleaner, band_sums
from .config import Config
from .errors import JobError
from .headers import SceneHeader
from .labels import Burner
from .rasters import WINDOW_BYTES, gdal_environment
from .reading import SceneReader
from .remotestage import publish
from .scalars import scalar_values, text_scalars
from .scenes import SceneFiles
from .stagefile import (
    Contents,
    contents_of,
    is_whole,
    read_columns,
    read_notes,
)
from .stagewriter import disk_errno, writing
from .storage import is_remote, join, size_of
from .tiling import Grid, Window, cut
from .usage import Timer, Usage

# Patches that a StagedScene carries the places of: 24 bytes each, and it may be kept some times. To
# open a file again takes some milliseconds, which matters where there are many small ones.
MOST_CARRIED = 256


@dataclasses.dataclass(frozen=True)
class StagedScene:
    """What later steps know of a staged scene. No pixels.

    Attributes:
      id, path: the scene, and its stage file.
      counts: patches per split, as sampled; empty until they are chosen.
      rates: what balancing keeps of each class, the same for all scenes.
      grid_count: patches before any was dropped.
      staged: patches in the stage file.
      header: of the scene.
      files: source files.
      fingerprint: of inputs and configuration.
      content: hash of all its patches' images; "" for a scene without any.
      repeated: patches whose image another patch of the scene has too.
      tallies: counts of what happened: saturated values, ignored label pixels ...
      reused: the stage file was there already.
      seconds, cpu_seconds: by step, as ``Timer`` has them.
      read_bytes, stage_bytes: pixels read, and the stage file's size.
      usage: what its worker had used; None where it was staged by an earlier run.
      contents: what its stage file holds, of a small scene, which is not opened again for it;
        else None.
    """

    id: str
    path: str
    counts: dict[str, int]
    grid_count: int
    staged: int
    header: SceneHeader
    files: tuple[str, ...]
    fingerprint: str
    content: str
    repeated: int
    tallies: dict[str, int]
    reused: bool
    seconds: dict[str, float]
    read_bytes: int
    stage_bytes: int
    rates: Mapping[str, Mapping[int, float]] = dataclasses.field(default_factory=dict)
    cpu_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    usage: Usage | None = None
    contents: Contents | None = None

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def to_json(self, out: str) -> str:
        """One line of scenes.jsonl in the dataset's folder ``out``, which can be moved."""
        return json.dumps(
            {
                "id": self.id,
                "source": list(self.files),
                "stage": self.path.removeprefix(f"{out}/"),
                "stage_bytes": self.stage_bytes,
                **self.header.to_json(),
                "patches": self.counts,
                "grid": self.grid_count,
                "staged": self.staged,
                "dropped": self.grid_count - self.count,
                "content": self.content,
                "repeated": self.repeated,
                "tallies": self.tallies,
                "fingerprint": self.fingerprint,
                **({"rates": self.rates} if self.rates else {}),
            }
        )

    @classmethod
    def from_json(cls, line: str, out: str) -> StagedScene:
        """A scene from its line, as `scenefeed shard` starts from it."""
        d = json.loads(line)
        elsewhere = is_remote(d["stage"]) or os.path.isabs(d["stage"])
        path = d["stage"] if elsewhere else join(out, d["stage"])
        rates = {k: {int(c): r for c, r in v.items()} for k, v in d.get("rates", {}).items()}
        return cls(
            d["id"], path, d["patches"], d["grid"], d["staged"], SceneHeader.from_json(d),
            tuple(d["source"]), d["fingerprint"], d["content"], d["repeated"], d["tallies"],
            True, {}, 0, d.get("stage_bytes", 0), rates,
        )  # fmt: skip


def columns(header: SceneHeader, config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    """The stage file's columns beside keys: name to (shape of one patch, dtype). Texts are kept
    once a file."""
    size = config.tile.size
    bands = len(header.bands)
    images = {"image": ((size, size, bands), header.dtype), "invalid": ((bands,), "uint32")}
    return images | {
        k: (f.shape, f.dtype) for k, f in header.columns.items() if f.kind != "text"
    }  # fmt: skip


def stage_scene(
    scene: SceneFiles, header: SceneHeader, config: Config, folder: str, shared: bool = False
) -> StagedScene:
    """Stages a scene as ``folder/<id>.h5``, or finds it staged already.

    Memory is bounded by the window and the tile, whatever the scene's size. Either the whole
    scene is staged or nothing is.

    Args:
      scene: its files.
      header: its header, with the dataset's dtypes.
      config: the configuration.
      folder: where stage files lie.
      shared: other datasets may have theirs there too: names tell what a file was made from.

    Raises:
      SceneError: a part of it cannot be read.
      JobError: the disk cannot be written.
    """
    inputs = scene.fingerprint(config.stage_digest)
    # Another scene can widen the dataset's dtype, or add a class: what must be staged changes.
    agreed = sorted(columns(header, config).items()), sorted(header.columns.items())
    fingerprint = hashlib.sha256(f"{inputs} {agreed}".encode()).hexdigest()
    path = join(folder, f"{scene.id}{f'-{fingerprint[:16]}' if shared else ''}.h5")
    timer, reused = Timer(), is_whole(path, fingerprint)
    if reused:
        hashes = read_columns(path, ["hash"])["hash"]
        read_bytes, tallies, contents = 0, read_notes(path)["tallies"], None
    else:
        with _local(path, config, timer) as local:
            found, read_bytes, tallies = _stage(scene, header, config, local, fingerprint, timer)
        hashes, contents = found["hash"], _carried(scene, header, config, path, found)
    pixels = header.where.height * header.where.width * _pixel_bytes(header)
    return StagedScene(
        id=scene.id, path=path, counts={}, grid_count=header.grid(config).count,
        staged=len(hashes), header=header, files=scene.files, fingerprint=inputs,
        content=xxhash.xxh3_128_hexdigest(np.sort(hashes).tobytes()) if len(hashes) else "",
        repeated=len(hashes) - len(np.unique(hashes)), tallies=tallies, reused=reused,
        seconds=timer.seconds, read_bytes=min(read_bytes, pixels),
        stage_bytes=size_of(path), cpu_seconds=timer.cpu, usage=Usage.now(), contents=contents,
    )  # fmt: skip


def _carried(
    scene: SceneFiles, header: SceneHeader, config: Config, path: str,
    found: Mapping[str, np.ndarray],
) -> Contents | None:  # fmt: skip
    """What a StagedScene carries of its stage file. Nothing where that was put in another order when
    it was moved."""
    if is_remote(path) or len(found["hash"]) > MOST_CARRIED:
        return None
    image = Feature(*columns(header, config)["image"], "image", "tensor")
    texts = text_scalars(header.columns, scene.properties)
    return contents_of(found, texts, {"image": image, **header.columns})


@contextlib.contextmanager
def _local(path: str, config: Config, timer: Timer) -> Iterator[Path]:
    """Where to write a stage file that is to be at ``path``: there, or in a temporary folder of
    this worker from which it is moved."""
    if not is_remote(path):
        yield Path(path)
        return
    try:
        with tempfile.TemporaryDirectory(prefix="scenefeed-") as folder:
            local = Path(folder) / "stage.h5"
            yield local
            with timer("move"):
                publish(local, path, config.records.seed)
    except JobError as e:
        if e.__cause__ is None or not disk_errno(e.__cause__):
            raise
        raise JobError(
            f"{tempfile.gettempdir()}: the temporary folder of a worker has no room for twice the "
            f"patches of {path}: set TMPDIR to a larger disk there, and run the same command again"
        ) from e


def _stage(
    scene: SceneFiles, header: SceneHeader, config: Config, path: Path, fingerprint: str,
    timer: Timer,
) -> tuple[dict[str, np.ndarray], int, dict[str, int]]:  # fmt: skip
    """Writes the stage file. Gives what its writer told, the bytes of pixels read, the tallies."""
    grid, size = header.grid(config), config.tile.size
    pixel_bytes = _pixel_bytes(header)
    mask_bytes = sum(np.dtype(f.dtype).itemsize for f in header.columns.values() if f.shape)
    read_bytes = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(gdal_environment(scene))
        reader = stack.enter_context(SceneReader(scene, config))
        burners: dict[str, Burner] = {}
        for name, label in config.labels.items():
            burners[name] = label.open(name, scene, header.where, size, header.columns)
            stack.callback(burners[name].close)
        writer = stack.enter_context(writing(path, columns(header, config), max(1, grid.count)))
        windows = list(grid.windows(pixel_bytes + mask_bytes, header.block, WINDOW_BYTES))
        work = _Work(scene, header, config, reader, burners, timer)
        if config.clean.fill == "mean":
            where = header.where  # the whole scene, each pixel once, whatever the patches
            whole = Grid(where.height, where.width, size, size, "pad")
            work.find_means(list(whole.windows(pixel_bytes, header.block, WINDOW_BYTES)))
        for window in windows:
            space = writer.space(window.count)
            valid, labelled = work.fill(window, space)
            keep = valid >= config.clean.min_valid
            if labelled is not None:
                keep &= labelled
            with timer("stage"):
                writer.commit(*window.corners(), valid, keep)
            read_bytes += window.count * config.tile.step**2 * pixel_bytes
        tallies = work.tallies()
        with timer("stage"):
            attributes = _attributes(scene, header, fingerprint, tallies)
            found = writer.finish(attributes | {"fill": work.fills})
    return found, read_bytes, tallies


class _Work:
    """What staging does with each window of one scene: read, clean, cut, burn labels."""

    def __init__(
        self, scene: SceneFiles, header: SceneHeader, config: Config, reader: SceneReader,
        burners: Mapping[str, Burner], timer: Timer,
    ):  # fmt: skip
        self._scene, self._header, self._config = scene, header, config
        self._reader, self._burners, self._timer = reader, burners, timer
        fills = fills_of(config.clean, len(header.bands), scene.files[0])
        self._cleaner = self._cleaner_with(fills)
        self._saturated = 0
        self._owned: dict[str, list[str]] = {name: [] for name in config.labels}
        for column, label in header.owners.items():
            self._owned[label].append(column)

    def _cleaner_with(self, fills: tuple[float, ...]) -> Cleaner:
        reader, clean = self._reader, self._config.clean
        return Cleaner(clean, reader.names, np.dtype(self._header.dtype), fills)

    def find_means(self, windows: list[Window]) -> None:
        """Reads the scene once for its bands' means, which then fill what is invalid."""
        sums, counts = np.zeros(len(self._header.bands)), np.zeros(len(self._header.bands), int)
        margin = self._cleaner.margin
        for window in windows:
            with self._timer("mean"):
                pixels, bad = self._reader.read(window, margin)
                stored, marks, _ = self._cleaner.unfilled(pixels, bad, (margin,) * 4)
                more = band_sums(stored, marks)
                sums, counts = sums + more[0], counts + more[1]
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        self._cleaner = self._cleaner_with(tuple(means.tolist()))

    def fill(
        self, window: Window, space: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Fills ``space`` with a window's patches.

        Returns:
          The share of valid pixels of each, float32 (count,); and which have the labels that
          are wanted, bool (count,), None for all.
        """
        size, timer = self._config.tile.size, self._timer
        with timer("read"):
            pixels, bad = self._reader.read(window, self._cleaner.margin)
        with timer("clean"):
            cleaned = self._cleaner(pixels, bad, (self._cleaner.margin,) * 4)
            self._saturated += cleaned.saturated
        with timer("tile"):
            cut(cleaned.pixels, window, size, space["image"])
            share = np.ones(window.count, np.float32)
            space["invalid"][...] = 0
            if cleaned.valid is not None:
                valid = _counts(cleaned.valid, window, size)
                share = (valid / size**2).astype(np.float32)
                for band, mark in enumerate(cleaned.marks):
                    if mark is not None:
                        space["invalid"][:, band] = _counts(mark, window, size)
        labelled = None
        with timer("labels"):
            for name, burner in self._burners.items():
                found = burner.patches(window, {k: space[k] for k in self._owned[name]})
                if found is not None and name in self._config.labels_wanted:
                    labelled = found if labelled is None else labelled & found
        names = self._config.scalars
        if names:
            rows, cols = window.corners()
            for name, value in scalar_values(
                names, self._scene, self._header.where, size, rows, cols
            ).items():
                if name in space:
                    space[name][...] = value
        return share, labelled

    @property
    def fills(self) -> np.ndarray:
        """What invalid values hold, float64 (bands,)."""
        return np.array([np.real(fill) for fill in self._cleaner.fills], np.float64)

    def tallies(self) -> dict[str, int]:
        found = {"saturated": self._saturated} if self._saturated else {}
        for burner in self._burners.values():
            found |= {k: v for k, v in burner.tally.items() if v}
        return found


def _counts(marks: np.ndarray, window: Window, size: int) -> np.ndarray:
    """How many pixels of each patch are marked, int64 (count,)."""
    patches = np.empty((window.count, size, size, 1), bool)
    cut(marks[None], window, size, patches)
    return np.asarray(np.count_nonzero(patches.reshape(window.count, -1), axis=1))


def _pixel_bytes(header: SceneHeader) -> int:
    return len(header.bands) * np.dtype(header.dtype).itemsize


def _attributes(
    scene: SceneFiles, header: SceneHeader, fingerprint: str, tallies: Mapping[str, int]
) -> dict[str, object]:
    return {
        "scene_id": scene.id,
        "crs": header.where.crs,
        "transform": np.array(header.where.transform, np.float64),
        "bands": list(header.bands),
        "source": list(scene.files),
        "notes": json.dumps(
            {
                "properties": dict(scene.properties),
                "texts": text_scalars(header.columns, scene.properties),
                "tallies": dict(tallies),
            },
            sort_keys=True,
        ),
        "fingerprint": fingerprint,
    }

"""Staging: one scene's pixels, read once, cleaned, cut and written as one HDF5 file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .cleaning import clean
from .config import Config
from .headers import SceneHeader, fills
from .rasters import WINDOW_BYTES, SceneReader, gdal_environment
from .scenes import SceneFiles
from .splits import split_indexes
from .stagefile import is_whole, read_keys, writing
from .tiling import Window, cut

STAGE_SECTIONS = ("scenes", "labels", "clean", "tile")


class Timer:
    """Seconds by step, so that metrics.json can say where the time went."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class StagedScene:
    """What later steps know of a staged scene. No pixels.

    Attributes:
      id, path: the scene, and its stage file.
      counts: patches per split.
      grid_count: patches before ``min_valid``.
      header: of the scene.
      files: source files.
      fingerprint: of inputs and configuration.
      reused: the stage file was there already.
      seconds: by step.
      read_bytes, stage_bytes: pixels read, and the stage file's size.
    """

    id: str
    path: str
    counts: dict[str, int]
    grid_count: int
    header: SceneHeader
    files: tuple[str, ...]
    fingerprint: str
    reused: bool
    seconds: dict[str, float]
    read_bytes: int
    stage_bytes: int

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def to_json(self) -> str:
        """One line of scenes.jsonl."""
        h = self.header
        return json.dumps(
            {
                "id": self.id,
                "source": list(self.files),
                "stage": f"stage/{os.path.basename(self.path)}",
                "width": h.width,
                "height": h.height,
                "bands": list(h.bands),
                "dtype": h.dtype,
                "crs": h.crs,
                "transform": list(h.transform),
                "block": list(h.block),
                "label_dtypes": h.label_dtypes,
                "file_bytes": h.file_bytes,
                "patches": self.counts,
                "dropped": self.grid_count - self.count,
                "fingerprint": self.fingerprint,
            }
        )

    @classmethod
    def from_json(cls, line: str, folder: Path) -> StagedScene:
        """A scene from its line, as `scenefeed shard` starts from it."""
        d = json.loads(line)
        header = SceneHeader(
            tuple(d["bands"]), d["dtype"], d["height"], d["width"], d["crs"],
            tuple(d["transform"]), tuple(d["block"]), d["label_dtypes"], d["file_bytes"],
        )  # fmt: skip
        path = folder / d["stage"]
        return cls(
            d["id"], str(path), d["patches"], sum(d["patches"].values()) + d["dropped"], header,
            tuple(d["source"]), d["fingerprint"], True, {}, 0,
            path.stat().st_size if path.exists() else 0,
        )  # fmt: skip


def columns(header: SceneHeader, config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    """The stage file's pixel datasets: name to (shape of one patch, dtype)."""
    size = config.tile.size
    image = {"image": ((size, size, len(header.bands)), header.dtype)}
    return image | {k: ((size, size), dtype) for k, dtype in header.label_dtypes.items()}


def stage_scene(scene: SceneFiles, header: SceneHeader, config: Config, folder: str) -> StagedScene:
    """Stages a scene as ``folder/<id>.h5``, or finds it staged already.

    Memory is bounded by the window and the tile, whatever the scene's size. Either the whole
    scene is staged or nothing is.

    Args:
      scene: its files.
      header: its header, with the dataset's dtypes.
      config: the configuration.
      folder: where stage files lie.

    Raises:
      SceneError: a part of it cannot be read.
      JobError: the disk cannot be written.
    """
    path = Path(folder) / f"{scene.id}.h5"
    layout = columns(header, config)
    inputs = scene.fingerprint(config.digest(*STAGE_SECTIONS))
    # Another scene can widen the dataset's dtype, and so change what must be staged here.
    fingerprint = hashlib.sha256(f"{inputs} {sorted(layout.items())}".encode()).hexdigest()
    timer, reused = Timer(), is_whole(path, fingerprint)
    grid, pixel_bytes = header.grid(config), _pixel_bytes(header)
    label_bytes = sum(np.dtype(d).itemsize for d in header.label_dtypes.values())
    read_bytes = 0
    if reused:
        rows, cols = read_keys(str(path))
    else:
        with (
            gdal_environment(),
            SceneReader(scene, header, config.clean) as reader,
            writing(path, layout, max(1, grid.count)) as writer,
        ):
            fill = fills(config.clean, len(header.bands), scene.files[0])
            for window in grid.windows(pixel_bytes + label_bytes, header.block, WINDOW_BYTES):
                space = writer.space(window.count)
                valid = _cut_window(reader, window, config, fill, space, timer)
                with timer("stage"):
                    writer.commit(*window.corners(), valid, valid >= config.clean.min_valid)
                read_bytes += window.count * config.tile.step**2 * pixel_bytes
            with timer("stage"):
                rows, cols = writer.finish(_attributes(scene, header, fingerprint))
    return StagedScene(
        id=scene.id, path=str(path), counts=split_counts(config, scene.id, rows, cols),
        grid_count=grid.count, header=header, files=scene.files, fingerprint=inputs,
        reused=reused, seconds=timer.seconds,
        read_bytes=min(read_bytes, header.height * header.width * pixel_bytes),
        stage_bytes=path.stat().st_size,
    )  # fmt: skip


def split_counts(
    config: Config, scene_id: str, rows: np.ndarray, cols: np.ndarray
) -> dict[str, int]:
    names = list(config.fractions)
    found = np.bincount(split_indexes(config, scene_id, rows, cols), minlength=len(names))
    return dict(zip(names, found.tolist(), strict=True))


def _cut_window(
    reader: SceneReader, window: Window, config: Config, fill: tuple[float, ...],
    space: dict[str, np.ndarray], timer: Timer,
) -> np.ndarray:  # fmt: skip
    """Fills ``space`` with a window's patches; gives the share of valid pixels of each."""
    size = config.tile.size
    with timer("read"):
        pixels, bad = reader.read(window)
    with timer("clean"):
        pixels, valid = clean(pixels, bad, config.clean, fill)
    with timer("tile"):
        cut(pixels, window, size, space["image"])
        share = np.ones(window.count, np.float32)
        if valid is not None:
            patches = np.empty((window.count, size, size, 1), bool)
            cut(valid[None], window, size, patches)
            share = patches.mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)
    with timer("labels"):
        for name, label in config.labels.items():
            mask = reader.read_label(name, window, label.ignore)
            cut(mask, window, size, space[name][..., None])
    return share


def _pixel_bytes(header: SceneHeader) -> int:
    return len(header.bands) * np.dtype(header.dtype).itemsize


def _attributes(scene: SceneFiles, header: SceneHeader, fingerprint: str) -> dict[str, object]:
    return {
        "scene_id": scene.id,
        "crs": header.crs,
        "transform": np.array(header.transform, np.float64),
        "bands": list(header.bands),
        "source": list(scene.files),
        "fingerprint": fingerprint,
    }

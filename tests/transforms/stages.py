"""Planning and staging without a pipeline, and patches put together again, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import DeadLetter, SceneError
from scenefeed.transforms.finding import find_scenes
from scenefeed.transforms.planning import PlannedScene, agree, fit, plan_scene
from scenefeed.transforms.staging import StagedScene, stage_scene


def stage(
    folder: Path, pattern: Any = "*.tif", out: Path | None = None, **config: Any
) -> tuple[list[StagedScene], list[DeadLetter]]:
    """Plans and stages everything that matches; gives (staged, dead letters)."""
    scenes = config.pop("scenes", {})
    if pattern is not None:
        scenes = {"paths": pattern, **scenes}
    parsed = parse({"scenes": scenes, **config}, "test")
    planned = [plan_scene(s, parsed) for s in find_scenes(parsed, folder)]
    good = [p for p in planned if isinstance(p, PlannedScene)]
    dead = [p for p in planned if isinstance(p, DeadLetter)]
    layout, staged = agree(good), []
    target = (out or folder) / "stage"
    target.mkdir(exist_ok=True)
    for scene in good:
        try:
            ready = fit(scene, layout)
            staged.append(stage_scene(ready.scene, ready.header, parsed, str(target)))
        except SceneError as e:
            dead.append(DeadLetter.of(scene.scene.id, e))
    return staged, dead


def mosaic(path: str | Path, name: str = "image") -> np.ndarray:
    """A stage file's patches of an edge-to-edge grid as one array (height, width, ...)."""
    with h5py.File(path) as file:
        rows, cols, patches = file["row"][:], file["col"][:], file[name][:]
    size = patches.shape[1]
    whole = np.zeros((rows.max() + size, cols.max() + size, *patches.shape[3:]), patches.dtype)
    for row, col, patch in zip(rows, cols, patches, strict=True):
        whole[row : row + size, col : col + size] = patch
    return whole


def column(path: str | Path, name: str) -> np.ndarray:
    """A whole column of a stage file."""
    with h5py.File(path) as file:
        return np.asarray(file[name][:])

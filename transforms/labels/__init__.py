"""Kinds of labels, one file each.

``KINDS`` maps what ``kind`` says in the YAML to the section that does it: ours, and those that
others register under the entry point group ``scenefeed.labels``.
"""

from __future__ import annotations

from importlib import metadata

from .base import Burner, Label, MaskBurner
from .points import PointsLabel
from .raster import RasterLabel
from .scene import FilenameLabel, FolderLabel, SceneLabel
from .vector import VectorLabel

KINDS: dict[str, type[Label]] = {
    "raster": RasterLabel,
    "vector": VectorLabel,
    "points": PointsLabel,
    "scene": SceneLabel,
    "filename": FilenameLabel,
    "folder": FolderLabel,
}
for _entry in metadata.entry_points(group="scenefeed.labels"):
    KINDS[_entry.name] = _entry.load()

__all__ = ["KINDS", "Burner", "Label", "MaskBurner"]

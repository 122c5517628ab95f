"""What lies beside the scenes' files: found once, by listing each folder, not by each worker."""

from __future__ import annotations

import dataclasses
import itertools
import os
from bisect import bisect_left
from pathlib import Path

from .errors import ConfigError, describe
from .scenes import SceneFiles
from .sources import read_head
from .storage import is_remote, stamps

# Rasters that are one file, and whose companions are called like it. Not, say, VRTs, whatever they
# are called: the companions of the files that one names lie beside these.
_SINGLE = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG", b"\xff\xd8\xff")


def stamped(scenes: list[SceneFiles]) -> list[SceneFiles]:
    """The scenes with what tells their files from older ones, and whether they are alone.

    Raises:
      ConfigError: a remote folder cannot be listed.
    """
    folders = _Folders()
    watched = []
    for scene in scenes:
        own = {*(a.path for a in scene.assets), *scene.labels.values()}
        watched.append([p for p in scene.watched() if p in own or folders.may_hold(p)])
    try:
        found = stamps(itertools.chain.from_iterable(watched))
    except Exception as e:
        raise ConfigError(f"the scenes' folders cannot be listed: {describe(e)}") from None
    return [
        dataclasses.replace(
            scene,
            stamps={p: found[p] for p in paths if p in found},
            alone=_is_alone(scene, folders),
        )
        for scene, paths in zip(scenes, watched, strict=True)
    ]


def _is_alone(scene: SceneFiles, folders: _Folders) -> bool:
    paths = [*(str(a) for a in scene.assets), *scene.labels.values()]
    return all(a.source == "raster" for a in scene.assets) and all(map(folders.is_alone, paths))


class _Folders(dict[str, list[str] | None]):
    """The names in local folders, in lower case and sorted; None where they cannot be listed."""

    def __missing__(self, folder: str) -> list[str] | None:
        try:
            self[folder] = sorted(name.lower() for name in os.listdir(folder))
        except OSError:
            self[folder] = None
        return self[folder]

    def may_hold(self, path: str) -> bool:
        """Whether a file may be there."""
        if is_remote(path):
            return True
        folder, name = os.path.split(path)
        names = self[folder]
        if names is None:
            return True
        at = bisect_left(names, name.lower())
        return at < len(names) and names[at] == name.lower()

    def is_alone(self, path: str) -> bool:
        """Whether a raster that is one file is the only one in its folder whose name begins like its
        own, up to the suffix: GDAL then finds nothing beside it."""
        name = os.path.basename(path).lower()
        stem, suffix = os.path.splitext(name)
        if suffix not in _SINGLE or is_remote(path):
            return False
        names = self[os.path.dirname(path)] or []
        at, found = bisect_left(names, stem), []
        while at < len(names) and names[at].startswith(stem):
            if not names[at][len(stem) : len(stem) + 1].isalnum():
                found.append(names[at])
            at += 1
        return found == [name] and read_head(Path(path)).startswith(_HEADS)

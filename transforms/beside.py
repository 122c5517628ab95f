"""What lies beside the scenes' files: found once, by listing each folder, not by each worker."""

from __future__ import annotations

import dataclasses
import itertools
import os
from bisect import bisect_left

from .errors import ConfigError, describe
from .scenes import SceneFiles
from .storage import is_remote, stamps

# Rasters that are one file, and whose companions are called like it. Not, say, VRTs: those of the
# files that one names lie beside these.
_SINGLE = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


def stamped(scenes: list[SceneFiles]) -> list[SceneFiles]:
    """The scenes with what tells their files from older ones, and whether they are alone.

    Raises:
      ConfigError: a remote folder cannot be listed.
    """
    folders = _Folders()
    watched = [list(filter(folders.may_hold, scene.watched())) for scene in scenes]
    try:
        found = stamps(itertools.chain.from_iterable(watched))
    except Exception as e:
        raise ConfigError(f"the scenes' folders cannot be listed: {describe(e)}") from None
    return [
        dataclasses.replace(
            scene,
            stamps={p: found[p] for p in paths if p in found},
            alone=all(map(folders.is_alone, _opened(scene))),
        )
        for scene, paths in zip(scenes, watched, strict=True)
    ]


def _opened(scene: SceneFiles) -> list[str]:
    return [*(str(a) for a in scene.assets), *scene.labels.values()]


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
        return found == [name]

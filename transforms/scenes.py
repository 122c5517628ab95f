"""What a scene is before anything is opened: files, a name, and what is known of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping

# What is taken from a folder. A file that is named is tried, whatever its suffix.
RASTER_SUFFIXES = frozenset(
    ".tif .tiff .jp2 .vrt .img .png .jpg .jpeg .nc .h5 .hdf5 .he5 .hdf .bil .bsq .dat .grd "
    ".asc .webp .bmp .ntf .nitf .npy .npz .safe".split()
)
# What a manifest or a file's metadata says of a scene: plain JSON values.
Properties = Mapping[str, str | int | float | bool | None]


# Files beside a raster or a vector file that say something of it: after its whole name, and in
# place of its suffix.
_AFTER = (".aux.xml", ".msk", ".ovr")
_INSTEAD = (".hdr", ".tfw", ".pgw", ".jgw", ".wld", ".prj", ".dbf", ".shx", ".cpg")


@dataclasses.dataclass(frozen=True)
class Asset:
    """Where pixels are.

    Attributes:
      path: a file or folder, absolute.
      part: which part of it: a subdataset, an array, a record; "" for the whole.
      source: the name of the source that opens it.
    """

    path: str
    part: str = ""
    source: str = "raster"

    def __str__(self) -> str:
        return f"{self.path}#{self.part}" if self.part else self.path


@dataclasses.dataclass(frozen=True)
class SceneFiles:
    """One scene before anything is opened.

    Attributes:
      id: unique in the dataset; names the stage file.
      assets: one with all bands, or one a band.
      bands: the assets' band names where there is one asset a band, else empty.
      labels: label name to path, for labels that come from files.
      properties: what is known of it beside pixels; ``time`` is the acquisition's, ISO 8601, UTC.
      problem: why it cannot be used, where that is known already.
      stamps: of the files that are there, what tells their content from an older one's.
      alone: whether nothing beside its local files can say anything of them, by its name.
    """

    id: str
    assets: tuple[Asset, ...]
    bands: tuple[str, ...] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    properties: Properties = dataclasses.field(default_factory=dict)
    problem: str = ""
    stamps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    alone: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(str(a) for a in self.assets)

    @property
    def remote(self) -> bool:
        """Whether any of its files is reached over a network."""
        return any("://" in path for path in (*self.files, *self.labels.values()))

    @property
    def has_sidecars(self) -> bool:
        """Whether files were found beside its own remote ones, such as masks."""
        return bool(self.stamps.keys() - {a.path for a in self.assets} - {*self.labels.values()})

    def watched(self) -> list[str]:
        """The files whose change makes this another scene: its own, its labels', and those beside
        them that GDAL takes masks and metadata from."""
        found = []
        for path in (*(a.path for a in self.assets), *self.labels.values()):
            stem = os.path.splitext(path)[0]
            found += [path, *(f"{path}{s}" for s in _AFTER), *(f"{stem}{s}" for s in _INSTEAD)]
        return found

    def fingerprint(self, config_digest: str) -> str:
        """sha256 over the configuration, the properties, and each file's path and stamp.

        Content is not read: that would cost as much as converting. A file that is missing has
        no stamp, so that its arrival changes the fingerprint.
        """
        lines = [config_digest, self.id, json.dumps(dict(self.properties), sort_keys=True)]
        lines += [f"{a} {a.source}" for a in self.assets]
        lines += [*self.labels.values(), *(f"{p} {s}" for p, s in self.stamps.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

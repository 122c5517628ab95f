"""Finding scenes by their file names: which files form which scene, under which id."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .config import Config, ConfigError

RASTER_SUFFIXES = frozenset(
    ".tif .tiff .jp2 .vrt .img .png .jpg .jpeg .nc .h5 .hdf5 .he5 .hdf .bil .bsq .dat .grd "
    ".asc .webp .bmp .ntf .nitf".split()
)
MANIFEST_SUFFIXES = frozenset((".csv", ".jsonl", ".geojson", ".json"))


@dataclasses.dataclass(frozen=True)
class SceneFiles:
    """One scene before anything is opened.

    Attributes:
      id: unique in the dataset; names the stage file.
      files: raster paths, absolute; one multi-band file, or one a band.
      bands: the files' band names where the configuration gives one file a band, else empty.
      labels: label name to raster path.
      problem: why it cannot be used, where the names alone tell.
    """

    id: str
    files: tuple[str, ...]
    bands: tuple[str, ...]
    labels: dict[str, str]
    problem: str = ""

    def fingerprint(self, config_digest: str) -> str:
        """sha256 over the configuration and each file's path, size and time of change, those of
        the files beside it included that GDAL takes masks and metadata from.

        Content is not read: that would cost as much as converting. A file that is missing
        counts as such, so that its arrival changes the fingerprint.
        """
        lines = [config_digest, self.id]
        for path in (*self.files, *self.labels.values()):
            beside = (f"{path}.aux.xml", f"{path}.msk", f"{os.path.splitext(path)[0]}.hdr")
            for each in (path, *beside):
                try:
                    found = os.stat(each)
                    lines.append(f"{each} {found.st_size} {found.st_mtime_ns}")
                except OSError:
                    lines.append(f"{each} absent")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_scenes(config: Config, base: Path) -> list[SceneFiles]:
    """All scenes of a configuration, sorted by id so that nothing depends on directory order.

    Args:
      config: what to look for.
      base: the folder that the configuration's paths are relative to.

    Raises:
      ConfigError: nothing matches, a folder holds no rasters, an id cannot be told or is not
        unique, or a scene lacks a band's file.
    """
    bands = config.scenes.bands
    problems: dict[str, str] = {}
    if isinstance(bands, dict):
        scenes, problems = _one_file_a_band(config, bands, base)
    else:
        scenes = {}
        for path in _expand(config.scenes.paths, base):
            scene_id = _scene_id(config.scenes.id, path)
            if scene_id in scenes:
                raise ConfigError(
                    f"two scenes have the id {scene_id!r}: {scenes[scene_id][0]} and {path}: "
                    "rename one, or tell them apart with scenes.id"
                )
            scenes[scene_id] = (str(path),)
    return [
        SceneFiles(
            id=scene_id,
            files=files,
            bands=tuple(bands) if isinstance(bands, dict) else (),
            labels={
                name: str(base / label.path.replace("{id}", scene_id))
                for name, label in config.labels.items()
            },
            problem=problems.get(scene_id, ""),
        )
        for scene_id, files in sorted(scenes.items())
    ]


def _one_file_a_band(
    config: Config, bands: Mapping[str, str], base: Path
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Groups files by what the band's pattern leaves open (or by scenes.id). Gives each scene's
    files, and what is wrong with those that lack one."""
    found: dict[str, dict[str, Path]] = {}
    candidates = _expand(config.scenes.paths, base) if config.scenes.paths else None
    for band, pattern in bands.items():
        files = candidates if candidates is not None else _expand([pattern], base)
        name_pattern = os.path.basename(pattern)
        for path in (p for p in files if fnmatch.fnmatchcase(p.name, name_pattern)):
            if config.scenes.id:
                scene_id = _scene_id(config.scenes.id, path)
            else:
                scene_id = _open_part(name_pattern, path.name)
            group = found.setdefault(scene_id, {})
            if band in group:
                raise ConfigError(
                    f"scene {scene_id!r} has two files for band {band}: {group[band]} and {path}: "
                    f"make the pattern {pattern!r} narrower"
                )
            group[band] = path
    if not found:
        raise ConfigError(f"no file matches the band patterns {', '.join(bands.values())}")
    problems = {}
    for scene_id, group in found.items():
        missing = [b for b in bands if b not in group]
        if missing:
            pattern = bands[missing[0]]
            problems[scene_id] = f"has no file for band {', '.join(missing)} (pattern {pattern!r})"
    grouped = {i: tuple(str(g[b]) for b in bands if b in g) for i, g in found.items()}
    return grouped, problems


def _open_part(pattern: str, name: str) -> str:
    """What the pattern's wildcards matched: ``*_vv.tif`` and ``a_vv.tif`` give ``a``."""
    regex = re.sub(r"\\\*", "(.*)", re.escape(pattern)).replace(r"\?", "(.)")
    match = re.fullmatch(regex, name)
    parts = [g for g in match.groups() if g] if match else []
    return "_".join(p.strip("_-. ") or p for p in parts) or Path(name).stem


def _scene_id(regex: str | None, path: Path) -> str:
    if regex is None:
        return path.stem
    match = re.fullmatch(regex, path.stem) or re.search(regex, path.stem)
    if match is None or not match.group(1):
        raise ConfigError(
            f"{path}: scenes.id {regex!r} does not match its stem {path.stem!r}: "
            "widen the regular expression, or narrow scenes.paths"
        )
    if "/" in match.group(1) or match.group(1).startswith("."):
        raise ConfigError(f"{path}: the id {match.group(1)!r} cannot be a file name")
    return match.group(1)


def _expand(patterns: Iterable[str], base: Path) -> list[Path]:
    """Files behind paths, globs and folders, each once, sorted.

    Raises:
      ConfigError: one of them yields nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = base / Path(pattern).expanduser()
        if path.is_dir():
            files = _rasters_in(path)
        elif path.is_file():
            files = [path]
        elif glob.has_magic(pattern):
            absolute = os.path.isabs(pattern)
            full = pattern if absolute else os.path.join(glob.escape(str(base)), pattern)
            matches = (Path(p) for p in glob.glob(os.path.expanduser(full), recursive=True))
            files = sorted(p for p in matches if p.is_file())
            if not files:
                where = "" if absolute else f" (looked in {base})"
                raise ConfigError(f"no scene matches {pattern!r}{where}")
        else:
            raise ConfigError(f"no such file or folder: {path}: give a raster, a folder or a glob")
        for file in files:
            if file.suffix.lower() in MANIFEST_SUFFIXES:
                raise ConfigError(
                    f"{file}: manifests are not read by this version: "
                    "give the rasters as paths, globs or a folder"
                )
            found[Path(os.path.abspath(file))] = None
    if not found:
        raise ConfigError("no scenes: give paths after `convert`, or scenes.paths in --config")
    return sorted(found)


def _rasters_in(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir())
    files = [p for p in entries if p.is_file()]
    rasters = [p for p in files if p.suffix.lower() in RASTER_SUFFIXES]
    if not rasters:
        inside = [p.name for p in entries if p.is_dir()]
        hint = f", beside {len(inside)} folders: try '{folder}/**/*.tif'" if inside else ""
        raise ConfigError(
            f"{folder}: no rasters among its {len(files)} files{hint} "
            f"(known suffixes: {' '.join(sorted(RASTER_SUFFIXES))}; name a file to have it tried)"
        )
    return rasters

"""Finding scenes: files, folders and manifests to scenes, each under its id."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .beside import stamped
from .config import Config
from .errors import ConfigError, describe
from .manifests import MANIFEST_SUFFIXES, Row, is_manifest, read_manifest
from .scenes import RASTER_SUFFIXES, Asset, SceneFiles
from .sections import Scenes
from .sources import read_head, source_of
from .storage import absolute, files_in, glob_remote, is_remote, path_of
from .values import parse_time

# These are taken from a folder where a source other than GDAL's claims them.
_PERHAPS = frozenset((".zip", ".json"))


def find_scenes(config: Config, base: Path) -> list[SceneFiles]:
    """All scenes of a configuration, sorted by id so that nothing depends on directory order.

    Args:
      config: what to look for.
      base: the folder that the configuration's paths are relative to.

    Raises:
      ConfigError: nothing matches, a folder holds no rasters, or an id cannot be told or is not
        unique.
    """
    if isinstance(config.scenes.bands, dict):
        found = _one_file_a_band(config.scenes, config.scenes.bands, base)
    else:
        paths = _expand(config.scenes.paths, base)
        found = [scene for path in paths for scene in _scenes_at(path, config.scenes)]
    scenes: dict[str, SceneFiles] = {}
    for scene in map(_with_usable_id, found):
        if scene.id in scenes:
            first, second = (_where(s) for s in (scenes[scene.id], scene))
            raise ConfigError(
                f"two scenes have the id {scene.id!r}: {first} and {second}: rename one, or tell "
                "them apart with scenes.id (a regular expression with a slash, '([^/]+/[^/]+)$', "
                "sees folders too)"
            )
        scenes[scene.id] = _complete(scene, config, base)
    return stamped([scene for _, scene in sorted(scenes.items())])


def _where(scene: SceneFiles) -> str:
    return scene.files[0] if scene.assets else "a row without a file"


def _with_usable_id(scene: SceneFiles) -> SceneFiles:
    """The scene; one whose id cannot name a file gets a like one, and a problem."""
    if scene.id and "/" not in scene.id and scene.id[0] != "." and len(scene.id) <= 200:
        return scene
    like = scene.id.replace("/", "-").lstrip(".")[:150]
    number = hashlib.sha256(scene.id.encode()).hexdigest()[:8]
    problem = scene.problem or (
        f"the id {scene.id[:80]!r} cannot be a file name: rename it, or give another one "
        "(scenes.id, or scenes.columns.id of a manifest)"
    )
    return dataclasses.replace(scene, id=f"{like}-{number}", problem=problem)


def _complete(scene: SceneFiles, config: Config, base: Path) -> SceneFiles:
    """The scene with its acquisition's time and its labels' paths."""
    properties, problem = dict(scene.properties), scene.problem
    if config.scenes.time and scene.assets:
        stem = Path(scene.assets[0].path).stem
        match = re.search(config.scenes.time, stem)
        time = parse_time(match.group(1)) if match and match.group(1) else None
        if time is None:
            problem = problem or f"scenes.time {config.scenes.time!r} finds no time in {stem!r}"
        properties["time"] = time
    labels = {}
    for name, label in config.labels.items():
        template = getattr(label, "path", None)
        if template is None:
            continue
        values = {"id": scene.id, **properties}
        lacking = [k for k in re.findall(r"{(\w+)}", template) if values.get(k) is None]
        if lacking:
            problem = problem or f"has no {lacking[0]!r}, which labels.{name}.path names"
        path = template
        for key in re.findall(r"{(\w+)}", template):
            path = path.replace(f"{{{key}}}", str(values.get(key)))
        labels[name] = absolute(path_of(path, base))
    return dataclasses.replace(scene, labels=labels, properties=properties, problem=problem)


def _scenes_at(path: Path, scenes: Scenes) -> Iterator[SceneFiles]:
    """The scenes of one file or folder, or those that a manifest lists."""
    source = source_of(path)
    perhaps = source.name == "raster" and path.suffix.lower() in MANIFEST_SUFFIXES
    if perhaps and not path.is_dir() and is_manifest(path, read_head(path)):
        bands = scenes.bands if isinstance(scenes.bands, tuple) else None
        for row in read_manifest(path, scenes.columns, bands):
            yield from _scenes_of_row(row, path, scenes)
        return
    found = source.find(path, scenes)
    for scene in found:
        one = len(found) == 1 and scenes.id is not None
        yield dataclasses.replace(scene, id=scene_id(scenes.id, path)) if one else scene


def _scenes_of_row(row: Row, manifest: Path, scenes: Scenes) -> Iterator[SceneFiles]:
    if row.problem:
        name = row.id or f"{manifest.stem}-line-{row.line}"
        asset = Asset(str(manifest), f"line {row.line}")
        yield SceneFiles(name, (asset,), properties=row.properties, problem=row.problem)
    elif row.bands:
        paths = [path_of(p) for p in row.bands.values()]
        assets = tuple(Asset(str(p), source=source_of(p).name) for p in paths)
        name = row.id or scene_id(scenes.id, paths[0])
        yield SceneFiles(name, assets, tuple(row.bands), properties=row.properties)
    elif row.path:
        path = path_of(row.path)
        for scene in source_of(path).find(path, scenes):
            properties = {**scene.properties, **row.properties}
            yield dataclasses.replace(scene, id=row.id or scene.id, properties=properties)


def _one_file_a_band(scenes: Scenes, bands: Mapping[str, str], base: Path) -> list[SceneFiles]:
    """Groups files by what the band's pattern leaves open (or by scenes.id). What follows a
    ``#`` in a pattern is the part of the file: a subdataset, an array."""
    found: dict[str, dict[str, Asset]] = {}
    candidates = _expand(scenes.paths, base) if scenes.paths else None
    for band, whole in bands.items():
        pattern, _, part = whole.partition("#")
        files = candidates if candidates is not None else _expand([pattern], base)
        name_pattern = os.path.basename(pattern)
        for path in (p for p in files if fnmatch.fnmatchcase(p.name, name_pattern)):
            own = scene_id(scenes.id, path) if scenes.id else None
            name = own or _open_part(name_pattern, path.name)
            group = found.setdefault(name, {})
            if band in group:
                raise ConfigError(
                    f"scene {name!r} has two files for band {band}: {group[band].path} and {path}: "
                    f"make the pattern {pattern!r} narrower"
                )
            group[band] = Asset(str(path), part, source_of(path).name)
    if not found:
        raise ConfigError(f"no file matches the band patterns {', '.join(bands.values())}")
    return [_grouped(name, group, bands) for name, group in found.items()]


def _grouped(name: str, group: Mapping[str, Asset], bands: Mapping[str, str]) -> SceneFiles:
    missing = [b for b in bands if b not in group]
    there = [b for b in bands if b in group]
    problem = ""
    if missing:
        pattern = bands[missing[0]]
        problem = f"has no file for band {', '.join(missing)} (pattern {pattern!r})"
        if not glob.has_magic(pattern):
            problem += ": put a * where the scene's name stands, or give scenes.id"
    return SceneFiles(name, tuple(group[b] for b in there), tuple(there), problem=problem)


def _open_part(pattern: str, name: str) -> str:
    """What the pattern's wildcards matched: ``*_vv.tif`` and ``a_vv.tif`` give ``a``."""
    regex = re.sub(r"\\\*", "(.*)", re.escape(pattern)).replace(r"\?", "(.)")
    match = re.fullmatch(regex, name)
    parts = [g for g in match.groups() if g] if match else []
    return "_".join(p.strip("_-. ") or p for p in parts) or Path(name).stem


def scene_id(regex: str | None, path: Path) -> str:
    """A scene's id by its path: the stem, or what the regular expression's group 1 matches of
    it; of the whole path without suffix, slashes as hyphens, where the expression has a slash.

    Raises:
      ConfigError: it does not match.
    """
    if regex is None:
        return path.stem
    text = str(path.with_suffix("")) if "/" in regex else path.stem
    match = re.fullmatch(regex, text) or re.search(regex, text)
    if match is None or not match.group(1):
        raise ConfigError(
            f"{path}: scenes.id {regex!r} does not match its stem {path.stem!r}: "
            "widen the regular expression, or narrow scenes.paths"
        )
    return match.group(1).strip("/").replace("/", "-")


def _expand(patterns: Iterable[str], base: Path) -> list[Path]:
    """Files behind paths, globs and folders, each once, sorted.

    Raises:
      ConfigError: one of them yields nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = path_of(pattern, base)
        if is_remote(pattern):
            files = _expand_remote(path)
        elif path.is_dir():
            files = [path] if source_of(path).name != "raster" else _rasters_in(path)
        elif path.is_file():
            files = [path]
        elif glob.has_magic(pattern):
            rooted = os.path.isabs(pattern)
            full = pattern if rooted else os.path.join(glob.escape(str(base)), pattern)
            matches = (Path(p) for p in glob.glob(os.path.expanduser(full), recursive=True))
            files = sorted(p for p in matches if p.is_file() or _is_product(p))
            if not files:
                where = "" if rooted else f" (looked in {base})"
                raise ConfigError(f"no scene matches {pattern!r}{where}")
        else:
            raise ConfigError(f"no such file or folder: {path}: give a raster, a folder or a glob")
        found |= dict.fromkeys(path_of(absolute(file)) for file in files)
    if not found:
        raise ConfigError("no scenes: give paths after `convert`, or scenes.paths in --config")
    return sorted(found, key=str)


def _expand_remote(path: Path) -> list[Path]:
    """The files behind a URL: those that it matches, or the rasters in it.

    Raises:
      ConfigError: there are none, or they cannot be listed.
    """
    try:
        if glob.has_magic(str(path)):
            files = [path_of(url) for url in glob_remote(str(path))]
        elif path.is_dir():
            files = [p for p in files_in(path) if p.suffix.lower() in RASTER_SUFFIXES]
        else:
            files = [path] if path.exists() else []
    except Exception as e:  # each driver has its own, for missing credentials too
        raise ConfigError(f"{path}: cannot be listed: {describe(e)}") from None
    if not files:
        raise ConfigError(f"{path}: no scene there: give a raster, a folder or a glob in quotes")
    return files


def _is_product(path: Path) -> bool:
    """Whether a folder is a scene by itself, as SAFE folders are."""
    return path.is_dir() and source_of(path).name != "raster"


def _rasters_in(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir())
    # A hidden file is another system's note about a file, or one that is being written.
    files = [p for p in entries if p.is_file() and not p.name.startswith(".")]
    rasters = [p for p in files if p.suffix.lower() in RASTER_SUFFIXES]
    rasters += [
        p for p in files if p.suffix.lower() in _PERHAPS and source_of(p).name != "raster"
    ]  # fmt: skip
    rasters += [p for p in entries if _is_product(p)]
    if not rasters:
        inside = [p.name for p in entries if p.is_dir()]
        hint = f", beside {len(inside)} folders: try '{folder}/**/*.tif'" if inside else ""
        raise ConfigError(
            f"{folder}: no rasters among its {len(files)} files{hint} "
            f"(known suffixes: {' '.join(sorted(RASTER_SUFFIXES))}; name a file to have it tried)"
        )
    return rasters

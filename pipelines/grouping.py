"""Groups of scenes whose counts tf.Transform's cache holds as one sum.

Scenes that are added make a new group, so that no other is counted again. What cannot be read, or
is of another version, counts for nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..transforms.config import Config
from ..transforms.staging import StagedScene
from ..transforms.statistics.partial import Partial
from ..transforms.storage import get_folder, names_in, path_of, remove

GROUPS = "groups.json"
MOST_GROUPS = 32
# To be raised when scenes are counted otherwise than before.
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Group:
    """Scenes, by what decides their counts. ``fresh`` are those to be counted: all or none."""

    tokens: tuple[str, ...]
    fresh: tuple[StagedScene, ...]


def group_scenes(
    held: Path, config: Config, scenes: Sequence[StagedScene], cache: Path
) -> dict[str, Group]:
    """All scenes in groups, by name.

    Args:
      held: the dataset's cache, which need not be there.
      config: the configuration.
      scenes: of the dataset.
      cache: a local folder that gets what is used of it, and the list of groups.
    """
    tokens = {_token(scene, config): scene for scene in scenes}
    kept = {
        name: Group(tuple(listed), ())
        for name, listed in _known(held, cache).items()
        if tokens.keys() >= set(listed) and _is_whole(cache / name)
    }
    if len(kept) >= MOST_GROUPS:
        kept = {}
    done = {token for group in kept.values() for token in group.tokens}
    fresh = {token: scene for token, scene in tokens.items() if token not in done}
    if fresh:
        name = hashlib.sha256("".join(sorted(fresh)).encode()).hexdigest()[:16]
        kept[name] = Group(tuple(sorted(fresh)), tuple(fresh.values()))
    for name in names_in(cache):
        if name not in kept or kept[name].fresh:
            remove(cache / name)
    listed = {name: group.tokens for name, group in kept.items()}
    (cache / GROUPS).write_text(json.dumps(listed, indent=2) + "\n")
    return kept


def _known(held: Path, cache: Path) -> dict[str, list[str]]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads((held / GROUPS).read_text())
        get_folder(held, cache)
        if isinstance(known, dict) and all(isinstance(v, list) for v in known.values()):
            return known
    cache.mkdir(exist_ok=True)
    return {}


def _is_whole(folder: Path) -> bool:
    """Whether a group's folder holds one sum, under the name that tf.Transform has for it."""
    names = names_in(folder)
    try:
        (name,) = names
        bytes.fromhex(name)
        Partial.from_bytes((folder / name).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return False
    return True


def _token(scene: StagedScene, config: Config) -> str:
    """What decides a scene's counts: its patches, and which of them are for training."""
    whole = config.resolved()
    chosen = [whole["sample"], whole["split"], whole["records"]["seed"], scene.counts]
    if path := whole["split"] and whole["split"].get("path"):
        chosen.append(hashlib.sha256(path_of(path).read_bytes()).hexdigest())
    versions = [_VERSION, metadata.version("tensorflow-transform")]
    parts: list[Any] = [scene.id, scene.fingerprint, scene.content, scene.header.to_json()]
    parts += [chosen, versions]
    if config.sample.balance:
        parts.append(sorted((k, sorted(v.items())) for k, v in scene.rates.items()))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]

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
from collections.abc import Set
from pathlib import Path

from ..transforms.config import Config
from ..transforms.statistics.counting import Counting
from ..transforms.statistics.partial import Partial
from ..transforms.storage import get_folder, join, names_in, remove
from .results import CACHE, COUNTS

GROUPS = "groups.json"
MOST_GROUPS = 32


@dataclasses.dataclass(frozen=True)
class Group:
    """Scenes, by what decides their counts; the cache has the sum of theirs, or it is wanted."""

    tokens: tuple[str, ...]
    fresh: bool


def group_scenes(held: Path, tokens: Set[str], cache: Path) -> dict[str, Group]:
    """All scenes in groups, by name.

    Args:
      held: the dataset's cache, which need not be there.
      tokens: of the dataset's scenes, each what decides its counts.
      cache: a local folder that gets what is used of it, and the list of groups.
    """
    kept = {
        name: Group(tuple(listed), False)
        for name, listed in _known(held, cache).items()
        if tokens >= set(listed) and _is_whole(cache / name)
    }
    if len(kept) >= MOST_GROUPS:
        kept = {}
    fresh = sorted(tokens - {token for group in kept.values() for token in group.tokens})
    if fresh:
        name = hashlib.sha256("".join(fresh).encode()).hexdigest()[:16]
        kept[name] = Group(tuple(fresh), True)
    for name in names_in(cache):
        if name not in kept or kept[name].fresh:
            remove(cache / name)
    listed = {name: group.tokens for name, group in kept.items()}
    (cache / GROUPS).write_text(json.dumps(listed, indent=2) + "\n")
    return kept


def counting_of(out: Path, config: Config) -> Counting:
    """What has a conversion count its scenes while it goes on: the statistics then find them
    counted. Those that the dataset's cache holds are left out."""
    counting = Counting.of(join(str(out), COUNTS), config)
    return dataclasses.replace(counting, held=held_tokens(out / CACHE))


def held_tokens(held: Path) -> frozenset[str]:
    """Those of scenes that a dataset's cache seems to hold."""
    return frozenset(token for listed in _listed(held).values() for token in listed)


def _listed(held: Path) -> dict[str, list[str]]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads((held / GROUPS).read_text())
        if isinstance(known, dict) and all(map(_are_tokens, known.values())):
            return known
    return {}


def _are_tokens(listed: object) -> bool:
    return isinstance(listed, list) and all(isinstance(token, str) for token in listed)


def _known(held: Path, cache: Path) -> dict[str, list[str]]:
    listed = _listed(held)
    with contextlib.suppress(OSError):
        if listed:
            get_folder(held, cache)
            return listed
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

"""Assigning patches to shards. Keys and pointers only: no pixels come through here."""

from __future__ import annotations

import dataclasses
import operator
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from .choosing import Choice
from .config import Config
from .hashing import key_hash, shuffle_order
from .stagefile import Contents
from .staging import StagedScene

# How many stage files one shard may draw from. Past it, scenes form groups with shards of their
# own, so that opening files costs (shards x this), not (shards x scenes).
MAX_FILES_PER_SHARD = 128


@dataclasses.dataclass(frozen=True)
class ShardRange:
    """A run of a split's shards that one group of scenes is spread over."""

    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A split's shards: how many, and which of them each scene is spread over."""

    num_shards: int
    ranges: tuple[ShardRange, ...]
    group_of: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Pointers:
    """Patches of one stage file that go to one shard.

    Attributes:
      scene_id: the scene.
      path: its stage file.
      rows, cols: their corners, int32 (N,).
      order: each patch's place in the global shuffle, uint64 (N,).
      offsets: by tensor, where each patch's bytes begin in the file, int64 (N,).
      values: each scalar's values (N,).
      texts: scalars that are the same text for the whole scene.
    """

    scene_id: str
    path: str
    rows: np.ndarray
    cols: np.ndarray
    order: np.ndarray
    offsets: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def pack(self, seed: int | None = None) -> bytes:
        """As few bytes as can be: of thousands of patches 3 to 7 each, of thirty 16. A runner in one
        process holds a dozen copies of what it hands on.

        Args:
          seed: of the shuffle that ``order`` is of, which then is not packed.
        """
        offsets = {k: _steps(v) for k, v in self.offsets.items()}
        state = vars(self) | {"rows": _steps(self.rows), "cols": _steps(self.cols)}
        state |= {"offsets": offsets, "seed": seed}
        if seed is not None:
            del state["order"]
        return zlib.compress(pickle.dumps(state), level=1)

    @classmethod
    def unpack(cls, packed: bytes) -> Pointers:
        """What ``pack`` was called on."""
        state = pickle.loads(zlib.decompress(packed))
        seed = state.pop("seed")
        for name in ("rows", "cols"):
            state[name] = _summed(state[name])
        state["offsets"] = {k: _summed(v) for k, v in state["offsets"].items()}
        if seed is not None:
            state["order"] = shuffle_order(seed, state["scene_id"], state["rows"], state["cols"])
        return cls(**state)


def _steps(values: np.ndarray) -> np.ndarray:
    """From each value to the next, which are few different ones where values follow a grid."""
    found = values.copy()
    found[1:] -= values[:-1]
    return found


def _summed(steps: np.ndarray) -> np.ndarray:
    return np.cumsum(steps, dtype=steps.dtype)


def plan_shards(
    counts: Mapping[str, Mapping[str, int]], record_bytes: int, config: Config
) -> dict[str, SplitPlan]:
    """Decides the shards of every split that has patches.

    Args:
      counts: scene id to patches per split.
      record_bytes: bytes of one record.
      config: ``records.num_shards`` is exact, for each split; else ``records.shard_mb`` decides.
    """
    records, plans = config.records, {}
    for split in config.splits:
        scenes = {i: c[split] for i, c in counts.items() if c.get(split)}
        total = sum(scenes.values())
        if not total:
            continue
        by_size = -(-total * record_bytes // max(1, int(records.shard_mb * 1e6)))
        # Enough that no shard draws from too many stage files, also where scenes are small.
        by_files = -(-len(scenes) // MAX_FILES_PER_SHARD)
        shards = records.num_shards or max(1, min(total, max(by_size, by_files), 99999))
        plans[split] = spread(scenes, shards, records.seed)
    return plans


def spread(scenes: Mapping[str, int], shards: int, seed: int) -> SplitPlan:
    """Groups scenes (in an order drawn by hash), and gives each group shards by its patches."""
    number = min(shards, -(-len(scenes) // MAX_FILES_PER_SHARD))
    drawn = sorted(scenes, key=lambda i: (key_hash(seed, "group", i), i))
    members = [drawn[g::number] for g in range(number)]
    sizes = np.array([sum(scenes[i] for i in m) for m in members], np.float64)
    # One shard each, the others by largest remainder.
    share = sizes / sizes.sum() * (shards - number)
    given = np.floor(share).astype(int)
    for g in np.argsort(given - share, kind="stable")[: shards - number - given.sum()]:
        given[g] += 1
    given += 1
    first = np.concatenate(([0], np.cumsum(given)[:-1]))
    return SplitPlan(
        num_shards=shards,
        ranges=tuple(ShardRange(int(f), int(n)) for f, n in zip(first, given, strict=True)),
        group_of={i: g for g, m in enumerate(members) for i in m},
    )


def assign_scene(
    scene: StagedScene, choice: Choice, plans: Mapping[str, SplitPlan],
    found: Contents, config: Config,
) -> Iterator[tuple[str, int, Pointers]]:  # fmt: skip
    """Yields (split, shard, pointers) for one scene.

    A patch's place is a 64-bit hash of (seed, key): its upper half chooses the shard among its
    group's, the whole orders records within the shard.

    Args:
      scene: the scene.
      choice: its patches' splits.
      plans: every split's shards.
      found: what its stage file holds.
      config: the configuration.
    """
    rows, cols = choice.rows, choice.cols
    order = shuffle_order(config.records.seed, scene.id, rows, cols)
    for number, split in enumerate(config.splits):
        index = np.flatnonzero(choice.splits == number)
        if not len(index):
            continue
        span = plans[split].ranges[plans[split].group_of[scene.id]]
        drawn = (order[index] >> np.uint64(32)) * np.uint64(span.count) >> np.uint64(32)
        for shard in np.unique(drawn).tolist():
            at = index[drawn == shard]
            pointers = Pointers(
                scene.id, scene.path, rows[at], cols[at], order[at],
                {k: v[at] for k, v in found.offsets.items()},
                {k: v[at] for k, v in found.values.items()}, found.texts,
            )  # fmt: skip
            yield split, span.first + shard, pointers


class Ordered:
    """A shard's patches in the global shuffle's order, by columns.

    Ties of the 64-bit hash fall to the scene's id, then the corner, so that neither the order of
    arrival nor that of a stage file ever shows.

    Attributes:
      groups: the shard's pointers, by scene.
      source: which of the groups each patch is of, intp (N,).
    """

    def __init__(self, pointers: Iterable[Pointers]):
        self.groups = sorted(pointers, key=lambda p: p.scene_id)
        counts = [len(p.rows) for p in self.groups]
        source = np.repeat(np.arange(len(self.groups)), counts)
        rows, cols, order = (
            self._joined(operator.attrgetter(k)) for k in ("rows", "cols", "order")
        )
        self._order = np.lexsort((cols, rows, source, order))
        self.source = source[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def column(self, of: Callable[[Pointers], np.ndarray]) -> np.ndarray:
        """One array (N,) of the groups' own."""
        return self._joined(of)[self._order]

    def _joined(self, of: Callable[[Pointers], np.ndarray]) -> np.ndarray:
        return np.concatenate([of(p) for p in self.groups]) if self.groups else np.empty(0, np.intp)

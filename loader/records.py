"""What a feed by index draws from: one dataset's records or several's, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .options import Options, by_label
from .order import Group, Order, Share, uniform
from .reader import Reader
from .shaping import DRAWS, Shaping, class_id
from .spec import DatasetError, DatasetSpec
from .stage import StageReader

Paths = str | Path | Sequence[str | Path]


class Source(Protocol):
    """Records by index: ``Reader``, ``StageReader``, or several of them in a row."""

    spec: DatasetSpec
    names: list[str]

    def __len__(self) -> int: ...

    def batch(
        self, indices: np.ndarray, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]: ...

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]: ...

    def damage(self, indices: np.ndarray) -> dict[int, str]: ...


class Joined:
    """Several sources in a row, whose features agree."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self.spec, self.names = sources[0].spec, sources[0].names
        self._ends = np.cumsum([len(s) for s in sources])
        for other in sources[1:]:
            for name in self.names:
                mine, theirs = self.spec.features[name], other.spec.features.get(name)
                if theirs is None or (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
                    raise DatasetError(
                        f"datasets {self.spec.name!r} and {other.spec.name!r} cannot be fed "
                        f"together: feature {name!r} differs; choose others with features=[...]"
                    )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(
        self, indices: np.ndarray, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        parts = [(at, s.batch(own, names)) for s, at, own in self._split(indices)]
        out: dict[str, np.ndarray] = {}
        for at, part in parts:
            for name, values in part.items():
                if name not in out:
                    out[name] = np.empty((len(indices), *values.shape[1:]), values.dtype)
                out[name][at] = values
        return out

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        parts = [s.columns(names) for s in self._sources]
        return {name: np.concatenate([p[name] for p in parts]) for name in names}

    def damage(self, indices: np.ndarray) -> dict[int, str]:
        firsts = self._ends - [len(s) for s in self._sources]
        found: dict[int, str] = {}
        for (source, _, own), first in zip(
            self._split(indices, every=True), firsts.tolist(), strict=True
        ):
            found |= {number + first: words for number, words in source.damage(own).items()}
        return found

    def _split(
        self, indices: np.ndarray, every: bool = False
    ) -> list[tuple[Source, np.ndarray, np.ndarray]]:
        """Each source with the places of its records in the batch, and their own numbers."""
        which = np.searchsorted(self._ends, indices, side="right")
        out = []
        for number, source in enumerate(self._sources):
            at = np.flatnonzero(which == number)
            if len(at) or every:
                first = self._ends[number] - len(source)
                out.append((source, at, indices[at] - first))
        return out


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch as decoded: ``values``, what its augmentation draws, records left out."""

    values: dict[str, np.ndarray]
    draws: np.ndarray
    skipped: int


@dataclasses.dataclass(frozen=True)
class Stretch:
    """What a feed has before it of one epoch.

    Attributes:
      epoch: its number.
      at: what was done of it before, in the feed's units.
      steps: batches of this worker; at most so many, where only reading tells.
    """

    epoch: int
    at: tuple[int, ...]
    steps: int


class Draw(Protocol):
    """What feeds make their batches of: ``Records`` by index, or a ``Stream``."""

    units: tuple[str, ...]
    identity: dict[str, Any]
    options: Options
    share: Share
    names: list[str]

    @property
    def spec(self) -> DatasetSpec: ...

    def shaping(self) -> Shaping: ...

    def stretch(self, epoch: int, done: dict[str, int]) -> Stretch: ...

    def length(self) -> int: ...

    def after(self, stretch: Stretch, step: int) -> tuple[int, ...]: ...

    def batch(self, stretch: Stretch, step: int) -> Batch | None: ...


class Records:
    """A split's records in a feed's order.

    Args:
      path: a dataset's folder or URL, or several of them.
      split: which split; None for ``train``, or for all of the stage files.
      options: the feed's.
      stage: read the stage files instead of the shards.

    Raises:
      DatasetError: a dataset cannot be read, or an option does not fit it.
    """

    units: tuple[str, ...] = ("records",)

    def __init__(self, path: Paths, split: str | None, options: Options, stage: bool = False):
        paths = [path] if isinstance(path, (str, Path)) else list(path)
        sources = [_open(p, split, options, stage) for p in paths]
        self.source: Source = sources[0] if len(sources) == 1 else Joined(sources)
        self.identity = {
            "dataset": "+".join(s.spec.fingerprint[:16] for s in sources),
            "source": "stage" if stage else "index",
            "split": split or ("all" if stage else "train"),
            "seed": options.seed, "shuffle": options.shuffle,
        }  # fmt: skip
        self.share: Share = options.share()
        self.names = self.source.names
        specs = [s.spec for s in sources]
        self.options = self._balanced(options.resolved(paths, specs, self.names, staged=stage))
        self._order = self._ordered(sources)
        self.count = self._order.count
        stride = self.share.batch_size * self.share.workers
        if self.share.drop_remainder and self.count < stride:
            over = f" on {self.share.workers} workers" if self.share.workers > 1 else ""
            raise DatasetError(
                f"{self.count} records are fewer than a batch of {self.share.batch_size}{over}: "
                "use a smaller batch_size"
            )

    @property
    def spec(self) -> DatasetSpec:
        """Of the first dataset."""
        return self.source.spec

    def shaping(self) -> Shaping:
        return self.options.shaping(self.source.spec, self.names)

    def stretch(self, epoch: int, done: dict[str, int]) -> Stretch:
        """What is left of an epoch, or the next one whole."""
        records = done.get("records", 0)
        if self.share.over(self.count, records):
            epoch, records = epoch + 1, 0
        return Stretch(epoch, (records,), self.share.steps(self.count, records))

    def length(self) -> int:
        """Batches of a whole epoch."""
        return self.share.steps(self.count)

    def after(self, stretch: Stretch, step: int) -> tuple[int, ...]:
        """What is done once every worker has had its batch number ``step``."""
        return (self.share.after(self.count, stretch.at[0], step),)

    def _balanced(self, options: Options) -> Options:
        """Options with class weights that say "balanced" worked out from the classes' counts."""
        if options.class_weights is None:
            return options
        label, weights = by_label(options.class_weights, self.source.spec, "class_weights")
        if weights != "balanced":
            return options
        if self.source.spec.features[label].kind != "class":
            raise DatasetError("class_weights: 'balanced' is for a class label; give {class: w}")
        ids, counts = np.unique(self._classes(label), return_counts=True)
        shares = {int(i): counts.sum() / (len(ids) * n) for i, n in zip(ids, counts, strict=True)}
        return dataclasses.replace(options, class_weights={label: shares})

    def _classes(self, label: str) -> np.ndarray:
        """The label's column, what it ignores left out."""
        found = self.source.columns([label])[label]
        return found[~np.isin(found, self.source.spec.features[label].ignore)]

    def _ordered(self, sources: Sequence[Source]) -> Order:
        options, source = self.options, self.source
        kept = self._kept()
        shares: list[float] | None = None
        if options.weights is not None:
            groups, shares = _datasets(sources, kept, options.weights)
        elif options.resample is not None:
            label, wanted = by_label(options.resample, source.spec, "resample")
            ids = source.columns([label])[label]
            feature = source.spec.features[label]
            groups, shares = _classes(ids, kept, wanted, label, feature.names, feature.ignore)
        else:
            groups = [Group(len(source)) if kept is None else Group(len(kept), chosen=kept)]
        return Order(groups, shares, options.shuffle, options.seed)

    def _kept(self) -> np.ndarray | None:
        """The records that ``where`` keeps; None for all."""
        if self.options.where is None:
            return None
        features = self.source.spec.features
        columns = self.source.columns([k for k, f in features.items() if f.encoding == "scalar"])
        keep = kept(self.options.where(columns), len(self.source))
        if not keep.any():
            raise DatasetError("where: no record is kept")
        return np.flatnonzero(keep)

    def batch(self, stretch: Stretch, step: int) -> Batch:
        """A batch of a stretch.

        Raises:
          DatasetError: a record is damaged, unless ``on_error="skip"``.
        """
        epoch, positions = stretch.epoch, self.share.positions(self.count, stretch.at[0], step)
        records, skipped = self._order.records(epoch, positions), 0
        if self.options.on_error == "skip":
            damaged = self.source.damage(records)
            if damaged:
                whole = ~np.isin(records, list(damaged))
                skipped = int(len(records) - whole.sum())
                records, positions = records[whole], positions[whole]
                if self.share.drop_remainder and len(records):
                    again = np.arange(len(records) + skipped) % len(records)
                    records, positions = records[again], positions[again]
        draws = np.zeros((0, DRAWS), np.float32)
        if self.options.augment:
            draws = uniform(self.options.seed, epoch, 1, positions, DRAWS)
        return Batch(self.source.batch(records, self.names), draws, skipped)


def kept(found: Any, count: int) -> np.ndarray:
    """What ``where`` gave, bool (count,).

    Raises:
      DatasetError: it is something else.
    """
    keep = np.asarray(found)
    if keep.shape != (count,) or keep.dtype != bool:
        raise DatasetError(
            f"where: gave {keep.dtype} of shape {keep.shape}, not one boolean for each of "
            f"{count} records"
        )
    return keep


def _open(path: str | Path, split: str | None, options: Options, stage: bool) -> Source:
    spec = None if stage else DatasetSpec.load(path)
    if spec is None:
        return StageReader(path, split, options)
    names = options.wanted(spec)
    return Reader(path, split or "train", names, cache=options.cache, checksums=options.checksums)


def _datasets(
    sources: Sequence[Source], kept: np.ndarray | None, weights: Sequence[float]
) -> tuple[list[Group], list[float]]:
    if len(weights) != len(sources):
        raise DatasetError(f"weights: {len(weights)} for {len(sources)} datasets")
    groups, first = [], 0
    for source in sources:
        end = first + len(source)
        if kept is None:
            groups.append(Group(len(source), first))
        else:
            mine = kept[(first <= kept) & (kept < end)]
            groups.append(Group(len(mine), chosen=mine))
        first = end
    return _drawn_from(groups, list(weights), "weights")


def _classes(
    ids: np.ndarray, kept: np.ndarray | None, wanted: Any, label: str,
    names: Sequence[str], ignore: Sequence[int],
) -> tuple[list[Group], list[float]]:  # fmt: skip
    among = np.arange(len(ids)) if kept is None else kept
    if isinstance(wanted, Mapping):
        shares = {class_id(k, names, label): float(v) for k, v in wanted.items()}
    elif wanted == "balanced":
        shares = {int(i): 1.0 for i in np.unique(ids[among]) if i not in ignore}
    else:
        raise DatasetError(f"resample {wanted!r}: 'balanced' or {{class: share}}")
    chosen = {i: among[ids[among] == i] for i in shares}
    for i, records in chosen.items():
        if not len(records) and shares[i]:
            raise DatasetError(f"resample: no record has class {i} of {label!r}")
    groups = [Group(len(r), chosen=r) for r in chosen.values()]
    return _drawn_from(groups, list(shares.values()), "resample")


def _drawn_from(
    groups: list[Group], shares: list[float], option: str
) -> tuple[list[Group], list[float]]:
    """Those groups that anything is drawn from, and their shares of 1."""
    if not shares or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise DatasetError(f"{option}: shares must be numbers above 0, not {shares}")
    drawn = [(g, s / sum(shares)) for g, s in zip(groups, shares, strict=True) if s]
    if any(not g.count for g, _ in drawn):
        raise DatasetError(f"{option}: nothing to draw from in one of them")
    return [g for g, _ in drawn], [s for _, s in drawn]

"""Random access over a split's shards, by numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import tfrecord
from .caching import cached
from .codec import decode_batch
from .index import RecordIndex, read_offsets
from .pool import Pool
from .spec import DatasetError, DatasetSpec
from .storage import RemoteShards, join, open_shards

CHECKSUMS = ("first", "always", "never")
_COLUMN = 1 << 14  # records decoded at once for a column
_FRAMES = 16  # records verified together: they stay in the processor's cache


class Reader:
    """Records of one split by index, in shard order.

        reader = Reader("out", split="train")
        len(reader); reader[17]["image"]; reader.batch([3, 1, 4])["image"]

    Records are read by offset: memory grows by up to 4 bytes a record, not with the pixels. A
    reader may be used by several threads, forked, and pickled (which opens its files again).

    Args:
      path: the dataset's folder, or its URL (``s3://``, ``gs://``, ... through fsspec).
      split: which split.
      features: names to decode; all of them by default.
      cache: ``"memory"`` holds the split's shards in memory; a folder holds local uncompressed
        copies of them, kept from run to run. Either makes compressed shards readable by index.
      checksums: when a record's checksum is verified: ``"first"`` (the first time that this
        reader reads it), ``"always"`` or ``"never"``.

    Raises:
      DatasetError: no complete dataset, no such split, a missing or damaged shard, or
        compressed shards without ``cache`` (they cannot be read by offset).
    """

    def __init__(
        self, path: str | Path, split: str = "train", features: Sequence[str] | None = None,
        *, cache: str | Path | None = None, checksums: str = "first",
    ):  # fmt: skip
        if checksums not in CHECKSUMS:
            raise DatasetError(f"checksums {checksums!r}: one of {', '.join(CHECKSUMS)}")
        self._args = (path, split, features, cache, checksums)
        self.spec = DatasetSpec.load(path)
        self.names = self.spec.check_names(features)
        shards = [s for s in self.spec.split(split).shards if s.num_examples]
        if cache is None:
            if self.spec.compression != "none":
                raise DatasetError(
                    f"{path}: shards compressed by {self.spec.compression} cannot be read by "
                    "index: use load(), give cache='memory' or cache=FOLDER, or run "
                    "`scenefeed shard --compression none`"
                )
            self._paths = [join(path, s.path) for s in shards]
            self._files = open_shards(self._paths, [s.num_bytes for s in shards])
            offsets = read_offsets(self._files, self._paths, shards)
        else:
            self._paths, self._files, offsets = cached(path, self.spec, split, cache)
        self._index = RecordIndex(offsets, self._files.sizes)
        self._unchecked = None if checksums == "never" else np.ones(len(self), bool)
        self._always = checksums == "always"
        self._pool = Pool()
        self._keys: dict[str, np.ndarray] | None = None

    def __reduce__(self) -> Any:
        path, split, features, cache, checksums = self._args
        return _opened, (path, split, features, cache, checksums)

    def __repr__(self) -> str:
        return f"Reader({str(self._args[0])!r}, split={self._args[1]!r}): {len(self)} records"

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record: arrays for tensors, numpy scalars for numbers, ``str`` for text.

        Raises:
          IndexError: past either end.
        """
        number = index.__index__()
        if not -len(self) <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        return {k: v[0] for k, v in self.batch([number % len(self)]).items()}

    def batch(
        self, indices: Sequence[int] | np.ndarray, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Records ``indices``, stacked: ``image`` is (len(indices), H, W, C).

        Args:
          indices: any of them, in any order, also more than once; negative from the end.
          names: features to decode instead of the reader's own.

        Raises:
          IndexError: an index past either end.
          DatasetError: a record's checksum fails, or it is not as dataset.json describes it;
            names the shard and the offset.
        """
        chosen = self._checked(indices)
        damage = self.damage(chosen)
        if damage:
            raise DatasetError(next(iter(damage.values())))
        return self._decode(chosen, self.names if names is None else list(names))

    def _checked(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise IndexError(f"records {chosen.min()} to {chosen.max()} of {len(self)}")
        return np.where(chosen < 0, chosen + len(self), chosen)

    def damage(self, indices: Sequence[int] | np.ndarray) -> dict[int, str]:
        """Which of these records fail their checksums, and how: by number, what and where.

        Records that were verified before count as whole, unless ``checksums="always"``.
        """
        chosen = self._checked(indices)
        if self._unchecked is None:
            return {}
        todo = chosen if self._always else chosen[self._unchecked[chosen]]
        if not len(todo):
            return {}
        found: dict[int, str] = {}
        shards, begins, ends = self._index.locate(todo)
        for first in range(0, len(todo), _FRAMES):
            part = slice(first, first + _FRAMES)
            sizes = ends[part] - begins[part]
            frames = self._pool.take(len(sizes), int(sizes.max()))
            self._files.fill(shards[part], begins[part], frames)
            frames.flags.writeable = False  # what google-crc32c asks of a buffer
            for row, size, number, shard, at in zip(
                frames, sizes.tolist(), todo[part].tolist(), shards[part].tolist(),
                begins[part].tolist(), strict=True,
            ):  # fmt: skip
                problem = tfrecord.frame_problem(row[:size])
                if problem:
                    where = f"{self._paths[shard]}: record {number} at byte {at}"
                    found[number] = f"{where}: {problem}: run `scenefeed verify`"
        self._unchecked[[n for n in todo.tolist() if n not in found]] = False
        return found

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole columns of small features, checksums unverified: (len(self),) each."""
        parts = [
            self._decode(np.arange(i, min(i + _COLUMN, len(self))), list(names))
            for i in range(0, len(self), _COLUMN)
        ]
        return {name: np.concatenate([p[name] for p in parts]) for name in names}

    def of_scene(self, scene_id: str) -> np.ndarray:
        """The split's records of one scene by row, then column, int64 (N,); empty where it has
        none. The first call reads every record's key, and keeps 24 bytes of each."""
        if self._keys is None:
            self._keys = self.columns(["scene_id", "row", "col"])
        own = np.flatnonzero(self._keys["scene_id"] == scene_id)
        return own[np.lexsort((self._keys["col"][own], self._keys["row"][own]))]

    def _decode(self, chosen: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        shards, begins, ends = self._index.locate(chosen)
        files, pool = self._files, self._pool
        if isinstance(files, RemoteShards) and len(chosen):
            # One request a record, not one a feature.
            sizes = ends - begins
            frames = pool.take(len(chosen), int(sizes.max()))
            files.fill(shards, begins, frames)
            rows, starts = np.arange(len(chosen)), begins

            def gather(positions: np.ndarray, n: int) -> np.ndarray:
                out = pool.take(len(positions), n)
                width = frames.shape[1]
                for row, i, at in zip(
                    out, rows.tolist(), (positions - starts).tolist(), strict=True
                ):
                    end = min(at + n, width)
                    row[: max(0, end - at)] = frames[i, at:end]
                    row[max(0, end - at) :] = 0
                return out
        else:

            def gather(positions: np.ndarray, n: int) -> np.ndarray:
                out = pool.take(len(positions), n)
                files.fill(shards, positions, out)
                return out

        try:
            return decode_batch(gather, begins + tfrecord.HEADER_BYTES, self.spec.features, names)
        except DatasetError as e:
            if len(chosen) > 1:
                for one in chosen:  # which one?
                    self._decode(one.reshape(1), names)
                raise
            raise DatasetError(
                f"{self._paths[shards[0]]}: record {chosen[0]} at byte {begins[0]}: {e}"
            ) from None


def _opened(path: Any, split: str, features: Any, cache: Any, checksums: str) -> Reader:
    return Reader(path, split, features, cache=cache, checksums=checksums)

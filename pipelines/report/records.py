"""What a report reads of the records: a bounded sample of them, and the keys of all."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ...loader import Reader, tfrecord
from ...loader.spec import DatasetError, DatasetSpec
from ...loader.storage import is_remote, join, open_file
from ..verify import decode

MOST, LEAST = 512, 4  # records of a split's sample
VALUES = 8 << 20  # pixel values of it, unless LEAST records have more
KEYS = 300_000  # records whose keys and small labels are read
REMOTE = 2048  # the same where each record is a request of its own
_SMALL = ("class", "value", "int", "text")


class Records:
    """A dataset's records.

    Records stand in their shards in the order of a hash, so that what stands at even distances,
    or at a shard's beginning, is a sample by hash: the same each time.
    """

    def __init__(self, folder: Path, spec: DatasetSpec):
        self.folder, self.spec = str(folder), spec
        self.splits = [k for k, s in spec.splits.items() if s.num_examples]

    def sample(self, split: str) -> dict[str, np.ndarray]:
        """Records of a split, at most ``MOST``, stacked."""
        count = self.spec.split(split).num_examples
        size = int(np.prod(self.spec.features["image"].shape))
        wanted = min(count, MOST, max(LEAST, VALUES // size))
        if self.spec.compression == "none":
            return Reader(self.folder, split).batch(np.arange(wanted) * count // wanted)
        payloads: list[bytes] = []
        for shard in self.spec.split(split).shards:  # compressed: from each one's beginning
            share = -(-wanted * shard.num_examples // count)
            path = join(self.folder, shard.path)
            try:
                with open_file(path, self.spec.compression) as file:
                    payloads += itertools.islice(tfrecord.read(file, path), share)
            except FileNotFoundError:
                raise DatasetError(
                    f"{path}: the shard is missing: run `scenefeed verify`"
                ) from None
        return decode(payloads, self.spec)

    def columns(self) -> dict[str, dict[str, np.ndarray]] | None:
        """Split to the small features of all its records (keys, classes, values); None where that
        is too much to read: many records, or compressed ones."""
        total = sum(s.num_examples for s in self.spec.splits.values())
        most = REMOTE if is_remote(self.folder) else KEYS
        if self.spec.compression != "none" or total > most:
            return None
        names = [k for k, f in self.spec.features.items() if f.kind in _SMALL and not f.shape]
        return {k: Reader(self.folder, k, names).columns(names) for k in self.splits}

    @property
    def size(self) -> int:
        """A patch's side, pixels."""
        return int(self.spec.features["image"].shape[0])


def by_scene(columns: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A split's patches' corners (rows, columns), scene by scene."""
    names, which = np.unique(columns["scene_id"].astype(str), return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(names)))
    rows, cols = columns["row"][order], columns["col"][order]
    return {
        str(name): (rows[end - n : end], cols[end - n : end])
        for name, end, n in zip(names, ends, np.diff(ends, prepend=0), strict=True)
    }

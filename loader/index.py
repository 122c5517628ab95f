"""Where records lie.

Format of the index beside each shard, which NVIDIA DALI's readers ask for:
 github.com/NVIDIA/DALI/blob/main/tools/tfrecord2idx. A line of text a record, in order:
``<offset> <length>``, both in bytes. The offset is where the record's framing begins, and the
length counts the framing too: 12 bytes before the payload and 4 after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import tfrecord
from .spec import DatasetError, DatasetSpec, Shard
from .storage import Shards, read_files

SUFFIX = ".idx"


def index_path(shard_path: str) -> str:
    """Where the index of the shard ``shard_path`` lies: beside it."""
    return shard_path.removesuffix(".tfrecord") + SUFFIX


def record_files(spec: DatasetSpec) -> set[str]:
    """Every file that may lie in the dataset's folder of records, relative to the dataset's:
    shards, and indexes of those that are not compressed."""
    shards = {shard.path for split in spec.splits.values() for shard in split.shards}
    return shards | ({index_path(p) for p in shards} if spec.compression == "none" else set())


def format_index(lengths: np.ndarray) -> bytes:
    """A shard's index.

    Args:
      lengths: bytes of each record, its framing counted, int64 (N,).
    """
    lines = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1)
    # One format for all lines: half the time of a format each.
    return (b"%d %d\n" * len(lines)) % tuple(lines.ravel().tolist())


def parse_index(data: bytes, num_examples: int, num_bytes: int) -> np.ndarray | None:
    """Where each record's framing begins, as the index ``data`` says, int64 (N,) in bytes.

    Args:
      data: the index.
      num_examples: records in its shard.
      num_bytes: the shard's size.

    Returns:
      None where the index does not fit the shard: something else than numbers, another count,
      records that leave gaps, or that do not begin at 0 and end where the shard ends.
    """
    # Digits alone: numpy would also take signs, and some versions stop at what they do not know.
    if data.translate(None, b"0123456789 \n"):
        return None
    numbers = np.fromstring(data, np.int64, sep=" ")
    if len(numbers) != 2 * num_examples:
        return None
    offsets, lengths = numbers.reshape(-1, 2).T
    # A sum that is too large for int64 comes out below 0, and is no offset.
    begins = np.concatenate([[0], offsets + lengths])
    if not np.array_equal(begins, np.append(offsets, num_bytes)):
        return None
    return np.ascontiguousarray(offsets)


def read_offsets(files: Shards, paths: Sequence[str], shards: Sequence[Shard]) -> list[np.ndarray]:
    """Where the records' framings begin in each shard, int64 (N,) each.

    By dataset.json where a shard's records have one size, else by the index beside it, else by
    the lengths in the shard itself.

    Raises:
      DatasetError: the shard does not hold as many records as dataset.json says, or its last one
        does not end where the file ends.
    """
    unknown = [i for i, s in enumerate(shards) if not s.record_bytes]
    found = dict(zip(unknown, read_files([index_path(paths[i]) for i in unknown]), strict=True))
    return [_offsets(files, i, paths[i], s, found.get(i)) for i, s in enumerate(shards)]


def _offsets(
    files: Shards, number: int, path: str, shard: Shard, index: bytes | None
) -> np.ndarray:
    size, count = files.sizes[number], shard.num_examples
    if shard.record_bytes * count == size:
        return np.arange(count, dtype=np.int64) * shard.record_bytes
    offsets = parse_index(index, count, size) if index else None
    if offsets is None:
        offsets = tfrecord.scan(lambda at, n: files.read(number, at, n), size, path)
    if len(offsets) != count:
        raise DatasetError(
            f"{path}: holds {len(offsets)} records, dataset.json says {count}: "
            "run `scenefeed verify`"
        )
    return offsets


class RecordIndex:
    """Where each record of a split lies, in 0 to 4 bytes a record.

    Records of a shard have nearly the same size, so an offset is kept as what it differs from a
    straight line by; where all have one size, nothing is kept.

    Args:
      offsets: for each shard where its records' framings begin, int64 (N,).
      sizes: each shard's bytes.
    """

    def __init__(self, offsets: Sequence[np.ndarray], sizes: Sequence[int]):
        counts = np.array([len(o) for o in offsets], np.int64)
        self._ends = np.cumsum(counts)
        self._sizes = np.array(sizes, np.int64)
        self._stride = self._sizes // np.maximum(counts, 1)
        bent = [o - np.arange(len(o)) * s for o, s in zip(offsets, self._stride, strict=True)]
        most = max((int(np.abs(b).max(initial=0)) for b in bent), default=0)
        self._bent: np.ndarray | None = None
        if most:
            smallest = next(t for t in (np.int8, np.int16, np.int32, np.int64)
                            if most <= np.iinfo(t).max)  # fmt: skip
            self._bent = np.concatenate([b.astype(smallest) for b in bent])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of records, int64 (B,): their shards, where their framings begin, and where they end."""
        shards = np.searchsorted(self._ends, records, side="right")
        begins = self._begin(shards, records)
        last = records + 1 == self._ends[shards]
        following = self._begin(shards, np.where(last, records, records + 1))
        return shards, begins, np.where(last, self._sizes[shards], following)

    def _begin(self, shards: np.ndarray, records: np.ndarray) -> np.ndarray:
        first = np.where(shards > 0, self._ends[shards - 1], 0)
        found = (records - first) * self._stride[shards]
        return np.asarray(found if self._bent is None else found + self._bent[records])

"""Where a shard's records lie: the index that NVIDIA DALI's readers ask for.

Format: github.com/NVIDIA/DALI/blob/main/tools/tfrecord2idx. A line of text a record, in order:
``<offset> <length>``, both in bytes. The offset is where the record's framing begins, and the
length counts the framing too: 12 bytes before the payload and 4 after it.
"""

from __future__ import annotations

import numpy as np

from .spec import DatasetSpec

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

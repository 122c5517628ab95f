"""A shard's records: patches gathered from stage files, serialized, and handed on.

Without Beam, so that processes do it that were forked before Beam is imported (``processes``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..loader.codec import RecordEncoder
from ..loader.spec import Feature
from ..loader.tfrecord import FOOTER_BYTES, HEADER_BYTES, framing
from .assign import Pointers, in_order
from .baking import Baking
from .gathering import gather, tensor_bytes
from .usage import Timer, Usage

BLOCK_BYTES = 256 << 10  # of patches that are gathered, serialized and written at a time


class HashingFile:
    """Counts and hashes the bytes of a file on their way, so that no shard is read again for it.

    Bytes go on in blocks of about 1 MiB: hashing and writing release Python's lock, and doing so
    for each record would leave a worker waiting for the other's time slice each time.
    ``mode``, ``tell`` and ``flush`` are what Beam's ``CompressedFile`` asks of a file.
    """

    mode = "wb"
    BLOCK = 1 << 20

    def __init__(self, file: Any):
        self._file, self._sha, self.num_bytes = file, hashlib.sha256(), 0
        self._parts: list[bytes] = []
        self._held = 0

    def write(self, *parts: bytes) -> None:
        self._parts += parts
        size = sum(map(len, parts))
        self._held += size
        self.num_bytes += size
        if self._held >= self.BLOCK:
            self._pass_on()

    def write_record(self, parts: Sequence[bytes]) -> None:
        """Writes a record that is given in parts. Beam's own joins them twice more, which cost as
        much as all their checksums."""
        head, foot = framing(parts)
        self.write(head, *parts, foot)

    def _pass_on(self) -> None:
        block = b"".join(self._parts)
        self._parts, self._held = [], 0
        self._sha.update(block)
        self._file.write(block)

    def sha256(self) -> str:
        """Of all that was written; to be asked after ``close``."""
        return self._sha.hexdigest()

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._pass_on()
        self._file.flush()

    def close(self) -> None:
        self._pass_on()
        self._file.close()


@dataclasses.dataclass(frozen=True)
class Filled:
    """A shard's file when all is in it.

    Attributes:
      lengths: bytes of each record with its framing, int64 (n,).
      num_bytes, sha256: of the file.
      seconds, cpu_seconds: by step, as ``Timer`` has them.
      usage: what its process had used then.
    """

    lengths: np.ndarray
    num_bytes: int
    sha256: str
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    usage: Usage


def write_records(
    write: Callable[[list[bytes]], Any], pointers: list[Pointers], features: Mapping[str, Feature],
    baking: Baking | None, timer: Timer,
) -> np.ndarray:  # fmt: skip
    """Gathers a shard's patches from their stage files and hands them on as records, in order.

    Args:
      write: takes one record, in parts.
      pointers: the shard's patches.
      features: the records' features.
      baking: what becomes of images; None to leave them as they are.
      timer: of the steps.

    Returns:
      Bytes of each record with its framing, int64 (n,).

    Raises:
      JobError: a stage file cannot be read.
    """
    encode = RecordEncoder(features)
    staged = tensor_bytes(features) | ({"image": baking.num_bytes} if baking else {})
    sizes: list[int] = []
    with contextlib.ExitStack() as stack:
        with timer("gather"):
            patches = stack.enter_context(gather(pointers, staged))
            ordered = in_order(pointers)
        # Some patches at a time, few enough to stay in the processor's cache: the clock would cost
        # more than small patches.
        count = min(64, max(1, BLOCK_BYTES // max(1, sum(staged.values()))))
        while block := list(itertools.islice(ordered, count)):
            with timer("gather"):
                found = [patches(group, i) for group, i in block]
            with timer("serialize"):
                records = [
                    encode.parts(_values(group, i, tensors, baking))
                    for (group, i), tensors in zip(block, found, strict=True)
                ]
                sizes += [sum(map(len, parts)) for parts in records]
            with timer("write"):
                for parts in records:
                    write(parts)
    return np.array(sizes, np.int64) + HEADER_BYTES + FOOTER_BYTES


def _values(
    group: Pointers, i: int, tensors: dict[str, Any], baking: Baking | None
) -> dict[str, Any]:
    """A record's features: ``tensors``, which holds their bytes, with the others put in."""
    if baking:
        tensors["image"] = baking(tensors["image"])
    tensors["scene_id"] = group.scene_id
    tensors["row"], tensors["col"] = int(group.rows[i]), int(group.cols[i])
    tensors |= group.texts
    tensors |= {k: v[i].item() for k, v in group.values.items()}
    return tensors


def fill(
    path: str, pointers: list[Pointers], features: Mapping[str, Feature], baking: Baking | None
) -> Filled:
    """Writes a shard's records into a local file. Arguments and errors as ``write_records``."""
    timer = Timer()
    with timer("write"):
        file = HashingFile(open(path, "wb"))  # noqa: SIM115
    try:
        lengths = write_records(file.write_record, pointers, features, baking, timer)
    finally:
        with timer("write"):
            file.close()
    return Filled(
        lengths, file.num_bytes, file.sha256(), timer.seconds, timer.cpu, Usage.now()
    )  # fmt: skip

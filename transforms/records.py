"""A shard's records: patches gathered from stage files, serialized, and handed on.

Without Beam, so that processes do it that were forked before Beam is imported (``processes``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..loader.codec import RecordEncoder
from ..loader.spec import Feature
from ..loader.tfrecord import FOOTER_BYTES, HEADER_BYTES, framing
from .assign import Ordered, Pointers
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
    write: Callable[[list[bytes]], Any], pointers: list[bytes], features: Mapping[str, Feature],
    baking: Baking | None, timer: Timer,
) -> np.ndarray:  # fmt: skip
    """Gathers a shard's patches from their stage files and hands them on as records, in order.

    Args:
      write: takes one record, in parts.
      pointers: the shard's patches, packed ``Pointers``.
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
            shard = Ordered(map(Pointers.unpack, pointers))
            patches = stack.enter_context(gather(shard, staged))
            small = _small(shard)
        # Some patches at a time, few enough to stay in the processor's cache: the clock would cost
        # more than small patches.
        count = min(64, max(1, BLOCK_BYTES // max(1, sum(staged.values()))))
        for start in range(0, len(shard), count):
            run = slice(start, start + count)
            with timer("gather"):
                columns: dict[str, list[Any]] = dict(patches(run))
            with timer("serialize"):
                if baking:
                    columns["image"] = list(map(baking, columns["image"]))
                columns |= small(run)
                records = [
                    encode.parts(dict(zip(columns, values, strict=True)))
                    for values in zip(*columns.values(), strict=True)
                ]
                sizes += [sum(map(len, parts)) for parts in records]
            with timer("write"):
                for parts in records:
                    write(parts)
    return np.array(sizes, np.int64) + HEADER_BYTES + FOOTER_BYTES


def _small(shard: Ordered) -> Callable[[slice], dict[str, list[Any]]]:
    """A function that gives what a run of a shard's records hold beside tensors."""
    if not shard.groups:
        return lambda run: {}
    first = shard.groups[0]
    texts = {k: [g.texts[k] for g in shard.groups] for k in first.texts}
    texts["scene_id"] = [g.scene_id for g in shard.groups]

    def numbers(name: str) -> np.ndarray:
        return shard.column(lambda g: g.values[name])

    columns = {name: numbers(name) for name in first.values}
    columns["row"] = shard.column(lambda g: g.rows)
    columns["col"] = shard.column(lambda g: g.cols)

    def of_run(run: slice) -> dict[str, list[Any]]:
        source = shard.source[run].tolist()
        found: dict[str, list[Any]] = {k: v[run].tolist() for k, v in columns.items()}
        return found | {k: [held[i] for i in source] for k, held in texts.items()}

    return of_run


def fill(
    path: str, pointers: list[bytes], features: Mapping[str, Feature], baking: Baking | None
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

"""How fast workers read shards: one reading of one shard, and the PTransform that spreads them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np

from ..loader import tfrecord
from ..loader.codec import decode_records
from ..loader.pool import Pool, Slots
from ..loader.spec import DatasetError, Feature, Shard
from ..loader.storage import open_file
from .errors import describe
from .pipeline import OurVersion, Spread

_BATCH, _BATCH_BYTES = 1024, 16 << 20  # records decoded at once: so many, and no more bytes


@dataclasses.dataclass(frozen=True)
class Reading:
    """One reading of one shard.

    Attributes:
      host: of the worker that read it.
      process: the worker's, on that host.
      start: seconds by the host's monotonic clock: of use among readings of one host alone.
      seconds: from opening the shard to the last record decoded.
      waited: of these, until bytes were there: opening and reading the file; of remote and of
        compressed shards, waiting for the thread that fetches or decompresses.
      cpu_seconds: of the thread that read and decoded.
      records: how many were decoded.
      problem: why the shard could not be read; "" where it could.
    """

    host: str
    process: int
    start: float
    seconds: float
    waited: float
    cpu_seconds: float
    records: int
    problem: str = ""

    @property
    def worker(self) -> str:
        return f"{self.host}:{self.process}"


@dataclasses.dataclass(frozen=True)
class ShardReadings:
    """A shard, where it lies, and how it was read so far."""

    path: str
    shard: Shard
    readings: tuple[Reading, ...] = ()

    @property
    def id(self) -> str:
        return self.shard.path


class Memory:
    """What one reader decodes into, used again from shard to shard, as a feed's is."""

    def __init__(self) -> None:
        self.pool, self.slots = Pool(), Slots()


def read_shard(
    path: str, shard: Shard, features: Mapping[str, Feature], compression: str, memory: Memory
) -> Reading:
    """Reads a shard from its beginning as a feed does: every checksum, every feature decoded.

    Args:
      path: where the shard lies, or its URL.
      shard: what dataset.json says of it.
      features: the dataset's.
      compression: ``"none"`` or ``"gzip"``.
      memory: what it is decoded into.

    Returns:
      What it took; with ``problem`` where the shard is gone or damaged.
    """
    start, cpu = time.monotonic(), time.thread_time()
    waited, records, problem = 0.0, 0, ""
    try:
        with open_file(path, compression) as opened:
            file = _Timed(opened, time.monotonic() - start)
            records = _decode(file, path, features, memory)
            waited = file.waited
        if records != shard.num_examples:
            problem = f"{path}: {records} records, dataset.json says {shard.num_examples}"
    except FileNotFoundError:
        problem = f"{path}: is not there"
    except Exception as e:  # each driver has its own
        problem = describe(e) if path in str(e) else f"{path}: cannot be read: {describe(e)}"
    return Reading(
        socket.gethostname(), os.getpid(), start, time.monotonic() - start, waited,
        time.thread_time() - cpu, records, problem,
    )  # fmt: skip


class _Timed:
    """A file, and the seconds that its reads took."""

    def __init__(self, file: BinaryIO, waited: float):
        self._file, self.waited = file, waited

    def read(self, size: int) -> bytes:
        return self._count(self._file.read, size)  # type: ignore[no-any-return]

    def readinto(self, buffer: Any) -> int:
        return self._count(self._file.readinto, buffer)  # type: ignore[attr-defined, no-any-return]

    def _count(self, read: Any, given: Any) -> Any:
        start = time.monotonic()
        found = read(given)
        self.waited += time.monotonic() - start
        return found


def _decode(file: Any, path: str, features: Mapping[str, Feature], memory: Memory) -> int:
    """Decodes a shard's records, batch after batch; gives how many they are.

    Raises:
      DatasetError: a record is damaged.
    """
    tensors = [f for f in features.values() if f.encoding == "tensor"]
    size = sum(math.prod(f.shape) * np.dtype(f.dtype).itemsize for f in tensors)
    at_once = max(1, min(_BATCH, _BATCH_BYTES // max(1, size)))
    frames = tfrecord.read_each(file, path, memory.slots.lend)
    count = 0
    while part := list(itertools.islice(frames, at_once)):
        records = [payload for payload, _ in part if payload is not None]
        if len(records) < len(part):
            raise DatasetError(next(problem for _, problem in part if problem))
        decode_records(records, features, list(features), memory.pool.take)
        memory.slots.give_back(records)
        count += len(part)
    return count


@beam.typehints.with_input_types(ShardReadings)
class ReadShards(beam.PTransform):  # type: ignore[misc]
    """ShardReadings in; the same with one reading more out.

    The shuffle that hands them out waits for all that come in: of several in a row, none begins
    before the one before it has read its last shard.

    Args:
      features: the dataset's.
      compression: ``"none"`` or ``"gzip"``.
    """

    def __init__(self, features: Mapping[str, Feature], compression: str):
        super().__init__()
        self._given = (features, compression)

    def expand(self, shards: Any) -> Any:
        return shards | "SpreadShards" >> Spread() | beam.ParDo(_ReadShard(*self._given))


class _ReadShard(OurVersion):
    def __init__(self, features: Mapping[str, Feature], compression: str):
        super().__init__()
        self._features, self._compression = dict(features), compression

    def setup(self) -> None:
        super().setup()
        self._memory = Memory()

    def process(self, held: ShardReadings) -> Iterator[ShardReadings]:
        found = read_shard(
            held.path, held.shard, self._features, self._compression, self._memory
        )  # fmt: skip
        yield dataclasses.replace(held, readings=(*held.readings, found))

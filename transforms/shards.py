"""Writing shards: Beam's ``WriteToTFRecord``, made deterministic, gathering pixels as it writes.

``WriteToTFRecord`` names shards by bundle, in whatever order bundles come. Here a shard is a key:
its pointers are grouped, one worker owns it, and drives the sink's own protocol (initialize,
write under a temporary name, rename) with the shard's number as the writer's name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.io.filesystem import CompressedFile, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.tfrecordio import WriteToTFRecord, _TFRecordSink
from apache_beam.metrics import Metrics

from ..loader.codec import RecordEncoder
from ..loader.spec import Feature
from .assign import Pointers, SplitPlan, in_order
from .errors import DISK_ERRORS, MAKE_ROOM, JobError
from .stagefile import StageFiles, read_scalars

_KEYS = ("scene_id", "row", "col")
_COMPRESSIONS = {"none": CompressionTypes.UNCOMPRESSED, "gzip": CompressionTypes.GZIP}


@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A shard as written: ``path`` is the temporary one until it is finalized."""

    split: str
    number: int
    path: str
    num_examples: int
    num_bytes: int
    sha256: str
    seconds: dict[str, float]


class _HashingFile:
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

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._held += len(data)
        self.num_bytes += len(data)
        if self._held >= self.BLOCK:
            self._pass_on()

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


class _ShardSink(_TFRecordSink):  # type: ignore[misc]
    """Beam's TFRecord sink, with the hash of what reaches the disk."""

    def open(self, temp_path: str) -> Any:
        raw = FileSystems.create(temp_path, self.mime_type, CompressionTypes.UNCOMPRESSED)
        hashing = _HashingFile(raw)
        if self.compression_type == CompressionTypes.UNCOMPRESSED:
            return hashing
        handle = CompressedFile(hashing, self.compression_type)
        handle.hashing = hashing
        return handle


@beam.typehints.with_input_types(tuple[int, Pointers])
class WriteShards(WriteToTFRecord):  # type: ignore[misc]
    """Pointers to patches in, one split's shards out.

    Input: (shard, Pointers). Output: one ``WrittenShard`` a shard, final path, after all were
    renamed. Every shard of the plan is written, also one that drew no patch, so that names
    always run from 0 to N - 1.

    Args:
      prefix: path before ``-00000-of-00016.tfrecord``.
      split: the split's name.
      features: the records' features.
      compression: ``none`` or ``gzip``.
      plans: side input, split name to SplitPlan; without this split nothing is written.
    """

    def __init__(self, prefix: str, split: str, features: Any, compression: str, plans: Any):
        super().__init__(prefix)
        self._sink = _ShardSink(
            prefix, BytesCoder(), ".tfrecord", 0, None, _COMPRESSIONS[compression]
        )
        self._split, self._features, self._plans = split, features, plans

    def expand(self, pcoll: Any) -> Any:
        once = pcoll.pipeline | "Once" >> beam.Create([None])
        init = once | "InitializeWrite" >> beam.Map(
            lambda _, sink: sink.initialize_write(), self._sink
        )
        every = once | "EveryShard" >> beam.FlatMap(
            _every_shard, self._split, plans=self._plans
        ).with_output_types(tuple[int, Any])
        written = (
            (pcoll, every)
            | "WithEmpty" >> beam.Flatten().with_output_types(tuple[int, Any])
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard"
            >> beam.ParDo(
                _WriteShard(self._sink, self._split), beam.pvalue.AsSingleton(init), self._features
            )
        )
        # A step of its own: a retried finalize must not delete what it has renamed already.
        cleared = once | "PreFinalize" >> beam.Map(
            _pre_finalize, self._sink, beam.pvalue.AsSingleton(init), beam.pvalue.AsList(written)
        )
        return once | "FinalizeWrite" >> beam.FlatMap(
            _finalize,
            self._sink,
            beam.pvalue.AsSingleton(init),
            beam.pvalue.AsList(written),
            beam.pvalue.AsSingleton(cleared),
        )


def _every_shard(
    _: None, split: str, plans: Mapping[str, SplitPlan]
) -> Iterator[tuple[int, Pointers | None]]:
    count = plans[split].num_shards if split in plans else 0
    return ((number, None) for number in range(count))


class _WriteShard(beam.DoFn):  # type: ignore[misc]
    """Writes the shard that it is given, one record at a time."""

    def __init__(self, sink: Any, split: str):
        self._sink, self._split = sink, split
        self._records = Metrics.counter("scenefeed", "records-written")
        self._bytes = Metrics.counter("scenefeed", "record-bytes-written")

    def process(
        self, element: tuple[int, Iterable[Pointers | None]], init: str,
        features: dict[str, Feature],
    ) -> Iterator[WrittenShard]:  # fmt: skip
        number, pointers = element
        try:
            shard = write_shard(
                self._sink, init, self._split, number, [p for p in pointers if p], features
            )
        except OSError as e:
            if e.errno not in DISK_ERRORS:
                raise
            raise JobError(
                f"shard {number} of {self._split} cannot be written: {e.strerror}: {MAKE_ROOM}"
            ) from e
        self._records.inc(shard.num_examples)
        self._bytes.inc(shard.num_bytes)
        yield shard


def write_shard(
    sink: Any, init: str, split: str, number: int, pointers: list[Pointers],
    features: Mapping[str, Feature],
) -> WrittenShard:  # fmt: skip
    """Gathers a shard's patches from their stage files and writes them in order.

    Args:
      sink: Beam's TFRecord sink.
      init: what its ``initialize_write`` gave: the temporary folder.
      split, number: which shard.
      pointers: its patches.
      features: the records' features.

    Raises:
      JobError: a stage file cannot be read.
    """
    encode = RecordEncoder(features)
    tensors = [name for name, f in features.items() if f.encoding == "tensor"]
    small = [k for k, f in features.items() if f.encoding == "scalar" and k not in _KEYS]
    scalars: dict[str, Callable[[int], dict[str, Any]]] = {}
    files = StageFiles(tensors)
    count, gathering, start = 0, 0.0, time.perf_counter()
    writer = sink.open_writer(init, f"{number:05d}")
    hashing = getattr(writer.temp_handle, "hashing", writer.temp_handle)
    try:
        for group, i in in_order(pointers):
            before = time.perf_counter()
            index = int(group.index[i])
            values: dict[str, Any] = {k: files.read(group.path, k, index) for k in tensors}
            gathering += time.perf_counter() - before
            values["scene_id"] = group.scene_id
            values["row"], values["col"] = int(group.rows[i]), int(group.cols[i])
            if small:
                if group.path not in scalars:
                    scalars[group.path] = read_scalars(group.path, small, group.index)
                values |= scalars[group.path](i)
            writer.write(encode(values))
            count += 1
        path = writer.close()
    finally:
        files.close()
    whole = time.perf_counter() - start
    return WrittenShard(
        split, number, path, count, hashing.num_bytes, hashing.sha256(),
        {"gather": gathering, "write": whole - gathering},
    )  # fmt: skip


def _pre_finalize(_: None, sink: Any, init: str, written: list[WrittenShard]) -> None:
    if written:
        sink.pre_finalize(init, sorted(s.path for s in written))


def _finalize(
    _: None, sink: Any, init: str, written: list[WrittenShard], cleared: None
) -> Iterator[WrittenShard]:
    """Renames a split's shards, and checks that all of them arrived whole.

    Raises:
      JobError: a shard is not where it should be, or has another size.
    """
    shards = sorted(written, key=lambda s: s.number)
    paths = [s.path for s in shards]
    if not paths:
        FileSystems.delete([init])
        return
    list(sink.finalize_write(init, paths, cleared))
    for shard in shards:
        final = sink._get_final_name(shard.number, len(shards))
        found = FileSystems.match([final])[0].metadata_list
        if len(found) != 1 or found[0].size_in_bytes != shard.num_bytes:
            size = found[0].size_in_bytes if found else "no"
            raise JobError(
                f"{final}: {size} bytes arrived of {shard.num_bytes}: the rename failed; "
                "check the disk and run the same command again"
            )
        yield dataclasses.replace(shard, path=final)

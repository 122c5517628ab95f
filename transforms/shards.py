"""Writing shards: Beam's ``WriteToTFRecord``, made deterministic, gathering pixels as it writes.

``WriteToTFRecord`` names shards by bundle, in whatever order bundles come. Here a shard is a key:
its pointers are grouped, one worker owns it, and drives the sink's own protocol (initialize,
write under a temporary name, rename) with the shard's number in the writer's name. An uncompressed
shard's index is a file of a second such sink. On one machine the file that a writer has made is
filled by one of the command's processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.coders import BytesCoder
from apache_beam.io.filesystem import BeamIOError, CompressedFile, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.tfrecordio import WriteToTFRecord, _TFRecordSink
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions

from ..loader.index import SUFFIX, format_index
from ..loader.spec import Feature
from ..loader.tfrecord import framing
from . import processes
from .assign import SplitPlan
from .baking import Baking
from .errors import DISK_ERRORS, MAKE_ROOM, JobError
from .records import Filled, HashingFile, write_records
from .storage import create_remote, is_remote
from .storage import sizes as file_sizes
from .usage import Timer, Usage

_COMPRESSIONS = {"none": CompressionTypes.UNCOMPRESSED, "gzip": CompressionTypes.GZIP}


@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A shard as written: ``path`` and ``index`` are temporary ones until it is finalized.

    ``seconds`` and ``cpu_seconds`` are by step, as ``Timer`` has them; ``record_bytes`` is as in
    ``loader.spec.Shard``; ``index`` is "" where there is none, and ``index_bytes`` its size; ``usage``
    is what its worker had used.
    """

    split: str
    number: int
    path: str
    num_examples: int
    num_bytes: int
    sha256: str
    seconds: dict[str, float]
    record_bytes: int = 0
    index: str = ""
    index_bytes: int = 0
    cpu_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    usage: Usage | None = None


class _ShardSink(_TFRecordSink):  # type: ignore[misc]
    """Beam's TFRecord sink, with the hash of what reaches the disk."""

    def __init__(self, prefix: str, suffix: str, compression: str):
        super().__init__(prefix, BytesCoder(), suffix, 0, None, compression)
        self.options: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Workers of a pool are started without the pipeline's options, and Beam's file systems
        want some, if only to know that there are none."""
        self.__dict__.update(state)
        if FileSystems._pipeline_options is None:
            FileSystems.set_options(PipelineOptions.from_dictionary(self.options))

    def write_record(self, handle: Any, parts: Sequence[bytes]) -> None:
        if isinstance(handle, HashingFile):
            handle.write_record(parts)
        else:
            head, foot = framing(parts)
            handle.write(b"".join((head, *parts, foot)))

    def open(self, temp_path: str) -> Any:
        if is_remote(temp_path):  # Beam's S3 cannot hold an empty file, such as an empty shard's
            raw = create_remote(temp_path)
        else:
            raw = FileSystems.create(temp_path, self.mime_type, CompressionTypes.UNCOMPRESSED)
        hashing = HashingFile(raw)
        if self.compression_type == CompressionTypes.UNCOMPRESSED:
            return hashing
        handle = CompressedFile(hashing, self.compression_type)
        handle.hashing = hashing
        return handle


def sinks_of(prefix: str, compression: str) -> list[_ShardSink]:
    """The sinks of one split: its records', and its indexes' where there are any (nothing is found
    by offset in gzip).

    Args:
      prefix: path before ``-00000-of-00016.tfrecord``.
      compression: ``none`` or ``gzip``.
    """
    sinks = [_ShardSink(prefix, ".tfrecord", _COMPRESSIONS[compression])]
    if compression == "none":
        sinks.append(_ShardSink(prefix, SUFFIX, CompressionTypes.UNCOMPRESSED))
    return sinks


Key = tuple[str, int]  # split, number of the shard


@beam.typehints.with_input_types(tuple[Key, bytes])
class WriteShards(WriteToTFRecord):  # type: ignore[misc]
    """Pointers to patches in, all splits' shards out.

    Input: ((split, shard), packed Pointers). Output: one ``WrittenShard`` a shard, final path, after all
    were renamed. Every shard of the plan is written, also one that drew no patch, so that names
    always run from 0 to N - 1. Splits are written side by side: a small one of few shards would
    not keep all workers busy.

    Args:
      folder: where shards go.
      splits: the splits' names.
      features: the records' features.
      compression: ``none`` or ``gzip``.
      plans: side input, split name to SplitPlan; nothing is written of a split that is not in it.
      baking: what becomes of images; None to leave them as they are.
    """

    def __init__(
        self, folder: str, splits: Iterable[str], features: Any, compression: str, plans: Any,
        baking: Baking | None = None,
    ):  # fmt: skip
        super().__init__(folder)
        self._sinks = {split: sinks_of(f"{folder}/{split}", compression) for split in splits}
        self._features, self._plans, self._baking = features, plans, baking

    def expand(self, pcoll: Any) -> Any:
        for sink in (sink for sinks in self._sinks.values() for sink in sinks):
            sink.options = _of_file_systems(pcoll.pipeline._options)
        once = pcoll.pipeline | "Once" >> beam.Impulse()
        init = once | "InitializeWrite" >> beam.Map(_initialize, self._sinks)
        every = once | "EveryShard" >> beam.FlatMap(
            _every_shard, self._plans
        ).with_output_types(tuple[Key, bytes])  # fmt: skip
        written = (
            (pcoll, every)
            | "WithEmpty" >> beam.Flatten().with_output_types(tuple[Key, bytes])
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard"
            >> beam.ParDo(
                _WriteShard(self._sinks, self._baking),
                beam.pvalue.AsSingleton(init),
                self._features,
            )
        )
        # A step of its own: a retried finalize must not delete what it has renamed already.
        cleared = once | "PreFinalize" >> beam.Map(
            _pre_finalize, self._sinks, beam.pvalue.AsSingleton(init), beam.pvalue.AsList(written)
        )
        return once | "FinalizeWrite" >> beam.FlatMap(
            _finalize,
            self._sinks,
            beam.pvalue.AsSingleton(init),
            beam.pvalue.AsList(written),
            beam.pvalue.AsSingleton(cleared),
        )


def _of_file_systems(options: PipelineOptions) -> dict[str, Any]:
    """What Beam's HDFS is told by flags; S3 and GCS look into the environment."""
    given = options.get_all_options(drop_default=True)
    return {k: v for k, v in given.items() if k.startswith("hdfs_")}


Sinks = Mapping[str, Sequence[Any]]  # of each split
Inits = Mapping[str, Sequence[str]]  # what each one's initialize_write gave


def _initialize(_: bytes, sinks: Sinks) -> Inits:
    return {split: [sink.initialize_write() for sink in some] for split, some in sinks.items()}


def _every_shard(_: bytes, plans: Mapping[str, SplitPlan]) -> Iterator[tuple[Key, bytes]]:
    for split, plan in plans.items():
        for number in range(plan.num_shards):
            yield (split, number), b""


class _WriteShard(beam.DoFn):  # type: ignore[misc]
    """Writes the shard that it is given."""

    def __init__(self, sinks: Sinks, baking: Baking | None = None):
        self._sinks, self._baking = sinks, baking
        self._records = Metrics.counter("scenefeed", "records-written")
        self._bytes = Metrics.counter("scenefeed", "record-bytes-written")

    def process(
        self, element: tuple[Key, Iterable[bytes]], inits: Inits,
        features: dict[str, Feature],
    ) -> Iterator[WrittenShard]:  # fmt: skip
        (split, number), pointers = element
        try:
            shard = write_shard(
                self._sinks[split],
                inits[split],
                split,
                number,
                [p for p in pointers if p],
                features,
                self._baking,
            )
        except OSError as e:
            if e.errno not in DISK_ERRORS:
                raise
            raise JobError(
                f"shard {number} of {split} cannot be written: {e.strerror}: {MAKE_ROOM}"
            ) from e
        self._records.inc(shard.num_examples)
        self._bytes.inc(shard.num_bytes)
        yield shard


def write_shard(
    sinks: Sequence[Any], inits: Sequence[str], split: str, number: int,
    pointers: list[bytes], features: Mapping[str, Feature], baking: Baking | None = None,
) -> WrittenShard:  # fmt: skip
    """Gathers a shard's patches from their stage files and writes them in order, and its index.

    Args:
      sinks: Beam's TFRecord sink, and a second one where an index is wanted.
      inits: what each one's ``initialize_write`` gave: its temporary folder.
      split, number: which shard.
      pointers: its patches, packed ``Pointers``.
      features: the records' features.
      baking: what becomes of images; None to leave them as they are.

    Raises:
      JobError: a stage file cannot be read.
    """
    # Another attempt at this shard may be writing still, and what a failed one leaves may appear
    # late: each has a name of its own.
    attempt = f"{number:05d}-{uuid.uuid4().hex}"
    path, filled = _fill(sinks[0], inits[0], attempt, pointers, features, baking)
    indexed: dict[str, Any] = {}
    if len(sinks) > 1:
        indexed = _write_index(sinks[1], inits[1], attempt, filled.lengths)
    return WrittenShard(
        split, number, path, len(filled.lengths), filled.num_bytes, filled.sha256, filled.seconds,
        cpu_seconds=filled.cpu_seconds, usage=filled.usage, **indexed,
    )  # fmt: skip


def _fill(
    sink: Any, init: str, attempt: str, pointers: list[bytes], features: Mapping[str, Feature],
    baking: Baking | None,
) -> tuple[str, Filled]:  # fmt: skip
    """Writes a shard's records under the name that the sink has for them, which is told, too; by
    this command's processes, where there are any."""
    plain = sink.compression_type == CompressionTypes.UNCOMPRESSED
    if processes.are_at_work() and plain and not is_remote(init):
        path = sink.open_writer(init, attempt).close()
        if found := processes.fill(path, pointers, features, baking):
            return path, found
    timer = Timer()
    with timer("write"):
        writer = sink.open_writer(init, attempt)
    file = getattr(writer.temp_handle, "hashing", writer.temp_handle)
    lengths = write_records(writer.write, pointers, features, baking, timer)
    with timer("write"):
        path = writer.close()
    return path, Filled(
        lengths, file.num_bytes, file.sha256(), timer.seconds, timer.cpu, Usage.now()
    )


def _write_index(sink: Any, init: str, attempt: str, lengths: np.ndarray) -> dict[str, Any]:
    """What a WrittenShard says of its index, and of its records' lengths."""
    writer = sink.open_writer(init, attempt)
    writer.temp_handle.write(format_index(lengths))
    path = writer.close()
    same = len(lengths) and bool((lengths == lengths[0]).all())
    return {
        "record_bytes": int(lengths[0]) if same else 0,
        "index": path,
        "index_bytes": writer.temp_handle.num_bytes,
    }


def _pre_finalize(_: bytes, sinks: Sinks, inits: Inits, written: list[WrittenShard]) -> None:
    for split, init in inits.items():
        paths = sorted(s.path for s in written if s.split == split)
        for sink, folder in zip(sinks[split], init, strict=True):
            if paths:
                sink.pre_finalize(folder, paths)


def _finalize(
    _: bytes, sinks: Sinks, inits: Inits, written: list[WrittenShard], cleared: None
) -> Iterator[WrittenShard]:
    for split, init in inits.items():
        yield from finalize_split(sinks[split], init, [s for s in written if s.split == split])


def finalize_split(
    sinks: Sequence[Any], inits: Sequence[str], written: Iterable[WrittenShard]
) -> Iterator[WrittenShard]:
    """Renames a split's shards and their indexes, and checks that all of them arrived whole.

    Args:
      sinks: Beam's TFRecord sink, and a second one where there are indexes.
      inits: what each one's ``initialize_write`` gave.
      written: the shards under their temporary names.

    Raises:
      JobError: a file is not where it should be, or has another size.
    """
    shards = sorted(written, key=lambda s: s.number)
    if not shards:
        with contextlib.suppress(BeamIOError):  # gone, if this is tried again
            FileSystems.delete(list(inits))
        return
    indexes = [s.index for s in shards]
    if len(sinks) > 1:  # before the shards, so that none stands without its index
        indexes = _rename(sinks[1], inits[1], indexes, [s.index_bytes for s in shards])
    paths = _rename(sinks[0], inits[0], [s.path for s in shards], [s.num_bytes for s in shards])
    for shard, path, index in zip(shards, paths, indexes, strict=True):
        yield dataclasses.replace(shard, path=path, index=index)


def _rename(sink: Any, init: str, paths: list[str], sizes: list[int]) -> list[str]:
    """Gives all shards' files of one sink their final names, in order; returns these.

    Raises:
      JobError: a file did not arrive with its bytes, ``sizes``.
    """
    list(sink.finalize_write(init, paths, None))
    finals = [sink._get_final_name(number, len(paths)) for number in range(len(paths))]
    found = file_sizes(finals)
    for final, size in zip(finals, sizes, strict=True):
        if found.get(final) != size:
            raise JobError(
                f"{final}: {found.get(final, 'no')} bytes arrived of {size}: the rename failed; "
                "check the disk and run the same command again"
            )
    return finals

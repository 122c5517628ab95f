"""How fast shards are read where the workers are: a Beam job that reads a split on all of them,
several times, and adds their rates up.

Each host has its own clock. What its workers read at once is told by that clock alone: a host's
rate in one pass is what it read, by the time in which any of its workers was reading. The rate of
all is the sum over hosts. It counts the end of a pass, when some workers have no shard left, as a
feed's epoch does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import socket
import statistics
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions

from ...loader.spec import DatasetError, DatasetSpec
from ...transforms.errors import JobError, describe
from ...transforms.storage import absolute, join, path_of, remove, write_text
from ...transforms.throughput import Reading, ReadShards, ShardReadings
from .. import runner
from .targets import Targets
from .verdict import LEAST, result

PASSES = LEAST  # over all shards; the first may find them on no page cache
SLOWEST = 5  # shards named
_MOSTLY = 0.5  # share of a reading that is said to bound it
FAR = 4  # a shard this many times slower than the median one is worth a line of its own


def distributed(
    folder: str, split: str | None, options: Any, targets: Targets, shared_disk: bool = False
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Reads a split's shards on a runner's workers, as a feed reads them.

    Args:
      folder: the dataset's, a path or a URL.
      split: which split; None for the largest.
      options: Beam's.
      targets: of which ``loading`` says how many patches a second are needed, in all.
      shared_disk: the workers of a cluster see this machine's paths.

    Returns:
      The results, and ``summarize``'s section with the name of the split.

    Raises:
      ConfigError: workers cannot see the dataset.
      DatasetError: no complete dataset, no such split, or a shard is gone or damaged.
      JobError: the job failed.
    """
    out = path_of(absolute(path_of(folder)))
    spec = DatasetSpec.load(str(out))
    runner.check_cluster(options, shared_disk, [("OUT", str(out))])
    chosen = split or max(spec.splits, key=lambda k: spec.splits[k].num_examples)
    shards = [s for s in spec.split(chosen).shards if s.num_examples]
    held = [ShardReadings(join(str(out), s.path), s) for s in shards]
    with _meeting_place(out, options) as file:
        runner.run(_reading(spec, held, file), options)
        read = _picked_up(held, file)
    _refuse(read)
    section = {"split": chosen, **summarize(read)}
    return [verdict(section, targets)], section


def _reading(spec: DatasetSpec, held: Sequence[ShardReadings], file: str) -> Any:
    def build(pipeline: Any) -> None:
        shards = pipeline | "Shards" >> beam.Create(list(held), reshuffle=False)
        for number in range(PASSES):
            shards = shards | f"Pass{number + 1}" >> ReadShards(spec.features, spec.compression)
        every = (
            shards
            | "All" >> beam.CombineGlobally(beam.combiners.ToListCombineFn()).without_defaults()
        )
        _ = every | "Keep" >> beam.Map(_keep, file)

    return build


def _keep(read: Iterable[ShardReadings], file: str) -> None:
    """On a worker: what the command picks up."""
    found = {r.path: [dataclasses.asdict(x) for x in r.readings] for r in read}
    try:
        write_text(path_of(file), json.dumps(found))
    except Exception as e:  # each driver has its own
        raise JobError(
            f"{file}: worker {socket.gethostname()} cannot write its figures there ({describe(e)}): "
            "let workers see and write to this folder, or give another one by --temp_location"
        ) from None


def _picked_up(held: Sequence[ShardReadings], file: str) -> list[ShardReadings]:
    try:
        found = json.loads(path_of(file).read_text())
    except FileNotFoundError:
        found = {}
    if found.keys() != {h.path for h in held}:
        raise JobError(
            f"figures of {len(found)} shards came back of {len(held)}: workers were lost, or "
            f"{file} of theirs is not that of this machine"
        )
    return [
        dataclasses.replace(h, readings=tuple(Reading(**x) for x in found[h.path])) for h in held
    ]


@contextlib.contextmanager
def _meeting_place(out: Path, options: Any) -> Iterator[str]:
    """A file that workers can write and this process can read, for the time of a job."""
    if runner.worker_count(options):
        with tempfile.TemporaryDirectory(prefix="scenefeed-") as folder:
            yield join(folder, "readings.json")
        return
    elsewhere = options.view_as(GoogleCloudOptions).temp_location
    file = join(elsewhere or out, f".readings-{uuid.uuid4().hex}.json")
    try:
        yield file
    finally:
        with contextlib.suppress(Exception):  # why the job failed is what counts
            remove(file)


def _refuse(read: Sequence[ShardReadings]) -> None:
    """Raises DatasetError where a shard could not be read."""
    bad = [
        (r, next(x for x in r.readings if x.problem))
        for r in read
        if any(x.problem for x in r.readings)
    ]
    if bad:
        first = bad[0][1]
        more = f" (and {len(bad) - 1} shards more)" if len(bad) > 1 else ""
        raise DatasetError(
            f"{first.problem}, on worker {first.host}{more}: mount the dataset there, or run "
            "`scenefeed verify`"
        )


def summarize(read: Sequence[ShardReadings]) -> dict[str, Any]:
    """What readings of shards come to.

    Args:
      read: shards, each with as many readings.

    Returns:
      Rates of all workers, one a pass; ``shard_mb_per_s`` over shards (each the median of its
      readings); ``workers``, ``slowest`` shards, and lines of ``warnings``. MB are 1e6 bytes of
      the file, ``readers`` how many shards were being read at once, ``waited`` the share of the
      time until bytes were there, ``cpu`` that in which a reader's thread computed.
    """
    passes = [[(r, r.readings[i]) for r in read] for i in range(len(read[0].readings))]
    every = [pair for one in passes for pair in one]
    seconds = sum(x.seconds for _, x in every)
    shards = sorted((_shard(r) for r in read), key=lambda s: s["mb_per_s"])
    rates = [s["mb_per_s"] for s in shards]
    section = {
        "shards": len(read),
        "records": sum(r.shard.num_examples for r in read),
        "bytes": sum(r.shard.num_bytes for r in read),
        "patches_per_s": [_rate((x, x.records) for _, x in one) for one in passes],
        "mb_per_s": [_rate((x, r.shard.num_bytes / 1e6) for r, x in one) for one in passes],
        "readers": statistics.median(_rate((x, x.seconds) for _, x in one) for one in passes),
        "waited": sum(x.waited for _, x in every) / seconds,
        "cpu": sum(x.cpu_seconds for _, x in every) / seconds,
        "shard_mb_per_s": {
            "median": statistics.median(rates), "least": rates[0], "most": rates[-1]
        },
        "workers": _workers(every),
        "slowest": shards[:SLOWEST],
    }  # fmt: skip
    return {**section, "warnings": _far(section)}


def _rate(measured: Iterable[tuple[Reading, float]]) -> float:
    """What was done a second, by the time in which any worker of a host read, summed over hosts."""
    hosts: dict[str, list[tuple[Reading, float]]] = defaultdict(list)
    for reading, amount in measured:
        hosts[reading.host].append((reading, amount))
    return sum(sum(a for _, a in of) / _busy(x for x, _ in of) for of in hosts.values())


def _busy(readings: Iterable[Reading]) -> float:
    """Seconds in which any of a host's readings was under way."""
    total, end = 0.0, -math.inf
    for start, stop in sorted((x.start, x.start + x.seconds) for x in readings):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _shard(read: ShardReadings) -> dict[str, Any]:
    samples = [read.shard.num_bytes / 1e6 / x.seconds for x in read.readings]
    slowest = min(zip(samples, read.readings, strict=True), key=lambda pair: pair[0])[1]
    return {
        "path": read.shard.path, "mb_per_s": statistics.median(samples), "samples": samples,
        "worker": slowest.worker, "waited": slowest.waited / slowest.seconds,
    }  # fmt: skip


def _workers(every: Iterable[tuple[ShardReadings, Reading]]) -> list[dict[str, Any]]:
    held: dict[str, list[tuple[ShardReadings, Reading]]] = defaultdict(list)
    for pair in every:
        held[pair[1].worker].append(pair)
    return [
        {
            "worker": worker, "readings": len(of),
            "mb_per_s": _rate((x, r.shard.num_bytes / 1e6) for r, x in of),
            "patches_per_s": _rate((x, x.records) for _, x in of),
        }
        for worker, of in sorted(held.items())
    ]  # fmt: skip


def _far(section: dict[str, Any]) -> list[str]:
    """A line for each shard whose every reading was far slower than the median shard."""
    median = section["shard_mb_per_s"]["median"]
    return [
        f"shard {s['path']} was read at {s['mb_per_s']:.3g} MB/s on worker {s['worker']}, the "
        f"median one at {median:.3g}; it waited for bytes {s['waited']:.0%} of the time: look at "
        "what it lies on"
        for s in section["slowest"]
        if max(s["samples"]) < median / FAR
    ]


def verdict(section: dict[str, Any], targets: Targets) -> dict[str, Any]:
    """Patches a second of all workers against those that the target's batches take."""
    loading = targets.loading
    needed = loading.batches * loading.batch_size / loading.seconds if loading.seconds else None
    advice = _advice(section, needed or 0.0).replace("{", "{{").replace("}", "}}")
    return result(
        "read by all workers", section["patches_per_s"], "patches/s", needed, "at least", advice,
        words=f"{statistics.median(section['mb_per_s']):,.0f} MB/s", readers=section["readers"],
    )  # fmt: skip


def _advice(section: dict[str, Any], needed: float) -> str:
    rate, readers = statistics.median(section["patches_per_s"]), section["readers"]
    waited, cpu = section["waited"], section["cpu"]
    if section["warnings"]:
        return str(section["warnings"][0])
    wanted = math.ceil(needed / rate * readers)
    words = f"{readers:.1f} shards were read at once, waiting for bytes {waited:.0%} of the time"
    if waited > _MOSTLY:
        return f"{words}: put the dataset on faster storage or nearer to the workers"
    words += f" and computing {cpu:.0%}"
    if waited + cpu < _MOSTLY:
        return f"{words}: workers had no processor for the rest: give them cores of their own"
    if section["shards"] < wanted:
        return (
            f"{words}: it takes {wanted} readers, and the split has {section['shards']} shards: "
            f"`scenefeed shard --num_shards {wanted}`, and as many workers"
        )
    return f"{words}: use {wanted} workers, with a core each"


def lines(section: dict[str, Any]) -> list[str]:
    """For a terminal."""
    shard, (first, *later) = section["shard_mb_per_s"], section["mb_per_s"]
    at = ", ".join(f"{x:,.0f}" for x in later)
    return [
        f"workers: {section['shards']} shards of {section['split']} by {len(section['workers'])} "
        f"workers, {section['readers']:.1f} at once: {first:,.0f} MB/s in the first pass, then {at}",
        f"a shard: {shard['median']:,.0f} MB/s, the median of {shard['least']:,.0f} to "
        f"{shard['most']:,.0f}; {section['waited']:.0%} of it waiting for bytes, "
        f"{section['cpu']:.0%} computing",
        *(
            f"slowest: {s['path']}: {s['mb_per_s']:,.0f} MB/s, on {s['worker']}"
            for s in section["slowest"]
        ),
    ]

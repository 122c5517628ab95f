"""What this machine can do at most: memory, one core, and the disk where a dataset lies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...loader.codec import RecordEncoder
from ...loader.spec import Feature
from ...loader.tfrecord import masked_crc32c

MEMORY_BYTES = 64 << 20  # more than most caches hold
BLOCK = 8 << 20
FILE_BYTES = 64 << 20  # of each of two files


def measure_limits(folder: Path | None, seconds: float = 2.0) -> dict[str, Any]:
    """Measures, in MB (1e6 bytes) a second.

    All memory is touched before it is timed: on virtual machines the first touch of a page costs
    more than what is to be measured. Each figure is the median of at least three repetitions.

    Args:
      folder: on the disk to measure; None for none. It takes 128 MiB for a moment.
      seconds: about how long all of it may take.

    Returns:
      ``cores`` that this process may use; ``memcpy_mb_per_s`` of one core,
      ``memcpy_all_mb_per_s`` of all at once; ``core_mb_per_s``, at which one core serializes
      records of 32 KiB and computes their CRC-32C and SHA-256; and of the disk
      ``write_mb_per_s`` (a new file, until it is on the disk), ``read_mb_per_s`` (out of the page
      cache where ``cached`` is true: the file system kept it there) and ``copy_mb_per_s`` (file to
      file through the page cache); ``problem``, one line, where the disk could not be measured.
    """
    cores = len(os.sched_getaffinity(0))
    share = seconds / 6
    found: dict[str, Any] = {"cores": cores, "core_mb_per_s": _core(share)}
    found |= _memcpy(cores, share)
    if folder is not None:
        try:
            found |= _disk(folder, share)
        except OSError as e:
            found["problem"] = (
                f"{folder}: the disk was not measured: {e.strerror or e}: that takes "
                f"{2 * FILE_BYTES >> 20} MiB there for a moment"
            )
    return found


def _median_rate(work: Callable[[], int], seconds: float) -> float:
    """MB/s of ``work``, which gives the bytes it went through, after one turn that warms up."""
    work()
    rates: list[float] = []
    began = time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        count = work()
        rates.append(count / (time.perf_counter() - start) / 1e6)
    return statistics.median(rates)


def _memcpy(cores: int, seconds: float) -> dict[str, float]:
    source, target = (np.ones(MEMORY_BYTES, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(source, cores), np.array_split(target, cores), strict=True))

    def copy(pair: tuple[np.ndarray, np.ndarray]) -> int:
        np.copyto(pair[1], pair[0])  # releases Python's lock
        return pair[0].nbytes

    with ThreadPoolExecutor(cores) as pool:
        return {
            "memcpy_mb_per_s": _median_rate(lambda: copy((source, target)), seconds),
            "memcpy_all_mb_per_s": _median_rate(lambda: sum(pool.map(copy, parts)), seconds),
        }


def _core(seconds: float) -> float:
    """What `write` cannot do without, where there is no disk."""
    feature = Feature((64, 64, 2), "float32", "image", "tensor", bands=("a", "b"))
    encode, pixels = RecordEncoder({"image": feature}), bytes(64 * 64 * 2 * 4)

    def work() -> int:
        records = [encode({"image": pixels}) for _ in range(32)]
        for record in records:
            masked_crc32c(record)
        hashlib.sha256(b"".join(records)).digest()
        return len(pixels) * len(records)

    return _median_rate(work, seconds)


def _disk(folder: Path, seconds: float) -> dict[str, Any]:
    block = bytearray(os.urandom(1 << 20) * (BLOCK >> 20))  # nothing that a disk could compress

    with _file(folder) as source, _file(folder) as target:

        def write(at: int) -> int:
            written = os.pwrite(source, block, at)
            os.fdatasync(source)
            return written

        def copy(at: int) -> int:
            return os.pwrite(target, memoryview(block)[: os.preadv(source, [block], at)], at)

        found: dict[str, Any] = {"write_mb_per_s": _blocks(FILE_BYTES, write, seconds)}
        size = os.fstat(source).st_size
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
        before = _read_from_disk()
        read = _blocks(size, lambda at: os.preadv(source, [block], at), seconds)
        found["read_mb_per_s"] = read
        # All of it came from the page cache where the disk gave nothing.
        found["cached"] = before is not None and _read_from_disk() == before
        found["copy_mb_per_s"] = _blocks(size, copy, seconds)
    return found


@contextlib.contextmanager
def _file(folder: Path) -> Iterator[int]:
    with tempfile.TemporaryFile(dir=folder, prefix=".scenefeed-") as file:
        yield file.fileno()


def _blocks(size: int, work: Callable[[int], int], seconds: float) -> float:
    """MB/s: the median of blocks one behind the other, at least three."""
    rates: list[float] = []
    began = time.perf_counter()
    for at in range(0, size, BLOCK):
        start = time.perf_counter()
        count = work(at)
        rates.append(count / (time.perf_counter() - start) / 1e6)
        if len(rates) >= 3 and time.perf_counter() - began > seconds:
            break
    return statistics.median(rates)


def _read_from_disk() -> int | None:
    """Bytes that this process had fetched from a disk, by proc_pid_io(5); None where not told."""
    try:
        with open("/proc/self/io") as file:
            return next(int(x.split()[1]) for x in file if x.startswith("read_bytes"))
    except OSError:
        return None

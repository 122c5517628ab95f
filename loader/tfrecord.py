"""TFRecord framing: length, masked CRC-32C, payload, masked CRC-32C.

Format: tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details. Each record is
``uint64 length, uint32 crc(length), byte data[length], uint32 crc(data)``, little-endian.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from .spec import DatasetError

HEADER_BYTES, FOOTER_BYTES = 12, 4
_LENGTH = struct.Struct("<QI")


def masked_crc32c(data: Any) -> int:
    """CRC-32C as TFRecord files hold it, of bytes or of a read-only uint8 array."""
    import google_crc32c

    return _masked(google_crc32c.value(data))


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framing(parts: Iterable[bytes]) -> tuple[bytes, bytes]:
    """What stands before and after a record whose data is given in parts."""
    import google_crc32c

    length = crc = 0
    for part in parts:
        length += len(part)
        crc = google_crc32c.extend(crc, part)
    return _header(length), _masked(crc).to_bytes(FOOTER_BYTES, "little")


@functools.lru_cache(maxsize=1 << 10)
def _header(length: int) -> bytes:
    return _LENGTH.pack(length, masked_crc32c(length.to_bytes(8, "little")))


def frame_problem(frame: np.ndarray) -> str:
    """What is wrong with one whole record, framing included; "" where nothing is.

    Args:
      frame: its bytes, read-only uint8 (N,).
    """
    data = frame[HEADER_BYTES:-FOOTER_BYTES]
    length, crc = _LENGTH.unpack(frame[:HEADER_BYTES].tobytes())
    if masked_crc32c(frame[:8]) != crc or length != len(data):
        return "the checksum of its length does not match"
    if masked_crc32c(data) != int.from_bytes(frame[-FOOTER_BYTES:].tobytes(), "little"):
        return "the checksum of its data does not match"
    return ""


def scan(read: Callable[[int, int], bytes], size: int, where: str) -> np.ndarray:
    """Where each record's framing begins in an uncompressed shard, int64 (N,).

    Reads the lengths alone, by offset: no pixels.

    Args:
      read: gives ``read(start, n)`` bytes.
      size: the shard's bytes.
      where: its path, for errors.

    Raises:
      DatasetError: the last record does not end where the file ends.
    """
    unpack = struct.Struct("<Q").unpack
    starts: list[int] = []
    position = 0
    while position < size:
        if position + HEADER_BYTES > size:
            raise DatasetError(f"{where}: truncated at byte {position}: convert or fetch it again")
        starts.append(position)
        position += HEADER_BYTES + unpack(read(position, 8))[0] + FOOTER_BYTES
    if position != size:
        raise DatasetError(
            f"{where}: record {len(starts) - 1} at byte {starts[-1]} runs past the end of the file "
            f"({position} > {size}): it is damaged or truncated"
        )
    return np.array(starts, np.int64)


def read(file: BinaryIO, where: str) -> Iterator[bytes]:
    """Yields each payload of a shard, every checksum verified.

    Raises:
      DatasetError: a checksum fails or the file ends early; names the record and its offset.
    """
    for payload, problem in read_each(file, where):
        if payload is None:
            raise DatasetError(problem)
        yield payload.tobytes()


def _fresh(size: int) -> np.ndarray:
    return np.empty(size, np.uint8)


def read_each(
    file: BinaryIO, where: str, lend: Callable[[int], np.ndarray] = _fresh
) -> Iterator[tuple[np.ndarray | None, str]]:
    """Yields each payload of a shard, or None and what is wrong with it.

    After a record whose length cannot be believed nothing more can be found, and it is the last.

    Args:
      file: the shard from its beginning, buffered: ``readinto`` falls short at its end alone.
      where: its path, for errors.
      lend: gives the memory that a payload is read into, uint8 (N,); the payload is a read-only
        view of it.
    """
    import google_crc32c

    value, number, offset = google_crc32c.value, 0, 0
    problem = ""
    header = file.read(HEADER_BYTES)
    while header and not problem:
        if len(header) < HEADER_BYTES:
            problem = "the file ends within its length"
            break
        length, crc = _LENGTH.unpack(header)
        if _masked(value(header[:8])) != crc:
            problem = "the checksum of its length does not match"
            break
        # The next record's header comes along: one read a record.
        memory = lend(length + FOOTER_BYTES + HEADER_BYTES)
        found = file.readinto(memory)  # type: ignore[attr-defined]
        if found < length + FOOTER_BYTES:
            problem = "the file ends within its data"
            break
        memory.flags.writeable = False
        payload, after = memory[:length], memory[length:found].tobytes()
        header = after[FOOTER_BYTES:]
        if _masked(value(payload)) == int.from_bytes(after[:FOOTER_BYTES], "little"):
            yield payload, ""
        else:
            yield (
                None,
                f"{where}: record {number} at byte {offset}: the checksum of its data does not match",
            )
        number += 1
        offset += HEADER_BYTES + length + FOOTER_BYTES
    if problem:
        yield None, f"{where}: record {number} at byte {offset}: {problem}"

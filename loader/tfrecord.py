"""TFRecord framing: length, masked CRC-32C, payload, masked CRC-32C.

Format: tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details. Each record is
``uint64 length, uint32 crc(length), byte data[length], uint32 crc(data)``, little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from .spec import DatasetError

HEADER_BYTES, FOOTER_BYTES = 12, 4


def masked_crc32c(data: bytes) -> int:
    """CRC-32C as TFRecord files hold it."""
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scan(fd: int, where: str) -> np.ndarray:
    """Where each record's payload begins in an uncompressed shard, int64 (N,).

    Reads the lengths alone, by offset: no pixels, and no mapping whose pages would have to be
    faulted in one by one.

    Raises:
      DatasetError: the last record does not end where the file ends.
    """
    total, unpack = os.fstat(fd).st_size, struct.Struct("<Q").unpack
    starts: list[int] = []
    position = 0
    while position < total:
        header = os.pread(fd, 8, position)
        if position + HEADER_BYTES > total or len(header) < 8:
            raise DatasetError(f"{where}: truncated at byte {position}: convert or fetch it again")
        starts.append(position + HEADER_BYTES)
        position += HEADER_BYTES + unpack(header)[0] + FOOTER_BYTES
    if position != total:
        raise DatasetError(
            f"{where}: record {len(starts) - 1} at byte {starts[-1] - HEADER_BYTES} runs past the "
            f"end of the file ({position} > {total}): it is damaged or truncated"
        )
    return np.array(starts, np.int64)


def read(file: BinaryIO, where: str) -> Iterator[bytes]:
    """Yields each payload of a shard, every checksum verified.

    Raises:
      DatasetError: a checksum fails or the file ends early; names the record and its offset.
    """
    number = offset = 0
    while header := file.read(HEADER_BYTES):
        at = f"{where}: record {number} at byte {offset}"
        if len(header) < HEADER_BYTES:
            raise DatasetError(f"{at}: the file ends within its length")
        length, crc = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) != crc:
            raise DatasetError(f"{at}: the checksum of its length does not match")
        data, footer = file.read(length), file.read(FOOTER_BYTES)
        if len(data) < length or len(footer) < FOOTER_BYTES:
            raise DatasetError(f"{at}: the file ends within its data")
        if masked_crc32c(data) != struct.unpack("<I", footer)[0]:
            raise DatasetError(f"{at}: the checksum of its data does not match")
        yield data
        number += 1
        offset += HEADER_BYTES + length + FOOTER_BYTES

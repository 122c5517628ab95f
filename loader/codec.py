"""The record codec: ``tf.train.Example`` bytes without TensorFlow.

Workers assemble records and readers take them apart with numpy alone. What is written here is
byte for byte what TensorFlow itself serializes: ``tf.io.serialize_tensor`` for tensors and
``Example.SerializeToString(deterministic=True)`` (map keys sorted) for records; tests compare.

Formats: protobuf's wire format (protobuf.dev/programming-guides/encoding), with the field
numbers of tensorflow/core/example/{example,feature}.proto and
tensorflow/core/framework/{tensor,tensor_shape,types}.proto.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .spec import DatasetError, Feature

# tensorflow/core/framework/types.proto
TENSOR_DTYPES = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "complex64": 8,
    "int64": 9, "bool": 10, "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22,
    "uint64": 23,
}  # fmt: skip

# The field tag of a Feature's oneof, and of what is inside each list (always field 1).
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"


def varint(value: int) -> bytes:
    """Protobuf's base-128 varint; negatives as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(tag: bytes, payload: bytes) -> bytes:
    return tag + varint(len(payload)) + payload


def tensor_header(shape: Sequence[int], dtype: str) -> bytes:
    """What stands before the pixels in ``tf.io.serialize_tensor``'s bytes.

    Raises:
      ValueError: a dtype that TensorFlow has no number for.
    """
    if dtype not in TENSOR_DTYPES:
        raise ValueError(f"dtype {dtype} cannot be a tensor: one of {', '.join(TENSOR_DTYPES)}")
    dims = b"".join(_field(b"\x12", b"\x08" + varint(n) if n else b"") for n in shape)
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    content = b"\x22" + varint(nbytes) if nbytes else b""
    return b"\x08" + varint(TENSOR_DTYPES[dtype]) + _field(b"\x12", dims) + content


class RecordEncoder:
    """Assembles records of one dataset.

    The parts that all records share are laid out once; a call joins them with a record's own.

    Args:
      features: the dataset's features. Those with encoding ``tensor`` are given as the raw
        little-endian bytes of a C-contiguous array; ``int`` and ``class`` as integers,
        ``value`` as a float, ``text`` as a string.
    """

    def __init__(self, features: Mapping[str, Feature]):
        self._sections = []  # each ends with a tensor, but the last
        small: list[str] = []
        for name in sorted(features):
            if features[name].encoding == "tensor":
                self._sections.append((small, _section(small, features, name), name))
                small = []
            else:
                small.append(name)
        self._sections.append((small, _section(small, features), ""))

    def __call__(self, values: Mapping[str, Any]) -> bytes:
        """A record."""
        return b"".join(self.parts(values))

    def parts(self, values: Mapping[str, Any]) -> list[bytes]:
        """A record in parts: pixels as they were given, uncopied, and what stands around them."""
        parts: list[bytes] = [b""]
        for names, encode, tensor in self._sections:
            parts.append(encode(*[values[name] for name in names]))
            if tensor:
                parts.append(values[tensor])
        parts[0] = _head(sum(map(len, parts)))
        return parts


@functools.lru_cache(maxsize=1 << 10)
def _head(length: int) -> bytes:
    return b"\x0a" + varint(length)


def _section(
    names: Sequence[str], features: Mapping[str, Feature], tensor: str = ""
) -> Callable[..., bytes]:
    """A function from some scalars' values to their entries in ``Features.feature``, and to what
    stands before the pixels of the tensor behind them."""
    encoders = [_scalar(name, features[name]) for name in names]
    before = _before_pixels(tensor, features[tensor]) if tensor else b""

    def encode(*values: Any) -> bytes:
        return b"".join([e(v) for e, v in zip(encoders, values, strict=True)]) + before

    # They repeat from record to record: rows and columns of a grid, a scene's id. Floats do not, and
    # 0.0 would be written for -0.0.
    repeats = all(features[name].kind != "value" for name in names)
    return functools.lru_cache(maxsize=1 << 11)(encode) if repeats else encode


def _scalar(name: str, feature: Feature) -> Callable[[Any], bytes]:
    if feature.kind == "value":
        before = _entry(name, _FLOAT_LIST, bytes(4))[:-4]
        return lambda value: before + struct.pack("<f", value)

    @functools.lru_cache(maxsize=1 << 14)
    def encode(value: Any) -> bytes:
        if feature.kind in ("int", "class"):
            return _entry(name, _INT64_LIST, varint(int(value)))
        return _entry(name, _BYTES_LIST, value.encode())

    return encode


def _before_pixels(name: str, feature: Feature) -> bytes:
    header = tensor_header(feature.shape, feature.dtype)
    size = int(np.prod(feature.shape, dtype=np.int64)) * np.dtype(feature.dtype).itemsize
    return _entry(name, _BYTES_LIST, header + bytes(size))[: -size or None]


def _entry(name: str, kind: bytes, value: bytes) -> bytes:
    """An entry of the map ``Features.feature``."""
    listed = _field(b"\x12", _field(kind, _field(b"\x0a", value)))
    return _field(b"\x0a", _field(b"\x0a", name.encode()) + listed)


Gather = Callable[[np.ndarray, int], np.ndarray]


def decode_batch(
    gather: Gather, positions: np.ndarray, features: Mapping[str, Feature], wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """Decodes records in lockstep: one pass of numpy over all headers, one copy of the pixels.

    Records of one dataset have the same features in the same (sorted) order, so a cursor per
    record moves through all of them together; only varints differ in length.

    Args:
      gather: ``gather(positions, n)`` gives the ``n`` bytes at each position, uint8 (B, n),
        zeros past a record file's end.
      positions: where each record's payload begins, int64 (B,).
      features: the dataset's features.
      wanted: which of them to return.

    Returns:
      Stacked arrays: (B, H, W, C) images, (B,) scalars, object arrays of ``str`` for text.

    Raises:
      DatasetError: the bytes are not such records.
    """
    out: dict[str, np.ndarray] = {}
    cursor = _Cursor(gather, positions.astype(np.int64))
    cursor.expect(0x0A, "Example.features")
    cursor.varint()
    left = set(wanted)
    for name in sorted(features):
        if not left:
            break  # what follows is not even read
        feature = features[name]
        cursor.expect(0x0A, name)  # an entry of the map Features.feature
        cursor.varint()
        cursor.literal(_field(b"\x0a", name.encode()), name)
        cursor.expect(0x12, name)  # its value, a Feature
        cursor.varint()
        cursor.skip(1)  # the kind: bytes, float or int64 list
        cursor.varint()
        cursor.expect(0x0A, name)
        if name in wanted:
            out[name] = _payload(cursor, feature, name)
            left.remove(name)
        else:
            cursor.skip(cursor.varint())
    return {name: out[name] for name in wanted}


def decode_records(
    records: Sequence[np.ndarray], features: Mapping[str, Feature], wanted: Sequence[str],
    empty: Callable[[int, int], np.ndarray],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Decodes serialized records that are in memory, as ``decode_batch`` does.

    Args:
      records: uint8 (N,) each.
      empty: lends an uninitialized uint8 matrix of so many rows and columns.
    """

    def gather(positions: np.ndarray, n: int) -> np.ndarray:
        out = empty(len(records), n)
        for row, record, at in zip(out, records, positions.tolist(), strict=True):
            part = record[at : at + n]
            if len(part) == n:
                row[:] = part
            else:
                row[: len(part)] = part
                row[len(part) :] = 0
        return out

    return decode_batch(gather, np.zeros(len(records), np.int64), features, wanted)


def _payload(cursor: _Cursor, feature: Feature, name: str) -> np.ndarray:
    length = cursor.varint()
    if feature.encoding == "tensor":
        header = tensor_header(feature.shape, feature.dtype)
        dtype = np.dtype(feature.dtype).newbyteorder("<")
        size = int(np.prod(feature.shape, dtype=np.int64)) * dtype.itemsize
        if (length != len(header) + size).any():
            raise DatasetError(f"feature {name!r}: a tensor of another size than dataset.json says")
        cursor.literal(header, name)
        pixels = cursor.take(size)
        return pixels.view(dtype).reshape(len(pixels), *feature.shape)
    if feature.kind == "value":
        return cursor.small(4).view("<f4").reshape(-1)
    if feature.kind in ("int", "class"):
        return cursor.varint()
    text = cursor.small(int(length.max(initial=0)), length)
    return np.array([bytes(t[:n]).decode() for t, n in zip(text, length, strict=True)], object)


class _Cursor:
    """A position in each of B records, and the bytes ahead of it, read some at a time."""

    AHEAD = 160  # what stands between two tensors is mostly shorter

    def __init__(self, gather: Gather, positions: np.ndarray):
        self._gather, self.positions = gather, positions
        self._rows = np.arange(len(positions))
        self._ahead, self._base = np.zeros((len(positions), 0), np.uint8), positions

    def _column(self, n: int) -> np.ndarray:
        """Where the cursors stand in the bytes read ahead, n more of which are there."""
        offset: np.ndarray = self.positions - self._base
        if offset.max(initial=0) + n > self._ahead.shape[1]:
            self._base = self.positions
            self._ahead = self._gather(self.positions, max(n, self.AHEAD))
            offset = np.zeros(len(self.positions), np.int64)
        return offset

    def _byte(self) -> np.ndarray:
        column = self._column(1)
        return np.asarray(self._ahead[self._rows, column])

    def small(self, n: int, advance: np.ndarray | int | None = None) -> np.ndarray:
        """The next n bytes, uint8 (B, n), from what was read ahead."""
        column = self._column(n)
        found = self._ahead[self._rows[:, None], column[:, None] + np.arange(n)]
        self.skip(n if advance is None else advance)
        return np.asarray(found)

    def expect(self, tag: int, name: str) -> None:
        if (self._byte() != tag).any():
            raise DatasetError(f"{name!r} is not where a record should hold it: {_HINT}")
        self.skip(1)

    def literal(self, text: bytes, name: str) -> None:
        if (self.small(len(text)) != np.frombuffer(text, np.uint8)).any():
            raise DatasetError(f"{name!r} is not as dataset.json describes it: {_HINT}")

    def varint(self) -> np.ndarray:
        """The varint under each cursor, int64 (B,), moving past it."""
        value = np.zeros(len(self.positions), np.uint64)
        more = np.ones(len(self.positions), bool)
        for shift in range(0, 70, 7):
            byte = self._byte().astype(np.uint64)
            value |= np.where(more, (byte & np.uint64(0x7F)) << np.uint64(shift), np.uint64(0))
            self.skip(more)
            more = more & (byte > 0x7F)
            if not more.any():
                return value.view(np.int64)
        raise DatasetError(f"a record holds a number that does not end: {_HINT}")

    def skip(self, n: int | np.ndarray) -> None:
        self.positions = self.positions + n

    def take(self, n: int) -> np.ndarray:
        """The next n bytes, straight from the records: for what is large."""
        found = self._gather(self.positions, n)
        self.skip(n)
        return found


_HINT = "run `scenefeed verify`"

"""Stage files: the patches of one scene in one HDF5 file.

Datasets ``image`` (N, H, W, C), each mask (N, H, W), each other label and numeric scalar (N),
``row`` and ``col`` (N, int32), ``valid`` (N, float32), ``invalid`` (N, C, uint32: each band's values
that hold ``fill``), ``hash`` (N, uint64, XXH3 of the image's bytes); attributes as docs/format.md lists them. Image and masks are stored in plain,
uncompressed chunks of about 1 MiB, written whole (no filter pipeline) and read by offset with
``pread``: HDF5's global lock would let only one of a process's workers read at a time, and a
memory map would count as memory of the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from h5py._objects import phil

from ..loader.spec import Feature
from ..loader.stage import patch_offsets
from .errors import DISK_ERRORS, MAKE_ROOM, JobError, describe
from .remotestage import RemoteStage
from .storage import is_remote, size_of

CHUNK_BYTES = 1 << 20
_KEYS = ("scene_id", "row", "col")


class StageWriter:
    """Writes one stage file under a temporary name; ``finish`` renames it.

    Patches are cut straight into its buffer: ``space(n)`` lends room for n patches, and
    ``commit`` keeps some of them. Full chunks go to the file, the rest waits in the buffer.

    Args:
      path: the final path.
      columns: name to (shape of one patch, dtype): the image, labels and scalars.
      most: an upper bound of the number of patches.
    """

    def __init__(self, path: Path, columns: Mapping[str, tuple[tuple[int, ...], str]], most: int):
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        largest = max(int(np.prod(s)) * np.dtype(d).itemsize for s, d in columns.values())
        self._chunk = min(max(1, CHUNK_BYTES // largest), most)
        self._columns = {k: v for k, v in columns.items() if v[0]}
        self._scalars = {k: np.dtype(d) for k, (s, d) in columns.items() if not s}
        self._lent: dict[str, np.ndarray] = {}
        self._buffers = {k: np.empty((0, *s), d) for k, (s, d) in self._columns.items()}
        self._held = self._written = 0
        self._small: dict[str, list[np.ndarray]] = {}
        try:
            self._create()
        except BaseException:
            self.abandon()
            raise

    def _create(self) -> None:
        self._file = h5py.File(self._temporary, "w", locking=False)
        self._tensors = {
            name: self._file.create_dataset(
                name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(self._chunk, *shape)
            )
            for name, (shape, dtype) in self._columns.items()
        }

    def space(self, count: int) -> dict[str, np.ndarray]:
        """Room for ``count`` patches of each column, to be filled before ``commit``."""
        needed = self._held + count + self._chunk
        for name, (shape, dtype) in self._columns.items():
            if len(self._buffers[name]) < needed:
                larger = np.empty((needed, *shape), dtype)
                larger[: self._held] = self._buffers[name][: self._held]
                self._buffers[name] = larger
        self._lent = {k: np.empty(count, d) for k, d in self._scalars.items()}
        lent = {k: b[self._held : self._held + count] for k, b in self._buffers.items()}
        return lent | self._lent

    def commit(
        self, rows: np.ndarray, cols: np.ndarray, valid: np.ndarray, keep: np.ndarray
    ) -> None:
        """Keeps the patches of the last ``space`` where ``keep`` is true."""
        kept = int(keep.sum())
        if kept < len(keep):
            for buffer in self._buffers.values():
                buffer[self._held : self._held + kept] = buffer[
                    self._held : self._held + len(keep)
                ][keep]
        images = self._buffers["image"][self._held : self._held + kept]
        found = [xxhash.xxh3_64_intdigest(image.data) for image in images]
        keys = {"row": rows[keep], "col": cols[keep], "valid": valid[keep]}
        keys |= {k: v[keep] for k, v in self._lent.items()}
        for name, values in (keys | {"hash": np.array(found, np.uint64)}).items():
            self._small.setdefault(name, []).append(values)
        self._held += kept
        full = self._held // self._chunk * self._chunk
        if full:
            self._write(full)
            for buffer in self._buffers.values():
                buffer[: self._held - full] = buffer[full : self._held].copy()
            self._held -= full

    def _write(self, count: int) -> None:
        for name, buffer in self._buffers.items():
            dataset = self._tensors[name]
            dataset.resize(self._written + count, axis=0)
            corner = (0,) * (buffer.ndim - 1)
            for i in range(0, count, self._chunk):
                chunk = buffer[i : i + self._chunk].data.cast("B")
                # Before 3.16, h5py takes its global lock everywhere but here (its issue 2764).
                with phil:
                    dataset.id.write_direct_chunk((self._written + i, *corner), chunk)
        self._written += count

    def finish(self, attributes: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Writes what is left, the keys and the attributes; renames.

        Returns:
          The small columns, and as ``image@`` where each patch of a tensor begins: arrays (N,).
        """
        total = self._written + self._held
        if self._held:
            for buffer in self._buffers.values():
                buffer[self._held : self._chunk] = 0
            self._write(self._chunk)
            for tensor in self._tensors.values():
                tensor.resize(total, axis=0)
        found = {f"{name}@": patch_offsets(tensor) for name, tensor in self._tensors.items()}
        keys = {"row": np.int32, "col": np.int32, "valid": np.float32, "hash": np.uint64}
        for name, dtype in (keys | self._scalars).items():
            found[name] = np.concatenate(self._small.get(name, [np.empty(0)])).astype(dtype)
            self._file.create_dataset(name, data=found[name])
        self._file.attrs.update(attributes)
        self._file.close()
        os.replace(self._temporary, self._path)
        return found

    def abandon(self) -> None:
        """Removes the temporary file."""
        with contextlib.suppress(Exception):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(
    path: Path, columns: Mapping[str, tuple[tuple[int, ...], str]], most: int
) -> Iterator[StageWriter]:
    """A writer that leaves nothing behind when its block fails.

    Raises:
      JobError: the disk is full or cannot be written.
    """
    writer = None
    try:
        writer = StageWriter(path, columns, most)
        yield writer
    except BaseException as e:
        if writer is not None:
            writer.abandon()
        if isinstance(e, OSError | RuntimeError) and (code := disk_errno(e)):
            raise JobError(f"{path}: cannot be written: {os.strerror(code)}: {MAKE_ROOM}") from e
        raise


def disk_errno(error: BaseException) -> int | None:
    """The errno of a failure that is the machine's fault. HDF5 words it in its message, and h5py
    does not always set it."""
    worded = re.search(r"errno = (\d+)", str(error))
    code = getattr(error, "errno", None) or (int(worded.group(1)) if worded else None)
    return code if code in DISK_ERRORS else None


def read_columns(path: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Whole small columns of a stage file, such as ``row``, ``col`` or a scalar: arrays (N,).

    Raises:
      JobError: the file is missing or damaged.
    """
    with _reading(path) as file:
        return {name: file[name][:] for name in names}


@dataclasses.dataclass(frozen=True)
class Contents:
    """Where a stage file's patches lie, and its scalars.

    Attributes:
      rows, cols: corners of all patches, int32 (N,).
      offsets: by tensor, where each patch's bytes begin in the file, int64 (N,).
      values: each scalar's values (N,).
      texts: scalars that are the same text for the whole scene.
    """

    rows: np.ndarray
    cols: np.ndarray
    offsets: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    texts: Mapping[str, str]


def read_contents(path: str, features: Mapping[str, Feature]) -> Contents:
    """What records of these features take from a stage file.

    Raises:
      JobError: the file is missing or damaged.
    """
    with _reading(path) as file:
        texts = json.loads(file.attrs["notes"])["texts"]
        found = {f"{k}@": _offsets(file, k) for k in _tensors(features)}
        small = [k for k in _scalars(features) if k not in texts]
        found |= {k: file[k][:] for k in ("row", "col", *small)}
        return contents_of(found, texts, features)


def contents_of(
    columns: Mapping[str, np.ndarray], texts: Mapping[str, str], features: Mapping[str, Feature]
) -> Contents:
    """What records of these features take from columns that ``StageWriter.finish`` gave."""
    scalars = _scalars(features)
    return Contents(
        columns["row"], columns["col"], {k: columns[f"{k}@"] for k in _tensors(features)},
        {k: columns[k] for k in scalars if k not in texts},
        {k: texts[k] for k in scalars if k in texts},
    )  # fmt: skip


def _tensors(features: Mapping[str, Feature]) -> list[str]:
    return [k for k, f in features.items() if f.encoding == "tensor"]


def _scalars(features: Mapping[str, Feature]) -> list[str]:
    return [k for k, f in features.items() if f.encoding == "scalar" and k not in _KEYS]


def _offsets(file: Any, name: str) -> np.ndarray:
    return file.offsets(name) if isinstance(file, RemoteStage) else patch_offsets(file[name])


def read_chunks(path: str, name: str) -> Iterator[np.ndarray]:
    """A column that may be large, some patches at a time: arrays (n, ...).

    Raises:
      JobError: the file is missing or damaged.
    """
    if is_remote(path):
        with _reading(path) as remote:
            yield from remote.patches(name)
        return
    with _reading(path) as file:
        column = file[name]
        step = max(1, (16 << 20) // max(1, int(np.prod(column.shape[1:])) * column.dtype.itemsize))
        for start in range(0, len(column), step):
            yield column[start : start + step]


def read_patches(path: str, name: str, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Some patches of a tensor, in the file's order: arrays (n, ...) of up to 16 MiB, each of which
    is gone with the next.

    Args:
      path: the stage file.
      name: which tensor.
      chosen: places of patches, ascending.

    Raises:
      JobError: the file is missing or damaged.
    """
    with _reading(path) as file:
        if isinstance(file, RemoteStage):
            yield from file.patches(name, chosen)
            return
        column = file[name]
        offsets, shape, dtype = patch_offsets(column)[chosen], column.shape[1:], column.dtype
    if not len(offsets):
        return
    size = int(np.prod(shape)) * dtype.itemsize
    step = max(1, (16 << 20) // size)
    buffer = np.empty((min(step, len(offsets)), *shape), dtype)
    with open(path, "rb", buffering=0) as local:
        for start in range(0, len(offsets), step):
            part = offsets[start : start + step]
            _read_stretches(local.fileno(), part, size, buffer.data.cast("B"), path)
            yield buffer[: len(part)]


def _read_stretches(fd: int, offsets: np.ndarray, size: int, out: memoryview, path: str) -> None:
    """Reads patches into ``out``, those that lie one behind the other at once."""
    starts = np.flatnonzero(np.diff(offsets, prepend=-1) != size)
    for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(offsets)], strict=True):
        room = out[first * size : end * size]
        if os.preadv(fd, [room], int(offsets[first])) != len(room):
            raise JobError(f"{path}: the stage file is cut off: remove it and convert again")


def read_fill(path: str) -> np.ndarray:
    """What invalid values of each band hold, float64 (C,).

    Raises:
      JobError: the file is missing or damaged.
    """
    with _reading(path) as file:
        return np.asarray(file.attrs["fill"], np.float64)


def read_notes(path: str) -> dict[str, Any]:
    """What a stage file says in JSON: ``texts``, ``tallies``, ``properties``.

    Raises:
      JobError: the file is missing or damaged.
    """
    with _reading(path) as file:
        return dict(json.loads(file.attrs["notes"]))


@contextlib.contextmanager
def _reading(path: str) -> Iterator[Any]:
    """The HDF5 file, or what stands for it where that is remote."""
    try:
        if is_remote(path):
            yield RemoteStage(path)
            return
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError) as e:
        raise JobError(
            f"{path}: the stage file cannot be read ({describe(e)}): remove it and convert again"
        ) from None


def is_whole(path: str, fingerprint: str) -> bool:
    """Whether a stage file is there, complete, and made from the same inputs and configuration."""
    if not is_remote(path) and not os.path.exists(path):
        return False  # sooner than HDF5 finds out
    try:
        if is_remote(path):
            index = RemoteStage(path)
            return index.attrs["fingerprint"] == fingerprint and size_of(path) == index.num_bytes
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs["fingerprint"] == fingerprint and "row" in file)
    except (OSError, KeyError, ValueError):
        return False

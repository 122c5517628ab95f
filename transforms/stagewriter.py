"""Writing stage files (``stagefile`` tells what is in one).

With h5py's low-level calls: the others take 2.8 ms to create a small scene's file, these 1.4.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from h5py import h5a, h5d, h5f, h5p, h5s, h5t
from h5py._objects import phil

from ..loader.stage import offsets_in_chunks
from .errors import DISK_ERRORS, MAKE_ROOM, JobError

CHUNK_BYTES = 1 << 20
_KEYS = {"row": "int32", "col": "int32", "valid": "float32", "hash": "uint64"}
_TEXT = h5py.string_dtype()


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
        self._chunk, self._most = min(max(1, CHUNK_BYTES // largest), most), most
        self._columns = {k: v for k, v in columns.items() if v[0]}
        self._scalars = {k: d for k, (s, d) in columns.items() if not s}
        self._lent: dict[str, np.ndarray] = {}
        self._buffers = {k: np.empty((0, *s), d) for k, (s, d) in self._columns.items()}
        self._held = self._written = 0
        self._small: dict[str, list[np.ndarray]] = {}
        self._file: Any = None
        try:
            self._file = h5f.create(os.fsencode(self._temporary), h5f.ACC_TRUNC, fapl=_access())
            self._tensors = {
                name: _create_tensor(self._file, name, most, self._chunk, shape, dtype)
                for name, (shape, dtype) in self._columns.items()
            }
        except BaseException:
            self.abandon()
            raise

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
            tensor, corner = self._tensors[name], (0,) * (buffer.ndim - 1)
            for i in range(0, count, self._chunk):
                chunk = buffer[i : i + self._chunk].data.cast("B")
                # Before 3.16, h5py takes its global lock everywhere but here (its issue 2764).
                with phil:
                    tensor.write_direct_chunk((self._written + i, *corner), chunk)
        self._written += count

    def finish(self, attributes: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Writes what is left, the keys and the attributes; renames.

        Returns:
          The small columns, and as ``image@`` where each patch of a tensor begins: arrays (N,).
        """
        total = self._written + self._held
        if total < self._most:  # before the last chunk, which else would be read again
            for name, (shape, _) in self._columns.items():
                self._tensors[name].set_extent((total, *shape))
        if self._held:
            for buffer in self._buffers.values():
                buffer[self._held : self._chunk] = 0
            self._write(self._chunk)
        found = {
            f"{k}@": offsets_in_chunks(t, total, self._chunk, self._buffers[k][:1].nbytes)
            for k, t in self._tensors.items()
        }
        for name, dtype in (_KEYS | self._scalars).items():
            found[name] = np.concatenate(self._small.get(name, [np.empty(0)])).astype(dtype)
            _add_column(self._file, name, found[name])
        for name, value in attributes.items():
            _add_attribute(self._file, name, value)
        self._file.close()
        os.replace(self._temporary, self._path)
        return found

    def abandon(self) -> None:
        """Removes the temporary file."""
        with contextlib.suppress(Exception):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


@functools.cache
def _access() -> Any:
    """How the file is opened: without a lock, which network file systems may lack; closed with all
    that is open in it; in the format of any HDF5, whose root tells no time (that of HDF5 2 does).
    """
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST)
    access.set_file_locking(False, True)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    # What is buffered is written when a dataset is freed, where a full disk ends in a crash.
    access.set_sieve_buf_size(0)
    return access


@functools.cache
def _type(dtype: np.dtype[Any]) -> Any:
    return h5t.py_create(dtype, logical=True)


def _creation() -> Any:
    """Of a dataset that does not tell when: the same patches make the same file."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    return creation


def _create_tensor(
    file: Any, name: str, most: int, chunk: int, shape: tuple[int, ...], dtype: str
) -> Any:
    """A dataset (most, *shape) that can shrink, in chunks of some patches."""
    creation = _creation()
    creation.set_chunk((chunk, *shape))
    space = h5s.create_simple((most, *shape), (h5s.UNLIMITED, *shape))
    return h5d.create(file, name.encode(), _type(np.dtype(dtype)), space, creation)


def _add_column(file: Any, name: str, values: np.ndarray) -> None:
    space = h5s.create_simple(values.shape)
    column = h5d.create(file, name.encode(), _type(values.dtype), space, _creation())
    column.write(h5s.ALL, h5s.ALL, values)


def _add_attribute(file: Any, name: str, value: Any) -> None:
    """A text, a list of texts, or an array."""
    array = value if isinstance(value, np.ndarray) else np.array(value, _TEXT)
    space = h5s.create_simple(array.shape) if array.ndim else h5s.create(h5s.SCALAR)
    h5a.create(file, name.encode(), _type(array.dtype), space).write(array)


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

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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from ..loader.spec import Feature
from ..loader.stage import patch_offsets
from .errors import JobError, describe
from .remotestage import RemoteStage
from .storage import is_remote, size_of

_KEYS = ("scene_id", "row", "col")


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

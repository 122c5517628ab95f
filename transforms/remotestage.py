"""Stage files on shared storage, for workers that share no disk.

HDF5 is written and read on local disks alone. Before it is moved, a scene's patches are put in the
order of the global shuffle, so that each shard's share of them is one stretch of the file. Beside
the file goes its index, ``<id>.npz``: the small columns, where each patch lies, and the attributes.
Readers take the index and ranges of the file, and never open HDF5 remotely. The index is written
last: it says that the file is whole.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..loader.stage import patch_offsets
from ..loader.storage import file_system
from .errors import JobError, describe
from .hashing import shuffle_order
from .ranges import fetch, ranges
from .storage import index_of, remove, size_of

_BATCH = 16 << 20  # bytes that are put in order at once
_SMALL = ("row", "col", "valid", "hash")


class RemoteStage:
    """A remote stage file's index, read like the HDF5 file itself: small columns by name, and
    ``attrs``.

    Attributes:
      attrs: the HDF5 file's.
      num_bytes: of the HDF5 file.

    Raises:
      OSError: there is none (FileNotFoundError), or it is damaged.
      JobError: it cannot be reached.
    """

    def __init__(self, url: str):
        system, inner = file_system(index_of(url))
        try:
            data = system.cat_file(inner)
        except FileNotFoundError:
            raise
        except Exception as e:  # each driver has its own
            raise JobError(f"{index_of(url)}: cannot be read ({describe(e)})") from e
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as index:
                self._arrays: dict[str, np.ndarray] = {name: index[name] for name in index.files}
            head = json.loads(self._arrays.pop("head").tobytes())
        except (EOFError, ValueError, KeyError, zipfile.BadZipFile) as e:
            raise OSError(f"{index_of(url)}: damaged ({e})") from None
        self.attrs: dict[str, Any] = head["attrs"]
        self.num_bytes: int = head["num_bytes"]
        self._url, self._tensors = url, head["tensors"]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def offsets(self, name: str) -> np.ndarray:
        """As ``loader.stage.patch_offsets``."""
        return self._arrays[f"{name}@"]

    def patches(self, name: str, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """A tensor's patches, all or those at the places ``chosen``, some at a time: arrays
        (n, ...).

        Raises:
          JobError: the file cannot be read.
        """
        offsets, (shape, dtype) = self.offsets(name), self._tensors[name]
        offsets = offsets if chosen is None else offsets[chosen]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        step = max(1, _BATCH // size)
        for start in range(0, len(offsets), step):
            part = offsets[start : start + step]
            out = np.empty((len(part), size), np.uint8)

            def store(place: int, data: bytes, out: np.ndarray = out) -> None:
                out[place] = np.frombuffer(data, np.uint8)

            fetch(ranges(self._url, part, np.arange(len(part)), size), store)
            yield out.view(dtype).reshape(len(part), *shape)


def publish(local: Path, url: str, seed: int) -> None:
    """Moves a stage file to shared storage.

    Args:
      local: the file; it is removed.
      url: where it goes.
      seed: of the global shuffle.

    Raises:
      JobError: it cannot be written there.
    """
    ordered = in_shuffle_order(local, seed)
    try:
        index = _index(ordered)
        remove(index_of(url))
        system, inner = file_system(url)
        system.put_file(str(ordered), inner)
        if size_of(url) != (size := os.path.getsize(ordered)):
            raise OSError(f"{size_of(url)} bytes arrived of {size}")
        system, inner = file_system(index_of(url))
        system.pipe_file(inner, index)
    except JobError:
        raise
    except Exception as e:  # each driver has its own
        raise JobError(
            f"{url}: the stage file cannot be written ({describe(e)}): check that the bucket is "
            "there and that the workers may write to it, or choose another --stage_dir"
        ) from e
    finally:
        local.unlink(missing_ok=True)
        ordered.unlink(missing_ok=True)


def in_shuffle_order(path: Path, seed: int) -> Path:
    """A copy of a stage file whose patches stand in the order of the global shuffle."""
    from .stagewriter import writing

    ordered = path.with_name(f"{path.stem}-ordered.h5")
    with h5py.File(path, "r", locking=False) as file:
        rows, cols = file["row"][:], file["col"][:]
        order = np.argsort(shuffle_order(seed, str(file.attrs["scene_id"]), rows, cols))
        columns = {k: (v.shape[1:], str(v.dtype)) for k, v in file.items() if k not in _SMALL}
        tensors = {k: file[k] for k, (shape, _) in columns.items() if shape}
        small = {k: file[k][:] for k in file if k not in tensors}
        size = sum(v[:1].nbytes for v in tensors.values()) if len(order) else 1
        step = max(1, _BATCH // size)
        with writing(ordered, columns, max(1, len(order))) as writer:
            for start in range(0, len(order), step):
                at = order[start : start + step]
                space = writer.space(len(at))
                _fill(path, tensors, at, space)
                for name in columns.keys() - tensors.keys():
                    space[name][...] = small[name][at]
                writer.commit(rows[at], cols[at], small["valid"][at], np.ones(len(at), bool))
            writer.finish(dict(file.attrs))
    return ordered


def _fill(
    path: Path, tensors: Mapping[str, Any], at: np.ndarray, space: Mapping[str, np.ndarray]
) -> None:
    """Patches ``at`` of each tensor, by offset: HDF5 would read a chunk for each."""
    with open(path, "rb", buffering=0) as file:
        for name, tensor in tensors.items():
            offsets = patch_offsets(tensor)
            for patch, offset in zip(space[name], offsets[at].tolist(), strict=True):
                os.preadv(file.fileno(), [patch.data.cast("B")], offset)


def _index(path: Path) -> bytes:
    with h5py.File(path, "r", locking=False) as file:
        arrays: dict[str, np.ndarray] = {}
        tensors = {}
        for name, column in file.items():
            if column.ndim > 1 and name != "invalid":  # which readers want whole
                arrays[f"{name}@"] = patch_offsets(column)
                tensors[name] = column.shape[1:], column.dtype.str
            else:
                arrays[name] = column[:]
        attrs = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in file.attrs.items()}
    whole = {"attrs": attrs, "tensors": tensors, "num_bytes": os.path.getsize(path)}
    head = json.dumps(whole).encode()
    buffer = io.BytesIO()
    arrays["head"] = np.frombuffer(head, np.uint8)
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()

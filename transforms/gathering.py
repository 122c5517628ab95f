"""Gathering a shard's patches from its stage files.

A local stage file is read by offset. From a remote one, what a shard needs is fetched before it
is written, by ranges, into one temporary local file, which is as large as the shard.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..loader.spec import Feature
from .assign import Ordered, Pointers
from .errors import JobError
from .ranges import Range, fetch, ranges
from .storage import is_remote

MOST_OPEN = 128  # stage files
# A run of a shard's patches to the bytes of each, by tensor.
Patches = Callable[[slice], dict[str, list[bytes]]]


def tensor_bytes(features: Mapping[str, Feature]) -> dict[str, int]:
    """Bytes of each tensor of a record."""
    return {
        k: int(np.prod(f.shape, dtype=np.int64)) * np.dtype(f.dtype).itemsize
        for k, f in features.items() if f.encoding == "tensor"
    }  # fmt: skip


@contextlib.contextmanager
def gather(shard: Ordered, sizes: Mapping[str, int]) -> Iterator[Patches]:
    """A function that reads the patches of one shard.

    Args:
      shard: its patches in order.
      sizes: the tensors wanted, and the bytes of each.

    Raises:
      JobError: a stage file is missing or cut off, here or when its patch is read.
    """
    remote = [p for p in shard.groups if is_remote(p.path)]
    with contextlib.ExitStack() as stack:
        files = _Files()
        stack.callback(files.close)
        fetched: dict[tuple[str, str], np.ndarray] = {}
        copy = ""
        if remote:
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="scenefeed-"))
            fetched, copy = _fetch(remote, sizes, file.fileno()), file.name

        def placed(name: str) -> Callable[[Pointers], np.ndarray]:
            return lambda p: fetched.get((p.path, name), p.offsets[name])

        paths = [copy if is_remote(p.path) else p.path for p in shard.groups]
        places = {name: shard.column(placed(name)) for name in sizes}

        def read(run: slice) -> dict[str, list[bytes]]:
            # Lists of numbers, since one that is taken out of an array costs as much as a small read.
            sources = [paths[i] for i in shard.source[run].tolist()]
            return {
                name: [
                    files.read(path, at, size)
                    for path, at in zip(sources, places[name][run].tolist(), strict=True)
                ]
                for name, size in sizes.items()
            }

        yield read


class _Files:
    """Local files read by offset, any number of them with few open at a time. One thread's."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}  # the one used longest ago first

    def read(self, path: str, at: int, size: int) -> bytes:
        found = os.pread(self._descriptor(path), size, at)
        if len(found) != size:
            raise JobError(f"{path}: cut off before byte {at + size}: remove it, convert again")
        return found

    def _descriptor(self, path: str) -> int:
        fd = self._open.pop(path, None)
        if fd is None:
            if len(self._open) >= MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                raise JobError(f"{path}: the stage file is gone: convert again") from None
        self._open[path] = fd
        return fd

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def _fetch(
    pointers: Sequence[Pointers], sizes: Mapping[str, int], fd: int
) -> dict[tuple[str, str], np.ndarray]:
    """Copies patches of remote files to ``fd``, one behind the other.

    Returns:
      By (stage file, tensor), where each of the group's patches begins there, int64 (N,).
    """
    moved: dict[tuple[str, str], np.ndarray] = {}
    wanted: list[Range] = []
    end = 0
    for group in pointers:
        for name, size in sizes.items():
            places = end + np.arange(len(group.order)) * size
            end += len(places) * size
            moved[group.path, name] = places
            wanted += ranges(group.path, group.offsets[name], places, size)
    try:
        os.posix_fallocate(fd, 0, max(1, end))
        fetch(wanted, lambda place, data: os.pwrite(fd, data, place))
    except OSError as e:
        raise JobError(
            f"{tempfile.gettempdir()}: the temporary folder of a worker cannot hold one shard "
            f"({end >> 20} MiB): {e.strerror}: set TMPDIR to a larger disk there"
        ) from e
    return moved

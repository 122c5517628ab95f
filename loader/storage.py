"""Where shards lie: local files, memory, or any file system that fsspec knows.

Each kind opens a split's shards and fills rows of a matrix from offsets in them; nothing above
knows which it is.
"""

from __future__ import annotations

import getpass
import os
import resource
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from .ahead import read_ahead
from .spec import DatasetError

BLOCK, _UNPACKED = 8 << 20, 1 << 20  # bytes of a remote request, of what is decompressed at once


class Shards(Protocol):
    """A split's shards, uncompressed, open."""

    sizes: list[int]

    def read(self, shard: int, start: int, size: int) -> bytes:
        """``size`` bytes from ``start``; fewer at the end."""

    def fill(self, shards: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
        """Fills row i of ``out``, uint8 (B, n), from ``starts[i]`` of shard ``shards[i]``; zeros
        past its end."""


def is_remote(path: str | Path) -> bool:
    """A URL rather than a path."""
    return "://" in str(path)


def join(root: str | Path, name: str) -> str:
    """``name`` below ``root``, a folder or a URL."""
    return f"{str(root).rstrip('/')}/{name}" if is_remote(root) else str(Path(root) / name)


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it.

    Raises:
      DatasetError: fsspec or its driver for this scheme is not installed.
    """
    try:
        import fsspec

        if url.startswith("hdfs://"):  # by WebHDFS: fsspec's own needs a Java installation
            url = f"web{url}" if "@" in url else f"webhdfs://{_hadoop_user()}@{url[7:]}"
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
        return found
    except (ImportError, ValueError) as e:
        raise DatasetError(
            f"{url}: cannot be opened ({e}): pip install 'scenefeed[remote]', or fsspec's driver "
            "for it"
        ) from None


def _hadoop_user() -> str:
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()


def read_file(path: str | Path) -> bytes:
    """The whole of a small file, local or remote.

    Raises:
      OSError: FileNotFoundError where there is none.
      DatasetError: no way to read such a URL.
    """
    if not is_remote(path):
        return Path(path).read_bytes()
    system, inner = file_system(str(path))
    data: bytes = system.cat_file(inner)
    return data


def open_file(path: str, compression: str) -> BinaryIO:
    """A shard for reading from its beginning, decompressed on the way.

    Raises:
      OSError: it cannot be opened.
    """
    if not is_remote(path):
        return unpacked(open(path, "rb"), compression)
    system, inner = file_system(path)
    # Each read is a request of its own size: what fsspec would keep for later, nobody reads.
    raw = system.open(inner, "rb", block_size=BLOCK, cache_type="none")
    return unpacked(read_ahead(raw, BLOCK), compression)


def unpacked(file: BinaryIO, compression: str) -> BinaryIO:
    """A shard's records from its file, which is closed with what this gives."""
    if compression == "none":
        return file
    from isal import igzip

    inside = igzip.open(file, "rb")  # type: ignore[no-untyped-call]
    return read_ahead(inside, _UNPACKED, file)


def open_shards(paths: Sequence[str], sizes: Sequence[int]) -> Shards:
    """Opens shards where they lie.

    Args:
      paths: of each shard, or URLs.
      sizes: how many bytes each should have; believed of remote ones.

    Raises:
      DatasetError: one is missing, cannot be opened or has another size.
    """
    if paths and is_remote(paths[0]):
        return RemoteShards(paths, sizes)
    opened = LocalShards(paths)
    check_sizes(paths, opened.sizes, sizes)
    return opened


def check_sizes(paths: Sequence[str], found: Sequence[int], expected: Sequence[int]) -> None:
    """Compares files' bytes with what dataset.json says of them.

    Raises:
      DatasetError: one has another size.
    """
    for path, size, wanted in zip(paths, found, expected, strict=True):
        if size != wanted:
            raise DatasetError(
                f"{path}: {size} bytes, dataset.json says {wanted}: it is truncated or of "
                "another conversion; convert or fetch it again"
            )


class LocalShards:
    """Shards on a local disk, by ``preadv``: no mapping whose pages would be faulted in one by
    one, and no file position that threads or forked workers would share."""

    def __init__(self, paths: Sequence[str]):
        _allow_open_files(len(paths))
        self._fds: list[int] = []
        # Not at exit: threads of TensorFlow may still be reading.
        weakref.finalize(self, _close, self._fds).atexit = False
        for path in paths:
            try:
                self._fds.append(os.open(path, os.O_RDONLY))
            except FileNotFoundError:
                raise DatasetError(
                    f"{path}: the shard is missing: run `scenefeed convert` again"
                ) from None
            except OSError as e:
                raise DatasetError(f"{path}: {e.strerror}") from None
        self.sizes = [os.fstat(fd).st_size for fd in self._fds]

    def read(self, shard: int, start: int, size: int) -> bytes:
        return os.pread(self._fds[shard], size, start)

    def fill(self, shards: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
        fds, preadv, n = self._fds, os.preadv, out.shape[1]
        for row, shard, at in zip(out, shards.tolist(), starts.tolist(), strict=True):
            got = preadv(fds[shard], (row,), at)
            if got != n:
                row[max(0, got) :] = 0


class MemoryShards:
    """Shards held in memory, uint8 arrays."""

    def __init__(self, shards: Sequence[np.ndarray]):
        self._shards = list(shards)
        self.sizes = [len(s) for s in shards]

    def read(self, shard: int, start: int, size: int) -> bytes:
        return self._shards[shard][start : start + size].tobytes()

    def fill(self, shards: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
        n = out.shape[1]
        for row, shard, at in zip(out, shards.tolist(), starts.tolist(), strict=True):
            found = self._shards[shard][at : at + n]
            row[: len(found)] = found
            row[len(found) :] = 0


class RemoteShards:
    """Shards on a remote file system, by ranges: a batch is as many requests as it has records,
    which fsspec makes at once. Sizes are taken on trust; what is not there fails when read."""

    def __init__(self, urls: Sequence[str], sizes: Sequence[int]):
        self._system, _ = file_system(urls[0])
        self._urls = list(urls)
        self._paths = [self._system._strip_protocol(url) for url in urls]
        self.sizes = list(sizes)

    def read(self, shard: int, start: int, size: int) -> bytes:
        end = min(start + size, self.sizes[shard])
        return self._ranges([shard], [start], [end])[0] if start < end else b""

    def fill(self, shards: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
        sizes = np.array(self.sizes)[shards]
        ends = np.minimum(starts + out.shape[1], sizes)
        found = self._ranges(shards.tolist(), starts.tolist(), ends.tolist())
        for row, data, shard in zip(out, found, shards.tolist(), strict=True):
            if len(data) > len(row):
                raise DatasetError(
                    f"{self._urls[shard]}: its server gives whole files, not ranges: read it as a "
                    "stream, or give cache=FOLDER"
                )
            row[: len(data)] = np.frombuffer(data, np.uint8)
            row[len(data) :] = 0

    def _ranges(self, shards: list[int], starts: list[int], ends: list[int]) -> list[bytes]:
        paths = [self._paths[i] for i in shards]
        found = self._system.cat_ranges(paths, starts, ends, on_error="return")
        for shard, data in zip(shards, found, strict=True):
            if isinstance(data, BaseException):
                raise DatasetError(f"{self._urls[shard]}: cannot be read: {_words(data)}") from data
        return list(found)


def read_files(paths: Sequence[str]) -> list[bytes | None]:
    """Small files, at once where they are remote; None for those that are not there."""
    if paths and is_remote(paths[0]):
        system, _ = file_system(paths[0])
        inner = [system._strip_protocol(p) for p in paths]
        found = system.cat(inner, on_error="return") if len(inner) > 1 else None
        if found is None:
            try:
                found = {inner[0]: system.cat_file(inner[0])}
            except FileNotFoundError:
                found = {}
        return [None if isinstance(d := found.get(p), BaseException) else d for p in inner]
    return [_local_file(path) for path in paths]


def _local_file(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return None


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _allow_open_files(count: int) -> None:
    """Raises this process's soft limit of open files, which often is 1024, where it must."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

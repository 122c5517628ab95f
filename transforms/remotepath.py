"""A URL with those of pathlib's methods that are used here."""

from __future__ import annotations

import functools
import posixpath
from pathlib import PurePosixPath
from typing import Any

from ..loader.storage import file_system, read_file


@functools.total_ordering
class RemotePath:
    """``scheme://bucket/key``, or ``hdfs://host:port/path``. Folders are what keys begin with."""

    def __init__(self, url: str):
        scheme, rest = url.split("://", 1)
        bucket, _, inner = rest.partition("/")
        if scheme == "hdfs" and ":" not in bucket:
            bucket += ":9870"  # WebHDFS's, which each client would guess otherwise
        inner = posixpath.normpath(f"/{inner}")
        self._root, self._path = f"{scheme}://{bucket}", PurePosixPath(inner)

    def __str__(self) -> str:
        return f"{self._root}{self._path}".rstrip("/")

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __lt__(self, other: RemotePath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self._root}{self._path / name}")

    def with_suffix(self, suffix: str) -> RemotePath:
        return RemotePath(f"{self._root}{self._path.with_suffix(suffix)}")

    @property
    def parent(self) -> RemotePath:
        return RemotePath(f"{self._root}{self._path.parent}")

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def stem(self) -> str:
        return self._path.stem

    @property
    def suffix(self) -> str:
        return self._path.suffix

    def exists(self) -> bool:
        system, inner = self._system()
        return bool(system.exists(inner))

    def is_dir(self) -> bool:
        system, inner = self._system()
        return bool(system.isdir(inner))

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def read_bytes(self) -> bytes:
        return read_file(str(self))

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def _system(self) -> tuple[Any, str]:
        # What was listed before may have changed.
        system, inner = file_system(str(self))
        system.invalidate_cache()
        return system, inner

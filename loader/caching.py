"""Shards held nearer: in memory, or as uncompressed copies on a local disk.

A cache holds shards, not elements: one file each, in the dataset's own format, so there is no
limit to how many records one may hold, and what is cached is read by index, in any order.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from . import tfrecord
from .index import format_index, index_path, read_offsets
from .spec import DatasetError, DatasetSpec, Shard
from .storage import LocalShards, MemoryShards, Shards, join, read_file

_FETCHERS = 4  # shards fetched at once: each is held in memory while it is decompressed


def cached(
    root: str | Path, spec: DatasetSpec, split: str, cache: str | Path
) -> tuple[list[str], Shards, list[np.ndarray]]:
    """A split's shards from the cache, which is filled first where it has to be.

    Args:
      root: the dataset's folder or URL.
      cache: ``"memory"``, or a folder on a local disk.

    Returns:
      Names of the shards for messages, the open shards, and their records' offsets.

    Raises:
      DatasetError: a shard is missing or not the one that dataset.json describes.
    """
    shards = [s for s in spec.split(split).shards if s.num_examples]
    with ThreadPoolExecutor(_FETCHERS) as pool:
        if cache == "memory":
            data = list(pool.map(lambda s: _fetched(root, s, spec.compression), shards))
            opened = MemoryShards([np.frombuffer(d, np.uint8) for d in data])
            names = [join(root, s.path) for s in shards]
            return names, opened, _scanned(opened, names)
        folder = Path(cache) / f"{spec.name}-{spec.fingerprint[:16]}"
        names = list(pool.map(lambda s: _copied(root, s, spec.compression, folder), shards))
    files = LocalShards(names)
    return names, files, read_offsets(files, names, shards)


def _scanned(files: Shards, names: Sequence[str]) -> list[np.ndarray]:
    return [
        tfrecord.scan(lambda at, n, i=i: files.read(i, at, n), files.sizes[i], name)  # type: ignore[misc]
        for i, name in enumerate(names)
    ]


def _fetched(root: str | Path, shard: Shard, compression: str) -> bytes:
    """A shard's records, uncompressed, once its hash was compared."""
    path = join(root, shard.path)
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: the shard is missing: run `scenefeed convert` again") from None
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise DatasetError(
            f"{path}: its sha256 is not the one in dataset.json: convert or fetch it again"
        )
    if compression == "none":
        return data
    from isal import igzip

    unpacked: bytes = igzip.decompress(data)  # type: ignore[no-untyped-call]
    return unpacked


def _copied(root: str | Path, shard: Shard, compression: str, folder: Path) -> str:
    """The path of a shard's local copy, which appears whole or not at all."""
    target = folder / shard.path
    if target.exists():
        return str(target)
    data = _fetched(root, shard, compression)
    size = len(data)
    view = io.BytesIO(data).getbuffer()
    offsets = tfrecord.scan(lambda at, n: bytes(view[at : at + n]), size, str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    # The index first: a shard that is there is complete.
    lengths = np.diff(offsets, append=size)
    _write(Path(index_path(str(target))), format_index(lengths))
    _write(target, data)
    return str(target)


def _write(path: Path, data: bytes) -> None:
    """Writes under a temporary name and renames, so that several jobs may fill one cache."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as e:
        raise DatasetError(
            f"{path}: the cache cannot be written: {e.strerror}: give another cache folder"
        ) from e

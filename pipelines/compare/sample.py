"""The sample that all alternatives hold: drawn, checked for room, put down once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...loader import Feed, Reader
from ...loader.spec import DatasetError, DatasetSpec
from ...transforms.errors import ConfigError
from .alternative import Sample

BYTES, MOST = 256 << 20, 8192  # of a sample where no number is asked for
_AT_ONCE = 256  # patches read together
_PROCESS = 1 << 30  # bytes that a process with TensorFlow takes before it holds a patch
_BLOCK = 4096  # bytes that a small file takes at least


def size_of(spec: DatasetSpec, split: str, wanted: int | None) -> tuple[int, int]:
    """Patches of a sample, and its bytes."""
    image = spec.features["image"]
    each = int(np.prod(image.shape)) * np.dtype(image.dtype).itemsize
    count = min(wanted or max(1, min(MOST, BYTES // each)), spec.split(split).num_examples)
    return count, count * each


def check_room(folder: Path, count: int, size: int, room: float) -> None:
    """Whether memory and disk hold the sample, and one alternative at a time.

    Args:
      folder: where they are written.
      count, size: patches of the sample, and its bytes.
      room: the most bytes on disk that an alternative takes for a byte of patches.

    Raises:
      ConfigError: they do not.
    """
    # Twice: as it is read, and in its order; later in the page cache, and in a feed's buffers.
    needed, free = 2 * size + _PROCESS, available_memory()
    if needed > free:
        fits = max(0, (free - _PROCESS) // 2 * count // size)
        say = f"give --patches {fits} or less" if fits else "close other programs"
        raise ConfigError(
            f"a sample of {count:,} patches is {size / 2**30:.2f} GiB, and comparing it takes "
            f"{needed / 2**30:.2f} GiB of memory, of which {free / 2**30:.2f} GiB are free: {say}"
        )
    needed, free = round((1 + room) * size) + 2 * _BLOCK * count, shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"{folder}: {free / 1e6:,.0f} MB are free, and a sample of {count:,} patches takes up "
            f"to {needed / 1e6:,.0f} MB while it is compared: give --work on another disk, or "
            "fewer --patches"
        )


def available_memory() -> int:
    """Bytes that a process may still take: of the machine, and of a container's limit."""
    free = _number("/proc/meminfo", "MemAvailable:") * 1024
    limit, used = (_number(f"/sys/fs/cgroup/memory.{k}") for k in ("max", "current"))
    reclaimable = _number("/sys/fs/cgroup/memory.stat", "inactive_file")
    return min(free, limit - used + reclaimable) if limit else free


def _number(path: str, key: str = "") -> int:
    """A number in one of the kernel's files; 0 where there is none."""
    try:
        words = Path(path).read_text().split()
    except OSError:
        return 0
    word = words[words.index(key) + 1 if key in words else 0]
    return int(word) if word.isdigit() else 0


def put_down(path: str, spec: DatasetSpec, split: str, count: int, folder: Path) -> Sample:
    """Reads a sample, and writes it in the order in which it lies in its scenes.

    Raises:
      DatasetError: a shard is missing or damaged, or images are no plain numbers.
    """
    image = spec.features["image"]
    if np.dtype(image.dtype).kind not in "uif":
        raise DatasetError(f"{path}: images of {image.dtype} cannot be compared: no alternative "
                           "but the records holds them")  # fmt: skip
    label = next((k for k in spec.labels if spec.features[k].kind == "class"), "")
    names = ["image", "scene_id", "row", "col", *([label] if label else [])]
    total = spec.split(split).num_examples
    parts = list(_read(path, spec, split, names, count, total))
    values = {k: np.concatenate([p.pop(k) for p in parts]) for k in names}
    order = np.lexsort((values["col"], values["row"], values["scene_id"].astype(str)))
    images = values["image"]
    np.save(folder / "images.npy", images[order])
    if label:
        np.save(folder / "classes.npy", values[label][order])
    axes = (0, 1, 2)
    return Sample(
        str(folder), count, total, tuple(image.shape), image.dtype,
        bool(np.isfinite(images).all()), tuple(images.min(axis=axes).astype(float).tolist()),
        tuple(images.max(axis=axes).astype(float).tolist()),
    )  # fmt: skip


def _read(
    path: str, spec: DatasetSpec, split: str, names: list[str], count: int, total: int
) -> Iterator[dict[str, Any]]:
    """Records stand in the order of a hash: at even distances, or, of compressed shards, which
    are read from their beginnings, the first ones."""
    if spec.compression == "none":
        reader = Reader(path, split, names)
        chosen = np.arange(count) * total // count
        for i in range(0, count, _AT_ONCE):
            yield reader.batch(chosen[i : i + _AT_ONCE])
        return
    feed = Feed(
        path, split, source="stream", shuffle=False, batch_size=_AT_ONCE, features=names,
        normalize=None,
    )  # fmt: skip
    for begin, batch in zip(range(0, count, _AT_ONCE), feed, strict=False):
        yield {k: v[: count - begin] for k, v in batch.items()}

"""The page cache: what of some files lies in it, taking them out, and putting them in."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

DROP = Path("/proc/sys/vm/drop_caches")  # the whole machine's, for root alone
_BLOCK = 8 << 20


def may_drop() -> bool:
    """Whether the whole machine's page cache can be emptied from here."""
    try:
        os.close(os.open(DROP, os.O_WRONLY))  # root may be refused where it is mounted read-only
    except OSError:
        return False
    return True


def empty(files: Sequence[str], drop: bool = False) -> None:
    """Takes files out of the page cache, by posix_fadvise(2), which needs no rights.

    Args:
      files: paths, which nothing has mapped.
      drop: empty all of the cache, by proc_sys_vm(5)'s drop_caches.

    Raises:
      OSError: a file cannot be opened; no right to drop all.
    """
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # pages that are not written yet would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if drop:
        DROP.write_text("1")


def fill(files: Sequence[str]) -> None:
    """Reads files through, so that they lie in the page cache.

    Raises:
      OSError: one cannot be read.
    """
    block = bytearray(_BLOCK)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def resident(files: Sequence[str]) -> float | None:
    """The share, 0 to 1, of the files' pages that lie in memory, by mincore(2).

    None where that cannot be known: Linux tells it only of files that one may write.

    Raises:
      OSError: one cannot be read.
    """
    if not all(os.access(path, os.W_OK) for path in files):
        return None
    found = [_pages(path) for path in files]
    return sum(f for f, _ in found) / max(1, sum(n for _, n in found))


def _pages(path: str) -> tuple[int, int]:
    """How many of a file's pages are in memory, and how many it has."""
    size = os.path.getsize(path)
    if not size:
        return 0, 0
    states = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    # ctypes takes no address of what is read-only; nothing is written to this private copy.
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view:
        start = ctypes.c_char.from_buffer(view)
        libc, address = ctypes.CDLL(None, use_errno=True), ctypes.addressof(start)
        failed = libc.mincore(
            ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(states.ctypes.data)
        )
        del start  # a mapping that is looked at cannot be closed
        if failed:
            raise OSError(ctypes.get_errno(), "mincore", path)
    return int((states & 1).sum()), len(states)

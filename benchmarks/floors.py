"""The least that each step could take: core-seconds to copy, checksum, read and write a GB.

    python benchmarks/floors.py FOLDER          # writes and removes 128 MiB there

Memory is touched before it is timed, and used again, so that no step pays for fresh pages; blocks
are of 1 MiB, so that copies come from the processor's cache or near it. Prints one line of JSON:
operation to core-seconds per GB (user and system), the median of seven.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import google_crc32c
import numpy as np
import xxhash

BLOCK, SIZE = 1 << 20, 128 << 20

# What a step of the conversion cannot do without: operations on each of its bytes. The table of
# docs/performance.md lays what a step took beside their sum.
STEPS = {
    "read": ("read", "scan"),  # from the page cache; is every value finite?
    "tile": ("copy",),
    "stage": ("xxh3", "write"),
    "gather": ("read",),
    "serialize": ("copy",),
    "write": ("crc32c", "sha256", "write"),
}


def measure(folder: str) -> dict[str, float]:
    rng = np.random.default_rng(0)
    whole = rng.random(SIZE // 4, np.float32)
    blocks = whole.view(np.uint8).reshape(-1, BLOCK)
    blocks.flags.writeable = False
    room = np.ones(BLOCK, np.uint8)
    flags = np.ones(BLOCK // 4, bool)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = os.path.join(temporary, "blocks")
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.write(fd, blocks[0])

        def write() -> None:
            fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for block in blocks:
                os.write(fresh, block)
            os.close(fresh)

        def each(do: Callable[[np.ndarray], object]) -> Callable[[], None]:
            return lambda: [do(block) for block in blocks] and None

        def read() -> None:
            for start in range(0, SIZE, BLOCK):
                os.preadv(fd, [room], start)

        sha = hashlib.sha256()
        operations = {
            "write": write,  # first: read finds what it wrote
            "read": read,
            "copy": each(lambda block: np.copyto(room, block)),
            "scan": each(lambda block: np.isfinite(block.view(np.float32), out=flags).all()),
            "crc32c": each(google_crc32c.value),
            "xxh3": each(xxhash.xxh3_64_intdigest),
            "sha256": each(sha.update),
        }
        found = {name: _core_seconds(do) for name, do in operations.items()}
        os.close(fd)
    return found


def _core_seconds(do: Callable[[], None]) -> float:
    taken = []
    for _ in range(7):
        start = time.process_time()
        do()
        taken.append((time.process_time() - start) / SIZE * 1e9)
    return statistics.median(taken)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))

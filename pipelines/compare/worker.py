"""One half of one alternative, in a process of its own: ``write`` or ``feed``.

    python -m scenefeed.pipelines.compare.worker '{"name": ..., ...}'

Prints what it measured as JSON, its last line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .alternative import Alternative, Sample

GROUP = 5  # batches that are timed together, as in the target
LEAST, MOST, SECONDS = 3, 9, 3.0  # epochs timed: more while they are quick
WARM = 2  # patches written first
_HASHES = "hashes.npy"


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process does: ``step`` is write or feed, into or from ``folder``."""

    name: str
    step: str
    sample: Sample
    folder: str
    batch_size: int

    @classmethod
    def from_json(cls, text: str) -> Task:
        values = json.loads(text)
        sample: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values["sample"].items()
        }
        return cls(**values | {"sample": Sample(**sample)})


def write(alternative: Alternative, folder: Path) -> dict[str, Any]:
    """Seconds to write the sample, and what came of it. What must come back is hashed before,
    which reads the sample; two patches are written first, so that imports are not counted."""
    images, classes = alternative.sample.images(), alternative.sample.classes()
    hashes = [_hash(alternative.exact(images[i : i + 1])[0]) for i in range(len(images))]
    np.save(folder / _HASHES, np.array(hashes, np.uint64))
    out = folder / "warm"
    out.mkdir()
    alternative.write(images[:WARM], None if classes is None else classes[:WARM], out)
    shutil.rmtree(out)
    out = folder / "out"
    out.mkdir()
    start = time.perf_counter()
    alternative.write(images, classes, out)
    seconds = time.perf_counter() - start
    sizes = [p.stat().st_size for p in out.rglob("*") if p.is_file()]
    return {"write_s": seconds, "bytes": sum(sizes), "files": len(sizes)}


def feed(alternative: Alternative, folder: Path) -> dict[str, Any]:
    """Seconds for five batches, over whole epochs, so that filling a shuffle buffer counts. The
    first epoch warms up: its every patch is compared with its source."""
    batches, sample = alternative.feed(folder / "out"), alternative.sample
    positions = _compare(alternative, batches, np.load(folder / _HASHES))
    samples: list[float] = []
    begun = time.perf_counter()
    while len(samples) < LEAST or (
        len(samples) < MOST and time.perf_counter() - begun < SECONDS
    ):  # fmt: skip
        start, count = time.perf_counter(), 0
        for batch in batches:
            count += len(batch)
        seconds = time.perf_counter() - start
        if count != sample.count:
            raise ValueError(f"an epoch gave {count} patches of {sample.count}")
        samples.append(seconds / count * GROUP * alternative.batch_size)
    return {"samples": samples, "shuffle": shuffle_quality(positions)}


def _compare(alternative: Alternative, batches: Iterable[Any], hashes: np.ndarray) -> np.ndarray:
    """Where in the source the patches of one epoch lie (N,); of patches with equal pixels, the
    first to come is the first there.

    Raises:
      ValueError: they are not the sample's, each once.
    """
    found = [
        _hash(patch) for batch in batches for patch in alternative.exact(alternative.array(batch))
    ]
    fed, source = (np.argsort(h, kind="stable") for h in (np.array(found, np.uint64), hashes))
    if len(found) != len(hashes) or (np.array(found, np.uint64)[fed] != hashes[source]).any():
        lost = (Counter(hashes.tolist()) - Counter(found)).total()
        raise ValueError(
            f"{lost} of {len(hashes)} patches did not come back as they were, in {len(found)}"
        )
    positions = np.empty(len(hashes), np.int64)
    positions[fed] = source
    return positions


def _hash(patch: np.ndarray) -> int:
    import xxhash

    return int(xxhash.xxh3_64_intdigest(np.ascontiguousarray(patch).data))


def shuffle_quality(positions: np.ndarray) -> float | None:
    """How well a feed is shuffled: the mean distance between source positions of neighbours, as a
    share of a uniform permutation's, (n + 1) / 3; 1 is perfect, 0 is none. None of one patch.

    Two different positions out of 0 .. n - 1 that are drawn uniformly lie (n + 1) / 3 apart on
    average: the sum of d (n - d) over d, by n (n - 1) / 2.
    """
    if len(positions) < 2:
        return None
    return float(np.abs(np.diff(positions)).mean() / ((len(positions) + 1) / 3))


def peak_memory() -> int:
    """The most bytes that this process held, and the largest of its children beside it. Linux
    counts a process's own from its start; ``ru_maxrss`` would begin with its parent's."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    try:
        words = Path("/proc/self/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) * 1024 + children
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + children  # macOS: bytes


def main() -> None:
    from . import ALTERNATIVES

    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3",
        # GDAL would list the whole folder for each file that it opens.
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }  # fmt: skip
    warnings.simplefilter("ignore")  # rasterio's, of files that lie nowhere on a map
    task = Task.from_json(sys.argv[1])
    alternative = ALTERNATIVES[task.name](task.sample, task.batch_size)
    step = {"write": write, "feed": feed}[task.step]
    try:
        figures = step(alternative, Path(task.folder)) | {"peak_bytes": peak_memory()}
    except Exception as e:  # TensorFlow says what it is in the first line of many
        sys.exit(f"{type(e).__name__}: {str(e).strip().split(chr(10))[0]}")
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

"""Seconds for 5 shuffled batches of 1024, over whole epochs: recipe, load, stream or reader.

    python benchmarks/load.py recipe|load|stream|reader FOLDER

The page cache is warmed by reading the files once, the first epoch is not counted; a group's time
is an epoch's divided by its batches, times five, so that the filling of a shuffle buffer counts.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

EPOCHS = 4
BATCH, GROUP = 1024, 5


def recipe(folder: Path) -> Callable[[], Iterable[object]]:
    """The published pipe: parse_tensor by map, shuffle 10240, batch, prefetch."""
    import tensorflow as tf

    files = sorted(str(p) for p in folder.glob("*.tfrecord"))
    feed = tf.data.TFRecordDataset(files).map(lambda r: tf.io.parse_tensor(r, tf.float32))
    feed = feed.shuffle(10240).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return lambda: feed


def load(folder: Path) -> Callable[[], Iterable[object]]:
    from scenefeed.loader import load

    feed = load(folder, batch_size=BATCH, features=["image"])
    return lambda: feed


def reader(folder: Path) -> Callable[[], Iterable[object]]:
    from scenefeed.loader import Feed

    feed = Feed(folder, batch_size=BATCH, features=["image"])
    return lambda: feed


def stream(folder: Path) -> Callable[[], Iterable[object]]:
    from scenefeed.loader import load

    feed = load(folder, batch_size=BATCH, features=["image"], source="stream")
    return lambda: feed


def main() -> None:
    folder = Path(sys.argv[2])
    for path in folder.rglob("*.tfrecord"):
        path.read_bytes()
    epoch = {"recipe": recipe, "load": load, "reader": reader, "stream": stream}[sys.argv[1]](
        folder
    )
    groups = []
    for number in range(EPOCHS + 1):
        start, batches = time.perf_counter(), 0
        for _ in epoch():
            batches += 1
        if number:
            groups.append((time.perf_counter() - start) / batches * GROUP)
    print(json.dumps({"group_s": statistics.median(groups)}))


if __name__ == "__main__":
    main()

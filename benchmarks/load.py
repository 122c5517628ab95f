"""Seconds for 5 shuffled batches of 1024, over whole epochs: recipe, load, stream or reader.

    python benchmarks/load.py recipe|load|stream|reader FOLDER [--batch N] [--features A,B]
                              [--order files]

The page cache is warmed by reading the files once, the first epoch is not counted; a group's time
is an epoch's divided by its batches, times five, so that the filling of a shuffle buffer counts.
The recipe is the published pipe: parse_tensor by map, shuffle 10240 (or ten batches), batch,
prefetch; over a dataset of scenefeed's, compressed or not, parse_single_example before it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EPOCHS = 4
GROUP = 5


def recipe(args: argparse.Namespace) -> Iterable[object]:
    import tensorflow as tf

    found = args.folder / "dataset.json"
    if found.exists():
        files = sorted(map(str, args.folder.glob("records/train-*.tfrecord")))
        spec = json.loads(found.read_text())
        compression = spec["config"]["records"]["compression"].upper().replace("NONE", "")
        columns = {n: tf.io.FixedLenFeature((), tf.string) for n in args.features}
        dtypes = {n: spec["features"][n]["dtype"] for n in args.features}

        def parse(record: Any) -> Any:
            parsed = tf.io.parse_single_example(record, columns)
            return {n: tf.io.parse_tensor(parsed[n], dtypes[n]) for n in args.features}

        feed = tf.data.TFRecordDataset(files, compression).map(parse)
    else:
        files = sorted(map(str, args.folder.glob("*.tfrecord")))
        feed = tf.data.TFRecordDataset(files).map(lambda r: tf.io.parse_tensor(r, tf.float32))
    if args.order == "shuffled":
        feed = feed.shuffle(10 * args.batch)
    return feed.batch(args.batch).prefetch(tf.data.AUTOTUNE)


def ours(args: argparse.Namespace) -> Iterable[object]:
    options = {
        "batch_size": args.batch,
        "features": args.features,
        "shuffle": args.order == "shuffled",
    }
    if args.feed == "reader":  # without TensorFlow
        from scenefeed.loader import Feed

        return Feed(args.folder, **options)
    from scenefeed.loader import load

    return load(args.folder, source="stream" if args.feed == "stream" else "auto", **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("feed", choices=["recipe", "load", "stream", "reader"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--features", type=lambda text: text.split(","), default=["image"])
    parser.add_argument("--order", choices=["shuffled", "files"], default="shuffled")
    args = parser.parse_args()
    for path in args.folder.rglob("*.tfrecord"):
        path.read_bytes()
    epoch = recipe(args) if args.feed == "recipe" else ours(args)
    groups = []
    for number in range(EPOCHS + 1):
        start, batches = time.perf_counter(), 0
        for _ in epoch:
            batches += 1
        if number:
            groups.append((time.perf_counter() - start) / batches * GROUP)
    print(json.dumps({"seconds": statistics.median(groups)}))


if __name__ == "__main__":
    main()

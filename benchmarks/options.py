"""What each of the feeds' options costs, beside the plain feed in the same process.

    python benchmarks/options.py DATASET [--feed numpy|tensorflow] [--epochs 3] [--only REGEX]

Seconds for 5 batches of 1024, over whole epochs after a first one; the ratio is to the plain feed
timed just before. DATASET has an image, and its own statistics for ``normalize='dataset'``.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BATCH, GROUP = 1024, 5


def rows(dataset: Path, feed: str, bands: int, temporary: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        "shuffle=False": {"shuffle": False},
        "all features": {"features": None},
        "checksums='always'": {"checksums": "always"},
        "checksums='never'": {"checksums": "never"},
        "on_error='skip'": {"on_error": "skip"},
        "drop_remainder=True": {"drop_remainder": True},
        "augment={'flip': True}": {"augment": {"flip": True}},
        "augment=True": {"augment": True},
        "augment={'crop': 48}": {"augment": {"crop": 48}},
        "normalize": {"normalize": {"mean": [0.5] * bands, "std": 2}},
        "dtype='float16'": {"dtype": "float16"},
        "dtype='bfloat16'": {"dtype": "bfloat16"},
        "cache='memory'": {"cache": "memory"},
        "cache=FOLDER": {"cache": temporary},
        "where": {"where": lambda x: x["row"] >= 0, "features": None},
        "prefetch=0": {"prefetch": 0},
    }
    if (dataset / "statistics.json").exists():
        found["normalize='dataset'"] = {"normalize": "dataset"}
        if feed == "tensorflow":  # what the feed would be if it applied the graph by itself
            from scenefeed.loader.transform import Transform

            found["map=Transform(DATASET)"] = {"map": Transform(dataset)}
    found["source='stream'"] = {"source": "stream"}
    found["source='stage'"] = {"source": "stage"}
    return found


def seconds(feed: Iterable[Any], epochs: int) -> float:
    """Of five batches, in the median epoch after the first."""
    times = []
    for number in range(epochs + 1):
        start, batches = time.perf_counter(), 0
        for _ in feed:
            batches += 1
        if number:
            times.append((time.perf_counter() - start) / batches * GROUP)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--feed", choices=["numpy", "tensorflow"], default="numpy")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name this pattern finds")
    args = parser.parse_args()
    from scenefeed.loader import DatasetSpec, Feed, load

    make: Any = Feed if args.feed == "numpy" else load
    for path in args.dataset.rglob("*.tfrecord"):
        path.read_bytes()
    bands = DatasetSpec.load(args.dataset).features["image"].shape[-1]
    plain = {"batch_size": BATCH, "features": ["image"], "normalize": None}
    print(f"| {args.feed} | s | of the plain feed's |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name, options in rows(args.dataset, args.feed, bands, temporary).items():
            if not re.search(args.only, name):
                continue
            reference = seconds(make(args.dataset, **plain), args.epochs)
            found = seconds(make(args.dataset, **{**plain, **options}), args.epochs)
            print(f"| `{name}` | {found:.3f} | {found / reference:.2f} |", flush=True)


if __name__ == "__main__":
    main()

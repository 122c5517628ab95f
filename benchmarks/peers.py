"""scenefeed's rows for a benchmark of what a user would pick instead, in the same run.

The benchmark of the peers is not part of this repository: it brings ``benchlib``, the scenes and
the checks of every patch, and loads this file in its own processes (``--plugin``), with
scenefeed's environments as ``ours`` and ``ourstorch``.
"""

import subprocess
import sys
from pathlib import Path

import benchlib as bl


def arguments(w, out):
    config = Path(out).with_suffix(".yaml")
    config.write_text(
        f"scenes: {{paths: [{', '.join(map(str, w.scenes))}]}}\n"
        f"tile: {{size: {w.patch}}}\nrecords: {{num_shards: 16}}\n"
    )
    return ["convert", "--config", str(config), "--output", str(out)]


@bl.convert_row("ours", "ours", "scenefeed convert, the whole command")
def convert(w, out):
    command = [sys.executable, "-m", "scenefeed.pipelines.cli", *arguments(w, out)]
    subprocess.run(command, check=True)


def warm():
    from scenefeed.pipelines import lean

    lean.import_beam()
    from scenefeed.pipelines import convert, execute  # noqa: F401


@bl.convert_row("ours_warm", "ours", "scenefeed convert, imports before the clock", warm=warm)
def convert_warm(w, out):
    """As the peers' rows are timed: without start-up, and so without the processes that begin meanwhile."""
    from scenefeed.pipelines.cli import main

    if main(arguments(w, out)):
        raise RuntimeError("scenefeed convert failed")


def row(name, venv, label, shuffle, make):
    @bl.load_row(name, venv, label, shuffle, needs=["convert:ours"])
    def load(w):
        feed, image = make(w.out("ours"))
        return bl.Loader(lambda epoch: feed, image, count=lambda b: int(b["image"].shape[0]))


def numpy_feed(folder):
    from scenefeed.loader import Feed

    return Feed(folder, batch_size=1024, features=["image"]), lambda b: b["image"]


def torch_feed(folder):
    from scenefeed.loader.torch import Feed

    feed = Feed(folder, batch_size=1024, features=["image"])
    return feed, lambda b: b["image"].permute(0, 2, 3, 1).numpy()  # PyTorch's order is ours moved


def tensor_feed(source):
    def make(folder):
        from scenefeed.loader import load

        feed = load(folder, batch_size=1024, features=["image"], source=source)
        return feed, lambda b: b["image"].numpy()

    return make


row("ours_reader", "ours", "scenefeed Feed (NumPy)", "global", numpy_feed)
row("ours_load", "ours", "scenefeed load (TensorFlow)", "global", tensor_feed("index"))
row("ours_stream", "ours", "scenefeed load, stream", "files, 256 MiB", tensor_feed("stream"))
row("ours_torch", "ourstorch", "scenefeed.loader.torch Feed", "global", torch_feed)

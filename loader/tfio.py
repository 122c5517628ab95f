"""Stage files through tensorflow-io's HDF5 reader, in the environment of the extra ``tfio``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from .options import Options
from .progress import Progress, Stats
from .records import Paths
from .shaping import DRAWS, needs_no_graph
from .spec import DatasetError
from .stage import StageReader
from .tensors import TensorOperations, sizes

if TYPE_CHECKING:
    from .tfdata import TensorFeed

_NOT_HERE = ("where", "resample", "weights", "shard", "cache")


def from_stage_files(path: Paths, split: str | None, options: Options) -> TensorFeed:
    """All patches of the stage files through ``tensorflow_io.IODataset.from_hdf5``: scenes in a
    shuffled order, their patches shuffled in a buffer of 4096.

    Features are those that are columns of the stage files; texts are left out. The feed has no
    state: tensorflow-io's datasets have none.

    Raises:
      DatasetError: tensorflow-io is not installed, an option that needs the index, or as
        ``StageReader``.
    """
    from .tfdata import Failure, TensorFeed, measured, pipeline_options

    try:
        import tensorflow_io as tfio
    except ImportError:
        raise DatasetError(
            "source='tfio' needs tensorflow-io, which works beside TensorFlow 2.16 alone: "
            "pip install 'scenefeed[tfio]' in an environment of its own, or source='stage'"
        ) from None
    if split is not None or not isinstance(path, (str, Path)):
        raise DatasetError("source='tfio' reads all stage files of one dataset: give no split")
    for name in _NOT_HERE:
        if getattr(options, name) is not None:
            raise DatasetError(f"{name} is not to be had with source='tfio': use source='stage'")
    reader = StageReader(path, None, options)
    features = reader.spec.features
    names = [n for n in reader.names if features[n].kind != "text"]
    options = options.resolved([path], [reader.spec], names, staged=True)
    shaping, stats = needs_no_graph(options.shaping(reader.spec, names)), Stats(options.prefetch)
    order = np.array(sorted(str(p) for p in (Path(path) / "stage").glob("*.h5")))
    if options.shuffle:
        order = np.random.default_rng(options.seed).permutation(order)

    def of_file(file: str) -> tf.data.Dataset:
        parts = {n: tfio.IODataset.from_hdf5(file, dataset=f"/{n}") for n in names}
        return tf.data.Dataset.zip(parts)

    feed = of_file(str(order[0]))
    for file in order[1:]:
        feed = feed.concatenate(of_file(str(file)))
    if options.shuffle:
        feed = feed.shuffle(4096, options.seed)
    feed = feed.batch(options.batch_size, drop_remainder=options.drop_remainder)

    def shaped(values: dict[str, Any]) -> tuple[Any, ...]:
        for name in names:
            values[name] = tf.cast(values[name], features[name].dtype)
            values[name] = tf.ensure_shape(values[name], (None, *features[name].shape))
        draws = tf.random.uniform((tf.shape(values[names[0]])[0], DRAWS), seed=options.seed)
        none = tf.zeros(1, tf.int64)
        return none[0], none, sizes(values), shaping(values, draws, TensorOperations())

    feed = feed.map(shaped).repeat(None if options.repeat is True else int(options.repeat))
    progress = Progress({"source": "tfio"})
    feed = measured(feed, options.prefetch, stats, lambda epoch, done: None)
    feed = feed.with_options(pipeline_options(options))
    size = options.batch_size
    steps = len(reader) // size if options.drop_remainder else -(-len(reader) // size)
    length = -1 if options.repeat is True else steps * int(options.repeat)
    return TensorFeed(feed, progress, stats, None, length, Failure())

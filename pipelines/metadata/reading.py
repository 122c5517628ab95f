"""The card's examples: how a dataset is read."""

from __future__ import annotations

from collections.abc import Iterator

from ...loader.spec import DatasetSpec

# Masks are of kind mask; what is not listed here is bytes.
_KINDS = {"class": "int64", "int": "int64", "value": "float32"}
_SCENEFEED = """\
from scenefeed.loader import Feed, load

for batch in Feed(".", split="{split}", batch_size=1{raw}):  # NumPy
    batch["image"]
dataset = load(".", split="{split}", batch_size=1{raw})  # a tf.data.Dataset
"""
_TFDS = """\
import tensorflow_datasets as tfds

builder = tfds.builder_from_directory(".")
dataset = builder.as_dataset("{split}")
"""
_TENSORFLOW = """\
import tensorflow as tf

features = {{
{features}}}


def decode(record):
    example = tf.io.parse_single_example(record, features)
{tensors}    return example


shards = sorted(tf.io.gfile.glob("records/{split}-*.tfrecord"))
dataset = tf.data.TFRecordDataset(shards{compressed}).map(decode)
"""


def examples(spec: DatasetSpec) -> Iterator[str]:
    """In Markdown; the code runs in the dataset's folder."""
    split = next(k for k, s in spec.splits.items() if s.num_examples)
    plain = spec.compression == "none"
    statistics = spec.config.get("statistics", {})
    own = ":" in (statistics.get("normalize") or "") and not statistics.get("bake")
    raw = ", normalize=None" if own else ""  # a program is not run unasked
    yield "In this folder, by scenefeed:"
    yield _block(_SCENEFEED.format(split=split, raw=raw))
    if plain:
        yield "By TensorFlow Datasets, with scenefeed installed:"
        yield _block(_TFDS.format(split=split))
    yield "By TensorFlow alone:"
    yield _block(_TENSORFLOW.format(
        split=split,
        features="".join(
            f'    "{name}": tf.io.FixedLenFeature((), tf.{_KINDS.get(f.kind, "string")}),\n'
            for name, f in spec.features.items()
        ),
        tensors="".join(
            f'    example["{name}"] = tf.io.parse_tensor(example["{name}"], tf.{f.dtype})\n'
            for name, f in spec.features.items() if f.encoding == "tensor"
        ),
        compressed="" if plain else ', compression_type="GZIP"',
    ))  # fmt: skip


def _block(text: str) -> str:
    return f"```python\n{text}```"

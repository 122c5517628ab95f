"""A dataset's statistics.json and transform graph, made here: by NumPy, and by tf.Transform."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scenefeed.loader import DatasetSpec, Reader


def with_statistics(
    out: Path, target: Path, normalize: str, function: Callable[..., Any] | None = None
) -> Path:
    """A copy of the dataset ``out`` whose configuration says ``normalize``, with its statistics.

    Args:
      function: a ``preprocessing_fn``, where ``normalize`` names one.
    """
    shutil.copytree(out, target)
    document = json.loads((out / "dataset.json").read_text())
    document["config"]["statistics"] = {"normalize": normalize, "bake": False}
    (target / "dataset.json").write_text(json.dumps(document))
    spec = DatasetSpec.load(target)
    content = statistics(spec, Reader(target).batch(range(len(Reader(target)))), normalize)
    (target / "statistics.json").write_text(json.dumps(content))
    write_graph(spec, target, function or applied(content["transform"]["image"]))
    return target


def statistics(spec: DatasetSpec, batch: Mapping[str, np.ndarray], normalize: str) -> Any:
    """What statistics.json holds, from a split's every record."""
    pixels = batch["image"].reshape(-1, batch["image"].shape[-1]).astype(np.float64)
    low, high = np.quantile(pixels, [0.01, 0.99], axis=0)
    made: dict[str, Any] = {
        "zscore": {"offset": pixels.mean(0), "scale": pixels.std(0), "low": None, "high": None},
        "quantile": {"offset": low, "scale": high - low, "low": low, "high": high},
    }
    values = {k: v if v is None else v.tolist() for k, v in made.get(normalize, {}).items()}
    labels = {}
    for name in spec.labels:
        feature = spec.features[name]
        if feature.kind in ("mask", "class"):
            ids, counts = np.unique(batch[name], return_counts=True)
            kept = {int(i): int(n) for i, n in zip(ids, counts, strict=True)}
            kept = {i: n for i, n in kept.items() if i not in feature.ignore}
            total = sum(kept.values())
            weights = {str(i): total / (len(kept) * n) for i, n in kept.items()}
            labels[name] = {"kind": feature.kind, "weights": {**weights, "9": None}}
    return {
        "format": "scenefeed-statistics/1",
        "fingerprint": "",
        "dataset": spec.fingerprint,
        "split": "train",
        "patches": len(batch["image"]),
        "sampled": None,
        "normalize": normalize,
        "warnings": [],
        "transform": {"image": values} if values else None,
        "bands": {band: {"mean": m} for band, m in zip(
            spec.features["image"].bands, pixels.mean(0).tolist(), strict=True)},
        "labels": labels,
    }  # fmt: skip


def applied(values: Mapping[str, Any]) -> Callable[..., Any]:
    """The ``preprocessing_fn`` of a built-in kind."""
    import tensorflow as tf

    given = {k: v if v is None else np.array(v, np.float32) for k, v in values.items()}

    def preprocessing_fn(inputs: Any) -> Any:
        image = tf.cast(inputs["image"], tf.float32)
        if given["low"] is not None:
            image = tf.clip_by_value(image, given["low"], given["high"])
        return {**inputs, "image": (image - given["offset"]) * (np.float32(1) / given["scale"])}

    return preprocessing_fn


def write_graph(spec: DatasetSpec, target: Path, function: Callable[..., Any]) -> None:
    """``transform_fn``, as tf.Transform writes it, of all features."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    columns, one = {}, {}
    for name, feature in spec.features.items():
        kind = np.dtype(feature.dtype).kind if feature.kind != "text" else "S"
        dtype = {"f": tf.float32, "i": tf.int64, "u": tf.int64, "S": tf.string}[kind]
        columns[name] = tf.io.FixedLenFeature(feature.shape, dtype)
        one[name] = np.zeros(feature.shape, dtype.as_numpy_dtype) if kind != "S" else b""
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(columns))
    with (
        tempfile.TemporaryDirectory() as temporary,
        beam.Pipeline("DirectRunner") as pipeline,
        tft_beam.Context(temporary),
    ):
        found = (pipeline | beam.Create([one]), metadata) | tft_beam.AnalyzeDataset(function)
        _ = found | tft_beam.WriteTransformFn(str(target))

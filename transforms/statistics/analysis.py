"""tf.Transform: the analysis of what scenes contribute, and the transform graph.

tf.Transform hands its analyzers every value of an instance, at some 40 MB/s a core. Our analyzer
asks for one text of an instance, ``scene_id``, and takes it for the name of a file with the
scene's counts (``Partial``): an instance is a scene, and the rest of it is zeros. A user's own
``preprocessing_fn`` sees patches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.beam import analyzer_cache
from tfx_bsl.tfxio import tensor_adapter

from ...loader.spec import DatasetSpec, Feature
from ..config import Config
from ..sections import Statistics
from ..staging import StagedScene
from .document import document
from .partial import Partial
from .scene import training_batches, training_split

Tensors = Mapping[str, Any]


def raw_features(spec: DatasetSpec, asked: Statistics) -> dict[str, Feature]:
    """What the transform graph takes: all features for a function of the user's own, which may
    want any, else the image (and the key, which our analyzer reads)."""
    if asked.function:
        return spec.features
    return {name: spec.features[name] for name in ("image", "scene_id")}


def adapter_config(features: Mapping[str, Feature]) -> tensor_adapter.TensorAdapterConfig:
    """How features stand in Arrow's record batches: each a list, dense tensors flat."""
    schema = pa.schema([(name, pa.list_(_arrow_type(f))) for name, f in features.items()])
    tensors = {}
    for name, feature in features.items():
        tensors[name] = schema_pb2.TensorRepresentation()
        dense = tensors[name].dense_tensor
        dense.column_name = name
        dense.shape.SetInParent()
        for size in feature.shape:
            dense.shape.dim.add().size = size
    return tensor_adapter.TensorAdapterConfig(schema, tensors)


def _arrow_type(feature: Feature) -> pa.DataType:
    if feature.dtype == "string":
        return pa.binary()
    # TensorFlow's graphs take no 16-bit floats from Arrow.
    return pa.from_numpy_dtype("float32" if feature.dtype == "float16" else feature.dtype)


def record_batch(features: Mapping[str, Feature], columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Instances as tf.Transform wants them.

    Args:
      features: all that there are.
      columns: of some of them, (instances, ...); the others are zeros.
    """
    rows = len(next(iter(columns.values())))
    schema = adapter_config(features).arrow_schema
    arrays = []
    for name, feature in features.items():
        values = columns.get(name)
        if feature.dtype == "string":
            flat = pa.array([b""] * rows if values is None else list(values), pa.binary())
        else:
            kind = schema.field(name).type.value_type.to_pandas_dtype()
            if values is None:
                values = np.zeros((rows, *feature.shape), kind)
            flat = pa.array(np.asarray(values).astype(kind, copy=False).ravel())
        each = int(np.prod(feature.shape, dtype=np.int64))
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * each)
        arrays.append(pa.ListArray.from_arrays(offsets, flat))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def normalizing(
    spec: DatasetSpec, asked: Statistics, split: str, path: str
) -> Callable[[Any], Any]:
    """Our own ``preprocessing_fn``: images normalized by statistics that the analysis finds, and
    writes to ``path``."""
    bands = len(spec.features["image"].bands)
    ptransform = tft.experimental.CacheablePTransformAnalyzer(
        _ReadPartials(), _MergePartials(), _Conclude(spec, asked, split, path), _PartialCoder()
    )

    def preprocessing_fn(inputs: Tensors) -> dict[str, Any]:
        (found,) = tft.experimental.ptransform_analyzer(
            [inputs["scene_id"]], ptransform, [tf.float32], [[4, bands]], name="statistics"
        )
        offset, scale, low, high = tf.unstack(found)
        image = tf.cast(inputs["image"], tf.float32)
        if asked.normalize == "quantile":
            image = tf.clip_by_value(image, low, high)
        # Not divided by: TensorFlow makes this of it, but only where it optimizes a graph.
        return {"image": (image - offset) * (1 / scale)}

    return preprocessing_fn


class _Step(beam.PTransform):  # type: ignore[misc]
    """tf.Transform's cache knows a step again by its text, which is Beam's with an address."""

    def __repr__(self) -> str:
        return type(self).__name__

    __str__ = __repr__


class _ReadPartials(_Step):
    def expand(self, names: Any) -> Any:
        return names | beam.FlatMap(_read_partials)


def _read_partials(names: tuple[np.ndarray, ...]) -> Iterator[Partial]:
    for name in names[0].ravel():
        yield Partial.from_bytes(Path(name.decode()).read_bytes())


class _MergePartials(_Step):
    def expand(self, partials: Any) -> Any:
        return partials | beam.CombineGlobally(_Merge()).without_defaults()


class _Merge(beam.CombineFn):  # type: ignore[misc]
    def create_accumulator(self) -> list[Partial]:
        return []

    def add_input(self, held: list[Partial], partial: Partial) -> list[Partial]:
        held = [*held, partial]
        return held if len(held) < 8 else [Partial.merged(held)]

    def merge_accumulators(self, parts: Any) -> list[Partial]:
        every = [partial for part in parts for partial in part]
        return [Partial.merged(every)] if every else []

    def extract_output(self, held: list[Partial]) -> Partial:
        return Partial.merged(held)


class _Conclude(_Step):
    """Writes statistics.json, and gives the graph its numbers: float32 (4, bands)."""

    def __init__(self, spec: DatasetSpec, asked: Statistics, split: str, path: str):
        super().__init__()
        self._spec, self._asked, self._split, self._path = spec, asked, split, path

    def expand(self, partials: Any) -> Any:
        return partials | beam.Map(_conclude, self._spec, self._asked, self._split, self._path)


def _conclude(
    partial: Partial, spec: DatasetSpec, asked: Statistics, split: str, path: str
) -> np.ndarray:
    found = document(partial, spec, asked, split)
    Path(path).write_text(json.dumps(found, indent=2) + "\n")
    bands = len(partial.bands)
    if found["transform"] is None:
        return np.array([[0], [1], [0], [0]], np.float32).repeat(bands, axis=1)
    parts = found["transform"]["image"]
    none = [0.0] * bands
    rows = (parts["offset"], parts["scale"], parts["low"] or none, parts["high"] or none)
    return np.array(rows, np.float64).astype(np.float32)


class _PartialCoder(tft.experimental.PTransformAnalyzerCacheCoder):  # type: ignore[misc]
    def encode_cache(self, cache: Partial) -> bytes:
        return cache.to_bytes()

    def decode_cache(self, encoded_cache: bytes) -> Partial:
        return Partial.from_bytes(encoded_cache)


def analyze_partials(
    pipeline: Any, spec: DatasetSpec, asked: Statistics, split: str,
    groups: Mapping[str, Sequence[str] | None], cache: Path, out: Path,
) -> None:  # fmt: skip
    """Builds the analysis of scenes' counts, inside a ``tft_beam.Context``.

    Args:
      pipeline: Beam's.
      spec, asked, split: as for ``document``.
      groups: files with scenes' counts, by the group whose sum tf.Transform's cache holds; None
        for a group that it holds already.
      cache: a local folder for that cache.
      out: gets statistics.json, transform_fn/ and transformed_metadata/.
    """
    features = raw_features(spec, asked)
    config = adapter_config(features)
    function = normalizing(spec, asked, split, str(out / "statistics.json"))
    keys = {name: analyzer_cache.DatasetKey(name) for name in groups}
    held = [name for name, files in groups.items() if files is None]
    known = {keys[name]: _read_cache(pipeline, cache / name) for name in held}
    data = {
        keys[name]: files
        if files is None
        else pipeline
        | f"Files[{name}]" >> beam.Create(list(files), reshuffle=False)
        | f"Instances[{name}]" >> beam.Map(_named, features)
        for name, files in groups.items()
    }
    analysis = tft_beam.AnalyzeDatasetWithCache(function, pipeline=pipeline)
    graph, found = (data, known, config) | analysis
    graph | "WriteGraph" >> tft_beam.WriteTransformFn(str(out))
    for key, entries in found.items():
        (cache / key.key).mkdir(exist_ok=True)
        for number, (entry, encoded) in enumerate(entries.items()):
            path = cache / key.key / entry.hex()
            encoded | f"WriteCache[{key.key}][{number}]" >> beam.Map(_write, str(path))


# tf.Transform's own files of its cache hold pickles, which run what stands in them.
def _read_cache(pipeline: Any, folder: Path) -> analyzer_cache.DatasetCache:
    entries = {
        bytes.fromhex(path.name): pipeline
        | f"ReadCache[{folder.name}][{number}]" >> beam.Create([path.read_bytes()], reshuffle=False)
        for number, path in enumerate(sorted(folder.iterdir()))
    }
    return analyzer_cache.DatasetCache(entries, None)


def _write(data: bytes, path: str) -> None:
    Path(path).write_bytes(data)


def _named(file: str, features: Mapping[str, Feature]) -> pa.RecordBatch:
    return record_batch(features, {"scene_id": [file.encode()]})


def analyze_patches(
    pipeline: Any, function: Callable[[Tensors], Any], spec: DatasetSpec, config: Config,
    scenes: Sequence[StagedScene], out: Path,
) -> None:  # fmt: skip
    """Builds the analysis of patches by the user's own function, inside a ``tft_beam.Context``.

    Args:
      pipeline: Beam's.
      function: a ``preprocessing_fn``.
      spec: the dataset's.
      config: whose ``statistics.sample`` says how many patches to look at.
      scenes: all of them.
      out: gets transform_fn/ and transformed_metadata/.
    """
    asked = config.statistics
    features = raw_features(spec, asked)
    whole = sum(s.counts.get(training_split(config), 0) for s in scenes)
    share = min(1.0, (asked.sample or whole) / max(1, whole))
    patches = (
        pipeline
        | "StagedScenes" >> beam.Create(list(scenes), reshuffle=False)
        | "Patches" >> beam.FlatMap(_batches, config, features, share)
    )
    analysis = tft_beam.AnalyzeDataset(function)
    graph = (patches, adapter_config(features)) | analysis
    graph | "WriteGraph" >> tft_beam.WriteTransformFn(str(out))


def _batches(
    scene: StagedScene, config: Config, features: Mapping[str, Feature], share: float
) -> Iterator[pa.RecordBatch]:
    for columns in training_batches(scene, config, features, share):
        yield record_batch(features, columns)

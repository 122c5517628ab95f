"""What TensorFlow Datasets wants beside records: features.json and dataset_info.json.

Formats: tensorflow_datasets/core/proto/{feature,dataset_info}.proto, as JSON. TFDS reads no
compressed TFRecord files, so that there is nothing to write for them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ...loader.spec import DatasetSpec
from .words import about, class_names, described, document, made

INFO, FEATURES = "dataset_info.json", "features.json"
VERSION = "1.0.0"  # TFDS wants one; the fingerprint is what tells two datasets apart
_TFDS = "tensorflow_datasets.core.features"


def files(spec: DatasetSpec) -> dict[str, str]:
    """File name to text."""
    if spec.compression != "none":
        return {}
    splits = [
        {
            "name": name,
            "shardLengths": [str(s.num_examples) for s in split.shards],
            "numBytes": str(split.num_bytes),
            "filepathTemplate": "records/{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
        }
        for name, split in spec.splits.items()
        if split.num_examples  # of an empty one TFDS says that it corresponds to no data, and stops
    ]
    info: dict[str, Any] = {
        "name": tfds_name(spec.name),
        "version": VERSION,
        "fileFormat": "tfrecord",
        "description": f"{about(spec)} {made(spec)}",
        "splits": splits,
    }
    if spec.config.get("license"):
        info["redistributionInfo"] = {"license": spec.config["license"]}
    if len(spec.labels) == 1:
        keys = [{"featureKey": "image"}, {"featureKey": spec.labels[0]}]
        info["supervisedKeys"] = {"tuple": {"items": keys}}
    features = {
        "pythonClassName": f"{_TFDS}.features_dict.FeaturesDict",
        "description": made(spec),
        "featuresDict": {"features": {name: _feature(name, spec) for name in spec.features}},
    }
    return {INFO: document(info), FEATURES: document(features)}


def _feature(name: str, spec: DatasetSpec) -> dict[str, Any]:
    feature, names = spec.features[name], class_names(spec.features[name])
    tensor = {
        "shape": {"dimensions": [str(n) for n in feature.shape]},
        "dtype": feature.dtype,
        "encoding": "bytes" if feature.encoding == "tensor" else "none",
    }
    content: dict[str, Any]
    if feature.encoding == "tensor":
        content = {"pythonClassName": "scenefeed.loader.tfds.SerializedTensor", "tensor": tensor}
    elif feature.kind == "text":
        content = {"pythonClassName": f"{_TFDS}.text_feature.Text", "text": {}}
    elif feature.kind == "class" and names:  # as JSON, for then the names need no file of their own
        content = {
            "pythonClassName": f"{_TFDS}.class_label_feature.ClassLabel",
            "jsonFeature": {"json": json.dumps({"names": names})},
        }
    else:
        content = {"pythonClassName": f"{_TFDS}.scalar.Scalar", "tensor": tensor}
    return content | {"description": described(name, spec)}


def tfds_name(name: str) -> str:
    """A dataset's name as TFDS spells names: a word in lower case."""
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return word if word[:1].isalpha() else f"scenes_{word}".rstrip("_")

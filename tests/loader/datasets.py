"""Datasets written record by record, without converting anything."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np

from scenefeed.loader import DatasetSpec, tfrecord
from scenefeed.loader.codec import RecordEncoder
from scenefeed.loader.index import format_index, index_path
from scenefeed.loader.spec import FILE_NAME, Feature, Shard, Split

FEATURES = {
    "col": Feature((), "int64", "int", "scalar"),
    "depth": Feature((), "float32", "value", "scalar"),
    "image": Feature((4, 4, 1), "uint16", "image", "tensor", bands=("a",)),
    "kind": Feature((), "int64", "class", "scalar", names=("ice", "ship", "sea"), ignore=(-1,)),
    "row": Feature((), "int64", "int", "scalar"),
    "scene_id": Feature((), "string", "text", "scalar"),
}


def frame(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    crcs = (struct.pack("<I", tfrecord.masked_crc32c(x)) for x in (head, payload))
    return head + next(crcs) + payload + next(crcs)


def write_dataset(
    folder: Path, kinds: np.ndarray, shards: int = 1, name: str = "made", first: int = 0
) -> Path:
    """Record i has row i, an image of i, depth i / 2 and class ``kinds[i]``."""
    encode = RecordEncoder(FEATURES)
    (folder / "records").mkdir(parents=True)
    made = []
    for number, part in enumerate(np.array_split(np.arange(len(kinds)), shards)):
        frames = [
            frame(encode({
                "image": np.full((4, 4, 1), first + i, np.uint16).tobytes(), "kind": int(kinds[i]),
                "row": first + i, "col": 0, "scene_id": name, "depth": i / 2,
            }))
            for i in part.tolist()
        ]  # fmt: skip
        data, path = b"".join(frames), f"records/train-{number:05d}-of-{shards:05d}.tfrecord"
        (folder / path).write_bytes(data)
        lengths = np.array([len(f) for f in frames])
        (folder / index_path(path)).write_bytes(format_index(lengths))
        made.append(Shard(path, len(frames), len(data), hashlib.sha256(data).hexdigest()))
    config = {"labels": {"kind": {}}, "records": {"compression": "none"}}
    spec = DatasetSpec(name, FEATURES, {"train": Split.of(made)}, config, "", "a test")
    (folder / FILE_NAME).write_text(spec.to_json())
    return folder

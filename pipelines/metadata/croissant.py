"""croissant.json: the dataset as Croissant 1.1 describes it, in JSON-LD.

Format: docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ...loader.spec import DatasetSpec, Feature
from .words import about, class_names, described, document, made

FILE = "croissant.json"
TFRECORD = "application/x-tfrecord"
_WORDS = """arrayShape citeAs column conformsTo=dct containedIn equivalentProperty extract field
    fileProperty fileObject fileSet format includes isArray isLiveDataset jsonPath key md5
    parentField path recordSet references regex repeated replace samplingRate separator source
    subField transform""".split()
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
} | {w.split("=")[0]: f"{(w.split('=')[1:] or ['cr'])[0]}:{w.split('=')[0]}" for w in _WORDS}

_TYPES = {
    "float16": "cr:Float16", "float32": "cr:Float32", "float64": "cr:Float64", "bool": "sc:Boolean",
    "int8": "cr:Int8", "int16": "cr:Int16", "int32": "cr:Int32", "int64": "cr:Int64",
    "uint8": "cr:UInt8", "uint16": "cr:UInt16", "uint32": "cr:UInt32", "uint64": "cr:UInt64",
    "string": "sc:Text",
}  # fmt: skip
_SCENES = {"id": "sc:Text", "height": "sc:Integer", "width": "sc:Integer", "crs": "sc:Text"}


def files(spec: DatasetSpec, scenes: str) -> dict[str, str]:
    """File name to text; ``scenes`` is the text of scenes.jsonl."""
    whole: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": spec.name,
        "description": f"{about(spec)} {made(spec)}",
        "version": "1.0.0",
        "keywords": ["earth observation", *spec.features["image"].bands],
        "distribution": list(_distribution(spec, scenes.encode())),
        "recordSet": list(_record_sets(spec)),
    }
    if spec.config.get("license"):
        whole["license"] = spec.config["license"]
    return {FILE: document(whole)}


def _distribution(spec: DatasetSpec, scenes: bytes) -> Any:
    yield _file(
        "scenes.jsonl", "application/jsonlines", len(scenes), hashlib.sha256(scenes).hexdigest()
    )
    for shard in (s for split in spec.splits.values() for s in split.shards):
        yield _file(shard.path, TFRECORD, shard.num_bytes, shard.sha256)
    yield {
        "@type": "cr:FileSet",
        "@id": "shards",
        "description": "The records of all splits" + (
            "." if spec.compression == "none" else f", compressed by {spec.compression}."
        ),
        "includes": "records/*.tfrecord",
        "encodingFormat": TFRECORD,
    }  # fmt: skip


def _file(path: str, encoding: str, size: int, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _record_sets(spec: DatasetSpec) -> Any:
    counts = [{"splits/name": k, "splits/records": s.num_examples} for k, s in spec.splits.items()]
    yield _record_set("splits", "cr:Split", counts, {"name": "sc:Text", "records": "sc:Integer"})
    for name, names in _classes(spec).items():
        key = f"{name}_classes"
        rows = [{f"{key}/id": i, f"{key}/name": n} for i, n in enumerate(names)]
        yield _record_set(key, "sc:Enumeration", rows, {"id": "sc:Integer", "name": "sc:Text"})
    yield {
        "@type": "cr:RecordSet",
        "@id": "scenes",
        "description": "What the patches are of.",
        "key": {"@id": "scenes/id"},
        "field": [
            _field(f"scenes/{column}", {"dataType": kind}, {"fileObject": {"@id": "scenes.jsonl"}},
                   {"column": column})
            for column, kind in _SCENES.items()
        ],
    }  # fmt: skip
    known = {k: f for k, f in spec.features.items() if f.dtype in _TYPES}  # none is complex
    fields = (_record_field(name, f, spec) for name, f in known.items())
    shards = {"fileSet": {"@id": "shards"}}
    split = _field("records/split", {"dataType": "sc:Text"}, shards, {"fileProperty": "filename"})
    split["source"]["transform"] = {"regex": r"^(.+)-\d{5}-of-\d{5}\.tfrecord$"}
    split["references"] = {"field": {"@id": "splits/name"}}
    yield {
        "@type": "cr:RecordSet",
        "@id": "records",
        "description": "Serialized tf.train.Example messages; images and masks in them are bytes "
        "of tf.io.serialize_tensor.",
        "field": [split, *fields],
    }


def _record_set(
    name: str, kind: str, rows: list[dict[str, Any]], columns: dict[str, str]
) -> dict[str, Any]:
    """One whose records stand in it."""
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{c}", "dataType": t} for c, t in columns.items()
    ]
    first = next(iter(columns))
    return {"@type": "cr:RecordSet", "@id": name, "dataType": kind,
            "key": {"@id": f"{name}/{first}"}, "field": fields, "data": rows}  # fmt: skip


def _field(
    name: str, what: dict[str, Any], source: dict[str, Any], extract: dict[str, str]
) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": name, **what, "source": source | {"extract": extract}}


def _record_field(name: str, feature: Feature, spec: DatasetSpec) -> dict[str, Any]:
    what: dict[str, Any] = {"description": described(name, spec)}
    what["dataType"] = _TYPES[feature.dtype]
    if name in spec.labels:
        what["dataType"] = [what["dataType"], "cr:Label"]
    if feature.shape:
        what |= {"isArray": True, "arrayShape": ",".join(map(str, feature.shape))}
    field = _field(f"records/{name}", what, {"fileSet": {"@id": "shards"}}, {"column": name})
    if name in _classes(spec):
        field["references"] = {"field": {"@id": f"{name}_classes/id"}}
    if name == "scene_id":
        field["references"] = {"field": {"@id": "scenes/id"}}
    return field


def _classes(spec: DatasetSpec) -> dict[str, list[str]]:
    found = {name: class_names(f) for name, f in spec.features.items()}
    return {name: names for name, names in found.items() if names}

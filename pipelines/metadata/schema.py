"""schema.pbtxt: the records as tensorflow-metadata describes them.

Format: tensorflow_metadata/proto/v0/schema.proto, as text.
"""

from __future__ import annotations

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from ...loader.spec import DatasetSpec
from .words import class_names, described, made

FILE = "schema.pbtxt"
_TYPES = {"class": schema_pb2.INT, "int": schema_pb2.INT, "value": schema_pb2.FLOAT}


def schema(spec: DatasetSpec) -> schema_pb2.Schema:
    """The schema of a dataset's records: one value of each feature in each record.

    Images and masks are one text of bytes each, as they are stored (``tf.io.parse_tensor``).
    """
    whole = schema_pb2.Schema()
    for name, f in spec.features.items():
        kind = schema_pb2.BYTES if f.encoding == "tensor" else _TYPES.get(f.kind, schema_pb2.BYTES)
        feature = whole.feature.add(name=name, type=kind)
        feature.presence.min_fraction, feature.presence.min_count = 1.0, 1
        feature.shape.SetInParent()  # a scalar
        feature.annotation.comment.append(described(name, spec))
        if f.kind == "class" and f.encoding == "scalar":
            feature.int_domain.is_categorical = True
            if names := class_names(f):
                feature.int_domain.min = min(0, *f.ignore) if f.ignore else 0
                feature.int_domain.max = max(len(names) - 1, *f.ignore, 0)
    return whole


def files(spec: DatasetSpec) -> dict[str, str]:
    """File name to text."""
    text = text_format.MessageToString(schema(spec), as_utf8=True)
    return {FILE: f"# {made(spec)}\n{text}"}

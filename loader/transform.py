"""A dataset's transform graph, ``OUT/transform_fn``, by TensorFlow alone.

It is the SavedModel that tf.Transform writes (tensorflow.org/tfx/transform/saved_model); neither
tf.Transform nor Beam is needed to apply it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from .records import Draw
from .spec import DatasetError
from .statistics import Statistics
from .storage import file_system, is_remote, join

FOLDER = "transform_fn"


class Transform(tf.Module):  # type: ignore[misc]
    """From a batch of raw features to the transformed ones, as a part of a graph or at once.

        transform = Transform("out")
        transform({"image": raw})["image"]      # (B, H, W, C) to the same, float32

    It is a program, and as any model to be had of people that one trusts: nothing makes one of a
    dataset unasked. Being a ``tf.Module``, it goes into whatever SavedModel holds it.

    Args:
      folder: the dataset's folder or URL.

    Raises:
      DatasetError: there is no such graph, or it cannot be loaded.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        where = join(folder, FOLDER)
        try:
            with tempfile.TemporaryDirectory() as temporary:
                self._model = tf.saved_model.load(_local(where, temporary))
            # A function, or the only one of several that it might have been traced to.
            function = self._model.transform_fn
            graph = getattr(function, "concrete_functions", [function])[0].graph
            ((given,), _) = graph.structured_input_signature
        except (OSError, AttributeError, ValueError, TypeError, tf.errors.OpError) as e:
            raise DatasetError(
                f"{where}: no graph of tf.Transform's ({e}): run `scenefeed stats {folder}`, or "
                "give normalize=None"
            ) from None
        self.inputs: dict[str, tf.TensorSpec] = dict(given)
        source = {t.op.name: k for k, t in zip(sorted(given), graph.inputs, strict=False)}
        self.needs = {
            name: frozenset(source[op] for op in _before(tensor.op) if op in source)
            for name, tensor in zip(
                sorted(graph.structured_outputs), graph.outputs, strict=True
            )
        }  # fmt: skip

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """What can be told from these features, each (B, ...): one that is not given counts as
        not there, and so does whatever needs it."""
        rows = next(iter(raw.values())).shape[0]
        count = tf.shape(next(iter(raw.values())))[0]
        given = {
            name: tf.cast(raw[name], spec.dtype)
            if name in raw
            else tf.zeros((count, *spec.shape[1:]), spec.dtype)
            for name, spec in self.inputs.items()
        }
        found = self._model.transform_fn(given)
        return {
            name: tf.ensure_shape(found[name], (rows, *found[name].shape[1:]))
            for name, needs in self.needs.items()
            if needs <= raw.keys()
        }

    def needed(self, names: Iterable[str]) -> set[str]:
        """The raw features that these are made of."""
        return {need for name in names for need in self.needs.get(name, ())}


class OfFeed:
    """The transform of a feed's batches, where the dataset's is a function of the user's own.

    What the function needs beside the features that are asked for is decoded, and left out again.

    Args:
      draw: what is fed; its names grow by those that are needed.
    """

    def __init__(self, draw: Draw):
        statistics = draw.options.normalize
        self._transform = None
        if isinstance(statistics, Statistics):
            self._transform = Transform(statistics.folder)
            more = self._transform.needed(draw.names) - set(draw.names)
            missing = more - draw.spec.features.keys()
            if missing:
                raise DatasetError(
                    f"normalize: {statistics.function} needs {min(missing)!r}, which is no feature"
                )
            self._raw, self._more = set(draw.spec.features), more
            draw.names = [*draw.names, *sorted(more)]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        assert self._transform is not None
        raw = {k: v for k, v in batch.items() if k in self._raw}
        found = {**batch, **self._transform(raw)}
        return {k: v for k, v in found.items() if k not in self._more}


def _before(op: Any) -> set[str]:
    """The names of the operations that one depends on, itself included."""
    found, todo = set(), [op]
    while todo:
        op = todo.pop()
        if op.name not in found:
            found.add(op.name)
            todo += [t.op for t in op.inputs]
    return found


def _local(folder: str, temporary: str) -> str:
    """The folder, or a copy of it where it is remote."""
    if not is_remote(folder):
        return folder
    system, inner = file_system(folder)
    system.get(inner, temporary, recursive=True)
    found = next(iter(Path(temporary).rglob("saved_model.pb")), Path(temporary))
    return str(found.parent)

"""Trains a small network on a dataset, watched by TensorBoard, and exports it for raw patches.

    python examples/train_and_serve.py OUT MODEL [--label water] [--epochs 3] [--logs LOGS]
    tensorboard --logdir LOGS

OUT was converted with ``statistics: {normalize: zscore}`` (or minmax, quantile), so the feed
normalizes; by a function of your own it does with ``normalize="dataset"``.
MODEL becomes a SavedModel that normalizes by the same graph: it takes patches as they are in the
records, and a program that serves it needs TensorFlow alone:

    model = tf.saved_model.load("MODEL").signatures["serving_default"]
    model(image=patches)["probabilities"]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from scenefeed.loader import DatasetSpec, Statistics, load
from scenefeed.loader.transform import Transform

SHOWN = 6  # patches


def network(shape: tuple[int, ...], classes: int, mask: bool) -> keras.Model:
    """Probabilities of classes, for each pixel or for each patch."""
    image = keras.Input(shape)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = x if mask else keras.layers.GlobalAveragePooling2D()(x)
    head = keras.layers.Conv2D(classes, 1) if mask else keras.layers.Dense(classes)
    model = keras.Model(image, keras.layers.Softmax()(head(x)))
    # What the label ignores weighs nothing: only weighted metrics leave it out.
    model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    return model


class Watch(keras.callbacks.Callback):
    """Whether the feed keeps up, and what the network makes of some patches, for TensorBoard.

    Args:
      logs: the folder that TensorBoard reads.
      feed: what ``load`` gave.
      shown: (images, labels) to look at after each epoch.
    """

    def __init__(self, logs: Path, feed: Any, shown: tuple[np.ndarray, np.ndarray]):
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(logs / "feed"))
        self._feed, self._shown = feed, shown

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        stats = self._feed.stats()
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("feed/patches_per_second", stats["records_per_second"])
            tf.summary.scalar("feed/share_of_time_waited", stats["waiting_share"])
            tf.summary.image("image, label, prediction", self._pictures(), max_outputs=SHOWN)
        self._writer.flush()

    def _pictures(self) -> np.ndarray:
        images, labels = self._shown
        found = self.model.predict_on_batch(images)
        low, high = np.percentile(images[..., :1], [2, 98])
        gray = np.clip((images[..., :1] - low) / max(high - low, 1e-6), 0, 1)
        if labels.ndim == 1:  # of a patch: one colour each
            labels = np.broadcast_to(labels[:, None, None], gray.shape[:3])
            found = np.broadcast_to(found[:, None, None], (*gray.shape[:3], found.shape[-1]))
        most = max(1, found.shape[-1] - 1)
        parts = labels[..., None] / most, found.argmax(-1)[..., None] / most
        return np.concatenate([gray, *parts], axis=2)


class Served(tf.Module):
    """From raw patches to probabilities.

    Args:
      model: takes normalized patches.
      transform: normalizes them; None where nothing does.
      raw: shape (None, H, W, C) and dtype of raw patches.
    """

    def __init__(self, model: keras.Model, transform: Transform | None, raw: tf.TensorSpec):
        super().__init__()
        self.model, self.transform = model, transform
        spec = tf.TensorSpec(raw.shape, raw.dtype, "image")
        self.serve = tf.function(self._serve, input_signature=[spec])

    def _serve(self, image: Any) -> dict[str, Any]:
        if self.transform is not None:
            image = self.transform({"image": image})["image"]
        return {"probabilities": self.model(tf.cast(image, tf.float32), training=False)}


def train_and_serve(
    out: str, target: str, label: str | None, epochs: int, batch_size: int, logs: Path
) -> keras.Model:
    """Trains, exports, and gives the trained network, which takes normalized patches."""
    spec, statistics = DatasetSpec.load(out), Statistics.load(out)
    label = label or spec.labels[0]
    weights, known = statistics.class_weights(label), statistics.labels[label]
    classes = max(len(known["names"]), *(int(c) + 1 for c in known["counts"]))

    def pairs(image: Any, labels: Any, weight: Any) -> tuple[Any, Any, Any]:
        labels = labels[label] if isinstance(labels, dict) else labels
        return image, tf.where(weight > 0, tf.cast(labels, tf.int64), 0), weight

    options = {"batch_size": batch_size, "as_supervised": True, "map": pairs}
    train = load(out, class_weights={label: weights}, augment=True, **options)
    others = [k for k, s in spec.splits.items() if k != "train" and s.num_examples]
    judged = load(out, others[0], class_weights={label: weights}, **options) if others else None

    images, labels, _ = next(iter(judged or train))
    shown = images[:SHOWN].numpy(), labels[:SHOWN].numpy()
    mask = spec.features[label].kind == "mask"
    model = network(spec.features["image"].shape, classes, mask)
    board = keras.callbacks.TensorBoard(logs)
    model.fit(
        train, epochs=epochs, validation_data=judged, verbose=2,
        callbacks=[board, Watch(logs, train, shown)],
    )  # fmt: skip

    transform = Transform(out) if statistics.normalize != "none" else None
    image = spec.features["image"]
    raw = tf.TensorSpec((None, *image.shape), image.dtype)
    if transform is not None:  # with `bake: true`, what is in the records is not raw
        raw = transform.inputs["image"]
    served = Served(model, transform, raw)
    tf.saved_model.save(served, target, signatures=served.serve)
    return model


def main(argv: list[str] | None = None) -> keras.Model:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", metavar="OUT", help="a dataset with statistics")
    parser.add_argument("model", metavar="MODEL", help="where the SavedModel goes")
    parser.add_argument("--label", help="a mask or a class (default: the first label)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--logs", type=Path, default=Path("logs"))
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(0)
    return train_and_serve(
        args.out, args.model, args.label, args.epochs, args.batch_size, args.logs
    )


if __name__ == "__main__":
    main()

"""A Keras model over one scene's patches, as a GeoTIFF that aligns with the scene.

    python examples/predict_scene.py out India_900498 water.keras --output water.tif

The model takes (N, size, size, bands) as records hold them, and gives a value a pixel
(N, size, size) or (N, size, size, values), or one a patch (N, values). Where patches overlap its
values are averaged; train and predict with logits or probabilities, not with classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from scenefeed.loader import DatasetSpec, Reader
from scenefeed.transforms.mosaic import Mosaic


def batches(out: str, scene: str, size: int) -> Iterator[dict[str, np.ndarray]]:
    """All patches of a scene, whatever their split."""
    for split, found in DatasetSpec.load(out).splits.items():
        if found.num_examples:
            reader = Reader(out, split, ["image", "row", "col"])
            own = reader.of_scene(scene)
            for first in range(0, len(own), size):
                yield reader.batch(own[first : first + size])


def predict_scene(out: str, scene: str, model: Any, path: str, batch_size: int = 64) -> None:
    """Writes a model's predictions over a scene to ``path``."""
    channels = model.output_shape[-1] if len(model.output_shape) in (2, 4) else 1
    with Mosaic(out, scene, path, bands=channels) as mosaic:
        for batch in batches(out, scene, batch_size):
            mosaic.add(batch["row"], batch["col"], model.predict_on_batch(batch["image"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="a converted dataset")
    parser.add_argument("scene", help="the scene's id")
    parser.add_argument("model", help="a .keras file")
    parser.add_argument("--output", required=True, help="the GeoTIFF")
    args = parser.parse_args()

    import keras

    predict_scene(args.out, args.scene, keras.saving.load_model(args.model), args.output)

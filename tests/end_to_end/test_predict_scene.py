"""The example: a Keras model over a scene's patches, as a map."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio

from tests.conftest import ROOT, scenefeed, write_raster


@pytest.mark.slow
def test_a_models_map_is_what_the_model_makes_of_the_scene(tmp_path):
    keras = pytest.importorskip("keras")
    pixels = np.random.default_rng(0).normal(size=(2, 70, 90)).astype("float32")
    write_raster(tmp_path / "s.tif", pixels)
    out = tmp_path / "out"
    scenefeed("convert", tmp_path / "s.tif", "--output", out, "--tile_size", 32, "--stride", 24,
              "--edge", "pad", "--split_by", "patch")  # fmt: skip
    model = keras.Sequential([keras.layers.Input((32, 32, 2)), keras.layers.Conv2D(3, 1)])
    kernel, bias = np.arange(6).reshape(1, 1, 2, 3) / 4, np.array([1, 0, -1])
    model.set_weights([kernel, bias])
    model.save(tmp_path / "m.keras")
    command = [sys.executable, ROOT / "examples/predict_scene.py", out, "s", tmp_path / "m.keras"]
    subprocess.run([*command, "--output", tmp_path / "m.tif"], check=True, timeout=170)
    expected = np.einsum("bij,bc->cij", pixels, kernel[0, 0]) + bias[:, None, None]
    with rasterio.open(tmp_path / "m.tif") as found, rasterio.open(tmp_path / "s.tif") as src:
        np.testing.assert_allclose(found.read(), expected, atol=1e-5)
        assert (found.crs, found.transform) == (src.crs, src.transform)

"""examples/train_and_serve.py: the same numbers in training and in serving."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from scenefeed.loader import Reader, load
from tests.conftest import ROOT, scenefeed

# A server's program: TensorFlow, and nothing of ours or of the pipeline's.
SERVE = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("scenefeed", "apache_beam", "tensorflow_transform"):
            raise ModuleNotFoundError(f"{name} is not on a server")

sys.meta_path.insert(0, Refused())
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
found = model(image=tf.constant(np.load(sys.argv[2])))["probabilities"]
np.save(sys.argv[3], found.numpy())
"""


def example():
    path = ROOT / "examples" / "train_and_serve.py"
    spec = importlib.util.spec_from_file_location("train_and_serve", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_training_and_serving_give_the_same(tmp_path):
    pytest.importorskip("tensorboard")
    scenefeed("synth", tmp_path / "s", "--scenes", 2, "--size", 512)
    config = tmp_path / "s/dataset.yaml"
    config.write_text(config.read_text().replace("by: block, block: 512", "by: patch"))
    out = tmp_path / "out"
    scenefeed("convert", "--config", config, "--output", out, "--tile_size", 32,
              "--normalize", "zscore")  # fmt: skip
    model = example().main([
        str(out), str(tmp_path / "model"), "--epochs", "2", "--logs", str(tmp_path / "logs"),
    ])  # fmt: skip

    # Training's side: what the feed gives. Serving's: the records as they are.
    options = {"shuffle": False, "batch_size": 50}
    trained = np.concatenate([model.predict_on_batch(b["image"]) for b in load(out, **options)])
    raw = Reader(out).batch(range(len(Reader(out))))["image"]
    np.save(tmp_path / "raw.npy", raw)
    served = subprocess.run(
        [sys.executable, "-c", SERVE, *(str(tmp_path / n) for n in ("model", "raw.npy", "p.npy"))],
        capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert served.returncode == 0, served.stderr
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), trained, rtol=0, atol=1e-6)
    # The network would see something else without the transform.
    assert np.abs(model.predict_on_batch(raw) - trained).max() > 0.1

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    def logged(run):
        found = EventAccumulator(str(tmp_path / "logs" / run), size_guidance={"tensors": 0})
        found.Reload()
        return {
            tag: [tensor_util.make_ndarray(e.tensor_proto) for e in found.Tensors(tag)]
            for tag in found.Tags()["tensors"]
        }

    losses = logged("train")["epoch_loss"]
    assert len(losses) == 2
    assert losses[-1] < losses[0]
    assert {"epoch_loss", "epoch_accuracy"} <= set(logged("validation"))
    of_feed = logged("feed")
    assert len(of_feed["feed/patches_per_second"]) == len(of_feed["feed/share_of_time_waited"]) == 2
    assert of_feed["feed/patches_per_second"][-1] > 0
    width, height, *pictures = of_feed["image, label, prediction"][-1]
    assert (int(width), int(height)) == (3 * 32, 32)
    assert len(pictures) == 6
    assert all(p.startswith(b"\x89PNG") for p in pictures)

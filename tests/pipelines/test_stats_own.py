"""A function of one's own sees training alone: its analyzers, not only what we count ourselves."""

import numpy as np
import pytest
import rasterio

from scenefeed.loader import Reader
from tests.conftest import in_process
from tests.pipelines.test_stats import YAML, scene, statistics

OWN = """\
import tensorflow as tf
import tensorflow_transform as tft

def analyzed(inputs):
    image = tf.cast(inputs["image"], tf.float32)
    level = tf.reduce_mean(image, axis=(1, 2, 3))
    water = tf.strings.as_string(tf.reduce_sum(tf.cast(inputs["water"], tf.int64), axis=(1, 2)))
    return {
        "image": tft.scale_to_z_score(image),
        "range": (image - tft.min(image)) / (tft.max(image) - tft.min(image)),
        "level": tft.bucketize(level, 4),
        "water": tft.compute_and_apply_vocabulary(water, vocab_filename="water"),
    }
"""


def overwrite(folder, split, count):
    """Other pixels and another mask under the first ``count`` patches of a split."""
    for patch in list(Reader(folder / "first", split))[:count]:
        row, col = patch["row"], patch["col"]
        for kind, value in (("scenes", 1e3), ("labels", 1)):
            with rasterio.open(folder / f"{kind}/{patch['scene_id']}.tif", "r+") as file:
                pixels = file.read()
                pixels[:, row : row + 16, col : col + 16] = value
                file.write(pixels)


def converted(folder, name):
    """A dataset of the scenes as they are now."""
    words = ("--config", "config.yaml", "--output", name, "--normalize", "own_analyzers:analyzed")
    in_process("convert", *words, cwd=folder)
    return folder / name


def transformed(out, batch):
    """What the dataset's graph makes of a raw batch."""
    import tensorflow as tf
    import tensorflow_transform as tft

    given = {name: tf.constant(batch[name]) for name in ("image", "water")}
    found = tft.TFTransformOutput(str(out)).transform_raw_features(given)
    return {name: values.numpy() for name, values in found.items()}


@pytest.mark.slow
def test_validation_changes_nothing_that_ones_own_function_gives(tmp_path):
    for seed, name in enumerate("ab"):
        scene(tmp_path, name, seed)
    (tmp_path / "config.yaml").write_text(YAML.replace("zscore", "'own_analyzers:analyzed'"))
    (tmp_path / "own_analyzers.py").write_text(OWN)
    first = converted(tmp_path, "first")
    batch = Reader(first, "train").batch(range(8))
    before = transformed(first, batch)

    overwrite(tmp_path, "val", count=None)
    second = converted(tmp_path, "second")
    assert (Reader(second, "val").batch(range(4))["image"] == 1e3).all()
    after = transformed(second, batch)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, name)
    assert statistics(second)["inputs"] != statistics(first)["inputs"]
    assert statistics(second)["fingerprint"] == statistics(first)["fingerprint"]

    overwrite(tmp_path, "train", count=4)
    third = converted(tmp_path, "third")
    other = transformed(third, batch)
    assert not [name for name in before if np.array_equal(other[name], before[name])]
    assert statistics(third)["fingerprint"] != statistics(first)["fingerprint"]

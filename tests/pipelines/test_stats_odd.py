"""Statistics by the real command of what is odd, against NumPy over the records."""

import json
import multiprocessing
import threading
import types

import numpy as np
import pytest

from scenefeed.loader import Reader, load
from scenefeed.pipelines import analyst
from scenefeed.transforms.statistics import scene as counted
from tests.conftest import in_process, scenefeed, write_raster


def found(out):
    return json.loads((out / "statistics.json").read_text())


def convert(folder, *flags, **more):
    return in_process(
        "convert", "--config", folder / "config.yaml", "--output", folder / "out", *flags, **more
    )


def test_forty_bands_a_constant_one_huge_nodata_and_an_absent_class(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(-300, 3000, (40, 32, 32)).astype(np.int16)
    pixels[7] = 5
    pixels[:, :5, :7] = -32768
    write_raster(tmp_path / "a.tif", pixels, nodata=-32768)
    write_raster(tmp_path / "labels/a.tif", rng.integers(0, 2, (1, 32, 32), np.uint8))
    depth = rng.gamma(2, 1, (1, 32, 32)).astype(np.float32)
    write_raster(tmp_path / "depth/a.tif", depth)
    (tmp_path / "config.yaml").write_text(
        "scenes: {paths: [a.tif]}\n"
        "labels:\n"
        "  water: {kind: raster, path: 'labels/{id}.tif', classes: [land, water, ice]}\n"
        "  depth: {kind: raster, path: 'depth/{id}.tif'}\n"
        "tile: {size: 16}\n"
        "split: {by: patch, fractions: {train: 1.0}}\n"
    )
    done = convert(tmp_path, "--normalize", "zscore")
    assert "band b8 has one value, 5, in all of split train" in done.stderr
    assert "class ice (2) is not in split train" in done.stderr
    held, whole = found(tmp_path / "out"), pixels.reshape(40, -1).astype(float)
    valid = whole[0] != -32768
    assert len(held["bands"]) == 40
    for number, band in enumerate(held["bands"].values()):
        expected = whole[number][valid]
        assert band["count"] == len(expected) == 32 * 32 - 35
        assert band["mean"] == pytest.approx(expected.mean(), rel=1e-12)
        assert band["variance"] == pytest.approx(expected.var(), rel=1e-9, abs=1e-12)
        assert band["quantiles"]["0.5"] == np.quantile(expected, 0.5)
    values = held["labels"]["depth"]
    assert values["mean"] == pytest.approx(depth.astype(float).mean(), rel=1e-12)
    for share, value in values["quantiles"].items():
        assert value == pytest.approx(np.quantile(depth, float(share)), rel=1 / 64)
    assert held["labels"]["water"]["weights"]["2"] is None
    (batch,) = load(str(tmp_path / "out"), "train", batch_size=4, shuffle=False)
    assert np.isfinite(batch["image"]).all()
    stored = Reader(tmp_path / "out", "train").batch(range(4))["image"]
    for number, band in enumerate(held["bands"].values()):
        expected = (stored[..., number] - band["mean"]) / (band["std"] or 1.0)
        np.testing.assert_allclose(batch["image"][..., number], expected, atol=1e-4)


def test_one_patch_in_all(tmp_path):
    pixels = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    write_raster(tmp_path / "a.tif", pixels)
    (tmp_path / "config.yaml").write_text(
        "scenes: {paths: [a.tif]}\ntile: {size: 16}\nsplit: {by: patch, fractions: {train: 1.0}}\n"
    )
    convert(tmp_path, "--normalize", "minmax")
    (band,) = found(tmp_path / "out")["bands"].values()
    assert (found(tmp_path / "out")["patches"], band["count"], band["sampled"]) == (1, 256, 1.0)
    assert band["mean"] == pytest.approx(pixels.astype(float).mean(), rel=1e-12)


@pytest.mark.parametrize(("dtype", "sampled"), [("float32", 0.25), ("int16", 1.0)])
def test_of_large_scenes_a_sample_tells_quantiles(tmp_path, monkeypatch, dtype, sampled):
    monkeypatch.setattr(counted, "_MANY", ((1 << 24, 16), (256 * 256, 4)))
    pixels = (100 * np.random.default_rng(0).gamma(2, 1, (1, 256, 256))).astype(dtype)
    write_raster(tmp_path / "a.tif", pixels)
    write_raster(tmp_path / "b.tif", pixels[:, :128])
    (tmp_path / "config.yaml").write_text(
        "scenes: {paths: [a.tif, b.tif]}\ntile: {size: 32}\n"
        "split: {by: patch, fractions: {train: 1.0}}\n"
    )
    convert(tmp_path, "--normalize", "quantile")
    (band,) = found(tmp_path / "out")["bands"].values()
    expected = np.concatenate([pixels.ravel(), pixels[:, :128].ravel()]).astype(float)
    assert band["sampled"] == pytest.approx((2 * sampled + 1) / 3)
    assert band["count"] == sum(band["histogram"]["counts"]) == expected.size
    assert (band["min"], band["max"]) == (expected.min(), expected.max())
    assert band["variance"] == pytest.approx(expected.var(), rel=1e-12)
    assert band["quantiles"]["0.5"] == pytest.approx(np.quantile(expected, 0.5), rel=0.02)


def test_one_worker_and_two_give_the_same_statistics(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcd":
        pixels = rng.gamma(1, 10.0 ** rng.integers(-6, 2), (2, 64, 64)).astype(np.float32)
        write_raster(tmp_path / f"{name}.tif", pixels)
    (tmp_path / "config.yaml").write_text("scenes: {paths: ['*.tif']}\ntile: {size: 16}\n")
    held = []
    for workers in (1, 2):
        convert(tmp_path, "--normalize", "zscore", f"--direct_num_workers={workers}", "--overwrite")
        held.append(found(tmp_path / "out"))
        assert json.loads((tmp_path / "out/metrics.json").read_text())["workers"] == workers
    assert held[0]["fingerprint"] == held[1]["fingerprint"]
    assert held[0] == held[1]


def test_processes_and_threads_give_the_same_statistics(tmp_path, monkeypatch):
    """The real command stages and counts in processes, unless a flag of Beam's is given; and leaves
    nothing in the system's temporary folder."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    rng = np.random.default_rng(0)
    for name in "abc":
        write_raster(tmp_path / f"{name}.tif", rng.normal(size=(2, 64, 64)).astype(np.float32))
    (tmp_path / "config.yaml").write_text("scenes: {paths: ['*.tif']}\ntile: {size: 16}\n")
    command = ("convert", "--config", tmp_path / "config.yaml", "--normalize", "zscore", "--output")
    scenefeed(*command, tmp_path / "processes")
    scenefeed(*command, tmp_path / "threads", "--direct_num_workers=2")
    assert found(tmp_path / "processes") == found(tmp_path / "threads")
    assert not list((tmp_path / "tmp").iterdir())


def test_each_question_gets_its_own_answer(monkeypatch):
    here, there = multiprocessing.Pipe()

    def answer():
        for _ in range(40):
            _, _, (number,) = there.recv()
            there.send(({"number": number, "text": "x" * 100_000 * (number % 2)}, None))

    process = types.SimpleNamespace(kill=lambda: None)
    monkeypatch.setattr(analyst, "is_beside", lambda: True)
    monkeypatch.setattr(analyst, "_started", {(True, False): (process, here)})
    server = threading.Thread(target=answer, daemon=True)
    server.start()
    wrong = []

    def questions(first):
        for number in range(first, 40, 2):
            got = analyst.ask(len, number, quiet=True, own=False)
            wrong.extend([number] * (got["number"] != number))

    threads = [threading.Thread(target=questions, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong


@pytest.mark.slow
def test_a_function_of_ones_own_finds_what_tf_transform_does_without(tmp_path):
    write_raster(tmp_path / "a.tif", np.ones((1, 32, 32), np.float32))
    (tmp_path / "config.yaml").write_text("scenes: {paths: [a.tif]}\ntile: {size: 16}\n")
    (tmp_path / "mine.py").write_text(
        "import keras, pandas, PIL.Image, scipy.signal\n"
        "import tensorflow as tf\n"
        "from tensorflow.keras import layers\n"
        "def halved(inputs):\n"
        "    assert keras.ops.zeros((2, 3)).shape == (2, 3) and keras.utils.array_to_img\n"
        "    return {'image': layers.Rescaling(0.5)(tf.cast(inputs['image'], tf.float32))}\n"
    )
    out = tmp_path / "out"
    scenefeed("convert", "--config", "config.yaml", "--output", out, "--normalize", "mine:halved",
              cwd=tmp_path)  # fmt: skip
    import tensorflow as tf
    import tensorflow_transform as tft

    graph = tft.TFTransformOutput(str(out))
    image = tf.ones((1, 16, 16, 1))
    assert float(graph.transform_raw_features({"image": image})["image"][0, 0, 0, 0]) == 0.5

"""PyTorch's and JAX's feeds apply a dataset's own normalization, bit for bit as NumPy's."""

import json

import numpy as np
import pytest

from scenefeed.loader import DatasetError
from scenefeed.loader import Feed as NumpyFeed
from tests.loader.datasets import write_dataset
from tests.loader.normalized import with_statistics


@pytest.fixture(scope="module")
def out(small_dataset, tmp_path_factory):
    return with_statistics(
        small_dataset / "out", tmp_path_factory.mktemp("own") / "out", "quantile"
    )


def test_torch(out):
    torch = pytest.importorskip("torch")
    from scenefeed.loader.torch import Feed, MapDataset

    (expected,) = NumpyFeed(out, shuffle=False)
    raw = NumpyFeed(out, shuffle=False, normalize=None)
    for workers in (0, 1):
        (found,) = Feed(out, shuffle=False, workers=workers, channels_first=False)
        assert np.array_equal(found["image"], expected["image"])
    (half,) = Feed(out, shuffle=False, dtype="bfloat16", channels_first=False)
    assert torch.equal(half["image"], torch.from_numpy(expected["image"]).to(torch.bfloat16))
    assert np.array_equal(MapDataset(out)[0]["image"], next(iter(raw))["image"][0])  # as Reader


def test_jax(out):
    pytest.importorskip("jax")
    from scenefeed.loader.jax import Feed

    (expected,) = NumpyFeed(out, shuffle=False)
    (found,) = Feed(out, shuffle=False)
    assert np.array_equal(found["image"], expected["image"])
    with pytest.raises(DatasetError, match="'auto', 'dataset'"):
        Feed(out, normalize="no")


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_datasets_program_is_not_run_unasked(tmp_path, name):
    pytest.importorskip(name)
    module = pytest.importorskip(f"scenefeed.loader.{name}")
    folder = write_dataset(tmp_path / "out", np.zeros(4, int))
    spec = json.loads((folder / "dataset.json").read_text())
    spec["config"]["statistics"] = {"normalize": "mine:own"}
    (folder / "dataset.json").write_text(json.dumps(spec))
    (folder / "statistics.json").write_text(json.dumps({
        "format": "scenefeed-statistics/1", "inputs": spec["inputs"], "split": "train", "patches": 4,
        "normalize": "mine:own", "transform": None, "bands": {"a": {}}, "labels": {},
    }))  # fmt: skip
    with pytest.raises(DatasetError, match="program, mine:own, which is not run unasked"):
        module.Feed(folder, features=["image"])
    with pytest.raises(DatasetError, match="a TensorFlow graph, which `load` alone applies"):
        module.Feed(folder, features=["image"], normalize="dataset")
    (batch,) = module.Feed(folder, features=["image"], normalize=None)
    assert len(batch["image"]) == 4

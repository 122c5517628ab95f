"""compare's tensorflow-io alternative, where tensorflow-io is."""

import importlib.util

import numpy as np
import pytest

from tests.pipelines.comparing import run_through, sample

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_io") is None,
    reason="tensorflow-io is not in this environment: make test-tfio",
)


def test_every_patch_comes_back(tmp_path):
    source = np.random.default_rng(0).normal(size=(50, 6, 5, 2)).astype("float32")
    taken = sample(tmp_path / "s", source)
    _, fed, positions = run_through("hdf5_tfio", taken, tmp_path / "w")
    assert sorted(positions) == list(range(50))
    assert (fed == source[positions]).all()

"""compare's PyTorch alternative gives the source back, channels last."""

import numpy as np
import pytest

from tests.pipelines.comparing import run_through, sample

pytest.importorskip("torch", reason="PyTorch is not in this environment: make test-frameworks")


def test_every_patch_comes_back_in_a_global_shuffle(tmp_path):
    source = np.random.default_rng(0).normal(size=(200, 3, 3, 3)).astype("float32")
    figures, fed, positions = run_through("torch", sample(tmp_path / "s", source), tmp_path / "w")
    assert sorted(positions) == list(range(200))
    assert (fed == source[positions]).all()
    assert 0.8 < figures["shuffle"] < 1.2

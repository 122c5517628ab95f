"""The feed for JAX, against the NumPy feed."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not in this environment: make test-frameworks")

from scenefeed.loader import Feed as NumpyFeed  # noqa: E402
from scenefeed.loader.jax import Feed  # noqa: E402


def same(found, expected):
    found = list(found)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        for name, value in b.items():
            assert np.array_equal(np.asarray(a[name]), value), name
        assert isinstance(a["image"], jax.Array)


def test_batches_and_state(small_dataset):
    out = small_dataset / "out"
    expected = list(NumpyFeed(out, batch_size=4, seed=2))
    feed = Feed(out, batch_size=4, seed=2)
    same(feed, expected)
    again = Feed(out, batch_size=4, seed=2)
    passing = iter(again)
    same([next(passing) for _ in range(2)], expected[:2])
    state = again.state_dict()
    passing.close()
    third = Feed(out, batch_size=4, seed=2)
    third.load_state_dict(state)
    same(third, expected[2:])


def test_bfloat16_and_a_step(small_dataset):
    feed = Feed(
        small_dataset / "out", batch_size=4, dtype="bfloat16", as_supervised=True,
        device=jax.devices()[0],
    )  # fmt: skip
    step = jax.jit(lambda image, label: (image.astype("float32").mean(), label.mean()))
    for image, label in feed:
        assert image.dtype == jax.numpy.bfloat16
        assert all(np.isfinite(x) for x in step(image, label))

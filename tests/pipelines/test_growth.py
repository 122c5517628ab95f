"""Memory's slope against SciPy's, and what is called a leak."""

import numpy as np
import pytest
from scipy import stats

from scenefeed.pipelines.growth import LEAST_BYTES, growth

MIB = 1 << 20
SECONDS = np.arange(0, 60, 0.25)


def held(slope, noise, seed=0):
    """Memory that fills for the first tenth, then grows by ``slope`` MiB a second."""
    rng = np.random.default_rng(seed)
    filled = np.minimum(1, SECONDS / 6) * 500
    return (filled + slope * SECONDS + rng.normal(0, noise, len(SECONDS))) * MIB


@pytest.mark.parametrize("slope", [0, 0.02, 3])
def test_the_slope_and_its_interval_are_scipys(slope):
    x, y = SECONDS, held(slope, 2)
    found = growth(list(zip(x, y, strict=True)))
    after = x >= x[0] + np.ptp(x) / 3
    expected = stats.theilslopes(y[after], x[after], 0.95)
    assert found["samples"] == after.sum()
    assert found["bytes_per_s"] == pytest.approx(expected.slope, rel=1e-6)
    # The interval ends between two of the pairs' slopes; which of the two is a matter of rounding.
    width = expected.high_slope - expected.low_slope
    assert found["low"] == pytest.approx(expected.low_slope, abs=width / 100)
    assert found["high"] == pytest.approx(expected.high_slope, abs=width / 100)


@pytest.mark.parametrize(
    ("slope", "noise", "leak"),
    [(0, 0, False), (0, 30, False), (3, 2, True), (3, 0, True), (-3, 1, False), (0.2, 1, False)],
)
def test_a_leak_stands_out_of_the_noise(slope, noise, leak):
    found = growth(list(zip(SECONDS, held(slope, noise), strict=True)))
    assert found["leak"] == leak
    assert found["noise_bytes"] >= LEAST_BYTES
    assert found["bytes"] == pytest.approx(found["bytes_per_s"] * found["seconds"])


def test_one_peak_does_not_move_the_slope():
    y = held(0, 1)
    y[200] += 4000 * MIB
    assert not growth(list(zip(SECONDS, y, strict=True)))["leak"]


def test_few_samples_and_samples_at_once_say_nothing():
    assert growth([]) is None
    assert growth([(i, i * MIB) for i in range(9)]) is None  # the first third is warm-up
    assert growth([(1.0, i * MIB) for i in range(50)]) is None


def test_many_samples_are_thinned():
    found = growth([(i, 2.0 * i) for i in range(10_000)])
    assert found["samples"] <= 300
    assert found["bytes_per_s"] == 2

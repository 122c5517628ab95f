"""The Lee filter, against the formula written out pixel by pixel."""

import numpy as np
import pytest

from scenefeed.transforms.speckle import lee


def _speckled(shape, looks=4, seed=0):
    """Gamma-distributed speckle of mean 1 over a step edge."""
    rng = np.random.default_rng(seed)
    image = rng.gamma(looks, 1 / looks, shape)
    image[:, shape[1] // 2 :] *= 8
    return image.astype(np.float32)


def _brute(image, bad, size, looks):
    out = image.astype(np.float64)
    r, c = size // 2, 1 / looks
    for i, j in np.argwhere(~bad):
        window = np.s_[max(0, i - r) : i + r + 1, max(0, j - r) : j + r + 1]
        values = image[window][~bad[window]].astype(np.float64)
        m, v = values.mean(), values.var()
        signal = max(0, (v - m**2 * c) / (1 + c))
        out[i, j] = m + (signal / v if v > 0 else 0) * (image[i, j] - m)
    return out


@pytest.mark.parametrize("size", [3, 5, 7, 13, 21])
@pytest.mark.parametrize("with_bad", [False, True])
def test_the_formula(size, with_bad):
    image = _speckled((18, 23))
    bad = np.random.default_rng(1).random(image.shape) < (0.3 if with_bad else 0)
    bad[:, :2] = with_bad
    found = lee(image, bad if with_bad else None, size, 2.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _brute(image, bad, size, 2.5), rtol=1e-5)


def test_bad_pixels_do_not_leak_whatever_they_hold():
    image = _speckled((40, 40))
    bad = np.zeros(image.shape, bool)
    bad[10:14, 5:30] = True
    first = lee(image, bad, 7, 4)
    for value in (np.nan, np.inf, 3e38, 0):
        image[bad] = value
        found = lee(image, bad, 7, 4)
        assert np.array_equal(found[~bad], first[~bad])
        assert np.array_equal(found[bad], image[bad], equal_nan=True)


def test_nothing_but_bad_pixels_and_a_constant_image():
    image = np.full((9, 9), 5, np.float32)
    assert np.array_equal(lee(image, np.ones((9, 9), bool), 5, 1), image)
    np.testing.assert_allclose(lee(image, None, 5, 1), image, rtol=1e-6)
    np.testing.assert_allclose(lee(image[:2, :1], None, 63, 1), 5, rtol=1e-6)


@pytest.mark.parametrize("size", [3, 9, 31])
def test_a_part_gives_what_the_whole_gives(size, monkeypatch):
    image = _speckled((150, 90))
    image[40, 20] = 1e6  # a bright target must not disturb what is beyond its window
    bad = image < 0.3
    r = size // 2
    whole = lee(image, bad, size, 4)
    part = lee(
        image[60 - r : 90 + r, 30 - r : 50 + r], bad[60 - r : 90 + r, 30 - r : 50 + r], size, 4
    )
    assert np.array_equal(part[r:-r, r:-r], whole[60:90, 30:50])
    monkeypatch.setattr("scenefeed.transforms.speckle._STRIP_PIXELS", 1)
    assert np.array_equal(lee(image, bad, size, 4), whole)


def test_smooths_what_is_homogeneous_keeps_its_mean_and_keeps_edges():
    image = _speckled((200, 200), looks=4)
    found = lee(image, None, 7, 4)
    flat = np.s_[10:190, 10:90]
    assert found[flat].mean() == pytest.approx(image[flat].mean(), rel=0.01)
    assert found[flat].var() < image[flat].var() / 5
    # A plain mean would put the pixels beside the edge half-way, at 4.
    assert found[:, 98].mean() < 2 < 6 < found[:, 101].mean()

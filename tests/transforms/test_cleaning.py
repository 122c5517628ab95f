"""Cleaning, against the same thing said in plain numpy."""

import numpy as np
import pytest

from scenefeed.transforms.cleaning import clean
from scenefeed.transforms.config import Clean


def test_decibels_of_power_and_what_has_none():
    power = np.array([[[1.0, 100.0, 0.0, -2.0, np.nan]]], np.float32)
    bad = ~np.isfinite(power)
    pixels, valid = clean(power.copy(), bad, Clean(to_db=True, fill=-99), (-99.0,))
    assert pixels.dtype == np.float32
    assert pixels[0, 0].tolist() == [0, 20, -99, -99, -99]
    assert valid.tolist() == [[True, True, False, False, False]]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_decibels_give_float32(dtype):
    pixels, valid = clean(np.array([[[10, 100]]], dtype), None, Clean(to_db=True), (0.0,))
    assert pixels.dtype == np.float32
    assert np.allclose(pixels, [[[10, 20]]])
    assert valid is None


def test_limits_do_not_touch_the_fill_and_keep_the_dtype():
    pixels = np.array([[[-50.0, -10.0, 50.0]]], np.float32)
    bad = np.array([[[False, False, True]]])
    found, valid = clean(pixels, bad, Clean(clip=(-30, 5), fill=-999), (-999.0,))
    assert found.tolist() == [[[-30, -10, -999]]]
    assert valid.tolist() == [[True, True, False]]
    whole, _ = clean(np.array([[[0, 3, 250]]], np.uint8), None, Clean(clip=(0.5, 1000)), (0.0,))
    assert whole.dtype == np.uint8
    assert whole.tolist() == [[[1, 3, 250]]]


def test_fill_goes_band_by_band_and_valid_asks_every_band():
    pixels = np.ones((2, 1, 3), np.int16)
    bad = np.array([[[True, False, False]], [[False, True, False]]])
    found, valid = clean(pixels, bad, Clean(fill=(7, 8)), (7.0, 8.0))
    assert found.tolist() == [[[7, 1, 1]], [[1, 8, 1]]]
    assert valid.tolist() == [[False, False, True]]

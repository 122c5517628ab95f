"""Cleaning, against the same thing said in plain numpy."""

import pickle

import numpy as np
import pytest

from scenefeed.transforms.cleaning import Cleaner, band_sums, output_bands, output_dtype
from scenefeed.transforms.errors import SceneError
from scenefeed.transforms.sections import Clean
from scenefeed.transforms.speckle import lee


def clean(pixels, bad, margins=(0, 0, 0, 0), inputs="abcdefgh", fills=None, **config):
    config = Clean(**config)
    pixels = np.asarray(pixels)
    inputs = tuple(inputs)[: len(pixels)]
    dtype = output_dtype(config, pixels.dtype)
    fills = fills or (0.0,) * len(output_bands(config, inputs))
    return Cleaner(config, inputs, dtype, fills)(pixels, bad, margins)


def test_decibels_of_power_and_what_has_none():
    power = np.array([[[1.0, 100.0, 0.0, -2.0, np.nan]]], np.float32)
    bad = ~np.isfinite(power)
    found = clean(power, bad, to_db=True, fills=(-99.0,))
    assert found.pixels.dtype == np.float32
    assert found.pixels[0, 0].tolist() == pytest.approx([0, 20, -99, -99, -99], rel=1e-6)
    assert found.valid.tolist() == [[True, True, False, False, False]]
    assert bad[0, 0].tolist() == [False] * 4 + [True]
    assert np.shares_memory(found.pixels, power)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float64"])
def test_decibels_give_float32(dtype):
    found = clean(np.array([[[10, 100]]], dtype), None, to_db=True)
    assert found.pixels.dtype == np.float32
    assert np.allclose(found.pixels, [[[10, 20]]])
    assert found.valid is None


def test_decibels_of_some_bands():
    found = clean(np.array([[[10, 0]], [[10, 0]]], np.uint16), None, to_db=("b",), fills=(-1, -2))
    assert found.pixels.tolist() == [[[10, 0]], [[10, -2]]]
    assert found.valid.tolist() == [[True, False]]


def test_limits_do_not_touch_the_fill_and_keep_the_dtype():
    pixels = np.array([[[-50.0, -10.0, 50.0]]], np.float32)
    bad = np.array([[[False, False, True]]])
    found = clean(pixels, bad, clip=(-30, 5), fills=(-999.0,))
    assert found.pixels.tolist() == [[[-30, -10, -999]]]
    assert found.valid.tolist() == [[True, True, False]]
    whole = clean(np.array([[[0, 3, 250]]], np.uint8), None, clip=(0.5, 1000)).pixels
    assert whole.dtype == np.uint8
    assert whole.tolist() == [[[1, 3, 250]]]
    open_end = clean(np.array([[[-5, 3]]], np.int64), None, clip=(0, np.inf)).pixels
    assert open_end.tolist() == [[[0, 3]]]


def test_limits_band_by_band():
    found = clean(np.array([[[0, 9]], [[0, 9]]], np.int16), None, clip={"b": (2, 5)})
    assert found.pixels.tolist() == [[[0, 9]], [[2, 5]]]


@pytest.mark.parametrize("clip", [(0.2, 0.8), (300, 400), (-9, -0.5), (-np.inf, -1)])
def test_limits_that_no_integer_passes_are_refused(clip):
    with pytest.raises(SceneError, match="lets no value of uint8 pass"):
        clean(np.zeros((1, 2, 2), np.uint8), None, clip=clip)


def test_fill_goes_band_by_band_and_valid_asks_every_band():
    pixels = np.ones((2, 1, 3), np.int16)
    bad = np.array([[[True, False, False]], [[False, True, False]]])
    found = clean(pixels, bad, fills=(7.0, 8.4))
    assert found.pixels.tolist() == [[[7, 1, 1]], [[1, 8, 1]]]
    assert found.valid.tolist() == [[False, False, True]]


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("uint8", 256), ("uint8", -1), ("int16", np.nan), ("float16", 1e6), ("float32", -1e39)],
)
def test_a_fill_that_does_not_fit_is_refused(dtype, fill):
    with pytest.raises(ValueError, match=f"does not fit {dtype}"):
        Cleaner(Clean(), ("a",), np.dtype(dtype), (fill,))
    Cleaner(Clean(), ("a",), np.dtype("float32"), (np.nan,))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_nothing_to_do_is_done_in_the_same_buffer(dtype):
    pixels = np.arange(24).reshape(2, 3, 4).astype(dtype)
    bad = np.zeros(pixels.shape, bool)
    for marks in (None, bad):
        found = clean(pixels, marks)
        assert found.pixels is pixels
        assert found.valid is None
        assert found.saturated == 0
    bad[0, 0, 0] = True
    found = clean(pixels, bad, clip=(3, 20), fills=(1, 1))
    assert found.pixels is pixels
    assert pixels[0, 0].tolist() == [1, 3, 3, 3]
    assert pixels[1, 2].tolist() == [20] * 4


def test_features_come_after_the_bands_and_from_clean_ones():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 2, (3, 200, 700)).astype(np.float32)
    pixels[0, 0, 0] = pixels[1, 0, 0] = 0  # 0 / 0
    bad = np.zeros(pixels.shape, bool)
    bad[0, 5] = bad[2, 6] = True
    pixels[0, 5] = np.nan
    a, b, c = np.clip(pixels, 0, 1)
    found = clean(
        pixels, bad, clip=(0, 1), features={"v": "ndvi(a, b)", "w": "where(c > 0.5, 7, b)"},
        fills=(-1, -2, -3, -4, -5),
    )  # fmt: skip
    no_v, no_w = bad[0].copy(), bad[2]
    no_v[0, 0] = True
    with np.errstate(invalid="ignore"):
        v = np.where(no_v, -4, (a - b) / (a + b))
    w = np.where(no_w, -5, np.where(c > 0.5, 7, b))
    np.testing.assert_allclose(found.pixels[3:], [v, w], rtol=1e-6)
    assert np.array_equal(found.pixels[0], np.where(bad[0], -1, a))
    assert np.array_equal(found.valid, ~(no_v | no_w))
    assert not bad[0, 0, 0]


@pytest.mark.parametrize("dtype", [None, "float16", "uint8"])
def test_features_of_integers(dtype):
    pixels = np.array([[[1, 2, 0]], [[4, 4, 0]]], np.uint16)
    found = clean(pixels, None, features={"q": "a / b * 100"}, dtype=dtype, fills=(0, 0, 9))
    assert found.pixels.dtype == (dtype or "float32")
    assert found.pixels.tolist() == [[[1, 2, 0]], [[4, 4, 0]], [[25, 50, 9]]]
    assert found.valid.tolist() == [[True, True, False]]
    assert pixels.tolist() == [[[1, 2, 0]], [[4, 4, 0]]]


def test_bands_and_features_go_by_name():
    config = Clean(features={"v": "ndvi(nir, red)"})
    assert output_bands(config, ("red", "nir")) == ("red", "nir", "v")
    for bad, reason in [
        ({"features": {"v": "nirr + red"}}, "features: v: .*'nirr': did you mean nir?"),
        ({"features": {"v": "v + red"}}, "no band 'v': there are red, nir"),
        ({"features": {"red": "nir"}}, "red is a band already"),
        ({"to_db": ("rad",)}, "to_db: .*did you mean red?"),
        ({"clip": {"x": (0, 1)}}, "clip: there is no band 'x': there are red, nir"),
    ]:
        with pytest.raises(ValueError, match=reason):
            output_bands(Clean(**bad), ("red", "nir"))


def test_dtype_is_as_configured_or_as_computed():
    assert output_dtype(Clean(), "int16") == np.int16
    assert output_dtype(Clean(clip=(0, 1)), "float64") == np.float64
    for computing in ({"to_db": True}, {"features": {"v": "a"}}, {"speckle": {}}):
        assert output_dtype(Clean(**computing), "int16") == np.float32
    assert output_dtype(Clean(to_db=True, dtype="float16"), "int16") == np.float16


def test_a_range_fills_an_integer_dtype():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-30, 0, (2, 300, 400)).astype(np.float32)
    pixels[0, 0, :5] = [-30, 0, -15, -31, 3]
    bad = np.zeros(pixels.shape, bool)
    bad[1, 0, :2], pixels[1, 0, :2] = True, [np.nan, 1e9]
    for dtype, least, greatest in (("uint8", 0, 255), ("int16", -32768, 32767)):
        found = clean(pixels.copy(), bad, dtype=dtype, range=(-30, 0), fills=(7, 8))
        line = (pixels.astype(np.float64) + 30) / 30 * (greatest - least) + least
        expected = np.where(bad, 8, np.clip(np.nan_to_num(line), least, greatest).round())
        assert found.pixels.dtype == dtype
        assert np.array_equal(found.pixels, expected.astype(dtype))
        assert found.pixels[0, 0, :2].tolist() == [least, greatest]
        assert found.saturated == 2
        assert np.array_equal(found.valid, ~bad[1])


def test_a_range_also_scales_what_has_its_dtype():
    found = clean(np.array([[[0, 50, 100, 200]]], np.uint8), None, dtype="uint8", range=(0, 100))
    assert found.pixels.tolist() == [[[0, 128, 255, 255]]]  # 127.5 to even
    assert found.saturated == 1


@pytest.mark.parametrize(
    ("dtype", "values", "stored", "saturated"),
    [
        ("uint8", [0.5, 1.5, 255.4, 256, -1], [0, 2, 255, 255, 0], 2),
        ("int16", [-32768.4, -32769, 1e9, 2.5, 0], [-32768, -32768, 32767, 2, 0], 2),
        ("float16", [65504, 65519, 65520, -1e30, 0.5], [65504, 65504, 65504, -65504, 0.5], 2),
    ],
)
def test_what_the_dtype_cannot_hold_is_clamped_and_counted(dtype, values, stored, saturated):
    pixels = np.array([[[*values, np.inf]]], np.float32)
    bad = ~np.isfinite(pixels)
    found = clean(pixels, bad, dtype=dtype, fills=(3,))
    assert found.pixels.dtype == dtype
    assert found.pixels[0, 0].tolist() == [*stored, 3]
    assert found.saturated == saturated


def test_float64_beyond_float32_is_counted_when_it_is_computed_with():
    found = clean(np.array([[[-1.7e308, 5]]]), None, features={"v": "a / 2"})
    assert found.saturated == 1
    assert found.pixels[1].tolist() == [[np.finfo(np.float32).min / 2, 2.5]]
    assert found.valid is None


def test_wider_dtypes_hold_everything():
    pixels = np.array([[[0, 255]]], np.uint8)
    found = Cleaner(Clean(), ("a",), np.dtype("uint16"), (0,))(pixels, None)
    assert found.pixels.dtype == np.uint16
    assert found.pixels.tolist() == [[[0, 255]]]


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_speckle_is_filtered_on_power_before_decibels(dtype):
    rng = np.random.default_rng(0)
    power = rng.gamma(4, 250, (2, 30, 40)).astype(dtype)
    power[:, 12, 7] = 0
    bad = np.zeros(power.shape, bool)
    bad[0, 20:22] = True
    config = {"speckle": {"size": 5, "looks": 4}, "to_db": ("a",), "fills": (-99, 0)}
    found = clean(power.copy(), bad, **config)
    none = bad[0] | (power[0] == 0)
    smooth = lee(power[0].astype(np.float32), none, 5, 4)
    with np.errstate(divide="ignore"):
        expected = np.where(none, -99, 10 * np.log10(smooth))
    np.testing.assert_allclose(found.pixels[0], expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(found.pixels[1], power[1])  # no power, no speckle
    assert np.array_equal(found.valid, ~none)


@pytest.mark.parametrize("features", [{}, {"r": "a / b"}])
@pytest.mark.parametrize("stored", [None, "float16", "uint8"])
def test_windows_with_margins_give_what_the_whole_gives(features, stored):
    rng = np.random.default_rng(0)
    power = rng.gamma(4, 20, (2, 60, 50)).astype(np.float32)
    bad = rng.random(power.shape) < 0.1
    config = Clean(speckle={"size": 7, "looks": 4}, clip=(2, 200), features=features, dtype=stored)
    fills = (1, 2, 3)[: 2 + len(features)]
    cleaner = Cleaner(config, ("a", "b"), output_dtype(config, power.dtype), fills)
    assert cleaner.margin == 3
    assert Cleaner(Clean(), ("a",), np.dtype("f4"), (0,)).margin == 0
    whole = cleaner(power.copy(), bad)
    part = np.s_[:, 17:43, 0:33]  # rows 20 to 40, columns 0 to 30: the left is the scene's edge
    found = pickle.loads(pickle.dumps(cleaner))(power[part].copy(), bad[part], (3, 3, 0, 3))
    assert found.pixels.shape == (2 + len(features), 20, 30)
    assert np.array_equal(found.pixels, whole.pixels[:, 20:40, 0:30])
    assert np.array_equal(found.valid, whole.valid[20:40, 0:30])


def test_sums_of_what_is_valid_in_each_band():
    pixels = np.array([[[1, 2, 3]], [[4, 5, 250]], [[1, 1, 1]]], np.uint8)
    bad = np.array([[[True, False, False]], [[False] * 3], [[True] * 3]])
    cleaner = Cleaner(Clean(), ("a", "b", "c"), np.dtype("uint8"), (0, 0, 0))
    stored, marks, _ = cleaner.unfilled(pixels, bad)
    for given in (marks, bad):
        sums, counts = band_sums(stored, given)
        assert sums.tolist() == [5, 259, 0]
        assert counts.tolist() == [2, 3, 0]
        assert (sums.dtype, counts.dtype) == (np.float64, np.int64)
    assert band_sums(pixels, None)[1].tolist() == [3, 3, 3]
    power = np.array([[[10, 0, np.nan]]], np.float32)
    stored, marks, _ = Cleaner(Clean(to_db=True), ("a",), np.dtype("f4"), (0,)).unfilled(
        power, np.isnan(power)
    )
    assert [x.tolist() for x in band_sums(stored, marks)] == [[10], [1]]

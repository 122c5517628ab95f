"""Expressions, against the same thing said in numpy; and what must not be one."""

import dataclasses
import pickle
import time

import numpy as np
import pytest

from scenefeed.transforms.expressions import Expression

rng = np.random.default_rng(3)
A, B = (rng.normal(size=(4, 5)).astype(np.float32) for _ in "ab")
C = np.array([[0, np.nan, 1, -2, np.inf]] * 4, np.float32)
BANDS = {"a": A, "b": B, "c": C, "Band 1": A * 3, "8": B}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", lambda: A),
        ("a + b * 2 - -b / +3", lambda: A + B * 2 - -B / 3),
        ("a ** 2", lambda: A**2),
        ("2 ** a ** 2", lambda: 2 ** (A**2)),
        ("ndvi(a, b)", lambda: (A - B) / (A + B)),
        ("normalized_difference(a, b)", lambda: (A - B) / (A + B)),
        ("min(a, b, 0)", lambda: np.minimum(np.minimum(A, B), 0)),
        ("max(a, b)", lambda: np.maximum(A, B)),
        ("abs(a)", lambda: abs(A)),
        ("sqrt(a)", lambda: np.sqrt(A)),
        ("exp(a) + log(b) + log10(b)", lambda: np.exp(A) + np.log(B) + np.log10(B)),
        ("where(a > b, a, 0.5)", lambda: np.where(A > B, A, 0.5)),
        ("where(1, 2, a)", lambda: np.full_like(A, 2)),
        ("clip(a, -0.5, b)", lambda: np.minimum(np.maximum(A, -0.5), B)),
        ("isfinite(c)", lambda: np.isfinite(C)),
        ("(a > b) + (a > 0)", lambda: (A > B).astype(int) + (A > 0)),
        ("-1 < a <= b != 0", lambda: (A > -1) & (A <= B) & (B != 0)),
        ("a > 0 and b > 0 and 1 or not b < 1", lambda: ((A > 0) & (B > 0)) | ~(B < 1)),
        ("a >= 0 or a == b", lambda: (A >= 0) | (A == B)),
        ("c > 0", lambda: np.array([[0, 0, 1, 0, 1]] * 4)),
        ("1 / c", lambda: [[np.inf, np.nan, 1, -0.5, 0]] * 4),
        ("`Band 1` / `8` + 1_0", lambda: A * 3 / B + 10),
        ("  a\n  + b ", lambda: A + B),
        ("0 * a + 9 ** 9 ** 9", lambda: np.full_like(A, np.inf)),
    ],
)
def test_same_as_numpy(text, expected):
    found = Expression(text)(BANDS)
    assert found.dtype == np.float32
    assert found.shape == A.shape
    with np.errstate(all="ignore"):
        wanted = expected()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_names_its_bands_and_leaves_them_alone():
    expression = Expression("where(red > 0, `Band 1`, nir)")
    assert expression.bands == {"red", "Band 1", "nir"}
    band = np.ones((2, 2), np.float32)
    found = Expression("a")({"a": band})
    found[:] = 5
    assert band.tolist() == [[1, 1], [1, 1]]
    with pytest.raises(dataclasses.FrozenInstanceError):
        expression.text = "a"


@pytest.mark.parametrize("text", ["ndvi(a, b) > 0.3", "-1 < a <= b", "a and b or `8`", "min(a, b)"])
def test_pickles(text):
    expression = Expression(text)
    again = pickle.loads(pickle.dumps(expression))
    assert again == expression
    assert np.array_equal(again(BANDS), expression(BANDS))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("__import__('os').system('true')", "without quotes"),
        ("__import__(a)", "no function"),
        ("().__class__", "`attribute` is not allowed"),
        ("a.dtype", "`attribute` is not allowed"),
        ("a[0]", "'\\[' is not allowed"),
        ("lambda: a", "':' is not allowed"),
        ("[x for x in a]", "not allowed"),
        ("min(x for x in a)", "at least 2"),
        ("max(a, (x for x in b))", "`generator exp` is not allowed"),
        ("(a := 1)", "not allowed"),
        ("{a}", "not allowed"),
        ("f'{a}'", "not allowed"),
        ("a if b else 0", r"write where\("),
        ("a & b", "write `and`"),
        ("a % b", "no remainder"),
        ("a // b", "`floor div` is not allowed"),
        ("a in b", "`in` is not allowed"),
        ("a, b", "`tuple` is not allowed"),
        ("a # b", "backticks"),
        ("`a", "in pairs"),
        ("a + True", "True is not a number"),
        ("a + None", "None is not a number"),
        ("a + ...", "Ellipsis is not a number"),
        ("a + 1j", "1j is not a number"),
        ("a + 1e39", "float32 cannot hold"),
        ("a + " + "9" * 900, "float32 cannot hold"),
        ("clip(a, hi=1)", "without names"),
        ("clip(*a)", "takes 3 values, not 1"),
        ("abs(*a)", "`starred` is not allowed"),
        ("sqrt(a, b)", "takes 1 values, not 2"),
        ("sqrt()(a)", "only a function's name"),
        ("`sqrt`(a)", "only a function's name"),
        ("NDVI(a, b)", "did you mean ndvi?"),
        ("sqr(a)", "did you mean sqrt?"),
        ("zzz(a)", "there are min, max"),
        ("a +", "not a valid expression"),
        ("a b", "not a valid expression"),
        ("`a``b`", "not a valid expression"),
        ("a\0", "not allowed"),
        ("1 + 2", "names no band"),
        ("  ", "empty"),
        ("a + " * 300 + "a", "1201 characters"),
        ("-" * 900 + "a", "deep"),
        ("not " * 245 + "a", "deep"),
        ("(" * 499 + "a" + ")" * 499, "not a valid expression"),
        ("(" * 999, "not a valid expression"),
        ("a" + "+a" * 300, "deep"),
    ],
)
def test_refuses_in_one_helpful_line_and_at_once(text, reason):
    began = time.perf_counter()
    with pytest.raises(ValueError, match=reason) as error:
        Expression(text)
    assert time.perf_counter() - began < 1
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    "text",
    ["9 ** " * 150 + "a", "(0<" * 120 + "a" + "<1)" * 120, "a<" * 480 + "a", "a" + "+a" * 190],
)
def test_what_looks_costly_is_not(text):
    began = time.perf_counter()
    found = Expression(text)({"a": np.ones((2, 2), np.float32)})
    assert found.shape == (2, 2)
    assert time.perf_counter() - began < 1

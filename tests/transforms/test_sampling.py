"""Sampling: classes of patches, rates, and which patches are kept."""

import numpy as np
import pytest
from scipy import stats

from scenefeed.transforms.sampling import class_counts, keep_rates, patch_classes, selected
from scenefeed.transforms.sections import Sample

NAMES = ["train", "val"]
RNG = np.random.default_rng(0)


def corners(count, across=100):
    return np.arange(count) // across * 64, np.arange(count) % across * 64


def keep(sample, count=10000, *, splits=None, classes=None, rates=None, scene="s", seed=0,
         order=None):  # fmt: skip
    rows, cols = corners(count)
    splits = np.zeros(count, int) if splits is None else splits
    order = np.arange(count) if order is None else order
    classes = None if classes is None else classes[order]
    return selected(
        Sample(**sample), seed, scene, rows[order], cols[order], splits[order], NAMES, classes, rates
    )  # fmt: skip


# Classes


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32"])
@pytest.mark.parametrize(("values", "ignore"), [(4, ()), (4, (0, 2)), (3, (0, 1, 2)), (100, (7,))])
def test_a_mask_is_of_its_most_frequent_class(dtype, values, ignore):
    masks = RNG.integers(0, values, (60, 5, 5)).astype(dtype)
    expected = [
        int(stats.mode(kept).mode) if len(kept := m[~np.isin(m, ignore)]) else -1 for m in masks
    ]
    found = patch_classes(masks, ignore)
    assert found.tolist() == expected  # scipy, too, takes the smallest of several
    assert found.dtype == np.int64


def test_identifiers_of_a_wide_range_and_many_patches_are_counted_alike(monkeypatch):
    masks = RNG.choice(np.array([-5, 3, 70_000, 2**40]), (200, 4, 4))
    expected = [int(stats.mode(m, axis=None).mode) for m in masks]
    assert patch_classes(masks, ()).tolist() == expected
    small = RNG.integers(-3, 3, (200, 4, 4))
    whole = patch_classes(small, (0,))
    monkeypatch.setattr("scenefeed.transforms.sampling._CHUNK", 50)
    assert (patch_classes(small, (0,)) == whole).all()
    assert patch_classes(masks, ()).tolist() == expected


def test_what_is_no_class():
    masks = np.full((3, 2, 2), np.nan, "float32")
    masks[1, 0, 0], masks[2] = 5, -1
    assert patch_classes(masks, ()).tolist() == [-1, 5, -1]
    assert patch_classes(np.array([3, -1, 0, 255], "int16"), (255,)).tolist() == [3, -1, 0, -1]
    assert patch_classes(np.zeros((0, 8, 8), "uint8"), ()).shape == (0,)


# Rates


def test_counts_are_per_split_and_class():
    classes, splits = np.array([0, 0, 1, -1, 1, 5]), np.array([0, 1, 0, 0, 0, -1])
    assert class_counts(classes, splits, NAMES) == {"train": {0: 1, 1: 2}, "val": {0: 1}}


def test_the_scarcest_class_is_kept_whole():
    counts = {"train": {0: 900, 1: 100, 2: 50, 9: 7}, "val": {0: 10}, "none": {}}
    rates = keep_rates(counts, {0: 2, 1: 1, 2: 1, 3: 4})
    assert rates["train"] == pytest.approx({0: 100 / 900, 1: 0.5, 2: 1, 9: 0})
    assert rates["val"] == {0: 1}
    assert rates["none"] == {}
    assert keep_rates({"train": {0: 5, 1: 5}}, {0: 0, 1: 3}) == {"train": {0: 0, 1: 1}}


# Selection


def test_nothing_asked_keeps_all_that_is_in_a_split():
    splits = RNG.integers(-1, 2, 1000)
    assert (keep({}, 1000, splits=splits) == (splits >= 0)).all()


def test_fraction_is_the_share_that_is_kept():
    found = keep({"fraction": 0.3})
    assert found.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 10000))
    assert (keep({"fraction": 0.5}) >= found).all()  # a larger share keeps what a smaller one does
    assert (keep({"fraction": 0.3}, seed=1) != found).any()
    assert (keep({"fraction": 0.3}, scene="t") != found).any()


def test_ratios_are_exact_on_one_scene():
    classes = RNG.choice(4, 10000, p=[0.8, 0.1, 0.06, 0.04])
    splits = RNG.choice(2, 10000, p=[0.7, 0.3])
    counts = class_counts(classes, splits, NAMES)
    rates = keep_rates(counts, {0: 2, 1: 1, 2: 1})
    found = keep({}, splits=splits, classes=classes, rates=rates)
    for split, kept in class_counts(classes[found], splits[found], NAMES).items():
        assert kept == {0: 2 * counts[split][2], 1: counts[split][2], 2: counts[split][2]}


def test_balance_is_unbiased_over_many_small_scenes():
    classes = {f"s{i}": RNG.choice(2, 9, p=[0.8, 0.2]) for i in range(500)}
    splits = np.zeros(9, int)
    total = np.bincount(np.concatenate(list(classes.values())))
    rates = keep_rates({"train": dict(enumerate(total.tolist()))}, {0: 1, 1: 1})
    kept = np.zeros(2)
    for scene, own in classes.items():
        found = keep({}, 9, splits=splits, classes=own, rates=rates, scene=scene)
        kept += np.bincount(own[found], minlength=2)
    assert kept[1] == total[1]
    # Each scene's rounding has a variance of 1/4 at most: three standard deviations.
    assert abs(kept[0] - total[1]) < 3 * np.sqrt(500 / 4)


def test_a_patch_without_a_class_is_not_balanced():
    classes = np.array([-1, 0, 0, 7])
    found = keep({}, 4, classes=classes, rates={"train": {0: 1.0}})
    assert found.tolist() == [False, True, True, False]


def test_a_scene_gives_no_more_than_its_cap():
    splits = RNG.integers(-1, 2, 10000)
    found = keep({"per_scene": 100}, splits=splits)
    assert found.sum() == 100
    assert (splits[found] >= 0).all()
    assert keep({"per_scene": 100}, 40).sum() == 40
    both = keep({"per_scene": 100, "fraction": 0.1}, splits=splits)
    assert both.sum() == 100
    assert (keep({"fraction": 0.1}, splits=splits) >= both).all()


def test_splits_that_are_not_named_stay_whole():
    splits, classes = RNG.integers(-1, 2, 10000), RNG.integers(0, 2, 10000)
    rates = keep_rates(class_counts(classes, splits, NAMES), {0: 1, 1: 4})
    found = keep({"fraction": 0.5, "per_scene": 90, "splits": ["train"]},
                 splits=splits, classes=classes, rates=rates)  # fmt: skip
    assert found[splits == 1].all()
    assert found[splits == 0].sum() == 90
    assert not found[splits == -1].any()


def test_order_does_not_show():
    splits, classes = RNG.integers(-1, 2, 3000), RNG.integers(0, 3, 3000)
    rates = {"train": {0: 0.3, 1: 1.0, 2: 0.5}, "val": {1: 0.17}}
    sample, order = {"fraction": 0.8, "per_scene": 333}, RNG.permutation(3000)
    more = {"splits": splits, "classes": classes, "rates": rates}
    assert (keep(sample, 3000, **more)[order] == keep(sample, 3000, order=order, **more)).all()

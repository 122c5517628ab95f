"""Orders are permutations, look random, and deal records out without loss."""

import numpy as np
import pytest

from scenefeed.loader import DatasetError
from scenefeed.loader.order import SORTED, Group, Order, Share, shuffled, uniform


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000, SORTED, SORTED + 1, 65536, 100_003])
def test_every_number_comes_once(count):
    found = shuffled(np.arange(count), count, 3, 1)
    assert np.array_equal(np.sort(found), np.arange(count))


def test_parts_are_parts_of_the_whole():
    whole = shuffled(np.arange(50_000), 50_000, 0, 0)
    parts = [
        shuffled(np.arange(i, min(i + 777, 50_000)), 50_000, 0, 0) for i in range(0, 50_000, 777)
    ]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("count", [5000, 40_000])
def test_it_looks_random(count):
    """Against what a uniform permutation would give: neighbours, places, seeds and epochs."""
    at = np.arange(count)
    found = shuffled(at, count, 1, 0)
    assert abs(np.corrcoef(at, found)[0, 1]) < 5 / np.sqrt(count)
    step = np.abs(np.diff(found)).mean() / (count / 3)
    assert abs(step - 1) < 5 / np.sqrt(count)
    # Where 1/16 of the positions go: a chi-square with 15 degrees of freedom.
    counts = np.bincount(found[: count // 16] * 16 // count, minlength=16)
    expected = count / 256
    assert ((counts - expected) ** 2 / expected).sum() < 45
    for other in (shuffled(at, count, 1, 1), shuffled(at, count, 2, 0)):
        assert (found == other).sum() < 10
    # A third permutation's pairs: bits of neighbours are not tied.
    assert abs((found % 2)[1:] @ (found % 2)[:-1] / count - 0.25) < 5 / np.sqrt(count)


def test_draws_belong_to_positions():
    whole = uniform(0, 1, 2, np.arange(100_000), 3)
    assert np.array_equal(uniform(0, 1, 2, np.arange(500, 600), 3), whole[500:600])
    assert whole.min() >= 0
    assert whole.max() < 1
    assert abs(whole.mean(axis=0) - 0.5).max() < 0.01
    assert abs(np.corrcoef(whole.T) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize(("count", "batch"), [(100, 7), (96, 8), (5, 8), (1000, 1)])
def test_shares_deal_out_every_position_once(count, batch, workers, drop):
    seen = []
    steps = []
    for i in range(workers):
        share = Share(batch, i, workers, drop)
        steps.append(share.steps(count))
        parts = [share.positions(count, 0, k) for k in range(steps[-1])]
        assert all(len(p) for p in parts)
        assert not drop or all(len(p) == batch for p in parts)
        seen += [x for p in parts for x in p.tolist()]
    assert len(set(seen)) == len(seen)
    if drop:
        assert len(set(steps)) == 1
        assert len(seen) == count // (batch * workers) * batch * workers
    else:
        assert sorted(seen) == list(range(count))


def test_the_rest_is_dealt_out_anew_on_other_workers():
    first = [Share(8, i, 3).positions(1000, 0, k) for k in range(5) for i in range(3)]
    done = Share(8, 0, 3).after(1000, 0, 4)
    rest = []
    for i in range(4):
        share = Share(16, i, 4)
        rest += [share.positions(1000, done, k) for k in range(share.steps(1000, done))]
    assert sorted(np.concatenate(first + rest).tolist()) == list(range(1000))


def test_shares_of_several_groups():
    order = Order(
        [Group(100), Group(1000, first=100), Group(10, first=1100)], [0.5, 0.3, 0.2], True, 0
    )
    assert order.count == 1110
    for start in (0, 200, 1000):  # every stretch holds them by their shares
        part = order.records(0, np.arange(start, start + 100))
        assert abs((part < 100).sum() - 50) <= 1
        assert abs((part >= 1100).sum() - 20) <= 1
    both = np.concatenate([order.records(e, np.arange(1110)) for e in (0, 1)])
    large = both[(both >= 100) & (both < 1100)]
    assert len(large) == 666  # of 1000: none again before all came
    assert len(set(large.tolist())) == 666
    small = both[both < 100]
    counts = np.bincount(small, minlength=100)
    assert counts.max() - counts.min() <= 1


def test_records_that_do_not_follow_each_other():
    chosen = np.array([5, 9, 11])
    order = Order([Group(3, chosen=chosen)], None, False, 0)
    assert order.records(4, np.arange(3)).tolist() == [5, 9, 11]


def test_bad_shares_are_refused():
    with pytest.raises(DatasetError, match="batch_size 0"):
        Share(0)
    with pytest.raises(DatasetError, match=r"\(2, 2\)"):
        Share(8, 2, 2)

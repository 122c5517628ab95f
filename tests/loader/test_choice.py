"""Which records a feed draws: balanced classes, mixed datasets, many shards."""

import os
import time

import numpy as np
import pytest

from scenefeed.loader import DatasetError, Feed, Reader, load, mix
from tests.loader.datasets import write_dataset

KINDS = np.array([0] * 900 + [1] * 90 + [2] * 9 + [-1])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("kinds") / "out", KINDS, shards=7)


def rows(batches):
    return np.concatenate([b["row"] for b in batches])


def test_balanced_resampling(out):
    found = list(Feed(out, batch_size=99, resample="balanced"))
    assert len(rows(found)) == 999
    for b in found[:-1]:
        assert abs(np.bincount(b["kind"], minlength=3) - 33).max() <= 1
    ice = rows(found)[np.concatenate([b["kind"] for b in found]) == 0]
    assert len(set(ice.tolist())) == len(ice)  # no repetition before all came
    rare = rows(found)[np.concatenate([b["kind"] for b in found]) == 2]
    assert np.ptp(np.bincount(rare - 990, minlength=9)) <= 1


def test_shares_by_name_and_filter_together(out):
    feed = Feed(
        out, batch_size=100, resample={"ship": 3, "ice": 1}, where=lambda x: x["depth"] < 475
    )
    found = np.concatenate([b["kind"] for b in feed])
    assert abs((found == 1).mean() - 0.75) < 0.01
    assert rows(feed).max() < 950
    with pytest.raises(DatasetError, match="no class 'boat': ice, ship, sea"):
        Feed(out, resample={"boat": 1})
    with pytest.raises(DatasetError, match="no record has class 7"):
        Feed(out, resample={7: 1})


def test_balanced_class_weights(out):
    image, kind, weight = next(iter(Feed(out, as_supervised=True, class_weights="balanced")))
    expected = {i: 999 / (3 * (kind == i).sum()) for i in range(3)} | {-1: 0}
    assert np.allclose(weight, [expected[k] for k in kind.tolist()])
    assert len(image) == 1000
    by_tensorflow = next(iter(load(out, as_supervised=True, class_weights="balanced")))
    assert np.allclose(by_tensorflow[2].numpy(), weight)


def test_mix_of_datasets(tmp_path):
    a = write_dataset(tmp_path / "a", np.zeros(500, int), name="a")
    b = write_dataset(tmp_path / "b", np.zeros(100, int), shards=2, name="b", first=500)
    feed = mix([a, b], [1, 3], batch_size=40)
    found = [{k: v.numpy() for k, v in x.items()} for x in feed]
    assert len(found) == 15
    for x in found:
        assert (x["scene_id"] == b"b").sum() == 30
        assert np.array_equal(x["image"][:, 0, 0, 0], x["row"])
    ours = list(Feed([a, b], weights=[1, 3], batch_size=40))
    for x, y in zip(found, ours, strict=True):
        assert np.array_equal(x["row"], y["row"])
    of_b = rows(ours)[rows(ours) >= 500]
    assert np.ptp(np.bincount(of_b - 500)) <= 1
    state = {**feed.state_dict(), "epoch": 0, "records": 80}
    feed.load_state_dict(state)
    assert np.array_equal(next(iter(feed))["row"].numpy(), ours[2]["row"])
    with pytest.raises(DatasetError, match="above 0"):
        mix([a, b], [0, -1])


def test_datasets_that_differ_are_refused(small_dataset, out):
    with pytest.raises(DatasetError, match="cannot be fed together"):
        Feed([out, small_dataset / "out"])


def test_text_and_numbers_of_every_record(out):
    reader = Reader(out)
    found = reader.columns(["row", "kind", "depth", "scene_id"])
    assert np.array_equal(found["row"], np.arange(1000))
    assert np.array_equal(found["kind"], KINDS)
    assert np.array_equal(found["depth"], np.arange(1000) / 2)
    assert set(found["scene_id"]) == {"made"}


def test_a_thousand_shards(tmp_path):
    """Open files stay within the process's limit, and every record is found."""
    out = write_dataset(tmp_path / "out", np.zeros(3000, int), shards=1000)
    start = time.perf_counter()
    feed = Feed(out, batch_size=512)
    first = next(iter(feed))
    print(f"first batch after {time.perf_counter() - start:.2f} s")
    assert len(first["row"]) == 512
    assert sorted(rows(feed).tolist()) == list(range(3000))
    assert len(os.listdir("/proc/self/fd")) >= 1000
    tensors = load(out, batch_size=512)
    assert sorted(int(r) for b in tensors for r in b["row"]) == list(range(3000))
    streamed = load(out, batch_size=512, source="stream")
    assert sorted(int(r) for b in streamed for r in b["row"]) == list(range(3000))


def test_the_index_costs_nothing_where_records_have_one_size(tmp_path):
    out = write_dataset(tmp_path / "out", np.zeros(100, int))  # rows below 128: one byte each
    assert Reader(out)._index._bent is None
    more = write_dataset(tmp_path / "more", np.zeros(1000, int))
    assert Reader(more)._index._bent.dtype.itemsize <= 2

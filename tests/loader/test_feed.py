"""The NumPy feed: order, state, shaping, workers, damage; against the records themselves."""

import itertools
import json
import pickle
import shutil
import threading
import time

import numpy as np
import pytest

from scenefeed.loader import DatasetError, Feed, Reader
from scenefeed.loader.stream import mixed


@pytest.fixture(scope="module")
def out(small_dataset):
    return small_dataset / "out"


def keys(batches):
    return [k for b in batches for k in zip(b["scene_id"], b["row"], b["col"], strict=True)]


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def test_an_epoch_is_every_record_once_and_epochs_differ(out):
    feed, reader = Feed(out, batch_size=5, seed=7), Reader(out)
    first, second = keys(feed), keys(feed)
    assert len(feed) == -(-len(reader) // 5)
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(first)) == len(reader)
    assert keys(Feed(out, batch_size=5, seed=7)) == first
    assert keys(Feed(out, batch_size=5, seed=8)) != first
    by_key = {
        (r["scene_id"], r["row"], r["col"]): r for r in map(reader.__getitem__, range(len(reader)))
    }
    for batch in feed:
        for i, key in enumerate(keys([batch])):
            assert np.array_equal(batch["image"][i], by_key[key]["image"])
            assert np.array_equal(batch["water"][i], by_key[key]["water"])


def test_without_shuffle_the_order_is_the_shards(out):
    reader = Reader(out)
    same(next(iter(Feed(out, batch_size=4, shuffle=False))), reader.batch(range(4)))


@pytest.mark.parametrize("stop", [0, 1, 3])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_state_gives_the_remaining_batches(out, stop, prefetch):
    feed = Feed(out, batch_size=4, seed=3, prefetch=prefetch, augment=True)
    list(feed)
    whole = list(feed)  # epoch 1
    again = Feed(out, batch_size=4, seed=3, augment=True)
    list(again)
    passing = iter(again)
    for _ in range(stop):
        next(passing)
    state = json.loads(json.dumps(again.state_dict()))
    passing.close()
    third = Feed(out, batch_size=4, seed=3, augment=True)
    third.load_state_dict(state)
    assert third.state_dict() == state
    rest = list(third)
    for a, b in zip(whole[stop:], rest, strict=True):
        same(a, b)
    following = keys(feed)
    state = third.state_dict()
    assert keys(third) == following  # and so is epoch 2
    third.load_state_dict(state)  # a state at an epoch's end
    assert keys(third) == following


@pytest.mark.parametrize(("before", "after", "batch"), [(1, 3, 4), (2, 1, 4), (3, 2, 2)])
def test_a_state_goes_on_with_other_workers(out, before, after, batch):
    def feeds(n, size):
        return [Feed(out, batch_size=size, seed=1, shard=(i, n), augment=True) for i in range(n)]

    expected = {}
    for b in Feed(out, batch_size=1, seed=1, augment=True):
        expected[keys([b])[0]] = b["image"][0]
    first = [(f, iter(f)) for f in feeds(before, 2)]
    seen = [next(it) for _, it in first for _ in range(2)]
    states = [f.state_dict() for f, _ in first]
    assert all(s == states[0] for s in states)
    rest = []
    for feed in feeds(after, batch):
        feed.load_state_dict(states[0])
        rest += list(feed)
    assert sorted(keys(seen) + keys(rest)) == sorted(expected)
    for b in seen + rest:
        for image, key in zip(b["image"], keys([b]), strict=True):
            assert np.array_equal(image, expected[key])


def test_workers_get_every_record_once_or_equal_steps(out):
    n = len(Reader(out))
    parts = [keys(Feed(out, batch_size=2, shard=(i, 3))) for i in range(3)]
    assert sorted(k for p in parts for k in p) == sorted(keys(Feed(out)))
    even = [list(Feed(out, batch_size=2, shard=(i, 3), drop_remainder=True)) for i in range(3)]
    assert [len(p) for p in even] == [n // 6] * 3
    assert all(len(b["row"]) == 2 for p in even for b in p)


def test_repeat(out):
    feed = Feed(out, batch_size=4, repeat=3)
    assert len(keys(feed)) == 3 * len(Reader(out))
    assert len(feed) == 3 * -(-len(Reader(out)) // 4)
    endless, before = Feed(out, batch_size=4, repeat=True), threading.active_count()
    with pytest.raises(TypeError):
        len(endless)
    passing = iter(endless)
    assert len([next(passing) for _ in range(40)]) == 40
    passing.close()
    assert threading.active_count() <= before


def test_a_state_of_another_feed_is_refused(out):
    feed = Feed(out, batch_size=4)
    state = feed.state_dict()
    with pytest.raises(DatasetError, match="seed 0, here 1"):
        Feed(out, batch_size=4, seed=1).load_state_dict(state)
    with pytest.raises(DatasetError, match="split"):
        Feed(out, "val", batch_size=4).load_state_dict(state)
    with pytest.raises(DatasetError, match="no state"):
        feed.load_state_dict({})


def test_where_keeps_records(out):
    found = keys(Feed(out, batch_size=4, where=lambda x: x["row"] < 32))
    assert sorted(found) == sorted(k for k in keys(Feed(out)) if k[1] < 32)
    assert 0 < len(found) < len(Reader(out))
    with pytest.raises(DatasetError, match="no record is kept"):
        Feed(out, where=lambda x: x["row"] < 0)
    with pytest.raises(DatasetError, match="one boolean for each"):
        Feed(out, where=lambda x: x["row"])


def test_shaping(out):
    plain = {k: b["image"][i] for b in Feed(out) for i, k in enumerate(keys([b]))}
    masks = {k: b["water"][i] for b in Feed(out) for i, k in enumerate(keys([b]))}
    mean, std = [0.5, -1], [2, 3]
    (batch,) = Feed(out, normalize={"mean": mean, "std": std}, dtype="float16")
    assert batch["image"].dtype == np.float16
    for i, key in enumerate(keys([batch])):
        np.testing.assert_allclose(batch["image"][i], (plain[key] - mean) / std, atol=2e-3)
    (batch,) = Feed(out, augment={"flip": True, "turn": True, "crop": 8})
    assert batch["image"].shape[1:] == (8, 8, 2)
    for i, key in enumerate(keys([batch])):
        assert _windows(batch["image"][i], plain[key]) & _windows(batch["water"][i], masks[key])
    image, label, weight = next(iter(Feed(out, as_supervised=True, class_weights={0: 2.0, 1: 0.5})))
    assert np.array_equal(weight, np.choose(label, [2.0, 0.5, 0.0]))  # 2 is ignored
    assert image.shape[0] == len(label)
    doubled = next(iter(Feed(out, shuffle=False, map=lambda b: b["image"] * 2)))
    assert np.array_equal(doubled, Reader(out).batch(range(len(Reader(out))))["image"] * 2)


def _windows(found, whole):
    """Each (top, left, symmetry) by which ``found`` is a window of ``whole``."""
    size = len(found)
    at = set()
    for symmetry in range(8):
        back = np.rot90(found, symmetry % 4)
        back = back.swapaxes(0, 1) if symmetry > 3 else back
        for top in range(len(whole) - size + 1):
            for left in range(len(whole) - size + 1):
                if np.array_equal(whole[top : top + size, left : left + size], back):
                    at.add((top, left, symmetry))
    return at


@pytest.mark.parametrize(
    ("augment", "count"), [({"flip": True}, 4), ({"turn": True}, 4), (True, 8)]
)
def test_each_symmetry_is_drawn_equally(out, augment, count):
    source = Feed(out, shuffle=False, augment=augment, repeat=200)
    plain = Reader(out).batch(range(len(Reader(out))))["image"]
    found = {}
    for batch in source:
        for image, whole in zip(batch["image"], plain, strict=True):
            (how,) = _windows(image, whole)
            found[how] = found.get(how, 0) + 1
    total = sum(found.values())
    assert len(found) == count
    for n in found.values():
        assert abs(n - total / count) < 5 * np.sqrt(total / count)


def test_options_that_do_not_fit_are_refused(out):
    for options, words in [
        ({"batch": 4}, "did you mean 'batch_size'"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"shard": 3}, r"give \(i, n\)"),
        ({"dtype": "float8"}, "float16, bfloat16, float32"),
        ({"augment": {"crop": 17}}, "crop of"),
        ({"augment": {"rotate": 3}}, "no 'rotate'"),
        ({"normalize": {"mean": 1}}, "'std'"),
        ({"normalize": {"mean": 1, "std": 0}}, "above 0"),
        ({"on_error": "ignore"}, "'raise' or 'skip'"),
        ({"checksums": "some"}, "first, always, never"),
        ({"resample": "balanced"}, "labels with classes here: none"),
        ({"class_weights": "balanced"}, "class label"),
        ({"features": ["row"], "dtype": "float32"}, "need 'image'"),
        ({"batch_size": 1000, "drop_remainder": True}, "fewer than a batch"),
    ]:
        with pytest.raises((DatasetError, TypeError), match=words):
            Feed(out, **options)


@pytest.fixture
def damaged(out, tmp_path):
    """A byte of a pixel in the second record of the second shard is flipped."""
    shutil.copytree(out, tmp_path / "out")
    shard = "records/train-00001-of-00003.tfrecord"
    data = bytearray((tmp_path / "out" / shard).read_bytes())
    lines = (out / shard.replace(".tfrecord", ".idx")).read_text().splitlines()
    offset, length = map(int, lines[1].split())
    data[offset + length // 2] ^= 1
    (tmp_path / "out" / shard).write_bytes(data)
    return tmp_path / "out", offset


def test_damage_is_named_or_skipped(out, damaged):
    folder, offset = damaged
    with pytest.raises(
        DatasetError,
        match=rf"train-00001-of-00003.tfrecord: record \d+ at byte {offset}: .*checksum",
    ):
        list(Feed(folder, batch_size=4))
    feed = Feed(folder, batch_size=4, on_error="skip")
    for _ in range(2):
        found = keys(feed)
        assert len(set(found)) == len(found) == len(Reader(out)) - 1
    assert feed.stats()["skipped"] == 2
    whole = list(Feed(folder, batch_size=4, on_error="skip", drop_remainder=True))
    assert all(len(b["row"]) == 4 for b in whole)
    assert len(keys(Feed(folder, batch_size=4, checksums="never"))) == len(Reader(out))


def test_a_cache_reads_gzip_by_index(small_dataset, gzipped_dataset, tmp_path):
    plain, out = small_dataset / "out", gzipped_dataset
    for cache in ("memory", tmp_path / "cache"):
        for _ in range(2):
            assert keys(Feed(out, batch_size=4, cache=cache)) == keys(Feed(plain, batch_size=4))
    copies = sorted(p.name for p in (tmp_path / "cache").rglob("*.tfrecord"))
    assert copies == [f"train-0000{i}-of-00003.tfrecord" for i in range(3)]
    assert not list((tmp_path / "cache").rglob("tmp*"))
    assert sorted(keys(Feed(out, batch_size=4))) == sorted(keys(Feed(plain)))  # as a stream
    with pytest.raises(DatasetError, match="cache='memory'"):
        Feed(out, source="index")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 2)])
def test_a_stream_goes_on_with_other_workers(gzipped_dataset, before, after):
    def feed(i, n):
        return Feed(
            gzipped_dataset, batch_size=2, seed=1, shard=(i, n), augment=True, shuffle_bytes=9000
        )

    every = sorted(keys(feed(0, 1)))
    first = [feed(i, before) for i in range(before)]
    seen = [next(iter(f)) for f in first]
    state = first[0].state_dict()
    assert all(f.state_dict() == state for f in first)
    rest = []
    for i in range(after):
        again = feed(i, after)
        again.load_state_dict(state)
        rest += list(again)
    assert sorted(keys(seen) + keys(rest)) == every


def test_a_stream_goes_on_where_it_stopped(gzipped_dataset):
    feed = Feed(gzipped_dataset, batch_size=4, seed=1, augment=True)
    whole = [list(feed) for _ in range(3)]
    assert keys(whole[0]) != keys(whole[1])
    assert sorted(keys(whole[0])) == sorted(keys(whole[1]))
    again = Feed(gzipped_dataset, batch_size=4, seed=1, augment=True)
    list(again)
    passing = iter(again)
    next(passing), next(passing)
    state = again.state_dict()
    passing.close()
    third = Feed(gzipped_dataset, batch_size=4, seed=1, augment=True)
    third.load_state_dict(state)
    for a, b in zip(list(third) + list(third), whole[1][2:] + whole[2], strict=True):
        same(a, b)


def test_a_stream_is_read_once_by_workers_that_take_turns(gzipped_dataset, monkeypatch):
    """Every third batch, and two passes at once: nothing is read from its beginning again."""
    whole = list(Feed(gzipped_dataset, batch_size=2, seed=1, shuffle_bytes=9000))
    feed = Feed(gzipped_dataset, batch_size=2, seed=1, shuffle_bytes=9000)
    opened = []
    read = feed._draw._open
    monkeypatch.setattr(feed._draw, "_open", lambda *a: opened.append(a[0]) or read(*a))
    one = [feed.make(*at)[0] for at in itertools.islice(feed.plan(), 0, None, 3)]
    for a, b in zip(one, whole[::3], strict=True):
        same(a, b)
    assert len(opened) == 3
    opened.clear()
    one, other = zip(*zip(feed, feed, strict=True), strict=True)
    assert keys(one) != keys(other)
    assert sorted(keys(one)) == sorted(keys(other))
    assert len(opened) == 6


def test_the_window_mixes_and_loses_nothing():
    rng = np.random.default_rng(0)
    found = [int(x) for b in mixed(iter(range(10_000)), 1000, 100, rng) for x in b]
    assert sorted(found) == list(range(10_000))
    behind = np.arange(10_000) - np.array(found)
    assert behind.max() > 2000  # some wait long
    assert behind.min() >= -1000  # none comes before it can be in the window
    assert abs(np.corrcoef(np.arange(1000), found[:1000])[0, 1]) < 0.8


def test_stage_files(out, tmp_path):
    every = keys(Feed(out, source="stage", batch_size=4))
    assert len(every) == 32  # all splits
    for split in ("train", "val"):
        part = {
            k: (b["image"][i], b["water"][i])
            for b in Feed(out, split, source="stage")
            for i, k in enumerate(keys([b]))
        }
        for b in Feed(out, split):
            for i, key in enumerate(keys([b])):
                assert np.array_equal(part[key][0], b["image"][i])
                assert np.array_equal(part[key][1], b["water"][i])
        assert len(part) == len(Reader(out, split))
    shutil.copytree(out / "stage", tmp_path / "stage")  # before sharding: no dataset.json
    assert sorted(keys(Feed(tmp_path, source="stage"))) == sorted(every)
    image, mask = next(iter(Feed(tmp_path, source="stage", as_supervised=True)))
    assert image.dtype == np.float32
    assert mask.dtype == np.uint8
    with pytest.raises(DatasetError, match="no stage files"):
        Feed(tmp_path / "stage", source="stage")


def test_several_datasets(out):
    n, m = len(Reader(out)), len(Reader(out, "val"))
    joined = keys(Feed([out, out], batch_size=4))
    assert len(joined) == 2 * n
    mixed = Feed([out, out], weights=[3, 1], batch_size=4)
    assert len(keys(mixed)) == 2 * n
    with pytest.raises(DatasetError, match="1 for 2 datasets"):
        Feed([out, out], weights=[1])
    assert m


def test_stats_and_advice(out):
    feed = Feed(out, batch_size=4)
    assert "Too few" in feed.stats()["advice"]
    for _ in feed:
        time.sleep(0.02)
    slow = feed.stats()
    assert slow["batches"] == len(feed)
    assert slow["records"] == len(Reader(out))
    assert slow["waiting_share"] < 0.5
    assert slow["buffer_fill"] > 0.3
    assert "keeps up" in slow["advice"] or slow["waiting_share"] >= 0.05

    def sluggish(batch):
        time.sleep(0.03)
        return batch

    feed = Feed(out, batch_size=4, map=sluggish)
    list(feed)
    fast = feed.stats()
    assert fast["waiting_share"] > 0.5
    assert fast["buffer_fill"] < 0.5
    assert "making a batch takes" in fast["advice"]


def test_readers_are_pickled_and_shared(out):
    reader = pickle.loads(pickle.dumps(Reader(out, features=["row", "image"])))
    same(reader.batch([1, 2]), Reader(out, features=["row", "image"]).batch([1, 2]))


def test_a_thread_that_fails_raises_in_the_caller(out):
    def broken(batch):
        raise ValueError("of the user")

    with pytest.raises(ValueError, match="of the user"):
        list(Feed(out, map=broken))

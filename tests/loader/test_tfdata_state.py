"""Feeds for TensorFlow stop and go on: by state_dict and by tf.train.Checkpoint."""

import json

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader import DatasetError, Feed, load

KINDS = ["index", "stream", "gzip"]


@pytest.fixture(params=KINDS)
def feeds(request, small_dataset, gzipped_dataset):
    """A function that makes feeds of one kind."""

    def make(**options):
        # A window of 9 records, so that a stream has to fill it up again.
        options = {"batch_size": 4, "seed": 5, "shuffle_bytes": 20_000, **options}
        if request.param == "gzip":
            return load(gzipped_dataset, **options)
        return load(small_dataset / "out", source=request.param, **options)

    return make


def arrays(feed):
    return [{k: v.numpy() for k, v in b.items()} for b in feed]


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert np.array_equal(a[name], b[name]), name


def keys(batches):
    return [k for b in batches for k in zip(b["scene_id"], b["row"], b["col"], strict=True)]


def test_a_state_of_the_other_way_is_refused(small_dataset):
    out = small_dataset / "out"
    with pytest.raises(DatasetError, match="source 'index', here 'stream'"):
        load(out, batch_size=4, source="stream").load_state_dict(load(out).state_dict())
    by_numpy = Feed(out, seed=3)
    load(out, "train", seed=3).load_state_dict(by_numpy.state_dict())  # these are one


@pytest.mark.parametrize("stop", [1, 4])
def test_a_state_gives_the_remaining_batches(feeds, stop):
    feed = feeds(augment=True)
    whole = [arrays(feed) for _ in range(3)]
    assert keys(whole[0]) != keys(whole[1])
    again = feeds(augment=True)
    arrays(again)
    passing = iter(again)
    for _ in range(stop):
        next(passing)
    state = json.loads(json.dumps(again.state_dict()))
    third = feeds(augment=True)
    third.load_state_dict(state)
    same(arrays(third), whole[1][stop:])
    same(arrays(third), whole[2])
    assert len(third) == len(whole[0])


def test_a_checkpoint_gives_the_remaining_batches(feeds, tmp_path):
    whole = arrays(feeds(repeat=2))
    passing = iter(feeds(repeat=2))
    for _ in range(3):
        next(passing)
    path = tf.train.Checkpoint(feed=passing).save(str(tmp_path / "ckpt"))
    again = feeds(repeat=2)
    restored = iter(again)
    tf.train.Checkpoint(feed=restored).restore(path).assert_consumed()
    same([{k: v.numpy() for k, v in b.items()} for b in restored], whole[3:])
    last = again.state_dict()
    assert last["epoch"] == 1


def test_the_users_global_seed_changes_nothing(feeds):
    first = arrays(feeds())
    tf.random.set_seed(99)
    try:
        same(arrays(feeds()), first)
    finally:
        tf.random.set_seed(None)


@pytest.mark.parametrize(
    ("before", "after", "shuffle"), [(1, 2, True), (2, 3, False), (3, 2, True), (1, 5, False)]
)
def test_a_state_goes_on_with_other_workers(feeds, before, after, shuffle):
    every = sorted(keys(arrays(feeds())))
    first = [feeds(batch_size=2, shard=(i, before), shuffle=shuffle) for i in range(before)]
    passing = [iter(f) for f in first]
    seen = [{k: v.numpy() for k, v in next(p).items()} for p in passing]
    states = [f.state_dict() for f in first]
    assert all(s == states[0] for s in states)
    rest = []
    for i in range(after):
        feed = feeds(batch_size=2, shard=(i, after), shuffle=shuffle)
        feed.load_state_dict(states[0])
        rest += arrays(feed)
    assert sorted(keys(seen) + keys(rest)) == every


@pytest.mark.parametrize("workers", [3, 5])
def test_workers_get_every_record_once_or_equal_steps(feeds, workers):
    every = sorted(keys(arrays(feeds())))
    parts = [feeds(batch_size=2, shard=(i, workers)) for i in range(workers)]
    found = [arrays(p) for p in parts]
    assert [len(p) for p in parts] == [len(f) for f in found]
    assert sorted(k for f in found for k in keys(f)) == every
    even = [feeds(batch_size=2, shard=(i, workers), drop_remainder=True) for i in range(workers)]
    counts = [len(arrays(p)) for p in even]
    assert len(set(counts)) == 1
    assert counts[0] == len(even[0]) > 0


def test_where_and_repeat(feeds):
    feed = feeds(where=lambda x: x["row"] < 32, repeat=2)
    found = keys(arrays(feed))
    every = [k for k in keys(arrays(feeds())) if k[1] < 32]
    assert sorted(found) == sorted(every + every)


def test_shaping_is_the_numpy_feeds(feeds, small_dataset):
    """One order for both by index, so batches are equal; sorted by key for a stream."""
    options = {
        "normalize": {"mean": [0.5, 1], "std": [2, 4]}, "dtype": "float16",
        "class_weights": {0: 2.0, 1: 0.5},
    }  # fmt: skip
    found = arrays(feeds(**options))
    expected = list(Feed(small_dataset / "out", batch_size=4, seed=5, **options))
    one, other = (
        {
            k: {n: b[n][i] for n in ("image", "water", "weight")}
            for b in bs
            for i, k in enumerate(keys([b]))
        }
        for bs in (found, expected)
    )
    assert {(s.decode(), r, c) for s, r, c in one} == set(other)
    for (s, r, c), parts in one.items():
        for name, value in parts.items():
            mine = other[s.decode(), r, c][name]
            assert value.dtype == mine.dtype
            np.testing.assert_allclose(value, mine, rtol=2e-3)


@pytest.mark.parametrize(
    "augment", [{"flip": True}, {"turn": True}, {"crop": [8, 12]}, {"crop": 8, "turn": True}]
)
def test_augmented_by_index_as_the_numpy_feed(small_dataset, augment):
    out = small_dataset / "out"
    found = arrays(load(out, batch_size=4, augment=augment))
    expected = list(Feed(out, batch_size=4, augment=augment))
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a["image"], b["image"])
        assert np.array_equal(a["water"], b["water"])


def test_options_that_need_the_index_say_so(small_dataset, gzipped_dataset):
    for options in ({"weights": [1.0]}, {"resample": {"water": "balanced"}}):
        with pytest.raises(DatasetError, match="found by index"):
            load(gzipped_dataset, **options)
    with pytest.raises(DatasetError, match="several datasets"):
        load([gzipped_dataset, gzipped_dataset])
    with pytest.raises(DatasetError, match="source 'file'"):
        load(small_dataset / "out", source="file")
    assert len(arrays(load([gzipped_dataset] * 2, batch_size=4, cache="memory"))) > 0


def test_stats_are_measured(feeds):
    feed = feeds()
    arrays(feed)
    found = feed.stats()
    assert found["batches"] == len(feed)
    assert found["records"] == sum(len(b["row"]) for b in arrays(feed))
    assert found["waiting_seconds"] > 0
    assert found["advice"]


def test_damage_in_the_stream_is_named_or_skipped(small_dataset, tmp_path):
    import shutil

    shutil.copytree(small_dataset / "out", tmp_path / "out")
    shard = tmp_path / "out/records/train-00001-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    out = tmp_path / "out"
    whole = len(keys(arrays(load(small_dataset / "out"))))
    for source in ("stream", "index"):
        with pytest.raises(DatasetError, match=r"train-00001-of-00003.*byte \d+.*checksum"):
            arrays(load(out, source=source, batch_size=4))
        feed = load(out, source=source, batch_size=4, on_error="skip")
        assert len(keys(arrays(feed))) == whole - 1
        assert feed.stats()["skipped"] == 1

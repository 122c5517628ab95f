"""Files read ahead, memory used again; compressed shards that are damaged."""

import gzip
import io
import json
import multiprocessing
import shutil
import threading
import time

import numpy as np
import pytest

from scenefeed.loader import DatasetError, Feed, tfrecord
from scenefeed.loader.ahead import read_ahead
from scenefeed.loader.pool import Slots
from tests.loader.datasets import frame, write_dataset
from tests.loader.test_feed import keys


@pytest.mark.parametrize("block", [1, 7, 100, 5000])
def test_what_is_read_ahead_is_the_file(block):
    data = np.random.default_rng(0).bytes(1000)
    with read_ahead(io.BytesIO(data), block) as file:
        assert file.read(10) == data[:10]
        into = bytearray(500)
        assert file.readinto(into) == 500
        assert into == data[10:510]
        assert file.read() == data[510:]
        assert file.read(1) == b""


def test_closing_ends_the_thread_and_closes_what_is_under():
    before, inner, under = threading.active_count(), io.BytesIO(bytes(1000)), io.BytesIO()
    file = read_ahead(inner, 10, under)
    file.read(1)
    file.close()
    assert inner.closed
    assert under.closed
    assert threading.active_count() == before


@pytest.mark.parametrize(("error", "expected"), [(OSError, OSError), (EOFError, EOFError),
                                                 (RuntimeError, OSError)])  # fmt: skip
def test_an_error_of_the_thread_comes_in_its_place(error, expected):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() >= 20:
                raise error("of the disk")
            return super().read(size)

    with read_ahead(Broken(bytes(100)), 10) as file:
        assert file.readinto(bytearray(20)) == 20
        with pytest.raises(expected, match="of the disk"):
            file.read(1)


def test_slots_are_lent_again_once_given_back():
    slots = Slots()
    one, two = slots.lend(100), slots.lend(100)
    assert not np.shares_memory(one, two)
    view = one[:90]
    view.flags.writeable = False
    slots.give_back([view[:50]])
    again = slots.lend(101)  # within what it was rounded up to
    assert np.shares_memory(one, again)
    assert again.flags.writeable
    assert not np.shares_memory(slots.lend(100), one)
    slots.give_back([again])
    assert len(slots.lend(1000)) == 1000


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip"])
def test_a_damaged_compressed_shard_is_named(gzipped_dataset, tmp_path, damage):
    out = tmp_path / "out"
    shutil.copytree(gzipped_dataset, out)
    shard = sorted((out / "records").glob("train*"))[1]
    data = bytearray(shard.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data[:] = b"something else"
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match=shard.name):
        list(Feed(out, batch_size=4))


def _rest(feed, queue):
    queue.put(keys(feed))


def test_a_forked_process_reads_the_stream_by_itself(gzipped_dataset):
    """Python's workers may be forked in the middle of an epoch."""
    feed = Feed(gzipped_dataset, batch_size=2, prefetch=0)
    whole = keys(Feed(gzipped_dataset, batch_size=2))
    batches = iter(feed)
    first = keys([next(batches)])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_rest, args=(batches, queue))
    child.start()
    found = queue.get(timeout=60)
    child.join(60)
    assert first + found == whole
    assert first + keys(batches) == whole


@pytest.fixture
def made(tmp_path):
    return write_dataset(tmp_path / "made", np.arange(40) % 3, shards=3)


@pytest.mark.parametrize("shortened", ["empty", "fewer"])
def test_a_stream_counts_what_its_shards_hold(gzipped_dataset, tmp_path, shortened):
    """Also where what is left is whole: a size that fits, and every checksum in order."""
    out = tmp_path / "out"
    shutil.copytree(gzipped_dataset, out)
    shard = sorted((out / "records").glob("train*"))[1]
    with gzip.open(shard) as file:
        records = list(tfrecord.read(file, ""))
    with gzip.open(shard, "wb") as file:
        for payload in records[: 0 if shortened == "empty" else -1]:
            file.write(frame(payload))
    with pytest.raises(DatasetError, match=f"{shard.name}: .*dataset.json says"):
        Feed(out, batch_size=4)  # by its size
    spec = json.loads((out / "dataset.json").read_text())
    for said in spec["splits"]["train"]["shards"]:
        said["num_bytes"] = (out / said["path"]).stat().st_size
    (out / "dataset.json").write_text(json.dumps(spec))
    with pytest.raises(DatasetError, match=rf"{shard.name}: \d+ records, dataset.json says"):
        list(Feed(out, batch_size=4))


def test_equal_batches_of_a_stream_that_is_filtered_or_damaged(made):
    where = {"where": lambda x: x["row"] % 3 != 0}
    options = {"source": "stream", "batch_size": 4, "drop_remainder": True}
    assert [len(b["row"]) for b in Feed(made, **options, **where)] == [4] * 6  # of 26
    shard = made / "records/train-00001-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[30] ^= 1
    shard.write_bytes(data)
    found = [len(b["row"]) for b in Feed(made, **options, on_error="skip")]
    assert found == [4] * 9


@pytest.mark.parametrize("given", [[True], np.array(True), [1] * 40])
@pytest.mark.parametrize("source", ["index", "stream"])
def test_a_filter_gives_one_boolean_a_record(made, given, source):
    with pytest.raises(DatasetError, match="not one boolean for each of"):
        list(Feed(made, source=source, where=lambda x: given))


def test_batches_of_damage_alone_are_augmented_too(made):
    shard = made / "records/train-00000-of-00003.tfrecord"
    data = np.frombuffer(shard.read_bytes(), np.uint8).copy()
    size = len(data) // 14
    assert size * 14 == len(data)
    data[30::size] ^= 1
    shard.write_bytes(data.tobytes())
    options = {"batch_size": 4, "shuffle": False, "on_error": "skip", "augment": True}
    found = list(Feed(made, source="index", **options))
    assert sorted(r for b in found for r in b["row"].tolist()) == list(range(14, 40))


def test_classes_that_no_table_holds(made):
    with pytest.raises(DatasetError, match="70000"):
        Feed(made, class_weights={"kind": {70000: 2}})


def test_a_fork_while_the_stream_is_read(made):
    """The thread that reads holds a lock; in the child there is no such thread."""

    def slow(columns):
        time.sleep(0.2)
        return columns["row"] >= 0

    feed = Feed(made, source="stream", batch_size=4, prefetch=2, shuffle_bytes=1, where=slow)
    batches = iter(feed)
    next(batches)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(len(list(feed))))
    child.start()
    assert queue.get(timeout=60) == 10
    child.join(60)
    batches.close()

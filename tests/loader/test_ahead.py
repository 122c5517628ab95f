"""Files read ahead, memory used again; compressed shards that are damaged."""

import io
import multiprocessing
import shutil
import threading

import numpy as np
import pytest

from scenefeed.loader import DatasetError, Feed
from scenefeed.loader.ahead import read_ahead
from scenefeed.loader.pool import Slots
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

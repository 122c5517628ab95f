"""Stage files on shared storage, here fsspec's in memory in the place of S3."""

from __future__ import annotations

import errno

import h5py
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from scenefeed.loader.spec import Feature
from scenefeed.loader.stage import patch_offsets
from scenefeed.transforms import ranges
from scenefeed.transforms.assign import Ordered, Pointers
from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import JobError
from scenefeed.transforms.gathering import gather, tensor_bytes
from scenefeed.transforms.hashing import patch_hashes
from scenefeed.transforms.ranges import coalesced
from scenefeed.transforms.remotestage import RemoteStage, publish
from scenefeed.transforms.stagefile import (
    is_whole,
    read_chunks,
    read_columns,
    read_contents,
    read_notes,
)  # fmt: skip
from scenefeed.transforms.stagewriter import StageWriter
from scenefeed.transforms.staging import Timer, _local
from scenefeed.transforms.storage import index_of

RNG = np.random.default_rng(0)
COUNT, SEED, URL = 500, 7, "s3://bucket/stage/s.h5"
FEATURES = {
    "image": Feature((8, 8, 3), "float32", "image", "tensor"),
    "water": Feature((8, 8), "uint8", "mask", "tensor"),
    "level": Feature((), "float32", "value", "scalar"),
    "site": Feature((), "string", "text", "scalar"),
    "scene_id": Feature((), "string", "text", "scalar"),
    "row": Feature((), "int64", "int", "scalar"),
    "col": Feature((), "int64", "int", "scalar"),
}
NOTES = '{"texts": {"site": "Ås"}, "tallies": {"saturated": 3}, "properties": {}}'


class Requests(MemoryFileSystem):
    """Notes the ranges that are asked for."""

    store: dict = {}
    asked: list = []

    def cat_ranges(self, paths, starts, ends, **options):
        self.asked += zip(paths, starts, ends, strict=True)
        return super().cat_ranges(paths, starts, ends, **options)


@pytest.fixture
def bucket(monkeypatch):
    system = Requests(skip_instance_cache=True)
    system.store.clear()
    system.asked.clear()
    for module in ("storage", "ranges", "remotestage"):
        monkeypatch.setattr(
            f"scenefeed.transforms.{module}.file_system",
            lambda url: (system, "/" + url.split("://", 1)[1]),
        )
    return system


@pytest.fixture
def staged(tmp_path, bucket):
    """(local file, URL of the same, published, the arrays) of one scene."""
    columns = {
        k: (f.shape, f.dtype) for k, f in FEATURES.items() if k in ("image", "water", "level")
    }
    local, moved = tmp_path / "local.h5", tmp_path / "moved.h5"
    rows, cols = np.divmod(np.arange(COUNT) * 8, 160)
    for path in (local, moved):
        RNG = np.random.default_rng(1)
        writer = StageWriter(path, columns, COUNT)
        space = writer.space(COUNT)
        space["image"][:] = RNG.random((COUNT, 8, 8, 3))
        space["water"][:] = RNG.integers(0, 9, (COUNT, 8, 8))
        space["level"][:] = RNG.random(COUNT)
        writer.commit(rows * 8, cols, RNG.random(COUNT).astype("float32"), np.ones(COUNT, bool))
        writer.finish({"scene_id": "s", "fingerprint": "f", "notes": NOTES})
    publish(moved, URL, SEED)
    assert not list(tmp_path.glob("moved*"))
    return str(local)


def by_key(path, contents_of):
    """Each column of a stage file in the order of keys."""
    keys = read_columns(path, ["row", "col"])
    order = np.lexsort((keys["col"], keys["row"]))
    return {k: v[order] for k, v in contents_of.items()}


def test_it_holds_the_same_in_the_order_of_the_shuffle(staged, bucket, tmp_path):
    bucket.get_file("/bucket/stage/s.h5", str(tmp_path / "fetched.h5"))
    fetched = tmp_path / "fetched.h5"
    with (
        h5py.File(fetched, locking=False) as there,
        h5py.File(staged, locking=False) as here,
    ):
        one = by_key(str(fetched), {k: v[:] for k, v in there.items()})
        two = by_key(staged, {k: v[:] for k, v in here.items()})
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
        assert dict(there.attrs) == dict(here.attrs)
        hashes = patch_hashes(SEED, "order", "s", there["row"][:], there["col"][:])
        assert (np.diff(hashes.astype(object)) > 0).all()
        offsets = patch_offsets(there["image"])
        assert (np.diff(offsets) > 0).all()


def test_readers_take_its_index_for_it(staged):
    small = ["row", "col", "valid", "hash", "level"]
    one, two = (by_key(p, read_columns(p, small)) for p in (URL, staged))
    for name in small:
        np.testing.assert_array_equal(one[name], two[name])
    assert read_notes(URL) == read_notes(staged)
    masks = [by_key(p, {"m": np.concatenate(list(read_chunks(p, "water")))}) for p in (URL, staged)]
    np.testing.assert_array_equal(masks[0]["m"], masks[1]["m"])
    assert is_whole(URL, "f")
    assert not is_whole(URL, "another")


def pointers(path):
    found, keys = read_contents(path, FEATURES), read_columns(path, ["row", "col"])
    order = patch_hashes(SEED, "order", "s", keys["row"], keys["col"])
    return Pointers(
        "s", path, keys["row"], keys["col"], order, found.offsets, found.values, found.texts
    )


def part(group, chosen):
    return Pointers(
        group.scene_id, group.path, group.rows[chosen], group.cols[chosen], group.order[chosen],
        {k: v[chosen] for k, v in group.offsets.items()},
        {k: v[chosen] for k, v in group.values.items()}, group.texts,
    )  # fmt: skip


def test_a_shard_gathers_the_same_bytes(staged):
    sizes = tensor_bytes(FEATURES)
    here, there = pointers(staged), pointers(URL)
    position = {(r, c): i for i, (r, c) in enumerate(zip(here.rows, here.cols, strict=True))}
    chosen = RNG.permutation(COUNT)[:150]
    some = part(there, chosen)
    at = [position[key] for key in zip(some.rows, some.cols, strict=True)]
    same = part(here, at)
    assert np.array_equal(some.values["level"], same.values["level"])
    with gather(Ordered([same]), sizes) as local, gather(Ordered([some]), sizes) as remote:
        assert remote(slice(None)) == local(slice(None))
        assert {k: len(v) for k, v in remote(slice(None)).items()} == dict.fromkeys(sizes, 150)
        assert remote(slice(7, 9)) == {k: v[7:9] for k, v in local(slice(None)).items()}
    assert some.texts == here.texts == {"site": "Ås"}


def test_a_shards_share_of_a_scene_is_one_request_a_tensor(staged, bucket, monkeypatch):
    monkeypatch.setattr(ranges, "GAP_BYTES", 0)
    whole = pointers(URL)
    shard = part(whole, np.flatnonzero(whole.order >> np.uint64(62) == 2))  # the third of four
    assert 80 < len(shard.order) < 170
    bucket.asked.clear()
    with gather(Ordered([shard]), {"image": 8 * 8 * 3 * 4}):
        pass
    assert len(bucket.asked) == 1
    assert sum(end - start for _, start, end in bucket.asked) == len(shard.order) * 768


def test_coalescing_reads_small_gaps_and_bounds_requests():
    offsets = np.array([0, 10, 30, 30 + ranges.GAP_BYTES + 11, 10**9])
    assert [(s.start, s.stop) for s in coalesced(offsets, 10)] == [(0, 3), (3, 4), (4, 5)]
    many = np.arange(100) * (1 << 20)
    parts = list(coalesced(many, 1 << 20))
    assert [s.stop - s.start for s in parts] == [8] * 12 + [4]
    assert list(coalesced(np.empty(0, int), 10)) == []


def test_half_of_it_is_not_taken_for_whole(staged, bucket):
    data = bucket.cat_file("/bucket/stage/s.h5")
    bucket.pipe_file("/bucket/stage/s.h5", data[:-1])
    assert not is_whole(URL, "f")
    whole = pointers(URL)
    bucket.pipe_file("/bucket/stage/s.h5", data[: len(data) // 2])
    with pytest.raises(JobError, match=r"s3://bucket/stage/s.h5.*convert again"):  # noqa: SIM117
        with gather(Ordered([whole]), tensor_bytes(FEATURES)):
            pass
    bucket.rm(f"/{index_of(URL)[5:]}")
    assert not is_whole(URL, "f")
    with pytest.raises(JobError, match="remove it and convert again"):
        read_columns(URL, ["row"])


def test_no_index_stands_while_the_file_is_replaced(tmp_path, bucket, monkeypatch):
    """A file of another configuration with an index of this one would be taken for whole."""
    writer = StageWriter(tmp_path / "m.h5", {"image": ((2,), "uint8")}, 1)
    writer.space(1)["image"][:] = 1
    writer.commit(np.zeros(1), np.zeros(1), np.ones(1), np.ones(1, bool))
    writer.finish({"scene_id": "s", "fingerprint": "f", "notes": NOTES})
    bucket.pipe_file("/bucket/stage/s.npz", b"old")
    there = []
    monkeypatch.setattr(
        Requests, "put_file", lambda self, *_, **__: there.append(self.find("/bucket"))
    )
    monkeypatch.setattr("scenefeed.transforms.remotestage.size_of", lambda _: 0)
    with pytest.raises(JobError, match="bytes arrived of"):
        publish(tmp_path / "m.h5", URL, 0)
    assert there == [[]]


def test_an_empty_scene(tmp_path, bucket):
    writer = StageWriter(tmp_path / "m.h5", {"image": ((2, 2, 1), "uint8")}, 1)
    writer.finish({"scene_id": "s", "fingerprint": "f", "notes": NOTES})
    publish(tmp_path / "m.h5", URL, 0)
    assert is_whole(URL, "f")
    assert len(read_columns(URL, ["row"])["row"]) == 0
    assert RemoteStage(URL).num_bytes == len(bucket.cat_file("/bucket/stage/s.h5"))


def test_a_worker_without_room_for_a_scene_says_whose_disk_it_is(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    full = JobError("stage.h5: cannot be written")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(JobError, match=f"{tmp_path}: the temporary folder.*set TMPDIR"):  # noqa: SIM117
        with _local(URL, parse({}, ""), Timer()):
            raise full
    other = JobError("something else")
    with pytest.raises(JobError, match="something else"), _local(URL, parse({}, ""), Timer()):
        raise other
    assert not list(tmp_path.iterdir())


def test_a_worker_without_room_for_a_shard_says_whose_disk_it_is(staged, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(JobError, match=r"cannot hold one shard.*No space left.*TMPDIR"):  # noqa: SIM117
        with gather(Ordered([pointers(URL)]), tensor_bytes(FEATURES)):
            pass


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"nothing"])
def test_half_an_index_is_no_stage_file(staged, bucket, data):
    bucket.pipe_file("/bucket/stage/s.npz", data)
    assert not is_whole(URL, "f")
    with pytest.raises(JobError, match="remove it and convert again"):
        read_columns(URL, ["row"])


def test_a_store_that_fails_fails_the_job_not_the_scene(staged, monkeypatch):
    """A dead letter would leave a scene out for what is no fault of its own."""

    class Refused(Exception):
        """As drivers have their own."""

    def refuse(*_, **__):
        raise Refused("503")

    monkeypatch.setattr(Requests, "cat_file", refuse)
    with pytest.raises(JobError, match="503"):
        is_whole(URL, "f")

"""Shards: how many, and which patch goes to which."""

import numpy as np
import pytest

from scenefeed.transforms.assign import (
    MAX_FILES_PER_SHARD,
    Ordered,
    Pointers,
    assign_scene,
    plan_shards,
)
from scenefeed.transforms.choosing import Choice
from scenefeed.transforms.config import parse
from scenefeed.transforms.georeference import Georeference
from scenefeed.transforms.headers import SceneHeader
from scenefeed.transforms.stagefile import Contents
from scenefeed.transforms.staging import StagedScene

ROWS, COLS = (a.ravel() * 64 for a in np.meshgrid(np.arange(200), np.arange(200), indexing="ij"))
KEY = np.arange(50, dtype=np.int32)


def staged(name, count):
    where = Georeference(1, 1, "", (1, 0, 0, 0, 1, 0))
    header = SceneHeader(("b1",), "uint8", where, (1, 1), {}, {}, None, {}, 0)
    return StagedScene(
        name,
        f"{name}.h5",
        {"train": count},
        count,
        count,
        header,
        (),
        "",
        "",
        0,
        {},
        False,
        {},
        0,
        0,
    )


def test_shard_count_from_megabytes_or_exact():
    config = parse({"records": {"shard_mb": 1}}, "")
    assert plan_shards({"s": {"train": 1000}}, 10_000, config)["train"].num_shards == 10
    exact = parse({"records": {"num_shards": 7}}, "")
    assert plan_shards({"s": {"train": 3}}, 10_000, exact)["train"].num_shards == 7
    assert plan_shards({"s": {"train": 0}}, 10_000, exact) == {}


@pytest.mark.parametrize("shards", [3, 16, 64])
def test_a_shard_touches_a_bounded_number_of_stage_files(shards):
    config = parse({"records": {"num_shards": shards}}, "")
    counts = {f"s{i:04d}": {"train": 16} for i in range(1000)}
    plans = plan_shards(counts, 100, config)
    choice = Choice(np.arange(16) * 64, np.zeros(16, int), np.zeros(16, int))
    files: dict[int, set[str]] = {}
    total = 0
    for name in counts:
        found = Contents(choice.rows, choice.cols, {"image": np.arange(16)}, {}, {})
        for _, shard, pointers in assign_scene(staged(name, 16), choice, plans, found, config):
            files.setdefault(shard, set()).add(name)
            total += len(pointers.order)
    assert total == 16_000
    assert set(files) == set(range(shards))
    groups = min(shards, -(-1000 // MAX_FILES_PER_SHARD))
    assert max(map(len, files.values())) <= -(-1000 // groups)


def test_small_scenes_get_shards_enough_to_keep_the_bound():
    counts = {f"s{i:04d}": {"train": 1} for i in range(2000)}
    plan = plan_shards(counts, 100, parse({}, ""))["train"]
    assert plan.num_shards == -(-2000 // MAX_FILES_PER_SHARD)


def test_every_patch_goes_to_one_shard_evenly():
    config = parse({"records": {"num_shards": 16}}, "")
    scene = staged("s", len(ROWS))
    choice = Choice(ROWS, COLS, np.zeros(len(ROWS), int))
    plans = plan_shards({"s": {"train": len(ROWS)}}, 100, config)
    every = np.arange(len(ROWS))
    found = Contents(ROWS, COLS, {"image": every * 8}, {"level": every * 2}, {"site": "x"})
    parts = [p for _, _, p in assign_scene(scene, choice, plans, found, config)]
    assert all(np.array_equal(p.offsets["image"], p.values["level"] * 4) for p in parts)
    assert {p.texts["site"] for p in parts} == {"x"}
    index = np.sort(np.concatenate([p.offsets["image"] for p in parts])) // 8
    assert np.array_equal(index, every)
    assert max(len(p.order) for p in parts) < 1.15 * len(ROWS) / 16


def test_packed_pointers_are_few_bytes_and_come_back_the_same():
    config = parse({"records": {"num_shards": 16, "seed": 5}}, "")
    choice = Choice(ROWS.astype("i4") - 64, COLS.astype("i4"), np.zeros(len(ROWS), int))
    every = np.arange(len(ROWS))
    chunked = every * 32768 + every // 32 * 512 + (1 << 40)
    level = np.random.default_rng(0).random(len(ROWS), np.float32)
    found = Contents(
        choice.rows, choice.cols, {"image": chunked, "mask": 10**9 - every * 8}, {"level": level},
        {"site": "x"},
    )  # fmt: skip
    scene, plans = staged("s", len(ROWS)), plan_shards({"s": {"train": len(ROWS)}}, 100, config)
    parts = [p for _, _, p in assign_scene(scene, choice, plans, found, config)]
    assert len(parts) == 16
    for part in parts:
        assert_same(Pointers.unpack(part.pack()), part)
        packed = part.pack(seed=5)
        assert_same(Pointers.unpack(packed), part)
        # Beside the level, whose 4 bytes are noise; 32 as they are, with the order's 8.
        assert len(packed) < 4 * len(part.rows) + 6 * len(part.rows) < len(part.pack())


def test_pointers_to_nothing_and_of_any_order_are_packed():
    none = np.zeros(0, np.int32)
    empty = Pointers("é", "s.h5", none, none, none.astype("u8"), {"image": none.astype("i8")})
    assert_same(Pointers.unpack(empty.pack(0)), empty)
    drawn = Pointers("s", "s.h5", KEY, KEY[::-1], KEY.astype("u8") << np.uint64(58), {"image": KEY})
    assert_same(Pointers.unpack(drawn.pack()), drawn)


def assert_same(found, expected):
    assert (found.scene_id, found.path, found.texts) == (
        expected.scene_id, expected.path, expected.texts,
    )  # fmt: skip
    for name in ("rows", "cols", "order"):
        assert_equal(getattr(found, name), getattr(expected, name))
    for name in ("offsets", "values"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_equal(ours[key], theirs[key])


def assert_equal(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_order_within_a_shard_does_not_depend_on_arrival():
    rng = np.random.default_rng(0)
    parts = [
        Pointers(f"s{i}", "", KEY, KEY, rng.integers(0, 9, 50).astype("u8"), {}) for i in range(4)
    ]

    def keys(arrived):
        shard = Ordered(arrived)
        ids = [shard.groups[i].scene_id for i in shard.source]
        columns = [shard.column(lambda p, k=k: getattr(p, k)) for k in ("order", "rows", "cols")]
        return [(o, i, r, c) for i, o, r, c in zip(ids, *columns, strict=True)]

    assert keys(parts) == keys(parts[::-1]) == sorted(keys(parts))
    assert len(set(keys(parts))) == 200
    assert len(Ordered([])) == 0
    assert keys([]) == []

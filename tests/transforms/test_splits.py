"""Hashes, splits and shards."""

import numpy as np
import pytest

from scenefeed.transforms.assign import (
    MAX_FILES_PER_SHARD,
    Pointers,
    assign_scene,
    in_order,
    plan_shards,
)
from scenefeed.transforms.config import parse
from scenefeed.transforms.headers import SceneHeader
from scenefeed.transforms.splits import patch_hashes, split_indexes
from scenefeed.transforms.staging import StagedScene

ROWS, COLS = (a.ravel() * 64 for a in np.meshgrid(np.arange(200), np.arange(200), indexing="ij"))
KEY = np.arange(50, dtype=np.int32)
THREE = {"train": 0.8, "val": 0.1, "test": 0.1}


def staged(name, count):
    header = SceneHeader(("b1",), "uint8", 1, 1, "", (1, 0, 0, 0, 1, 0), (1, 1), {}, 0)
    return StagedScene(name, f"{name}.h5", {"train": count}, count, header, (), "", False, {}, 0, 0)


def test_hashes_are_fixed_for_good():
    # Datasets must shard the same with any later version: these numbers may not change.
    found = patch_hashes(0, "order", "scene", np.array([0, 64]), np.array([0, 128]))
    assert found.tolist() == [8875094536976824591, 8796883437930973181]


def test_hashes_spread_evenly_and_never_meet():
    found = patch_hashes(3, "order", "scene", ROWS, COLS)
    assert len(np.unique(found)) == len(found)
    counts, _ = np.histogram(found.astype(np.float64), bins=64, range=(0, 2.0**64))
    expected = len(found) / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # chi-squared, 63 degrees, p < 1e-5
    assert abs(np.corrcoef(found.astype(float), np.arange(len(found)))[0, 1]) < 0.02


def split_of(by, seed=0, scene="s", **more):
    config = parse({"split": {"by": by, "fractions": THREE, **more}, "records": {"seed": seed}}, "")
    return split_indexes(config, scene, ROWS, COLS)


def test_split_by_patch_keeps_the_shares():
    share = np.bincount(split_of("patch")) / len(ROWS)
    assert np.allclose(share, [0.8, 0.1, 0.1], atol=0.01)
    assert (split_of("patch") == split_of("patch")).all()
    assert (split_of("patch") != split_of("patch", seed=1)).any()


def test_split_by_scene_gives_a_scene_to_one_split():
    drawn = [split_of("scene", scene=f"scene{i}") for i in range(200)]
    assert all(len(set(d.tolist())) == 1 for d in drawn)
    assert set(np.bincount([d[0] for d in drawn]) > 5) == {True}


def test_split_by_block_never_divides_a_block():
    drawn, blocks = split_of("block", block=1000), {}
    for split, r, c in zip(drawn, ROWS // 1000, COLS // 1000, strict=True):
        blocks.setdefault((r, c), set()).add(int(split))
    assert {len(s) for s in blocks.values()} == {1}
    assert len(set(drawn.tolist())) == 3


def test_without_a_split_all_is_train():
    assert (split_indexes(parse({}, ""), "s", ROWS, COLS) == 0).all()


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
    rows, cols = np.arange(16) * 64, np.zeros(16, int)
    files: dict[int, set[str]] = {}
    total = 0
    for name in counts:
        for _, shard, pointers in assign_scene(staged(name, 16), rows, cols, plans, config):
            files.setdefault(shard, set()).add(name)
            total += len(pointers.index)
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
    plans = plan_shards({"s": {"train": len(ROWS)}}, 100, config)
    parts = [p for _, _, p in assign_scene(scene, ROWS, COLS, plans, config)]
    index = np.sort(np.concatenate([p.index for p in parts]))
    assert np.array_equal(index, np.arange(len(ROWS)))
    assert max(len(p.index) for p in parts) < 1.15 * len(ROWS) / 16


def test_order_within_a_shard_does_not_depend_on_arrival():
    rng = np.random.default_rng(0)
    parts = [
        Pointers(f"s{i}", "", KEY, KEY, KEY, rng.integers(0, 9, 50).astype("u8")) for i in range(4)
    ]
    expected = [(p.scene_id, i) for p, i in in_order(parts)]
    assert [(p.scene_id, i) for p, i in in_order(parts[::-1])] == expected
    assert len(set(expected)) == 200
    assert list(in_order([])) == []

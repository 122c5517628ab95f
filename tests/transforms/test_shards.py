"""WriteShards and the pipeline's transforms, by the in-process runner."""

import errno
import os
import struct
from pathlib import Path

import apache_beam as beam
import h5py
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from scenefeed.loader.spec import Feature
from scenefeed.loader.stage import patch_offsets
from scenefeed.transforms.assign import Pointers, ShardRange, SplitPlan
from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import DeadLetter, JobError
from scenefeed.transforms.finding import find_scenes
from scenefeed.transforms.pipeline import DEAD, Plan
from scenefeed.transforms.shards import (
    WriteShards,
    WrittenShard,
    _WriteShard,
    finalize_split,
    sinks_of,
)
from scenefeed.transforms.stagewriter import StageWriter
from tests.conftest import write_raster
from tests.eager import run_beam

FEATURES = {
    "image": Feature((4, 4, 1), "uint8", "image", "tensor", bands=("b1",)),
    "scene_id": Feature((), "string", "text", "scalar"),
    "row": Feature((), "int64", "int", "scalar"),
    "col": Feature((), "int64", "int", "scalar"),
}
PLAN = {"train": SplitPlan(3, (ShardRange(0, 3),), {"s": 0})}


@pytest.fixture
def pointers(tmp_path):
    """((split, shard), Pointers) for 20 patches in shards 0 and 2 of 3."""
    writer = StageWriter(tmp_path / "s.h5", {"image": ((4, 4, 1), "uint8")}, 20)
    writer.space(20)["image"][:] = np.arange(20)[:, None, None, None]
    key = np.arange(20)
    writer.commit(key, key * 2, np.ones(20), np.ones(20, bool))
    writer.finish({})
    order = np.random.default_rng(0).permutation(20).astype(np.uint64)
    with h5py.File(tmp_path / "s.h5") as file:
        offsets = patch_offsets(file["image"])
    path = str(tmp_path / "s.h5")

    def some(which):
        rows = which.astype(np.int32)
        return Pointers("s", path, rows, rows * 2, order[which], {"image": offsets[which]})

    first, last = ("train", 0), ("train", 2)
    parts = (first, np.arange(6)), (last, np.arange(6, 15)), (last, np.arange(15, 20))
    return [(key, some(which)) for key, which in parts]


def write(elements, folder, compression="none", plans=PLAN):
    """Runs WriteShards for three splits; gives the shards in order."""
    packed = [(key, part.pack()) for key, part in elements]

    class Written(beam.PTransform):
        def expand(self, pcoll):
            once = pcoll.pipeline | "Side" >> beam.Create([None])
            features = once | "Features" >> beam.Map(lambda _: FEATURES)
            planned = once | "Plans" >> beam.Map(lambda _: plans)
            single, splits = beam.pvalue.AsSingleton, ("train", "val", "test")
            return pcoll | WriteShards(
                str(folder), splits, single(features), compression, single(planned)
            )

    return sorted(run_beam(packed, Written()), key=lambda s: (s.split, s.number))


def images(shard, compression=""):
    for raw in tf.data.TFRecordDataset(shard.path, compression):
        found = tf.train.Example.FromString(raw.numpy()).features.feature
        yield (
            int(tf.io.parse_tensor(found["image"].bytes_list.value[0], tf.uint8)[0, 0, 0]),
            found["row"].int64_list.value[0],
            found["col"].int64_list.value[0],
        )


def test_shards_hold_their_patches_in_order_and_empty_ones_exist(pointers, tmp_path):
    shards = write(pointers, tmp_path)
    assert [s.num_examples for s in shards] == [6, 0, 14]
    assert [s.path for s in shards] == [
        str(tmp_path / f"train-0000{i}-of-00003.tfrecord") for i in range(3)
    ]
    order = {i: o for _, p in pointers for i, o in zip(p.rows.tolist(), p.order, strict=True)}
    for shard in (shards[0], shards[2]):
        found = [value for value, _, _ in images(shard)]
        assert found == sorted(found, key=order.get)
    assert sorted(images(shards[2])) == [(i, i, 2 * i) for i in range(6, 20)]
    assert not list(tmp_path.glob("beam-temp*"))


def test_splits_are_written_side_by_side(pointers, tmp_path):
    """One split gets some of the patches, one has a shard without any, and one has no plan."""
    elements = [(("val", 0) if key == ("train", 0) else key, part) for key, part in pointers]
    plans = {
        "train": SplitPlan(3, (ShardRange(0, 3),), {"s": 0}),
        "val": SplitPlan(2, (ShardRange(0, 2),), {"s": 0}),
    }
    shards = write(elements, tmp_path, plans=plans)
    assert [(s.split, s.number, s.num_examples) for s in shards] == [
        ("train", 0, 0), ("train", 1, 0), ("train", 2, 14), ("val", 0, 6), ("val", 1, 0),
    ]  # fmt: skip
    assert sorted(row for _, row, _ in images(shards[3])) == list(range(6))
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "s.h5") == sorted(
        f"{s.split}-{s.number:05d}-of-{count:05d}.{kind}"
        for s in shards for kind in ("tfrecord", "idx") for count in [3 if s.split == "train" else 2]
    )  # fmt: skip


def test_order_of_arrival_does_not_show(pointers, tmp_path):
    one = write(pointers, tmp_path / "a")
    two = write(pointers[::-1], tmp_path / "b")
    assert [s.sha256 for s in one] == [s.sha256 for s in two]
    assert [Path(s.index).read_bytes() for s in one] == [Path(s.index).read_bytes() for s in two]


def test_gzip_shards_and_their_hash(pointers, tmp_path):
    import hashlib

    shards = write(pointers, tmp_path, "gzip")
    for shard in shards:
        content = Path(shard.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        assert len(content) == shard.num_bytes
    assert sorted(images(shards[2], "GZIP")) == [(i, i, 2 * i) for i in range(6, 20)]
    assert not list(tmp_path.glob("*.idx"))
    assert {(s.index, s.index_bytes, s.record_bytes) for s in shards} == {("", 0, 0)}


def index_of(shard):
    """The index that a shard should have, from its own bytes."""
    content, lines, at = Path(shard.path).read_bytes(), [], 0
    while at < len(content):
        length = 12 + struct.unpack_from("<Q", content, at)[0] + 4
        lines.append(f"{at} {length}\n")
        at += length
    return "".join(lines)


def test_each_shard_has_its_index(pointers, tmp_path):
    # As a run that broke off leaves them: a longer one must not show through.
    (tmp_path / "train-00000-of-00003.idx").write_text("0 1\n" * 100)
    shards = write(pointers, tmp_path)
    assert [s.index for s in shards] == [
        str(tmp_path / f"train-0000{i}-of-00003.idx") for i in range(3)
    ]
    for shard in shards:
        assert Path(shard.index).read_text() == index_of(shard)
        assert shard.index_bytes == Path(shard.index).stat().st_size
    assert len(list(tmp_path.glob("*.idx"))) == 3
    # Rows and columns below 128 take one byte each: all records are alike.
    assert [s.record_bytes for s in shards] == [shards[0].num_bytes // 6, 0, shards[0].record_bytes]


def test_records_of_different_lengths(pointers, tmp_path):
    _, some = pointers[0]
    some.cols[0] = 1000
    shards = write(pointers, tmp_path)
    assert [bool(s.record_bytes) for s in shards] == [False, False, True]
    for shard in shards:
        assert Path(shard.index).read_text() == index_of(shard)


def test_a_rename_that_fails_fails_the_job(tmp_path):
    class Sink:
        def finalize_write(self, init, paths, cleared):
            return iter(())  # and renames nothing

        def _get_final_name(self, number, count):
            return str(tmp_path / f"train-{number}")

    shard = WrittenShard("train", 0, "temporary", 1, 10, "", {})
    with pytest.raises(JobError, match="no bytes arrived of 10"):
        list(finalize_split([Sink()], [""], [shard]))
    (tmp_path / "train-0").write_bytes(b"123")
    with pytest.raises(JobError, match="3 bytes arrived of 10"):
        list(finalize_split([Sink()], [""], [shard]))
    # Its index alone is not there.
    (tmp_path / "train-0").write_bytes(bytes(10))

    class Indexes(Sink):
        def _get_final_name(self, number, count):
            return str(tmp_path / f"train-{number}.idx")

    with pytest.raises(JobError, match=r"train-0.idx: no bytes arrived of 5"):
        list(
            finalize_split(
                [Sink(), Indexes()],
                ["", ""],
                [WrittenShard("train", 0, "temporary", 1, 10, "", {}, 10, "temporary", 5)],
            )
        )


def test_a_disk_that_is_full_at_the_index_fails_the_job(pointers, tmp_path):
    sinks = sinks_of(str(tmp_path / "train"), "none")
    inits = [sink.initialize_write() for sink in sinks]

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sinks[1].open_writer = full
    key, part = pointers[0]
    writing = _WriteShard({"train": sinks}).process(
        (key, [part.pack()]), {"train": inits}, FEATURES
    )
    with pytest.raises(JobError, match="shard 0 of train cannot be written: No space left"):
        list(writing)


def test_plan_divides_good_scenes_from_dead_letters(tmp_path):
    write_raster(tmp_path / "a.tif", np.ones((1, 64, 64), np.uint8))
    (tmp_path / "b.tif").write_bytes(b"")
    config = parse({"scenes": {"paths": ["*.tif"]}}, "test")
    scenes = find_scenes(config, tmp_path)

    class Both(beam.PTransform):
        def expand(self, pcoll):
            planned = pcoll | Plan(config)
            return (planned.main, planned[DEAD]) | beam.Flatten()

    found = run_beam(scenes, Both())
    assert sorted(type(f).__name__ for f in found) == ["DeadLetter", "PlannedScene"]
    (dead,) = (f for f in found if isinstance(f, DeadLetter))
    assert dead.scene == "b"


def test_direct_runner_is_the_in_process_one():
    from scenefeed.pipelines.runner import _runner, pipeline_options

    for flags in ([], ["--runner=DirectRunner"], ["--runner", "DirectRunner"]):
        assert isinstance(_runner(pipeline_options(flags)), FnApiRunner)
    assert _runner(pipeline_options(["--runner=FlinkRunner"])) == "FlinkRunner"

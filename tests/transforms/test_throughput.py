"""One reading of one shard, against the shard's own framing."""

import dataclasses
import io
import os
import struct
import time

import pytest

from scenefeed.loader import DatasetSpec
from scenefeed.transforms import throughput
from scenefeed.transforms.throughput import Memory, ReadShards, ShardReadings, read_shard
from tests.eager import run_beam


def framed(data):
    """(records, bytes) of an uncompressed shard, by TFRecord's lengths alone."""
    at = count = 0
    while at < len(data):
        at += 12 + struct.unpack_from("<Q", data, at)[0] + 4
        count += 1
    return count, at


@pytest.fixture
def read(small_dataset):
    """Reads the first shard of training, from wherever it is."""

    def run(path=None, out=small_dataset / "out", **changed):
        spec = DatasetSpec.load(out)
        shard = spec.splits["train"].shards[0]
        features = changed.pop("features", spec.features)
        shard = dataclasses.replace(shard, **changed)
        return read_shard(
            str(path or out / shard.path), shard, features, spec.compression, Memory()
        )

    return run


def shard_of(out):
    return out / DatasetSpec.load(out).splits["train"].shards[0].path


def test_what_a_reading_tells(read, small_dataset):
    before, cpu = time.monotonic(), time.thread_time()
    found = read()
    after, cpu = time.monotonic(), time.thread_time() - cpu
    records, size = framed(shard_of(small_dataset / "out").read_bytes())
    assert (found.problem, found.records) == ("", records)
    assert size == shard_of(small_dataset / "out").stat().st_size
    assert before <= found.start <= found.start + found.seconds <= after
    assert 0 < found.waited < found.seconds
    assert 0 < found.cpu_seconds <= cpu
    assert (found.host, found.process) == (os.uname().nodename, os.getpid())


def test_of_a_compressed_shard(read, gzipped_dataset, small_dataset):
    found = read(out=gzipped_dataset)
    assert (found.problem, found.records) == ("", read().records)


def test_waiting_is_told_from_decoding(read, monkeypatch, tmp_path, small_dataset):
    """Of a file whose every read takes 20 ms, and of a codec that takes 100 ms a batch."""

    class Slow(io.FileIO):
        def read(self, size):
            time.sleep(0.02)
            return super().read(size)

        def readinto(self, buffer):
            time.sleep(0.02)
            return super().readinto(buffer)

    decode = throughput.decode_records
    monkeypatch.setattr(throughput, "open_file", lambda path, _: Slow(path))
    monkeypatch.setattr(
        throughput, "decode_records", lambda *given: time.sleep(0.1) or decode(*given)
    )
    found = read()
    assert found.waited >= 0.02 * (found.records + 1)
    assert found.seconds - found.waited >= 0.1
    assert found.cpu_seconds < 0.1


def test_every_feature_is_decoded(read, small_dataset):
    features = DatasetSpec.load(small_dataset / "out").features
    other = dataclasses.replace(features["water"], shape=(17, 16))
    assert "feature 'water'" in read(features={**features, "water": other}).problem


@pytest.mark.parametrize("damage", ["gone", "flipped", "short", "empty", "more"])
def test_a_damaged_shard_is_a_problem_that_names_it(read, small_dataset, tmp_path, damage):
    data = bytearray(shard_of(small_dataset / "out").read_bytes())
    path = tmp_path / "shard.tfrecord"
    data[len(data) // 2] ^= damage == "flipped"
    cut = {"short": len(data) - 5, "empty": 0}.get(damage, len(data))
    if damage != "gone":
        path.write_bytes(data[:cut] * (2 if damage == "more" else 1))
    problem = read(path).problem
    assert problem.startswith(f"{path}: ")
    said = {"gone": "not there", "flipped": "checksum", "short": "record", "empty": "0 records"}
    assert said.get(damage, "dataset.json says") in problem
    assert "\n" not in problem


def test_a_shard_read_again_has_one_reading_more(small_dataset):
    out = small_dataset / "out"
    spec = DatasetSpec.load(out)
    shards = [ShardReadings(str(out / s.path), s) for s in spec.splits["train"].shards]
    once = run_beam(shards, ReadShards(spec.features, spec.compression))
    again = run_beam(once, ReadShards(spec.features, spec.compression))
    assert sorted(r.id for r in again) == sorted(s.id for s in shards)
    assert [len(r.readings) for r in again] == [2] * len(shards)
    assert {r.readings[1].records for r in again} == {s.shard.num_examples for s in shards}

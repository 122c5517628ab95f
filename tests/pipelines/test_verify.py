"""verify finds damage, wherever it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from scenefeed.pipelines.verify import verify
from tests.conftest import scenefeed


@pytest.fixture
def out(small_dataset, tmp_path):
    shutil.copytree(small_dataset / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(params=["none", "gzip"])
def either(small_dataset, tmp_path, request):
    """The dataset uncompressed, and gzipped."""
    shutil.copytree(small_dataset / "out", tmp_path / "out")
    if request.param == "gzip":
        scenefeed("shard", tmp_path / "out", "--compression", "gzip")
    return tmp_path / "out"


def test_a_whole_dataset_has_no_problems(out):
    report = verify(out)
    assert report["problems"] == []
    assert report["records"] == 32
    assert report["fingerprint"] == json.loads((out / "dataset.json").read_text())["fingerprint"]


def shards(out):
    return sorted((out / "records").glob("*.tfrecord"))


def test_one_flipped_byte_in_any_shard_is_found(either):
    out = either
    rng = np.random.default_rng(0)
    for path in shards(out):
        content = path.read_bytes()
        for at in {
            0,
            9,
            30,
            len(content) // 2,
            len(content) - 1,
            *rng.integers(0, len(content), 20),
        }:
            if not content:
                continue
            broken = bytearray(content)
            broken[at] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(broken)
            problems = verify(out)["problems"]
            assert problems, (path, at)
            assert all(path.name in p for p in problems)
        path.write_bytes(content)
    assert verify(out)["problems"] == []


def test_missing_truncated_and_stray_shards(out):
    first, second, third, *_ = shards(out)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-3])
    shutil.copy(third, third.with_name("train-00000-of-00099.tfrecord"))
    problems = "\n".join(verify(out)["problems"])
    assert f"{first.name}: the shard is missing" in problems
    assert f"{second.name}: record" in problems
    assert "train-00000-of-00099.tfrecord: not named" in problems


def test_an_index_that_is_not_there_is_none_missed(out):
    for path in (out / "records").glob("*.idx"):
        path.unlink()
    assert verify(out)["problems"] == []


@pytest.mark.parametrize("wrong", ["", "0 5\n", "moved", "letters", "swapped"])
def test_a_wrong_index_is_one_problem(out, wrong):
    index = out / "records/train-00001-of-00003.idx"
    text = index.read_text()
    lines = text.splitlines()
    (first, one), (_, other) = (map(int, line.split()) for line in lines[:2])
    changed = {
        # As many records and bytes, and no gap: but not where the records are.
        "moved": "\n".join([f"{first} {one + 1}", f"{one + 1} {other - 1}", *lines[2:]]),
        "letters": text + "x",
        "swapped": "\n".join([lines[1], lines[0], *lines[2:]]),
    }.get(wrong, wrong)
    index.write_text(changed)
    (problem,) = verify(out)["problems"]
    assert problem.startswith("records/train-00001-of-00003.idx: does not say where")
    assert "scenefeed shard" in problem


def test_an_index_of_no_shard_is_a_stray(either):
    compressed = not any((either / "records").glob("*.idx"))
    stray = "val-00000-of-00003.idx" if compressed else "train-00000-of-00099.idx"
    (either / "records" / stray).write_text("0 16\n")
    assert verify(either)["problems"] == [f"records/{stray}: of no shard in dataset.json"]


def test_record_bytes_against_the_records(out):
    spec = json.loads((out / "dataset.json").read_text())
    shard = spec["splits"]["train"]["shards"][0]
    shard["record_bytes"] += 1
    (out / "dataset.json").write_text(json.dumps(spec))
    (problem,) = verify(out)["problems"]
    assert f"dataset.json says {shard['record_bytes']} each" in problem
    del shard["record_bytes"]  # as earlier versions wrote it
    (out / "dataset.json").write_text(json.dumps(spec))
    assert verify(out)["problems"] == []


def test_a_key_that_comes_twice(out):
    spec = json.loads((out / "dataset.json").read_text())
    spec["splits"]["val"] = spec["splits"]["train"]
    (out / "dataset.json").write_text(json.dumps(spec))
    assert any("keys come more than once, in train, val" in p for p in verify(out)["problems"])


def test_counts_against_dataset_json(out):
    text = (out / "dataset.json").read_text()
    spec = json.loads(text)
    spec["splits"]["train"]["shards"][0]["num_examples"] += 1
    (out / "dataset.json").write_text(json.dumps(spec))
    assert any("dataset.json says" in p for p in verify(out)["problems"])


def test_values_that_are_not_finite(out):
    from scenefeed.loader import DatasetSpec
    from scenefeed.loader.codec import RecordEncoder
    from scenefeed.loader.tfrecord import masked_crc32c

    spec = DatasetSpec.load(out)
    image = np.full((16, 16, 2), np.nan, "float32").tobytes()
    values = {"image": image, "water": bytes(256), "scene_id": "z", "row": 0, "col": 0}
    record = RecordEncoder(spec.features)(values)
    length = len(record).to_bytes(8, "little")
    path = Path(out / spec.splits["train"].shards[0].path)
    framed = b"".join(
        (length, masked_crc32c(length).to_bytes(4, "little"),
         record, masked_crc32c(record).to_bytes(4, "little"))
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + framed)
    report = verify(out)
    assert report["nan"] == 512
    assert any("512 values are not finite" in p for p in report["problems"])


def test_sums_in_dataset_json_against_its_shards(out):
    spec = json.loads((out / "dataset.json").read_text())
    spec["fingerprint"] = "0" * 64
    spec["splits"]["val"]["num_examples"] += 1
    (out / "dataset.json").write_text(json.dumps(spec))
    problems = "\n".join(verify(out)["problems"])
    assert "fingerprint is not that of its shards" in problems
    assert "split val says num_examples" in problems

"""The index of a shard: NVIDIA DALI's format, and what does not fit is refused."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader.index import format_index, index_path, parse_index, record_files
from scenefeed.loader.spec import DatasetSpec

LENGTHS = np.array([116, 16, 70_016, 116], np.int64)
INDEX = b"0 116\n116 16\n132 70016\n70148 116\n"


def framings(shard: bytes):
    """(offset, length) of each record, by the walk of DALI's tfrecord2idx."""
    file, found = io.BytesIO(shard), []
    while header := file.read(8):
        begin = file.tell() - 8
        file.seek(4 + struct.unpack("<Q", header)[0] + 4, io.SEEK_CUR)
        found.append((begin, file.tell() - begin))
    return found


def as_dali_reads(index: bytes):
    """Pairs of numbers between any white space, as DALI's ``fin >> pos >> size``."""
    numbers = iter(index.decode("ascii").split())
    return [(int(offset), int(length)) for offset, length in zip(numbers, numbers, strict=True)]


def test_path():
    path = "records/train-00000-of-00016"
    assert index_path(f"{path}.tfrecord") == f"{path}.idx"


def test_format_is_a_line_a_record():
    assert format_index(LENGTHS) == INDEX
    assert format_index(np.array([], np.int64)) == b""


def test_an_index_leads_back_to_the_offsets():
    found = parse_index(INDEX, 4, 70_264)
    assert found.dtype == np.int64
    assert found.tolist() == [0, 116, 132, 70_148]
    assert parse_index(b"", 0, 0).tolist() == []
    large = np.random.default_rng(0).integers(16, 1 << 33, 5000)
    found = parse_index(format_index(large), 5000, int(large.sum()))
    assert found.tolist() == [0, *np.cumsum(large).tolist()[:-1]]


@pytest.mark.parametrize(
    ("index", "count", "size"),
    [
        (INDEX, 3, 70_264),  # another count
        (INDEX, 4, 70_265),  # another size
        (b"", 1, 16),
        (b"0 16\n", 0, 0),
        (b"0 16\n16\n", 2, 32),  # torn off
        (b"4 16\n", 1, 20),  # does not begin at 0
        (b"0 16\n20 16\n", 2, 36),  # a gap
        (b"0 20\n16 16\n", 2, 32),  # an overlap
        (b"16 16\n0 16\n", 2, 32),  # out of order
        (b"0 32\n32 -16\n", 2, 16),
        (b"0 16\nx", 1, 16),
        (b"0 16.0\n", 1, 16),
        (b"0 1_6\n", 1, 16),
        (b"\xff\x00 16\n", 1, 16),
        (b"0 99999999999999999999\n", 1, 16),  # beyond int64
        (b"0 9223372036854775807\n9223372036854775807 9\n", 2, 16),
    ],
)
def test_what_does_not_fit_the_shard_is_none(index, count, size):
    assert parse_index(index, count, size) is None


def test_index_of_a_dataset_against_its_shards(small_dataset):
    out = small_dataset / "out"
    spec = DatasetSpec.load(out)
    shards = [s for split in spec.splits.values() for s in split.shards]
    assert shards
    for shard in shards:
        content = (out / shard.path).read_bytes()
        index = (out / index_path(shard.path)).read_bytes()
        expected = framings(content)
        assert as_dali_reads(index) == expected
        payloads = [x.numpy() for x in tf.data.TFRecordDataset(str(out / shard.path))]
        assert [content[at + 12 : at + n - 4] for at, n in expected] == payloads
        offsets = parse_index(index, shard.num_examples, shard.num_bytes)
        assert offsets.tolist() == [at for at, _ in expected]
        assert {shard.record_bytes} == ({n for _, n in expected} or {0})
    found = {f"records/{p.name}" for p in (out / "records").iterdir()}
    assert found == record_files(spec)

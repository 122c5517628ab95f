"""Reader and TFRecord framing, against TensorFlow reading the same files."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader import DatasetError, DatasetSpec, Reader
from scenefeed.loader.pool import Pool


def tensorflow_records(out, split):
    """Each record of a split by TensorFlow alone, in shard order."""
    spec = DatasetSpec.load(out)
    files = [str(out / s.path) for s in spec.split(split).shards]
    for raw in tf.data.TFRecordDataset(files):
        found = tf.train.Example.FromString(raw.numpy()).features.feature
        yield {
            "image": tf.io.parse_tensor(found["image"].bytes_list.value[0], tf.float32).numpy(),
            "water": tf.io.parse_tensor(found["water"].bytes_list.value[0], tf.uint8).numpy(),
            "scene_id": found["scene_id"].bytes_list.value[0].decode(),
            "row": found["row"].int64_list.value[0],
            "col": found["col"].int64_list.value[0],
        }


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_record_is_what_tensorflow_reads(small_dataset, split):
    reader = Reader(small_dataset / "out", split)
    expected = list(tensorflow_records(small_dataset / "out", split))
    assert len(reader) == len(expected) > 4
    for i, record in enumerate(expected):
        found = reader[i]
        for name, value in record.items():
            assert np.array_equal(found[name], value), (i, name)


def test_batch_keeps_the_order_asked_for(small_dataset):
    reader = Reader(small_dataset / "out")
    batch = reader.batch([3, 1, 4, 1, -1])
    for j, i in enumerate([3, 1, 4, 1, len(reader) - 1]):
        assert np.array_equal(batch["image"][j], reader[i]["image"])
    assert batch["image"].shape == (5, 16, 16, 2)


def test_index_past_the_end(small_dataset):
    reader = Reader(small_dataset / "out")
    with pytest.raises(IndexError):
        reader[len(reader)]
    with pytest.raises(IndexError):
        reader.batch([0, -len(reader) - 1])


def test_pooled_memory_is_not_used_twice_while_held():
    pool = Pool()
    first = pool.take(512, 4096)
    view = first.view("<f4").reshape(512, 32, 32)[5:]
    address = first.ctypes.data
    del first
    second = pool.take(512, 4096)
    assert second.ctypes.data != address
    assert address % 64 == second.ctypes.data % 64 == 0
    del view
    assert pool.take(512, 4096).ctypes.data == address


@pytest.fixture
def broken(small_dataset, tmp_path):
    shutil.copytree(small_dataset / "out", tmp_path / "out")
    return tmp_path / "out"


def test_a_missing_shard_is_named(broken):
    (broken / "records/train-00001-of-00003.tfrecord").unlink()
    with pytest.raises(DatasetError, match=r"train-00001-of-00003.*missing"):
        Reader(broken)


@pytest.mark.parametrize("cut", [1, 5, 1000])
def test_a_truncated_shard_is_named(broken, cut):
    path = broken / "records/train-00001-of-00003.tfrecord"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DatasetError, match="train-00001-of-00003"):
        Reader(broken)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ('{"format": "scenefeed/9"}', "scenefeed/9.*install"),
        ('{"format": "scenefeed/1"}', "missing"),
        ("[1]", "format"),
    ],
)
def test_a_bad_dataset_json_says_so(broken, text, words):
    (broken / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=words):
        Reader(broken)


def test_no_dataset_unknown_split_empty_split_unknown_feature(small_dataset, tmp_path):
    with pytest.raises(DatasetError, match="no complete dataset"):
        Reader(tmp_path)
    with pytest.raises(DatasetError, match=r"no split 'tran'.*train, val, test"):
        Reader(small_dataset / "out", "tran")
    with pytest.raises(DatasetError, match="'test' is empty"):
        Reader(small_dataset / "out", "test")
    with pytest.raises(DatasetError, match="no feature 'img'"):
        Reader(small_dataset / "out", features=["img"])


def test_reading_needs_numpy_alone(small_dataset):
    code = (
        "import sys; from scenefeed.loader import Reader;"
        f"Reader({str(small_dataset / 'out')!r}).batch([0, 1]);"
        "heavy = {'tensorflow', 'torch', 'apache_beam', 'rasterio', 'h5py', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_spec_goes_through_json_unchanged(small_dataset):
    spec = DatasetSpec.load(small_dataset / "out")
    assert DatasetSpec.from_json(spec.to_json()) == spec
    assert spec.features["image"].bands == ("VV", "VH")
    assert spec.features["water"].ignore == (2,)
    assert spec.labels == ["water"]

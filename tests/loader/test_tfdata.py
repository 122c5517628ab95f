"""The tf.data feed."""

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader import DatasetError, Reader, load
from tests.conftest import scenefeed


def keyed(batches):
    return {
        (s.decode(), int(r), int(c)): (image, mask)
        for b in batches
        for s, r, c, image, mask in zip(
            *(b[k].numpy() for k in ("scene_id", "row", "col", "image", "water")), strict=True
        )
    }


@pytest.fixture(scope="module")
def gzipped(small_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("gzip") / "out"
    config = small_dataset / "config.yaml"
    scenefeed("convert", "--config", config, "--output", out, "--compression", "gzip")
    return out


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["indexed", "streamed"])
def test_an_epoch_is_every_record_once(small_dataset, gzipped, kind, shuffle):
    out = small_dataset / "out" if kind == "indexed" else gzipped
    feed = load(out, batch_size=4, shuffle=shuffle)
    found, reader = keyed(feed), Reader(small_dataset / "out")
    assert len(feed) == -(-len(reader) // 4)
    assert len(found) == len(reader)
    for i in range(len(reader)):
        record = reader[i]
        image, mask = found[record["scene_id"], record["row"], record["col"]]
        assert np.array_equal(image, record["image"])
        assert np.array_equal(mask, record["water"])


def order(out, **kw):
    return [int(x) for b in load(out, batch_size=4, **kw) for x in b["row"] * 1000 + b["col"]]


def test_epochs_differ_and_seeds_decide(small_dataset):
    out = small_dataset / "out"
    feed = load(out, batch_size=4, seed=5)
    first, second = ([int(x) for b in feed for x in b["row"]] for _ in range(2))
    assert first != second
    assert order(out, seed=5) == order(out, seed=5) != order(out, seed=6)
    assert order(out, shuffle=False) == order(out, shuffle=False)


def test_supervised_pairs_and_static_shapes(small_dataset):
    feed = load(small_dataset / "out", batch_size=4, as_supervised=True, drop_remainder=True)
    image, label = feed.element_spec
    assert image.shape == (4, 16, 16, 2)
    assert image.dtype == tf.float32
    assert label.shape == (4, 16, 16)
    assert label.dtype == tf.uint8
    assert all(x.shape == (4, 16, 16, 2) for x, _ in feed)


def test_clear_errors(small_dataset):
    out = small_dataset / "out"
    with pytest.raises(DatasetError, match="batch_size 0"):
        load(out, batch_size=0)
    with pytest.raises(DatasetError, match="fewer than a batch"):
        load(out, batch_size=1000, drop_remainder=True)
    with pytest.raises(DatasetError, match="no feature"):
        load(out, features=["nothing"])
    with pytest.raises(DatasetError, match="empty"):
        load(out, "test")


def test_compressed_shards_have_no_index(gzipped):
    with pytest.raises(DatasetError, match="use load"):
        Reader(gzipped)

"""The tf.data feed."""

import numpy as np
import pytest
import tensorflow as tf

from scenefeed.loader import DatasetError, Reader, load
from tests.conftest import scenefeed, write_raster


def keyed(batches):
    return {
        (s.decode(), int(r), int(c)): (image, mask)
        for b in batches
        for s, r, c, image, mask in zip(
            *(b[k].numpy() for k in ("scene_id", "row", "col", "image", "water")), strict=True
        )
    }


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["indexed", "streamed"])
def test_an_epoch_is_every_record_once(small_dataset, gzipped_dataset, kind, shuffle):
    out = small_dataset / "out" if kind == "indexed" else gzipped_dataset
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


def test_compressed_shards_have_no_index(gzipped_dataset):
    with pytest.raises(DatasetError, match="use load"):
        Reader(gzipped_dataset)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_kind_of_feature_by_index_and_by_stream(tmp_path, compression):
    """Masks, classes, values, counts and texts: the feed's are the Reader's."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_raster(tmp_path / f"s/{name}.tif", rng.normal(size=(1, 64, 64)).astype("float32"))
        write_raster(tmp_path / f"l/{name}.tif", rng.integers(0, 3, (1, 64, 64), np.uint8))
    (tmp_path / "p.csv").write_text("x,y,v\n500105,4999895,1.5\n500105,4999900,2.5\n")
    (tmp_path / "m.csv").write_text("path,site,depth\ns/a.tif,Ås,2\ns/b.tif,a longer name,\n")
    (tmp_path / "c.yaml").write_text(
        "scenes: {paths: [m.csv]}\ntile: {size: 16}\nscalars: [site, depth, latitude]\n"
        "labels:\n"
        "  mask: {path: 'l/{id}.tif'}\n"
        "  kind: {kind: scene, column: site}\n"
        "  wet: {kind: points, path: p.csv, value: v, crs: 'EPSG:32633'}\n"
        f"records: {{compression: {compression}, num_shards: 3}}\n"
    )
    scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    parts = list(load(tmp_path / "out", split="train", batch_size=7))
    found = {k: np.concatenate([p[k].numpy() for p in parts]) for k in parts[0]}
    texts = {k: np.array([t.decode() for t in found[k]], object) for k in ("scene_id", "site")}
    found |= texts
    order = np.lexsort((found["col"], found["row"], found["scene_id"].astype(str)))
    assert found["site"][order].tolist() == ["Ås"] * 16 + ["a longer name"] * 16
    assert np.array_equal(found["depth"][order], [2.0] * 16 + [np.nan] * 16, equal_nan=True)
    assert found["kind"][order].tolist() == [1] * 16 + [0] * 16
    wet = found["wet"][order]
    assert wet[0] == wet[16] == 2
    assert np.isnan(wet).sum() == 30
    assert found["wet_count"][order][[0, 1]].tolist() == [2, 0]
    if compression == "none":
        reader = Reader(tmp_path / "out", split="train")
        records = reader.batch(np.arange(len(reader)))
        again = np.lexsort((records["col"], records["row"], records["scene_id"].astype(str)))
        for name, values in records.items():
            exact = np.array_equal if values.dtype.kind != "f" else np.testing.assert_array_equal
            assert exact(found[name][order], values[again]) in (True, None)
    _, y = next(iter(load(tmp_path / "out", split="train", batch_size=4, as_supervised=True)))
    assert sorted(y) == ["kind", "mask", "wet"]


@pytest.mark.parametrize("shape", [(4, 4, 2), (3, 5, 1), (6, 6, 3)])
def test_operations_of_a_graph_are_those_of_numpy(shape):
    """The service and tensorflow-io shape batches in graphs; everything else by NumPy."""
    from scenefeed.loader.shaping import NumpyOperations
    from scenefeed.loader.statistics import Normalization
    from scenefeed.loader.tensors import TensorOperations

    rng, count = np.random.default_rng(0), 40
    x = rng.integers(0, 1000, (count, *shape)).astype(np.uint16)
    rows, columns, swap = rng.random((3, count)) < 0.5
    if shape[0] != shape[1]:
        swap[:] = False
    expected = x.copy()
    for i in range(count):
        one = expected[i]
        one = one[::-1] if rows[i] else one
        one = one[:, ::-1] if columns[i] else one
        expected[i] = one.swapaxes(0, 1) if swap[i] else one
    scale = rng.random(shape[-1]).astype(np.float32)
    offset = rng.random(shape[-1]).astype(np.float32)
    for ops in (NumpyOperations(), TensorOperations()):
        found = ops.oriented(x.copy(), rows, columns, swap)
        assert np.array_equal(found, expected)
        assert found.dtype == x.dtype
        scaled = np.asarray(ops.normalized(x.copy(), Normalization(offset, scale)))
        assert np.allclose(scaled, (x - offset) / scale, rtol=1e-6)
        assert scaled.dtype == np.float32

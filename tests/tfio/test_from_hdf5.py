"""tensorflow-io reads our stage files. Runs in the environment of the extra `tfio` alone:
make test-tfio."""

import importlib.util

import h5py
import numpy as np
import pytest

from scenefeed.loader import DatasetError, Reader, load

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_io") is None,
    reason="tensorflow-io is not in this environment: make test-tfio",
)


def test_iodataset_reads_a_stage_file(small_dataset):
    import tensorflow_io as tfio

    path = small_dataset / "out/stage/a.h5"
    with h5py.File(path) as file:
        expected = file["image"][:]
    found = [x.numpy() for x in tfio.IODataset.from_hdf5(str(path), dataset="/image")]
    assert np.array_equal(np.stack(found), expected)


def test_the_older_set_converts_and_loads_alike(small_dataset):
    reader = Reader(small_dataset / "out")
    batches = list(load(small_dataset / "out", batch_size=4, shuffle=False).as_numpy_iterator())
    assert np.array_equal(
        np.concatenate([b["image"] for b in batches]), reader.batch(range(len(reader)))["image"]
    )


def keys(batches):
    return sorted((int(r), int(c), float(i.sum())) for b in batches
                  for r, c, i in zip(b["row"], b["col"], b["image"], strict=True))  # fmt: skip


def test_load_through_tensorflow_io(small_dataset):
    """Every patch of every stage file once an epoch, in another order each time."""
    out = small_dataset / "out"
    expected = keys(load(out, source="stage", batch_size=4).as_numpy_iterator())
    feed = load(out, source="tfio", batch_size=4)
    assert len(feed) == 8
    first, second = (list(feed.as_numpy_iterator()) for _ in range(2))
    assert keys(first) == keys(second) == expected
    assert [b["row"].tolist() for b in first] != [b["row"].tolist() for b in second]
    image, mask = next(
        iter(load(out, source="tfio", batch_size=4, as_supervised=True, augment=True))
    )
    assert image.shape == (4, 16, 16, 2)
    assert mask.shape == (4, 16, 16)
    assert feed.stats()["batches"] == 16


def test_what_tensorflow_io_cannot_do_is_refused(small_dataset):
    out = small_dataset / "out"
    for options, words in [
        ({"split": "train"}, "no split"),
        ({"shard": (0, 2)}, "source='stage'"),
        ({"where": lambda x: x["row"] > 0}, "source='stage'"),
    ]:
        with pytest.raises(DatasetError, match=words):
            load(out, source="tfio", **options)

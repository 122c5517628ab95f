"""tensorflow-io reads our stage files. Runs in the environment of the extra `tfio` alone:
make test-tfio."""

import importlib.util

import h5py
import numpy as np
import pytest

from scenefeed.loader import Reader, load

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

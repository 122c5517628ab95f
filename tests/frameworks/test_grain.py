"""Reader is a random-access source for Grain."""

import numpy as np
import pytest

grain = pytest.importorskip(
    "grain", reason="Grain is not in this environment: make test-frameworks"
)

from scenefeed.loader import Reader  # noqa: E402


def keys(batches):
    return [k for b in batches for k in zip(b["scene_id"], b["row"], b["col"], strict=True)]


@pytest.fixture(scope="module")
def reader(small_dataset):
    return Reader(small_dataset / "out")


def test_a_map_dataset(reader):
    assert isinstance(reader, grain.sources.RandomAccessDataSource)
    source = grain.MapDataset.source(reader).shuffle(seed=1).batch(4)
    found = list(source)
    assert sorted(keys(found)) == sorted(keys([reader.batch(range(len(reader)))]))
    for i in range(4):
        assert found[0]["image"][i].shape == (16, 16, 2)
    iterator = iter(source.to_iter_dataset())
    first = [next(iterator) for _ in range(2)]
    state = iterator.get_state()
    rest = list(iterator)
    again = iter(source.to_iter_dataset())
    again.set_state(state)
    for a, b in zip(rest, again, strict=True):
        assert np.array_equal(a["image"], b["image"])
    assert len(first) + len(rest) == len(source)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader(reader, workers):
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # what absl's own app.run would do
    sampler = grain.samplers.IndexSampler(
        num_records=len(reader), num_epochs=1, shuffle=True, seed=3,
        shard_options=grain.sharding.NoSharding(),
    )  # fmt: skip
    loader = grain.DataLoader(
        data_source=reader, sampler=sampler, worker_count=workers,
        operations=[grain.transforms.Batch(4)],
    )  # fmt: skip
    assert sorted(keys(loader)) == sorted(keys([reader.batch(range(len(reader)))]))

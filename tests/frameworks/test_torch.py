"""The feeds for PyTorch, against the NumPy feed: in processes, over ranks, with state."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not in this environment: make test-frameworks"
)

from torch.utils.data import DataLoader  # noqa: E402

from scenefeed.loader import Feed as NumpyFeed  # noqa: E402
from scenefeed.loader import Reader  # noqa: E402
from scenefeed.loader.torch import Feed, IterableDataset, MapDataset  # noqa: E402


@pytest.fixture(scope="module")
def out(small_dataset):
    return small_dataset / "out"


def same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            mine = a[name]
            if value.dtype == object:
                assert mine == value.tolist()
            else:
                assert mine.dtype == torch.from_numpy(value[:1]).dtype
                assert np.array_equal(mine.numpy(), value)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_the_numpy_feeds(out, workers):
    feed = Feed(out, batch_size=4, seed=2, augment=True, workers=workers, channels_first=False)
    expected = NumpyFeed(out, batch_size=4, seed=2, augment=True)
    for _ in range(2):
        same(feed, expected)
    assert feed.stats()["batches"] == 2 * len(feed)


def test_images_are_channels_last_views(out):
    image, mask = next(iter(Feed(out, batch_size=4, as_supervised=True, shuffle=False)))
    assert image.shape == (4, 2, 16, 16)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert mask.shape == (4, 16, 16)
    plain = Reader(out).batch(range(4))["image"]
    assert np.array_equal(image.permute(0, 2, 3, 1).numpy(), plain)
    half = next(iter(Feed(out, batch_size=4, shuffle=False, dtype="bfloat16", device="cpu")))
    assert half["image"].dtype == torch.bfloat16
    assert np.array_equal(
        half["image"].float().permute(0, 2, 3, 1).numpy(),
        torch.from_numpy(plain).to(torch.bfloat16).float().numpy(),
    )


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize(("workers", "after"), [(0, 2), (2, 0), (2, 3)])
def test_a_state_goes_on_with_other_workers(out, workers, after, device):
    options = {"batch_size": 4, "seed": 2, "channels_first": False, "device": device}
    expected = list(NumpyFeed(out, batch_size=4, seed=2))
    feed = Feed(out, workers=workers, **options)
    passing = iter(feed)
    same([next(passing) for _ in range(2)], expected[:2])
    state = feed.state_dict()
    del passing
    again = Feed(out, workers=after, **options)
    again.load_state_dict(state)
    same(again, expected[2:])


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [0, 2])
def test_iterable_dataset_in_a_data_loader(out, workers, context):
    dataset = IterableDataset(out, batch_size=4, seed=2)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=workers,
        multiprocessing_context=context if workers else None,
    )  # fmt: skip
    expected = NumpyFeed(out, batch_size=4, seed=2)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        same(loader, expected)
    assert len(loader) == len(expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_map_dataset_in_a_data_loader(out, workers):
    dataset = MapDataset(out, transform=lambda x: {**x, "row": x["row"] + 1})
    whole = DataLoader(dataset, batch_size=5, num_workers=workers, collate_fn=MapDataset.collate)
    reader = Reader(out)
    rows = np.concatenate([b["row"].numpy() for b in whole])
    assert np.array_equal(rows, reader.batch(range(len(reader)))["row"] + 1)
    each = DataLoader(dataset, batch_size=5, num_workers=workers, shuffle=True)
    found = [
        k
        for b in each
        for k in zip(b["scene_id"], b["row"].tolist(), b["col"].tolist(), strict=True)
    ]
    assert len(set(found)) == len(reader) == len(dataset)
    assert torch.equal(dataset[3]["image"], torch.from_numpy(reader[3]["image"]))


def test_ranks_of_a_distributed_job(out):
    """Two processes with gloo: each record on one of them, equal steps, an all-reduce a step."""
    code = textwrap.dedent(
        f"""
        import sys, torch, torch.distributed as dist
        from scenefeed.loader.torch import Feed
        rank = int(sys.argv[1])
        dist.init_process_group("gloo", init_method=f"file://{{sys.argv[2]}}", rank=rank, world_size=2)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Conv2d(2, 1, 3))
        seen = []
        for batch in Feed({str(out)!r}, batch_size=4, drop_remainder=True):
            model(batch["image"]).mean().backward()
            seen += list(zip(batch["scene_id"], batch["row"].tolist(), batch["col"].tolist()))
        print(seen, flush=True)
        dist.destroy_process_group()
        assert "tensorflow" not in sys.modules
        """
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(i), f"{folder}/meet"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for i in range(2)
        ]  # fmt: skip
        ends = [p.communicate(timeout=120) for p in ranks]
    assert [p.returncode for p in ranks] == [0, 0], ends
    seen = [eval(stdout.strip().splitlines()[-1]) for stdout, _ in ends]
    assert len(seen[0]) == len(seen[1]) == len(Reader(out)) // 8 * 4
    assert not set(seen[0]) & set(seen[1])


def test_pinned_only_where_there_is_cuda(out):
    if torch.cuda.is_available():
        image = next(iter(Feed(out, device="cuda", batch_size=4)))["image"]
        assert image.is_cuda
    else:
        assert not next(iter(Feed(out, batch_size=4)))["image"].is_pinned()

"""The feeds for PyTorch. TensorFlow is never imported.

``Feed`` is the quickest: batches made in a thread, or in worker processes, pinned, and put on a
device one ahead. ``MapDataset`` and ``IterableDataset`` are for a ``DataLoader`` of one's own.
"""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.data

from .feed import Feed as NumpyFeed
from .feed import PlacedFeed
from .reader import Reader
from .records import Paths
from .spec import DatasetError


class MapDataset(torch.utils.data.Dataset[Any]):  # type: ignore[misc]
    """Records by index, for a ``DataLoader`` with samplers of one's own.

        DataLoader(MapDataset("out"), batch_size=1024, shuffle=True, collate_fn=MapDataset.collate)

    With ``collate`` a batch is read and decoded as one; with PyTorch's own collation, record by
    record. Safe in worker processes, forked or spawned.

    Args:
      path: the dataset's folder or URL.
      split: which split.
      features: names to decode; all by default.
      transform: called with a dictionary of tensors: one record's where the dataset is indexed, a
        whole batch's where a ``DataLoader`` reads.
      reader: ``cache`` and ``checksums``, as of ``Reader``.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        features: Sequence[str] | None = None,
        *,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        **reader: Any,
    ):
        self._reader = Reader(path, split, features, **reader)
        self._transform = transform

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Any:
        return self._done({k: v[0] for k, v in tensors(self._reader.batch([index])).items()})

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """What a ``DataLoader`` asks for: one batch, to be passed through ``collate``."""
        return _Collated([self._done(tensors(self._reader.batch(indices)))], len(indices))

    def _done(self, values: dict[str, Any]) -> Any:
        return values if self._transform is None else self._transform(values)

    @staticmethod
    def collate(batch: list[Any]) -> Any:
        """The ``collate_fn`` that takes batches as they were read."""
        return batch[0]


class _Collated(list[Any]):
    """A batch that looks like its records to whoever counts or takes them one by one."""

    def __init__(self, batch: list[Any], count: int):
        super().__init__(batch)
        self._count = count

    def __iter__(self) -> Iterator[Any]:
        whole = super().__getitem__(0)
        for i in range(self._count):
            yield {k: v[i] for k, v in whole.items()}

    def __len__(self) -> int:
        return self._count


class IterableDataset(torch.utils.data.IterableDataset[Any]):  # type: ignore[misc]
    """Whole batches, for ``DataLoader(dataset, batch_size=None, num_workers=n)``.

    Each worker process makes every n-th batch, so that the loader, which takes them in turn,
    gives them in the same order for any n. In a ``torch.distributed`` job each rank gets its part.
    A loader starts its workers anew for each epoch, and they do not know of earlier ones: call
    ``set_epoch``, as for PyTorch's own ``DistributedSampler``. ``Feed`` does all this by itself.

    Args:
      path, split: as for ``Feed``.
      options: see ``Options``.
    """

    def __init__(self, path: Paths, split: str | None = None, **options: Any):
        super().__init__()
        self._feed = NumpyFeed(path, split, **_of_rank(options))

    def __len__(self) -> int:
        return len(self._feed)

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        if worker is None:
            yield from map(tensors, self._feed)
            return
        steps = itertools.islice(self._feed.plan(), worker.id, None, worker.num_workers)
        for stretch, step in steps:
            made = self._feed.make(stretch, step)
            if made is not None:
                yield tensors(made[0])

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch."""
        self.load_state_dict(self._feed.beginning(epoch))

    def state_dict(self) -> dict[str, Any]:
        """After the last batch that was taken; worker processes keep theirs to themselves."""
        return self._feed.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after what ``state`` counts, also in worker processes started from now on."""
        self._feed.load_state_dict(state)


class Feed(PlacedFeed):
    """A split's batches as tensors, ready for a training step.

        feed = Feed("out", batch_size=1024, as_supervised=True, device="cuda", dtype="bfloat16")
        for epoch in range(20):
            for image, label in feed:                 # image is (B, C, H, W), channels last

    Images and masks are views of the records' own layout: a batch of images has PyTorch's
    channels-last memory format, without a copy. In a ``torch.distributed`` job each rank gets
    its part, with ``drop_remainder`` equally many batches.

    Args:
      path: the dataset's folder or URL, or several of them.
      split: which split; ``train`` by default.
      device: put batches there, the next one while a step runs on this one.
      pin: copy batches into page-locked memory first; by default where the device is CUDA.
      workers: processes that make batches; 0 for a thread, which is enough unless augmentation
        or ``map`` are slow.
      channels_first: give images as (B, C, H, W); False for (B, H, W, C).
      options: see ``Options``. ``map`` is called with arrays, before they become tensors.

    Raises:
      DatasetError: a dataset cannot be read, or an option does not fit it.
    """

    def __init__(
        self,
        path: Paths,
        split: str | None = None,
        *,
        device: str | torch.device | None = None,
        pin: bool | None = None,
        workers: int = 0,
        channels_first: bool = True,
        **options: Any,
    ):
        # bfloat16 is PyTorch's own business: NumPy has none.
        self._half = options.get("dtype") == "bfloat16"
        options = _of_rank(options | ({"dtype": "float32"} if self._half else {}))
        self._workers, self._first = workers, channels_first
        self._device = torch.device(device) if device is not None else None
        on_cuda = self._device is not None and self._device.type == "cuda"
        self._pin = on_cuda if pin is None else pin
        feed = NumpyFeed(path, split, **options)
        if workers and not feed.by_index:
            raise DatasetError(
                "workers: a stream is read by one thread; give cache=FOLDER or cache='memory', or "
                "several streams with shard=(i, n)"
            )
        super().__init__(feed, self._placed, ahead=int(device is not None))

    def _batches(self) -> Iterable[Any]:
        return self._by_workers() if self._workers else map(tensors, self._feed)

    def _by_workers(self) -> Iterator[Any]:
        """The plan is made here, and its batches by the workers, which the loader takes in turn."""
        asked: collections.deque[Any] = collections.deque()

        def steps() -> Iterator[Any]:
            for at in self._feed.plan():
                asked.append(at)
                yield at

        loader = torch.utils.data.DataLoader(
            _Maker(self._feed), batch_size=None, sampler=_Steps(steps()), num_workers=self._workers
        )
        start = time.perf_counter()
        for batch, size in loader:
            stretch, step = asked.popleft()
            self._feed.taken(stretch, step, time.perf_counter() - start, size, len(asked))
            yield batch
            start = time.perf_counter()

    def _placed(self, batch: Any) -> Any:
        return _each(batch, self._one)

    def _one(self, x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        if x.ndim == 4 and self._first:
            x = x.permute(0, 3, 1, 2)
        if self._half and x.dtype == torch.float32 and x.ndim == 4:
            x = x.to(torch.bfloat16)
        if self._pin:
            x = x.pin_memory()
        return x if self._device is None else x.to(self._device, non_blocking=True)


class _Maker(torch.utils.data.Dataset[Any]):  # type: ignore[misc]
    """Batches by their place in a plan."""

    def __init__(self, feed: NumpyFeed):
        self._feed = feed

    def __getitem__(self, at: tuple[Any, int]) -> Any:
        batch, size = self._feed.make(*at) or (None, (0, 0))
        return tensors(batch), size


class _Steps(torch.utils.data.Sampler[Any]):  # type: ignore[misc]
    def __init__(self, steps: Iterator[Any]):
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        return self._steps


def tensors(batch: Any) -> Any:
    """A batch's arrays as tensors that share their memory; texts as lists of ``str``."""
    return _each(batch, _tensor)


def _tensor(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    if x.dtype == object:
        return x.tolist()
    return torch.from_numpy(x if x.flags.writeable and x.dtype.isnative else np.array(x))


def _each(batch: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(batch, Mapping):
        return {k: _each(v, function) for k, v in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_each(v, function) for v in batch)
    return function(batch)


def _of_rank(options: dict[str, Any]) -> dict[str, Any]:
    """Options with this rank's share, where ``torch.distributed`` runs and none is given."""
    distributed = torch.distributed
    if options.get("shard") is None and distributed.is_available() and distributed.is_initialized():
        return {**options, "shard": (distributed.get_rank(), distributed.get_world_size())}
    return options

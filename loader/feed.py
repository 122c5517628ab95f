"""The feed for NumPy, which those for PyTorch and JAX build on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .options import Options
from .progress import Progress, Stats
from .records import Paths, Stretch
from .shaping import NumpyOperations, needs_no_graph
from .sources import drawn_from

_END = object()


class Feed:
    """A split's batches as NumPy arrays: shuffled, shaped, made ahead in a thread.

        feed = Feed("out", split="train", batch_size=1024)
        for epoch in range(20):
            for batch in feed:
                batch["image"]                  # (B, H, W, C)

    Each pass is one epoch (or ``repeat`` of them) in a new order; by index it is an exact
    permutation of the whole split. A batch's arrays are the caller's own; their memory is used again once
    nobody holds them.

    Args:
      path: the dataset's folder or URL, or several of them (with ``weights``, a mix).
      split: which split; ``train`` by default.
      source: ``"index"``, ``"stream"``, ``"stage"`` or ``"auto"``: see ``load``.
      options: see ``Options``.

    Raises:
      DatasetError: a dataset cannot be read, or an option does not fit it.
    """

    def __init__(
        self, path: Paths, split: str | None = None, *, source: str = "auto", **options: Any
    ):
        self._args = (path, split, source, options)
        self.options = Options.of(options)
        self._draw = drawn_from(path, split, source, self.options)
        self._shaping, self._ops = needs_no_graph(self._draw.shaping()), NumpyOperations()
        self._progress = Progress(self._draw.identity)
        self._stats = Stats(self.options.prefetch)

    def __reduce__(self) -> Any:
        """Pickled as what it was made of and where it stands; its files are opened again."""
        return _unpickled, (*self._args, self._progress.pending())

    def __len__(self) -> int:
        """Batches of a whole pass; the first one after ``load_state_dict`` may be shorter.

        Raises:
          TypeError: it does not end, or only reading tells.
        """
        if self.options.repeat is True:
            raise TypeError("a feed that repeats without end has no length")
        length = self._draw.length()
        if length < 0:
            raise TypeError("a stream that is filtered has no length before it is read")
        return length * int(self.options.repeat)

    def __iter__(self) -> Iterator[Any]:
        work = ((at, made) for at in self.plan() if (made := self.make(*at)) is not None)
        ahead = self.options.prefetch
        given = _ahead(work, ahead) if ahead else ((item, 0) for item in work)
        start = time.perf_counter()
        for ((stretch, step), (batch, size)), ready in given:
            self.taken(stretch, step, time.perf_counter() - start, size, ready)
            yield batch
            start = time.perf_counter()

    @property
    def by_index(self) -> bool:
        """Whether batches may be made in any order."""
        return "records" in self._draw.units

    def beginning(self, epoch: int) -> dict[str, Any]:
        """The state at an epoch's beginning."""
        return {"version": 1, **self._draw.identity, "epoch": epoch}

    def plan(self) -> Iterator[tuple[Stretch, int]]:
        """A pass without its batches: of each the stretch of an epoch, and its number in it."""
        turns, last = 0, -1
        while self.options.repeat is True or turns < self.options.repeat:
            stretch = self._draw.stretch(*self._progress.begin(last))
            for step in range(stretch.steps):
                yield stretch, step
            turns, last = turns + 1, stretch.epoch

    def make(self, stretch: Stretch, step: int) -> tuple[Any, tuple[int, int]] | None:
        """One batch of the plan, and its records and bytes; None where a filter left nothing."""
        start = time.perf_counter()
        found = self._draw.batch(stretch, step)
        if found is None:
            return None
        records = len(next(iter(found.values.values())))
        size = (records, sum(v.nbytes for v in found.values.values()))
        batch = self._shaping(found.values, found.draws, self._ops)
        self._stats.made(time.perf_counter() - start, found.skipped)
        return batch, size

    def taken(
        self, stretch: Stretch, step: int, waited: float, size: tuple[int, int], ready: int
    ) -> None:
        """Notes that a batch of the plan was taken, after so many seconds of waiting."""
        done = dict(zip(self._draw.units, self._draw.after(stretch, step), strict=True))
        self._progress.given(stretch.epoch, **done)
        self._stats.given(waited, size[0], size[1], ready)

    def state_dict(self) -> dict[str, Any]:
        """Where the feed stands, after the last batch that was taken from it: plain numbers and
        texts. Another feed of the same dataset, split and seed goes on from it, also with
        another batch size, or as another number of workers (each of which takes the same
        state)."""
        return self._progress.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the batches that ``state`` counts, with the next pass.

        Raises:
          DatasetError: the state is of another dataset, split or seed.
        """
        self._progress.load(state, self._draw.units)

    def stats(self) -> dict[str, Any]:
        """Since the feed was made: batches, records, bytes, seconds, how much of them was spent
        waiting, how full the buffer was (0 to 1), and ``advice``, one sentence."""
        return self._stats.read()


class PlacedFeed:
    """A feed whose batches go somewhere else, the next one while the caller works on this one.

    Args:
      feed: what makes the batches.
      place: starts a batch on its way, without waiting for it.
      ahead: batches placed before they are asked for, 0 or 1.
    """

    def __init__(self, feed: Feed, place: Callable[[Any], Any], ahead: int):
        self._feed, self._place, self._held = feed, place, ahead
        self._before: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Batches of a whole pass; the first one after ``load_state_dict`` may be shorter."""
        return len(self._feed)

    def _batches(self) -> Iterable[Any]:
        return self._feed

    def __iter__(self) -> Iterator[Any]:
        placed = map(self._place, self._batches())
        if not self._held:
            yield from placed
            return
        held = next(placed, _END)
        while held is not _END:
            # The feed's state counts the batch that is ahead; ours must not.
            self._before = self._feed.state_dict()
            following = next(placed, _END)
            yield held
            held = following
        self._before = None

    def state_dict(self) -> dict[str, Any]:
        """Where the feed stands, after the last batch that was taken from it; see
        ``scenefeed.loader.Feed``."""
        return self._before or self._feed.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the batches that ``state`` counts, with the next pass."""
        self._before = None
        self._feed.load_state_dict(state)

    def stats(self) -> dict[str, Any]:
        """As ``scenefeed.loader.Feed.stats``."""
        return self._feed.stats()


def _ahead(items: Iterator[Any], size: int) -> Iterator[tuple[Any, int]]:
    """Items made in a thread, at most ``size`` ahead, each with how many more are ready."""
    ready: queue.Queue[Any] = queue.Queue(size)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(_END)
        except BaseException as e:  # the consumer's to handle
            put(e)

    thread = threading.Thread(target=work, name="scenefeed-feed", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item, ready.qsize()
            del item  # the buffer may use its memory again
    finally:
        stop.set()
        thread.join()


def _unpickled(path: Any, split: Any, source: str, options: dict[str, Any], state: Any) -> Feed:
    feed = Feed(path, split, source=source, **options)
    feed.load_state_dict(state)
    return feed

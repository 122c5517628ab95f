"""Loading: seconds for shuffled batches, cold and warm, the first batch, what waits for them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...loader.index import index_path
from ...loader.spec import DatasetSpec
from ...loader.storage import is_remote, join
from . import cold
from .verdict import result
from .worker import Job, measured

if TYPE_CHECKING:
    from .targets import Targets

LEFT = 0.02  # share of the shards that may stay in memory where they are called cold
# Bytes that are read through to have them in the page cache: what is larger would not stay there.
MOST_FILLED = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
LEAST_SECONDS = 30  # of watching memory after warm-up, before "no growth" means anything
_BUSY = 0.7  # processors at work, or share of the records read from a disk, that bound a feed


def loading(
    folder: str, spec: DatasetSpec, split: str, targets: Targets, *, seconds: float,
    step_ms: float, drop: bool, limits: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:  # fmt: skip
    """Measures NumPy's feed, and TensorFlow's where it is installed.

    Args:
      folder: the dataset, a path or a URL.
      spec: its description.
      split: which split; it holds patches.
      targets: what to compare with.
      seconds: how long each figure is measured, at least.
      step_ms: of a simulated training step.
      drop: empty all of the page cache for what is measured cold.
      limits: of this machine, by ``limits.measure_limits``.

    Returns:
      Results, and a section for the JSON: ``batch_size``, ``page_cache`` (how it was emptied),
      ``feeds`` (name to what was measured), ``memory`` (the same), ``warnings``.

    Raises:
      DatasetError: it cannot be read.
      JobError: a process that measures broke off.
    """
    batch_size, drop, normalize, warnings = _possible(spec, split, targets, drop)
    files = _files(folder, spec, split)
    section: dict[str, Any] = {
        "batch_size": batch_size, "step_ms": step_ms, "warnings": warnings, "feeds": {},
        "disk_mb_per_s": limits.get("read_mb_per_s") if not limits.get("cached") else None,
        "page_cache": ("drop_caches" if drop else "posix_fadvise") if files else "remote",
    }  # fmt: skip
    fill = sum(map(os.path.getsize, files)) <= MOST_FILLED
    results = []
    for feed in ("Feed", "load"):
        found = None
        if feed == "Feed" or has_tensorflow():
            found = measured(Job(
                folder, split, feed, batch_size, targets.loading.batches, seconds, step_ms / 1e3,
                files, drop, fill, normalize,
            ))  # fmt: skip
            section["feeds"][feed] = found
        view = _View(feed, found, spec, split, targets, section)
        results += view.results()
    return results, section


def _possible(
    spec: DatasetSpec, split: str, targets: Targets, drop: bool
) -> tuple[int, bool, str | None, list[str]]:
    """What can be measured of what is asked: patches a batch, whether all of the page cache is
    emptied, the feed's ``normalize``, and warnings where it is something else."""
    warnings: list[str] = []
    asked = targets.loading.batch_size
    batch_size = min(asked, spec.split(split).num_examples)
    if batch_size < asked:
        warnings.append(
            f"{split} has {batch_size:,} patches, fewer than a batch of {asked:,}: batches of "
            f"{batch_size:,} were measured, without a verdict; give a smaller --batch_size"
        )
    if drop and not cold.may_drop():
        drop = False
        warnings.append(
            f"--drop_caches: no permission to write {cold.DROP}: the shards alone were taken out "
            "of the page cache (posix_fadvise); run as root to empty all of it"
        )
    own = spec.config.get("statistics", {}).get("normalize") or ""
    if program := ":" in own:
        warnings.append(f"images are fed as they are: {own} is a program, and is not run")
    return batch_size, drop, None if program else "auto", warnings


def has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _files(folder: str, spec: DatasetSpec, split: str) -> tuple[str, ...]:
    """A split's shards and their indexes, where they are this machine's."""
    if is_remote(folder):
        return ()
    shards = [s.path for s in spec.split(split).shards]
    found = (join(folder, name) for path in shards for name in (path, index_path(path)))
    return tuple(path for path in found if os.path.isfile(path))


class _View:
    """One feed's figures as results.

    Args:
      found: what ``worker.measure`` gave; None where the feed cannot run.
      section: of the JSON, of all feeds.
    """

    def __init__(
        self, feed: str, found: dict[str, Any] | None, spec: DatasetSpec, split: str,
        targets: Targets, section: dict[str, Any],
    ):  # fmt: skip
        self._feed, self._found, self._spec = feed, found, spec
        self._targets, self._section, self._batch = targets, section, section["batch_size"]
        held = spec.split(split)
        self._record = held.num_bytes / held.num_examples
        self._whole = self._batch == targets.loading.batch_size
        self._small = held.num_examples < self._batch * targets.loading.batches

    def results(self) -> list[dict[str, Any]]:
        if self._found is None:
            return [self._batches("warm", [], {}, words="TensorFlow is not installed")]
        opened, warm = self._found["opened"], self._found["warm"]
        words = self._why_not_cold(opened)
        again = "the split is read more than once" if self._small else ""
        missing = warm["resident"] is not None and warm["resident"] < 1 - LEFT
        part = f"{warm['resident']:.0%} of it in the page cache" if missing else ""
        return [
            self._batches("warm", warm["seconds"], warm, part),
            self._batches("cold", [] if words else opened["seconds"], opened, words or again),
            self._first(opened, not words),
            *self._utilizations(),
            *self._memory(),
        ]

    def _batches(
        self, how: str, seconds: list[float], used: dict[str, Any], words: str = ""
    ) -> dict[str, Any]:
        target, count = self._targets.loading, self._targets.loading.batches
        rates: dict[str, Any] = {}
        if seconds:
            rate = count * self._batch / float(np.median(seconds))
            rates = {
                "p95": float(np.percentile(seconds, 95)), "patches_per_s": rate,
                "mb_per_s": rate * self._record / 1e6,
            }  # fmt: skip
            speed = f"{rate:,.0f} patches/s, {rates['mb_per_s']:,.0f} MB/s"
            words = f"{speed}, {words}" if words else speed
        return result(
            f"{self._feed}: {count} x {self._batch} shuffled" + ", cold" * (how == "cold"),
            seconds, "s", target.seconds if self._whole else None, "at most",
            self._advice(f"{count} batches took {{value:.2f}} s {how}", used),
            words=words, **rates,
        )  # fmt: skip

    def _advice(self, what: str, used: dict[str, Any]) -> str:
        """What bounds the feed, by what it used meanwhile, and what helps against that."""
        if not used:
            return ""
        busy, disk, most = used["cores_busy"], used["disk_mb_per_s"], self._section["disk_mb_per_s"]
        said = (
            f"{what} with {busy:.1f} of {os.cpu_count()} processors busy and {disk:.0f} "
            + (f"of the {most:.0f} " if most else "")
            + "MB/s read from the disk: "
        )
        if self._section["page_cache"] == "remote" and busy < _BUSY:
            return said + "the feed waits for its store: give it cache=FOLDER, or copy the dataset"
        if busy >= _BUSY and self._spec.compression != "none":
            return said + "unpacking bounds it: run `scenefeed shard --compression none`"
        if busy >= _BUSY:
            return said + (
                "the processor bounds it: decode fewer features=, or give each of several "
                "processes its shard=(i, n)"
            )
        if disk > 1:
            return said + "the disk bounds it: use a faster one, or cache='memory'"
        return said + "it waited for something else: measure again when the machine is quiet"

    def _why_not_cold(self, opened: dict[str, Any]) -> str:
        if self._section["page_cache"] == "remote":
            return "a remote dataset: what its store keeps in memory is not known"
        left = opened["resident"]
        if None in left:
            return "the system does not tell whether the files left the page cache: not yours"
        if max(left) > LEFT:
            return f"{max(left):.0%} of the shards stay in memory: another process holds them, or tmpfs"
        return ""

    def _first(self, opened: dict[str, Any], is_cold: bool) -> dict[str, Any]:
        return result(
            f"{self._feed}: first batch" + ", cold" * is_cold, opened["first_batch_seconds"], "s",
            self._targets.loading.first_batch_seconds if self._whole else None, "at most",
            self._advice("the first batch took {value:.2f} s", opened),
        )  # fmt: skip

    def _utilizations(self) -> list[dict[str, Any]]:
        assert self._found is not None
        share, step = self._targets.utilization, self._section["step_ms"]
        target = 100 * share if share is not None and self._whole else None
        runs = [(f"steps of {step:g} ms", step / 1e3, self._found["utilization"])]
        if model := self._found.get("model"):
            runs.append(
                (f"a model on {model['device']}", model["step_seconds"], model["utilization"])
            )
        each = np.median(self._found["warm"]["seconds"]) / self._targets.loading.batches
        return [
            result(
                f"{self._feed}: utilization, {words}", [100 * x for x in shares], "%", target,
                "at least",
                self._advice(
                    f"an accelerator works {{value:.0f}} % of the time: a step takes "
                    f"{1e3 * seconds:.0f} ms, a batch {1e3 * each:.0f} ms",
                    self._found["warm"],
                ),
            )
            for words, seconds, shares in runs
        ]  # fmt: skip

    def _memory(self) -> list[dict[str, Any]]:
        assert self._found is not None
        held, size = self._found["memory"], self._batch * self._record / 2**20
        lines = [result(
            f"peak memory, {self._feed}", [held["peak_bytes"] / 2**30], "GiB",
            self._targets.memory_gib, "at most",
            f"{self._feed} held {{value:.2f}} GiB; a batch is {size:.0f} MiB: use a smaller "
            "batch_size or prefetch",
            exact=True,
        )]  # fmt: skip
        grown = held["growth"]
        if grown and grown["leak"]:
            self._section["warnings"].append(
                f"the memory of {self._feed} grew by {grown['bytes'] / 2**20:.0f} MiB in "
                f"{grown['seconds']:.0f} s, which is no noise: a leak, if --seconds 600 says so "
                "too: please report it"
            )
        return [*lines, self._growth(grown)]

    def _growth(self, grown: dict[str, Any] | None) -> dict[str, Any]:
        rates, shown, words, advice = [], "too short to tell", "give --seconds 60", ""
        target = self._targets.memory.growth_mib_per_minute
        if grown:
            low, high, rate = (grown[k] * 60 / 2**20 for k in ("low", "high", "bytes_per_s"))
            rates, over = [rate], f"over {grown['seconds']:.0f} s"
            if grown["leak"] or grown["seconds"] >= LEAST_SECONDS:
                shown = "" if low > 0 else "none seen"
                words = f"{over}, 95 %: {low:.3g} to {high:.3g} MiB/min"
                advice = (
                    f"{self._feed} grew by {{value:.1f}} MiB a minute {words}: measure for longer "
                    "(--seconds 600); what goes on growing is a leak: please report it"
                )
            else:
                target, words = None, f"{over}: {words}"
            if target is not None and rate > target and not grown["leak"]:
                target, words = None, f"{words}, within its noise"
        return result(
            f"memory growth, {self._feed}", rates, "MiB/min", target, "at most", advice,
            exact=True, shown=shown, words=words,
        )  # fmt: skip

"""check: conversion rate, loading time and memory against the targets."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..loader import Reader
from ..loader.spec import DatasetError, DatasetSpec
from .results import METRICS

GROUP = 5  # batches that are timed together, as in the target
GROUPS = 9  # groups timed; the median counts


def check(
    folder: Path, split: str | None, batch_size: int,
    convert_mb_per_s: float, load_seconds: float, memory_gib: float,
) -> dict[str, Any]:  # fmt: skip
    """Measures, and compares with the targets.

    Loading is timed over ``GROUPS`` groups of five shuffled batches after a first group that
    warms up; epochs repeat, and a batch is always full (records come again where the split is
    smaller than a batch).

    Returns:
      ``results``: name, value, unit, target, met, advice each; ``met``: all of them.

    Raises:
      DatasetError: no complete dataset, or no such split.
    """
    spec = DatasetSpec.load(str(folder))
    chosen = split or max(spec.splits, key=lambda k: spec.splits[k].num_examples)
    count = spec.split(chosen).num_examples
    results = _conversion(folder, convert_mb_per_s, memory_gib)
    feeds: dict[str, Callable[[], Iterator[Any]]] = {}
    if spec.compression == "none":
        feeds["Reader"] = lambda: _reader_batches(folder, chosen, batch_size)
    if importlib.util.find_spec("tensorflow"):
        feeds["load"] = lambda: _load_batches(folder, chosen, batch_size)
    if not feeds:
        raise DatasetError("compressed shards need TensorFlow: pip install 'scenefeed[tensorflow]'")
    for name, batches in feeds.items():
        times = _time_groups(batches())
        results.append(_result(
            f"{name}: {GROUP} x {batch_size} shuffled", statistics.median(times), "s",
            load_seconds, "at most",
            f"{name} took {{value:.2f}} s: convert to an uncompressed dataset on a local disk, "
            "or use smaller tiles",
            spread=[min(times), max(times)],
            patches_per_s=GROUP * batch_size / statistics.median(times),
        ))  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    results.append(_result(
        "peak memory, loading", peak / 2**30, "GiB", memory_gib, "at most",
        "loading held {value:.2f} GiB: use a smaller --batch_size or tile size",
    ))  # fmt: skip
    return {
        "dataset": str(folder), "split": chosen, "records": count, "cores": os.cpu_count(),
        "results": results, "met": all(r["met"] is not False for r in results),
    }  # fmt: skip


def _conversion(folder: Path, mb_per_s: float, memory_gib: float) -> list[dict[str, Any]]:
    from .convert import read_metrics

    metrics = read_metrics(folder)
    measured, spent = metrics.get("conversion"), metrics["worker_seconds"]
    rate = measured["mb_per_s"] if measured else None
    slowest = max(spent, key=spent.get) if spent else "start-up"
    results = [
        _result(
            "conversion",
            rate,
            "MB/s",
            mb_per_s,
            "at least",
            f"conversion ran at {{value:.1f}} MB/s: the slowest step was {slowest}; give it more "
            "cores or a faster disk (small inputs are mostly start-up)",
            hours_per_100_gb=100e3 / rate / 3600 if rate else None,
        )
    ]
    results.append(_result(
        "peak memory, conversion", metrics["peak_memory_bytes"] / 2**30, "GiB", memory_gib,
        "at most", "conversion held {value:.2f} GiB: use fewer workers (--direct_num_workers)",
    ))  # fmt: skip
    return results


def _result(
    name: str, value: float | None, unit: str, target: float, side: str, advice: str, **more: Any
) -> dict[str, Any]:
    met = None  # not measured
    if value is not None:
        met = value <= target if side == "at most" else value >= target
    return {
        "name": name, "value": value, "unit": unit, "target": target, "side": side, "met": met,
        "advice": advice.format(value=value) if value is not None else "", **more,
    }  # fmt: skip


def _reader_batches(folder: Path, split: str, batch_size: int) -> Iterator[Any]:
    import numpy as np

    reader = Reader(str(folder), split)
    for epoch in itertools.count():
        order = np.random.default_rng(epoch).permutation(len(reader))
        if len(order) < batch_size:
            order = np.resize(order, batch_size)
        for i in range(0, len(order) - batch_size + 1, batch_size):
            yield reader.batch(order[i : i + batch_size])


def _load_batches(folder: Path, split: str, batch_size: int) -> Iterator[Any]:
    with _silent_stderr():
        from ..loader.tfdata import load

    feed = load(str(folder), split, batch_size=batch_size)
    if len(feed) == 1:
        feed = feed.unbatch().repeat().batch(batch_size)
    else:
        feed = feed.filter(lambda x: len(x["row"]) == batch_size).repeat()
    return iter(feed)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """TensorFlow greets from C++, past Python's own stderr; a check on a CPU needs no GPU."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _time_groups(batches: Iterator[Any]) -> list[float]:
    """Seconds of each group of five batches, the first group left out."""
    times = []
    for _ in range(GROUPS + 1):
        start = time.perf_counter()
        for _ in range(GROUP):
            next(batches)
        times.append(time.perf_counter() - start)
    return times[1:]


def table(report: dict[str, Any]) -> str:
    """The results as a table for a terminal."""
    rows = [("", "measured", "target", "")]
    for r in report["results"]:
        sign = "<=" if r["side"] == "at most" else ">="
        rows.append((
            r["name"], "not measured" if r["value"] is None else f"{r['value']:.3g} {r['unit']}", f"{sign} {r['target']:g} {r['unit']}",
            {True: "ok", False: "MISSED", None: ""}[r["met"]],
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    head = f"{report['dataset']}: split {report['split']}, {report['records']:,} records, " + (
        f"{report['cores']} cores ({METRICS} for the conversion)"
    )
    return "\n".join([head, *lines])

"""Samples for alternatives, and one run through in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scenefeed.pipelines.compare import ALTERNATIVES
from scenefeed.pipelines.compare.alternative import Sample
from scenefeed.pipelines.compare.worker import _compare, feed, write


def sample(folder: Path, images: np.ndarray, classes=None, total=None) -> Sample:
    folder.mkdir()
    np.save(folder / "images.npy", images)
    if classes is not None:
        np.save(folder / "classes.npy", classes)
    low, high = images.min(axis=(0, 1, 2)), images.max(axis=(0, 1, 2))
    return Sample(
        str(folder), len(images), total or len(images), images.shape[1:], images.dtype.name,
        bool(np.isfinite(images).all()), tuple(low.tolist()), tuple(high.tolist()),
    )  # fmt: skip


def run_through(name: str, taken: Sample, folder: Path) -> tuple[dict, np.ndarray, np.ndarray]:
    """Its figures; an epoch's patches as it feeds them; where they lie in the source."""
    alternative = ALTERNATIVES[name](taken, batch_size=16)
    assert not alternative.why_not()
    folder.mkdir()
    figures = write(alternative, folder) | feed(alternative, folder)
    batches = [alternative.array(b).copy() for b in alternative.feed(folder / "out")]
    assert [len(b) for b in batches[:-1]] == [16] * (len(batches) - 1)
    again = type(alternative)(taken, 16)
    again.array = np.asarray
    positions = _compare(again, batches, np.load(folder / "hashes.npy"))
    return figures, np.concatenate(batches), positions

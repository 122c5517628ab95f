"""compare: what a user could pick instead, each on the user's own patches."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ...loader.spec import DatasetSpec
from ...loader.storage import is_remote
from ...transforms.errors import ConfigError
from ..check.noise import watching
from . import files, hdf5, ours, records, text
from .alternative import BUFFER, Alternative, Sample
from .sample import check_room, put_down, size_of
from .worker import GROUP, Task

KIND = "scenefeed compare"
ALTERNATIVES: dict[str, type[Alternative]] = {
    a.name: a
    for a in (
        files.Png, files.Tiff, files.Npy, text.Csv, hdf5.Generator, hdf5.Interleave,
        hdf5.TensorflowIo, records.Cache, records.Recipe, ours.Stream, ours.Index, ours.Numpy,
        ours.Torch,
    )
}  # fmt: skip
_PACKAGES = ("scenefeed", "tensorflow", "tensorflow-io", "torch", "numpy", "h5py", "pyarrow")


def compare(
    out: str, split: str | None = None, *, alternatives: Sequence[str] = (),
    patches: int | None = None, batch_size: int = 1024, work: str | None = None,
    told: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:  # fmt: skip
    """Writes and feeds a sample of a dataset's patches in each of several ways.

    Args:
      out: a converted dataset, a folder or a URL.
      split: which split; the largest by default.
      alternatives: names of ``ALTERNATIVES``; all by default.
      patches: of the sample; as many as ``sample.BYTES`` hold, ``sample.MOST`` at most.
      batch_size: patches a batch.
      work: where they are written, in a folder of their own that is removed; by default beside
        the dataset, so on its disk, or in the system's temporary folder for a remote one.
      told: called with what is done next.

    Returns:
      ``rows``, one an alternative: name, title, ours, status (run, not run, failed) and why;
      write_s, bytes, files, seconds (median) and spread of ``GROUP`` batches, samples, peak_bytes
      of the feed, write_peak_bytes, shuffle, lossy, resume.

    Raises:
      ConfigError: an unknown alternative, or no room.
      DatasetError: no complete dataset, an empty split, a damaged shard.
    """
    chosen = [_known(name) for name in alternatives or ALTERNATIVES]
    spec = DatasetSpec.load(out)
    split = split or max(spec.splits, key=lambda k: spec.splits[k].num_examples)
    count, size = size_of(spec, split, patches)
    parent = Path(
        work or (tempfile.gettempdir() if is_remote(out) else Path(out).absolute().parent)
    )
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"{parent}: not a folder that can be written: give --work")
    check_room(parent, count, size, max(ALTERNATIVES[name].room for name in chosen))
    with (
        tempfile.TemporaryDirectory(prefix="scenefeed-compare-", dir=parent) as folder,
        watching() as seen,
    ):
        told(f"reading {count:,} patches")
        sample = put_down(out, spec, split, count, Path(folder))
        rows = [_measured(name, sample, batch_size, Path(folder), told) for name in chosen]
    return {
        "kind": KIND, "dataset": out, "fingerprint": spec.fingerprint, "split": split,
        "patches": count, "of": sample.total, "bytes": size, "shape": sample.shape,
        "dtype": sample.dtype, "batch_size": batch_size, "batches": GROUP,
        "buffer": sample.scaled(BUFFER), "machine": _machine(seen.busy), "rows": rows,
        "warnings": _warnings(seen.warning, sample, batch_size),
    }  # fmt: skip


def _known(name: str) -> str:
    if name not in ALTERNATIVES:
        near = difflib.get_close_matches(name, ALTERNATIVES, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(ALTERNATIVES)}"
        raise ConfigError(f"--alternatives: no alternative {name!r}: {hint}")
    return name


def _measured(
    name: str, sample: Sample, batch_size: int, parent: Path, told: Callable[[str], None]
) -> dict[str, Any]:
    """One row: written by one process, fed by another, removed."""
    alternative = ALTERNATIVES[name](sample, batch_size)
    row: dict[str, Any] = {
        "name": name, "title": alternative.title, "ours": alternative.ours, "status": "not run",
        "why": alternative.why_not(), "lossy": alternative.lossy, "resume": alternative.resume,
    }  # fmt: skip
    if row["why"]:
        return row
    folder = parent / name
    folder.mkdir()
    try:
        told(f"{name}: writing")
        written = _process(Task(name, "write", sample, str(folder), batch_size))
        written["write_peak_bytes"] = written.pop("peak_bytes")
        told(f"{name}: feeding")
        fed = _process(Task(name, "feed", sample, str(folder), batch_size))
    except _Failed as e:
        return row | {"status": "failed", "why": str(e)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    times = fed["samples"]
    spread = [min(times), max(times)]
    return row | written | fed | {
        "status": "run", "seconds": statistics.median(times), "spread": spread,
    }  # fmt: skip


class _Failed(Exception):
    """Why a process ended without figures."""


def _process(task: Task) -> dict[str, Any]:
    done = subprocess.run(
        # Not of modules in this folder, which may be somebody else's dataset.
        [sys.executable, "-P", "-m", f"{__name__}.worker", json.dumps(dataclasses.asdict(task))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode < 0:
        raise _Failed(
            f"{task.step}: killed by signal {-done.returncode}, as where memory runs out: "
            "give fewer --patches"
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise _Failed(f"{task.step}: {said[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _machine(busy: float | None) -> dict[str, Any]:
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return {
        "cores": os.cpu_count(), "platform": platform.platform(), "busy": busy,
        "python": platform.python_version(),
        "versions": {k: found[k] for k in _PACKAGES if k in found},
    }  # fmt: skip


def _warnings(noise: str | None, sample: Sample, batch_size: int) -> list[str]:
    said = [noise] if noise else []
    if sample.count < GROUP * batch_size:
        said.append(
            f"{sample.count:,} patches are less than {GROUP} batches of {batch_size:,}: seconds are "
            "scaled from epochs that are shorter, and mostly what beginning one takes; give a "
            "smaller --batch_size or more --patches"
        )
    return said

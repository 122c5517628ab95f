"""Figures as event files for TensorBoard, by its own writer: TensorFlow is not needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..loader.storage import is_remote
from ..transforms.errors import ConfigError


def prepare(folder: str) -> None:
    """Makes sure, before long work begins, that figures can be written to ``folder``.

    Raises:
      ConfigError: tensorboard is not installed.
      OSError: the folder cannot be made.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "--tensorboard: tensorboard is not installed: pip install 'scenefeed[tensorflow]'"
        )
    if not is_remote(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)


def write_scalars(folder: str, scalars: Mapping[str, float]) -> None:
    """Writes one value a tag; those of the next call with this folder stand a step further."""
    from tensorboard.summary import Writer

    earlier = [] if is_remote(folder) else list(Path(folder).glob("events.out.tfevents.*"))
    writer = Writer(folder)
    for tag, value in scalars.items():
        writer.add_scalar(tag, value, len(earlier))
    writer.close()


def of_check(report: Mapping[str, Any]) -> dict[str, float]:
    """What ``check`` measured, and its targets, by tag."""
    found: dict[str, float] = {}
    for r in report["results"]:
        if r["value"] is None or r["shown"]:
            continue  # a point in a chart would say what the figure does not
        found[f"{r['name']}/{r['unit']}"] = r["value"]
        if r["target"] is not None:
            found[f"{r['name']}/target"] = r["target"]
        if r.get("patches_per_s"):
            found[f"{r['name']}/patches a second"] = r["patches_per_s"]
    return found

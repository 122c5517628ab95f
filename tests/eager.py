"""Beam in one line, for tests. A module of its own: workers import it by name."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

_COLLECTED: list[list[Any]] = []


def run_beam(elements: list[Any], transform: Any) -> list[Any]:
    """What a transform yields for these elements, by the in-process runner."""
    _COLLECTED.append([])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        found = pipeline | beam.Create(elements) | transform
        _ = found | "Collect" >> beam.Map(_collect, len(_COLLECTED) - 1)
    return _COLLECTED[-1]


def _collect(element: Any, run: int) -> None:
    _COLLECTED[run].append(element)

"""Beam without what a conversion on this machine has no use for.

Beam imports whatever of its extras is installed. BigQuery, Pub/Sub and pandas' types take 0.8
core-seconds of each start, half of Beam's whole import.
"""

from __future__ import annotations

import importlib
import sys

_UNUSED = ("google.cloud.bigquery", "google.cloud.pubsub", "pandas")


def import_beam() -> None:
    """Imports Beam, if that is not done, as if these were not installed: an extra of Beam's that
    is not there is no error. Afterwards they can be imported as ever."""
    if "apache_beam" in sys.modules:
        return
    hidden = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        importlib.import_module("apache_beam")
    finally:
        for name in hidden:
            sys.modules.pop(name, None)

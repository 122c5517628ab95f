"""The dataset's format and the feeds.

Importing this brings numpy alone; ``load`` and ``mix`` import TensorFlow when they are called.
"""

from __future__ import annotations

from typing import Any

from .feed import Feed
from .reader import Reader
from .spec import DatasetError, DatasetSpec
from .statistics import Statistics

__all__ = ["DatasetError", "DatasetSpec", "Feed", "Reader", "Statistics", "load", "mix"]


def __getattr__(name: str) -> Any:
    if name in ("load", "mix"):
        from . import tfdata

        return getattr(tfdata, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

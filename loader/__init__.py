"""The dataset's format and the feeds.

Importing this brings numpy alone; ``load`` imports TensorFlow when it is called.
"""

from __future__ import annotations

from typing import Any

from .reader import Reader
from .spec import DatasetError, DatasetSpec

__all__ = ["DatasetError", "DatasetSpec", "Reader", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from .tfdata import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

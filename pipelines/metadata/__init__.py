"""Metadata that others read, beside dataset.json: one module a format."""

from __future__ import annotations

from .writing import FILES, forget, write_metadata

__all__ = ["FILES", "forget", "write_metadata"]

"""The command line: flags to one validated configuration."""

from __future__ import annotations

import argparse
import glob
import os
from pathlib import Path
from typing import Any

# Each flag, and the YAML key that it wins over.
CONFIG_FLAGS: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "bands": ("scenes", "bands"),
    "tile_size": ("tile", "size"),
    "stride": ("tile", "stride"),
    "edge": ("tile", "edge"),
    "nodata": ("clean", "nodata"),
    "min_valid": ("clean", "min_valid"),
    "fill": ("clean", "fill"),
    "clip": ("clean", "clip"),
    "to_db": ("clean", "to_db"),
    "split_by": ("split", "by"),
    "block": ("split", "block"),
    "buffer": ("split", "buffer"),
    "num_shards": ("records", "num_shards"),
    "shard_mb": ("records", "shard_mb"),
    "seed": ("records", "seed"),
    "compression": ("records", "compression"),
    "normalize": ("statistics", "normalize"),
}


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration keys that flags set, nested as in YAML."""
    values: dict[str, Any] = {}
    for flag, path in CONFIG_FLAGS.items():
        value = getattr(args, flag, None)
        if value is None:
            continue
        section = values
        for key in path[:-1]:
            section = section.setdefault(key, {})
        section[path[-1]] = _value(flag, value)
    if getattr(args, "scenes", None):
        values.setdefault("scenes", {})["paths"] = args.scenes
    return values


def _value(flag: str, value: Any) -> Any:
    if flag == "bands":
        return [b.strip() for b in value.split(",")]
    if flag in ("clip", "fill"):
        parts = [_number(x) for x in value.split(",")]
        return parts[0] if flag == "fill" and len(parts) == 1 else parts
    return _number(value) if flag == "nodata" else value


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` wins, key by key."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        # Shares belong together: those of one side count, not a mixture.
        nested = isinstance(value, dict) and isinstance(held, dict) and key != "fractions"
        merged[key] = merge(held, value) if nested else value  # type: ignore[arg-type]
    return merged


def config_from(args: argparse.Namespace, below: dict[str, Any] | None = None) -> tuple[Any, Path]:
    """The configuration, and the folder its paths are relative to.

    Scenes on the command line are relative to where the command runs, those of a YAML file to
    the file.

    Raises:
      ConfigError: something in it is wrong.
    """
    from ..transforms.config import load_yaml, parse

    values, base, where = dict(below or {}), Path.cwd(), "command line"
    if args.config:
        base, where = Path(args.config).absolute().parent, args.config
        values = layer(values, _with_zones(load_yaml(args.config), base))
    given = overrides(args)
    if given.get("scenes", {}).get("paths"):
        given["scenes"]["paths"] = [from_here(p) for p in args.scenes]
    return parse(layer(values, given), where), base


def _with_zones(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """The polygons of a split by their absolute path: `scenefeed shard` goes without the YAML."""
    split = values.get("split")
    if not isinstance(split, dict):
        return values
    from ..loader.storage import is_remote  # brings NumPy, which --help can do without

    path = split.get("path")
    if isinstance(path, str) and not is_remote(path):
        return {**values, "split": {**split, "path": str(base / split["path"])}}
    return values


def layer(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``merge``, without what ``above`` makes meaningless: what belongs to another split than the
    one asked for, a shard count where a size is asked for."""
    merged = merge(below, above)
    asked, held = (x.get("split") or {} for x in (above, below))
    if asked.get("by", held.get("by")) != held.get("by"):
        kept = {k: v for k, v in held.items() if k == "fractions"}
        merged["split"] = merge(kept, asked)
    asked = above.get("records") or {}
    if "shard_mb" in asked and "num_shards" not in asked:
        merged["records"] = {k: v for k, v in merged["records"].items() if k != "num_shards"}
    return merged


def from_here(path: str) -> str:
    """A scene of the command line, which may be a pattern, as an absolute one."""
    from ..loader.storage import is_remote

    if is_remote(path):
        return path
    expanded = os.path.expanduser(path)
    if os.path.isabs(expanded) or not glob.has_magic(path):
        return os.path.join(os.getcwd(), expanded)
    return os.path.join(glob.escape(os.getcwd()), expanded)

"""Which of a STAC item's assets hold a scene's pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from .scenes import RASTER_SUFFIXES
from .sections import Columns

_RASTERS = re.compile(r"image/(tiff|jp2|vnd\.stac\.geotiff)|application/(x-)?(hdf|netcdf)")
_PREVIEWS = frozenset(("thumbnail", "overview", "visual", "metadata"))


def is_item(entry: Mapping[str, Any]) -> bool:
    return entry.get("type") == "Feature" and isinstance(entry.get("assets"), dict)


def item_files(
    assets: Mapping[str, Any], columns: Columns, bands: tuple[str, ...] | None
) -> tuple[str | None, dict[str, str], str]:
    """An item's files: (the one with all bands, band name to file, what is wrong).

    Assets are chosen by ``columns`` if it names them; by the wanted bands' names, which are the
    assets' keys or those of their only band; else the one that holds data, or all that do.
    """
    usable = {k: str(a["href"]) for k, a in assets.items() if isinstance(a, dict) and a.get("href")}
    has = f"(it has {', '.join(usable) or 'none'})"
    if columns.path:
        file = usable.get(columns.path)
        return file, {}, "" if file else f"has no asset {columns.path} {has}"
    keys = dict(columns.bands or {})
    if not keys and bands:
        by_name = {n: k for k in reversed(usable) for n in _band_names(assets[k])}
        by_name |= {k: k for k in usable}
        keys = {b: by_name[b] for b in bands if b in by_name}
    if not keys:
        data = _data_assets({k: assets[k] for k in usable})
        if len(data) == 1:
            return usable[data[0]], {}, ""
        keys = {} if bands else {k: k for k in data}
    wanted = bands or tuple(keys)
    files = {b: usable[keys[b]] for b in wanted if keys.get(b) in usable}
    missing = ", ".join(b for b in wanted if b not in files)
    if not files and not missing:
        return None, {}, f"has no asset that is a raster {has}"
    return None, files, f"has no asset for band {missing} {has}" if missing else ""


def _band_names(asset: Mapping[str, Any]) -> list[str]:
    """What an asset's only band is called: ``bands`` of STAC 1.1, ``eo:bands`` before it."""
    for key in ("bands", "eo:bands"):
        found = asset.get(key)
        if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict):
            names = (found[0].get(n) for n in ("name", "eo:common_name", "common_name"))
            return [n for n in names if isinstance(n, str)]
    return []


def _data_assets(assets: Mapping[str, Any]) -> list[str]:
    """Those with the role ``data``; else rasters by media type or suffix, but no previews."""
    roles = {k: a.get("roles") or [] for k, a in assets.items()}
    data = [k for k in assets if "data" in roles[k]]
    if data:
        return data
    kept = {k: a for k, a in assets.items() if not _PREVIEWS & {k, *roles[k]}}
    return [
        k for k, a in kept.items()
        if _RASTERS.match(str(a.get("type", "")))
        or ("type" not in a and os.path.splitext(str(a["href"]))[1].lower() in RASTER_SUFFIXES)
    ]  # fmt: skip

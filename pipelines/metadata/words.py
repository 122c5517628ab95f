"""What every format says of a dataset, in words."""

from __future__ import annotations

from typing import Any

import orjson

from ...loader.spec import DatasetSpec, Feature

# Tells our files from those that somebody else put there under the same names.
MADE = "Made by scenefeed"

_KEYS = {
    "scene_id": "The scene that the patch is of.",
    "row": "Of the patch's upper left pixel in its scene.",
    "col": "Of the patch's upper left pixel in its scene.",
}


def made(spec: DatasetSpec) -> str:
    return f"{MADE} {spec.created_by.removeprefix('scenefeed').strip()}".rstrip() + "."


def about(spec: DatasetSpec) -> str:
    """The configuration's description, or what can be told of the dataset in one sentence."""
    image = spec.features["image"]
    height, width, bands = image.shape
    labels = ", ".join(f"{n} ({spec.features[n].kind})" for n in spec.labels)
    kept = sum(s.num_examples for s in spec.splits.values())
    said = f"{kept:,} patches of {height} x {width} pixels of {bands} bands, {image.dtype}" + (
        f", with {labels}." if labels else ", without labels."
    )
    return plain(spec.config.get("description", "")) or said


def plain(text: Any) -> str:
    """Text in one line."""
    return " ".join(str(text).split())


def units(spec: DatasetSpec) -> dict[str, str]:
    """What each band's values are in: what cleaning made of them, else what the source has."""
    clean, bands = spec.config.get("clean", {}), spec.features["image"].bands
    if baked := baked_by(spec):
        return dict.fromkeys(bands, f"normalized by {baked}")
    decibels, computed = clean.get("to_db") or (), clean.get("features") or {}
    return {
        band: f"computed: {computed[band]}" if band in computed
        else "dB" if decibels is True or band in decibels
        else "radians" if clean.get("complex") and band.endswith("_phase")
        else "as in the source"
        for band in bands
    }  # fmt: skip


def baked_by(spec: DatasetSpec) -> str:
    """The normalization that the records themselves went through, or ""."""
    statistics = spec.config.get("statistics") or {}
    return str(statistics["normalize"]) if statistics.get("bake") else ""


def described(name: str, spec: DatasetSpec) -> str:
    """A feature in a sentence or three."""
    feature = spec.features[name]
    if name in _KEYS:
        return _KEYS[name]
    if feature.kind == "image":
        parts = [", ".join(f"{b} ({u})" for b, u in units(spec).items()) + "."]
        if feature.scale:
            parts.append("A value is stored x {:g} + {:g}.".format(*feature.scale))
    else:
        kinds = {"mask": "One value a pixel.", "class": "A class by its id.", "text": "Text.",
                 "value": "A number; NaN where there is none.", "int": "An integer."}  # fmt: skip
        parts = [kinds[feature.kind]]
    if feature.names:
        parts.append(", ".join(f"{i} {plain(n)}" for i, n in enumerate(feature.names)) + ".")
    if feature.ignore:
        values = ", ".join(str(v) for v in feature.ignore)
        parts.append(f"{values}: do not learn from this.")
    return " ".join(parts)


def document(value: Any) -> str:
    """As JSON; a number that JSON does not have becomes null."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def class_names(feature: Feature) -> list[str]:
    """A class label's names where each tells one class; else none."""
    names = [plain(n) for n in feature.names]
    return names if all(names) and len(set(names)) == len(names) else []

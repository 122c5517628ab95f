"""What a report says, as plain numbers: from a dataset's files, and from a sample of its records."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ...loader.spec import DatasetError, DatasetSpec, Feature
from ..check.targets import PUBLISHED
from ..results import ERRORS, METRICS, SCENES
from ..separation import gaps, read_georeferences
from .distributions import class_counts, describe, fills, has_bins, has_classes, valid
from .measured import read_check, read_compare
from .places import Places, find_places
from .records import Records, by_scene
from .sheets import Sheet, joined, limits_of, pick

STATISTICS = "statistics.json"


@dataclasses.dataclass
class Gathered:
    """Everything a page shows.

    Attributes:
      spec: the dataset.
      facts: what ``--json`` writes: numbers and texts alone.
      places: where the scenes are.
      patches: scene to split to how many of its patches.
      corners: split to scene to its patches' (rows, columns); None where they were not read.
      sheets: pictures; ``sheets_left`` more had no room.
      limits: of the bands that pictures show.
    """

    spec: DatasetSpec
    facts: dict[str, Any]
    places: Places
    patches: dict[str, dict[str, int]]
    corners: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] | None
    sheets: list[Sheet]
    sheets_left: int
    limits: list[tuple[float, float]]


def gather(out: Path, check: Path | None = None, compare: Path | None = None) -> Gathered:
    """Reads a dataset: its files, the keys of its records, and a sample of them.

    Args:
      out: the dataset.
      check, compare: what these commands wrote by ``--json``, if anything.

    Raises:
      DatasetError: no complete dataset, or a shard is missing or damaged.
      ConfigError: what is given as check's or compare's figures is not that.
    """
    spec = DatasetSpec.load(str(out))
    measured = {
        "check": read_check(check, spec) if check else None,
        "compare": read_compare(compare, spec) if compare else None,
    }
    records = Records(out, spec)
    statistics, notes = _statistics(out, spec)
    metrics, scenes = _json(out / METRICS), _lines(out / SCENES)
    columns = records.columns()
    corners = None if columns is None else {k: by_scene(c) for k, c in columns.items()}
    facts: dict[str, Any] = {
        "name": spec.name, "fingerprint": spec.fingerprint, "inputs": spec.inputs,
        "created_by": spec.created_by, "config": spec.config,
        "features": {k: f.to_json() for k, f in spec.features.items()},
        "splits": _splits(spec), "scenes": _scenes(scenes), "errors": _errors(out),
        "conversion": _conversion(metrics), "tallies": metrics.get("tallies", {}),
        "patches": metrics.get("patches", {}), "versions": metrics.get("versions", {}),
        "duplicates": {
            "scenes": metrics.get("duplicate_scenes", []),
            "patches_in_scenes": metrics.get("patches", {}).get("repeated_in_scene"),
        },
        "separation": _separation(out, corners, records.size),
        "statistics": None if statistics is None else {
            k: statistics.get(k) for k in ("fingerprint", "split", "patches", "normalize")
        },
        "bands": {}, "labels": {}, **measured,
    }  # fmt: skip
    sheets, limits = _samples(records, statistics, columns, facts)
    empty = [k for k, s in spec.splits.items() if not s.num_examples]
    facts["warnings"] = [
        *notes, *(statistics or {}).get("warnings", []), *_warnings(facts, empty),
    ]  # fmt: skip
    kept, left = joined(sheets)
    patches = {s["id"]: {k: s["patches"].get(k, 0) for k in spec.splits} for s in scenes}
    places = find_places(out / SCENES)
    return Gathered(spec, facts, places, patches, corners, kept, left, limits)


def _json(path: Path) -> dict[str, Any]:
    """A JSON file; nothing where there is none, as beside a dataset that was copied in part."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise DatasetError(f"{path}: cannot be read ({e}): run `scenefeed convert` again") from None


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as e:
        raise DatasetError(f"{path}: cannot be read ({e}): run `scenefeed convert` again") from None


def _statistics(out: Path, spec: DatasetSpec) -> tuple[dict[str, Any] | None, list[str]]:
    """statistics.json where it is of this dataset, and what to say where it is not."""
    found = _json(out / STATISTICS)
    if not found:
        return None, []
    if found.get("inputs") != spec.inputs:
        return None, [
            f"{STATISTICS} is of other records than these, and was left out: run `scenefeed stats`"
        ]
    return found, []


def _splits(spec: DatasetSpec) -> dict[str, Any]:
    return {
        name: {
            "records": split.num_examples, "bytes": split.num_bytes,
            "shards": [{"records": s.num_examples, "bytes": s.num_bytes} for s in split.shards],
        }
        for name, split in spec.splits.items()
    }  # fmt: skip


def _scenes(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "count": len(lines),
        "bytes": sum(s.get("file_bytes", 0) for s in lines),
        "assumed": dict(Counter(words for s in lines for words in s.get("assumed", ()))),
        "sizes": dict(Counter(f"{s['height']} x {s['width']}" for s in lines).most_common(20)),
        "dtypes": dict(Counter(s.get("dtype", "") for s in lines)),
        "without_patches": sum(not sum(s["patches"].values()) for s in lines),
        "by_split": {
            k: sum(s["patches"].get(k, 0) > 0 for s in lines)
            for k in (lines[0]["patches"] if lines else ())
        },
    }


def _errors(out: Path) -> list[dict[str, Any]]:
    """Dead letters, those with one reason together: names and numbers in it aside."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for letter in _lines(out / ERRORS):
        reason = letter["reason"]
        for own in (letter["file"], letter["scene"]):
            reason = reason.replace(own, "…") if own else reason
        key = (letter["step"], re.sub(r"\d[\d.,]*", "#", reason))
        groups.setdefault(key, []).append(letter)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {
            "step": step, "count": len(letters), "reason": letters[0]["reason"],
            "scenes": [x["scene"] for x in letters[:5]],
        }
        for (step, _), letters in ordered
    ]  # fmt: skip


def _conversion(metrics: dict[str, Any]) -> dict[str, Any]:
    """Rates of the last run against the targets, and of each stage of it."""
    measured = metrics.get("conversion") or {}
    source, peak = metrics.get("bytes", {}).get("source", 0), metrics.get("peak_memory_bytes")
    # A run that found scenes staged read some, and wrote the records of all: it has no rates.
    own = metrics.get("scenes", {}).get("reused") == 0
    workers = metrics.get("workers") if own else None
    spent = metrics.get("worker_seconds", {})

    def rated(seconds: float) -> dict[str, float | None]:
        rate = source / seconds / 1e6 if own and source and seconds else None
        return {"worker_seconds": seconds, "mb_per_s": rate}

    return {
        "mb_per_s": measured.get("mb_per_s"), "target_mb_per_s": PUBLISHED.convert_mb_per_s,
        "seconds": measured.get("seconds"), "source_bytes": measured.get("source_bytes"),
        "wall_seconds": metrics.get("wall_seconds"), "workers": workers,
        "peak_gib": None if peak is None else peak / 2**30, "target_gib": PUBLISHED.memory_gib,
        "stages": {step: rated(s) for step, s in spent.items()},
        "all_stages": rated(sum(spent.values())), "bytes": metrics.get("bytes", {}),
        "target_each": PUBLISHED.convert_mb_per_s / workers if workers else None,
    }  # fmt: skip


def _separation(out: Path, corners: Any, size: int) -> dict[str, Any] | None:
    """The least distance between every two splits; None where keys were not read."""
    if corners is None:
        return None
    found = gaps(corners, size, read_georeferences(out / SCENES))
    return {f"{a}, {b}": dataclasses.asdict(gap) for (a, b), gap in found.items()}


def _samples(
    records: Records, statistics: dict[str, Any] | None,
    columns: dict[str, dict[str, np.ndarray]] | None, facts: dict[str, Any],
) -> tuple[list[list[Sheet]], list[tuple[float, float]]]:  # fmt: skip
    """Fills in ``bands`` and ``labels``, one split's sample at a time; gives what pictures need."""
    spec, sheets = records.spec, []
    limits: list[tuple[float, float]] = []
    exact = (statistics or {}).get("split")
    # What decides bins and the stretch comes first.
    first = exact if exact in records.splits else next(
        (k for k in records.splits if k == "train"), records.splits[0]
    )  # fmt: skip
    found: dict[str, list[Sheet]] = {}
    for split in sorted(records.splits, key=lambda k: k != first):
        sample = records.sample(split)
        of = f"a sample of {len(sample['row']):,} patches"
        if len(sample["row"]) == spec.splits[split].num_examples:
            of = f"all {len(sample['row']):,} patches"
        image = sample["image"]
        good = valid(image, fills(spec.config, image.shape[-1]))
        limits = limits or limits_of(image, spec, good)
        for i, band in enumerate(_bands(spec)):
            rows = facts["bands"].setdefault(band, {})
            if statistics and split == exact and band in statistics["bands"]:
                rows[split] = statistics["bands"][band] | {"of": STATISTICS, "beyond": 0}
                continue
            values = image[..., i][good[..., i]]
            rows[split] = describe(values, good[..., i].size, rows.get(first)) | {"of": of}
        for label in spec.labels:
            stated = (statistics or {}).get("labels", {}).get(label) if split == exact else None
            every = columns[split].get(label) if columns else None
            values, said = (sample[label], of) if every is None else (every, "all records")
            _label(facts, label, split, spec.features[label], values, said, stated)
        found[split] = pick(split, sample, spec)
    sheets = [found[k] for k in records.splits]
    facts["bands"] = {b: {k: rows[k] for k in records.splits} for b, rows in facts["bands"].items()}
    return sheets, limits


def _label(
    facts: dict[str, Any], label: str, split: str, feature: Feature, values: np.ndarray, of: str,
    stated: dict[str, Any] | None,
) -> None:  # fmt: skip
    """One label's counts or distribution in one split."""
    kinds = facts["labels"]
    classes = kinds[label]["kind"] == "class" if label in kinds else has_classes(feature, values)
    held = kinds.setdefault(
        label, {"kind": "class" if classes else "value", "of": feature.kind, "splits": {}}
    )
    if stated:
        held["splits"][split] = stated | {"of": STATISTICS, "beyond": 0}
    elif classes:
        held["splits"][split] = class_counts(values, feature) | {"of": of}
    else:
        known = values[np.isfinite(values) & ~np.isin(values, feature.ignore)]
        before = next(filter(has_bins, held["splits"].values()), None)
        held["splits"][split] = describe(known, values.size, before) | {"of": of}


def _bands(spec: DatasetSpec) -> list[str]:
    image = spec.features["image"]
    return list(image.bands) or [str(i) for i in range(image.shape[-1])]


def _warnings(facts: dict[str, Any], empty: list[str]) -> list[str]:
    """What a person should know before training, as far as it was computed here."""
    said = [f"split {k} is empty: give it a larger share, or use more scenes" for k in empty]
    if facts["statistics"] is None:
        for band, rows in facts["bands"].items():
            for split, row in rows.items():
                if not row["count"]:
                    said.append(f"band {band} has no valid value in {split} ({row['of']})")
                elif row["min"] == row["max"]:
                    said.append(
                        f"band {band} has one value, {row['min']:g}, in {split} ({row['of']}): "
                        "it tells nothing, and cannot be scaled by its deviation"
                    )
        said += _absent(facts)
    for splits, gap in (facts["separation"] or {}).items():
        if gap["overlapping"]:
            said.append(
                f"{gap['overlapping']:,} pairs of patches of {splits} overlap on the ground: split "
                "by block with unit: metres, or by polygons"
            )
    if facts["errors"]:
        count = sum(e["count"] for e in facts["errors"])
        said.append(f"{count:,} scenes failed: see the dead letters")
    if facts["duplicates"]["scenes"]:
        said.append(f"{len(facts['duplicates']['scenes']):,} groups of scenes hold the same images")
    return said


def _absent(facts: dict[str, Any]) -> list[str]:
    """Classes that training does not see."""
    said = []
    for label, held in facts["labels"].items():
        split = "train" if "train" in held["splits"] else next(iter(held["splits"]), "")
        row = held["splits"].get(split, {})
        names = facts["features"][label].get("names", [])
        for i, n in row.get("counts", {}).items() if held["kind"] == "class" else ():
            if not n:
                name = names[int(i)] if int(i) < len(names) else i
                said.append(f"label {label}: class {name} is absent from {split} ({row['of']})")
    return said

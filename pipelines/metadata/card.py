"""README.md: the dataset's card, as people read it and as the Hugging Face Hub does.

Format of its head: huggingface.co/docs/hub/datasets-cards.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from ...loader.spec import DatasetSpec
from ...transforms.config import Config
from .reading import examples
from .stac import crs_name
from .words import about, baked_by, described, made, units

FILE = "README.md"
_SHOWN = 20  # scenes; more stand in scenes.jsonl
_TASKS = {"mask": "image-segmentation", "class": "image-classification"}
# Those that the Hub knows, in lower case (its list is longer; others are ``other``).
_LICENSES = """apache-2.0 mit cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-nc-nd-4.0 odbl
    odc-by pddl bsd-3-clause etalab-2.0 unlicense""".split()
_SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M",
          1e8: "10M<n<100M", 1e9: "100M<n<1B"}  # fmt: skip


def files(
    spec: DatasetSpec, scenes: Sequence[Mapping[str, Any]], statistics: Mapping[str, Any],
    versions: Mapping[str, str],
) -> dict[str, str]:  # fmt: skip
    """File name to text; ``scenes`` are the lines of scenes.jsonl."""
    parts = [
        f"---\n{yaml.safe_dump(_head(spec), sort_keys=False, allow_unicode=True)}---",
        f"# {md(spec.name)}",
        md(about(spec)),
        f"Licence: {md(spec.config.get('license') or 'not given')}.",
        "## Splits", table(["split", "patches", "shards", "MB"], _splits(spec)),
        "## Features", table(["feature", "kind", "shape", "dtype", ""], _features(spec)),
        *_bands(spec, statistics),
        *_labels(statistics),
        "## Sources", *_sources(scenes),
        "## How it was made", *_made(spec, versions),
        "## How to read it", *examples(spec),
    ]  # fmt: skip
    return {FILE: "\n\n".join(parts) + "\n"}


def md(value: Any) -> str:
    """Text in one line that shows as it is: no markup, no cell of a table ends in it."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", text)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *([md(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(spec: DatasetSpec) -> dict[str, Any]:
    given = str(spec.config.get("license", ""))
    count = sum(s.num_examples for s in spec.splits.values())
    kinds = [spec.features[name].kind for name in spec.labels]
    head: dict[str, Any] = {"pretty_name": spec.name}
    if given.lower() in _LICENSES:
        head["license"] = given.lower()
    elif given:
        head |= {"license": "other", "license_name": given}
    head["tags"] = ["earth-observation", "scenefeed", "tfrecord"]
    if tasks := [task for kind, task in _TASKS.items() if kind in kinds]:
        head["task_categories"] = tasks
    head["size_categories"] = [next((s for n, s in _SIZES.items() if count < n), "n>1B")]
    return head | {"viewer": False}  # the Hub's viewer would take scenes.jsonl for the data


def _splits(spec: DatasetSpec) -> Iterator[tuple[str, ...]]:
    for name, split in spec.splits.items():
        size = f"{split.num_bytes / 1e6:,.1f}"
        yield name, f"{split.num_examples:,}", f"{len(split.shards):,}", size


def _features(spec: DatasetSpec) -> Iterator[tuple[str, ...]]:
    for name, f in spec.features.items():
        words = "the bands below" if f.kind == "image" else described(name, spec)
        yield name, f.kind, " x ".join(map(str, f.shape)), f.dtype, words


def _bands(spec: DatasetSpec, statistics: Mapping[str, Any]) -> Iterator[str]:
    image, found = spec.features["image"], statistics.get("bands", {})
    yield "## Bands"
    if not found:
        yield table(["band", "values"], units(spec).items())
    else:
        before = ", before they were normalized" if baked_by(spec) else ""
        yield f"Of the {md(statistics['split'])} split, valid values alone{before}:"
        heads = ["band", "values", "mean", "std", "min", "max", "invalid"]
        yield table(heads, (_band(name, unit, found[name]) for name, unit in units(spec).items()))
    if image.scale:
        factor, offset = image.scale
        yield f"Values are stored as integers: a value is stored x {factor:g} + {offset:g}."
    for warning in statistics.get("warnings", []):
        yield f"- {md(warning)}"


def _band(name: str, unit: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (found[k] for k in ("mean", "std", "min", "max"))
    return name, unit, *(_number(n) for n in numbers), _share(found["invalid"])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.2%}"


def _labels(statistics: Mapping[str, Any]) -> Iterator[str]:
    labels = statistics.get("labels", {})
    if labels:
        yield "## Labels"
    for label, found in labels.items():
        yield f"### {md(label)}"
        if found["kind"] == "value":
            keys = ("count", "mean", "std", "min", "max")
            yield table(keys, [[_number(found[k]) for k in keys]])
            continue
        names, total = found["names"], sum(found["counts"].values()) or 1
        yield table(["class", "name", "count", "share"], (
            (i, names[int(i)] if 0 <= int(i) < len(names) else "", f"{n:,}", _share(n / total))
            for i, n in found["counts"].items()
        ))  # fmt: skip
        if found["absent"]:
            yield f"Absent: {md(', '.join(map(str, found['absent'])))}."


def _sources(scenes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    unplaced = sum(not s["crs"] for s in scenes)
    without = f", {unplaced:,} of them without a CRS" if unplaced else ""
    yield f"{len(scenes):,} scenes{without}; all of them in `scenes.jsonl`."
    heads = ["scene", "time", "CRS", "height x width", "patches", "from"]
    yield table(heads, (
        (s["id"], s["properties"].get("time") or "not known", crs_name(s["crs"]) or "none",
         f"{s['height']:,} x {s['width']:,}", f"{sum(s['patches'].values()):,}",
         ", ".join(map(str, s["source"])))
        for s in scenes[:_SHOWN]
    ))  # fmt: skip
    if len(scenes) > _SHOWN:
        yield f"... and {len(scenes) - _SHOWN:,} more."


def _made(spec: DatasetSpec, versions: Mapping[str, str]) -> Iterator[str]:
    beside = ", ".join(f"{k} {v}" for k, v in versions.items() if k != "scenefeed")
    yield md(made(spec) + (f" With {beside}." if beside else ""))
    yield f"With this configuration as `config.yaml`{_paths(spec)}:"
    given = _given(spec.config, Config().resolved())
    yield code(yaml.safe_dump(given, sort_keys=False, allow_unicode=True), "yaml")
    yield code("scenefeed convert --config config.yaml --output OUT\n", "sh")
    yield f"The same scenes give the same bytes, of fingerprint `{spec.fingerprint}`."


def _paths(spec: DatasetSpec) -> str:
    paths = spec.config.get("scenes", {}).get("paths", ())
    near = any(not str(p).startswith("/") and "://" not in str(p) for p in paths)
    return ", in the folder that its paths begin from" if near else ""


def _given(value: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says beyond the defaults."""
    found = {}
    for key, each in value.items():
        usual = default.get(key)
        if each is not None and each != usual:
            both = isinstance(each, dict) and isinstance(usual, dict)
            found[key] = _given(each, usual) if both else each  # type: ignore[arg-type]
    return found


def code(text: str, language: str) -> str:
    """A block of code: its fence is longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}{fence}"

"""The page: figures and tables in a template, which escapes every text."""

from __future__ import annotations

from typing import Any

import jinja2
import yaml

from . import charts, maps, measured
from .gather import Gathered
from .pictures import draw
from .style import COLOURS, Figure, Table, drawing, megabytes, number

LIMIT = 8 << 20  # bytes of a page


def render(gathered: Gathered, out: str) -> str:
    """The page as HTML.

    Args:
      gathered: what it shows.
      out: what the dataset is called in commands.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": number, "megabytes": megabytes}
    facts, splits = gathered.facts, list(gathered.spec.splits)
    with drawing():
        context = {
            "facts": facts, "spec": gathered.spec, "out": out, "splits": splits,
            "map": maps.overview(gathered), "layouts": maps.layouts(gathered),
            "placed": len(gathered.places.outlines), "unplaced": gathered.places.unplaced,
            "sheets": draw(gathered.sheets, gathered.spec, gathered.limits),
            "sheets_left": gathered.sheets_left,
            "bands": _bands(facts, splits), "band_table": _band_table(facts["bands"]),
            "labels": _labels(gathered, splits), "label_table": _value_table(facts),
            "stages": charts.stages(facts["conversion"]), "shards": charts.shards(facts["splits"]),
            "errors": charts.dead_letters(facts["errors"]),
            "check": facts["check"] and measured.check_table(facts["check"]),
            "alternatives": facts["compare"] and measured.alternatives(facts["compare"]),
            "colours": {k: COLOURS[i % len(COLOURS)] for i, k in enumerate(splits)},
            "config": yaml.safe_dump(facts["config"], sort_keys=False, allow_unicode=True),
        }  # fmt: skip
    return environment.get_template("page.html").render(context)


def _bands(facts: dict[str, Any], splits: list[str]) -> list[Figure]:
    return [
        charts.histogram(f"band-{i}", f"band {band}", rows, splits)
        for i, (band, rows) in enumerate(facts["bands"].items())
    ]


def _band_table(bands: dict[str, Any]) -> Table:
    return _described("Bands", "band", bands)


def _value_table(facts: dict[str, Any]) -> Table | None:
    values = {k: v["splits"] for k, v in facts["labels"].items() if v["kind"] == "value"}
    return _described("Labels that are measurements", "label", values) if values else None


def _described(caption: str, of: str, rows: dict[str, dict[str, Any]]) -> Table:
    return Table(
        caption,
        [of, "split", "valid values", "invalid", "mean", "deviation", "least", "most",
         "beyond the bins", "from"],
        [
            [name, split, number(r["count"]), f"{100 * (r.get('invalid') or 0):.3g}%",
             *(number(r.get(k)) for k in ("mean", "std", "min", "max")),
             number(r.get("beyond", 0)), r["of"]]
            for name, splits in rows.items() for split, r in splits.items()
        ],
    )  # fmt: skip


def _labels(gathered: Gathered, splits: list[str]) -> list[Figure]:
    figures = []
    for i, (label, held) in enumerate(gathered.facts["labels"].items()):
        feature = gathered.spec.features[label]
        if held["kind"] == "class":
            unit = "pixels" if feature.kind == "mask" else "patches"
            figures.append(charts.classes(i, label, held, list(feature.names), splits, unit))
        else:
            figures.append(charts.histogram(f"label-{i}", label, held["splits"], splits))
    return figures

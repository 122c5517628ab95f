"""What ``check`` and ``compare`` measured, as the report shows it: read, drawn, in tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ...loader.spec import DatasetSpec
from ...transforms.errors import ConfigError
from .style import COLOURS, Figure, Table, canvas, number, shown, svg

_COMPARE = "scenefeed compare"
_CHECK = {"name": str, "value": (float, int, type(None)), "unit": str, "side": str}
_WHOLE = {"dataset": str, "fingerprint": str, "split": str, "patches": int, "of": int,
          "batch_size": int, "batches": int}  # fmt: skip
_ROW = {"title": str, "status": str, "why": str, "ours": bool, "resume": str}
_RUN = {"seconds": (float, int), "spread": list, "write_s": (float, int), "bytes": int,
        "files": int, "peak_bytes": int}  # fmt: skip


def read_check(path: Path, spec: DatasetSpec) -> dict[str, Any]:
    """The file that ``scenefeed check --json`` wrote, of this dataset.

    Raises:
      ConfigError: it cannot be read, another program wrote it, or it is of another dataset.
    """
    found = _read(path)
    results: Any = found.get("results")
    if not _listed(results, _CHECK) or not all(_is_check(r) for r in results):
        raise ConfigError(f"{path}: not what `scenefeed check OUT --json {path.name}` writes")
    return _of_this(found, spec, path, "check")


def read_compare(path: Path, spec: DatasetSpec) -> dict[str, Any]:
    """The file that ``scenefeed compare --json`` wrote, of this dataset.

    Raises:
      ConfigError: it cannot be read, another program wrote it, or it is of another dataset.
    """
    found = _read(path)
    rows = found.get("rows")
    ours = found.get("kind") == _COMPARE and _listed([found], _WHOLE) and _listed(rows, _ROW)
    run = [r for r in rows or () if r["status"] == "run"] if ours else []
    if not ours or not _listed(run, _RUN) or not all(_is_run(r) for r in run):
        raise ConfigError(f"{path}: not what `scenefeed compare OUT --json {path.name}` writes")
    return _of_this(found, spec, path, "compare")


def _of_this(found: dict[str, Any], spec: DatasetSpec, path: Path, command: str) -> dict[str, Any]:
    if found.get("fingerprint") != spec.fingerprint:
        raise ConfigError(
            f"{path}: of another dataset ({found.get('dataset')}): run `scenefeed {command}` on "
            "this one"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from None
    except ValueError as e:
        raise ConfigError(f"{path}: not JSON ({e})") from None
    return found if isinstance(found, dict) else {}


def _listed(rows: Any, kinds: dict[str, Any]) -> bool:
    """Whether it is a list of dictionaries that have these keys, of these types."""
    return isinstance(rows, list) and all(
        isinstance(r, dict) and all(isinstance(r.get(k), t) for k, t in kinds.items())
        for r in rows
    )  # fmt: skip


def _is_check(result: dict[str, Any]) -> bool:
    met, spread = result.get("met"), result.get("spread")
    return (
        (met is None or isinstance(met, bool))
        and all(isinstance(result.get(k, ""), str) for k in ("shown", "words"))
        and (spread is None or _is_spread(spread))
        and isinstance(result.get("target"), float | int | None)
    )


def _is_run(row: dict[str, Any]) -> bool:
    return _is_spread(row["spread"]) and isinstance(row.get("shuffle"), float | int | None)


def _is_spread(spread: Any) -> bool:
    """Whether it is the least and the most of something."""
    return (
        isinstance(spread, list)
        and len(spread) == 2
        and all(isinstance(v, float | int) and math.isfinite(v) for v in spread)
    )


def check_table(found: dict[str, Any]) -> Table:
    """A row a result: what was measured, how far samples lie apart, and the target."""
    return Table("Results of check, and the targets", ["what", "measured", "spread", "target", "met", "notes"], [
        [r["name"], r.get("shown") or _of(r["value"], r["unit"]),
         "" if r.get("shown") else _spread(r.get("spread")), _target(r),
         {True: "yes", False: "no"}.get(r.get("met"), "not told"), r.get("words", "")]
        for r in found["results"]
    ])  # fmt: skip


def _of(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:,.3g} {unit}"


def _spread(spread: Any) -> str:
    return " to ".join(f"{v:,.3g}" for v in spread) if spread else ""


def _target(result: dict[str, Any]) -> str:
    target = result.get("target")
    return "none" if target is None else f"{result['side']} {target:g} {result['unit']}"


def alternatives(found: dict[str, Any]) -> Figure | None:
    """Seconds for five shuffled batches, a point an alternative, ours marked; quickest first."""
    run = sorted((r for r in found["rows"] if r["status"] == "run"), key=lambda r: r["seconds"])
    if not run:
        return None
    width, height = 560, 80 + 24 * len(run)
    figure, axes = canvas(width, height)
    for kind, marker, colour, words in (
        (True, "D", COLOURS[0], "scenefeed"), (False, "o", COLOURS[1], "others"),
    ):  # fmt: skip
        at = [i for i, r in enumerate(run) if r["ours"] is kind]
        if not at:
            continue
        values = [run[i]["seconds"] for i in at]
        axes.scatter(values, at, 36, colour, marker=marker, label=words, zorder=3)
        axes.hlines(at, *zip(*(run[i]["spread"] for i in at), strict=True), color=colour, lw=1.4)
    for i, r in enumerate(run):
        axes.annotate(f"{r['seconds']:.3g}", (r["spread"][1], i), (9, 0),
                      textcoords="offset points", va="center")  # fmt: skip
    what = f"{found['batches']} x {found['batch_size']:,}"
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:,.7g}")
    axes.set_xlim(min(r["spread"][0] for r in run) / 2, max(r["spread"][1] for r in run) * 3)
    axes.set_yticks(range(len(run)), [shown(r["title"], 36) for r in run])
    axes.set_xlabel(f"seconds for {what} shuffled patches, log")
    axes.grid(True, axis="y")
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    said = ", ".join(
        f"{r['title']}{' (ours)' if r['ours'] else ''} {r['seconds']:.3g}" for r in run
    )
    return Figure(
        "alternatives", svg(figure), width, height,
        f"Seconds for {what} shuffled patches, quickest first: {said}.",
        "Median of whole epochs, and from the quickest to the slowest of them; diamonds are "
        "scenefeed's.", _alternative_table(found, run, what), title="Alternatives",
    )  # fmt: skip


def _alternative_table(found: dict[str, Any], run: list[dict[str, Any]], what: str) -> Table:
    return Table(
        f"{found['patches']:,} patches in each of {len(run)} ways",
        ["alternative", "whose", f"{what}, s", "spread", "write, s", "MB", "files", "memory, MiB",
         "shuffle", "values", "resume"],
        [
            [r["title"], "scenefeed" if r["ours"] else "", f"{r['seconds']:.3f}",
             _spread(r["spread"]), f"{r['write_s']:.2f}", f"{r['bytes'] / 1e6:,.1f}",
             number(r["files"]), f"{r['peak_bytes'] / 2**20:,.0f}", _brief(r.get("shuffle")),
             "rounded" if r.get("lossy") else "the source's", r["resume"]]
            for r in run
        ],
    )  # fmt: skip


def _brief(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

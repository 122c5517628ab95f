"""Figures of how much: values, classes, stages, shards, dead letters."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .style import (
    COLOURS,
    DASHES,
    GREY,
    MARKERS,
    Figure,
    Table,
    canvas,
    legend,
    megabytes,
    number,
    shown,
    svg,
)  # fmt: skip

_BARS = 24  # classes, reasons: the rest are in tables
_HEAVY = 0.9  # a share of all values in three bins asks for a logarithmic axis


def histogram(key: str, title: str, rows: dict[str, dict[str, Any]], splits: list[str]) -> Figure:
    """Values of one band or label, a line a split."""
    width, height = 320, 200
    figure, axes = canvas(width, height, left=60)
    drawn = {k: r for k, r in rows.items() if (r.get("histogram") or {}).get("edges")}
    shares: dict[str, np.ndarray] = {}
    for split, row in drawn.items():
        counts = np.array(row["histogram"]["counts"], float)
        shares[split] = share = counts / max(1, counts.sum())
        i = splits.index(split)
        colour = COLOURS[i % len(COLOURS)]
        edges = _narrowed(row["histogram"]["edges"])
        axes.stairs(
            share, edges, color=colour, lw=1.4, ls=DASHES[i % len(DASHES)], label=shown(split)
        )
        if len(shares) == 1:
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.12)
    heavy = any(np.sort(s)[-3:].sum() > _HEAVY for s in shares.values())
    if shares and heavy:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:.0e}" if v < 1e-3 else f"{v:g}")
    elif shares:  # room for the legend
        axes.set_ylim(0, 1.3 * max(s.max() for s in shares.values()))
    axes.set_ylabel("share of values" + (", log" if heavy else ""))
    axes.locator_params(axis="x", nbins=5)
    if shares:
        axes.legend(frameon=False, loc="upper right")
    else:
        axes.text(0.5, 0.5, "no valid value", transform=axes.transAxes, ha="center", color=GREY)
    said = [
        f"{k}: mean {r['mean']:.4g}, from {r['min']:.4g} to {r['max']:.4g}" if r["count"]
        else f"{k}: no valid value" for k, r in rows.items()
    ]  # fmt: skip
    return Figure(
        f"values-{key}", svg(figure), width, height, f"Histogram of {title}. " + "; ".join(said) + ".",
        "", _bins(title, drawn), title=title,
    )  # fmt: skip


def _narrowed(edges: list[float]) -> np.ndarray:
    """Edges to draw: a first or last bin that reaches far out is as wide as the others."""
    drawn, width = np.array(edges), float(np.median(np.diff(edges)))
    drawn[0] = max(drawn[0], drawn[1] - width)
    drawn[-1] = min(drawn[-1], drawn[-2] + width)
    return drawn


def _bins(title: str, drawn: dict[str, dict[str, Any]]) -> Table:
    """Counts, bin by bin; splits whose bins are others' too stand side by side."""
    if not drawn:
        return Table(f"Histogram of {title}", ["from", "to"], [])
    edges = next(iter(drawn.values()))["histogram"]["edges"]
    alike = [k for k, r in drawn.items() if r["histogram"]["edges"] == edges]
    rows = [
        [number(low), number(high), *(number(drawn[k]["histogram"]["counts"][i]) for k in alike)]
        for i, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    return Table(f"Histogram of {title}: values in each bin", ["from", "to", *alike], rows)


def classes(
    place: int, label: str, held: dict[str, Any], names: list[str], splits: list[str], unit: str
) -> Figure:  # fmt: skip
    """The share of each class, a bar a split."""
    rows = held["splits"]
    ids = list(dict.fromkeys(i for r in rows.values() for i in r["counts"]))
    ids.sort(key=int)
    if len(ids) > _BARS:  # the most frequent
        ids.sort(key=lambda i: -sum(r["counts"].get(i, 0) for r in rows.values()))
    title = {i: names[int(i)] if 0 <= int(i) < len(names) else i for i in ids}
    shares = {
        k: {i: r["counts"].get(i, 0) / max(1, sum(r["counts"].values())) for i in ids}
        for k, r in rows.items()
    }
    drawn = ids[:_BARS]
    width, height = 460, 80 + len(drawn) * (8 + 11 * len(rows))
    figure, axes = canvas(width, height)
    thick = 0.8 / max(1, len(rows))
    at = np.arange(len(drawn))
    for j, (split, share) in enumerate(shares.items()):
        colour = COLOURS[splits.index(split) % len(COLOURS)]
        values = [share[i] for i in drawn]
        bars = axes.barh(at + (j - (len(rows) - 1) / 2) * thick, values, thick * 0.9, color=colour,
                         label=shown(split))  # fmt: skip
        axes.bar_label(bars, [_percent(v) for v in values], padding=2, fontsize=7)
    axes.set_yticks(at, [shown(title[i], 20) for i in drawn])
    axes.set(xlabel=f"share of {unit}", xlim=(0, 1.15 * max([*_flat(shares), 1e-9])))
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.locator_params(axis="x", nbins=5)
    axes.invert_yaxis()
    legend(figure)
    weights: dict[str, Any] = next((r["weights"] for r in rows.values() if r.get("weights")), {})
    table = Table(
        f"{unit.capitalize()} of each class of {label}",
        ["class", *(h for k in rows for h in (k, f"{k}, share")), *(["weight"] if weights else [])],
        [
            [title[i],
             *(x for k, r in rows.items() for x in (number(r["counts"].get(i, 0)), _percent(shares[k][i]))),
             *([number(weights.get(i))] if weights else [])]
            for i in ids
        ] + [["ignored", *(x for r in rows.values() for x in (number(r["ignored"]), "")),
              *([""] if weights else [])]],
    )  # fmt: skip
    said = [
        f"{k}: " + ", ".join(f"{title[i]} {_percent(s[i])}" for i in drawn[:8])
        for k, s in shares.items()
    ]
    rest = f" The {_BARS} most frequent of {len(ids)} classes." if len(ids) > _BARS else ""
    return Figure(
        f"classes-{place}", svg(figure), width, height, f"Classes of {label}. " + "; ".join(said) + ".",
        f"Share of {unit} that are labelled.{rest}", table, title=label,
    )  # fmt: skip


def _flat(shares: dict[str, dict[str, float]]) -> list[float]:
    return [v for s in shares.values() for v in s.values()]


def _percent(share: float) -> str:
    return "0" if not share else "<0.01%" if share < 1e-4 else f"{100 * share:.3g}%"


def stages(conversion: dict[str, Any]) -> Figure | None:
    """What a worker does in a second of each stage, against the target; else its seconds."""
    steps = {k: s for k, s in conversion["stages"].items() if s["worker_seconds"]}
    if not steps:
        return None
    steps["all stages"] = conversion["all_stages"]
    rated = any(s["mb_per_s"] for s in steps.values())
    key = "mb_per_s" if rated else "worker_seconds"
    values = [s[key] or 0 for s in steps.values()]
    width, height = 460, 70 + 26 * len(steps)
    figure, axes = canvas(width, height)
    target = conversion["target_each"] if rated else None
    slow = [bool(target and v < target) for v in values]
    # Points: an axis without 0 makes lengths lie.
    axes.scatter(values, range(len(steps)), 36, [COLOURS[1] if s else COLOURS[0] for s in slow])
    for i, v in enumerate(values):
        axes.annotate(f"{_brief(v)}", (v, i), (7, 0), textcoords="offset points", va="center")
    axes.grid(True, axis="y")
    axes.set_ylim(-0.6, len(steps) - 0.4)
    axes.set_yticks(range(len(steps)), [shown(k) for k in steps])
    axes.invert_yaxis()
    if rated:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:,.7g}")
        axes.set_xlim(min([v for v in values if v] + [target or 1]) / 3, max(values) * 5)
    if target:
        axes.axvline(target, color="#000000", lw=1, ls=(0, (4, 2)))
    axes.set_xlabel("MB of source a second of a worker, log" if rated else "seconds of workers")
    said = ", ".join(f"{k} {_brief(v)}" for k, v in zip(steps, values, strict=True))
    caption = "Seconds of workers in each stage."
    if rated:
        caption = (
            "MB of source that one worker takes through each stage in a second, and through all "
            "of them, one after another"
        ) + (f"; the dashed line is the target's share, {target:.3g} MB/s." if target else ".")
    return Figure(
        "stages", svg(figure), width, height,
        f"{'Rate' if rated else 'Seconds'} of each stage: {said}"
        + (f"; target {target:.3g}." if target else "."),
        caption,
        Table("Stages", ["stage", "seconds of workers", "MB/s of source", "target, MB/s", "met"], [
            [k, number(s["worker_seconds"]), number(s["mb_per_s"]), number(target),
             "" if target is None else "no" if v < target else "yes"]
            for (k, s), v in zip(steps.items(), values, strict=True)
        ]), title="Stages",
    )  # fmt: skip


def _brief(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shards(splits: dict[str, Any]) -> Figure | None:
    """Each shard's size."""
    held = {k: [s["bytes"] for s in v["shards"]] for k, v in splits.items() if v["shards"]}
    if not held:
        return None
    width, height = 460, 90 + 34 * len(held)
    figure, axes = canvas(width, height)
    unit = next((u for u in (1e9, 1e6, 1e3) if max(max(v) for v in held.values()) >= u), 1)
    for i, (split, sizes) in enumerate(held.items()):
        j = list(splits).index(split)
        spread = (np.arange(len(sizes)) * 0.618 % 1 - 0.5) * 0.5 if len(sizes) > 1 else [0.0]
        axes.scatter(
            np.array(sizes) / unit, i + np.array(spread), s=22, alpha=0.75, lw=0,
            c=COLOURS[j % len(COLOURS)], marker=MARKERS[j % len(MARKERS)],
            rasterized=len(sizes) > 1500,
        )  # fmt: skip
    axes.set_yticks(range(len(held)), [f"{shown(k)} ({len(v):,})" for k, v in held.items()])
    name = {1e9: "GB", 1e6: "MB", 1e3: "kB", 1: "bytes"}[unit]
    axes.set(xlabel=f"{name} a shard", ylim=(len(held) - 0.4, -0.6))
    axes.set_xlim(0, 1.1 * max(max(v) for v in held.values()) / unit)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(True, axis="x")
    rows = [
        [k, number(len(v)), megabytes(min(v)), megabytes(float(np.median(v))), megabytes(max(v)),
         number(splits[k]["records"]), megabytes(splits[k]["bytes"])]
        for k, v in held.items()
    ]  # fmt: skip
    said = "; ".join(f"{r[0]}: {r[1]} shards, {r[2]} to {r[4]}" for r in rows)
    return Figure(
        "shards", svg(figure), width, height, f"Sizes of shards. {said}.",
        "A point a shard. Shards of one split should be of about one size.",
        Table("Shards", ["split", "shards", "smallest", "median", "largest", "records", "in all"], rows),
        title="Shards",
    )  # fmt: skip


def dead_letters(errors: list[dict[str, Any]]) -> Figure | None:
    """Dead letters by reason."""
    if not errors:
        return None
    drawn = errors[:12]
    width, height = 460, 60 + 24 * len(drawn)
    figure, axes = canvas(width, height)
    bars = axes.barh(range(len(drawn)), [e["count"] for e in drawn], 0.7, color=COLOURS[1])
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(range(len(drawn)), [f"{e['step']}, {i + 1}" for i, e in enumerate(drawn)])
    axes.set(xlabel="scenes", xlim=(0, 1.15 * max(e["count"] for e in drawn)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.invert_yaxis()
    said = "; ".join(f"{e['count']} in {e['step']}: {e['reason']}" for e in drawn[:5])
    return Figure(
        "errors", svg(figure), width, height, f"Dead letters by reason. {said}.",
        "Numbered as in the table; reasons that differ in names and numbers alone are one.",
        Table("Dead letters by step and reason", ["number", "step", "scenes", "reason", "such as"], [
            [str(i + 1), e["step"], number(e["count"]), e["reason"], ", ".join(e["scenes"])]
            for i, e in enumerate(errors[:100])
        ]), title="Dead letters",
    )  # fmt: skip

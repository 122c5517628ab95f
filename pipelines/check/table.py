"""What was measured, as a table for a terminal."""

from __future__ import annotations

from typing import Any

_VERDICTS = {True: "ok", False: "MISSED", None: ""}


def table(report: dict[str, Any]) -> str:
    """A head, and the results, one line each: median, 95th percentile, spread, target, verdict."""
    rows: list[tuple[str, ...]] = [("", "median", "p95", "spread", "target", "")]
    rows += [_row(r) for r in report["results"]]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    if "distributed" in report:
        from .distributed import lines as details

        lines += details(report["distributed"])
    return "\n".join([_head(report), *lines])


def _head(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return (
        f"{report['dataset']}: split {report['split']}, {report['records']:,} records; "
        f"{machine['cores']} cores, {machine['memory_gib']:.0f} GiB"
    )


def _row(r: dict[str, Any]) -> tuple[str, ...]:
    sign = "<=" if r["side"] == "at most" else ">="
    value = "" if r["value"] is None else f"{r['value']:.3g} {r['unit']}"
    value = r["shown"] or value
    several = r["spread"] and len(r["samples"]) > 1
    spread = f"{r['spread'][0]:.3g} to {r['spread'][1]:.3g}" if several else ""
    p95 = f"{r['p95']:.3g}" if r.get("p95") else ""
    target = "" if r["target"] is None else f"{sign} {r['target']:g} {r['unit']}"
    said = (_VERDICTS[r["met"]], r["words"])
    return r["name"], value, p95, spread, target, ": ".join(x for x in said if x)

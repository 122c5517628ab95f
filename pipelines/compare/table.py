"""The comparison as a table for a terminal."""

from __future__ import annotations

from typing import Any

from .alternative import BUFFER

_HEAD = (
    "",
    "write, s",
    "MB",
    "files",
    "{} x {:,}, s",
    "spread",
    "memory, MiB",
    "shuffle",
    "resume",
)


def table(found: dict[str, Any]) -> str:
    """A row an alternative, with what could not be run below."""
    head = tuple(h.format(found["batches"], found["batch_size"]) for h in _HEAD)
    rows = [head, *(cells(r) for r in found["rows"] if r["status"] == "run")]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(
            c.rjust(w) if 0 < i < 8 else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += [f"{r['title']}: {r['status']}: {r['why']}" for r in found["rows"] if r["why"]]
    return "\n".join([about(found), *lines, *notes(found)])


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row's texts; what is ours is marked, and what rounds values."""
    least, most = row["spread"]
    return (
        ("* " if row["ours"] else "  ") + row["title"] + (" (lossy)" if row["lossy"] else ""),
        f"{row['write_s']:.2f}", f"{row['bytes'] / 1e6:,.0f}", f"{row['files']:,}",
        f"{row['seconds']:.3f}", f"{least:.3f} to {most:.3f}", f"{row['peak_bytes'] / 2**20:,.0f}",
        "" if row["shuffle"] is None else f"{row['shuffle']:.2f}",
        row["resume"].split(":")[0].split(",")[0],
    )  # fmt: skip


def about(found: dict[str, Any]) -> str:
    shape = " x ".join(map(str, found["shape"]))
    return (
        f"{found['dataset']}: split {found['split']}, {found['patches']:,} of {found['of']:,} "
        f"patches of {shape} {found['dtype']} ({found['bytes'] / 1e6:,.0f} MB), "
        f"{found['machine']['cores']} cores"
    )


def notes(found: dict[str, Any]) -> list[str]:
    """How it was measured, and what to know."""
    each = found["bytes"] / found["patches"] / 2**20
    said = [
        "* scenefeed's. A process each; page cache warm; median of whole epochs after one that "
        "compared every patch with its source.",
        "shuffle: mean distance between source positions of neighbours, over (n + 1) / 3, a "
        "uniform permutation's.",
    ]
    if found["patches"] < found["of"]:
        # A buffer holds no more patches than there are.
        more = min(BUFFER, found["of"]) - min(found["buffer"], found["patches"])
        said.append(
            f"Shuffle buffers hold {found['buffer']:,} patches, what {BUFFER:,} are for the whole "
            f"split; there they take {more * each:,.0f} MiB more."
        )
    return said

"""How figures look, and what a page needs of one: picture, caption, words, table."""

from __future__ import annotations

import base64
import dataclasses
import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas

# Okabe and Ito, "Color Universal Design", 2008: those that stand out from white by 3 to 1, first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MARKERS = "os^vP*p"
GREY, LAND, WATER = "#767676", "#e9e6dd", "#ffffff"
_PX = 96  # pixels an inch, as CSS has it

RC = {
    "svg.fonttype": "none",  # text stays text, in the page's fonts
    "svg.hashsalt": "scenefeed",  # the same ids each time
    "text.parse_math": False,  # a name may hold a $
    "axes.unicode_minus": True,
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8,
    "font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GREY, "axes.linewidth": 0.8, "xtick.color": "#444444",
    "ytick.color": "#444444", "axes.grid": False, "grid.color": "#dddddd", "grid.linewidth": 0.6,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers as text: a heading for each column, and rows whose first cell heads them."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure of a page.

    Attributes:
      id: unique in the page.
      image: a data URI.
      width, height: CSS pixels.
      alt: what it shows, in words.
      caption: what to look for.
      table: its numbers.
    """

    id: str
    image: str
    width: int
    height: int
    alt: str
    caption: str
    table: Table | None = None
    title: str = ""


def canvas(width: int, height: int, left: int = 0) -> tuple[Any, Any]:
    """A figure of CSS pixels, and its axes; with a margin for what stands ``left`` of them, all
    margins are fixed, which draws in half the time."""
    figure = Canvas(
        figsize=(width / _PX, height / _PX), layout=None if left else "constrained"
    )  # fmt: skip
    if not left:
        return figure, figure.subplots()
    box = (left / width, 26 / height, 1 - (left + 8) / width, 1 - 34 / height)
    return figure, figure.add_axes(box)


def legend(figure: Any) -> None:
    """A legend below all of a figure's axes."""
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)


def svg(figure: Any) -> str:
    """A figure as a data URI: an image of its own, in which nothing runs."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that our font lacks are drawn by the reader's
        # No date: the same dataset gives the same page.
        figure.savefig(out, format="svg", transparent=True, dpi=2 * _PX, metadata={"Date": None})
    return data_uri(out.getvalue(), "image/svg+xml")


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def drawing() -> Any:
    """The context in which all figures are drawn."""
    return matplotlib.rc_context(RC)


def shown(name: str, most: int = 28) -> str:
    """A name as a figure shows it: long ones cut; Matplotlib hides what begins with _."""
    name = " ".join(name.split()) or "(no name)"
    name = name if len(name) <= most else name[: most - 1] + "…"
    return "\u00a0" + name if name.startswith("_") else name


def number(value: float | None) -> str:
    """A number as tables show it."""
    if value is None:
        return "none"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.6g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.6g}"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e4 else f"{int(count):,} bytes"

"""Figures of where: the map of scenes, and patches of scenes by split."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection

from .coast import SOURCE, Box, land_and_lakes
from .gather import Gathered
from .style import (
    COLOURS,
    GREY,
    LAND,
    MARKERS,
    WATER,
    Figure,
    Table,
    canvas,
    legend,
    number,
    shown,
    svg,
)  # fmt: skip

SEVERAL, NONE = "several splits", "no patches"
LAYOUTS, PATCHES = 6, 4000  # scenes whose patches are drawn, and patches of each
_VECTORS = 1500  # more shapes than this are drawn as pixels
_ROWS = 200  # of a table of scenes


def overview(gathered: Gathered) -> Figure | None:
    """The map of scenes; None where none has a place."""
    places, splits = gathered.places, list(gathered.spec.splits)
    if not places.outlines:
        return None
    kinds = _kinds(gathered)
    centres = np.array(list(places.centres.values()))
    box, aspect = _view(np.concatenate(list(places.outlines.values())))
    width = 460
    tall = (box[3] - box[1]) * aspect / (box[2] - box[0])
    figure, axes = canvas(width, int(np.clip(width * tall + 60, 200, 560)))
    coast = land_and_lakes(box)
    if coast is not None:
        for rings, colour in zip(coast, (LAND, WATER), strict=True):
            axes.add_collection(PolyCollection(rings, facecolors=colour, edgecolors=GREY, lw=0.4))
    many = len(centres) > _VECTORS
    colours = {k: COLOURS[i % len(COLOURS)] for i, k in enumerate(splits)}
    colours |= {SEVERAL: "#444444", NONE: GREY}
    marks = {k: MARKERS[i % len(MARKERS)] for i, k in enumerate(splits)} | {SEVERAL: "D", NONE: "X"}
    for kind in (k for k in marks if k in kinds.values()):
        chosen = [name for name in places.outlines if kinds[name] == kind]
        outlines = [places.outlines[name] for name in chosen]
        axes.add_collection(PolyCollection(
            outlines, facecolors="none", edgecolors=colours[kind], lw=1, rasterized=many,
        ))  # fmt: skip
        xy = np.array([places.centres[name] for name in chosen])
        axes.scatter(
            *xy.T, s=10 if many else 28, c=colours[kind], marker=marks[kind], lw=0.5,
            edgecolors="white", label=f"{shown(kind)} ({len(chosen):,})", rasterized=many, zorder=3,
        )  # fmt: skip
    axes.set(
        xlim=(box[0], box[2]), ylim=(box[1], box[3]), aspect=aspect,
        xlabel="longitude, degrees", ylabel="latitude, degrees",
    )  # fmt: skip
    axes.grid(True)
    axes.set_axisbelow(False)
    legend(figure)
    counted = Counter(kinds[name] for name in places.outlines)
    west, south = centres.min(axis=0)
    east, north = centres.max(axis=0)
    land = f"Coastline: {SOURCE}." if coast is not None else (
        "No coastline: pip install 'scenefeed[report]' brings one."
    )  # fmt: skip
    return Figure(
        "map", svg(figure), width, _height(figure),
        f"Map of {len(centres):,} scenes between {_degrees(west, south)} and "
        f"{_degrees(east, north)}: "
        + ", ".join(f"{n:,} of {kind}" for kind, n in counted.most_common()) + ".",
        "Outlines and centres of scenes, by the split that their patches fall to; WGS 84. " + land,
        _scenes_table(gathered, kinds), title="Scenes on the map",
    )  # fmt: skip


def _kinds(gathered: Gathered) -> dict[str, str]:
    """Each scene's one split, or that it has several, or none."""
    found = {}
    for name, patches in gathered.patches.items():
        used = [k for k, n in patches.items() if n]
        found[name] = used[0] if len(used) == 1 else SEVERAL if used else NONE
    return found


def _view(points: np.ndarray) -> tuple[Box, float]:
    """What a map shows round points, and how many times longer a degree of latitude is."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    aspect = 1 / max(0.1, np.cos(np.radians(np.clip(middle[1], -80, 80))))
    # At least ten degrees, so that there is something to know the place by.
    half = np.maximum((high - low) * 0.58, [5 * aspect, 5])
    half[1] = max(half[1], half[0] / aspect * 0.5)
    half[0] = max(half[0], half[1] * aspect * 1.3)
    south, north = max(-90, middle[1] - half[1]), min(90, middle[1] + half[1])
    return (middle[0] - half[0], south, middle[0] + half[0], north), aspect


def _scenes_table(gathered: Gathered, kinds: dict[str, str]) -> Table:
    centres, patches = gathered.places.centres, gathered.patches
    names = list(centres)[:_ROWS]
    rows = [
        [name, number(float(centres[name][0])), number(float(centres[name][1])), kinds[name],
         *(number(n) for n in patches[name].values())]
        for name in names
    ]  # fmt: skip
    more = f" (the first {_ROWS} of {len(centres):,})" if len(centres) > _ROWS else ""
    head = [
        "scene",
        "longitude",
        "latitude",
        "split",
        *(f"patches, {k}" for k in gathered.spec.splits),
    ]
    return Table(f"Centres of scenes, degrees{more}", head, rows)


def layouts(gathered: Gathered) -> list[Figure]:
    """Patches of a few scenes, by split: those with the most splits, and the most patches."""
    if gathered.corners is None:
        return []
    splits = list(gathered.spec.splits)
    order = sorted(
        gathered.patches,
        key=lambda s: (
            -sum(n > 0 for n in gathered.patches[s].values()),
            -sum(gathered.patches[s].values()), s,
        ),
    )  # fmt: skip
    chosen = [s for s in order if sum(gathered.patches[s].values())][:LAYOUTS]
    return [_layout(gathered, scene, i, splits) for i, scene in enumerate(chosen)]


def _layout(gathered: Gathered, scene: str, i: int, splits: list[str]) -> Figure:
    grid = gathered.places.grids[scene]
    size, width = gathered.spec.features["image"].shape[0], 320
    placed = bool(grid.crs and grid.located)

    def place(cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found = grid.to_map(cols.ravel(), rows.ravel()) if placed else (cols.ravel(), rows.ravel())
        return np.stack(found, axis=1).reshape(*cols.shape, 2)

    figure, axes = canvas(width, 320)
    rows, aspect = [], 1.0
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]])
    for number_of, split in enumerate(splits):
        found = (gathered.corners or {}).get(split, {}).get(scene)
        if found is None:
            continue
        step = -(-len(found[0]) // PATCHES)
        corners = np.stack([found[1][::step], found[0][::step]], axis=1)[:, None] + square
        colour = COLOURS[number_of % len(COLOURS)]
        squares = place(corners[..., 0], corners[..., 1])
        axes.add_collection(PolyCollection(
            list(squares), facecolors=colour, edgecolors="white", lw=0.4, alpha=0.8,
            label=shown(split), rasterized=len(squares) > _VECTORS,
        ))  # fmt: skip
        lows, highs = squares.min(axis=(0, 1)), squares.max(axis=(0, 1))
        rows.append([split, number(len(found[0])), *(number(float(v)) for v in (*lows, *highs))])
    border = place(
        np.array([0, grid.width, grid.width, 0]), np.array([0, 0, grid.height, grid.height])
    )
    axes.add_collection(PolyCollection([border], facecolors="none", edgecolors=GREY, lw=1))
    axes.autoscale_view()
    if (placed and '"Latitude"' in grid.crs) or (placed and grid.crs.startswith("GEOG")):
        aspect = 1 / max(0.1, np.cos(np.radians(np.clip(border[:, 1].mean(), -80, 80))))
    elif not placed:
        axes.invert_yaxis()
    axes.set(aspect=aspect)
    axes.locator_params(nbins=3)
    axes.ticklabel_format(style="plain", useOffset=False)
    legend(figure)
    system = _system(grid.crs) if placed else "pixels (columns, rows): no georeference"
    thinned = f"; at most {PATCHES:,} of a split are drawn" if any(
        len(s.get(scene, ((),))[0]) > PATCHES for s in (gathered.corners or {}).values()
    ) else ""  # fmt: skip
    counts = ", ".join(f"{row[1]} of {row[0]}" for row in rows)
    return Figure(
        f"layout-{i}", svg(figure), width, _height(figure),
        f"Patches of scene {scene} by split: {counts}.",
        f"Patches by split; {system}{thinned}.",
        Table(f"Patches of scene {scene}", ["split", "patches", "least x", "least y", "most x", "most y"], rows),
        title=scene,
    )  # fmt: skip


def _system(wkt: str) -> str:
    found = re.search(r'"([^"]*)"', wkt)
    if found is None or found[1] in ("", "unnamed", "unknown"):
        return "coordinates of an unnamed system"
    return f"coordinates in {found[1]}"


def _degrees(lon: float, lat: float) -> str:
    lon = (lon + 180) % 360 - 180
    return f"{abs(lat):.2f}° {'S' if lat < 0 else 'N'} {abs(lon):.2f}° {'W' if lon < 0 else 'E'}"


def _height(figure: Any) -> int:
    return int(figure.get_size_inches()[1] * 96 + 0.5)

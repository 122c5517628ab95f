"""convert --dry_run: headers only; prints what a run would do."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..transforms.assign import plan_shards
from ..transforms.choosing import Choice, splits_of
from ..transforms.config import Config
from ..transforms.errors import DeadLetter, SceneError
from ..transforms.planning import PlannedScene, agree, fit, plan_scene, record_bytes
from ..transforms.scenes import SceneFiles


def plan_report(
    config: Config, scenes: Sequence[SceneFiles]
) -> tuple[dict[str, Any], list[DeadLetter]]:
    """What a run would do: scenes with grids and patches, bytes, shards; and what it would skip.

    Patches are counted before ``min_valid`` and ``sample``, which only pixels can tell.
    """
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda s: plan_scene(s, config), scenes))
    planned = [r for r in results if isinstance(r, PlannedScene)]
    dead = [r for r in results if isinstance(r, DeadLetter)]
    layout = agree(planned)
    rows: list[dict[str, Any]] = []
    counts: dict[str, dict[str, int]] = {}
    for scene in planned:
        try:
            header = fit(scene, layout or scene.header).header
            grid = header.grid(config)
            corners = grid.corners()
            splits = splits_of(config, scene.scene.id, header, *corners)
        except SceneError as e:
            dead.append(DeadLetter.of(scene.scene.id, e))
            continue
        counts[scene.scene.id] = Choice(*corners, splits).counts(config)
        rows.append({
            "id": scene.scene.id, "width": header.where.width, "height": header.where.height,
            "bands": list(header.bands), "dtype": header.dtype, "grid": list(grid.shape),
            "patches": grid.count, "assumed": list(header.where.assumed),
        })  # fmt: skip
    each = record_bytes(layout, config) if layout else 0
    plans = plan_shards(counts, each, config)
    patches = sum(r["patches"] for r in rows)
    report = {
        "scenes": rows,
        "patches": patches,
        "splits": {k: sum(c[k] for c in counts.values()) for k in config.splits},
        "shards": {k: p.num_shards for k, p in plans.items()},
        "record_bytes": patches * each,
        "stage_bytes": patches * each,
        "skipped": [json.loads(d.to_json()) for d in dead],
    }
    return report, dead


def dry_run(
    config: Config, scenes: Sequence[SceneFiles], out: Path, json_path: str | None, max_failed: int
) -> int:
    """Prints the plan; gives the exit code a run could not better."""
    report, dead = plan_report(config, scenes)
    if json_path:
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n")
    for row in report["scenes"][:50]:
        grid = " x ".join(map(str, row["grid"]))
        print(
            f"{row['id']}: {row['width']} x {row['height']}, {', '.join(row['bands'])} "
            f"{row['dtype']}, grid {grid} = {row['patches']:,} patches"
        )
    if len(report["scenes"]) > 50:
        print(f"... and {len(report['scenes']) - 50} more scenes")
    for letter in dead:
        print(f"skip {letter.scene}: {letter.reason} [{letter.step}] {letter.file}")
    space = next(p for p in (out, *out.parents) if p.exists())
    splits = ", ".join(
        f"{k} {n:,} in {report['shards'].get(k, 0)} shards" for k, n in report["splits"].items()
    )
    print(
        f"{len(report['scenes'])} scenes, {report['patches']:,} patches at most ({splits}); "
        f"stage {report['stage_bytes'] / 1e6:,.1f} MB and records "
        f"{report['record_bytes'] / 1e6:,.1f} MB to {out} "
        f"({shutil.disk_usage(space).free / 1e6:,.0f} MB free); {len(dead)} skipped"
    )
    if not report["patches"]:
        print("scenefeed: no scene could be used", file=sys.stderr)
    return 1 if len(dead) > max_failed or not report["patches"] else 0

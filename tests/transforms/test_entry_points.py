"""A source and a label of someone else's, as docs/architecture.md shows them, by entry point."""

import os
import re
import subprocess
import sys

import numpy as np

from scenefeed.loader import Reader
from tests.conftest import ROOT, write_raster


def install(folder):
    """The page's two modules, as pip would leave them."""
    page = (ROOT / "docs/architecture.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        name = re.match(r"# (\w+\.py)", block)
        if name:
            (folder / name[1]).write_text(block)
    (entries,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    text = entries.replace('"', "").replace("project.entry-points.", "")
    (info / "entry_points.txt").write_text(text)


def convert(tmp_path, *argv):
    paths = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "scenefeed.pipelines.cli", "convert", *map(str, argv)],
        capture_output=True, text=True, timeout=170, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip


def test_the_pages_source_and_label(tmp_path):
    (tmp_path / "site").mkdir()
    install(tmp_path / "site")
    heights = np.arange(32 * 48, dtype=np.float32).reshape(32, 48)
    header = np.array([32, 48], "<u4").tobytes()
    (tmp_path / "hill.dem").write_bytes(b"HGT1" + header + heights.tobytes())
    (tmp_path / "c.yaml").write_text(
        "scenes: {paths: [hill.dem]}\n"
        "labels: {edge: {kind: distance, row: 0, column: 0}}\n"
        "tile: {size: 16}\n"
    )
    done = convert(tmp_path, "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    reader = Reader(tmp_path / "out")
    assert len(reader) == 6
    assert reader.spec.features["image"].bands == ("height",)
    for i in range(6):
        record = reader[i]
        row, col = int(record["row"]), int(record["col"])
        assert np.array_equal(record["image"][..., 0], heights[row : row + 16, col : col + 16])
        assert record["edge"] == np.float32(np.hypot(row + 8, col + 8))


def test_a_third_partys_kinds_stand_beside_ours(tmp_path):
    (tmp_path / "site").mkdir()
    install(tmp_path / "site")
    write_raster(tmp_path / "a.tif", np.ones((1, 16, 16), np.float32))
    (tmp_path / "c.yaml").write_text(
        "scenes: {paths: [a.tif]}\nlabels: {edge: {kind: distence, row: 0, column: 0}}\n"
    )
    done = convert(tmp_path, "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "did you mean 'distance'?" in done.stderr

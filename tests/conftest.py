"""Helpers that all tests share: real scenes, made scenes, the command, one-line Beam runs."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SCENEFEED_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scenes; tests that need it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"real scenes are not at {DATA}: set SCENEFEED_TEST_DATA")
    return DATA


def write_raster(
    path: Path, pixels: np.ndarray, *, crs: str | None = "EPSG:32633", origin=(500000, 5000000),
    resolution: float = 10, names=None, **profile: Any,
) -> Path:  # fmt: skip
    """A GeoTIFF of (bands, height, width) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    transform = from_origin(*origin, resolution, resolution)
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype,
        crs=crs, transform=transform, **profile,
    ) as out:  # fmt: skip
        out.write(pixels)
        if names:
            out.descriptions = names
    return path


def scenefeed(
    *args: object, code: int | None = 0, cwd: Path | None = None, seconds: float = 170
) -> Any:
    """Runs the real command; asserts its exit code and that no traceback shows."""
    done = subprocess.run(
        [sys.executable, "-m", "scenefeed.pipelines.cli", *map(str, args)],
        capture_output=True, text=True, cwd=cwd, timeout=seconds, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    if code is not None:
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def in_process(*args: object, code: int | None = 0, cwd: Path | None = None) -> Any:
    """As ``scenefeed``, in this process: a new one takes seconds to import Beam."""
    from scenefeed.pipelines.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            found = main([str(a) for a in args])
        except SystemExit as e:  # of argparse
            found = e.code
    done = subprocess.CompletedProcess(args, found, out.getvalue(), err.getvalue())
    assert "Traceback" not in done.stderr, done.stderr
    if code is not None:
        assert found == code, f"exit {found}\n{done.stdout}\n{done.stderr}"
    return done


def errors(done: Any) -> list[str]:
    """What the command said to standard error, TensorFlow's own greetings aside."""
    return [x for x in done.stderr.splitlines() if x.startswith("scenefeed")]


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two made scenes with a mask, 32 patches of 16 x 16 x 2, in three splits."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_raster(folder / f"scenes/{name}.tif", rng.normal(size=(2, 64, 64)).astype("float32"))
        write_raster(folder / f"labels/{name}.tif", rng.integers(0, 3, (1, 64, 64), np.uint8))
    (folder / "config.yaml").write_text(
        "name: small\n"
        "scenes: {paths: [scenes], bands: [VV, VH]}\n"
        "labels: {water: {kind: raster, path: 'labels/{id}.tif', ignore: [2]}}\n"
        "tile: {size: 16}\n"
        "split: {by: patch, fractions: {train: 0.7, val: 0.3, test: 0}}\n"
        "records: {num_shards: 3, seed: 1}\n"
    )
    scenefeed("convert", "--config", folder / "config.yaml", "--output", folder / "out")
    return folder


@pytest.fixture(scope="session")
def gzipped_dataset(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records in compressed shards."""
    out = tmp_path_factory.mktemp("gzip") / "out"
    config = small_dataset / "config.yaml"
    scenefeed("convert", "--config", config, "--output", out, "--compression", "gzip")
    return out

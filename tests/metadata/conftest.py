"""Datasets with much in them to be described."""

import csv

import numpy as np
import pytest

from tests.conftest import scenefeed, write_raster

SCRIPT = "<script>alert(1)<|x`y_ship"
SCENES = [("a_ice", "EPSG:32633", "ice", "2018-07-01"), (SCRIPT, None, "ship", "2018-07-05"),
          ("c_sea", "EPSG:32701", "sea", "")]  # fmt: skip
YAML = """\
name: "Ice & <ships> | all"
license: CC-BY-4.0
description: "Ships | <script>alert(1)</script> in ice"
scenes: {paths: [scenes.csv], bands: [VV, VH]}
labels:
  kind: {kind: scene, column: kind, classes: [ice, ship, sea]}
  depth: {kind: scene, column: "view:angle", task: regression}
scalars: ["view:angle", region, longitude]
clean: {to_db: [VV]}
tile: {size: 16}
split: {by: patch, fractions: {train: 0.7, val: 0.3, test: 0}}
records: {num_shards: 20}
statistics: {normalize: zscore}
"""


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """Odd names, a scene without CRS, one without time, an empty split, empty shards."""
    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    rows = [("id", "path", "kind", "view:angle", "region", "time")]
    for i, (name, crs, kind, time) in enumerate(SCENES):
        pixels = rng.random((2, 64, 64)).astype("float32")
        path = write_raster(folder / f"{name}.tif", pixels, crs=crs, resolution=1000)
        rows.append((name, path.name, kind, 30.5 + i, "north|<b>", time))
    with open(folder / "scenes.csv", "w") as file:
        csv.writer(file).writerows(rows)
    (folder / "c.yaml").write_text(YAML)
    scenefeed("convert", "--config", folder / "c.yaml", "--output", folder / "out")
    return folder / "out"


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """One patch of 40 bands of int16, with nodata and without labels."""
    folder, rng = tmp_path_factory.mktemp("wide"), np.random.default_rng(0)
    pixels = rng.integers(-100, 100, (40, 16, 16)).astype("int16")
    pixels[rng.random(pixels.shape) < 0.2] = -32768
    write_raster(folder / "w.tif", pixels, nodata=-32768)
    scenefeed("convert", folder / "w.tif", "--output", folder / "out", "--tile_size", 16)
    return folder / "out"


@pytest.fixture(params=["odd", "wide", "small"])
def dataset(request):
    if request.param == "small":
        return request.getfixturevalue("small_dataset") / "out"
    return request.getfixturevalue(request.param)

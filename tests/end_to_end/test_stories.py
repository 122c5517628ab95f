"""The pages of docs/stories, as a new user would follow them: their YAML, on real data, through the
real command, against rasterio and numpy reading the same files."""

import csv
import datetime
import json
import re
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT

from scenefeed.loader import Reader
from tests.conftest import ROOT, errors, scenefeed, write_raster

pytestmark = pytest.mark.slow


def blocks(page, language):
    text = (ROOT / f"docs/stories/{page}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def follow(page, folder, number=0, out="out"):
    """Converts and verifies by a page's YAML, which must need no other edits."""
    (folder / "page.yaml").write_text(blocks(page, "yaml")[number])
    scenefeed("convert", "--config", folder / "page.yaml", "--output", folder / out)
    scenefeed("verify", folder / out)
    return folder / out


def everything(out):
    """All records of all splits, column by column, and each one's split."""
    parts, splits = [], []
    for name in json.loads((out / "dataset.json").read_text())["splits"]:
        reader = Reader(out, name)
        parts.append(reader.batch(range(len(reader))))
        splits += [name] * len(reader)
    found = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return {**found, "split": np.array(splits)}


def features(out):
    return Reader(out, "train").spec.features


def patch(whole, row, col, size):
    return whole[..., row : row + size, col : col + size]


def scene_lines(out):
    return [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]


def keys(x, *more):
    return zip(x["row"].tolist(), x["col"].tolist(), *(x[k] for k in more), strict=True)


def test_segmentation(data, tmp_path):
    for name in ("S1Hand", "LabelHand"):
        (tmp_path / name).mkdir()
        for path in (data / "flood" / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    # One chip whose VH is NaN throughout, and one whose mask is -1 throughout.
    chip, mask = "{}_S1Hand.tif", "{}_LabelHand.tif"
    with rasterio.open(data / "flood/S1Hand" / chip.format("USA_905409")) as source:
        pixels, profile = source.read(), source.profile
    write_flood(
        tmp_path / "S1Hand" / chip.format("Blind_1"), [pixels[0], pixels[1] * np.nan], profile
    )
    (tmp_path / "LabelHand" / mask.format("Blind_1")).symlink_to(
        data / "flood/LabelHand" / mask.format("USA_905409")
    )
    write_flood(tmp_path / "S1Hand" / chip.format("Unseen_1"), pixels, profile)
    write_flood(
        tmp_path / "LabelHand" / mask.format("Unseen_1"), np.full((1, 512, 512), -1, np.int16),
        {**profile, "count": 1, "dtype": "int16", "nodata": None},
    )  # fmt: skip

    out = follow("segmentation", tmp_path)
    x = everything(out)
    assert features(out)["water"].names == ("dry", "water")
    scenes = {}
    for row, col, name, image, water in keys(x, "scene_id", "image", "water"):
        if name not in scenes:
            with (
                rasterio.open(tmp_path / "S1Hand" / chip.format(name)) as source,
                rasterio.open(tmp_path / "LabelHand" / mask.format(name)) as label,
            ):
                raw = source.read()
                pixels = np.where(np.isfinite(raw), np.clip(raw, -30, 5), 0)
                scenes[name] = pixels, label.read(1), np.isfinite(raw).all(axis=0)
        pixels, label, valid = (patch(a, row, col, 32) for a in scenes[name])
        assert np.array_equal(image, np.moveaxis(pixels, 0, -1))
        assert np.array_equal(water, label)
        assert valid.mean() >= 0.5
        assert (label != -1).any()
    assert len(scenes) == 7  # neither of the two made ones
    lines = {s["id"]: s for s in scene_lines(out)}
    assert lines["Blind_1"]["staged"] == lines["Unseen_1"]["staged"] == 0
    assert lines["Unseen_1"]["tallies"] == {"water_ignored": 512 * 512}

    # Two dry patches for one of water, in train alone.
    flat = x["water"].reshape(len(x["water"]), -1)
    wet = (flat == 1).sum(axis=1) > (flat == 0).sum(axis=1)
    train = x["split"] == "train"
    assert abs((~wet[train]).sum() / wet[train].sum() - 2) < 0.1
    assert (~wet[~train]).sum() / wet[~train].sum() > 2.5
    # No pixel of one split within 16 of another's.
    for name in lines:
        here = x["scene_id"] == name
        corners, splits = np.stack([x["row"], x["col"]], axis=1)[here], x["split"][here]
        apart = np.abs(corners[:, None] - corners[None]).max(axis=2) - 32
        assert (apart[splits[:, None] != splits[None]] >= 16).all()


def write_flood(path, pixels, profile):
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.asarray(pixels))


def test_classification(data, tmp_path):
    for path in (data / "landsat7").iterdir():
        (tmp_path / path.name).symlink_to(path)
    out = follow("classification", tmp_path)
    x, found = everything(out), features(out)
    classes = ["agriculture", "developed", "forest", "herbaceous", "sediment", "shrubland", "water"]
    assert found["cover"].names == ("background", *classes)
    assert found["field"].names == tuple(classes)
    assert found["image"].bands == ("blue", "green", "red", "nir", "swir", "ndvi")
    with rasterio.open(tmp_path / "landsat_multiband.tif") as scene:
        raw, valid, height, width = scene.read(), scene.read_masks() > 0, *scene.shape
        polygons, labels = shapes_on(scene, tmp_path / "landsat96_polygons.shp")
        drawn = sorted(
            zip(polygons, labels, strict=True), key=lambda one: one[1]
        )  # in order of ids
        cover = rasterize(
            [(shape, classes.index(name) + 1) for shape, name in drawn],
            out_shape=scene.shape, transform=scene.transform,
        )  # fmt: skip
        points, names = shapes_on(scene, tmp_path / "landsat96_points.shp")
        xs, ys = ~scene.transform @ (shapely.get_x(points), shapely.get_y(points))
        with rasterio.open(tmp_path / "landsat96_labelled_pixels.tif") as label, WarpedVRT(
            label, crs=scene.crs, transform=scene.transform, height=height, width=width,
            resampling=Resampling.nearest,
        ) as warped:  # fmt: skip
            pixels = np.where(warped.read_masks(1) > 0, warped.read(1), 0)
    red, nir = raw[2], raw[3]
    with np.errstate(all="ignore"):
        ndvi = (nir - red) / (nir + red)
    good = np.concatenate([valid, [valid[2] & valid[3] & np.isfinite(ndvi)]])
    image = np.where(good, np.concatenate([raw, [ndvi]]), 0).astype(np.float32)

    assert len(x["row"]) == (height // 32) * (width // 32)
    fields = (x[k] for k in ("image", "cover", "pixels", "field", "field_count"))
    for row, col, *got in zip(x["row"].tolist(), x["col"].tolist(), *fields, strict=True):
        assert np.allclose(got[0], np.moveaxis(patch(image, row, col, 32), 0, -1), atol=1e-6)
        assert np.array_equal(got[1], patch(cover, row, col, 32))
        assert np.array_equal(got[2], patch(pixels, row, col, 32))
        inside = (xs >= col) & (xs < col + 32) & (ys >= row) & (ys < row + 32)
        ids = np.bincount([classes.index(n) for n in names[inside]], minlength=7)
        assert got[4] == inside.sum()
        assert got[3] == (ids.argmax() if inside.any() else -1)
    assert len(np.unique(x["cover"])) == len(np.unique(x["pixels"])) == 8
    (line,) = scene_lines(out)
    beyond = (xs < 0) | (xs >= width) | (ys < 0) | (ys >= height)
    assert line["tallies"]["field_outside"] == beyond.sum() == 115
    assert line["tallies"]["cover_ignored"] == (x["cover"] == 0).sum()


def shapes_on(scene, path):
    """A shapefile's geometries in a scene's CRS, and their labels."""
    meta, _, wkb, fields = pyogrio.raw.read(path, columns=["label"], force_2d=True)

    def forward(xy):
        return np.stack(rasterio.warp.transform(meta["crs"], scene.crs, *xy.T), axis=1)

    return shapely.transform(shapely.from_wkb(wkb), forward), fields[0]


TIMES = ("20181015T133400", "20181027T133400")
WEST, NORTH, DEGREES = -115, 42, 0.01


@pytest.fixture(scope="module")
def soil(data, tmp_path_factory):
    """The page's table of points, made by the page's own lines, and rasters over the stations."""
    folder = tmp_path_factory.mktemp("soil")
    for name in ("sites_textures.csv", "all_data_descending.csv"):
        (folder / name).symlink_to(data / "soil/rzsm_scan_s1" / name)
    (code,) = blocks("regression", "python")
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=60)
    rng = np.random.default_rng(0)
    for time in TIMES:
        power = rng.gamma(4, 0.02, (2, 600, 500)).astype(np.float32)
        write_raster(
            folder / f"S1_{time}.tif", power, crs="EPSG:4326", origin=(WEST, NORTH),
            resolution=DEGREES, names=("VV", "VH"),
        )  # fmt: skip
    return folder


def test_regression(soil):
    out = follow("regression", soil)
    x = everything(out)
    with open(soil / "stations.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["ssm"]]
    stamps = np.array(
        [datetime.datetime.fromisoformat(r["time"] + "+00:00").timestamp() for r in rows]
    )
    cols = np.array([(float(r["lon"]) - WEST) / DEGREES for r in rows])
    lines = np.array([(NORTH - float(r["lat"])) / DEGREES for r in rows])
    values = np.array([float(r["ssm"]) for r in rows])
    expected, places = {}, {}
    for time in TIMES:
        acquired = datetime.datetime.strptime(time + "+0000", "%Y%m%dT%H%M%S%z").timestamp()
        scene = f"S1_{time}"
        near = np.flatnonzero(np.abs(stamps - acquired) <= 3600)
        for i in near:
            row, col = (int(np.floor(v)) // 16 * 16 for v in (lines[i], cols[i]))
            if 0 <= row <= 600 - 16 and 0 <= col <= 500 - 16:
                expected.setdefault((scene, row, col), []).append(values[i])
        where = x["scene_id"] == scene
        assert (x["time"][where] == acquired).all()
    got = list(keys(x, "scene_id", "moisture", "moisture_count", "moisture_std", "split"))
    assert {(name, row, col) for row, col, name, *_ in got} == set(expected)
    assert max(map(len, expected.values())) > 1
    for row, col, name, mean, count, std, split in got:
        here = expected[name, row, col]
        assert count == len(here)
        assert mean == pytest.approx(np.mean(here), rel=1e-6)
        assert std == pytest.approx(np.std(here), abs=1e-5)
        places.setdefault((row, col), set()).add(str(split))
    assert all(len(splits) == 1 for splits in places.values())  # on whatever day
    assert {str(s) for s in x["split"]} == {"train", "val", "test"}
    assert np.allclose(x["longitude"], WEST + (x["col"] + 8) * DEGREES, atol=1e-4)
    assert np.allclose(x["latitude"], NORTH - (x["row"] + 8) * DEGREES, atol=1e-4)
    with rasterio.open(soil / f"{x['scene_id'][0]}.tif") as source:
        power = patch(source.read(), x["row"][0], x["col"][0], 16)
    assert np.allclose(x["image"][0], np.moveaxis(10 * np.log10(power), 0, -1), atol=1e-4)


def test_stations_on_rasters_without_a_crs(soil, tmp_path):
    """Refused in one line where degrees cannot be told, and taken as pixels where that is said."""
    pixels = np.ones((1, 32, 32), np.float32)
    write_raster(tmp_path / "metres.tif", pixels, crs=None)
    with rasterio.open(
        tmp_path / "nowhere.tif", "w", driver="GTiff", count=1, height=32, width=32, dtype="float32"
    ) as out:
        out.write(pixels)
    (tmp_path / "stations.csv").symlink_to(soil / "stations.csv")
    yaml = (
        "scenes: {{paths: ['*.tif']}}\n"
        "labels: {{moisture: {{kind: points, path: {path}, value: ssm{crs}}}}}\n"
        "tile: {{size: 16}}\n"
    )
    (tmp_path / "degrees.yaml").write_text(yaml.format(path="stations.csv", crs=""))
    argv = ["--config", tmp_path / "degrees.yaml", "--output", tmp_path / "o"]
    said = errors(scenefeed("convert", *argv, code=1))
    assert len(said) == 3
    assert "metres: is in degrees, and the scene, which has no CRS, is not" in said[0]
    assert "nowhere: is in a CRS, but the scene has neither CRS nor transform" in said[1]
    (tmp_path / "pixels.csv").write_text("x,y,ssm\n3.5,20.5,10\n4.5,21.5,20\n")
    (tmp_path / "pixels.yaml").write_text(yaml.format(path="pixels.csv", crs=", crs: pixel"))
    out = tmp_path / "out"
    scenefeed("convert", "--config", tmp_path / "pixels.yaml", "--output", out)
    x = everything(out)
    assert len(x["row"]) == 8
    for row, col, mean, count in keys(x, "moisture", "moisture_count"):
        assert (mean, count) == (15, 2) if (row, col) == (16, 0) else (np.isnan(mean) and not count)


def test_images(data, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(data / "pets" / name)
    for path in (data / "pets/images").iterdir():
        folder = tmp_path / "breeds" / path.stem.rpartition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).symlink_to(path)
    breeds = sorted(path.name for path in (tmp_path / "breeds").iterdir())

    out = follow("images", tmp_path)
    x, found = everything(out), features(out)
    assert found["breed"].names == tuple(breeds)
    assert found["pet"].ignore == (255,)
    scenes = {}
    for row, col, name, image, pet, breed in keys(x, "scene_id", "image", "pet", "breed"):
        if name not in scenes:
            with (
                rasterio.open(data / f"pets/images/{name}.jpg") as photo,
                rasterio.open(data / f"pets/masks/{name}.png") as mask,
            ):
                margin = [(0, 0), (0, 128), (0, 128)]
                scenes[name] = (
                    np.pad(photo.read(), margin), np.pad(mask.read(), margin, constant_values=255)
                )  # fmt: skip
        photo, mask = (patch(a, row, col, 128) for a in scenes[name])
        assert np.array_equal(image, np.moveaxis(photo, 0, -1))
        assert np.array_equal(pet, mask[0])
        assert breeds[breed] == name.rpartition("_")[0]
    assert len(scenes) == 11
    assert all(len(set(x["split"][x["scene_id"] == name])) == 1 for name in scenes)
    assert scene_lines(out)[0]["assumed"] == ["no georeference: coordinates are pixels"]

    out = follow("images", tmp_path, 1, "folders")
    x = everything(out)
    assert features(out)["breed"].names == tuple(breeds)
    assert [breeds[i] for i in x["breed"]] == [n.rpartition("_")[0] for n in x["scene_id"]]


def test_icebergs(tmp_path):
    rng = np.random.default_rng(0)
    records = [
        {
            "id": f"{i:08x}",
            "band_1": rng.normal(-20, 5, 5625).round(6).tolist(),
            "band_2": rng.normal(-26, 3, 5625).round(6).tolist(),
            "inc_angle": "na" if i % 7 == 3 else round(30 + i / 3, 4),
            "is_iceberg": int(i % 3 == 0),
        }
        for i in range(20)
    ]
    (tmp_path / "train.json").write_text(json.dumps(records))
    out = follow("icebergs", tmp_path)
    x, found = everything(out), features(out)
    assert found["image"].bands == ("band_1", "band_2", "mean")
    assert found["is_iceberg"].names == ("ship", "iceberg")
    known = {r["id"]: r for r in records}
    assert sorted(x["scene_id"]) == sorted(known)
    for name, image, label, angle in zip(
        x["scene_id"], x["image"], x["is_iceberg"], x["inc_angle"], strict=True
    ):
        record = known[name]
        bands = [np.array(record[k]).reshape(75, 75) for k in ("band_1", "band_2")]
        expected = np.stack([*bands, np.mean(bands, axis=0)], axis=-1)
        assert np.allclose(image, expected, atol=1e-5)
        assert label == record["is_iceberg"]
        given = np.nan if record["inc_angle"] == "na" else np.float32(record["inc_angle"])
        assert np.array_equal(angle, given, equal_nan=True)
    assert np.isnan(x["inc_angle"]).sum() == 3
    assert Reader(out).spec.labels == ["is_iceberg"]


def test_every_page_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs/stories").iterdir():
        assert f"docs/stories/{page.name}" in readme

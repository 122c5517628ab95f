"""Every odd file there is, converted or refused in one line; and what containers hold."""

import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import rasterio

from scenefeed.loader import Reader
from tests.conftest import ROOT, errors
from tests.conftest import in_process as scenefeed

FOLDERS = ["odd/gdal_gcore", "odd/gdal_jp2", "odd/rio_tiler", "hdf_netcdf"]
MOST_SECONDS, MOST_MEMORY = 20, 3 << 29
SAFE = "sar/S1B_IW_GRDH_1SDV_20210401T052623_20210401T052648_026269_032297_ECC8.SAFE"


@pytest.mark.parametrize("size", [pytest.param(8, marks=pytest.mark.slow), 64])
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_converted_or_refused_in_one_line(data, folder, size):
    files = [str(p) for p in sorted((data / folder).rglob("*")) if p.is_file()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.alone", str(size), str(MOST_SECONDS)],
        input="\n".join(files), capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    lines = [json.loads(x) for x in done.stdout.splitlines()]
    assert [x["file"] for x in lines] == files
    for line in lines:
        assert line["status"] == 0, line
        assert line["said"] == "", line
        assert line["memory"] < MOST_MEMORY, line
        assert line["staged"] + len(line["reasons"]) == 1, line
        for reason in line["reasons"]:
            assert "\n" not in reason, line
            assert "not foreseen" not in reason, line


@pytest.mark.slow
def test_all_in_one_run(data, tmp_path):
    config = tmp_path / "all.yaml"
    config.write_text(
        f"scenes: {{paths: ['{data}/odd/**/*', '{data}/hdf_netcdf/**/*'], id: 'data/(.+)'}}\n"
        "tile: {size: 64, edge: pad}\n"
    )
    out = tmp_path / "out"
    done = scenefeed("convert", "--config", config, "--output", out, "--max_failed", 999)
    assert errors(done) == [x for x in done.stderr.splitlines() if x]
    files = {str(p) for d in ("odd", "hdf_netcdf") for p in (data / d).rglob("*") if p.is_file()}
    letters = [json.loads(x) for x in (out / "errors.jsonl").read_text().splitlines()]
    scenes = [json.loads(x) for x in (out / "scenes.jsonl").read_text().splitlines()]
    seen = [x["file"] for x in letters] + [f for s in scenes for f in s["source"]]
    assert sorted(seen) == sorted(files)
    assert not [x for x in letters if "not foreseen" in x["reason"]]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["peak_memory_bytes"] < MOST_MEMORY
    scenefeed("verify", out)


def convert(tmp_path, yaml, *more):
    """A configuration's dataset, and its only scene as one array (height, width, bands)."""
    (tmp_path / "c.yaml").write_text(yaml)
    scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", tmp_path / "out", *more)
    scenefeed("verify", tmp_path / "out")
    return Reader(tmp_path / "out")


def same(reader, expected):
    """Whether every patch is what lies at its place in (height, width, bands), padded with 0."""
    assert len(reader)
    for i in range(len(reader)):
        record = reader[i]
        image, row, col = record["image"], record["row"], record["col"]
        part = expected[row : row + len(image), col : col + image.shape[1]]
        padded = np.zeros_like(image)
        padded[: part.shape[0], : part.shape[1]] = part
        np.testing.assert_array_equal(image, padded)


def band(path, number=1):
    """A band as rasterio reads it, 0 where there is no data."""
    with rasterio.open(path) as dataset:
        return np.where(dataset.read_masks(number) > 0, dataset.read(number), 0)


def test_a_complex_subdataset_of_hdf5(data, tmp_path):
    file = data / "hdf_netcdf/isce3/SanAnd_129.h5"
    reader = convert(
        tmp_path,
        f"scenes: {{paths: '{file}', subdataset: frequencyA/HH}}\n"
        "clean: {complex: [real, imag]}\ntile: {size: 50}\n",
    )
    with rasterio.open(f'HDF5:"{file}"://science/LSAR/SLC/swaths/frequencyA/HH') as dataset:
        pixels = dataset.read(1)
    assert pixels.any()
    same(reader, np.stack([pixels.real, pixels.imag], axis=-1))


def test_subdatasets_of_netcdf_as_bands(data, tmp_path):
    folder = data / "hdf_netcdf/nansat"
    reader = convert(
        tmp_path,
        f"scenes: {{bands: {{umass: '{folder}/arc*.nc#UMass_AES', "
        f"bootstrap: '{folder}/arc*.nc#Bootstrap'}}}}\ntile: {{size: 64, edge: pad}}\n",
    )
    assert reader.spec.features["image"].bands == ("umass", "bootstrap")
    names = [f"netcdf:{folder}/arctic.nc:{n}" for n in ("UMass_AES", "Bootstrap")]
    same(reader, np.stack([band(n) for n in names], axis=-1))


def test_a_subdataset_that_is_not_there(data, tmp_path):
    (tmp_path / "c.yaml").write_text(
        f"scenes: {{paths: '{data}/hdf_netcdf/gdal/groups.h5', subdataset: dset3}}\n"
    )
    done = scenefeed("convert", "--config", "c.yaml", "--output", "out", code=1, cwd=tmp_path)
    assert "no subdataset is called 'dset3': there are MyGroup/Group_A/dset2" in errors(done)[0]


def test_suffixes_that_lie(data, tmp_path):
    source = data / "multispectral/rasterio/RGB.byte.tif"
    for name in ("a.jp2", "b.png", "c.nc", "d.h5", "e.npy"):
        shutil.copy(source, tmp_path / name)
    reader = convert(tmp_path, "scenes: {paths: '*.*[!l]'}\ntile: {size: 256, edge: pad}\n")
    assert {reader[i]["scene_id"] for i in range(len(reader))} == set("abcde")
    same(reader, np.stack([band(source, n) for n in (1, 2, 3)], axis=-1))


@pytest.mark.slow
def test_sentinel2_bands_by_pattern(data, tmp_path):
    folder = data / "multispectral/s2_safe_jp2"
    reader = convert(
        tmp_path,
        f"scenes: {{bands: {{B02: '{folder}/T*_B02.jp2', B08: '{folder}/T*_B08.jp2'}}}}\n"
        "tile: {size: 256, stride: 1000}\n",
    )
    assert {reader[i]["scene_id"] for i in range(len(reader))} == {"30UVU_20230605T110619"}
    names = [folder / f"T30UVU_20230605T110619_{n}.jp2" for n in ("B02", "B08")]
    same(reader, np.stack([band(n) for n in names], axis=-1))


@pytest.mark.slow
def test_a_sentinel1_product_unpacked_and_zipped(data, tmp_path):
    product = data / SAFE
    archive = tmp_path / "product.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(product.rglob("*")):
            file.write(path, path.relative_to(product.parent))
    found = []
    for name, source in {"folder": product, "zip": archive}.items():
        (tmp_path / name).mkdir()
        yaml = f"scenes: {{paths: '{source}'}}\ntile: {{size: 256, stride: 2048}}\n"
        reader = convert(tmp_path / name, yaml)
        spec = json.loads((tmp_path / name / "out/dataset.json").read_text())
        found.append((spec["fingerprint"], spec["features"]["image"]["bands"]))
        (image,) = product.glob("measurement/*-vv-*.tiff")
        same(reader, band(image)[..., None])
    assert found[0] == found[1]
    assert found[0][1] == ["VV"]

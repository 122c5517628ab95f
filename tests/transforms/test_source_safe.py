"""The SAFE source: Sentinel-1 and Sentinel-2 products, unpacked and zipped."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenefeed.transforms.scenes import SceneFiles
from scenefeed.transforms.sections import Scenes
from scenefeed.transforms.sources import safe
from scenefeed.transforms.sources.safe import SafeSource, incidence_at, incidence_grid
from tests.conftest import write_raster

SOURCE = SafeSource()
GRD = "S1B_IW_GRDH_1SDV_20210401T052623_20210401T052648_026269_032297_ECC8"
L1C = "S2B_MSIL1C_20230605T110619_N0509_R137_T30UVU_20230605T131150"
L2A = "S2A_MSIL2A_20200102T110441_N0213_R094_T30UVU_20200102T121110"


def _find(path: Path, **scenes: Any) -> SceneFiles:
    head = path.read_bytes()[:512] if path.is_file() else b""
    assert SOURCE.claims(path, head)
    (scene,) = SOURCE.find(path, Scenes(**scenes))
    return scene


def _zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def _image(path: Path, value: float, size: int = 8) -> None:
    write_raster(path, np.full((1, size, size), value, np.uint16))


def _annotation(lines: list[int], pixels: list[int]) -> str:
    """A geolocation grid whose angles are 30 + line / 100 + pixel / 1000."""
    points = "".join(
        f"<geolocationGridPoint><line>{r}</line><pixel>{c}</pixel>"
        f"<incidenceAngle>{30 + r / 100 + c / 1000:e}</incidenceAngle></geolocationGridPoint>"
        for r in lines
        for c in pixels
    )
    return f"<product><geolocationGrid>{points}</geolocationGrid></product>"


@pytest.fixture
def slc(tmp_path: Path) -> Path:
    """Three swaths, two polarisations each."""
    folder = tmp_path / "S1A_IW_SLC__1SDV_20190705T174511_20190705T174538_027987_0328F5_1A2B.SAFE"
    number = 0
    for polarisation in ("vh", "vv"):
        for swath in ("iw1", "iw2", "iw3"):
            number += 1
            stem = f"s1a-{swath}-slc-{polarisation}-20190705t174511-20190705t174536-027987-0328f5-00{number}"
            _image(folder / f"measurement/{stem}.tiff", number)
            (folder / "annotation").mkdir(exist_ok=True)
            (folder / f"annotation/{stem}.xml").write_text(_annotation([0, 4, 7], [0, 7]))
    (folder / "manifest.safe").write_text("<damaged")
    return folder


@pytest.fixture
def l2a(tmp_path: Path) -> Path:
    folder = tmp_path / f"{L2A}.SAFE"
    images = folder / "GRANULE/L2A_T30UVU_A023660_20200102T110435/IMG_DATA"
    for number, (metres, bands) in enumerate(
        {10: "B02 B08 TCI AOT", 20: "B02 B8A B11 SCL AOT", 60: "B01 B02 B09 B12 SCL"}.items()
    ):
        for band in bands.split():
            _image(
                images / f"R{metres}m/T30UVU_20200102T110441_{band}_{metres}m.jp2", number, metres
            )
    _image(images.parent / "QI_DATA/MSK_DETFOO_B03.jp2", 0)
    _image(images.parent / "QI_DATA/T30UVU_20200102T110441_PVI.jp2", 0)
    (folder / "manifest.safe").write_text("<a/>")
    return folder


def test_a_real_sentinel1_product(data: Path) -> None:
    folder = data / f"sar/{GRD}.SAFE"
    scene = _find(folder)
    assert (scene.id, scene.bands, scene.problem) == (GRD, ("VV",), "")
    annotation = next(folder.glob("annotation/*-vv-*.xml")).read_bytes()
    angles = [float(a) for a in re.findall(rb"<incidenceAngle>(.*?)<", annotation)]
    assert scene.properties == {
        "time": "2021-04-01T05:26:23Z",
        "platform": "Sentinel-1B",
        "orbit": "descending",
        "relative_orbit": 168,
        "incidence_angle": pytest.approx(np.mean(angles), abs=1e-3),
    }
    with SOURCE.open(scene.assets[0]) as dataset:
        assert dataset.shape == (16685, 25788)
    assert _find(folder / "manifest.safe") == scene
    assert "VV" in _find(folder, bands=("VH",)).problem
    lines, pixels, grid = incidence_grid(annotation)
    assert grid.shape == (len(lines), len(pixels)) == (10, 21)
    rows, cols = np.meshgrid(lines, pixels, indexing="ij")
    found = incidence_at(scene.assets[0], rows.ravel(), cols.ravel())
    np.testing.assert_allclose(found, angles)


def test_swaths_have_grids_of_their_own(slc: Path) -> None:
    scene = _find(slc)
    assert "bands of one" in scene.problem
    assert "IW1_VV, IW1_VH, IW2_VV" in scene.problem
    assert "bands of one" in _find(slc, bands=("IW1_VV", "IW2_VV")).problem
    scene = _find(slc, bands=("iw2_vh", "IW2_VV"))
    assert (scene.bands, scene.problem) == (("iw2_vh", "IW2_VV"), "")
    assert [SOURCE.open(a).read(1)[0, 0] for a in scene.assets] == [2, 5]
    assert scene.properties["time"] == "2019-07-05T17:45:11Z"
    assert "orbit" not in scene.properties  # its manifest is damaged


def test_incidence_is_bilinear(slc: Path) -> None:
    zipped = _zip(slc, slc.parent / "p.zip")
    for path in (slc, zipped):
        asset = _find(path, bands=("IW3_VV",)).assets[0]
        found = incidence_at(asset, [0, 2, 6.5, 100], [0, 3, 6.5, -5])
        np.testing.assert_allclose(found, [30, 30.023, 30.0715, 30.07])
    for damaged in (
        "<product/>",
        "<product",
        _annotation([0, 4], [0, 7]).replace("<pixel>7", "<pixel>8", 1),
    ):
        with pytest.raises((ValueError, SyntaxError)):
            incidence_grid(damaged.encode())


def test_a_renamed_product_is_told_by_its_files(slc: Path) -> None:
    folder = slc.rename(slc.parent / "site_7")
    scene = _find(folder, bands=("IW1_VV",))
    assert scene.id == "site_7"
    assert scene.properties["platform"] == "Sentinel-1A"
    assert scene.properties["time"] == "2019-07-05T17:45:11Z"
    assert not SOURCE.claims(folder / "measurement", b"")
    (folder / "annotation").rename(folder / "elsewhere")
    assert "incidence_angle" not in _find(folder, bands=("IW1_VV",)).properties


def test_sentinel2_level_2a(l2a: Path) -> None:
    zipped = _zip(l2a, l2a.parent / "anything.bin")
    for path in (l2a, zipped):
        scene = _find(path)
        assert (scene.id, scene.problem) == (L2A, "")
        assert scene.bands == ("B01", "B02", "B08", "B8A", "B09", "B11", "B12")
        sizes = {}
        for band, asset in zip(scene.bands, scene.assets, strict=True):
            assert Path(asset.path).exists()
            with SOURCE.open(asset) as dataset:
                sizes[band] = dataset.width
        assert sizes["B02"] == 10  # the finest
        assert (sizes["B8A"], sizes["B01"]) == (20, 60)
        assert scene.properties == {
            "time": "2020-01-02T11:04:41Z", "platform": "Sentinel-2A", "relative_orbit": 94,
        }  # fmt: skip
        scene = _find(path, bands=("scl", "B8A", "TCI", "pvi"))
        assert scene.bands == ("scl", "B8A", "TCI", "pvi")
        assert "_SCL_20m" in str(scene.assets[0])
        scene = _find(path, bands=("B8A", "B03"))
        assert scene.problem.startswith("has no band B03: has B01, B02")


def test_a_real_sentinel2_tile(data: Path, tmp_path: Path) -> None:
    files = data / "multispectral/s2_safe_jp2"
    folder = tmp_path / f"{L1C}.SAFE"
    tile = folder / "GRANULE/L1C_T30UVU_A032624_20230605T111628"
    (tile / "IMG_DATA").mkdir(parents=True)
    for image in files.glob("T30UVU*.jp2"):
        (tile / "IMG_DATA" / image.name).symlink_to(image)
    shutil.copy(files / "MTD_TL.xml", tile)
    scene = _find(folder)
    assert (scene.id, scene.bands) == (L1C, ("B02", "B08"))
    assert scene.properties["time"] == "2023-06-05T11:06:19Z"
    assert scene.properties["sun_zenith"] == pytest.approx(27.9454577, abs=1e-4)
    assert 7 < scene.properties["incidence_angle"] < 10
    with SOURCE.open(scene.assets[0]) as dataset:
        assert dataset.crs.to_epsg() == 32630
    (folder / "manifest.safe").write_text("<a/>")
    scene = _find(_zip(folder, tmp_path / "a.zip"))
    with SOURCE.open(scene.assets[1]) as dataset:
        assert dataset.driver.startswith("JP2")


def test_what_is_no_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").mkdir()
    assert not SOURCE.claims(tmp_path / "plain", b"")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("deep/er/manifest.safe", "<a/>")
    head = (tmp_path / "a.zip").read_bytes()
    assert not SOURCE.claims(tmp_path / "a.zip", head)
    (tmp_path / "a.zip").write_bytes(head[:40])
    assert not SOURCE.claims(tmp_path / "a.zip", head)
    (tmp_path / "empty.SAFE").mkdir()
    assert "holds no measurement" in _find(tmp_path / "empty.SAFE").problem
    folder = tmp_path / f"{GRD}.SAFE"
    _image(folder / "measurement/s1b-iw-grd-vv-x-001.tiff", 1)
    (folder / "annotation").mkdir()
    (folder / "annotation/s1b-iw-grd-vv-x-001.xml").write_text(_annotation([0, 7], [0, 7]))
    assert "incidence_angle" in _find(folder).properties
    monkeypatch.setattr(safe, "MAX_XML", 100)
    assert "incidence_angle" not in _find(folder).properties
    _image(folder / "measurement/s1b-iw-grd-vv-y-002.tiff", 1)
    assert "several images of VV" in _find(folder).problem

"""What lies beside scenes' files, and that GDAL, told that nothing does, misses nothing."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from scenefeed.transforms.config import parse
from scenefeed.transforms.finding import find_scenes
from scenefeed.transforms.rasters import gdal_environment


def write(path, **profile):
    data = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8"} | profile
    with rasterio.open(path, "w", **profile) as file:
        file.write(data)


def found(folder, *names, **more):
    config = parse({"scenes": {"paths": list(names) or ["*.tif"]}, **more}, "x")
    return {s.id: s for s in find_scenes(config, folder)}


@pytest.mark.parametrize(
    "beside",
    [
        "a.TFW",
        "a.tfw",
        "a.tif.aux.xml",
        "a.tif.msk",
        "A.TIF.OVR",
        "a.aux",
        "a_rpc.txt",
        "a",
        "a.jpg",
    ],
)
def test_a_file_that_is_called_alike_is_looked_at(tmp_path, beside):
    for name in ("a.tif", "ab.tif", "a1.tif"):
        write(tmp_path / name)
    (tmp_path / beside).write_text("")
    scenes = found(tmp_path)
    assert {k: s.alone for k, s in scenes.items()} == {"a": False, "ab": True, "a1": True}


def test_only_rasters_of_one_file_can_be_alone(tmp_path):
    write(tmp_path / "a.tif")
    write(tmp_path / "b.img", driver="HFA")
    os.mkdir(tmp_path / "labels")
    write(tmp_path / "labels" / "a.tif")
    (tmp_path / "labels" / "b.geojson").write_text("{}")
    assert found(tmp_path)["a"].alone
    assert not found(tmp_path, "b.img")["b"].alone
    masks = {"m": {"kind": "raster", "path": "labels/{id}.tif"}}
    assert found(tmp_path, labels=masks)["a"].alone
    (tmp_path / "labels" / "a.tif.msk").write_text("")
    assert not found(tmp_path, labels=masks)["a"].alone
    shapes = {"m": {"kind": "vector", "path": "labels/b.geojson"}}
    assert not found(tmp_path, labels=shapes)["a"].alone


def test_a_vrt_by_another_name_is_not_alone(tmp_path):
    write(tmp_path / "in.tif")
    write(tmp_path / "other.png", driver="PNG")
    rasterio.shutil.copy(tmp_path / "in.tif", tmp_path / "named.tif", driver="VRT")
    scenes = found(tmp_path, "*.tif", "*.png")
    alone = {"in": True, "other": True, "named": False}
    assert {k: s.alone for k, s in scenes.items()} == alone


def test_what_one_scene_is_told_is_not_told_of_another(tmp_path):
    """An option that the main thread sets is every thread's."""
    for name in ("a.tif", "b.tif"):
        write(tmp_path / name)
    (tmp_path / "b.tfw").write_text("10\n0\n0\n-10\n1005\n1995\n")
    scenes = found(tmp_path)

    def where():
        with gdal_environment(scenes["b"]), rasterio.open(tmp_path / "b.tif") as file:
            return file.transform

    with gdal_environment(scenes["a"]), ThreadPoolExecutor(1) as pool:
        assert pool.submit(where).result() == rasterio.Affine(10, 0, 1000, 0, -10, 2000)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    write(tmp_path / "a.tif")

    def refuse(_):
        raise PermissionError

    monkeypatch.setattr("scenefeed.transforms.beside.os.listdir", refuse)
    scene = found(tmp_path, str(tmp_path / "a.tif"))["a"]
    assert not scene.alone
    assert set(scene.stamps) == {str(tmp_path / "a.tif")}


@pytest.mark.parametrize("world", ["a.tfw", "a.TFW"])
def test_a_world_file_gives_the_georeference_whatever_its_case(tmp_path, world):
    write(tmp_path / "a.tif")
    write(tmp_path / "b.tif", transform=rasterio.Affine(5, 0, 100, 0, -5, 200))
    (tmp_path / world).write_text("10\n0\n0\n-10\n1005\n1995\n")
    scenes = found(tmp_path)
    with gdal_environment(scenes["a"]), rasterio.open(tmp_path / "a.tif") as file:
        assert file.transform == rasterio.Affine(10, 0, 1000, 0, -10, 2000)
    with gdal_environment(scenes["b"]), rasterio.open(tmp_path / "b.tif") as file:
        assert file.transform == rasterio.Affine(5, 0, 100, 0, -5, 200)
        assert file.files == [str(tmp_path / "b.tif")]


def test_a_sidecar_that_comes_or_goes_changes_the_fingerprint(tmp_path):
    write(tmp_path / "a.tif")
    first = found(tmp_path)["a"].fingerprint("c")
    (tmp_path / "a.tif.msk").write_text("m")
    second = found(tmp_path)["a"].fingerprint("c")
    os.remove(tmp_path / "a.tif.msk")
    assert first != second
    assert found(tmp_path)["a"].fingerprint("c") == first

"""The NumPy source: what GDAL reads through it is what numpy.load gives."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window

from scenefeed.transforms.scenes import Asset
from scenefeed.transforms.sections import Scenes
from scenefeed.transforms.sources.arrays import NumpySource

SOURCE = NumpySource()


def _values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 100, shape)
    if np.dtype(dtype).kind == "c":
        return (values + 1j * values[::-1]).astype(dtype)
    return values.astype(dtype) if dtype != "bool" else values > 50


def _claimed(path: Path) -> bool:
    return SOURCE.claims(path, path.read_bytes()[:512])


def _read(path: Path, part: str = "") -> np.ndarray:
    with SOURCE.open(Asset(str(path), part, "numpy")) as dataset:
        return dataset.read()


@pytest.mark.parametrize(
    "dtype",
    "bool i1 u1 <i2 >i2 <u2 >u2 <i4 >i4 >u4 <i8 >u8 f2 >f2 <f4 >f4 <f8 >f8 <c8 >c8 <c16 g".split(),
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_dtype_reads_as_numpy_does(tmp_path: Path, dtype: str, order: str) -> None:
    pixels = np.asarray(_values((3, 7, 11), dtype), order=order)
    np.save(tmp_path / "a&<b>.npy", pixels)
    read = _read(tmp_path / "a&<b>.npy")
    np.testing.assert_array_equal(read, np.load(tmp_path / "a&<b>.npy"))
    np.savez_compressed(tmp_path / "deflated.npz", x=pixels)
    np.testing.assert_array_equal(_read(tmp_path / "deflated.npz", "x"), pixels)
    assert read.dtype.kind == ("u" if dtype == "bool" else pixels.dtype.kind)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, 9), None), ((2, 5, 9), 0), ((5, 9, 2), -1), ((1, 5, 9), 0), ((4, 9, 4), -1)],
)
def test_the_smaller_outer_axis_is_the_bands(
    tmp_path: Path, shape: tuple[int, ...], axis: int | None
) -> None:
    pixels = _values(shape, "int16")
    np.save(tmp_path / "a.npy", pixels)
    expected = pixels[None] if axis is None else np.moveaxis(pixels, axis, 0)
    np.testing.assert_array_equal(_read(tmp_path / "a.npy"), expected)


def test_a_large_array_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    large = np.lib.format.open_memmap(path, "w+", np.float32, (5000, 10000))  # 200 MB, sparse
    large[4000:4003, 9000:9004] = 7
    large.flush()
    del large

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    with SOURCE.open(Asset(str(path), "", "numpy")) as dataset:
        read = dataset.read(1, window=Window(8999, 3999, 6, 5))
    assert resident() - before < 50e6
    assert (read == 7).sum() == 12
    assert (read[1:4, 1:5] == 7).all()


def test_planes_of_one_shape_are_bands(tmp_path: Path) -> None:
    path = tmp_path / "scene.npz"
    vv, vh = _values((6, 8), ">f4"), _values((6, 8), "f8")
    np.savez(path, VV=vv, VH=vh, when=np.array("2020-01-01"))
    assert _claimed(path)
    (scene,) = SOURCE.find(path, Scenes())
    assert (scene.id, scene.bands, scene.problem) == ("scene", ("VV", "VH"), "")
    with SOURCE.open(scene.assets[1]) as dataset:
        assert dataset.descriptions == ("VH",)
        np.testing.assert_array_equal(dataset.read(1), vh)
    np.testing.assert_array_equal(_read(path, "VV")[0], vv)
    for bands, parts in [
        (("VH", "VV"), ["VH", "VV"]),
        (("VH",), ["VH"]),
        (("a", "b"), ["VV", "VH"]),
    ]:
        (scene,) = SOURCE.find(path, Scenes(bands=bands))
        assert (scene.bands, [a.part for a in scene.assets]) == (bands, parts)
    (scene,) = SOURCE.find(path, Scenes(bands=("VV", "HH")))
    assert "band HH" in scene.problem
    assert "VH (6, 8)" in scene.problem


def test_which_array_must_be_clear(tmp_path: Path) -> None:
    path = tmp_path / "scene.npz"
    np.savez(path, image=_values((3, 6, 8), "u1"), mask=_values((6, 8), "u1"))
    (scene,) = SOURCE.find(path, Scenes())
    assert "scenes.subdataset" in scene.problem
    (scene,) = SOURCE.find(path, Scenes(subdataset="image"))
    assert [a.part for a in scene.assets] == ["image"]
    assert (scene.bands, scene.problem) == ((), "")
    (scene,) = SOURCE.find(path, Scenes(subdataset="labels"))
    assert "image (3, 6, 8)" in scene.problem
    np.savez(path, image=_values((3, 6, 8), "u1"), names=np.array(["a"]))
    (scene,) = SOURCE.find(path, Scenes(bands=("R", "G", "B")))
    assert (len(scene.assets), scene.bands, scene.problem) == (1, (), "")


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _values((4, 5), "u1"))
    (tmp_path / "a.npy").rename(tmp_path / "a.tif")
    assert _claimed(tmp_path / "a.tif")
    (tmp_path / "b.npy").write_bytes(b"nothing of the kind")
    assert not _claimed(tmp_path / "b.npy")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("a.npy", (tmp_path / "a.tif").read_bytes())
        archive.writestr("readme.txt", "not an array")
    assert not _claimed(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:100])
    assert not _claimed(tmp_path / "d.npz")


def test_what_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pixels: np.ndarray | None, words: str, part: str = "") -> None:
        path = tmp_path / ("a.npz" if part else "a.npy")
        if pixels is not None:
            np.save(path, pixels, allow_pickle=True)
        with pytest.raises(ValueError, match=words) as e:
            SOURCE.open(Asset(str(path), part, "numpy"))
        assert "\n" not in str(e.value)

    refused(np.array([[{}, 1]], dtype=object), "not numbers")
    refused(np.array([["a", "b"]]), "not numbers")
    refused(np.zeros(5), "shape")
    refused(np.zeros((2, 3, 4, 5)), "shape")
    refused(np.zeros((0, 5)), "shape")
    pixels = _values((40, 50), "f4")
    np.save(tmp_path / "a.npy", pixels)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-1])
    refused(None, "cut off: its header says 8000 bytes of values, and it has 7999")
    (tmp_path / "a.npy").write_bytes(whole[:90])
    refused(None, "EOF|header")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", whole[:-8])
    refused(None, "cut off", "x")
    refused(None, "no array 'y'", "y")
    monkeypatch.setattr("scenefeed.transforms.sources.arrays.MAX_LOADED", 1000)
    refused(np.asfortranarray(pixels), "C order")

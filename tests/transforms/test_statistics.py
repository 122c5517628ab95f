"""Statistics against NumPy over every value."""

import math
from fractions import Fraction

import numpy as np
import pytest

from scenefeed.loader.spec import DatasetSpec, Feature
from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import JobError
from scenefeed.transforms.pipeline import _CountScene
from scenefeed.transforms.sections import Statistics
from scenefeed.transforms.statistics import tally as tally_module
from scenefeed.transforms.statistics.counting import Counting
from scenefeed.transforms.statistics.document import document
from scenefeed.transforms.statistics.numbers import (
    QUANTILES,
    Numbers,
    buckets_of,
    codes_of,
    limits,
)
from scenefeed.transforms.statistics.partial import MOST_CLASSES, Partial
from scenefeed.transforms.statistics.scene import count_scene
from scenefeed.transforms.statistics.tally import Tally
from tests.conftest import write_raster
from tests.transforms.stages import column, stage


def of(values: np.ndarray, bad: np.ndarray | None = None) -> Numbers:
    tally = Tally(str(values.dtype), 1)
    whole = values.reshape(1, -1, 1)
    tally.add(whole, None if bad is None else bad.reshape(1, -1, 1))
    return tally.numbers()[0]


VALUES = {
    "sar power over eight decades": lambda g: 10 ** g.uniform(-7, 1, (50, 64, 2)),
    "far from zero": lambda g: 1e6 + g.normal(size=(50, 64, 2)),
    "negative": lambda g: g.normal(-13, 6, (50, 64, 2)),
    "one value": lambda g: np.full((50, 64, 2), 7.3),
    "one patch": lambda g: g.normal(size=(1, 4096, 2)),
    "patches of one pixel": lambda g: g.normal(size=(4096, 1, 2)),
    "forty bands": lambda g: g.normal(size=(20, 64, 40)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "int32", "float16"])
@pytest.mark.parametrize("kind", VALUES)
def test_bands_are_as_numpy_has_them(kind, dtype):
    values = VALUES[kind](np.random.default_rng(3))
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        values = np.clip(np.round(values * 10), info.min, info.max)
    values = (
        np.clip(values, -6e4, 6e4).astype(dtype) if dtype == "float16" else values.astype(dtype)
    )
    tally = Tally(dtype, values.shape[2])
    for part in np.array_split(values, 3):
        tally.add(part)
    for band, numbers in enumerate(tally.numbers()):
        exact = [Fraction(v.item()) for v in values[..., band].ravel()]
        mean = sum(exact) / len(exact)
        variance = sum((v - mean) ** 2 for v in exact) / len(exact)
        assert numbers.count == len(exact)
        assert numbers.mean == pytest.approx(float(mean), rel=1e-12, abs=1e-300)
        assert numbers.variance == pytest.approx(float(variance), rel=1e-9, abs=1e-300)
        assert (numbers.least, numbers.most) == (min(exact), max(exact))
        expected = np.quantile(values[..., band].astype(np.float64), QUANTILES)
        if dtype in ("int16", "uint8"):
            assert numbers.quantiles(QUANTILES, dtype) == pytest.approx(expected.tolist())
        else:
            rank = np.sort(values[..., band].astype(np.float64).ravel())
            gap = np.abs(np.diff(rank)).max(initial=0)  # between neighbours, where few values lie
            np.testing.assert_allclose(
                numbers.quantiles(QUANTILES, dtype), expected, rtol=1 / 128, atol=gap + 1e-30
            )
        bars = numbers.to_json(dtype)["histogram"]
        assert sum(bars["counts"]) == len(exact)
        assert len(bars["edges"]) == 65
        assert (np.diff(bars["edges"]) > 0).all()


@pytest.mark.parametrize("kept", [1, 20, 4096])  # patches
def test_any_order_and_grouping_gives_the_same_bits(kept, monkeypatch):
    monkeypatch.setattr(tally_module, "_KEPT", kept)
    values = np.random.default_rng(0).gamma(1, 0.1, (64, 256, 2)).astype(np.float32)
    values[3] *= 1e30
    values[4] = 1e-42
    found = []
    for order, parts in (
        (np.arange(64), 1),
        (np.arange(64)[::-1], 7),
        (np.roll(np.arange(64), 5), 3),
    ):
        tally = Tally("float32", 2)
        for part in np.array_split(values[order], parts):
            tally.add(part)
        found.append(Partial(64, tuple(tally.numbers()), {}, {}).to_bytes())
    assert found[0] == found[1] == found[2]
    thirds = [np.array_split(values, 3)[i] for i in (0, 1, 2)]
    partials = []
    for part in thirds:
        tally = Tally("float32", 2)
        tally.add(part)
        partials.append(Partial(len(part), tuple(tally.numbers()), {}, {"c": {1: 2, 5: 1}}))
    one, other = Partial.merged(partials), Partial.merged([partials[2], *partials[:2]])
    assert one.to_bytes() == other.to_bytes()
    assert Partial.from_bytes(one.to_bytes()).to_bytes() == one.to_bytes()
    assert one.classes == {"c": {1: 6, 5: 3}}
    assert one.bands[0].mean == pytest.approx(values[..., 0].astype(float).mean(), rel=1e-13)
    sums = [_patch_sums(patch.astype(np.float64)) for patch in values[..., 0]]
    total, squares = map(sum, zip(*sums, strict=True))
    assert one.bands[0].total == total
    assert float(one.bands[0].squares / squares) == pytest.approx(1, rel=1e-13)


@pytest.mark.parametrize(
    ("pixels", "one_of", "is_sampled"),
    [(4096, 4, True), (256, 4, True), (100, 4, False), (4096, 16, True), (256, 16, False)],
)
def test_a_sample_tells_quantiles_and_nothing_else(pixels, one_of, is_sampled):
    rng = np.random.default_rng(2)
    values = rng.gamma(2, 1, (50_000 * one_of // pixels, pixels, 2)).astype(np.float32)
    bad = rng.random(values.shape) < 0.2
    sampled, whole = Tally("float32", 2, sampled=one_of), Tally("float32", 2)
    for tally in (sampled, whole):
        tally.add(values)
        tally.add(values[:3], bad[:3])
    for some, all_ in zip(sampled.numbers(), whole.numbers(), strict=True):
        left = ("codes", "counts", "counted")
        assert {k: v for k, v in vars(some).items() if k not in left} == {
            k: v for k, v in vars(all_).items() if k not in left
        }
        assert some.counts.sum() == some.count == all_.counted
        shares = (0.01, 0.25, 0.5, 0.75, 0.99)
        expected = all_.quantiles(shares, "float32")
        if not is_sampled:
            assert some.counted == all_.counted
            assert some.quantiles(shares, "float32") == expected
        else:
            partly = (~bad[:3]).sum() / 2
            assert some.counted == pytest.approx(values.size / 2 / one_of + partly, abs=pixels)
            assert some.quantiles(shares, "float32") == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("one_of", [4, 16])
def test_a_sample_has_columns_of_all_kinds(one_of):
    patch = np.tile(np.arange(64, dtype=np.float32), 64)[None, :, None]  # a value a column
    tally = Tally("float32", 1, sampled=one_of)
    tally.add(patch)
    (numbers,) = tally.numbers()
    assert (numbers.counts == 64).all()
    assert len(numbers.codes) == 64
    assert numbers.counted == 4096 / one_of


def test_a_patch_of_more_values_than_are_counted_at_once():
    values = np.random.default_rng(4).integers(0, 300, (2, 700_000, 1)).astype(np.int16)
    tally = Tally("int16", 1)
    tally.add(values)
    (numbers,) = tally.numbers()
    codes, counts = np.unique(values, return_counts=True)
    assert (list(numbers.codes), list(numbers.counts)) == (list(codes), list(counts))
    assert numbers.counted == numbers.count == values.size


@pytest.mark.parametrize("invalid", [0.0, 0.3])
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3, 1e7, -1e7])
def test_variance_is_right_however_far_the_mean_is(offset, invalid):
    rng = np.random.default_rng(1)
    values = (rng.normal(0, [1.0, 1e-3], (40, 900, 2)) + offset).astype(np.float64)
    bad = rng.random(values.shape) < invalid
    tally = Tally("float64", 2)
    tally.add(values, bad)
    for band, found in enumerate(tally.numbers()):
        valid = values[..., band][~bad[..., band]]
        assert found.count == len(valid)
        assert found.mean == pytest.approx(valid.mean(), rel=1e-12, abs=1e-12)
        assert found.variance == pytest.approx((valid - offset).var(), rel=1e-8)


def _patch_sums(values):
    """The sum of one patch's values and of their squares, from its rounded mean on exactly."""
    mean = values.sum() / len(values)
    about = values - mean
    count, mean = len(values), Fraction(mean)
    return count * mean, count * mean**2 + Fraction(np.einsum("p,p", about, about))


def test_a_long_scene_takes_no_memory_a_patch():
    tally = Tally("float32", 3)
    patches = np.random.default_rng(0).normal(size=(3000, 4, 3)).astype(np.float32)
    for _ in range(10):
        tally.add(patches)
        assert sum(s.nbytes for s in tally._sums) <= 2 * tally_module._KEPT * 3 * 3 * 8
    (numbers, *_) = tally.numbers()
    assert numbers.count == 120_000
    assert numbers.variance == pytest.approx(patches[..., 0].astype(float).var(), rel=1e-12)


def test_squares_that_no_float_holds_are_said():
    tally = Tally("float64", 1)
    tally.add(np.array([[[1e200], [-1e200]]]))
    with pytest.raises(OverflowError, match="too large to be squared"):
        tally.numbers()


@pytest.mark.parametrize("dtype", ["float32", "int16", "int8", "uint16", "int32"])
def test_every_value_lies_in_its_bucket(dtype):
    kind = np.dtype(dtype)
    if kind.kind == "f":
        random = np.random.default_rng(1).integers(0, 1 << 32, 100_000, np.uint64)
        values = random.astype(np.uint32).view(np.float32)
        values = np.sort(values[np.isfinite(values)])
    else:
        info = np.iinfo(kind)
        values = np.linspace(info.min, info.max, 5000).astype(kind)
    codes = codes_of(buckets_of(values), dtype)
    low, high = limits(codes, dtype)
    held = values.astype(np.float32).astype(np.float64)
    if kind.kind == "f":
        held[(codes == 0) | (codes == -1)] = 0  # as the least of buckets has it
    assert (low <= held).all()
    assert (held <= high).all()
    assert (np.diff(codes) >= 0).all()  # in the order of values


def test_invalid_values_are_told_by_their_number_alone():
    """Also where valid values equal the fill."""
    rng = np.random.default_rng(2)
    values = rng.integers(0, 3, (30, 100, 2)).astype(np.int16)
    bad = rng.random(values.shape) < 0.3
    bad[:5] = False
    valid = [values[..., b][~bad[..., b]].astype(float) for b in range(2)]
    fill = np.array([0.0, 2.0])
    values[bad] = np.broadcast_to(fill.astype(np.int16), values.shape)[bad]
    tally = Tally("int16", 2)
    tally.add_images(values, bad.sum(axis=1).astype(np.uint32), fill)
    for numbers, expected in zip(tally.numbers(), valid, strict=True):
        assert numbers.count == expected.size
        assert numbers.invalid == 3000 - expected.size
        assert numbers.mean == pytest.approx(expected.mean(), rel=1e-13)
        assert numbers.variance == pytest.approx(expected.var(), rel=1e-12)
        assert dict(zip(numbers.codes.tolist(), numbers.counts.tolist(), strict=True)) == {
            v: int((expected == v).sum()) for v in (0, 1, 2) if (expected == v).any()
        }


def test_fills_that_are_nan():
    values = np.random.default_rng(2).normal(size=(4, 50, 1)).astype(np.float32)
    expected = values[:2].astype(float)
    values[2:] = np.nan
    tally = Tally("float32", 1)
    tally.add_images(values, np.array([[0], [0], [50], [50]]), np.array([np.nan]))
    (numbers,) = tally.numbers()
    assert (numbers.count, numbers.invalid) == (100, 100)
    assert numbers.mean == pytest.approx(expected.mean(), rel=1e-12)
    assert (numbers.least, numbers.most) == (expected.min(), expected.max())


def spec_of(bands=("a",), dtype="float32", **labels: Feature) -> DatasetSpec:
    image = Feature((4, 4, len(bands)), dtype, "image", "tensor", bands=tuple(bands))
    return DatasetSpec("x", {"image": image, **labels}, {}, {"labels": labels}, "inputs", "")


@pytest.mark.parametrize("normalize", ["none", "zscore", "minmax", "quantile"])
def test_no_value_one_value_and_none_at_all_are_said_and_never_nan(normalize):
    bands = (of(np.full(9, 7, np.float32)), Numbers(invalid=9))
    found = document(
        Partial(1, bands, {}, {}),
        spec_of(("one", "none")),
        Statistics(normalize=normalize),
        "train",
    )
    assert "NaN" not in str(found).replace("nan", "NaN").replace("inan", "")
    scale = found["transform"]["image"]["scale"]
    assert all(math.isfinite(s) and s > 0 for s in scale)
    assert any("band one has one value, 7" in w for w in found["warnings"])
    assert any("band none has no valid value" in w for w in found["warnings"])
    assert found["bands"]["none"]["mean"] is None
    assert found["bands"]["one"]["variance"] == 0
    empty = Partial(0, (Numbers(), Numbers()), {}, {})
    nothing = document(empty, spec_of(("a", "b")), Statistics(normalize=normalize), "train")
    assert "has no patch" in nothing["warnings"][0]


def test_classes_weights_and_absent_ones():
    label = Feature(
        (4, 4), "uint8", "mask", "tensor", names=("land", "water", "ice"), ignore=(255,)
    )
    partial = Partial(2, (of(np.arange(4.0)),), {}, {"cover": {0: 75, 1: 25, 255: 9}})
    found = document(partial, spec_of(cover=label), Statistics(normalize="none"), "train")
    cover = found["labels"]["cover"]
    assert cover["counts"] == {"0": 75, "1": 25, "2": 0}
    assert cover["weights"] == {"0": 100 / 150, "1": 100 / 50, "2": None}
    assert cover["ignored"] == 9
    assert cover["absent"] == ["ice"]
    assert any("class ice (2) is not in split train" in w for w in found["warnings"])


def test_what_cannot_be_counted_stops_no_conversion(tmp_path):
    """The usual nodata of float64, which the file does not name."""
    pixels = np.ones((1, 32, 32))
    pixels[0, :4] = np.finfo(np.float64).min
    write_raster(tmp_path / "a.tif", pixels)
    (scene,), dead = stage(tmp_path, tile={"size": 16})
    assert not dead
    config = parse({"scenes": {"paths": ["*.tif"]}, "tile": {"size": 16}}, "test")
    counting = Counting(str(tmp_path / "counts"), "")
    assert not list(_CountScene(config, counting, strict=False).process(scene))
    with pytest.raises(JobError, match=r"scene a: values above 1e153 .* clean\.nodata"):
        _CountScene(config, counting, strict=True).process(scene)
    # Nor does a folder that is gone, or a disk that is full.
    write_raster(tmp_path / "b/a.tif", np.ones((1, 32, 32)))
    (scene,), _ = stage(tmp_path / "b", tile={"size": 16})
    assert not list(_CountScene(config, counting, strict=False).process(scene))
    with pytest.raises(FileNotFoundError):
        _CountScene(config, counting, strict=True).process(scene)


def test_a_staged_scene_with_nodata_against_numpy(tmp_path):
    """Each band has invalid pixels of its own; the fill is a value that valid pixels have too."""
    rng = np.random.default_rng(5)
    pixels = rng.integers(-3, 4, (3, 90, 80)).astype(np.int16)
    pixels[0, 10:40, 5:30] = -32768
    pixels[2, 60:, :50] = -32768
    write_raster(tmp_path / "a.tif", pixels, nodata=-32768)
    write_raster(tmp_path / "m/a.tif", rng.integers(0, 3, (1, 90, 80)).astype(np.uint8))
    config = {
        "tile": {"size": 16, "edge": "pad"},
        "clean": {"fill": 1},
        "labels": {"m": {"kind": "raster", "path": "m/{id}.tif", "ignore": [2]}},
    }
    (scene,), dead = stage(tmp_path, **config)
    assert not dead
    found = count_scene(scene, parse({"scenes": {"paths": ["*.tif"]}, **config}, "test"))
    for band, numbers in zip(pixels, found.bands, strict=True):
        valid = band[band != -32768].astype(float)
        assert numbers.count == valid.size
        assert numbers.invalid == found.patches * 256 - valid.size
        assert numbers.mean == pytest.approx(valid.mean(), rel=1e-12)
        assert numbers.variance == pytest.approx(valid.var(), rel=1e-12)
        assert (numbers.least, numbers.most) == (valid.min(), valid.max())
    mask = column(scene.path, "m")
    values, counts = np.unique(mask, return_counts=True)
    assert found.classes["m"] == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_masks_of_ids_are_counted_no_further_than_classes_go(tmp_path, monkeypatch):
    """Whatever the grouping: in one block of a file, over its blocks, over scenes."""
    from scenefeed.transforms.statistics import scene as module

    ids = np.arange(8 * MOST_CLASSES, dtype=np.uint16).reshape(1, 64, 128)
    half = MOST_CLASSES // 2
    for name, mask in {"a": ids, "b": ids % half, "c": half + ids % half, "d": 2 + ids * 0}.items():
        write_raster(tmp_path / f"{name}.tif", np.ones((1, 64, 128), np.float32))
        write_raster(tmp_path / f"m/{name}.tif", mask)
    config = {"tile": {"size": 16}, "labels": {"m": {"kind": "raster", "path": "m/{id}.tif"}}}
    scenes, _ = stage(tmp_path, **config)
    parsed = parse({"scenes": {"paths": ["*.tif"]}, **config}, "test")
    a, b, c, d = (count_scene(s, parsed) for s in sorted(scenes, key=lambda s: s.id))
    assert a.classes["m"] is None
    assert d.classes["m"] == {2: 8192}
    assert len(Partial.merged([b, c, d]).classes["m"]) == MOST_CLASSES
    for parts in ([a, d], [d, a], [Partial.merged([d, a]), b]):
        assert Partial.merged(parts).classes["m"] is None
    again = Partial.from_bytes(Partial.merged([a, d]).to_bytes())
    assert again.classes["m"] is None
    label = Feature((16, 16), "uint16", "mask", "tensor", names=("sea", "ship"))
    found = document(again, spec_of(m=label), Statistics(normalize="none"), "train")
    assert found["labels"]["m"]["counts"] == found["labels"]["m"]["weights"] == {}
    assert found["labels"]["m"]["ignored"] is None
    assert found["warnings"][-1].startswith(
        "label m has more than 1,024 different values: too many"
    )

    asked = []
    monkeypatch.setattr(
        module, "read_patches", lambda *_: (asked.append(i) or ids[:, :32] + i for i in range(9))
    )
    assert module._count_classes(scenes[0], "m", np.zeros(1)) is None
    assert asked == [0]  # the rest of the file is not read


def test_only_training_patches_count(tmp_path):
    pixels = np.random.default_rng(1).normal(size=(2, 64, 64)).astype(np.float32)
    write_raster(tmp_path / "a.tif", pixels)
    split = {"by": "patch", "fractions": {"val": 0.5, "train": 0.5}}
    config = {"tile": {"size": 16}, "split": split}
    (scene,), _ = stage(tmp_path, **config)
    parsed = parse({"scenes": {"paths": ["*.tif"]}, **config}, "test")
    before = count_scene(scene, parsed)
    assert 0 < before.patches < 16
    from scenefeed.transforms.choosing import choose

    for place, row, col in zip(
        choose(scene, parsed, {}).splits, column(scene.path, "row"), column(scene.path, "col"),
        strict=True,
    ):  # fmt: skip
        if place == 0:
            pixels[:, row : row + 16, col : col + 16] = 1e6
    write_raster(tmp_path / "a.tif", pixels)
    (tmp_path / "stage/a.h5").unlink()
    (changed,), _ = stage(tmp_path, **config)
    assert changed.content != scene.content
    assert count_scene(changed, parsed).to_bytes() == before.to_bytes()


def test_a_stage_file_that_contradicts_itself_is_said(tmp_path):
    import h5py

    write_raster(tmp_path / "a.tif", np.ones((1, 32, 32), np.float32))
    (scene,), _ = stage(tmp_path, tile={"size": 16})
    with h5py.File(scene.path, "r+") as file:
        file["invalid"][0, 0] = 5
    with pytest.raises(JobError, match=r"a\.h5: fewer values hold the fill.*convert again"):
        count_scene(scene, parse({"scenes": {"paths": ["*.tif"]}, "tile": {"size": 16}}, "test"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"normalize": "zscor"}, "did you mean 'zscore'"),
        ({"normalize": "quantile", "quantiles": [0.9, 0.1]}, "the lower first"),
        ({"bake": True}, "bake needs a normalization"),
    ],
)
def test_sections_that_make_no_sense(section, said):
    from scenefeed.transforms.errors import ConfigError

    with pytest.raises(ConfigError, match=said):
        parse({"statistics": section}, "test")


def test_quantiles_of_almost_nothing_but_zeros_are_said_and_divide_by_one():
    values = np.zeros(10_000, np.float32)
    values[:50] = np.linspace(1, 9, 50)
    asked = Statistics(normalize="quantile")
    found = document(Partial(1, (of(values),), {}, {}), spec_of(), asked, "train")
    assert found["transform"]["image"] == {"offset": [0], "scale": [1], "low": [0], "high": [0]}
    assert any(
        "band a: the quantiles (0.01, 0.99) are one value, 0" in w for w in found["warnings"]
    )

"""show: what pictures of patches show."""

import json
import warnings

import numpy as np
import pytest

from scenefeed.loader import Reader
from scenefeed.pipelines import drawing
from tests.conftest import errors, write_raster
from tests.conftest import in_process as scenefeed

RNG = np.random.default_rng(0)


def test_a_stretch_goes_from_the_2nd_to_the_98th_percentile():
    band = RNG.normal(300, 40, (64, 64)).astype(np.float32)
    low, high = np.percentile(band, (2, 98))
    expected = np.clip((band.astype(float) - low) / (high - low), 0, 1) * 255
    assert np.abs(drawing.grey(band) - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("dtype", "odd", "options"),
    [
        ("int16", -32768, {}),
        ("int16", -9999, {}),
        ("uint16", 65535, {}),
        ("float32", np.nan, {}),
        ("float32", np.inf, {}),
        ("float32", -np.inf, {}),
        ("float32", -3.4028235e38, {}),
        ("float32", 7.5, {"fill": 7.5}),
        ("float32", np.float32(0.1), {"fill": 0.1}),
        ("uint8", 0, {"fill": 0}),
    ],
)
def test_what_is_no_value_does_not_change_how_the_others_look(dtype, odd, options):
    band = RNG.integers(100, 140, (64, 64)).astype(dtype)
    dirty = band.copy()
    dirty[:32] = odd
    plain = drawing.grey(band[32:])
    assert np.array_equal(drawing.grey(dirty, **options)[32:], plain)
    assert plain.min() == 0
    assert plain.max() == 255


def test_fill_and_nan_are_black():
    band = np.full((4, 4), 5, np.float32)
    band[0], band[1] = np.nan, -1
    shown = drawing.grey(band, fill=-1)
    assert (shown[:2] == 0).all()
    assert (shown[2:] == 128).all()  # and a constant is the middle grey


@pytest.mark.parametrize("value", [0, 255, -7.5, 1e30, np.nan, np.inf])
def test_constants_and_nothing_are_drawn_without_a_warning(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bands in (1, 2, 3, 40):
            shown = drawing.stretch(np.full((8, 8, bands), value, np.float64))
            assert (shown.shape, shown.dtype) == ((8, 8, 3), np.uint8)
            assert len(np.unique(shown)) == 1


def test_two_values_stay_two_values():
    band = np.zeros((8, 8), np.uint8)
    band[:3] = 1
    assert set(np.unique(drawing.grey(band))) == {0, 255}


def test_power_of_sar_is_shown_in_decibels():
    power = 10 ** RNG.uniform(-4, 4, (64, 64, 2)).astype(np.float64)
    decibels = 10 * np.log10(power)
    assert np.array_equal(drawing.grey(power[..., 0], "VV"), drawing.grey(decibels[..., 0], "VV"))
    shown = drawing.stretch(power, ["VV", "VH"])
    assert np.array_equal(shown, drawing.stretch(decibels, ["VV", "VH"]))
    # Blue is their ratio.
    ratio = decibels[..., 0] - decibels[..., 1]
    assert np.array_equal(shown[..., 2], drawing.grey(ratio))
    assert not np.array_equal(drawing.grey(power[..., 0], "nir"), shown[..., 0])


def test_limits_give_two_patches_one_stretch():
    one, two = np.full((4, 4, 1), 10.0), np.full((4, 4, 1), 20.0)
    shown = [drawing.stretch(x, limits=[(0, 20)])[0, 0, 0] for x in (one, two)]
    assert shown == [128, 255]
    power = drawing.stretch(np.full((4, 4, 1), 10.0), ["VV"], limits=[(1.0, 100.0)])
    assert power[0, 0, 0] == 128
    stored = np.full((4, 4, 1), 40, np.uint8)
    packed = drawing.stretch(stored, limits=[(20, 60)], scale=(0.5, -10))
    assert packed[0, 0, 0] == 128
    # A bright patch of a split in decibels, which has no value below 0 itself.
    bright = drawing.stretch(np.full((4, 4, 1), 5.0), ["VV"], limits=[(-25.0, 5.0)])
    assert bright[0, 0, 0] == 255
    mixed = drawing.stretch(np.full((4, 4, 2), 5.0), limits=[(0.0, 10.0), None])
    assert mixed[0, 0].tolist() == [128, 128, 128]


def test_photographs_keep_their_colours():
    photo = np.stack([np.linspace(0, 255, 64), np.full(64, 40), np.full(64, 40)], -1)
    shown = drawing.stretch(photo.astype(np.uint8)[None])
    assert np.array_equal(shown[..., 1], shown[..., 2])
    assert len(np.unique(shown[..., 0])) > 50
    assert drawing.stretch(photo.astype(np.uint8)[None], chosen=[2, 0]).shape == (1, 64, 3)


def test_red_green_and_blue_are_found_by_name():
    assert drawing.colour_bands(["Blue", "Green", "Red", "NIR"], 4) == (2, 1, 0)
    assert drawing.colour_bands(["B02", "B03", "B04"], 3) == (2, 1, 0)
    assert drawing.colour_bands(["b1", "b2"], 2) == (0, 1)
    assert drawing.colour_bands([f"b{i}" for i in range(40)], 40) == (0, 1, 2)


def test_overlays_tint_classes_and_stripe_what_is_ignored():
    rgb = np.full((64, 64, 3), 100, np.uint8)
    mask = np.zeros((64, 64), np.int16)
    mask[:16], mask[16:32] = 1, -1
    found = drawing.overlay(rgb, mask, ignore=(-1,))
    assert (found[32:] == 100).all()
    assert len(np.unique(found[:16].reshape(-1, 3), axis=0)) == 1
    assert (found[0, 0] != 100).any()
    assert len(np.unique(found[16:32].reshape(-1, 3), axis=0)) == 2
    # With names, only what is called background is left.
    named = drawing.overlay(rgb, mask, (-1,), ("dry", "water"))
    assert (named[32:] != 100).any()
    assert (drawing.overlay(rgb, mask, (-1,), ("background", "water"))[32:] == 100).all()


def test_classes_have_colours_of_their_own():
    colours = [drawing.class_colour(i) for i in range(24)]
    assert len(set(colours)) == 24
    assert drawing.class_colour(-5).startswith("#")
    mask = np.array([[0, 1, 2, 255]])
    assert drawing.legend(mask, (255,), ("a", "background", "c")) == [
        (0, "a", colours[0]), (1, "background", ""), (2, "c", colours[2]),
        (255, "255 (ignored)", "#9a9a9a"),
    ]  # fmt: skip


def read_png(path):
    image = pytest.importorskip("matplotlib.image")
    return np.rint(image.imread(path)[..., :3] * 255).astype(np.uint8)


def test_a_picture_holds_the_patch_its_bands_and_its_mask(small_dataset, tmp_path):
    pytest.importorskip("matplotlib")
    out = small_dataset / "out"
    done = scenefeed("show", out, "--split", "train", "--index", 5, cwd=tmp_path)
    assert done.stdout == "train-5.png\n"
    assert done.stderr == ""
    pixels = read_png(tmp_path / "train-5.png")
    record = Reader(out, "train")[5]
    colours = drawing.stretch(record["image"], ["VV", "VH"], fill=0.0)
    there = set(map(tuple, pixels.reshape(-1, 3).tolist()))
    for picture in (colours, drawing.overlay(colours, record["water"], (2,))):
        wanted = set(map(tuple, picture.reshape(-1, 3).tolist()))
        assert wanted <= there
    key = f"{record['scene_id']}/{record['row']}/{record['col']}"
    named = tmp_path / "named.png"
    scenefeed("show", out, "--key", key, "--output", named)
    assert np.array_equal(read_png(named), pixels)


def texts(figure):
    found = [a.get_title() for a in figure.axes if a.get_title()]
    found += [
        t.get_text() for a in figure.axes if a.get_legend() for t in a.get_legend().get_texts()
    ]
    return "\n".join([*found, figure.get_suptitle()])


def painted(out, index=0, **options):
    pytest.importorskip("matplotlib")
    from scenefeed.pipelines.show import Painter, save

    figure = Painter(out, **options).patch("train", index)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(figure, out / "x.png")
    return texts(figure)


def test_captions_say_what_and_where(small_dataset):
    out = small_dataset / "out"
    found = painted(out, 3)
    record = Reader(out)[3]
    image, mask = record["image"], record["water"]
    assert f"{record['scene_id']}/{record['row']}/{record['col']}\ntrain 3" in found
    assert f"VH\n{image[..., 1].min():.4g} to {image[..., 1].max():.4g}" in found
    assert "colours: VV VH VV/VH" in found
    assert f"1 {np.mean(mask == 1):.0%}" in found
    assert f"2 (ignored) {np.mean(mask == 2):.0%}" in found


@pytest.mark.slow
def test_forty_bands_odd_names_and_values_that_are_none(tmp_path):
    pixels = RNG.integers(0, 500, (40, 16, 16)).astype(np.int16)
    pixels[:, :5], pixels[3], pixels[4] = -32768, 7, 0
    name = "<script>$x^2$ 氷"
    write_raster(tmp_path / f"{name}.tif", pixels, names=[f"${i}_<b>" for i in range(40)])
    (tmp_path / "c.yaml").write_text(
        "labels: {kind: {kind: filename, regex: '<(script)>'}}\ntile: {size: 16}\n"
    )
    out = tmp_path / "out"
    scenefeed("convert", tmp_path / f"{name}.tif", "--config", tmp_path / "c.yaml", "--output", out)
    found = painted(out, bands=["$5_<b>", "40", "2"])
    assert f"{name}/0/0" in found
    assert "12 of 40 bands are shown" in found
    assert "colours: $5_<b> $39_<b> $1_<b>" in found
    assert "kind: script (0)" in found
    assert "$11_<b>\n" in found
    assert "$12_<b>\n" not in found


def test_ranges_leave_out_fill_and_say_so():
    from scenefeed.pipelines.show import _range

    band = np.array([[0, 0, 1.5, np.nan]], np.float32)
    assert _range(band, 0.0) == "1.5, constant, 67% are 0, 25% not finite"
    assert _range(np.zeros((2, 2)), 0.0) == "no valid value, 100% are 0"
    assert _range(np.array([[-32768, 9999]], np.int16), 0.0) == "-32768 to 9999"
    assert _range(np.array([[1j, 3 + 4j]]), np.nan) == "1 to 5"


def test_several_records_make_a_sheet(small_dataset, tmp_path):
    pytest.importorskip("matplotlib")
    done = scenefeed("show", small_dataset / "out", "--index", 1, 2, 3, "--key", "a/0/0",
                     "--output", tmp_path / "s.png", "--json", tmp_path / "s.json")  # fmt: skip
    assert done.stdout == f"{tmp_path}/s.png\n"
    places = json.loads((tmp_path / "s.json").read_text())["records"]
    assert places[:3] == [["train", 1], ["train", 2], ["train", 3]]
    assert read_png(tmp_path / "s.png").shape[1] > 800


def test_a_stretch_by_the_split_takes_its_quantiles(small_dataset, tmp_path):
    pytest.importorskip("matplotlib")
    from scenefeed.pipelines.show import Painter

    out = small_dataset / "out"
    (line,) = errors(scenefeed("show", out, "--index", 0, "--stretch", "split", code=1))
    assert "statistics.json: not there: run `scenefeed stats" in line
    for name in ("dataset.json", "scenes.jsonl"):
        (tmp_path / name).write_text((out / name).read_text())
    quantiles = [{"0.02": -1.0, "0.98": 1.0}, {"0.02": None, "0.98": None}]
    bands = {k: {"quantiles": q} for k, q in zip(("VV", "VH"), quantiles, strict=True)}
    (tmp_path / "statistics.json").write_text(json.dumps({"bands": bands}))
    assert Painter(tmp_path, whole=True).limits == [(-1.0, 1.0), None]
    (tmp_path / "statistics.json").write_text("{}")
    (line,) = errors(scenefeed("show", tmp_path, "--index", 0, "--stretch", "split", code=1))
    assert "has no quantiles of VV, VH" in line


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "give --index N, or --key"),
        (["--index", "99"], 1, "no record 99 in split train: it has"),
        (["--index", *["0"] * 201], 2, "a sheet has at most 200 patches"),
        (["--key", "aa/0/0"], 1, "no scene 'aa'"),
        (["--key", "a/0/1"], 1, "did you mean a/0/0?"),
        (["--index", "0", "--bands", "nir"], 2, "--bands: no band 'nir': there are VV, VH"),
        (["--index", "0", "--bands", "1,2,1,2"], 2, "a picture has three colours"),
        (["--index", "0", "--output", "none/x.png"], 2, "cannot be written"),
    ],
)
def test_what_cannot_be_shown_is_one_line(small_dataset, tmp_path, argv, code, words):
    (line,) = errors(scenefeed("show", small_dataset / "out", *argv, code=code, cwd=tmp_path))
    assert words in line
    assert not list(tmp_path.iterdir())

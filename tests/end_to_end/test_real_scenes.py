"""Real scenes through the real command, against rasterio reading the same files."""

import json

import numpy as np
import pytest
import rasterio

from scenefeed.loader import Reader, load
from tests.conftest import scenefeed

YAML = """\
name: floods
scenes:
  paths: ["{data}/flood/S1Hand/*.tif"]
  id: "(.+)_S1Hand"
  bands: [VV, VH]
labels:
  water: {{kind: raster, path: "{data}/flood/LabelHand/{{id}}_LabelHand.tif", ignore: [-1]}}
tile: {{size: 64}}
split: {{by: patch, fractions: {{train: 0.8, val: 0.2}}}}
"""


@pytest.fixture(scope="module")
def floods(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("floods")
    (folder / "floods.yaml").write_text(YAML.format(data=data))
    scenefeed("convert", "--config", folder / "floods.yaml", "--output", folder / "out")
    return folder / "out"


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_flood_patch_is_what_rasterio_reads(data, floods, split):
    reader, scenes = Reader(floods, split), {}
    for i in range(len(reader)):
        record = reader[i]
        name = record["scene_id"]
        if name not in scenes:
            with (
                rasterio.open(data / f"flood/S1Hand/{name}_S1Hand.tif") as image,
                rasterio.open(data / f"flood/LabelHand/{name}_LabelHand.tif") as label,
            ):
                scenes[name] = np.nan_to_num(image.read()), label.read(1)
        pixels, mask = scenes[name]
        area = (slice(record["row"], record["row"] + 64), slice(record["col"], record["col"] + 64))
        assert np.array_equal(record["image"], np.moveaxis(pixels[:, *area], 0, -1)), (name, area)
        assert np.array_equal(record["water"], mask[area])
    assert len(scenes) == 7


def test_all_seven_chips_are_there_with_their_georeference(data, floods):
    scenes = [json.loads(x) for x in (floods / "scenes.jsonl").read_text().splitlines()]
    assert len(scenes) == 7
    assert sum(sum(s["patches"].values()) for s in scenes) == 7 * 64
    for scene in scenes:
        with rasterio.open(data / f"flood/S1Hand/{scene['id']}_S1Hand.tif") as src:
            assert scene["transform"] == list(src.transform)[:6]
            assert rasterio.crs.CRS.from_wkt(scene["crs"]) == src.crs
            assert (scene["width"], scene["height"]) == (src.width, src.height)
    water = json.loads((floods / "dataset.json").read_text())["features"]["water"]
    assert water == {
        "shape": [64, 64], "dtype": "int16", "kind": "mask", "encoding": "tensor", "ignore": [-1]
    }  # fmt: skip


def test_a_model_learns_from_the_feed(floods):
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)

    def ignoring(labels, logits):
        known = tf.cast(labels >= 0, tf.float32)
        target = tf.cast(tf.maximum(labels, 0), tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
        return tf.reduce_sum(losses * known) / tf.maximum(tf.reduce_sum(known), 1)

    train = load(floods, batch_size=8, as_supervised=True, seed=0)
    val = load(floods, "val", batch_size=64, as_supervised=True, shuffle=False)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Rescaling(1 / 10, offset=1.5),  # dB, about -30 to 0
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 1),
            layers.Reshape((64, 64)),
        ]
    )
    model.compile("adam", loss=ignoring)
    before = model.evaluate(val, verbose=0)
    history = model.fit(train, epochs=2, verbose=0).history["loss"]
    after = model.evaluate(val, verbose=0)
    assert history[1] < history[0]
    assert after < 0.75 * before
    # Better than knowing the share of water alone.
    known = np.concatenate([y[y >= 0].ravel() for _, y in val.as_numpy_iterator()])
    share = known.mean()
    assert after < -(share * np.log(share) + (1 - share) * np.log(1 - share))


def test_landsat_single_bands_become_one_scene(data, tmp_path):
    bands = {f"B{b}0": f"{data}/landsat7/lsat7_2000_{b}0.tif" for b in (3, 4, 5)}
    lines = "\n".join(f"    {name}: '{path}'" for name, path in bands.items())
    (tmp_path / "c.yaml").write_text(f"scenes:\n  id: '(lsat7_2000)_.*'\n  bands:\n{lines}\n")
    out = tmp_path / "out"
    scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", out)
    reader = Reader(out)
    stack = []
    for path in bands.values():
        with rasterio.open(path) as src:
            stack.append(np.where(src.read_masks(1) > 0, src.read(1), 0))
    whole = np.stack(stack, axis=-1)
    assert reader.spec.features["image"].bands == tuple(bands)
    for i in range(len(reader)):
        r, c = reader[i]["row"], reader[i]["col"]
        assert np.array_equal(reader[i]["image"], whole[r : r + 64, c : c + 64])


def test_jpeg_2000_and_tiffs_of_every_kind(data, tmp_path):
    jp2 = data / "multispectral/s2_safe_jp2/T30UVU_20230605T110619_PVI.jp2"
    for source in (jp2, data / "multispectral/rasterio/RGB.byte.tif"):
        out = tmp_path / source.stem
        scenefeed("convert", source, "--output", out, "--tile_size", 32, "--edge", "pad")
        reader = Reader(out)
        with rasterio.open(source) as src:
            whole = np.moveaxis(np.where(src.read_masks() > 0, src.read(), 0), 0, -1)
        for i in range(0, len(reader), 7):
            r, c = reader[i]["row"], reader[i]["col"]
            expected = whole[r : r + 32, c : c + 32]
            found = reader[i]["image"]
            assert np.array_equal(found[: expected.shape[0], : expected.shape[1]], expected)


BAD = {
    "excessive-memory-TIFFFillStrip2.tif": "65535 bands",
    "tiff_dos_strip_chop.tif": "2048 x 1073741824 pixels",
    "huge4GB.tif": "opens, but cannot be read",
    "byte_truncated.tif": "opens, but cannot be read",
    "hugeblocksize.tif": "cannot be opened",
}


def test_odd_files_are_dead_letters_with_a_reason_each(data, tmp_path):
    files = [data / "odd/gdal_gcore" / name for name in BAD]
    files += [data / "hdf_netcdf/gdal/groups.h5", data / "odd/gdal_gcore/byte.tif"]
    out = tmp_path / "out"
    scenefeed("convert", *files, "--output", out, "--tile_size", 16, "--max_failed", 9)
    letters = [json.loads(x) for x in (out / "errors.jsonl").read_text().splitlines()]
    reasons = {x["file"].rsplit("/", 1)[1]: x["reason"] for x in letters}
    for name, words in BAD.items():
        assert words in reasons[name]
    assert "2 subdatasets (MyGroup/Group_A/dset2, MyGroup/dset1)" in reasons["groups.h5"]
    assert len(reasons) == len(BAD) + 1
    metrics = json.loads((out / "metrics.json").read_text())
    # Of the whole process, which reads as many scenes at once as there are cores: what this must
    # find is an allocation that a lying header asks for.
    assert metrics["peak_memory_bytes"] < 1536 << 20
    scenefeed("verify", out)

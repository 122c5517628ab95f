"""TensorFlow Datasets reads what convert wrote."""

import json

import numpy as np
import pytest
import rasterio

from scenefeed.loader import DatasetError, DatasetSpec, Reader
from scenefeed.pipelines.metadata import tfds
from tests.conftest import scenefeed


def check_tfds(out):
    """Every record of every split through TFDS against the reader's."""
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(out)
    in_order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)
    spec = DatasetSpec.load(out)
    full = {name: s for name, s in spec.splits.items() if s.num_examples}
    assert builder.info.splits.keys() == full.keys()
    for name, split in full.items():
        assert builder.info.splits[name].shard_lengths == [s.num_examples for s in split.shards]
        assert builder.info.splits[name].num_bytes == split.num_bytes
        reader = Reader(out, name)
        found = tensorflow_datasets.as_numpy(builder.as_dataset(name, read_config=in_order))
        for i, theirs in enumerate(found):
            ours = reader[i]
            assert theirs.keys() == ours.keys()
            for key, value in ours.items():
                if isinstance(value, str):
                    assert theirs[key].decode() == value
                else:
                    np.testing.assert_array_equal(theirs[key], value)
                    assert theirs[key].dtype == np.asarray(value).dtype
        assert i == len(reader) - 1
    return builder


def test_tfds_reads_the_same_arrays(dataset):
    check_tfds(dataset)


def test_tfds_knows_features_labels_and_licence(odd, small_dataset):
    import tensorflow_datasets

    info = tensorflow_datasets.builder_from_directory(odd).info
    assert info.full_name == "ice_ships_all/1.0.0"
    assert info.features["kind"].names == ["ice", "ship", "sea"]
    assert info.features["image"].shape == (16, 16, 2)
    assert info.redistribution_info.license == "CC-BY-4.0"
    assert info.supervised_keys is None  # two labels: which is meant is not known
    small = tensorflow_datasets.builder_from_directory(small_dataset / "out")
    image, water = next(iter(small.as_dataset("train", as_supervised=True, batch_size=3)))
    assert image.shape == (3, 16, 16, 2)
    assert water.shape == (3, 16, 16)


def test_tfds_load_after_registration(odd, small_dataset, tmp_path):
    import tensorflow_datasets

    from scenefeed.loader.tfds import register

    name = register(odd)
    assert name == register(odd) == "ice_ships_all"
    assert tensorflow_datasets.load(name).keys() == {"train", "val"}
    assert len(tensorflow_datasets.load(f"{name}:1.0.0", split="train[:5]+val[:2]")) == 7
    assert register(small_dataset / "out", "mine") == "mine"
    assert len(tensorflow_datasets.load("mine", split="train")) == len(
        Reader(small_dataset / "out")
    )
    with pytest.raises(DatasetError, match=r"mine.*another name"):
        register(odd, "mine")
    # TFDS's own layout, without scenefeed's help: DATA_DIR/NAME/VERSION
    (tmp_path / "small").mkdir()
    (tmp_path / "small/1.0.0").symlink_to(small_dataset / "out")
    there = tensorflow_datasets.load("small", data_dir=tmp_path, split="val")
    assert len(there) == len(Reader(small_dataset / "out", "val"))


def test_a_tensor_is_encoded_as_tensorflow_serializes_it(odd):
    import tensorflow as tf

    from scenefeed.loader.tfds import SerializedTensor

    feature = SerializedTensor(shape=(3, 2), dtype=np.uint16)
    values = np.arange(6, dtype=np.uint16).reshape(3, 2)
    encoded = feature.encode_example(values)
    assert encoded == tf.io.serialize_tensor(values).numpy()
    np.testing.assert_array_equal(feature.decode_example_np(encoded), values)
    np.testing.assert_array_equal(feature.decode_example(encoded), values)


@pytest.mark.parametrize(
    ("name", "word"),
    [("floods", "floods"), ("S1 & S2!", "s1_s2"), ("2018", "scenes_2018"), ("é", "scenes")],
)
def test_tfds_spells_names_its_way(name, word):
    assert tfds.tfds_name(name) == word


def test_real_floods_through_tfds(data, tmp_path):
    (tmp_path / "c.yaml").write_text(
        f"name: floods\nscenes: {{paths: ['{data}/flood/S1Hand/*.tif'], id: '(.+)_S1Hand', "
        f"bands: [VV, VH]}}\nlabels: {{water: {{kind: raster, "
        f"path: '{data}/flood/LabelHand/{{id}}_LabelHand.tif', ignore: [-1]}}}}\n"
        "tile: {size: 64}\nsplit: {by: patch, fractions: {train: 0.8, val: 0.2}}\n"
    )
    scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    builder = check_tfds(tmp_path / "out")
    assert sum(s.num_examples for s in builder.info.splits.values()) == 7 * 64
    west, south, east, north = json.loads((tmp_path / "out/collection.json").read_text())["extent"][
        "spatial"
    ]["bbox"][0]
    for path in (data / "flood/S1Hand").glob("*.tif"):
        with rasterio.open(path) as src:
            left, bottom, right, top = src.bounds
            assert west <= left + 1e-6
            assert south <= bottom + 1e-6
            assert right <= east + 1e-6
            assert top <= north + 1e-6

"""TensorFlow Data Validation, in an environment of its own, agrees with schema.pbtxt:
make test-tfdv."""

import json
import subprocess

import pytest

from scenefeed.loader import DatasetSpec
from tests.conftest import ROOT, scenefeed

pytestmark = pytest.mark.tfdv
PYTHON = ROOT / ".venv-tfdv/bin/python"
YAML = """\
name: floods
scenes:
  paths: ["{data}/flood/S1Hand/*.tif"]
  id: "(.+)_S1Hand"
  bands: [VV, VH]
labels:
  water: {{kind: raster, path: "{data}/flood/LabelHand/{{id}}_LabelHand.tif", ignore: [-1]}}
  country:
    kind: filename
    regex: "^([^_]+)_"
    classes: [Ghana, India, Mekong, Somalia, Spain, Sri-Lanka, USA]
tile: {{size: 64}}
split: {{by: patch, fractions: {{train: 0.8, val: 0.2}}}}
statistics: {{normalize: zscore}}
"""


def set_int(features, name, *values):
    features[name].Clear()
    features[name].int64_list.value.extend(values)


def set_text(features, name, value):
    features[name].Clear()
    features[name].bytes_list.value.append(value)


# The feature that is altered in one record, how, and words of what is said of it.
ALTERED = {
    "no such class": ("country", lambda f: set_int(f, "country", 7), "Unexpectedly large value: 7"),
    "missing": ("water", lambda f: f.pop("water"), "present in fewer examples"),
    "another type": ("row", lambda f: set_text(f, "row", b"north"), "Expected data of type: INT"),
    "two values": ("col", lambda f: set_int(f, "col", 0, 64), "shape"),
    "not in the schema": ("depth", lambda f: set_int(f, "depth", 1), "New column"),
}
EVERY = {"another type"}  # in every record: it fails itself where types differ


@pytest.fixture(scope="module")
def floods(data, tmp_path_factory):
    if not PYTHON.exists():
        pytest.skip(f"TensorFlow Data Validation is not at {PYTHON}: make test-tfdv")
    folder = tmp_path_factory.mktemp("floods")
    (folder / "floods.yaml").write_text(YAML.format(data=data))
    scenefeed("convert", "--config", folder / "floods.yaml", "--output", folder / "out")
    return folder / "out"


def validate(out, *records):
    """What validate.py says of each pattern of TFRecords against the dataset's schema."""
    script = ROOT / "tests/tfdv/validate.py"
    done = subprocess.run(
        [PYTHON, "-I", script, out / "schema.pbtxt", *records],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_finds_no_anomaly_in_what_convert_wrote(floods):
    splits = DatasetSpec.load(floods).splits
    found = validate(floods, *(floods / f"records/{name}-*.tfrecord" for name in splits))
    assert len(found) == 2
    for said, split in zip(found, splits.values(), strict=True):
        assert said == {"examples": split.num_examples, "anomalies": {}}
        assert split.num_examples > 50


def test_it_names_the_feature_that_was_altered(floods, tmp_path):
    import tensorflow as tf

    shard = next((floods / "records").glob("val-*.tfrecord"))
    records = [r.numpy() for r in tf.data.TFRecordDataset(shard)]
    for case, (_, alter, _) in ALTERED.items():
        with tf.io.TFRecordWriter(str(tmp_path / case)) as file:
            for i, record in enumerate(records):
                example = tf.train.Example.FromString(record)
                if i == 0 or case in EVERY:
                    alter(example.features.feature)
                file.write(example.SerializeToString())
    found = validate(floods, *(tmp_path / case for case in ALTERED))
    for (case, (name, _, words)), said in zip(ALTERED.items(), found, strict=True):
        assert said["examples"] == len(records)
        assert said["anomalies"].keys() == {name}, case
        assert words in said["anomalies"][name], case

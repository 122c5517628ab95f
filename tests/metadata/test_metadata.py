"""Metadata beside a dataset, as its readers read it: tensorflow-metadata, mlcroissant, a person."""

import contextlib
import errno
import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from scenefeed.loader import DatasetError, DatasetSpec, Reader
from scenefeed.pipelines.metadata import FILES, card, write_metadata, writing
from scenefeed.transforms.config import parse
from scenefeed.transforms.errors import JobError
from tests.conftest import errors, write_raster
from tests.conftest import in_process as scenefeed


def document(path):
    return json.loads(path.read_text())


def test_tfds_has_nothing_to_read_where_shards_are_compressed(small_dataset, tmp_path):
    from scenefeed.loader.tfds import register

    shutil.copytree(small_dataset / "out", tmp_path / "out")
    assert (tmp_path / "out/features.json").exists()
    scenefeed("shard", tmp_path / "out", "--compression", "gzip")
    left = {p.name for p in (tmp_path / "out").iterdir()} & set(FILES)
    assert left == set(FILES) - {"features.json", "dataset_info.json", "scenes.geojson"}
    assert "TensorFlow Datasets" not in (tmp_path / "out/README.md").read_text()
    with pytest.raises(DatasetError, match="gzip, which TFDS cannot read"):
        register(tmp_path / "out")
    assert run_examples(tmp_path / "out") == 2


def test_the_schema_parses_every_record(dataset):
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tensorflow_transform.tf_metadata import schema_utils
    from tfx_bsl.coders import example_coder

    schema = text_format.Parse((dataset / "schema.pbtxt").read_text(), schema_pb2.Schema())
    wanted = schema_utils.schema_as_feature_spec(schema).feature_spec
    assert wanted.keys() == DatasetSpec.load(dataset).features.keys()
    shards = sorted(str(p) for p in (dataset / "records").glob("train-*.tfrecord"))
    records = [r.numpy() for r in tf.data.TFRecordDataset(shards)]
    ours = Reader(dataset).batch(np.arange(len(records)))
    for name, values in tf.io.parse_example(records, wanted).items():
        if DatasetSpec.load(dataset).features[name].encoding == "tensor":
            decoded = [tf.io.parse_tensor(v, ours[name].dtype) for v in values]
            np.testing.assert_array_equal(decoded, ours[name])
        elif ours[name].dtype == object:
            assert [v.decode() for v in values.numpy()] == ours[name].tolist()
        else:
            np.testing.assert_array_equal(values, ours[name])
    example = tf.train.Example.FromString(records[0])
    del example.features.feature["row"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="row"):
        tf.io.parse_example([example.SerializeToString()], wanted)
    decoder = example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())
    assert decoder.DecodeBatch(records).num_rows == len(records)


def test_the_schema_bounds_classes(odd):
    from scenefeed.pipelines.metadata.schema import schema

    kind = next(f for f in schema(DatasetSpec.load(odd)).feature if f.name == "kind")
    assert (kind.int_domain.min, kind.int_domain.max, kind.int_domain.is_categorical) == (
        0,
        2,
        True,
    )


def test_croissant_is_valid_and_its_tables_are_read(dataset):
    import mlcroissant

    whole = mlcroissant.Dataset(jsonld=dataset / "croissant.json")  # raises where it is not valid
    assert not whole.metadata.ctx.issues.errors
    spec = DatasetSpec.load(dataset)
    splits = {r["splits/name"]: r["splits/records"] for r in whole.records("splits")}
    assert splits == {name: split.num_examples for name, split in spec.splits.items()}
    lines = [json.loads(x) for x in (dataset / "scenes.jsonl").read_text().splitlines()]
    scenes = [r["scenes/id"].decode() for r in whole.records("scenes")]
    assert scenes == [line["id"] for line in lines]
    fields = {f.uuid: f for r in whole.metadata.record_sets for f in r.fields}
    assert fields.keys() >= {f"records/{name}" for name in spec.features}
    assert fields["records/image"].array_shape_tuple == spec.features["image"].shape
    files = [f for f in document(dataset / "croissant.json")["distribution"] if "sha256" in f]
    assert len(files) == 1 + sum(len(s.shards) for s in spec.splits.values())
    for file in files:
        data = (dataset / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["contentSize"] == f"{len(data)} B"


def test_croissant_knows_classes(odd):
    import mlcroissant

    rows = mlcroissant.Dataset(jsonld=odd / "croissant.json").records("kind_classes")
    assert [(r["kind_classes/id"], r["kind_classes/name"]) for r in rows] == [
        (0, "ice"), (1, "ship"), (2, "sea"),
    ]  # fmt: skip


def blocks(out, language):
    text = (out / "README.md").read_text()
    return re.findall(rf"^(`{{3,}}){language}\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL)


def run_examples(out):
    """The card's Python, in the dataset's folder: each must give images of their shape."""
    found = [code for _, code in blocks(out, "python")]
    for code in found:
        names = {}
        with contextlib.chdir(out):
            exec(code, names)
            image = next(iter(names["dataset"]))["image"]
        assert image.shape[-3:] == DatasetSpec.load(out).features["image"].shape
    return len(found)


def test_the_cards_examples_run(odd):
    assert run_examples(odd) == 3


def test_the_card_shows_names_as_they_are(odd):
    from markdown_it import MarkdownIt

    head, text = (odd / "README.md").read_text().split("---\n", 2)[1:]
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in page
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", page, re.S)]
    assert ["&lt;script&gt;alert(1)&lt;|x`y_ship", "2018-07-05T00:00:00Z", "none"] in [
        row[:3] for row in cells
    ]
    assert "<h1>Ice &amp; &lt;ships&gt; | all</h1>" in page
    assert ["VV", "dB"] in [row[:2] for row in cells]
    assert ["VH", "as in the source"] in [row[:2] for row in cells]
    assert ["test", "0", "0", "0.0"] in cells
    assert yaml.safe_load(head) == {
        "pretty_name": "Ice & <ships> | all", "license": "cc-by-4.0",
        "tags": ["earth-observation", "scenefeed", "tfrecord"],
        "task_categories": ["image-classification"], "size_categories": ["n<1K"], "viewer": False,
    }  # fmt: skip


def test_the_cards_configuration_is_the_datasets(dataset):
    ((_, text),) = blocks(dataset, "yaml")
    given = parse(yaml.safe_load(text), "the card")
    assert given.resolved() == parse(DatasetSpec.load(dataset).config, "dataset.json").resolved()


def test_a_fence_is_longer_than_what_it_holds():
    assert card.code("a ```` b\n", "yaml") == "`````yaml\na ```` b\n`````"


@pytest.mark.parametrize(
    ("given", "head", "kind"),
    [("", {}, "other"), ("CC-BY-4.0", {"license": "cc-by-4.0"}, "CC-BY-4.0"),
     ("ask | us", {"license": "other", "license_name": "ask | us"}, "other")],
)  # fmt: skip
def test_licences(odd, tmp_path, given, head, kind):
    copy = copied(odd, tmp_path)
    text = document(copy / "dataset.json")
    text["config"]["license"] = given
    (copy / "dataset.json").write_text(json.dumps(text))
    write_metadata(copy)
    found = yaml.safe_load((copy / "README.md").read_text().split("---\n", 2)[1])
    assert {k: v for k, v in found.items() if k.startswith("license")} == head
    assert document(copy / "collection.json")["license"] == kind
    assert document(copy / "croissant.json").get("license", "") == given


def copied(out, folder):
    """The files of a dataset that metadata are made of."""
    (folder / "copy").mkdir()
    for path in (p for p in out.iterdir() if p.is_file()):
        shutil.copy(path, folder / "copy")
    return folder / "copy"


def test_statistics_are_told(odd, tmp_path):
    real = document(odd / "statistics.json")["bands"]["VV"]
    numbers = " | ".join(f"{real[k]:.6g}" for k in ("mean", "std", "min", "max"))
    assert f"| VV | dB | {numbers} | 0.00% |" in (odd / "README.md").read_text()
    copy = copied(odd, tmp_path)
    band = {"count": 9, "invalid": 0.125, "mean": -3.25, "std": 2.0, "min": -9.0, "max": 1.5}
    empty = {"count": 0, "invalid": 1.0, "mean": None, "std": None, "min": None, "max": None}
    statistics = {
        "inputs": DatasetSpec.load(odd).inputs, "split": "train",
        "warnings": ["band VH: <nothing> | valid"], "bands": {"VV": band, "VH": empty},
        "labels": {
            "kind": {"kind": "class", "counts": {"0": 3, "1": 1}, "names": ["ice", "ship", "sea"],
                     "absent": ["sea"]},
            "depth": {"kind": "value", **band},
        },
    }  # fmt: skip
    (copy / "statistics.json").write_text(json.dumps(statistics))
    write_metadata(copy)
    text = (copy / "README.md").read_text()
    assert "| VV | dB | -3.25 | 2 | -9 | 1.5 | 12.50% |" in text
    assert "| VH | as in the source | none | none | none | none | 100.00% |" in text
    assert "- band VH: &lt;nothing&gt; \\| valid" in text
    assert "| 1 | ship | 1 | 25.00% |" in text
    assert "Absent: sea." in text
    assert "| 9 | -3.25 | 2 | -9 | 1.5 |" in text
    bands = document(copy / "collection.json")["bands"]
    assert bands[0]["statistics"] == {"minimum": -9.0, "maximum": 1.5, "mean": -3.25, "stddev": 2.0}
    assert "statistics" not in bands[1]
    statistics["inputs"] = "another"
    (copy / "statistics.json").write_text(json.dumps(statistics))
    write_metadata(copy)
    assert "-3.25" not in (copy / "README.md").read_text()


def test_what_somebody_else_wrote_stays(tmp_path):
    (tmp_path / "README.md").write_text("# My project\n")
    write_raster(tmp_path / "s.tif", np.ones((1, 64, 64), np.float32))
    done = scenefeed("convert", "s.tif", "--output", ".", cwd=tmp_path)
    assert "README.md was written by somebody else, and stays as it is" in done.stdout
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert (tmp_path / "croissant.json").exists()


def test_another_licence_costs_no_conversion(wide, tmp_path):
    """Same records, same fingerprints; what is said of them is said anew."""
    before = document(wide / "dataset.json")
    for given in ("license: MIT\ndescription: Forty bands.\n", ""):
        (tmp_path / "c.yaml").write_text(given or "tile: {size: 16}\n")
        done = scenefeed("convert", wide.parent / "w.tif", "--output", wide, "--tile_size", 16,
                         "--config", tmp_path / "c.yaml")  # fmt: skip
        assert "nothing to do" in done.stdout
        after = document(wide / "dataset.json")
        assert after["fingerprint"] == before["fingerprint"]
        assert after["config"]["license"] == ("MIT" if given else "")
        assert ("license: mit\n" in (wide / "README.md").read_text()) == bool(given)
        assert document(wide / "croissant.json").get("license") == ("MIT" if given else None)
    assert after == before


def test_a_full_disk_is_one_line(odd, tmp_path, monkeypatch):
    copy = copied(odd, tmp_path)

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(writing, "write_text", full)
    with pytest.raises(JobError, match=r"README.md: cannot be written: No space left on device: "):
        write_metadata(copy)


def test_a_run_that_begins_leaves_nothing_for_tfds(odd, tmp_path):
    copy = copied(odd, tmp_path)
    writing.forget(copy)
    assert not (copy / "dataset_info.json").exists()
    write_metadata(copy)
    assert (copy / "dataset_info.json").read_text() == (odd / "dataset_info.json").read_text()


def test_it_needs_no_tensorflow(odd, tmp_path):
    copy = copied(odd, tmp_path)
    script = (
        "import sys; from scenefeed.pipelines.metadata import write_metadata\n"
        f"write_metadata({str(copy)!r}); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert not write_metadata(tmp_path)  # no dataset.json, nothing to say
    assert not {p.name for p in tmp_path.iterdir()} & set(FILES)


def test_verify_has_nothing_against_them(dataset):
    assert not errors(scenefeed("verify", dataset))


def test_complex_images_are_described_too(tmp_path):
    """No format but STAC has a name for them; all stay valid."""
    import mlcroissant
    import pystac
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    pixels = (rng.normal(size=(1, 32, 32)) + 1j * rng.normal(size=(1, 32, 32))).astype(np.complex64)
    write_raster(tmp_path / "scenes/s_20200102.tif", pixels)
    (tmp_path / "c.yaml").write_text("scenes: {paths: [scenes], time: '_(.+)'}\ntile: {size: 16}\n")
    scenefeed("convert", "--config", tmp_path / "c.yaml", "--output", tmp_path / "out")
    found = mlcroissant.Dataset(tmp_path / "out/croissant.json")
    assert not found.metadata.ctx.issues.errors
    collection = pystac.Collection.from_file(str(tmp_path / "out/collection.json"))
    collection.validate()
    assert '"cfloat32"' in (tmp_path / "out/collection.json").read_text()
    records = Reader(tmp_path / "out", "train")
    held = tfds.builder_from_directory(tmp_path / "out").as_dataset("train", shuffle_files=False)
    for record in tfds.as_numpy(held):
        row, col = record["row"], record["col"]
        assert np.array_equal(record["image"][..., 0], pixels[0, row : row + 16, col : col + 16])
    assert len(records) == 4
    done = scenefeed("stats", tmp_path / "out", code=2)
    assert "complex images have no order" in done.stderr

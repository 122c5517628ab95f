"""The report says what numpy says of the records, whatever a dataset holds, and runs nothing."""

import json
import shutil
import time

import numpy as np
import pytest

from scenefeed.loader import Reader
from scenefeed.loader.spec import Feature
from scenefeed.pipelines.report import write_report
from tests.conftest import errors
from tests.conftest import in_process as scenefeed
from tests.pipelines.reports import (
    HOSTILE,
    SCRIPT,
    Page,
    crowd,
    drawing,
    figures,
    hostile,
    keys,
    scene,
    value,
    write,
)  # fmt: skip

SECTIONS = [
    "warnings",
    "splits",
    "where",
    "patches",
    "bands",
    "labels",
    "failed",
    "conversion",
    "made",
]


def report(out, **measured):
    page = out / "report.html"
    found = write_report(out, page, **measured)
    assert found["bytes"] == page.stat().st_size < 8 << 20
    json.dumps(found)  # what --json writes
    return found["facts"], Page(page.read_text())


def everything(out, split):
    reader = Reader(out, split)
    return reader.batch(range(len(reader)))


@pytest.fixture
def out(small_dataset, tmp_path):
    return shutil.copytree(small_dataset / "out", tmp_path / "out")


def test_the_command_writes_a_page_and_its_numbers(out, tmp_path):
    done = scenefeed("report", out, "--json", tmp_path / "facts.json")
    assert "split test is empty" in done.stdout
    page = Page((out / "report.html").read_text())
    facts = json.loads((tmp_path / "facts.json").read_text())["facts"]
    assert facts["splits"]["train"]["records"] == len(Reader(out, "train"))
    assert [
        t[1]["id"] for t in page.tags if t[0] == "section" and "sheet" not in t[1]["id"]
    ] == SECTIONS
    sheets = [t[1]["id"] for t in page.tags if t[0] == "section" and "sheet" in t[1]["id"]]
    assert len(sheets) == 2 + 2  # two splits with patches, classes 0 and 1
    assert page.figures == [
        "shards", "map", "layout-0", "layout-1", "values-band-0", "values-band-1", "classes-0",
        "stages",
    ]  # fmt: skip


def test_the_page_loads_and_runs_nothing_and_can_be_read_aloud(out):
    _, page = report(out)
    policy = [t for t in page.tags if t[1].get("http-equiv") == "Content-Security-Policy"]
    assert policy[0][1]["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("html", {"lang": "en"}) in page.tags
    assert not {"script", "link", "iframe", "object"} & {t[0] for t in page.tags}
    assert all(k != "href" or v.startswith("#") for _, given in page.tags for k, v in given.items())
    assert all(i["src"].startswith("data:image/") for i in page.images)
    assert all(i["alt"] or i.get("class") == "over" for i in page.images)
    assert page.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(page.headings[:-1], page.headings[1:], strict=True))
    assert all(g["scope"] in ("row", "col") for t, g in page.tags if t == "th")
    charts = [i for i in page.images if i.get("class") == "chart"]
    assert len(charts) == len(page.figures)
    ids = [g["id"] for _, g in page.tags if "id" in g]
    assert len(ids) == len(set(ids))


def test_histograms_and_classes_are_those_of_the_records(out):
    facts, page = report(out)
    samples = {k: everything(out, k) for k in ("train", "val")}
    for i, band in enumerate(("VV", "VH")):
        head, *rows = page.tables[f"values-band-{i}"]
        assert head == ["from", "to", "train", "val"]
        exact = facts["bands"][band]["train"]["histogram"]["edges"]
        assert np.allclose([value(r[0]) for r in rows], exact[:-1], rtol=1e-4, atol=1e-4)
        for j, (split, x) in enumerate(samples.items()):
            values = x["image"][..., i].astype(float)
            counts = np.histogram(values, exact)[0]
            assert [value(r[2 + j]) for r in rows] == counts.tolist()
            row = facts["bands"][band][split]
            assert row["count"] == values.size == counts.sum() + row["beyond"]
            assert np.allclose(
                [row["mean"], row["std"], row["min"], row["max"]],
                [values.mean(), values.std(), values.min(), values.max()],
            )
    head, *rows = page.tables["classes-0"]
    assert head == ["class", "train", "train, share", "val", "val, share"]
    for j, x in enumerate(samples.values()):
        for row, mask in zip(rows, (0, 1, 2), strict=True):
            assert value(row[1 + 2 * j]) == (x["water"] == mask).sum()
    assert rows[2][0] == "ignored"


def test_distances_shards_and_scenes_are_verifys_and_dataset_jsons(out, tmp_path):
    facts, page = report(out)
    scenefeed("verify", out, "--json", tmp_path / "verify.json")
    assert facts["separation"] == json.loads((tmp_path / "verify.json").read_text())["separation"]
    splits = json.loads((out / "dataset.json").read_text())["splits"]
    for row in page.tables["shards"][1:]:
        assert value(row[1]) == len(splits[row[0]]["shards"])
        assert value(row[5]) == splits[row[0]]["num_examples"]
    lines = {s["id"]: s for s in map(json.loads, (out / "scenes.jsonl").read_text().splitlines())}
    for row in page.tables["map"][1:]:
        assert [value(x) for x in row[4:]] == list(lines[row[0]]["patches"].values())
        # The scenes' upper left corner: 500 km east, which is 15 degrees, in UTM 33.
        assert 15 < value(row[1]) < 15.01
        assert 45.1 < value(row[2]) < 45.2


def test_statistics_of_training_win_and_others_take_their_bins(out):
    edges = np.linspace(-9, 9, 65).tolist()
    made = {
        "count": 7, "invalid": 0.25, "mean": 1.5, "variance": 4.0, "std": 2.0, "min": -9.0, "max": 9.0,
        "histogram": {"edges": edges, "counts": [7] + [0] * 63}, "quantiles": {},
    }  # fmt: skip
    statistics = {
        "format": "scenefeed-statistics/1", "fingerprint": "f" * 64, "split": "train", "patches": 23,
        "inputs": json.loads((out / "dataset.json").read_text())["inputs"],
        "normalize": "zscore", "warnings": ["band VH has one value in the whole split"],
        "bands": {"VV": made, "VH": {**dict.fromkeys(made), "count": 0}},
        "labels": {"water": {"kind": "mask", "counts": {"0": 30, "1": 0}, "names": [], "ignored": 5,
                             "weights": {"0": 0.5, "1": None}, "absent": ["1"]}},
    }  # fmt: skip
    (out / "statistics.json").write_text(json.dumps(statistics))
    facts, page = report(out)
    assert facts["warnings"][0] == "band VH has one value in the whole split"
    assert page.tables["values-band-0"][1][2] == "7"
    val = everything(out, "val")["image"][..., 0]
    assert [value(r[3]) for r in page.tables["values-band-0"][1:]] == np.histogram(val, edges)[
        0
    ].tolist()
    assert page.tables["classes-0"][1][:2] == ["0", "30"]
    assert page.tables["classes-0"][2][-1] == "none"
    (out / "statistics.json").write_text(json.dumps({**statistics, "inputs": "another"}))
    facts, _ = report(out)
    assert "statistics.json is of other records" in facts["warnings"][0]
    assert facts["bands"]["VV"]["train"]["count"] == 256 * len(Reader(out, "train"))


def test_the_same_dataset_gives_the_same_page(out, tmp_path):
    for name in ("a", "b"):
        write_report(out, tmp_path / f"{name}.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_compressed_shards_are_sampled_and_say_what_is_left(gzipped_dataset):
    facts, page = report(gzipped_dataset)
    assert facts["separation"] is None
    assert "it takes every record's key" in " ".join(page.text.split())
    assert facts["bands"]["VV"]["train"]["of"].startswith("all ")
    assert "layout-0" not in page.figures


def test_names_with_markup_are_text_and_run_nowhere(tmp_path):
    out = hostile(tmp_path / "out")
    facts, page = report(out, **figures(tmp_path, out))
    assert not {"script", "b"} & {t[0] for t in page.tags}
    assert not [k for _, given in page.tags for k in given if k.startswith("on")]
    assert all("onerror" not in i["src"] for i in page.images)
    for name in HOSTILE:
        assert name in page.text
    assert facts["errors"][0]["count"] == len(HOSTILE)
    said = ""
    for image in (i for i in page.images if i.get("class") == "chart"):
        for element in drawing(image).iter():
            assert element.tag.split("}")[1] not in ("script", "foreignObject", "a", "image")
            assert not [k for k in element.attrib if k.split("}")[-1].startswith("on")]
            said += element.text or ""
    assert SCRIPT[:19] in said  # a class of this name, on its axis
    assert HOSTILE[3] in said


def test_one_patch_of_forty_bands_one_constant_without_a_place(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(100, 200, (32, 32, 40)).astype(np.int16)
    image[..., 7] = 42
    image[:3, :, 5] = -32768  # nodata that no header declared
    features = keys(
        image=Feature(
            (32, 32, 40), "int16", "image", "tensor", bands=tuple(f"b{i}" for i in range(40))
        ),
        kind=Feature((), "int64", "class", "scalar", names=("ice", "ship")),
    )
    out = write(
        tmp_path / "out", features,
        {"train": [{"image": image, "kind": 0, "row": 0, "col": 0, "scene_id": "s"}], "val": []},
        [scene("s", {"train": 1, "val": 0}, crs="", transform=[1, 0, 0, 0, 1, 0])], labels=("kind",),
    )  # fmt: skip
    facts, page = report(out)
    assert page.figures.count("map") == 0
    assert "no scene has a coordinate reference system" in page.text
    assert sum(f.startswith("values-band") for f in page.figures) == 40
    said = " ".join(facts["warnings"])
    assert "split val is empty" in said
    assert "band b7 has one value, 42, in train" in said
    assert "label kind: class ship is absent from train" in said
    assert facts["bands"]["b7"]["train"]["std"] == 0
    assert facts["bands"]["b5"]["train"]["min"] == -32768
    assert "NaN" not in json.dumps(facts)


@pytest.mark.slow
def test_ten_thousand_scenes_take_bounded_time_and_room(tmp_path):
    out = crowd(tmp_path / "out", 10_000)
    start = time.perf_counter()
    facts, page = report(out)
    assert time.perf_counter() - start < 60
    assert (out / "report.html").stat().st_size < 2 << 20
    assert facts["scenes"]["count"] == 10_000
    assert len(page.tables["map"]) == 201  # the first 200 are listed


def test_what_is_not_there_is_one_line(tmp_path, out):
    assert "holds no complete dataset" in errors(scenefeed("report", tmp_path, code=1))[0]
    next((out / "records").glob("train-*.tfrecord")).unlink()
    line = errors(scenefeed("report", out, code=1))
    assert len(line) == 1
    assert "the shard is missing" in line[0]
    assert not (out / "report.html").exists()
    line = errors(scenefeed("report", "s3://bucket/out", code=2))
    assert "give --output" in line[0]


@pytest.mark.parametrize("gone", ["metrics.json", "scenes.jsonl", "errors.jsonl"])
def test_a_dataset_without_its_other_files_still_has_a_report(out, gone):
    (out / gone).unlink()
    _, page = report(out)
    assert ("map" in page.figures) == (gone != "scenes.jsonl")
    assert ("stages" in page.figures) == (gone != "metrics.json")

"""Every alternative gives back what it was given; the table, and what goes wrong."""

import gzip
import importlib.util
import itertools
import json
import math
import shutil
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest

from scenefeed.loader import DatasetSpec, Reader
from scenefeed.pipelines import compare as package
from scenefeed.pipelines.cli import main
from scenefeed.pipelines.compare import ALTERNATIVES, worker
from scenefeed.pipelines.compare import sample as sampling
from scenefeed.pipelines.compare.alternative import BUFFER
from scenefeed.pipelines.compare.table import notes
from scenefeed.pipelines.compare.worker import _compare, _hash, shuffle_quality
from scenefeed.pipelines.report import write_report
from scenefeed.pipelines.report.measured import read_check, read_compare
from scenefeed.transforms.errors import ConfigError
from tests.loader.datasets import write_dataset
from tests.pipelines.comparing import run_through, sample
from tests.pipelines.reports import Page

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"  # which the worker does not show
)
HERE = [n for n in ALTERNATIVES if n not in ("hdf5_tfio", "torch")]


@pytest.fixture(autouse=True)
def _two_epochs(monkeypatch):
    monkeypatch.setattr(worker, "LEAST", 2)
    monkeypatch.setattr(worker, "SECONDS", 0)


def images(dtype, bands, count=50):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(-12, 5, (count, 6, 5, bands)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (count, 6, 5, bands), dtype)


@pytest.mark.parametrize(
    ("name", "dtype", "bands"),
    [(name, "float32", 2) for name in HERE] + [("png", "uint8", 5), ("csv", "uint16", 3)],
)
def test_each_gives_the_source_back(name, dtype, bands, tmp_path):
    source = images(dtype, bands)
    source[7] = source[8]  # equal patches are no mistake
    taken = sample(tmp_path / "sample", source, np.arange(50) % 3)
    figures, fed, positions = run_through(name, taken, tmp_path / "work")
    assert sorted(positions) == list(range(50))
    if name == "png" and dtype == "float32":
        step = np.ptp(source, axis=(0, 1, 2)) / 65535
        assert abs(fed - source[positions]).max() > 0
        assert (abs(fed - source[positions]) <= 0.51 * step + 1e-6).all()
    else:
        assert fed.dtype == source.dtype
        assert (fed == source[positions]).all()
    assert 0.5 < figures["shuffle"] < 1.5  # the buffers hold all of it
    assert len(figures["samples"]) == 2
    assert figures["write_s"] > 0
    found = [p for p in (tmp_path / "work/out").rglob("*") if p.is_file()]
    assert figures["files"] == len(found)
    assert figures["bytes"] == sum(p.stat().st_size for p in found)
    if name in ("png", "tiff", "npy"):
        folders = {p.parent.name: len(list(p.parent.iterdir())) for p in found}
        assert folders == {"class_0": 17, "class_1": 17, "class_2": 16}


def test_a_buffer_of_the_samples_share_shuffles_as_badly_as_on_the_whole(tmp_path):
    taken = sample(tmp_path / "sample", images("uint8", 1, 1000), total=100 * BUFFER)
    assert ALTERNATIVES["recipe"](taken, 16).sample.scaled(BUFFER) == 10
    figures, _, _ = run_through("hdf5_generator", taken, tmp_path / "a")
    assert 0.001 < figures["shuffle"] < 0.05
    figures, _, _ = run_through("recipe", taken, tmp_path / "b")
    assert 0.9 < figures["shuffle"] < 1.1


@pytest.mark.parametrize(
    ("patches", "of", "buffer", "more"),
    [(2048, 32_768, 640, 9600), (2500, 5000, 5120, 2500), (8192, 20_000, 4194, 6046)],
)
def test_what_buffers_take_more_on_the_whole_split(patches, of, buffer, more):
    found = {"bytes": patches << 20, "patches": patches, "of": of, "buffer": buffer}
    assert f"there they take {more:,} MiB more" in notes(found)[-1]


def test_the_mean_over_all_permutations_is_one():
    every = itertools.permutations(range(6))
    assert np.mean([shuffle_quality(np.array(p)) for p in every]) == pytest.approx(1)
    assert shuffle_quality(np.arange(299)) == pytest.approx(1 / 100)
    assert shuffle_quality(np.arange(1)) is None


@pytest.mark.parametrize("fault", ["changed", "twice", "lost"])
def test_a_patch_that_does_not_come_back_is_found(fault, tmp_path):
    source = images("float32", 2)
    alternative = ALTERNATIVES["npy"](sample(tmp_path / "sample", source), 16)
    fed, hashes = source.copy(), np.array([_hash(x) for x in source], np.uint64)
    _compare(alternative, [fed], hashes)
    if fault == "changed":
        fed[3, 0, 0, 0] = np.nextafter(fed[3, 0, 0, 0], np.float32(0))
    elif fault == "twice":
        fed[3] = fed[4]
    else:
        fed = fed[1:]
    with pytest.raises(ValueError, match="1 of 50 patches did not come back"):
        _compare(alternative, [fed], hashes)


def test_what_an_alternative_cannot_hold_it_says(tmp_path):
    source = images("float32", 2)
    source[0, 0, 0] = np.nan
    taken = sample(tmp_path / "sample", source)
    assert ALTERNATIVES["png"](taken, 16).why_not() == "PNG holds no NaN"
    assert run_through("csv", taken, tmp_path / "csv")
    half = sample(tmp_path / "half", images("float16", 2))
    assert "float16" in ALTERNATIVES["csv"](half, 16).why_not()
    if not importlib.util.find_spec("tensorflow_io"):
        assert "TensorFlow 2.16 alone" in ALTERNATIVES["hdf5_tfio"](half, 16).why_not()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("made") / "out", np.arange(40) % 3, shards=3)


@pytest.fixture
def run(capsys):
    def run(*words, code=0):
        assert main([str(w) for w in words]) == code
        done = capsys.readouterr()
        return done.out, [x for x in done.err.splitlines() if x.startswith("scenefeed")]

    return run


def test_the_command_in_processes_of_their_own(run, made, tmp_path):
    path = tmp_path / "compare.json"
    said, _ = run("compare", made, "--alternatives", "feed,torch,feed", "--batch_size", 8,
                  "--patches", 30, "--work", tmp_path, "--json", path)  # fmt: skip
    found = json.loads(path.read_text())
    feed, torch = found["rows"]
    assert feed["status"] == "run"
    assert feed["seconds"] == np.median(feed["samples"])
    assert feed["spread"][0] <= feed["seconds"] <= feed["spread"][1]
    assert 10 << 20 < feed["peak_bytes"] < 1 << 30
    assert (found["patches"], found["of"], found["bytes"]) == (30, 40, 30 * 32)
    assert feed["files"] == 2 * 16 + 1  # shards, their indexes, dataset.json
    assert "* scenefeed Feed (NumPy)" in said
    assert "30 patches are less than 5 batches of 8" in said
    if not importlib.util.find_spec("torch"):
        assert (torch["status"], torch["resume"][:3]) == ("not run", "yes")
        assert "torch is not installed" in said
    assert list(tmp_path.iterdir()) == [path]

    (tmp_path / "check.json").write_text(json.dumps({"fingerprint": found["fingerprint"], "results": [
        {"name": "<b>rate</b>", "value": 3.0, "unit": "MB/s", "target": 27.8, "side": "at least",
         "met": False, "advice": "give it more cores", "spread": [2.5, 3.5], "words": "3 of 3"},
        {"name": "other", "value": None, "unit": "s", "target": None, "side": "at most", "met": None},
    ], "warnings": ["the machine was busy"]}))  # fmt: skip
    shutil.copytree(made, tmp_path / "out")
    run("report", tmp_path / "out", "--check", tmp_path / "check.json", "--compare", path)
    page = Page((tmp_path / "out/report.html").read_text())
    assert page.tables["alternatives"][1][:2] == ["scenefeed Feed (NumPy)", "scenefeed"]
    assert page.tables["check"][1] == [
        "<b>rate</b>", "3 MB/s", "2.5 to 3.5", "at least 27.8 MB/s", "no", "3 of 3",
    ]  # fmt: skip
    assert page.tables["check"][2][1:5] == ["not measured", "", "none", "not told"]
    for words in ("give it more cores", "the machine was busy", "torch is not installed"):
        assert words in page.text
    (chart,) = (i for i in page.images if i["alt"].startswith("Seconds for 5 x 8"))
    assert "Feed (NumPy) (ours)" in chart["alt"]


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("--compare", None, "No such file"),
        ("--compare", "{", "not JSON"),
        ("--compare", "[1]", "not what `scenefeed compare OUT --json"),
        ("--compare", '{"kind": "scenefeed compare", "rows": null}', "not what `scenefeed compare"),
        ("--compare", "ANOTHER", "of another dataset"),
        ("--check", '{"rows": []}', "not what `scenefeed check OUT --json"),
        ("--check", '{"results": [{"name": 1}]}', "not what `scenefeed check"),
        ("--check", '{"results": []}', "of another dataset"),
    ],
)
def test_figures_of_something_else_are_one_line(run, made, tmp_path, flag, text, words):
    path = tmp_path / "figures.json"
    if text == "ANOTHER":
        text = json.dumps({
            "kind": "scenefeed compare", "fingerprint": "0", "dataset": "there", "split": "train",
            "patches": 1, "of": 1, "batch_size": 1, "batches": 5, "rows": [],
        })  # fmt: skip
    if text:
        path.write_text(text)
    _, lines = run("report", made, flag, path, "--output", tmp_path / "page.html", code=2)
    assert len(lines) == 1
    assert words in lines[0]
    assert str(path) in lines[0]


@pytest.mark.parametrize(
    "odd",
    [{"spread": [1]}, {"spread": ["a", "b"]}, {"spread": [1, math.inf]}, {"shuffle": "x"},
     {"target": "x"}, {"met": []}, {"words": 1}, {"shown": 1}],
)  # fmt: skip
def test_odd_figures_are_one_line(tmp_path, odd):
    path = tmp_path / "figures.json"
    result = {"name": "a", "value": 1.0, "unit": "s", "side": "at most", "spread": [1, 2]}
    row = {
        "title": "t", "status": "run", "why": "", "ours": True, "resume": "", "seconds": 1.0,
        "spread": [1, 2], "write_s": 1, "bytes": 1, "files": 1, "peak_bytes": 1,
    }  # fmt: skip
    whole = {
        "kind": "scenefeed compare", "fingerprint": "0", "dataset": "there", "split": "train",
        "patches": 1, "of": 1, "batch_size": 1, "batches": 5, "rows": [row | odd],
    }  # fmt: skip
    if odd.keys() <= {"spread", "shuffle"}:
        path.write_text(json.dumps(whole))
        with pytest.raises(ConfigError, match="not what `scenefeed compare"):
            read_compare(path, SimpleNamespace(fingerprint="0"))
    if odd.keys() <= {"spread", "target", "met", "shown", "words"}:
        path.write_text(json.dumps({"results": [result | odd]}))
        with pytest.raises(ConfigError, match="not what `scenefeed check"):
            read_check(path, SimpleNamespace(fingerprint="0"))


def test_a_page_without_anything_that_ran(made, tmp_path):
    found = {
        "kind": "scenefeed compare", "fingerprint": DatasetSpec.load(made).fingerprint,
        "dataset": "x", "split": "train", "patches": 1, "of": 1, "batch_size": 1, "batches": 5,
        "rows": [{"title": "t", "status": "failed", "why": "<i>no</i>", "ours": True, "resume": ""}],
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(found))
    write_report(made, tmp_path / "page.html", compare=tmp_path / "c.json")
    page = Page((tmp_path / "page.html").read_text())
    assert "alternatives" not in page.figures
    assert "failed: <i>no</i>" in page.text


def test_mistakes_are_one_line(run, made, tmp_path, monkeypatch):
    def line(*words, code=2):
        (line,) = run("compare", made, "--work", tmp_path, *words, code=code)[1]
        return line

    assert "no alternative 'hdf5_generater': did you mean hdf5_generator?" in line(
        "--alternatives", "feed,hdf5_generater"
    )
    assert "no split 'test'" in line("--split", "test", code=1)
    assert "give --work" in line("--work", tmp_path / "none")
    empty = shutil.copytree(made, tmp_path / "empty")
    spec = json.loads((empty / "dataset.json").read_text())
    spec["splits"]["val"] = {"num_examples": 0, "num_bytes": 0, "shards": []}
    (empty / "dataset.json").write_text(json.dumps(spec))
    (said,) = run("compare", empty, "--split", "val", code=1)[1]
    assert "split 'val' is empty" in said
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(sampling.shutil, "disk_usage", lambda _: free)
    assert "give --work on another disk" in line()
    monkeypatch.setattr(sampling, "available_memory", lambda: (1 << 30) + 700)
    assert "give --patches 10 or less" in line()  # of 32 bytes, twice
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]


def test_memory_that_is_free_is_the_kernels_figure():
    psutil = pytest.importorskip("psutil")
    whole = psutil.virtual_memory()
    assert 0 < sampling.available_memory() < whole.total


def test_an_alternative_that_fails_does_not_stop_the_others(run, made, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *\'"feed", "step"\'*) kill -9 $$;; *) echo "E: bad" >&2; exit 1;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(package.sys, "executable", str(program))
    names = ("--alternatives", "stream,feed", "--work", tmp_path)
    said, lines = run("compare", made, *names, code=1)
    assert lines == [
        "scenefeed: stream failed: write: E: bad",
        "scenefeed: feed failed: write: killed by signal 9, as where memory runs out: give fewer "
        "--patches",
    ]
    assert "scenefeed Feed (NumPy): failed: write: killed" in said


def test_a_sample_lies_in_source_order_also_of_compressed_and_remote_shards(made, tmp_path):
    packed = shutil.copytree(made, tmp_path / "gz")
    spec = json.loads((made / "dataset.json").read_text())
    spec["config"]["records"]["compression"] = "gzip"
    for shard in spec["splits"]["train"]["shards"]:
        path = packed / shard["path"]
        path.write_bytes(gzip.compress(path.read_bytes()))
        shard["num_bytes"] = path.stat().st_size
    (packed / "dataset.json").write_text(json.dumps(spec))
    memory = fsspec.filesystem("memory")
    memory.put(str(made), "/compared", recursive=True)
    rows = Reader(made).columns(["row", "kind"])
    for name, path in (("local", str(made)), ("gz", str(packed)), ("far", "memory://compared")):
        folder = tmp_path / f"sample-{name}"
        folder.mkdir()
        taken = sampling.put_down(path, DatasetSpec.load(path), "train", 20, folder)
        assert (taken.count, taken.total, taken.shape) == (20, 40, (4, 4, 1))
        chosen = taken.images()[:, 0, 0, 0].astype(int)  # what row holds too
        assert (np.diff(chosen) > 0).all()
        assert (chosen == (np.arange(20) if name == "gz" else 2 * np.arange(20))).all()
        assert (taken.classes() == rows["kind"][chosen]).all()
        assert (taken.low, taken.high) == ((chosen.min(),), (chosen.max(),))


@pytest.mark.slow
def test_all_of_them_on_real_scenes(run, data, tmp_path):
    run("convert", data / "flood/S1Hand/*.tif", "--tile_size", 64, "--min_valid", 0.9,
        "--output", tmp_path / "out")  # fmt: skip
    path = tmp_path / "compare.json"
    run("compare", tmp_path / "out", "--patches", 200, "--batch_size", 32, "--json", path)
    rows = {r["name"]: r for r in json.loads(path.read_text())["rows"]}
    assert list(rows) == list(ALTERNATIVES)
    assert {n for n, r in rows.items() if r["status"] == "run"} >= set(HERE) - {"png"}
    assert not [r for r in rows.values() if r["status"] == "failed"]
    for r in (r for r in rows.values() if r["status"] == "run"):
        assert r["bytes"] > 0
        assert 0 < r["shuffle"] < 1.3
        assert 0 < r["spread"][0] <= r["seconds"] <= r["spread"][1]

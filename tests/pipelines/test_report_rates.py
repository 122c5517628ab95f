"""The report's rates are those of metrics.json, against the targets that were published."""

import json
import shutil

import numpy as np
import pytest

from scenefeed.pipelines.report import write_report
from tests.conftest import in_process, write_raster
from tests.pipelines.reports import Page, drawing, value

TARGET = 100e9 / 3600 / 1e6  # MB/s: 100 GB of scenes in an hour
HEAD = ["stage", "seconds of workers", "MB/s of source", "target, MB/s", "met"]
# Four workers, of which each has to take 6.94444 MB of source a second.
MADE = {
    "bytes": {"source": 36_000_000_000}, "workers": 4, "peak_memory_bytes": 3 << 30,
    "conversion": {"source_bytes": 36_000_000_000, "seconds": 1200.0, "mb_per_s": 30.0},
    "worker_seconds": {"read": 900.0, "clean": 0.0, "stage": 4800.0, "write": 7200.0},
}  # fmt: skip


@pytest.fixture
def folder(small_dataset, tmp_path):
    return shutil.copytree(small_dataset, tmp_path / "small")


@pytest.fixture
def page(folder):
    """The page of the dataset as it is now."""

    def read():
        write_report(folder / "out", folder / "report.html")
        return Page((folder / "report.html").read_text())

    return read


def metrics_of(folder):
    return json.loads((folder / "out/metrics.json").read_text())


def chart(page):
    (image,) = [i for i in page.images if "of each stage: " in i["alt"]]
    return image


def test_each_stages_rate_is_its_share_of_metrics_json(folder, page):
    found, read = metrics_of(folder), page()
    spent = {k: s for k, s in found["worker_seconds"].items() if s}
    spent["all stages"] = sum(spent.values())
    head, *rows = read.tables["stages"]
    assert head == HEAD
    assert [row[0] for row in rows] == list(spent)
    for step, seconds, rate, target, met in rows:
        expected = found["bytes"]["source"] / 1e6 / spent[step]
        assert value(seconds) == pytest.approx(spent[step], rel=1e-5)
        assert value(rate) == pytest.approx(expected, rel=1e-5)
        assert value(target) == pytest.approx(TARGET / found["workers"], rel=1e-5)
        assert met == ("yes" if expected > TARGET / found["workers"] else "no")


def test_the_whole_runs_rate_and_memory_are_those_of_metrics_json(folder, page):
    found, read = metrics_of(folder), page()
    sizes = [p.stat().st_size for p in (folder / "scenes").iterdir()]
    assert found["bytes"]["source"] == sum(sizes)
    rate = sum(sizes) / 1e6 / found["conversion"]["seconds"]
    memory = found["peak_memory_bytes"] / 1024**3
    head, *rows = read.tables["conversion"]
    assert head == ["what", "measured", "target", "met"]
    assert rows == [
        ["rate, MB of source a second", f"{rate:.3g}", "at least 27.7778", "no"],
        ["peak memory, GiB", f"{memory:.2f}", "at most 2", "yes"],
    ]
    seconds, workers = found["conversion"]["seconds"], found["workers"]
    assert f"{sum(sizes) / 1e6:.2f} MB of source in {seconds:.1f} s by {workers} w" in read.text


def test_on_both_sides_of_the_targets(folder, page):
    text = json.dumps(metrics_of(folder) | MADE)
    (folder / "out/metrics.json").write_text(text)
    read = page()
    assert read.tables["stages"] == [
        HEAD,
        ["read", "900", "40", "6.94444", "yes"],
        ["stage", "4,800", "7.5", "6.94444", "yes"],
        ["write", "7,200", "5", "6.94444", "no"],
        ["all stages", "12,900", "2.7907", "6.94444", "no"],
    ]
    assert [row[1:] for row in read.tables["conversion"][1:]] == [
        ["30", "at least 27.7778", "yes"],
        ["3.00", "at most 2", "no"],
    ]
    image = chart(read)
    assert image["alt"] == (
        "Rate of each stage: read 40, stage 7.5, write 5, all stages 2.79; target 6.94."
    )
    points, line = drawn(drawing(image))
    places = np.log10([40, 7.5, 5, 36e3 / 12_900, TARGET / 4])
    fitted = np.polyval(np.polyfit(places, [*points, line], 1), places)
    np.testing.assert_allclose(fitted, [*points, line], atol=0.01)  # of a pixel
    assert points[0] > points[1] > line > points[2] > points[3]


def drawn(figure):
    """Where a figure has its points, and the dashed line, from the left."""
    svg = "{http://www.w3.org/2000/svg}"
    (held,) = [g for g in figure.iter(f"{svg}g") if g.get("id") == "PathCollection_1"]
    (line,) = [p for p in figure.iter(f"{svg}path") if "dasharray: 4,2" in p.get("style", "")]
    return [float(u.get("x")) for u in held.iter(f"{svg}use")], float(line.get("d").split()[1])


def test_a_run_that_found_scenes_staged_has_seconds_alone(folder, page):
    """It read the new scene, and wrote the records of all: a rate would be of neither."""
    words = ("convert", "--config", folder / "config.yaml", "--output", folder / "out")
    in_process(*words)  # the copied scenes are others
    before = metrics_of(folder)["conversion"]
    write_raster(folder / "scenes/c.tif", np.ones((2, 64, 64), np.float32))
    write_raster(folder / "labels/c.tif", np.ones((1, 64, 64), np.uint8))
    in_process(*words)
    found, read = metrics_of(folder), page()
    assert found["scenes"] == {"done": 3, "reused": 2, "failed": 0}
    assert 0 < found["bytes"]["source"] < before["source_bytes"]
    for step, seconds, *rest in read.tables["stages"][1:-1]:
        assert value(seconds) == pytest.approx(found["worker_seconds"][step])
        assert rest == ["none", "none", ""]
    assert chart(read)["alt"].startswith("Seconds of each stage: read ")
    assert read.tables["conversion"][1][1] == f"{before['mb_per_s']:.3g}"
    assert " s by " not in read.text  # those workers are of the last run

"""benchmarks/: ratios and noise of compare.py; run.py at a tiny size."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "benchmarks"
compare = runpy.run_path(str(FOLDER / "compare.py"))


def results(figures, core=1.0, commit="a", busy=0.0, cores=2):
    """A file of run.py with one row that took ``figures`` seconds."""
    runs = [{"figure": f, "user_s": core * f, "sys_s": 0.0} for f in figures]
    machine = {"cores": cores, "commit": commit, "others_busy": busy, "steal": 0.0}
    return {"machine": machine, "size": 512, "rows": {"convert: scenefeed": runs}}


@pytest.mark.parametrize(
    ("before", "after", "ratio", "noise", "verdict"),
    [
        ([2, 2.2, 1.8], [1, 1.1, 1.2], 0.55, 0.2, "faster"),
        ([1, 1.1, 1.2], [2, 2.2, 1.8], 2 / 1.1, 0.2, "slower"),
        ([2, 1, 3], [1.5, 1.4, 1.6], 0.75, 1.0, "within the noise"),
        ([2, 2], [1, 1, 1], 0.5, 0.0, "too few runs"),
    ],
)
def test_a_difference_counts_where_no_runs_overlap(before, after, ratio, noise, verdict):
    [row] = compare["compare"](results(before), results(after, core=2))
    assert row["ratio"] == pytest.approx(ratio)
    assert row["core_ratio"] == pytest.approx(2 * ratio)
    assert row["noise"] == pytest.approx(noise)
    assert row["verdict"] == verdict


def test_compare_says_what_else_differs(tmp_path, capsys):
    files = tmp_path / "a.json", tmp_path / "b.json"
    files[0].write_text(json.dumps(results([1, 1, 1])))
    files[1].write_text(json.dumps(results([2, 2, 2], commit="b", busy=0.4, cores=8)))
    assert compare["main"](list(map(str, files))) == 0
    said = capsys.readouterr().out
    assert "| convert: scenefeed | 1 | 2 | 2.00 | 2.00 | 0% | slower |" in said
    assert "differs: cores: 2 and 8\ndiffers: after: others used 40% of the machine\n" in said
    assert "commit" not in said


def test_compare_of_something_else_is_one_line(tmp_path, capsys):
    (tmp_path / "a.json").write_text("[]")
    assert compare["main"]([str(tmp_path / "a.json"), str(tmp_path / "none.json")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def bench(*args):
    return subprocess.run(
        [sys.executable, FOLDER / "run.py", *map(str, args)],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_run_measures_rows_beside_their_references(tmp_path):
    file = tmp_path / "bench.json"
    only = "^convert: (recipe|scenefeed)$|^floors|^growth: 1 scene$|help"
    done = bench("--size", 256, "--rounds", 1, "--only", only, "--work", tmp_path, "--json", file)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [file]
    kept = json.loads(file.read_text())
    rows = kept["rows"]
    recipe, ours, growth = (
        rows[n][0] for n in ("convert: recipe", "convert: scenefeed", "growth: 1 scene")
    )
    assert f"| {ours['figure'] / recipe['figure']:.2f} |" in done.stdout
    assert growth["figure"] == pytest.approx(growth["wall_s"] / (256**2 * 8 / 2**20))
    assert ours["user_s"] > 0
    assert ours["peak_mib"] > 50
    assert set(ours["steps"]) == {"read", "tile", "stage", "gather", "serialize", "write"}
    assert kept["machine"]["cores"] >= 1
    assert kept["machine"]["cpu"]
    assert kept["machine"]["kernel"]


def test_run_names_its_rows_where_none_is_found(tmp_path):
    done = bench("--only", "no such row")
    assert done.returncode == 2
    assert "load: Feed" in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_by_size_double_up_to_the_one_that_is_asked_for():
    found = runpy.run_path(str(FOLDER / "rows.py"))
    assert found["GIB_SIDE"] % 512 == 0
    mib = found["GIB_SIDE"] ** 2 * 8 / 2**20
    assert 0.9 < mib / 1024 <= 1
    rows = [r for r in found["rows"](ROOT, 256, 12) if r.name.startswith("size")]
    assert [(r.name, r.mib / mib) for r in rows] == [(f"size: {n} GiB", n) for n in (1, 2, 4, 8)]
    assert all(r.cold and r.reference == ("size: 1 GiB" if r.mib > mib else "") for r in rows)
    for none in (0, -1):
        assert not any(r.cold for r in found["rows"](ROOT, 256, none))


def test_growth_is_of_equal_totals():
    sides = runpy.run_path(str(FOLDER / "rows.py"))["growth_sides"]
    assert sides(6400) == [(1, 6144), (10, 2048), (156, 512), (1111, 192), (10_000, 64)]
    assert sides(23040) == [(1, 23040), (10, 7168), (127, 2048), (2025, 512), (8100, 256)]
    for size in (512, 4096, 6144):
        totals = [n * side**2 / size**2 for n, side in sides(size)]
        assert all(0.9 < share < 1.1 for share in totals), totals
        assert len(totals) < 5

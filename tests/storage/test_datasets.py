"""The real command between object stores: the same bytes as on local disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio

from scenefeed.loader import Feed, Reader
from scenefeed.pipelines.report import write_report
from tests.conftest import write_raster
from tests.deploy.docs import doc_commands, run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
RNG = np.random.default_rng(5)
YAML = """
name: remote
scenes: {{paths: ["{scenes}/*.tif"], bands: [VV, VH]}}
labels:
  water: {{kind: raster, path: "{labels}/{{id}}.tif"}}
  site: {{kind: points, path: "{labels}/sites.csv", value: level}}
clean: {{min_valid: 0.5}}
tile: {{size: 32, edge: pad}}
split: {{by: block, block: 64, fractions: {{train: 0.7, val: 0.3}}}}
records: {{num_shards: 3}}
"""


def command(server, *words):
    """The command in a process of its own, with nothing but the server's environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "GOOGLE_", "GS_"))}
    return subprocess.run(
        [sys.executable, "-m", "scenefeed.pipelines.cli", *map(str, words)],
        env=kept | server.env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def converted(server, *words):
    done = command(server, *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Three scenes with masks, points and a mask beside one of them; and their dataset."""
    folder = tmp_path_factory.mktemp("local")
    for i in range(3):
        pixels = RNG.random((2, 200 + i, 190)).astype("float32")
        pixels[:, :40] = np.nan
        path = write_raster(folder / f"scenes/s{i}.tif", pixels)
        water = RNG.integers(0, 2, (1, *pixels.shape[1:])).astype("uint8")
        write_raster(folder / f"labels/s{i}.tif", water)
        if i == 1:  # GDAL's s1.tif.msk
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
                mask = np.full(pixels.shape[1:], 255, np.uint8)
                mask[100:180, 50:120] = 0
                file.write_mask(mask)
    (folder / "labels/sites.csv").write_text("x,y,level\n500105,4999895,1.5\n500905,4999100,2.5\n")
    (folder / "c.yaml").write_text(
        YAML.format(scenes=folder / "scenes", labels=folder / "labels").replace(
            "kind: points", "kind: points, crs: EPSG:32633"
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "scenefeed.pipelines.cli", "convert", "--config", "c.yaml",
         "--output", "out"], cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "scenes/s1.tif.msk").exists()
    return folder


def fingerprint(text):
    return json.loads(text)["fingerprint"]


@pytest.fixture(scope="module", params=["s3", "gcs", "hdfs"])
def remote(request, local, tmp_path_factory):
    """(server, its URL for a prefix, a configuration that names it), scenes and labels there."""
    server = request.getfixturevalue(request.param)
    for path in sorted(p for p in local.glob("*/*") if p.parent.name in ("scenes", "labels")):
        server.put(f"in/{path.relative_to(local)}", path)
    config = tmp_path_factory.mktemp("config") / "c.yaml"
    config.write_text((local / "c.yaml").read_text().replace(str(local), f"{server.root}/in"))
    return server, config


def test_the_same_bytes_as_on_local_disks(remote, local):
    server, config = remote
    out = f"{server.root}/out"
    converted(server, "convert", "--config", config, "--output", out)
    expected = fingerprint((local / "out/dataset.json").read_text())
    assert fingerprint(server.get("out/dataset.json")) == expected
    names = {n.removeprefix("out/") for n in server.list() if n.startswith("out/")}
    ours = {str(p.relative_to(local / "out")) for p in (local / "out").rglob("*") if p.is_file()}
    assert names == ours | {f"stage/s{i}.npz" for i in range(3)}
    for name in sorted(n for n in ours if n.startswith("records/")):
        assert server.get(f"out/{name}") == (local / "out" / name).read_bytes(), name
    for name in ("features.json", "dataset_info.json", "schema.pbtxt"):
        assert server.get(f"out/{name}") == (local / "out" / name).read_bytes(), name
    assert f"{server.root}/in/scenes/s0.tif" in server.get("out/README.md").decode()
    again = converted(server, "convert", "--config", config, "--output", out)
    assert "nothing to do" in again.stdout
    assert "whole" in converted(server, "verify", out).stdout


def test_other_records_from_the_same_stage_files(remote, local):
    """Another seed than that of the stage files' order, on the server alone."""
    server, _ = remote
    flags = ("--seed", 9, "--num_shards", 5)
    converted(server, "shard", f"{server.root}/out", *flags)
    subprocess.run(["cp", "-r", local / "out", local / "again"], check=True)
    converted(server, "shard", local / "again", *flags)
    expected = fingerprint((local / "again/dataset.json").read_text())
    assert fingerprint(server.get("out/dataset.json")) == expected
    strays = [n for n in server.list() if "-of-00003" in n or "beam-temp" in n]
    assert not strays


def test_stage_files_apart_from_the_dataset(remote, local, tmp_path):
    """Local scenes and dataset, stage files on the server: balanced by what these hold."""
    server, _ = remote
    config = tmp_path / "c.yaml"
    config.write_text(
        (local / "c.yaml").read_text() + "sample: {balance: {label: water, ratios: {0: 1, 1: 1}}}\n"
    )
    converted(server, "convert", "--config", config, "--output", tmp_path / "local")
    flags = ("--config", config, "--stage_dir", f"{server.root}/stages")
    converted(server, "convert", *flags, "--output", tmp_path / "out")
    one, two = ((tmp_path / x / "dataset.json").read_text() for x in ("local", "out"))
    assert fingerprint(one) == fingerprint(two)
    assert not list((tmp_path / "out/stage").glob("*"))
    reused = converted(server, "convert", *flags, "--output", tmp_path / "out2")
    assert "3 staged before" in reused.stdout
    converted(server, "convert", *flags, "--output", tmp_path / "out3", "--drop_stage")
    assert not [n for n in server.list() if n.startswith("stages/")]


def test_the_loader_reads_it(remote, local, monkeypatch):
    server, config = remote
    converted(server, "convert", "--config", config, "--output", f"{server.root}/feed")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    there, here = Reader(f"{server.root}/feed", "train"), Reader(str(local / "out"), "train")
    assert len(there) == len(here) > 20
    for name, values in here.batch(np.arange(len(here))).items():
        np.testing.assert_array_equal(there.batch(np.arange(len(here)))[name], values)


def test_a_report_of_it_is_that_of_the_local_one(remote, local, tmp_path):
    server, config = remote
    converted(server, "convert", "--config", config, "--output", f"{server.root}/seen")
    words = ("--output", tmp_path / "there.html", "--json", tmp_path / "there.json")
    assert command(server, "report", f"{server.root}/seen", *words).returncode == 0
    here = write_report(local / "out", tmp_path / "here.html")["facts"]
    there = json.loads((tmp_path / "there.json").read_text())["facts"]
    for key in ("splits", "bands", "labels", "separation", "errors"):
        assert there[key] == json.loads(json.dumps(here[key]))


def test_statistics_are_those_of_the_local_one(remote, local, tmp_path, monkeypatch):
    """By convert, by stats from its cache, and with stage files apart; feeds read them there."""
    server, config = remote
    if not server.root.startswith("s3://"):
        pytest.skip("takes minutes: what it does there is read and write, as others do")
    out, here = f"{server.root}/known", tmp_path / "known"
    flags = ("--normalize", "zscore")
    converted(server, "convert", "--config", config, "--output", out, *flags)
    converted(server, "convert", "--config", local / "c.yaml", "--output", here, *flags)
    _same_statistics(server.get("known/statistics.json"), here)
    assert not [
        n for n in server.list() if n.startswith("known/") and ".npz" in n and "/stage/" not in n
    ]
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    (there,), (ours,) = (Feed(str(x), "train", shuffle=False) for x in (out, here))
    np.testing.assert_array_equal(there["image"], ours["image"])

    # By what the cache holds, though the stage files are gone but for their headers.
    flags = ("--normalize", "quantile")
    converted(server, "stats", out, *flags)
    converted(server, "stats", here, *flags)
    _same_statistics(server.get("known/statistics.json"), here)

    apart = ("--stage_dir", f"{server.root}/apart", "--normalize", "quantile")
    converted(server, "convert", "--config", config, "--output", tmp_path / "apart", *apart)
    _same_statistics((tmp_path / "apart/statistics.json").read_bytes(), here)
    converted(server, "stats", tmp_path / "apart", "--normalize", "minmax")
    converted(server, "stats", here, "--normalize", "minmax")
    _same_statistics((tmp_path / "apart/statistics.json").read_bytes(), here)


def _same_statistics(found, folder):
    found, expected = json.loads(found), json.loads((folder / "statistics.json").read_text())
    for each in (found, expected):
        del each["inputs"]  # which files they are from
    assert found == expected
    assert found["patches"] > 20


def test_patches_are_located_shown_and_put_together(remote, local, tmp_path):
    server, config = remote
    out = f"{server.root}/looked"
    converted(server, "convert", "--config", config, "--output", out)
    (record,) = Reader(str(local / "out"), "train").batch([5])["scene_id"]
    rows = Reader(str(local / "out"), "train")
    key = "{scene_id}/{row}/{col}".format(**rows[5])
    said = [
        converted(server, "locate", folder, *words).stdout.replace(f"{server.root}/in", str(local))
        for words in ((key,), ("--split", "val", "--index", 3, "--geojson"))
        for folder in (out, local / "out")
    ]
    assert said[0] == said[1]
    assert said[2] == said[3]
    assert key in said[0]
    for words in (("--index", 5), ("--key", key), ("--index", 1, 2, 3)):
        for folder, name in ((out, "there.png"), (local / "out", "here.png")):
            converted(server, "show", folder, *words, "--output", tmp_path / name)
        assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    found = rows.batch(rows.of_scene(record))
    np.savez(tmp_path / "p.npz", row=found["row"], col=found["col"], values=found["image"])
    for folder, name in ((out, "there.tif"), (local / "out", "here.tif")):
        converted(server, "mosaic", folder, record, tmp_path / "p.npz", "--output", tmp_path / name)
    assert (tmp_path / "there.tif").read_bytes() == (tmp_path / "here.tif").read_bytes()


def test_scenes_are_read_by_ranges(remote, tmp_path):
    """Of a large tiled scene, masked out but for a corner, what is not needed is not fetched."""
    server, _ = remote
    pixels = RNG.integers(0, 60000, (1, 4096, 4096)).astype("uint16")
    path = write_raster(tmp_path / "big.tif", pixels, tiled=True, blockxsize=256, blockysize=256)
    server.put("big/big.tif", path)
    server.log.requests.clear()
    done = command(server, "convert", f"{server.root}/big/big.tif", "--output", tmp_path / "out",
                   "--dry_run", "--tile_size", 64)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4,096" in done.stdout
    assert sum(r.sent for r in server.log.requests) < path.stat().st_size / 20


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{root}/none/*.tif", "--output", "{root}/x"], 2, "no scene there"),
        (["{root}/none.tif", "--output", "{root}/x"], 2, "no scene there"),
        (["{root}/in/scenes", "--output", "{denied}/x"], 2, "cannot be written"),
        (["{denied}/in", "--output", "{root}/x"], 2, "{denied}/in"),
        (["{root}/in/scenes", "--output", "{root}/x", "--stage_dir", "{denied}/x"], 2, "--stage_dir"),
        (["ftp://host/a.tif", "--output", "{root}/x"], 2, "known are s3://, gs:// and hdfs://"),
        (["{root}/arrays/s0.npy", "--output", "{root}/x"], 2, "local disks only"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(remote, local, words, code, said):
    server, _ = remote
    server.put("arrays/s0.npy", local / "c.yaml")
    done = command(
        server, "convert", *(w.format(root=server.root, denied=server.denied) for w in words)
    )
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said.format(denied=server.denied) in done.stderr
    assert not any(v in done.stderr for k, v in server.env.items() if "SECRET" in k)


def test_a_scene_that_is_cut_off_is_a_dead_letter(remote, local, tmp_path):
    server, _ = remote
    whole = (local / "scenes/s0.tif").read_bytes()
    for name, data in (("a.tif", whole), ("b.tif", whole[: len(whole) // 2]), ("c.tif", b"")):
        (tmp_path / name).write_bytes(data)
        server.put(f"cut/{name}", tmp_path / name)
    out = f"{server.root}/cut_out"
    done = command(server, "convert", f"{server.root}/cut", "--output", out, "--tile_size", 32)
    assert done.returncode == 1, done.stderr
    print(done.stderr)
    letters = [json.loads(line) for line in server.get("cut_out/errors.jsonl").splitlines()]
    assert [x["scene"] for x in letters] == ["b", "c"]
    assert all(x["file"].startswith(server.root) and x["reason"] for x in letters)
    assert "empty" in letters[1]["reason"]


def test_the_pages_commands(remote, tmp_path):
    server, _ = remote
    run("\n".join(doc_commands("storage")), tmp_path, BUCKET=server.root, **server.env)
    one, two = (
        json.loads((tmp_path / d / "dataset.json").read_text()) for d in ("docs-out", "docs-out2")
    )
    assert one["fingerprint"] == two["fingerprint"]

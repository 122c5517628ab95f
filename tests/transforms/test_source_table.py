"""The table source: JSON records of small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil

from scenefeed.transforms.scenes import SceneFiles
from scenefeed.transforms.sections import Scenes
from scenefeed.transforms.sources import table
from scenefeed.transforms.sources.table import TableSource

SOURCE = TableSource()


def iceberg_records(number: int, side: int = 75) -> list[dict[str, Any]]:
    """Records in the schema of the Statoil/C-CORE iceberg challenge."""
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"{i:08x}",
            "band_1": rng.normal(-20, 5, side * side).round(6).tolist(),
            "band_2": rng.normal(-26, 3, side * side).round(6).tolist(),
            "inc_angle": "na" if i % 4 == 3 else 30 + i / 8,
            "is_iceberg": i % 2,
        }
        for i in range(number)
    ]


def write_icebergs(path: Path, number: int, side: int = 75) -> list[dict[str, Any]]:
    """Writes such a file, and returns what is in it."""
    records = iceberg_records(number, side)
    path.write_text(json.dumps(records))
    return records


def _claims(path: Path) -> bool:
    return SOURCE.claims(path, path.read_bytes()[:512])


def _find(path: Path, **scenes: Any) -> list[SceneFiles]:
    return SOURCE.find(path, Scenes(**scenes))


def _read(scene: SceneFiles) -> np.ndarray:
    with SOURCE.open(scene.assets[0]) as dataset:
        return dataset.read()


@pytest.mark.parametrize("layout", ["array", "indented", "lines", "bom"])
def test_each_record_is_a_scene(tmp_path: Path, layout: str) -> None:
    records = iceberg_records(6, side=10)
    records[2]["place"] = "Bjørnøya {[\"'"  # characters are not bytes
    text = {
        "array": json.dumps(records),
        "indented": json.dumps(records, indent=1, ensure_ascii=False),
        "lines": "\n".join(json.dumps(r, ensure_ascii=False) for r in records),
        "bom": "\ufeff" + json.dumps(records, ensure_ascii=False),
    }[layout]
    path = tmp_path / "train.tif"
    path.write_text(text, encoding="utf-8")
    assert _claims(path)
    scenes = _find(path)
    assert [s.id for s in scenes] == [r["id"] for r in records]
    assert not any(s.problem or s.bands for s in scenes)
    for scene, record in zip(scenes, records, strict=True):
        (asset,) = scene.assets
        start, end = map(int, asset.part.split(":"))
        assert json.loads(path.read_bytes()[start:end].decode()) == record
        expected = np.array([record["band_1"], record["band_2"]], np.float32).reshape(2, 10, 10)
        np.testing.assert_array_equal(_read(scene), expected)
    assert scenes[2].properties == {
        "inc_angle": 30.25,
        "is_iceberg": 0,
        "place": records[2]["place"],
    }
    assert scenes[3].properties == {"inc_angle": None, "is_iceberg": 1}


def test_the_challenge_schema(tmp_path: Path) -> None:
    (record,) = write_icebergs(tmp_path / "train.json", 1)
    (scene,) = _find(tmp_path / "train.json")
    with SOURCE.open(scene.assets[0]) as dataset:
        assert (dataset.shape, dataset.count, dataset.crs) == ((75, 75), 2, None)
        assert dataset.descriptions == ("band_1", "band_2")
        assert dataset.dtypes == ("float32", "float32")
        assert dataset.read(2)[1, 3] == np.float32(record["band_2"][78])
        assert rasterio.shutil.exists(dataset.name)
    assert not rasterio.shutil.exists(dataset.name)  # its memory is free again


def test_rows_names_and_nan(tmp_path: Path) -> None:
    pixels = np.arange(42.0).reshape(6, 7)
    pixels[2, 3] = np.nan
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"key": 5, "id": "x", "VV": pixels.tolist(), "when": ""}]))
    assert _claims(path)
    (scene,) = _find(path, columns={"id": "key"})
    assert (scene.id, scene.properties) == ("5", {"id": "x", "when": None})
    np.testing.assert_array_equal(_read(scene)[0], pixels)
    path.write_text(json.dumps([{"VV": pixels.tolist()}] * 2))
    assert [s.id for s in _find(path)] == ["a_0", "a_1"]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [], "bbox": [0] * 36},
        {"type": "Polygon", "coordinates": [[float(i)] * 6 for i in range(6)]},
        {"id": "a", "path": "a.tif", "bbox": [0, 0, 1, 1], "transform": [1.0] * 9},
        {"id": "a", "footprint": [[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]},
        [[1.0] * 36] * 36,
        [],
        ["a.tif"],
    ],
)
def test_other_json_is_left_alone(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert not _claims(path)
    path.write_bytes(b"II*\x00" + bytes(600))
    assert not _claims(path)


def test_a_damaged_value_costs_one_record(tmp_path: Path) -> None:
    records = iceberg_records(7, side=6)
    records[0]["band_2"].pop()
    records[2]["band_1"][3] = "x"
    records[3]["band_1"] = [[1.0] * 6] * 5 + [[1.0] * 5]
    del records[4]["band_2"]
    records[5]["band_1"] = [[1.0] * 7] * 6
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records))
    scenes = _find(path)
    assert [s.id for s in scenes] == [r["id"] for r in records]
    words = [
        "35 values",
        "",
        "not str",
        "rows of 5 and of 6",
        "band_2 is missing",
        "(6, 6), (6, 7)",
    ]
    for scene, word in zip(scenes, [*words, ""], strict=True):
        assert word in scene.problem
        assert bool(word) == bool(scene.problem)
    assert not _find(path, bands=("band_1",))[0].problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (', "is_iceberg": 1}', ', "is_iceberg": 1'),  # the border itself
        ('"band_2": [', '"band_2": [,'),
        ('], "inc_angle"', ', "inc_angle"'),
        ('"band_1": [', '"band_1: ['),
        ('"band_1"', '"band\n"'),
    ],
)
@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("window", [16 << 20, 1500])
def test_damaged_json_costs_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, lines: bool, window: int
) -> None:
    monkeypatch.setattr(table, "MAX_RECORD", window)  # so that windows end within records
    texts = [json.dumps(r) for r in iceberg_records(5, side=6)]
    assert old in texts[1]
    texts[1] = texts[1].replace(old, new)
    path = tmp_path / "a.json"
    path.write_text("\n".join(texts) if lines else f"[{', '.join(texts)}]")
    scenes = _find(path)
    assert [bool(s.problem) for s in scenes] == [False, True, False, False, False]
    assert [s.id for s in scenes] == [f"{i:08x}" for i in range(5)]
    assert "is damaged at byte" in scenes[1].problem


def test_a_file_that_ends_too_soon(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_icebergs(path, 4, side=6)
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    scenes = _find(path)
    assert [s.id for s in scenes] == [f"{i:08x}" for i in range(4)]
    assert [bool(s.problem) for s in scenes] == [False, False, False, True]
    path.write_bytes(whole[: whole.index(b', {"id": "00000003"')])
    scenes = _find(path)
    assert "closing bracket" in scenes[-1].problem
    assert [bool(s.problem) for s in scenes] == [False, False, False, True]
    path.write_bytes(whole[:20])
    assert not _claims(path)


def test_a_record_counts_its_own_bytes(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    write_icebergs(path, 5, side=10)
    sizes = [SOURCE.size(scene.assets[0]) for scene in _find(path)]
    assert sum(sizes) == path.stat().st_size - len("[]") - 4 * len(", ")

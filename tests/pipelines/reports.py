"""Datasets for reports, written without converting anything, and pages as tests read them."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from scenefeed.loader import DatasetSpec
from scenefeed.loader.codec import RecordEncoder
from scenefeed.loader.spec import FILE_NAME, Feature, Shard, Split
from tests.loader.datasets import frame

UTM = 'PROJCS["WGS 84 / UTM zone 33N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1],AUTHORITY["EPSG","32633"]]'  # fmt: skip
SCRIPT = "<script>alert(1)</script>"
HOSTILE = (SCRIPT, '"><img src=x onerror=alert(2)>', "it's | a & $b_1$ {{ 7*7 }}", "_<b>under</b>")


def keys(**more: Feature) -> dict[str, Feature]:
    """Features of records, in the order that they are written in."""
    found = {
        "col": Feature((), "int64", "int", "scalar"), "row": Feature((), "int64", "int", "scalar"),
        "scene_id": Feature((), "string", "text", "scalar"), **more,
    }  # fmt: skip
    return dict(sorted(found.items()))


def write(
    folder: Path, features: dict[str, Feature], splits: dict[str, list[dict[str, Any]]],
    scenes: list[dict[str, Any]] = (), *, name: str = "made", labels: tuple[str, ...] = (),
    config: dict[str, Any] | None = None, errors: list[dict[str, Any]] = (),
) -> Path:  # fmt: skip
    """A dataset of records given split by split, arrays as they are."""
    encode = RecordEncoder(features)
    (folder / "records").mkdir(parents=True)
    made = {}
    for i, (split, records) in enumerate(splits.items()):
        frames = [
            frame(encode({
                k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in record.items()
            }))
            for record in records
        ]  # fmt: skip
        data, path = b"".join(frames), f"records/{i}-00000-of-00001.tfrecord"
        (folder / path).write_bytes(data)
        shard = Shard(path, len(frames), len(data), hashlib.sha256(data).hexdigest())
        made[split] = Split.of([shard] if frames else [])
    config = {
        "labels": {label: {} for label in labels},
        "records": {"compression": "none"},
        **(config or {}),
    }
    spec = DatasetSpec(name, features, made, config, "inputs", "a test")
    (folder / FILE_NAME).write_text(spec.to_json())
    (folder / "scenes.jsonl").write_text("".join(json.dumps(s) + "\n" for s in scenes))
    (folder / "errors.jsonl").write_text("".join(json.dumps(e) + "\n" for e in errors))
    return folder


def scene(name: str, patches: dict[str, int], x: float = 5e5, y: float = 5e6, **more: Any) -> Any:
    """A line of scenes.jsonl, 64 x 64 pixels of 10 m in UTM 33."""
    return {
        "id": name, "source": [f"{name}.tif"], "height": 64, "width": 64, "crs": UTM,
        "transform": [10, 0, x, 0, -10, y], "gcps": [], "assumed": [], "dtype": "uint8",
        "file_bytes": 4096, "patches": patches, **more,
    }  # fmt: skip


def hostile(folder: Path) -> Path:
    """A dataset in which every name is markup."""
    rng = np.random.default_rng(0)
    split = HOSTILE[3]
    features = keys(
        image=Feature((16, 16, 2), "uint8", "image", "tensor", bands=(SCRIPT, HOSTILE[2])),
        mask=Feature((16, 16), "uint8", "mask", "tensor", names=HOSTILE[:3], ignore=(255,)),
    )
    records = {
        s: [
            {"image": rng.integers(1, 255, (16, 16, 2), np.uint8), "row": 16 * i, "col": 0,
             "mask": rng.integers(0, 3, (16, 16), np.uint8), "scene_id": HOSTILE[i]}
            for i in range(4)
        ]
        for s in ("train", split)
    }  # fmt: skip
    scenes = [
        scene(n, {"train": 1, split: 1}, 5e5 + 1e3 * i, assumed=[HOSTILE[1]])
        for i, n in enumerate(HOSTILE)
    ]
    letters = [
        {"scene": n, "file": f"{n}.tif", "window": None, "step": "read", "reason": f"<i>no</i> {n}"}
        for n in HOSTILE
    ]
    return write(folder, features, records, scenes, name=SCRIPT, labels=("mask",), errors=letters,
                 config={"note": HOSTILE[1]})  # fmt: skip


def figures(folder: Path, out: Path) -> dict[str, Path]:
    """What check and compare might have written of a dataset, every text of it markup."""
    check = {
        "fingerprint": DatasetSpec.load(out).fingerprint,
        "results": [
            {"name": HOSTILE[i], "value": v, "unit": "MB/s", "target": t, "side": "at least",
             "met": met, "advice": HOSTILE[0], "spread": spread, "words": HOSTILE[1]}
            for i, (v, t, met, spread) in enumerate(
                [(3.0, 27.8, False, [2.5, 3.5]), (None, None, None, None), (30.0, 27.8, True, None)]
            )
        ],
        "warnings": [HOSTILE[2]],
    }  # fmt: skip
    rows = [
        {"name": f"a{i}", "title": HOSTILE[i % 4], "ours": i > 8, "status": "run", "why": "",
         "seconds": 10.0 ** (i % 4 - 2), "spread": [0.9 * 10.0 ** (i % 4 - 2), 200.0], "write_s": 1.5,
         "bytes": 12345, "files": 7, "peak_bytes": 1 << 28, "shuffle": None if i else 0.98765,
         "lossy": i == 3, "resume": HOSTILE[1]}
        for i in range(12)
    ] + [{"title": HOSTILE[0], "ours": False, "status": "not run", "why": HOSTILE[1], "resume": ""}]  # fmt: skip
    compare = {
        "kind": "scenefeed compare", "dataset": HOSTILE[0], "split": HOSTILE[3], "patches": 5,
        "fingerprint": DatasetSpec.load(out).fingerprint, "of": 9, "batch_size": 1024, "batches": 5,
        "rows": rows, "warnings": [HOSTILE[2]],
    }  # fmt: skip
    paths = {"check": folder / "check.json", "compare": folder / "compare.json"}
    for (_, path), found in zip(paths.items(), (check, compare), strict=True):
        path.write_text(json.dumps(found))
    return paths


def crowd(folder: Path, count: int) -> Path:
    """``count`` scenes of one patch each, spread over Europe."""
    rng = np.random.default_rng(0)
    features = keys(image=Feature((4, 4, 1), "uint8", "image", "tensor", bands=("grey",)))
    splits = {s: [] for s in ("train", "val")}
    scenes = []
    for i in range(count):
        split, name = ("train", "val")[i % 5 == 0], f"scene-{i:05d}"
        image = rng.integers(1, 255, (4, 4, 1), np.uint8)
        splits[split].append({"image": image, "row": 0, "col": 0, "scene_id": name})
        x, y = rng.uniform(1e5, 9e5), rng.uniform(4e6, 7e6)
        scenes.append(
            scene(name, {"train": int(split == "train"), "val": int(split == "val")}, x, y)
        )
    return write(folder, features, splits, scenes)


class Page(HTMLParser):
    """A page, read by the standard library."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.tags, self.headings, self.images = "", [], [], []
        self.tables: dict[str, list[list[str]]] = {}
        self.figures: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(given)
        if tag == "figure":
            self.figures.append(given["id"])
        if tag == "tr":
            self.tables.setdefault(self._where(), []).append([])
        if tag in ("td", "th"):
            self.tables[self._where()][-1].append("")
        if tag not in ("img", "meta", "input", "link", "br"):
            self._open.append((tag, given.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if any(tag in ("td", "th") for tag, _ in self._open):
            self.tables[self._where()][-1][-1] += data

    def _where(self) -> str:
        return next(i for _, i in reversed(self._open) if i)


def drawing(image: dict[str, str]) -> ElementTree.Element:
    """The SVG of an image of a page."""
    kind, data = image["src"].split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(data))


def value(text: str) -> float:
    return float(text.replace(",", ""))

"""Reports of real scenes, against numpy on the source files."""

import re

import numpy as np
import pytest
import rasterio

from scenefeed.loader import Reader
from scenefeed.pipelines.report import write_report
from tests.conftest import ROOT, scenefeed
from tests.pipelines.reports import Page, value

pytestmark = pytest.mark.slow


def converted(data, folder, page, **places):
    """A story's dataset, from where its files are."""
    text = re.findall(r"```yaml\n(.*?)```", (ROOT / f"docs/stories/{page}.md").read_text(), re.S)[0]
    for name, place in places.items():
        text = re.sub(rf'(["\[ ]){name}', rf"\g<1>{data}/{place}/{name}", text)
    (folder / "page.yaml").write_text(text)
    scenefeed("convert", "--config", folder / "page.yaml", "--output", folder / "out")
    found = write_report(folder / "out", folder / "page.html")
    assert found["bytes"] < 2 << 20
    return folder / "out", found["facts"], Page((folder / "page.html").read_text())


def test_floods(data, tmp_path):
    out, facts, page = converted(data, tmp_path, "segmentation", S1Hand="flood", LabelHand="flood")
    reader, pixels, masks = Reader(out, "train"), [], []
    for one in reader:
        area = (slice(one["row"], one["row"] + 32), slice(one["col"], one["col"] + 32))
        path = str(data / "flood/{0}/{1}_{0}.tif")
        with rasterio.open(path.format("S1Hand", one["scene_id"])) as source:
            pixels.append(np.clip(source.read()[:, *area], -30, 5).astype(float))
        with rasterio.open(path.format("LabelHand", one["scene_id"])) as source:
            masks.append(source.read(1)[area])
    for i, band in enumerate(("VV", "VH")):
        values = np.stack(pixels)[:, i]
        row = facts["bands"][band]["train"]
        assert row["count"] == np.isfinite(values).sum()
        assert np.isclose(row["mean"], np.nanmean(values), rtol=1e-6)
        edges = row["histogram"]["edges"]
        counts = np.histogram(values[np.isfinite(values)], edges)[0]
        assert [value(r[2]) for r in page.tables[f"values-band-{i}"][1:]] == counts.tolist()
    table = {r[0]: value(r[1]) for r in page.tables["classes-0"][1:]}
    counted = {"dry": 0, "water": 1, "ignored": -1}
    assert table == {k: (np.stack(masks) == v).sum() for k, v in counted.items()}
    centres = {r[0]: [value(r[1]), value(r[2])] for r in page.tables["map"][1:]}
    for name, centre in centres.items():
        with rasterio.open(data / f"flood/S1Hand/{name}_S1Hand.tif") as source:
            left, bottom, right, top = source.bounds
        assert np.allclose(centre, [(left + right) / 2, (bottom + top) / 2], atol=1e-4)
    assert len(centres) == 7


def test_landsat(data, tmp_path):
    _, facts, page = converted(
        data, tmp_path, "classification", landsat_multiband="landsat7", landsat96="landsat7"
    )
    assert "label field: class sediment is absent from train (all records)" in facts["warnings"]
    assert sum(f.startswith("values-band") for f in page.figures) == 6
    assert sum(f.startswith("classes") for f in page.figures) == 3


def test_pets_have_no_map(data, tmp_path):
    _, facts, page = converted(data, tmp_path, "images", images="pets", masks="pets")
    assert "map" not in page.figures
    assert "no scene has a coordinate reference system" in page.text
    assert facts["labels"]["breed"]["splits"]["val"]["of"] == "all records"

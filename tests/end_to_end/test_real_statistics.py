"""Statistics of real scenes against NumPy over the source's pixels, read by rasterio."""

import json

import numpy as np
import pytest
import rasterio

from scenefeed.loader import Reader
from tests.conftest import scenefeed
from tests.end_to_end.test_real_scenes import YAML

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("power", [False, True])
def test_the_flood_training_split(data, tmp_path, power):
    """In decibels as they come, and in linear power, which spans many decades."""
    text = YAML.format(data=data) + "statistics: {normalize: zscore}\n"
    if power:
        text += "clean: {features: {p: '10 ** (VV / 10)'}}\n"
    (tmp_path / "floods.yaml").write_text(text)
    out = tmp_path / "out"
    scenefeed("convert", "--config", tmp_path / "floods.yaml", "--output", out)
    found = json.loads((out / "statistics.json").read_text())
    values, keys = {"VV": [], "VH": []}, Reader(out, "train").columns(("scene_id", "row", "col"))
    water = []
    for name, row, col in zip(keys["scene_id"], keys["row"], keys["col"], strict=True):
        window = rasterio.windows.Window(int(col), int(row), 64, 64)
        with rasterio.open(data / f"flood/S1Hand/{name}_S1Hand.tif") as file:
            vv, vh = file.read(window=window).astype(np.float64)
        with rasterio.open(data / f"flood/LabelHand/{name}_LabelHand.tif") as file:
            water.append(file.read(1, window=window))
        values["VV"].append(vv[np.isfinite(vv)])
        values["VH"].append(vh[np.isfinite(vh)])
    if power:
        values["p"] = [np.power(10, v / 10) for v in values["VV"]]
    assert found["patches"] == len(water) > 100
    for name, parts in values.items():
        whole, band = np.concatenate(parts), found["bands"][name]
        assert band["count"] == whole.size
        assert band["invalid"] == 1 - whole.size / (len(water) * 64 * 64)
        assert band["mean"] == pytest.approx(whole.mean(), rel=1e-6)
        assert band["variance"] == pytest.approx(whole.var(), rel=1e-6)
        assert [band["min"], band["max"]] == pytest.approx([whole.min(), whole.max()], rel=1e-6)
        expected = np.quantile(whole, [float(q) for q in band["quantiles"]])
        np.testing.assert_allclose(list(band["quantiles"].values()), expected, rtol=1 / 128)
    mask = np.stack(water)
    label = found["labels"]["water"]
    assert label["counts"] == {str(c): int((mask == c).sum()) for c in np.unique(mask) if c >= 0}
    assert label["ignored"] == int((mask == -1).sum())

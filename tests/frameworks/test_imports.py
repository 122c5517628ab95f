"""What each feed brings with it."""

import importlib.util
import subprocess
import sys

import pytest

HEAVY = "{'tensorflow', 'torch', 'jax', 'apache_beam', 'rasterio', 'h5py', 'pydantic', 'fsspec'}"


@pytest.mark.parametrize(
    ("module", "brings"),
    [
        ("scenefeed.loader", []),
        ("scenefeed.loader.torch", ["torch"]),
        ("scenefeed.loader.jax", ["jax"]),
    ],
)
def test_a_feed_brings_its_framework_alone(small_dataset, module, brings):
    if any(importlib.util.find_spec(b) is None for b in brings):
        pytest.skip(f"{brings} is not in this environment: make test-frameworks")
    code = (
        f"import sys; from {module} import Feed;"
        f"next(iter(Feed({str(small_dataset / 'out')!r}, batch_size=4)));"
        f"print(sorted(({HEAVY} - {{'fsspec'}}) & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert out.stdout.strip() == str(brings), out.stderr

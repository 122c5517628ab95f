"""How far apart splits lie, against brute force."""

import numpy as np
import pytest
from rasterio.warp import transform

from scenefeed.pipelines.separation import box_gap, gaps, pixel_metres
from scenefeed.transforms.georeference import Georeference

RNG = np.random.default_rng(0)
WGS84, UTM = (f"EPSG:{code}" for code in (4326, 32633))


def brute(one, other, size, side=(1, 1)):
    """Every pair of squares, corner by corner."""
    apart = np.maximum(np.abs(one[:, None] - other[None]) - size, 0) * side
    return np.hypot(apart[..., 0], apart[..., 1]).min()


@pytest.mark.parametrize("spread", [30, 300, 3000])
@pytest.mark.parametrize("shift", [0, 40, 500])
def test_the_least_distance_of_squares(spread, shift):
    for _ in range(20):
        one = RNG.integers(0, spread, (30, 2)).astype(float)
        other = RNG.integers(0, spread, (20, 2)).astype(float)
        other[:, 0] += shift
        pixels, metres = box_gap(one, other, 16, (10, 10))
        assert pixels == pytest.approx(brute(one, other, 16))
        assert metres == pytest.approx(10 * pixels)


def grid(crs, transform_):
    from rasterio.crs import CRS

    return Georeference(1000, 1000, CRS.from_user_input(crs).to_wkt(), transform_)


def test_a_pixels_side_on_the_ground():
    down, right = pixel_metres(grid(UTM, (10, 0, 5e5, 0, -10, 5e6)))
    assert (down, right) == (pytest.approx(10, rel=1e-3), pytest.approx(10, rel=1e-3))
    down, right = pixel_metres(grid(WGS84, (1e-3, 0, 15, 0, -1e-3, 60.5)))
    # A degree at 60 north is 111,412 m by 55,800 m.
    assert (down, right) == (pytest.approx(111.4, rel=1e-3), pytest.approx(55.8, rel=1e-3))


def test_splits_of_several_scenes():
    corners = (np.array([0, 64]), np.array([0, 0]))
    far = (np.array([640]), np.array([0]))
    grids = {"a": grid(UTM, (10, 0, 5e5, 0, -10, 5e6)), "c": grid(UTM, (10, 0, 9e5, 0, -10, 5e6))}
    # b is a, in another projection: the same ground.
    lon, lat = transform(UTM, WGS84, [5e5], [5e6])
    grids["b"] = grid(WGS84, (1.27e-4, 0, lon[0], 0, -9e-5, lat[0]))
    keys = {
        "train": {"a": corners, "b": far},
        "val": {"c": corners},
        "test": {"a": far, "b": corners},
    }
    found = gaps(keys, 64, grids)
    assert found["train", "val"].pixels is None
    assert found["train", "val"].overlapping == 0
    near = found["train", "test"]
    assert (near.pixels, near.scene) == (512, "a")
    assert near.metres == pytest.approx(5120, rel=2e-3)
    assert near.overlapping >= 2


@pytest.mark.parametrize("west", [5e5, 7.5e5])
def test_neighbours_of_a_mosaic_touch_and_do_not_overlap(west):
    """Edge to edge in a projection whose scale changes from one side of a scene to the other."""
    grids = {
        "a": grid(UTM, (10, 0, west, 0, -10, 5e6)),
        "b": grid(UTM, (10, 0, west + 10000, 0, -10, 5e6)),
        "c": grid(UTM, (10, 0, west + 9900, 0, -10, 5e6)),
    }
    rows = np.arange(0, 1000, 50)
    last, first = (rows, np.full(20, 950)), (rows, np.zeros(20, int))
    assert (
        gaps({"train": {"a": last}, "val": {"b": first}}, 50, grids)["train", "val"].overlapping
        == 0
    )
    assert (
        gaps({"train": {"a": last}, "val": {"c": first}}, 50, grids)["train", "val"].overlapping
        >= 20
    )

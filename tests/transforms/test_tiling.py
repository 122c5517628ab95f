"""The patch grid, its windows and the cutting, against plain slicing."""

import numpy as np
import pytest

from scenefeed.transforms.tiling import Grid, cut, offsets


@pytest.mark.parametrize(
    ("length", "size", "stride", "edge", "expected"),
    [
        (10, 4, 4, "drop", [0, 4]),
        (10, 4, 4, "pad", [0, 4, 8]),
        (10, 4, 4, "shift", [0, 4, 6]),
        (8, 4, 4, "pad", [0, 4]),
        (8, 4, 4, "shift", [0, 4]),
        (10, 4, 2, "drop", [0, 2, 4, 6]),
        (11, 4, 2, "pad", [0, 2, 4, 6, 8]),
        (11, 4, 2, "shift", [0, 2, 4, 6, 7]),
        (10, 4, 6, "drop", [0, 6]),
        (11, 4, 6, "pad", [0, 6]),  # a third would begin past the end
        (3, 4, 4, "drop", []),
        (3, 4, 4, "shift", []),
        (3, 4, 4, "pad", [0]),
        (4, 4, 4, "drop", [0]),
    ],
)
def test_offsets(length, size, stride, edge, expected):
    assert offsets(length, size, stride, edge).tolist() == expected


@pytest.mark.parametrize("edge", ["drop", "pad", "shift"])
@pytest.mark.parametrize(("size", "stride"), [(16, 16), (16, 8), (16, 20), (7, 5)])
@pytest.mark.parametrize("block", [(1, 200), (32, 32), (512, 512)])
@pytest.mark.parametrize("budget", [1, 20_000, 10**9])
def test_windows_hold_every_patch_once_with_its_pixels(edge, size, stride, block, budget):
    height, width, bands = 75, 200, 2
    scene = np.arange(bands * height * width, dtype=np.float32).reshape(bands, height, width)
    padded = np.full((bands, height + 64, width + 64), -1, np.float32)
    padded[:, :height, :width] = scene
    grid = Grid(height, width, size, stride, edge)
    seen = []
    for window in grid.windows(8, block, budget):
        area = (window.height, window.width)
        assert np.prod(area) * 8 <= max(budget, 8 * size * size)
        pixels = padded[:, window.row :, window.col :][:, : area[0], : area[1]]
        out = np.empty((window.count, size, size, bands), np.float32)
        cut(np.ascontiguousarray(pixels), window, size, out)
        for patch, r, c in zip(out, *window.corners(), strict=True):
            expected = padded[:, r : r + size, c : c + size].transpose(1, 2, 0)
            assert np.array_equal(patch, expected)
            seen.append((r, c))
    assert sorted(seen) == [(r, c) for r in grid.rows for c in grid.cols]
    assert len(seen) == grid.count


def test_an_uneven_grid_whose_span_is_a_multiple_of_the_tile():
    # Offsets 0, 96, 128 span 192 = 3 x 64, as three patches edge to edge would.
    scene = np.arange(192 * 192, dtype=np.float32).reshape(1, 192, 192)
    grid = Grid(192, 192, 64, 96, "shift")
    for window in grid.windows(4, (512, 512), 10**9):
        out = np.empty((window.count, 64, 64, 1), np.float32)
        cut(scene[:, : window.height, : window.width], window, 64, out)
        for patch, r, c in zip(out, *window.corners(), strict=True):
            assert np.array_equal(patch[..., 0], scene[0, r : r + 64, c : c + 64])


def test_overlapping_patches_stay_within_the_budget():
    grid = Grid(4096, 4096, 64, 8, "drop")
    most = max(w.count * 64 * 64 * 8 for w in grid.windows(8, (512, 512), 16 << 20))
    assert most <= 16 << 20


def test_cut_converts_to_the_datasets_dtype():
    grid = Grid(8, 8, 4, 4, "drop")
    (window,) = grid.windows(1, (8, 8), 10**6)
    out = np.empty((4, 4, 4, 1), np.int16)
    cut(np.full((1, 8, 8), 200, np.uint8), window, 4, out)
    assert (out == 200).all()

"""Scan and reassembly of images by overlapping windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.latent.patches import WEIGHTS, Patches


@st.composite
def layouts(draw):
    size = draw(st.integers(1, 9))
    ny, nx = (draw(st.integers(size, 25)) for _ in range(2))
    return Patches(ny, nx, size, draw(st.integers(1, size)), draw(st.sampled_from(WEIGHTS)))


@given(layouts(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_what_is_cut_comes_back(patches, seed):
    image = np.random.default_rng(seed).standard_normal((2, patches.ny, patches.nx))
    windows = patches.extract(image)
    np.testing.assert_allclose(patches.assemble(windows), image, atol=1e-12)
    np.testing.assert_allclose(patches.disagreement(windows), 0, atol=1e-7)


def test_odd_sizes_in_single_precision_without_seams():
    patches = Patches(131, 97, 64, 16)
    assert len(patches) == 6 * 4
    image = np.random.default_rng(0).standard_normal((131, 97)).astype(np.float32)
    back = patches.assemble(patches.extract(image))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, image, atol=1e-6)
    motion = np.ones((len(patches), 2, 64, 64), np.float32) * np.float32(3.7)
    np.testing.assert_allclose(patches.assemble(motion), 3.7, atol=1e-6)


def test_mean_and_spread_are_those_of_all_windows_at_a_cell():
    patches = Patches(11, 8, 5, 2)
    rng = np.random.default_rng(3)
    windows = rng.standard_normal((len(patches), 5, 5))
    values = np.full((len(patches), 11, 8), np.nan)
    weights = np.zeros_like(values)
    for k, (r, c) in enumerate(patches.corners):
        values[k, r : r + 5, c : c + 5] = windows[k]
        weights[k, r : r + 5, c : c + 5] = patches.window
    mean = np.nansum(weights * values, 0) / weights.sum(0)
    spread = np.sqrt(np.nansum(weights * (values - mean) ** 2, 0) / weights.sum(0))
    np.testing.assert_allclose(patches.assemble(windows), mean, atol=1e-12)
    np.testing.assert_allclose(patches.disagreement(windows), spread, atol=1e-12)


def test_mapping_window_by_window_equals_all_at_once():
    patches = Patches(20, 23, 8, 3)
    image = np.random.default_rng(1).standard_normal((1, 20, 23))

    def centred(stack, other):
        return stack - stack.mean(axis=(-1, -2), keepdims=True) + other[:, None]

    mean, spread = patches.apply(centred, image, image[0], batch=5)
    windows = centred(patches.extract(image), patches.extract(image[0]))
    np.testing.assert_allclose(mean, patches.assemble(windows), atol=1e-12)
    np.testing.assert_allclose(spread, patches.disagreement(windows), atol=1e-12)
    assert spread.max() > 0


def test_layouts_that_leave_cells_out_are_refused():
    with pytest.raises(ParameterError, match="no cell is left out"):
        Patches(20, 20, 8, 9)
    with pytest.raises(ParameterError, match="shorter side"):
        Patches(20, 7, 8, 2)
    with pytest.raises(UnknownNameError, match="hann"):
        Patches(20, 20, 8, 2, "hanning")
    with pytest.raises(ParameterError, match="20 x 20"):
        Patches(20, 20, 8, 2).extract(np.zeros((20, 21)))
    with pytest.raises(ParameterError, match="expected"):
        Patches(20, 20, 8, 2).assemble(np.zeros((3, 8, 8)))

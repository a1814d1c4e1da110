"""Likelihood from windows against that of the whole grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.options import set_options
from xr_spde.errors import MemoryGuardError, ParameterError
from xr_spde.fields.exact import ExactLikelihood
from xr_spde.fields.exact_windows import WindowedLikelihood, width_of_tiles
from xr_spde.fields.sar import from_tensor, tensor

# what both axes of a torus are cut into, one of them, and none
GRIDS = [
    ("plane", (64, 70)),
    ("cylinder", (60, 80)),
    ("torus", (84, 80)),
    ("torus", (20, 100)),
    ("torus", (100, 20)),
    ("plane", (20, 24)),
]


def maps(shape, low=0.4):
    y, x = (2.0 * np.pi * np.arange(size) / size for size in shape)
    one = 0.5 + 0.5 * np.sin(y[:, None]) * np.cos(2 * x)
    two = 0.5 + 0.5 * np.cos(y[:, None] + 1.0) * np.sin(x)
    q = np.stack([low * 3.0**one, *tensor(1.0 + 2.0 * two, np.pi * one - two)])
    return q, 0.8 * one - 0.3 * two


def observed(shape, gaps, seed=0):
    rng = np.random.default_rng(seed)
    fields = rng.standard_normal((3, *shape))
    if gaps:
        # land of more than a window, and a replicate seen in part
        fields[:, 5:18, 3 : shape[1] // 2] = np.nan
        fields[2, rng.random(shape) < 0.2] = np.nan
        fields[2, :, shape[1] // 2 :] = np.nan
    return fields


@pytest.mark.parametrize(("boundary", "shape"), GRIDS)
@pytest.mark.parametrize(("gaps", "noise"), [(False, 0.0), (True, 0.0), (True, 0.3)])
def test_value_and_slope_are_those_of_the_whole_grid(boundary, shape, gaps, noise):
    fields, (q, log_d) = observed(shape, gaps), maps(shape)
    domain = {"boundary": boundary, "rim": 4, "lost": 1}
    whole = ExactLikelihood(fields, **domain)
    cut = WindowedLikelihood(fields, **domain, overlap=20, tile=18)
    expected, found = (one.value_and_slope(q, log_d, noise) for one in (whole, cut))
    assert found[0] == pytest.approx(expected[0], abs=1e-3)
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(b).max(), 1.0))
    assert abs(found[0] - expected[0]) <= cut.error(q, log_d, noise) + 1e-9 * abs(expected[0])


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus"])
def test_squares_of_innovations_come_out_without_error(boundary):
    """With short overlaps as well: only determinants forget anything."""
    shape = (70, 66)
    (q, log_d), fields = maps(shape, low=0.01), observed(shape, gaps=False)
    ends = []
    for made in (
        ExactLikelihood(fields, boundary),
        WindowedLikelihood(fields, boundary, overlap=3, tile=12),
        ExactLikelihood(2.0 * fields, boundary),
        WindowedLikelihood(2.0 * fields, boundary, overlap=3, tile=12),
    ):
        ends.append(made.value(q, log_d))
    assert ends[3] - ends[1] == pytest.approx(ends[2] - ends[0], rel=1e-10)
    assert ends[0] != pytest.approx(ends[1], abs=1e-3)


@settings(max_examples=5, deadline=None)
@given(
    st.integers(26, 45),
    st.integers(26, 45),
    st.sampled_from(["plane", "cylinder", "torus"]),
    st.integers(0, 3),
    st.integers(4, 9),
    st.integers(8, 14),
    st.booleans(),
)
def test_the_slope_is_that_of_the_value(ny, nx, boundary, rim, overlap, tile, noisy):
    """However rough the windows."""
    shape, noise = (ny, nx), 0.3 if noisy else 0.0
    (q, log_d), fields = maps(shape, low=0.2), observed(shape, gaps=True)
    cut = WindowedLikelihood(fields, boundary, rim=rim, overlap=overlap, tile=tile)
    value, by_q, by_log_d, by_noise = cut.value_and_slope(q, log_d, noise)
    assert cut.value(q, log_d, noise) == pytest.approx(value, rel=1e-12)
    rng = np.random.default_rng(0)
    step_q, step_d, h = rng.standard_normal(q.shape), rng.standard_normal(shape), 1e-5
    ends = [cut.value(q + s * step_q, log_d + s * step_d, noise * np.exp(0.3 * s)) for s in (-h, h)]
    slope = np.vdot(by_q, step_q) + np.vdot(by_log_d, step_d) + 0.3 * by_noise
    assert slope == pytest.approx((ends[1] - ends[0]) / (2.0 * h), rel=1e-5, abs=1e-3)


def test_the_error_is_within_its_bound_for_ranges_beyond_the_overlap():
    shape = (80, 90)
    (q, log_d), fields = maps(shape, low=0.002), observed(shape, gaps=True)
    whole = ExactLikelihood(fields, "cylinder", rim=5).value(q, log_d)
    for overlap in (8, 16):
        cut = WindowedLikelihood(fields, "cylinder", rim=5, overlap=overlap, tile=16)
        assert abs(cut.value(q, log_d) - whole) < cut.error(q, log_d)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_normal_equations_add_up(noise):
    shape = (64, 70)
    (q, log_d), fields = maps(shape), observed(shape, gaps=True)
    design = np.stack([np.ones(shape), np.linspace(-1, 1, shape[1]) + np.zeros(shape)])
    whole = ExactLikelihood(fields, "plane", rim=3)
    cut = WindowedLikelihood(fields, "plane", rim=3, overlap=20, tile=18)
    expected, found = (one.normal_equations(q, log_d, design, noise) for one in (whole, cut))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(b).max())


def test_windows_take_what_memory_there_is():
    for limit, width in ((3_000_000_000, 256), (2_200_000_000, 200), (1_200_000_000, 100)):
        with set_options(memory_limit=limit):
            assert width_of_tiles(100, 5) == width
    assert width_of_tiles(8, 5) == 64
    with (
        set_options(memory_limit=10_000_000),
        pytest.raises(MemoryGuardError, match=r"windows of 200 cells across.*Coarsen"),
    ):
        width_of_tiles(100, 5)


def test_what_a_likelihood_refuses():
    for fields, boundary in ((np.full((2, 9, 9), np.nan), "plane"), (np.ones((2, 9, 9)), "paper")):
        with pytest.raises(ParameterError):
            WindowedLikelihood(fields, boundary, overlap=3, tile=9)


def test_ratio_and_direction_of_a_tensor():
    rho, theta = np.array([1.0, 1.5, 15.0]), np.array([0.0, -1.2, 0.7])
    found = from_tensor(*tensor(rho, theta))
    np.testing.assert_allclose(found, (rho, theta), rtol=1e-12, atol=1e-12)

"""Points along tracks become means of cells and steps."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xr_spde.assim.neural_cells import cells_from_points
from xr_spde.labels.grid import Grid

READING = {"obs_error": None, "unusable": "drop", "value": None, "obs_x": None, "obs_y": None}


def series(seed=0, count=400):
    rng = np.random.default_rng(seed)
    days = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(1, "D")
    # rows from north to south: stored order is not canonical order
    lat, lon = np.arange(5.0, -1.0, -1.0), np.arange(10.0, 18.0)
    grid = Grid.from_object(xr.DataArray(np.zeros((6, 8)), {"lat": lat, "lon": lon}))
    position, y, x = rng.uniform(0, 5, count), rng.uniform(0, 5, count), rng.uniform(10, 17, count)
    when = days[0] + (position * 86400e9).astype("timedelta64[ns]")
    place = {"time": ("obs", when), "lat": ("obs", y), "lon": ("obs", x)}
    value, error = rng.standard_normal(count), rng.uniform(0.5, 2.0, count)
    obs = xr.Dataset({"z": ("obs", value), "z_error": ("obs", error)}, place)
    return obs, grid, xr.DataArray(days, {"time": days}, "time"), (position, y, x, value, error)


def test_means_and_variances_are_those_of_a_plain_loop():
    obs, grid, times, (position, y, x, value, error) = series()
    found, _ = cells_from_points(obs, grid, times, 1.0, np.zeros((6, 8), bool), READING)
    values, mask, variance, _ = found.dense(0, 6, slice(0, 6), slice(0, 8))
    sums, weights = np.zeros((6, 6, 8)), np.zeros((6, 6, 8))
    for t, j, i, v, e in zip(position, y, x, value, error, strict=True):
        place = int(np.floor(t + 0.5)), int(np.rint(j)), int(np.rint(i - 10.0))
        sums[place] += v / e**2
        weights[place] += e**-2
    np.testing.assert_array_equal(mask, weights > 0)
    np.testing.assert_allclose(values[mask], (sums[mask] / weights[mask]), rtol=1e-12)
    np.testing.assert_allclose(variance[mask], 1.0 / weights[mask], rtol=1e-12)
    assert found.full.count.sum() == len(value)


@pytest.mark.parametrize("until", [None, 3])
def test_parts_are_cut_from_the_whole(until):
    obs, grid, times, _ = series(1)
    found, _ = cells_from_points(obs, grid, times, 1.0, np.zeros((6, 8), bool), READING)
    whole = found.dense(0, 6, slice(0, 6), slice(0, 8))
    part = found.dense(2, 5, slice(1, 4), slice(3, 8), until)
    for one, all_, empty in zip(part, whole, (0.0, False, 1.0, 0.0), strict=True):
        expected = all_[2:5, 1:4, 3:8].copy()
        if until is not None:
            expected[until + 1 - 2 :] = empty
        np.testing.assert_array_equal(one, expected)


def test_points_on_land_are_left_out():
    obs, grid, times, _ = series(2)
    land = np.zeros((6, 8), bool)
    land[:, :4] = True
    found, read = cells_from_points(obs, grid, times, 1.0, land, READING)
    assert (found.full.cell % 8 >= 4).all()
    assert read.counts()["on_land"] > 0


@given(st.integers(-1, 6), st.integers(0, 4), st.integers(0, 50))
def test_nothing_after_the_last_seen_step_is_known(until, first, seed):
    """Its cells are those of the points up to it, bit for bit; earlier ones have all points."""
    obs, grid, times, (position, *_) = series(seed, 60)
    land = np.zeros((6, 8), bool)
    part = first, 6, slice(1, 5), slice(0, 8)
    found = cells_from_points(obs, grid, times, 1.0, land, READING)[0]
    causal = found.dense(*part, until, causal=True)
    assert found.full.dense(*part, until)[1].sum() >= causal[1].sum()
    if (position <= until).any():
        past = obs.isel(obs=position <= until)
        expected = cells_from_points(past, grid, times, 1.0, land, READING)[0].dense(*part)
        np.testing.assert_array_equal(causal, expected)
    else:
        assert not causal[1].any()

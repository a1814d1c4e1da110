"""Ensemble filters tend to exact conditioning of the same field, as one over the root of N."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim.filters import analyse
from xr_spde.assim.kriging import condition
from xr_spde.assim.observations import read_observations
from xr_spde.sar import emulate

SHAPE, SIZES, SEEDS = (7, 10), (40, 160, 640), range(8)


@pytest.fixture(scope="module")
def case():
    """Return ensembles by size, observations ready for use and the exact posterior."""
    rng = np.random.default_rng(0)
    lat, lon = np.linspace(-30.0, 30.0, SHAPE[0]), 4.0 * np.arange(SHAPE[1])
    maps = {
        "kappa2": np.exp(rng.normal(-1.0, 0.3, SHAPE)),
        "rho": rng.uniform(1.0, 3.0, SHAPE),
        "theta": rng.uniform(-1.5, 1.5, SHAPE),
        "mean": rng.normal(10.0, 2.0, SHAPE),
        "std": rng.uniform(1.0, 2.0, SHAPE),
    }
    params = xr.Dataset(
        {name: (("lat", "lon"), values) for name, values in maps.items()},
        {"lat": lat, "lon": lon},
    )
    at = {"lat": ("obs", rng.uniform(-30, 30, 9)), "lon": ("obs", rng.uniform(0, 36, 9))}
    truth = emulate(params, 1, seed=1).values[0]
    values = xr.DataArray(np.zeros(9), at, ("obs",))
    values += read_observations(values, params, obs_error=0.7).operator.apply(truth)
    values += 0.7 * rng.standard_normal(9)
    obs = read_observations(values, params, obs_error=0.7)
    ensembles = {
        size: [emulate(params, size, seed=1000 * size + seed).values for seed in SEEDS]
        for size in SIZES
    }
    return ensembles, obs, condition(params, obs)


def errors(case, method, size):
    """RMS errors over seeds of mean and of standard deviation, over the exact one."""
    ensembles, obs, exact = case
    std = exact["std"].values.ravel()
    found = []
    for seed, members in zip(SEEDS, ensembles[size], strict=True):
        seen, flat = obs.operator.apply(members), members.reshape(size, -1)
        moved = analyse(flat, seen, obs.values, obs.error, method=method, seed=seed)
        mean = (moved.mean(axis=0) - exact["mean"].values.ravel()) / std
        found.append([mean, moved.std(axis=0, ddof=1) / std - 1.0])
    return np.sqrt(np.mean(np.square(found), axis=(0, 2)))


@pytest.mark.parametrize("method", ["etkf", "enkf", "serial"])
def test_mean_and_spread_tend_to_the_exact_ones(case, method):
    found = np.array([errors(case, method, size) for size in SIZES])
    slopes = np.polyfit(np.log(SIZES), np.log(found), 1)[0]
    np.testing.assert_allclose(slopes, -0.5, atol=0.12)
    # the mean of N draws is off by N^-1/2, and a gain estimated from them by as much for each
    # squared innovation; what sampling makes of the spread is less
    bound = np.sqrt((1.0 + case[2].chi_square.item()) / SIZES[-1])
    assert (found[-1] < bound).all()


def test_mean_of_the_denkf_tends_to_the_exact_one_and_its_spread_does_not(case):
    found = np.array([errors(case, "denkf", size) for size in SIZES])
    slope = np.polyfit(np.log(SIZES), np.log(found[:, 0]), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.12)
    assert found[-1, 1] > 0.02

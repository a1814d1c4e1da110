"""Optimal interpolation with a Gaussian covariance, against dense conditioning."""

from __future__ import annotations

import numpy as np
import pytest

import xr_spde
from xr_spde._core.errors import MemoryGuardError, ParameterError, SolverError
from xr_spde.fields.gaussian import GaussianCovariance, interpolate

RNG = np.random.default_rng(0)
PLACES = np.column_stack([RNG.uniform(0, 20, 40), RNG.uniform(0, 5, 40), RNG.uniform(-5, 365, 40)])
NODES = np.column_stack([RNG.uniform(0, 5, 30), RNG.uniform(0, 360, 30)])
D, R = RNG.standard_normal(40), RNG.uniform(0.01, 0.1, 40)
COVARIANCE = GaussianCovariance(time=4.0, y=2.0, x=60.0, std=1.5, circle=360.0)


def kernel(a, b):
    x = np.abs(a[:, None, 2] - b[None, :, 2]) % 360
    x = np.minimum(x, 360 - x)
    squares = ((a[:, None, 0] - b[None, :, 0]) / 4) ** 2 + (
        (a[:, None, 1] - b[None, :, 1]) / 2
    ) ** 2
    return 2.25 * np.exp(-squares - (x / 60) ** 2)


@pytest.mark.parametrize("window", [1.0, 100.0])
def test_against_dense_conditioning(window):
    times = np.array([0.0, 3.0, 10.0])
    mean, std = interpolate(COVARIANCE, PLACES, D, R, times=times, nodes=NODES, window=window)
    for k, t in enumerate(times):
        near = np.abs(PLACES[:, 0] - t) <= 4.0 * window
        target = np.column_stack([np.full(30, t), NODES])
        s = kernel(PLACES[near], PLACES[near]) + np.diag(R[near])
        gain = np.linalg.solve(s, kernel(PLACES[near], target)).T
        np.testing.assert_allclose(mean[k], gain @ D[near], atol=1e-10)
        left = 2.25 - np.sum(gain * kernel(PLACES[near], target).T, axis=1)
        np.testing.assert_allclose(std[k] ** 2, left, atol=1e-10)


def test_without_observations_the_prior_remains():
    mean, std = interpolate(COVARIANCE, PLACES, D, R, times=np.array([99.0]), nodes=NODES)
    assert not mean.any()
    assert (std == 1.5).all()
    assert interpolate(COVARIANCE, PLACES, D, R, times=np.array([9.0]), nodes=NODES,
                       deviation=False)[1] is None  # fmt: skip


def test_what_is_refused():
    kw = {"times": np.array([5.0]), "nodes": NODES}
    with pytest.raises(ParameterError, match="variances positive"):
        interpolate(COVARIANCE, PLACES, D, 0.0 * R, **kw)
    with pytest.raises(ParameterError, match="finite"):
        interpolate(COVARIANCE, PLACES, D * np.nan, R, **kw)
    with pytest.raises(ParameterError, match="shapes"):
        interpolate(COVARIANCE, PLACES[:3], D, R, **kw)
    with pytest.raises(ParameterError, match="time=0"):
        GaussianCovariance(time=0.0, y=1.0, x=1.0)
    twice = np.repeat(PLACES, 2, axis=0)
    with pytest.raises(SolverError, match="nearly coincide"):
        interpolate(COVARIANCE, twice, np.repeat(D, 2), np.full(80, 1e-18), **kw)
    with xr_spde.set_options(memory_limit=1000), pytest.raises(MemoryGuardError, match="SPDE"):
        interpolate(COVARIANCE, PLACES, D, R, **kw)

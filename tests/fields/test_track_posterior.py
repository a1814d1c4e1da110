"""Errors along tracks in a space-time interpolation, against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_evidence import CorrelatedErrors
from xr_spde.fields.track_noise import TrackNoise
from xr_spde.fields.track_posterior import TrackPosterior

SHAPE, STEPS, COUNT = (6, 7), 4, 30


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    land = np.zeros(SHAPE, dtype=bool)
    land[0, :2] = True
    mesh = Mesh.of(SHAPE, dx=1.1, dy=0.9, land=land)
    parameters = SpdeParameters.of(SHAPE, kappa=0.7, tau=0.8, m1=0.1)
    prior = SpaceTime(SpdeOperator(mesh), parameters, steps=STEPS, dt=0.8, alpha=2)
    rows = np.zeros((COUNT, STEPS, *SHAPE))
    for k in range(COUNT):
        rows[k, k % STEPS, rng.integers(1, 6), rng.integers(7)] = 1.0
    rows = sp.csr_array(rows.reshape(COUNT, -1))
    noise = TrackNoise(rng.uniform(0, 9, COUNT), rng.integers(0, 4, COUNT))
    errors, variance = (
        noise.errors(rng.uniform(0.4, 0.6, COUNT), 5.0),
        rng.uniform(0.02, 0.1, COUNT),
    )
    field = np.linalg.inv(prior.precision().toarray())
    r = np.linalg.inv(errors.precision.toarray()) + np.diag(variance)
    gain = np.linalg.solve(rows @ field @ rows.T + r, rows @ field).T
    wet = np.tile(~land.ravel(), STEPS)
    return prior, rows, variance, errors, rng, gain, (field - gain @ (rows @ field)), r, wet


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_mean_and_deviation(case, solver):
    prior, rows, variance, errors, rng, gain, covariance, _, wet = case
    found = TrackPosterior(prior, rows, variance, errors, solver=solver, tol=1e-11)
    many = rng.standard_normal((2, COUNT))
    mean = found.mean(many)
    np.testing.assert_allclose(mean.reshape(2, -1)[:, wet], (many @ gain.T)[:, wet], atol=1e-8)
    np.testing.assert_allclose(found.mean(many[1]), mean[1], atol=1e-9)
    assert found.residual < 1e-9
    assert found.iterations < 60
    exact = np.sqrt(np.diagonal(covariance))[wet]
    if solver == "direct":
        np.testing.assert_allclose(found.deviation().ravel()[wet], exact, rtol=1e-8)
    else:
        got = found.deviation(draws=400, noise=np.random.default_rng(1)).ravel()[wet]
        np.testing.assert_allclose(got, exact, rtol=0.1)
        assert np.mean(got / exact) == pytest.approx(1.0, abs=0.01)
        with pytest.raises(ParameterError, match="draws"):
            found.deviation(draws=1)


def test_draws(case):
    prior, rows, variance, errors, rng, gain, covariance, r, wet = case
    found = TrackPosterior(prior, rows, variance, errors, tol=1e-8)
    innovation, members = rng.standard_normal(COUNT), 3000
    noise = rng.standard_normal((members, STEPS, prior.nodes))
    drawn = found.draw(innovation, noise, rng.multivariate_normal(np.zeros(COUNT), r, members))
    drawn = drawn.reshape(members, -1)[:, wet]
    deviation = np.sqrt(np.diagonal(covariance))[wet]
    z = (drawn.mean(axis=0) - (gain @ innovation)[wet]) / deviation * np.sqrt(members)
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, abs=0.25)
    ratio = drawn.var(axis=0) / deviation**2
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)


def test_errors_that_vanish_change_nothing(case):
    prior, rows, variance, _, rng, *_ = case
    tiny = TrackNoise(np.arange(COUNT) * 1.0, np.zeros(COUNT)).errors(1e-6, 5.0)
    innovation = rng.standard_normal(COUNT)
    plain = SpaceTimePosterior(prior, rows, variance).mean(innovation)
    found = TrackPosterior(prior, rows, variance, tiny, tol=1e-11).mean(innovation)
    np.testing.assert_allclose(found, plain, atol=1e-8)


def test_refusals(case):
    prior, rows, variance, errors, rng, *_ = case
    with pytest.raises(ParameterError, match="root"):
        TrackPosterior(prior, rows, variance, CorrelatedErrors(errors.precision, errors.logdet))
    few = TrackPosterior(prior, rows, variance, errors, solver="pcg", tol=1e-12, max_iterations=2)
    with pytest.raises(SolverError, match="along tracks"):
        few.mean(rng.standard_normal(COUNT))

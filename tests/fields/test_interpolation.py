"""Optimal interpolation in space and time against dense kriging (checks B1 to B5)."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import xr_spde
from xr_spde._core.errors import MemoryGuardError, ParameterError, SolverError, UnknownNameError
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.window_blocks import plan


def varied_prior(rng, shape, *, steps=4, alpha=2, burn_in=0, boundary="neumann"):
    """Parameters that vary in space and time, land, and spacings that vary with the row."""
    land = rng.random(shape) < 0.1
    land[0, 0] = False
    mesh = Mesh.of(shape, dx=rng.uniform(0.7, 1.3, (shape[0], 1)), dy=1.1, boundary=boundary,
                   land=land)  # fmt: skip
    full = (steps, *shape)
    parameters = SpdeParameters.of(
        shape, kappa=rng.uniform(0.5, 0.9, full), tau=rng.uniform(0.9, 1.1, full),
        m1=0.2 * rng.standard_normal(full), m2=0.2 * rng.standard_normal(full),
        v1=rng.standard_normal(full), v2=rng.standard_normal(full), beta=1.5, gamma=0.4,
    )  # fmt: skip
    return SpaceTime(SpdeOperator(mesh, advection="upwind-1"), parameters, steps=steps, dt=0.6,
                     alpha=alpha, initial="rest", burn_in=burn_in)  # fmt: skip


def tracks(rng, prior, count):
    """Bilinear rows between two steps, as for observations at any place and time."""
    ny, nx = prior.operator.mesh.shape
    weights = np.zeros((count, prior.steps, ny, nx))
    for row in weights:
        t, j, i = (rng.integers(0, size - 1) for size in (prior.steps, ny, nx))
        a, b, c = rng.random(3)
        for dt, wt in ((0, 1 - a), (1, a)):
            for dj, wj in ((0, 1 - b), (1, b)):
                for di, wi in ((0, 1 - c), (1, c)):
                    row[t + dt, j + dj, i + di] += wt * wj * wi
    return sp.csr_array(weights.reshape(count, -1))


def dense(prior, rows, variance, d):
    """Kriging with the dense covariance: mean, covariance, log-likelihood."""
    start = prior.burn_in * prior.nodes
    covariance = np.linalg.inv(prior.precision().toarray())[start:, start:]
    water = np.tile(prior.sea, prior.steps)
    h = rows.toarray() * water
    s = h @ covariance @ h.T + np.diag(variance)
    gain = covariance @ h.T @ np.linalg.inv(s)
    mean, posterior = gain @ d, covariance - gain @ h @ covariance
    value = -0.5 * (d.size * math.log(2 * math.pi) + np.linalg.slogdet(s)[1]
                    + d @ np.linalg.solve(s, d))  # fmt: skip
    return mean * water, posterior * water * water[:, None], value


def stationary(n, steps=5, *, alpha=4, initial="stationary", **parameters):
    mesh = Mesh.of((n, n), boundary="dirichlet")
    found = SpdeParameters.of((n, n), kappa=0.33, **parameters)
    return SpaceTime(SpdeOperator(mesh), found, steps=steps, alpha=alpha, initial=initial)


def swaths(n, steps=5, *, width=2, shift=5):
    """Rows of the nodes that satellite-like tracks see."""
    y, x = np.indices((n, n))
    seen = [
        ((x - y - shift * t) % n < width) | ((x + y - shift * t) % n < width) for t in range(steps)
    ]
    nodes = np.flatnonzero(np.stack(seen))
    return sp.csr_array(sp.eye_array(steps * n * n, format="csr")[nodes])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]), st.integers(0, 2),
       st.sampled_from(["neumann", "dirichlet", "periodic"]))  # fmt: skip
def test_mean_deviation_and_likelihood_against_dense_kriging(seed, alpha, burn_in, boundary):
    rng = np.random.default_rng(seed)
    prior = varied_prior(rng, (6, 7), alpha=alpha, burn_in=burn_in, boundary=boundary)
    rows, variance, d = tracks(rng, prior, 25), rng.uniform(0.01, 0.1, 25), rng.standard_normal(25)
    mean, covariance, value = dense(prior, rows, variance, d)
    found = SpaceTimePosterior(prior, rows, variance, solver="direct")
    np.testing.assert_allclose(found.mean(d).ravel(), mean, atol=1e-8)
    np.testing.assert_allclose(found.deviation().ravel() ** 2, covariance.diagonal(), atol=1e-8)
    start = burn_in * prior.nodes
    columns = found.solve(np.eye(found.size)[:, start::3])[start:]
    water = np.tile(prior.sea, prior.steps)
    seen = columns * water[:, None] * water[::3]
    np.testing.assert_allclose(seen, covariance[:, ::3], atol=1e-8)
    assert found.log_likelihood(d)[0] == pytest.approx(value, rel=1e-8, abs=1e-6)
    assert found.residual < 1e-8
    iterated = SpaceTimePosterior(prior, rows, variance, solver="pcg", tol=1e-10)
    close = np.linalg.norm(iterated.mean(d).ravel() - mean)
    assert close <= 1e-6 * np.linalg.norm(mean)
    assert 0 < iterated.iterations < 60


@pytest.mark.parametrize("alpha", [2, 4])
def test_conjugate_gradients_against_the_direct_solver(alpha):
    prior = stationary(32, alpha=alpha, beta=5.0, v1=1.0, v2=0.5)
    rows = swaths(32)
    rng = np.random.default_rng(0)
    d, variance = rng.standard_normal((3, rows.shape[0])), np.full(rows.shape[0], 1e-3)
    direct = SpaceTimePosterior(prior, rows, variance, solver="direct").mean(d)
    found = SpaceTimePosterior(prior, rows, variance, solver="pcg", tol=1e-10)
    iterated = found.mean(d)
    assert np.linalg.norm(iterated - direct) <= 1e-6 * np.linalg.norm(direct)
    assert found.residual < 1e-7
    # a column does not depend on its neighbours
    assert np.array_equal(found.mean(d[1:2])[0], iterated[1])


def test_mean_minimises_the_cost():
    rng = np.random.default_rng(2)
    prior = stationary(16, alpha=2)
    rows, variance = swaths(16), np.full(swaths(16).shape[0], 1e-3)
    truth = prior.sample(rng.standard_normal((1, 5, 256)))[0].ravel()
    d = rows @ truth + math.sqrt(1e-3) * rng.standard_normal(variance.size)
    found = SpaceTimePosterior(prior, rows, variance)
    best = found.mean(d).ravel()
    least = found.cost(best, d)
    assert found.cost(truth, d) >= least
    for _ in range(100):
        assert found.cost(best + 0.01 * rng.standard_normal(best.size), d) >= least
    gradient = found.apply(best) - found.rows.T @ (d / variance)
    assert np.abs(gradient).max() <= 1e-8 * np.abs(found.rows.T @ (d / variance)).max()


@pytest.mark.slow
def test_conditional_draws():
    """4000 members on 12 x 10 x 5: mean, variance and the noise of the errors."""
    rng = np.random.default_rng(3)
    mesh = Mesh.of((12, 10), boundary="dirichlet")
    prior = SpaceTime(SpdeOperator(mesh), SpdeParameters.of((12, 10), kappa=0.5), steps=5, alpha=2)
    nodes = np.sort(rng.choice(600, 80, replace=False))
    rows = sp.csr_array(sp.eye_array(600, format="csr")[nodes])
    variance = np.full(80, 0.05)
    found = SpaceTimePosterior(prior, rows, variance)
    d = rng.standard_normal(80)
    m = 4000
    draws = found.draw(d, rng.standard_normal((m, 5, 120)), rng.standard_normal((m, 80)))
    mean, deviation = found.mean(d), found.deviation()
    z = (draws.mean(axis=0) - mean) / (deviation / math.sqrt(m))
    assert 0.9 <= np.sqrt(np.mean(z**2)) <= 1.1
    ratio = draws.var(axis=0) / deviation**2
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert ratio.std() == pytest.approx(math.sqrt(2 / m), rel=0.2)


@pytest.mark.slow
def test_calibration_over_many_truths():
    """Exact stationary truths; the first block of the released code is worse, measurably."""
    rng = np.random.default_rng(4)
    count, n, r = 256, 24, 1e-3
    truths_prior = stationary(n)
    truth = truths_prior.sample(rng.standard_normal((count, 5, n * n)))
    rows = swaths(n)
    d = (rows @ truth.reshape(count, -1).T).T
    d = d + math.sqrt(r) * rng.standard_normal(d.shape)
    centre = truth.reshape(count, 5, n, n)[:, 2]
    scores = {}
    for initial in ("stationary", "rest"):
        found = SpaceTimePosterior(stationary(n, initial=initial), rows, np.full(d.shape[1], r))
        error = found.mean(d)[:, 2] - centre
        deviation = found.deviation()[2]
        scores[initial] = (
            math.sqrt(np.mean(deviation**2) / np.mean(error**2)),
            np.mean(np.abs(error) <= 1.6449 * deviation),
            np.mean(error**2),
        )
    skill, coverage, error = scores["stationary"]
    assert 0.97 <= skill <= 1.03
    assert 0.88 <= coverage <= 0.92
    assert scores["rest"][0] < skill
    assert scores["rest"][2] > error


@pytest.mark.slow
def test_rao_blackwellised_deviation():
    prior = stationary(20, alpha=2, m1=0.3)
    rows = swaths(20)
    variance = np.full(rows.shape[0], 1e-2)
    exact = SpaceTimePosterior(prior, rows, variance, solver="direct").deviation()
    found = SpaceTimePosterior(prior, rows, variance, solver="pcg")
    estimate = found.deviation(draws=100, noise=np.random.default_rng(0))
    # a plain estimate has a scatter of sqrt(1 / 200) = 7 %
    assert np.sqrt(np.mean((estimate / exact - 1) ** 2)) < 0.03
    with pytest.raises(ParameterError, match="random stream"):
        found.deviation()


def test_forecast_without_observations_relaxes_to_the_prior():
    prior = stationary(12, steps=6, alpha=2)
    rows = swaths(12, 6)
    seen = sp.csr_array(rows[rows.indices < 3 * 144])
    d = np.ones(seen.shape[0])
    found = SpaceTimePosterior(prior, seen, np.full(d.size, 1e-3))
    mean = found.mean(d)
    for lead in (3, 4, 5):
        forecast = prior.factor(0).solve(mean[lead - 1].ravel())
        np.testing.assert_allclose(mean[lead].ravel(), forecast, atol=1e-12)
    spread = found.deviation().mean(axis=(1, 2))
    assert (np.diff(spread[2:]) > 0).all()


def test_choice_is_logged_and_guarded(caplog):
    prior = stationary(16, alpha=2)
    rows = swaths(16)
    variance = np.ones(rows.shape[0])
    with caplog.at_level(logging.INFO, logger="xr_spde.solvers"):
        assert SpaceTimePosterior(prior, rows, variance).blocks.direct
    assert "direct of up to 5 steps" in caplog.text
    one, five = plan(prior, reach=2, solver="pcg"), plan(prior, reach=2, solver="direct")
    with xr_spde.set_options(memory_limit=(one.needed + five.needed) // 2):
        chosen = SpaceTimePosterior(prior, rows, variance)
        assert not chosen.blocks.direct
        with pytest.raises(ParameterError, match="direct"):
            chosen.log_likelihood(variance)
        with pytest.raises(MemoryGuardError, match='solver="auto"'):
            plan(prior, reach=2, solver="direct")
    with xr_spde.set_options(memory_limit=1000), pytest.raises(MemoryGuardError, match="coarser"):
        plan(prior, reach=2)
    with pytest.raises(UnknownNameError, match="pcg"):
        plan(prior, reach=2, solver="cg")


def test_iterations_that_do_not_suffice_are_an_error():
    prior = stationary(16, alpha=4)
    rows = swaths(16)
    found = SpaceTimePosterior(prior, rows, np.full(rows.shape[0], 1e-3), solver="pcg",
                               max_iterations=3)  # fmt: skip
    with pytest.raises(SolverError, match="after 3 iterations"):
        found.mean(np.ones(rows.shape[0]))


@pytest.mark.parametrize(("variance", "message"), [([1.0, 0.0], "index 1"), ([1.0], "rows have")])
def test_impossible_observations(variance, message):
    prior = stationary(4, 2)
    rows = sp.csr_array(sp.eye_array(32, format="csr")[:2])
    with pytest.raises(ParameterError, match=message):
        SpaceTimePosterior(prior, rows, np.array(variance))

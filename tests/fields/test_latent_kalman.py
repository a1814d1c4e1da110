"""The Kalman filter of codes against the dense joint Gaussian of all times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, solve_continuous_lyapunov
from scipy.stats import multivariate_normal

from xr_spde.errors import ParameterError
from xr_spde.fields.latent_kalman import KalmanFilter, kalman_filter, noise_over


class Flow:
    """Steps of ``dz/dt = G z + g``, exactly."""

    def __init__(self, generator, drift):
        n = len(drift)
        self.wide = np.zeros((n + 1, n + 1))
        self.wide[:n, :n], self.wide[:n, n] = generator, drift

    def matrix(self, dt=1.0):
        return expm(dt * self.wide)[:-1, :-1]

    def offset(self, dt=1.0, time=None):
        return expm(dt * self.wide)[:-1, -1] + (0.0 if time is None else 0.1 * time)


def stable(rng, n):
    generator = rng.standard_normal((n, n))
    generator -= (0.1 + np.linalg.eigvals(generator).real.max()) * np.eye(n)
    return generator, rng.standard_normal(n)


def gathered(flow, spectral):
    """Noise of a whole step of white noise in continuous time."""
    generator, a = flow.wide[:-1, :-1], flow.matrix()
    stationary = solve_continuous_lyapunov(generator, -spectral)
    return stationary - a @ stationary @ a.T


def covariance(rng, n, rank=None):
    half = rng.standard_normal((n, n if rank is None else rank))
    return half @ half.T


def joint(start, flow, noise, dts, times, n):
    """Mean and covariance of the codes of all times."""
    means, blocks = [start.mean], {(0, 0): start.covariance}
    for k, (dt, time) in enumerate(zip(dts, times, strict=True), 1):
        a = flow.matrix(dt)
        means.append(a @ means[-1] + flow.offset(dt, time))
        for j in range(k):
            blocks[k, j] = a @ blocks[k - 1, j] if j < k else None
            blocks[j, k] = blocks[k, j].T
        blocks[k, k] = a @ blocks[k - 1, k - 1] @ a.T + noise_over(flow, noise, dt)
    size = len(means)
    whole = np.block([[blocks[i, j] for j in range(size)] for i in range(size)])
    return np.concatenate(means), whole


@given(seed=st.integers(0, 2**31), n=st.integers(1, 5), rank=st.sampled_from([None, 1]))
@settings(max_examples=25, deadline=None)
def test_means_spreads_and_densities_are_those_of_the_joint_gaussian(seed, n, rank):
    rng = np.random.default_rng(seed)
    flow = Flow(*stable(rng, n))
    start = KalmanFilter(rng.standard_normal(n), covariance(rng, n, rank))
    steps, p = 5, 4
    rows, offset = rng.standard_normal((p, n)), rng.standard_normal(p)
    noise, variance = gathered(flow, covariance(rng, n)), rng.uniform(0.1, 1, p)
    dts, times = np.array([1.0, 2.0, 0.5, 1.0, 1.7]), np.arange(5.0)
    y = rng.standard_normal((steps, p))
    y[rng.random(y.shape) < 0.3] = np.nan
    y[2] = np.nan
    found = kalman_filter(
        start, flow, noise, y, rows, offset=offset, variance=variance, dts=dts, times=times
    )
    mean, whole = joint(start, flow, noise, dts, times, n)
    h = np.zeros((steps * p, len(mean)))
    for k in range(steps):
        h[k * p : (k + 1) * p, (k + 1) * n : (k + 2) * n] = rows
    for k in range(steps):
        kept = np.isfinite(y).ravel() & (np.arange(steps * p) < (k + 1) * p)
        own = h[kept]
        s = own @ whole @ own.T + np.diag(np.tile(variance, steps)[kept])
        gain = np.linalg.solve(s, own @ whole).T
        departure = (y - offset).ravel()[kept] - own @ mean
        part = slice((k + 1) * n, (k + 2) * n)
        np.testing.assert_allclose(found.means[k], (mean + gain @ departure)[part], atol=1e-8)
        after = (whole - gain @ own @ whole)[part, part]
        np.testing.assert_allclose(found.spreads[k] ** 2, np.diagonal(after), atol=1e-8)
    np.testing.assert_allclose(found.covariance, after, atol=1e-8)
    density = multivariate_normal(np.zeros(len(s)), s).logpdf(departure)
    np.testing.assert_allclose(found.log_densities.sum(), density, atol=1e-7)
    assert found.counts.tolist() == np.isfinite(y).sum(axis=1).tolist()


def test_noise_of_steps_of_any_length_adds_up():
    rng = np.random.default_rng(0)
    flow, spectral = Flow(*stable(rng, 4)), covariance(rng, 4)
    one, generator = gathered(flow, spectral), flow.wide[:-1, :-1]
    np.testing.assert_allclose(noise_over(flow, one, 1.0), one, rtol=1e-10)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    seen = [expm((0.25 + 0.25 * s) * generator) for s in nodes]
    half = sum(w * 0.25 * e @ spectral @ e.T for w, e in zip(weights, seen, strict=True))
    np.testing.assert_allclose(noise_over(flow, one, 0.5), half, atol=1e-9 * np.abs(one).max())
    for first, second in ((1.0, 2.0), (0.3, 1.4), (0.5, 0.5)):
        a = flow.matrix(second)
        both = a @ noise_over(flow, one, first) @ a.T + noise_over(flow, one, second)
        np.testing.assert_allclose(noise_over(flow, one, first + second), both, rtol=1e-8)
    still = Flow(np.zeros((2, 2)), np.zeros(2))
    np.testing.assert_allclose(noise_over(still, np.eye(2), 3.0), 3 * np.eye(2))
    with pytest.raises(ParameterError, match="not determined"):
        noise_over(still, np.eye(2), 0.5)


def test_points_outside_count_as_missing():
    rng = np.random.default_rng(1)
    first, second = (KalmanFilter(np.zeros(3), 1.0) for _ in range(2))
    rows, y = rng.standard_normal((4, 3)), rng.standard_normal(4)
    first.analyse(y[:3], rows[:3])
    rows[3] = np.nan
    second.analyse(y, rows)
    np.testing.assert_allclose(first.mean, second.mean)
    wanted = np.einsum("ij,jk,ik->i", rows[:3], first.covariance, rows[:3])
    np.testing.assert_allclose(first.variance_of(rows[:3]), wanted)
    assert first.analyse(np.full(4, np.nan), rows) == 0.0


def test_refused():
    with pytest.raises(ParameterError, match="mean has shape"):
        KalmanFilter(np.zeros((2, 2)), 1.0)
    with pytest.raises(ParameterError, match="no covariance"):
        KalmanFilter(np.zeros(2), [[1.0, 2.0], [0.0, 1.0]])
    one = KalmanFilter(np.zeros(2), 1.0)
    with pytest.raises(ParameterError, match="matrix has shape"):
        one.forecast(np.eye(3))
    with pytest.raises(ParameterError, match="variance"):
        one.analyse([1.0], np.ones((1, 2)), variance=0.0)
    flow = Flow(-np.eye(2), np.zeros(2))
    with pytest.raises(ParameterError, match="dts"):
        kalman_filter(one, flow, 1.0, np.ones((2, 1)), np.ones((1, 2)), dts=[1.0, -1.0])

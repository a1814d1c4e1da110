"""The prior of second order in time, against dense algebra and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError
from xr_spde.fields.driving_noise import ColouredNoise
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.second_order import SecondOrder
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_likelihood import negative_log_likelihood
from xr_spde.fields.spde_variance import local_std

SHAPE, N, STEPS = (4, 5), 20, 5


def varied(rng, *, alpha=2, initial="rest", burn_in=0, boundary="neumann", noise=False):
    """Parameters that vary in space and time, land, spacings that vary with the row."""
    land = rng.random(SHAPE) < 0.15
    land[0, 0] = False
    mesh = Mesh.of(SHAPE, dx=rng.uniform(0.7, 1.3, (4, 1)), dy=1.1, land=land, boundary=boundary)
    full = (STEPS, *SHAPE)
    parameters = SpdeParameters.of(
        SHAPE, land=land, kappa=rng.uniform(0.5, 0.9, full), tau=rng.uniform(0.8, 1.2, full),
        m1=0.2 * rng.standard_normal(full), m2=0.2 * rng.standard_normal(full),
        v1=rng.standard_normal(full), v2=rng.standard_normal(full), beta=1.5, gamma=0.4,
    )  # fmt: skip
    return SecondOrder(
        SpdeOperator(mesh, advection="upwind-1"), parameters, steps=STEPS, dt=0.6, alpha=alpha,
        initial=initial, burn_in=burn_in, noise=ColouredNoise(mesh, 0.8, 2) if noise else None,
    )  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
def test_precision_inverts_the_covariance_of_two_steps_in_a_row(seed, alpha):
    found = varied(np.random.default_rng(seed), alpha=alpha)
    mesh, p = found.operator.mesh, found.parameters
    inner, outer = np.zeros((N, STEPS * N)), np.zeros((N, STEPS * N))
    whole = np.zeros((STEPS * N, STEPS * N))
    for t in range(STEPS):
        growth = np.eye(N) + 0.6 * np.linalg.matrix_power(found.spatial(t).toarray(), alpha // 2)
        forcing = np.zeros((N, STEPS * N))
        size = p.tau[t].ravel() * 0.6**1.5 / np.sqrt(mesh.area)
        forcing[:, t * N : (t + 1) * N] = np.diag(size)
        inner = np.linalg.solve(growth, inner + forcing)
        outer = np.linalg.solve(growth, outer + inner)
        whole[t * N : (t + 1) * N] = outer
    water = np.tile(found.sea, STEPS) > 0
    # the noise from the states, whose condition is the root of that of the covariance
    root = np.linalg.inv(whole[np.ix_(water, water)])
    precision = found.precision().toarray()[np.ix_(water, water)]
    np.testing.assert_allclose(precision, root.T @ root, atol=1e-9 * np.abs(precision).max())


@pytest.mark.parametrize("boundary", ["neumann", "dirichlet", "periodic"])
@pytest.mark.parametrize("noise", [False, True])
def test_products_distances_determinants_and_draws(boundary, noise):
    rng = np.random.default_rng(1)
    found = varied(rng, burn_in=1, boundary=boundary, noise=noise)
    dense = found.precision().toarray()
    assert np.abs(dense - dense.T).max() <= 1e-12 * np.abs(dense).max()
    x = rng.standard_normal((dense.shape[0], 2)) * np.tile(found.sea, found.total)[:, None]
    scale = np.abs(dense).max()
    np.testing.assert_allclose(found.apply(x), dense @ x, atol=1e-11 * scale)
    distance = np.einsum("ik,ij,jk->k", x, dense, x)
    np.testing.assert_allclose(found.mahalanobis(x), distance, rtol=1e-10)
    assert found.log_determinant() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-9)
    n = dense.shape[0]
    root = found.sample(np.eye(n).reshape(n, found.total, N)).reshape(n, n)
    water = np.tile(found.sea, found.total)
    exact = np.linalg.inv(dense) * water * water[:, None]
    np.testing.assert_allclose(root.T @ root, exact, atol=1e-9 * np.abs(exact).max())


@pytest.mark.parametrize("flow", [0.0, 0.4])
@pytest.mark.parametrize("alpha", [2, 4])
def test_every_step_has_the_same_covariances(alpha, flow):
    # constant parameters on a torus, along which even a flow commutes with its adjoint
    mesh = Mesh.of((5, 6), dx=2.0, dy=2.5, boundary="periodic")  # wide, or digits are lost
    parameters = SpdeParameters.of((5, 6), kappa=0.7, gamma=1.3, m1=flow, m2=-0.5 * flow)
    found = SecondOrder(SpdeOperator(mesh), parameters, steps=6, dt=0.7, alpha=alpha,
                        noise=ColouredNoise(mesh, 1.5, 2))  # fmt: skip
    covariance = np.linalg.inv(found.precision().toarray()).reshape(6, 30, 6, 30)
    for lag in range(3):
        first = covariance[lag, :, 0]
        for step in range(1, 6 - lag):
            np.testing.assert_allclose(covariance[step + lag, :, step], first, rtol=1e-7,
                                       atol=1e-9 * np.abs(first).max())  # fmt: skip


def test_correlation_in_time_is_flat_at_zero():
    # without diffusion: (1 + r t) exp(-r t), and the variance tau^2 / (4 r^3), in every cell
    mesh = Mesh.of((2, 2))
    rate, dt = 0.5, 1e-3
    parameters = SpdeParameters.of((2, 2), kappa=np.sqrt(rate), tau=1.3, gamma=1e-12)
    found = SecondOrder(SpdeOperator(mesh), parameters, steps=2, dt=dt, alpha=2)
    covariance = np.linalg.inv(found.precision().toarray())
    assert covariance[0, 0] == pytest.approx(1.3**2 / (4.0 * rate**3), rel=2e-3)
    wide = SecondOrder(SpdeOperator(mesh), parameters, steps=301, dt=0.02, alpha=2)
    column = np.zeros(4 * 301)
    column[0] = 1.0
    row = np.linalg.solve(wide.precision().toarray(), column)[::4]
    t = 0.02 * rate * np.arange(301)
    np.testing.assert_allclose(row / row[0], (1.0 + t) * np.exp(-t), atol=4e-3)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
@pytest.mark.parametrize("initial", ["rest", "stationary"])
def test_interpolation_is_dense_kriging(solver, initial):
    rng = np.random.default_rng(2)
    if initial == "rest":
        prior = varied(rng, noise=True)
    else:
        parameters = SpdeParameters.of(SHAPE, kappa=0.6, gamma=1.2)
        prior = SecondOrder(SpdeOperator(Mesh.of(SHAPE)), parameters, steps=STEPS)
    rows = sp.random_array((12, STEPS * N), density=0.03, rng=rng, format="csr")
    variance, d = rng.uniform(0.01, 0.1, 12), rng.standard_normal(12)
    water = np.tile(prior.sea, STEPS)
    covariance = np.linalg.inv(prior.precision().toarray()) * water * water[:, None]
    h = rows.toarray()
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + np.diag(variance))
    found = SpaceTimePosterior(prior, rows, variance, solver=solver, tol=1e-12)
    np.testing.assert_allclose(found.mean(d).ravel(), gain @ d, atol=1e-7)
    if solver == "direct":
        exact = np.diag(covariance - gain @ h @ covariance)
        np.testing.assert_allclose(found.deviation().ravel() ** 2, exact, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", [2, 4])
def test_local_deviation_is_that_of_the_prior(alpha):
    mesh = Mesh.of((32, 32), boundary="periodic", dx=1.3, dy=0.9)
    parameters = SpdeParameters.of(mesh.shape, kappa=0.8, tau=1.7, m1=0.2)
    noise = ColouredNoise(mesh, 1.1, 2)
    told = local_std(parameters, mesh, dt=0.7, alpha=alpha, noise=noise, order=2)[0, 0, 0]
    prior = SecondOrder(SpdeOperator(mesh), parameters, steps=2, dt=0.7, alpha=alpha, noise=noise)
    assert told == pytest.approx(np.sqrt(prior.first_factor().inverse_diagonal()[0]), rel=5e-3)


def test_what_it_refuses():
    mesh = Mesh.of(SHAPE)
    parameters = SpdeParameters.of(SHAPE, kappa=0.7)
    with pytest.raises(ParameterError, match="has 1 steps"):
        SecondOrder(SpdeOperator(mesh), parameters, steps=1)
    prior = SecondOrder(SpdeOperator(mesh), parameters, steps=3)
    with pytest.raises(ParameterError, match="first order in time"):
        negative_log_likelihood(prior, np.zeros((1, 3, *SHAPE)))

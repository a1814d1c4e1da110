"""Driving noise that is smooth in space, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields.driving_noise import ColouredNoise
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_likelihood import negative_log_likelihood
from xr_spde.fields.spde_variance import local_std

SHAPE, N = (5, 6), 30


def varied(rng, *, alpha=2, noise_alpha=2, initial="rest", burn_in=0, boundary="neumann"):
    """Parameters that vary in space and time, land, spacings that vary with the row."""
    land = rng.random(SHAPE) < 0.15
    land[0, 0] = False
    mesh = Mesh.of(SHAPE, dx=rng.uniform(0.7, 1.3, (5, 1)), dy=1.1, land=land, boundary=boundary)
    full = (3, *SHAPE)
    parameters = SpdeParameters.of(
        SHAPE, land=land, kappa=rng.uniform(0.5, 0.9, full), tau=rng.uniform(0.8, 1.2, full),
        m1=0.2 * rng.standard_normal(full), m2=0.2 * rng.standard_normal(full),
        v1=rng.standard_normal(full), v2=rng.standard_normal(full), beta=1.5, gamma=0.4,
    )  # fmt: skip
    return SpaceTime(SpdeOperator(mesh, advection="upwind-1"), parameters, steps=3, dt=0.6,
                     alpha=alpha, initial=initial, burn_in=burn_in,
                     noise=ColouredNoise(mesh, 0.8, noise_alpha))  # fmt: skip


def smoothing(mesh, length, alpha):
    """Dense ``(1 - l^2 Laplacian)^(alpha / 2)`` from differences across faces; one on land."""
    n, water = mesh.size, mesh.sea > 0
    flat = np.eye(n)
    index = np.arange(n).reshape(mesh.shape)
    dx, dy = mesh.dx.ravel(), mesh.dy.ravel()
    for axis, spacing in ((1, dx), (0, dy)):
        first = np.take(index, range(mesh.shape[axis] - 1), axis).ravel()
        second = np.take(index, range(1, mesh.shape[axis]), axis).ravel()
        for a, b in zip(first, second, strict=True):
            if water[a] and water[b]:
                # flux through a face, the mean of area / spacing^2 on both sides
                weight = 0.5 * sum(mesh.area[k] / spacing[k] ** 2 for k in (a, b))
                for here, there in ((a, b), (b, a)):
                    flat[here, here] += length**2 * weight / mesh.area[here]
                    flat[here, there] -= length**2 * weight / mesh.area[here]
    return np.linalg.matrix_power(flat, alpha // 2)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]), st.sampled_from([2, 4]))
def test_precision_inverts_the_covariance_of_the_recursion(seed, alpha, noise_alpha):
    found = varied(np.random.default_rng(seed), alpha=alpha, noise_alpha=noise_alpha)
    mesh, p = found.operator.mesh, found.parameters
    smooth = np.linalg.inv(smoothing(mesh, 0.8, noise_alpha))
    response = np.zeros((N, 3 * N))
    whole = np.zeros((3 * N, 3 * N))
    for t in range(3):
        growth = np.eye(N) + 0.6 * np.linalg.matrix_power(found.spatial(t).toarray(), alpha // 2)
        forcing = np.zeros((N, 3 * N))
        size = p.tau[t].ravel()[:, None] * np.sqrt(0.6) * smooth / np.sqrt(mesh.area)
        forcing[:, t * N : (t + 1) * N] = size
        response = np.linalg.solve(growth, response + forcing)
        whole[t * N : (t + 1) * N] = response
    water = np.tile(found.sea, 3) > 0
    inverse = np.linalg.inv(found.precision().toarray())[np.ix_(water, water)]
    np.testing.assert_allclose(inverse, (whole @ whole.T)[np.ix_(water, water)], atol=1e-9)


@pytest.mark.parametrize("boundary", ["neumann", "dirichlet", "periodic"])
@pytest.mark.parametrize("noise_alpha", [2, 4])
def test_products_distances_determinants_and_draws(boundary, noise_alpha):
    rng = np.random.default_rng(1)
    found = varied(rng, noise_alpha=noise_alpha, burn_in=2, boundary=boundary)
    dense = found.precision().toarray()
    assert np.abs(dense - dense.T).max() <= 1e-12 * np.abs(dense).max()
    x = rng.standard_normal((dense.shape[0], 2)) * np.tile(found.sea, found.total)[:, None]
    np.testing.assert_allclose(found.apply(x), dense @ x, rtol=1e-9, atol=1e-9)
    distance = np.einsum("ik,ij,jk->k", x, dense, x)
    np.testing.assert_allclose(found.mahalanobis(x), distance, rtol=1e-10)
    assert found.log_determinant() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-10)
    n = dense.shape[0]
    root = found.sample(np.eye(n).reshape(n, found.total, N)).reshape(n, n)
    water = np.tile(found.sea, found.total)
    exact = np.linalg.inv(dense) * water * water[:, None]
    np.testing.assert_allclose(root.T @ root, exact, atol=1e-11)


@pytest.mark.parametrize("alpha", [2, 4])
def test_first_state_is_stationary_where_the_operator_commutes_with_the_smoothing(alpha):
    mesh = Mesh.of((6, 7), dx=np.linspace(0.6, 1.4, 6)[:, None], dy=1.1)
    parameters = SpdeParameters.of((6, 7), kappa=0.6, gamma=1.3)
    found = SpaceTime(SpdeOperator(mesh), parameters, steps=4, dt=0.7, alpha=alpha,
                      noise=ColouredNoise(mesh, 1.5, 2))  # fmt: skip
    covariance = np.linalg.inv(found.precision().toarray())
    np.testing.assert_allclose(covariance[:42, :42], covariance[-42:, -42:], atol=1e-10)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
@pytest.mark.parametrize("noise_alpha", [2, 4])
def test_interpolation_is_dense_kriging(solver, noise_alpha):
    rng = np.random.default_rng(2)
    prior = varied(rng, noise_alpha=noise_alpha)
    rows = sp.random_array((12, 3 * N), density=0.03, rng=rng, format="csr")
    variance, d = rng.uniform(0.01, 0.1, 12), rng.standard_normal(12)
    water = np.tile(prior.sea, 3)
    covariance = np.linalg.inv(prior.precision().toarray()) * water * water[:, None]
    h = rows.toarray()
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + np.diag(variance))
    found = SpaceTimePosterior(prior, rows, variance, solver=solver, tol=1e-11)
    np.testing.assert_allclose(found.mean(d).ravel(), gain @ d, atol=1e-8)
    if solver == "direct":
        exact = np.diag(covariance - gain @ h @ covariance)
        np.testing.assert_allclose(found.deviation().ravel() ** 2, exact, atol=1e-8)


def test_short_lengths_are_white_noise():
    mesh = Mesh.of(SHAPE)
    parameters = SpdeParameters.of(SHAPE, kappa=0.7)
    white, near = (
        SpaceTime(SpdeOperator(mesh), parameters, steps=2, noise=noise).precision().toarray()
        for noise in (None, ColouredNoise(mesh, 1e-5))
    )
    np.testing.assert_allclose(near, white, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("noise_alpha", [2, 4])
@pytest.mark.parametrize("alpha", [2, 4])
def test_local_deviation_is_that_of_the_prior(alpha, noise_alpha):
    mesh = Mesh.of((48, 48), boundary="periodic", dx=1.3, dy=0.9)
    parameters = SpdeParameters.of(mesh.shape, kappa=0.6, tau=1.7)
    noise = ColouredNoise(mesh, 1.8, noise_alpha)
    told = local_std(parameters, mesh, dt=0.7, alpha=alpha, noise=noise)[0, 0, 0]
    prior = SpaceTime(SpdeOperator(mesh), parameters, steps=1, dt=0.7, alpha=alpha, noise=noise)
    variance = prior.first_factor().inverse_diagonal()
    assert told == pytest.approx(np.sqrt(variance[0]), rel=5e-3)


def test_what_coloured_noise_refuses():
    mesh = Mesh.of(SHAPE)
    with pytest.raises(ParameterError, match="length=-1"):
        ColouredNoise(mesh, -1.0)
    with pytest.raises(UnknownNameError, match="noise_alpha"):
        ColouredNoise(mesh, 1.0, 3)
    prior = varied(np.random.default_rng(0))
    with pytest.raises(ParameterError, match="white noise only"):
        negative_log_likelihood(prior, np.zeros((1, 3, *SHAPE)))

"""The local likelihood against finite differences and against simulated torus fields."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.fields.closed_form import symbol
from xr_spde.fields.sar import log_tensor, tensor
from xr_spde.sar.local import Local, jacobian_of, q_of
from xr_spde.sar.statistics import stencil_features


def points(count=12, seed=0) -> np.ndarray:
    """Values of (log kappa2, h1, h2, log d), an isotropic one among them."""
    rng = np.random.default_rng(seed)
    h = log_tensor(rng.uniform(1.0, 6.0, count), rng.uniform(-1.5, 1.5, count))
    u = np.stack([rng.uniform(-4.0, 0.5, count), *h, rng.normal(size=count)])
    u[1:3, 0] = 1e-9
    return u


def moments(count=12, seed=1) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(count, 4, 6))
    return np.einsum("nak,nbk->abn", root, root) / 6


def torus_moments(u, n, draws, seed) -> np.ndarray:
    """Moments (4, 4, draws) of the features over whole periodic fields of one parameter set."""
    rng = np.random.default_rng(seed)
    k = 2.0 * np.pi * np.fft.fftfreq(n)
    q = q_of(u[:3, :1])[:, 0]
    b = symbol(*q, k[None, :], k[:, None])
    spectrum = np.exp(0.5 * u[3, 0]) * np.fft.fft2(rng.normal(size=(draws, n, n))) / b
    fields = np.fft.ifft2(spectrum).real
    # features on a torus: wrap two rows by hand
    wide = np.concatenate([fields[:, -1:], fields, fields[:, :1]], axis=1)
    features = stencil_features(wide, dilation=1, periodic=True)[:, :, 1:-1]
    return np.einsum("amji,bmji->abm", features, features) / n**2


def test_q_holds_the_stencil_parameters():
    kappa2, rho, theta = np.array([0.1, 2.0]), np.array([1.0, 5.0]), np.array([0.0, -1.1])
    q = q_of(np.stack([np.log(kappa2), *log_tensor(rho, theta)]))
    np.testing.assert_allclose(q, np.stack([kappa2, *tensor(rho, theta)]), rtol=1e-12, atol=1e-12)


def test_jacobian_against_finite_differences():
    u = points()[:3]
    found = jacobian_of(u)
    for p in range(3):
        h = np.zeros_like(u)
        h[p] = 1e-5
        difference = (q_of(u + h) - q_of(u - h)) / 2e-5
        np.testing.assert_allclose(found[p], difference, rtol=1e-6, atol=1e-6)


def test_value_is_the_log_density_of_the_stencil():
    """Against L - log(d) / 2 - q' G q / (2 d), the mean log symbol taken on a fine torus."""
    u, gram = points(4), moments(4)
    value, _ = Local(u, gram).value_and_slope(np.zeros(4))
    k = 2.0 * np.pi * np.fft.fftfreq(1024)
    for n in range(4):
        q = q_of(u[:3])[:, n]
        mean = np.log(symbol(*q, k[None, :], k[:, None])).mean()
        truth = mean - u[3, n] / 2 - q @ gram[:, :, n] @ q / (2 * np.exp(u[3, n]))
        np.testing.assert_allclose(-value[n], truth, rtol=1e-6)


@pytest.mark.parametrize("corrected", [False, True])
def test_slope_against_finite_differences(corrected):
    u, gram = points(), moments()
    response = np.random.default_rng(4).normal(size=12) if corrected else np.zeros(12)
    _, slope = Local(u, gram).value_and_slope(response)
    for p in range(4):
        h = np.zeros_like(u)
        h[p] = 1e-5
        up, down = (Local(u + s * h, gram).value_and_slope(response)[0] for s in (1, -1))
        np.testing.assert_allclose(slope[p], (up - down) / 2e-5, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("parameters", [(0.5, 1.5, 0.3, 0.0), (0.1, 4.0, -1.0, 1.3)])
def test_score_has_mean_zero_and_the_information_is_its_spread(parameters):
    """E score = 0 and E information = E observed Hessian = n^2 Var(score) at the truth."""
    kappa2, rho, theta, log_d = parameters
    n, draws = 40, 400
    u = np.array([np.log(kappa2), *map(float, log_tensor(rho, theta)), log_d])[:, None]
    gram = torus_moments(u, n, draws, seed=5)
    many = np.repeat(u, draws, axis=1)
    _, score = Local(many, gram).value_and_slope(np.zeros(draws))
    spread = np.cov(score) * n**2
    bias = score.mean(axis=1) / np.sqrt(np.diagonal(np.cov(score)) / draws)
    assert np.abs(bias).max() < 4.0
    information = Local(many, gram).information().mean(axis=-1)
    scale = np.sqrt(np.diagonal(information))
    # the sampling error of a covariance of 400 draws is 7 %
    assert np.abs((spread - information) / scale / scale[:, None]).max() < 0.25
    hessian = np.empty((4, 4))
    for p in range(4):
        h = np.zeros_like(many)
        h[p] = 1e-4
        up, down = (Local(many + s * h, gram).value_and_slope(np.zeros(draws))[1] for s in (1, -1))
        hessian[p] = ((up - down) / 2e-4).mean(axis=-1)
    assert np.abs((hessian - information) / scale / scale[:, None]).max() < 0.05


def test_information_is_positive_definite_away_from_the_optimum():
    information = np.moveaxis(Local(points(50, 8), moments(50, 9)).information(), -1, 0)
    np.testing.assert_allclose(information, np.swapaxes(information, 1, 2), rtol=1e-12)
    smallest = np.linalg.eigvalsh(information)[:, 0]
    assert smallest.min() > -1e-9 * np.abs(information).max()

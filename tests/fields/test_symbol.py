"""The mean log symbol against two-dimensional quadrature."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.fields.closed_form import symbol
from xr_spde.fields.sar import tensor
from xr_spde.fields.symbol import log_symbol_mean

KAPPA2 = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 2.0)
RHO = (1.0, 1.5, 3.0, 6.0, 10.0)
THETA = np.deg2rad([-90.0, -60.0, -45.0, -12.0, 0.0, 30.0, 45.0, 77.0])


def graded(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of (-pi, pi) and weights that sum to one, crowded around zero."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    t, w = 0.5 * (t + 1.0), 0.5 * w
    # a power grading, far finer than the narrow peak of the gradient at the smallest kappa2
    k, dk = np.pi * t**5, 5.0 * np.pi * t**4
    return np.concatenate([-k[::-1], k]), np.concatenate([(w * dk)[::-1], w * dk]) / (2 * np.pi)


def quadrature(kappa2, hxx, hyy, hxy) -> float:
    k, w = graded(160)
    b = symbol(kappa2, hxx, hyy, hxy, k[None, :], k[:, None])
    return float(w @ np.log(b) @ w)


def one(kappa2, rho, theta):
    return [np.array([float(v)]) for v in (kappa2, *tensor(rho, theta))]


@pytest.mark.parametrize("kappa2", KAPPA2)
@pytest.mark.parametrize("rho", RHO)
def test_value_against_two_dimensional_quadrature(kappa2, rho):
    q = [np.array(v) for v in tensor(np.full(THETA.shape, rho), THETA)]
    value, _ = log_symbol_mean(np.full(THETA.shape, kappa2), *q)
    truth = [quadrature(kappa2, *(float(h[i]) for h in q)) for i in range(THETA.size)]
    np.testing.assert_allclose(value, truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kappa2", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("theta", [0.0, 0.4, -1.1])
def test_value_is_the_log_determinant_of_a_torus(kappa2, theta):
    n, rho = 256, 4.0
    k = 2.0 * np.pi * np.fft.fftfreq(n)
    b = symbol(kappa2, *tensor(rho, theta), k[None, :], k[:, None])
    value, _ = log_symbol_mean(*one(kappa2, rho, theta))
    # images at a distance of n cells: exp(-n sqrt(kappa2 / rho)) < 1e-12
    np.testing.assert_allclose(value[0], np.log(b).mean(), rtol=0, atol=1e-7)


def test_the_isotropic_limit_is_catalans_constant():
    # random walk on the square lattice, kappa2 to 0: 4 G / pi
    value, _ = log_symbol_mean(*one(1e-9, 1.0, 0.0))
    np.testing.assert_allclose(value[0], 4.0 * 0.915965594177219 / np.pi, atol=1e-6)


@pytest.mark.parametrize("kappa2", [1e-4, 0.02, 0.7])
@pytest.mark.parametrize("rho", [1.0, 2.5, 9.0])
@pytest.mark.parametrize("theta", [0.0, 0.5, -1.3])
def test_gradient_against_finite_differences(kappa2, rho, theta):
    q = one(kappa2, rho, theta)
    _, gradient = log_symbol_mean(*q)
    for i, slope in enumerate(gradient):
        h = 1e-4 * (kappa2 if i == 0 else 1.0)
        up, down = list(q), list(q)
        up[i], down[i] = q[i] + h, q[i] - h
        difference = (log_symbol_mean(*up)[0] - log_symbol_mean(*down)[0]) / (2 * h)
        np.testing.assert_allclose(slope, difference, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kappa2", [1e-3, 0.05, 2.0])
def test_gradient_in_kappa2_is_the_mean_inverse_symbol(kappa2):
    k, w = graded(300)
    b = symbol(kappa2, *tensor(3.0, 0.6), k[None, :], k[:, None])
    slope = log_symbol_mean(*one(kappa2, 3.0, 0.6))[1][0]
    np.testing.assert_allclose(slope[0], w @ (1.0 / b) @ w, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 40.0])
def test_scaling_all_weights_adds_a_logarithm(scale):
    rng = np.random.default_rng(1)
    shape = (3, 5)
    kappa2 = np.exp(rng.uniform(np.log(1e-4), np.log(2.0), shape))
    hxx, hyy, hxy = tensor(rng.uniform(1, 10, shape), rng.uniform(-1.5, 1.5, shape))
    value, gradient = log_symbol_mean(kappa2, hxx, hyy, hxy)
    scaled, steep = log_symbol_mean(*(scale * v for v in (kappa2, hxx, hyy, hxy)))
    np.testing.assert_allclose(scaled, value + np.log(scale), atol=1e-12)
    np.testing.assert_allclose(np.array(steep) * scale, gradient, rtol=1e-9, atol=1e-12)
    # Euler: a function of degree "log" has q . gradient = 1
    total = sum(v * g for v, g in zip((kappa2, hxx, hyy, hxy), gradient, strict=True))
    np.testing.assert_allclose(total, 1.0, atol=1e-4)
    assert value.shape == shape


def test_exchanging_axes_and_mirroring_change_nothing():
    kappa2 = np.array([0.03])
    hxx, hyy, hxy = (np.array([float(v)]) for v in tensor(5.0, 0.35))
    value = log_symbol_mean(kappa2, hxx, hyy, hxy)[0]
    np.testing.assert_allclose(log_symbol_mean(kappa2, hyy, hxx, hxy)[0], value, atol=1e-6)
    np.testing.assert_allclose(log_symbol_mean(kappa2, hxx, hyy, -hxy)[0], value, atol=1e-14)

"""The excess response against dense inverses."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.fields.closed_form import symbol, torus_covariance
from xr_spde.fields.green import excess_response, tensor_of_log
from xr_spde.fields.sar import log_tensor, operator, tensor
from xr_spde.fields.symbol import log_symbol_mean

BOUNDARIES = ["plane", "cylinder", "torus", "paper"]


def varying(shape, seed=3):
    rng = np.random.default_rng(seed)
    log_kappa2 = rng.uniform(np.log(0.05), np.log(1.0), shape)
    rho, theta = rng.uniform(1, 4, shape), rng.uniform(-1.5, 1.5, shape)
    return log_kappa2, rho, theta


def uniform_response(kappa2, rho, theta):
    """Mean inverse symbol on a huge periodic grid: the response of an endless medium."""
    n = 512
    k = 2.0 * np.pi * np.fft.fftfreq(n)
    out = np.empty(np.shape(kappa2))
    for index in np.ndindex(out.shape):
        h = tensor(rho[index], theta[index])
        out[index] = np.mean(1.0 / symbol(kappa2[index], *h, k[None, :], k[:, None]))
    return out


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_against_the_dense_inverse_without_coarsening(boundary):
    shape = (9, 12)
    log_kappa2, rho, theta = varying(shape)
    found = excess_response(log_kappa2, *log_tensor(rho, theta), boundary=boundary, buffer=0)
    matrix = operator(np.exp(log_kappa2), rho, theta, boundary=boundary).toarray()
    diagonal = np.diagonal(np.linalg.inv(matrix)).reshape(shape)
    truth = diagonal - uniform_response(np.exp(log_kappa2), rho, theta)
    np.testing.assert_allclose(found, truth, atol=2e-6)


@pytest.mark.parametrize(("boundary", "pad"), [("plane", (3, 3)), ("cylinder", (3, 0))])
def test_a_buffer_moves_the_boundary_away(boundary, pad):
    shape = (8, 10)
    log_kappa2, rho, theta = varying(shape, seed=4)
    found = excess_response(log_kappa2, *log_tensor(rho, theta), boundary=boundary, buffer=3)
    width = tuple((p, p) for p in pad)
    wide = [np.pad(v, width, mode="edge") for v in (np.exp(log_kappa2), rho, theta)]
    matrix = operator(*wide, boundary=boundary).toarray()
    inverse = np.diagonal(np.linalg.inv(matrix)).reshape(wide[0].shape)
    inner = inverse[pad[0] : pad[0] + 8, pad[1] : pad[1] + 10]
    truth = inner - uniform_response(np.exp(log_kappa2), rho, theta)
    np.testing.assert_allclose(found, truth, atol=2e-6)


def test_a_buffer_is_not_used_where_the_grid_closes():
    log_kappa2, rho, theta = varying((8, 10))
    h = log_tensor(rho, theta)
    with_buffer = excess_response(log_kappa2, *h, boundary="torus", buffer=5)
    without = excess_response(log_kappa2, *h, boundary="torus", buffer=0)
    np.testing.assert_array_equal(with_buffer, without)


@pytest.mark.parametrize("kappa2", [0.1, 1.0])
def test_nothing_is_left_on_a_large_uniform_torus(kappa2):
    shape, rho, theta = (40, 48), 2.0, 0.5
    maps = [np.full(shape, float(v)) for v in (np.log(kappa2), *log_tensor(rho, theta))]
    found = excess_response(*maps, boundary="torus", buffer=0)
    # the images of the point one turn away, exp(-40 sqrt(kappa2 / rho)), and the quadrature
    assert np.abs(found).max() < 3 * np.exp(-40 * np.sqrt(kappa2 / rho)) + 1e-6


def test_a_small_torus_adds_the_images():
    shape, kappa2 = (10, 10), 0.02
    maps = [np.full(shape, float(v)) for v in (np.log(kappa2), 0.0, 0.0)]
    found = excess_response(*maps, boundary="torus", buffer=0)
    k = 2.0 * np.pi * np.fft.fftfreq(10)
    own = np.mean(1.0 / symbol(kappa2, 1.0, 1.0, 0.0, k[None, :], k[:, None]))
    q = [np.array([v]) for v in (kappa2, 1.0, 1.0, 0.0)]
    np.testing.assert_allclose(found, own - log_symbol_mean(*q)[1][0][0], atol=1e-10)
    assert found.min() > 0


def test_edges_hold_the_field():
    shape = (20, 24)
    maps = [np.full(shape, float(v)) for v in (np.log(0.02), 0.0, 0.0)]
    plane = excess_response(*maps, boundary="plane", buffer=0)
    assert plane.max() < 0
    assert plane[0, 0] < plane[0, 12] < plane[10, 12]
    cylinder = excess_response(*maps, boundary="cylinder", buffer=0)
    np.testing.assert_allclose(cylinder, cylinder[:, :1] * np.ones(24), atol=1e-10)


def test_a_coarse_grid_is_close_to_the_fine_one():
    shape = (36, 40)
    y, x = np.mgrid[0:36, 0:40]
    log_kappa2 = np.log(0.01) + np.sin(x / 8.0) + 0.5 * np.cos(y / 9.0)
    h = log_tensor(np.full(shape, 2.0), 0.3 + 0.01 * x)
    fine = excess_response(log_kappa2, *h, boundary="plane", buffer=4)
    coarse = excess_response(log_kappa2, *h, boundary="plane", buffer=4, max_nodes=600)
    # response on the plane is the integral of a logarithm: a fraction of 1 / (2 pi) in the middle
    inner = (slice(4, -4), slice(4, -4))
    assert np.sqrt(np.mean((fine - coarse)[inner] ** 2)) < 0.15 * np.abs(fine[inner]).mean()


@pytest.mark.parametrize("log_rho", [0.0, 1e-10, 1e-4, 1.0, 2.3])
def test_tensor_from_its_logarithm(log_rho):
    theta = np.linspace(-1.5, 1.5, 7)
    rho = np.full(7, np.exp(log_rho))
    h1, h2 = log_rho * np.cos(2 * theta), log_rho * np.sin(2 * theta)
    for found, truth in zip(tensor_of_log(h1, h2), tensor(rho, theta), strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-12, atol=1e-12)


def test_the_response_of_a_torus_is_the_root_of_its_covariance():
    """An independent identity: the square of B^-1 is the covariance of a symmetric B."""
    shape, kappa2 = (12, 12), 0.3
    maps = [np.full(shape, float(v)) for v in (np.log(kappa2), *log_tensor(2.0, 0.7))]
    excess = excess_response(*maps, boundary="torus", buffer=0)
    covariance = torus_covariance(shape, kappa2=kappa2, rho=2.0, theta=0.7)
    root = np.sqrt(np.fft.fft2(covariance).real)
    own = np.mean(root)
    q = [np.array([float(v)]) for v in (kappa2, *tensor(2.0, 0.7))]
    np.testing.assert_allclose(excess, own - log_symbol_mean(*q)[1][0][0], atol=1e-9)

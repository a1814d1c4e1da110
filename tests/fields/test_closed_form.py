"""Worked examples A3 and A4: covariances on the torus and the Matern limit."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.fields.closed_form import matern_correlation, symbol, torus_covariance
from xr_spde.fields.sar import operator, tensor, weights
from xr_spde.fields.stencil import apply

# kappa2, rho, psi in degrees, variance, correlations at (1,0), (0,1), (1,1), (1,-1)
A3 = [
    (0.5, 3.0, 45.0, 0.13362, (0.7541, 0.7541, 0.4832, 0.7592)),
    (0.5, 3.0, 30.0, 0.13939, (0.8158, 0.6632, 0.4666, 0.7133)),
    (0.05, 1.0, 0.0, 1.63523, (0.9343, 0.9343, 0.8920, 0.8920)),
    (0.01, 3.0, 45.0, 7.7700, (0.9840, 0.9840, 0.9523, 0.9895)),
]


@pytest.mark.parametrize(("kappa2", "rho", "psi", "variance", "correlations"), A3)
def test_a3_torus(kappa2, rho, psi, variance, correlations):
    cov = torus_covariance((256, 256), kappa2=kappa2, rho=rho, theta=-np.deg2rad(psi))
    digits = 4 if variance > 5 else 5
    assert cov[0, 0] == pytest.approx(variance, abs=0.6 * 10**-digits)
    for (di, dj), value in zip(((1, 0), (0, 1), (1, 1), (1, -1)), correlations, strict=True):
        assert cov[dj, di] / cov[0, 0] == pytest.approx(value, abs=6e-5)


@pytest.mark.parametrize(("kappa2", "rho", "psi"), [case[:3] for case in A3])
def test_a3_sparse_matrix_on_the_torus(kappa2, rho, psi):
    theta = -np.deg2rad(psi)
    size = 64
    matrix = operator(np.full((size, size), kappa2), rho, theta, boundary="torus")
    from scipy.sparse.linalg import splu

    lu = splu(matrix)
    unit = np.zeros(size * size)
    unit[0] = 1.0
    column = lu.solve(lu.solve(unit, "T")).reshape(size, size)
    expected = torus_covariance((size, size), kappa2=kappa2, rho=rho, theta=theta)
    np.testing.assert_allclose(column, expected, atol=1e-10 * expected[0, 0])


def test_a4_matern_limit():
    parameters = {"kappa2": 0.01, "rho": 3.0, "theta": -np.pi / 4}
    cov = torus_covariance((256, 256), **parameters)
    assert cov[-10, 10] / cov[0, 0] == pytest.approx(0.688, abs=6e-4)
    assert matern_correlation(10, -10, **parameters) == pytest.approx(0.682, abs=6e-4)


def test_lattice_approaches_matern_along_the_longest_direction():
    parameters = {"kappa2": 1e-3, "rho": 2.0, "theta": np.pi / 4}
    cov = torus_covariance((1024, 1024), **parameters)
    steps = np.arange(5, 60, 5)
    lattice = cov[steps, steps] / cov[0, 0]
    np.testing.assert_allclose(lattice, matern_correlation(steps, steps, **parameters), atol=5e-3)
    across = cov[steps, -steps] / cov[0, 0]
    assert (across < lattice).all()


def test_matern_at_zero_and_at_the_range():
    assert matern_correlation(0.0, 0.0, kappa2=0.1, rho=2.0, theta=0.3) == 1.0
    kappa2, rho, theta = 0.04, 3.0, 0.7
    reach = np.sqrt(8 * rho / kappa2)
    at_range = matern_correlation(
        reach * np.cos(theta), reach * np.sin(theta), kappa2=kappa2, rho=rho, theta=theta
    )
    assert at_range == pytest.approx(0.1397, abs=1e-3)


def test_symbol_is_the_eigenvalue_of_the_stencil():
    ny, nx, kappa2, rho, theta = 12, 16, 0.3, 4.0, 0.5
    ky, kx = 2 * np.pi * 3 / ny, 2 * np.pi * 5 / nx
    j, i = np.mgrid[:ny, :nx]
    w = weights(np.full((ny, nx), kappa2), rho, theta)
    real, imaginary = (
        apply(w, part(kx * i + ky * j), boundary="torus") for part in (np.cos, np.sin)
    )
    eigenvalue = symbol(kappa2, *tensor(rho, theta), kx, ky)
    np.testing.assert_allclose(real, eigenvalue * np.cos(kx * i + ky * j), atol=1e-12)
    np.testing.assert_allclose(imaginary, eigenvalue * np.sin(kx * i + ky * j), atol=1e-12)
    assert eigenvalue >= kappa2

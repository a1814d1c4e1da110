"""The selected inverse of the grid solver."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde.fields.closed_form import torus_covariance
from xr_spde.fields.sar import operator
from xr_spde.fields.stencil import BOUNDARIES
from xr_spde.solvers.grid_factor import GridFactor


def sar(shape, boundary, seed, least):
    """SAR matrix with parameters that jump from node to node."""
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(least), np.log(2.0), shape))
    rho, theta = rng.uniform(1, 7, shape), rng.uniform(-np.pi / 2, np.pi / 2, shape)
    return operator(kappa2, rho, theta, boundary=boundary)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    boundary=st.sampled_from(BOUNDARIES),
    leaf=st.sampled_from([1, 8, 30, 72]),
    symmetric=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_entries_match_the_dense_inverse(shape, boundary, leaf, symmetric, seed):
    matrix = sar(shape, boundary, seed, least=1e-2 if symmetric else 1e-4)
    matrix = sp.csc_array(matrix.T @ matrix) if symmetric else matrix
    held = GridFactor(
        matrix, shape=shape, boundary=boundary, leaf=leaf, reach=1 + symmetric, symmetric=symmetric
    )
    inverse = np.linalg.inv(matrix.toarray())
    tolerance = 1e-9 * np.abs(inverse).max()
    np.testing.assert_allclose(held.inverse_diagonal(), np.diagonal(inverse), atol=tolerance)
    expected = (inverse**2).sum(axis=1)
    np.testing.assert_allclose(held.gram_inverse_diagonal(), expected, atol=1e-9 * expected.max())
    for transposed, expected in ((False, inverse), (True, inverse.T)):
        found = held.inverse_on_pattern(transposed=transposed)
        np.testing.assert_array_equal(found.indptr, matrix.indptr)
        np.testing.assert_array_equal(found.indices, matrix.indices)
        rows, columns = found.tocoo().coords
        np.testing.assert_allclose(found.tocoo().data, expected[rows, columns], atol=tolerance)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradient_of_the_log_determinant(boundary):
    shape = (14, 17)
    matrix = sar(shape, boundary, 1, least=1e-2)
    held = GridFactor(matrix, shape=shape, boundary=boundary, leaf=20)
    direction = matrix.copy()
    direction.data = np.random.default_rng(2).standard_normal(matrix.nnz)
    step = 1e-6
    ends = [
        GridFactor(matrix + sign * step * direction, shape=shape, boundary=boundary).logdet()
        for sign in (1, -1)
    ]
    gradient = held.inverse_on_pattern(transposed=True)
    assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_single_precision_is_as_good_as_that():
    shape = (40, 60)
    matrix = sar(shape, "cylinder", 7, least=0.05)
    settings = {"shape": shape, "boundary": "cylinder"}
    exact = GridFactor(matrix, **settings).inverse_diagonal()
    found = GridFactor(matrix, **settings, dtype=np.float32).inverse_diagonal()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_large_torus_against_fourier():
    # the diagonal of (B'B)^-1 is one number on a torus with constant parameters
    shape, kappa2, rho, theta = (96, 128), 0.05, 3.0, -0.8
    matrix = operator(np.full(shape, kappa2), rho, theta, boundary="torus")
    held = GridFactor(
        sp.csc_array(matrix.T @ matrix), shape=shape, boundary="torus", reach=2, symmetric=True
    )
    expected = torus_covariance(shape, kappa2=kappa2, rho=rho, theta=theta)[0, 0]
    np.testing.assert_allclose(held.inverse_diagonal(), expected, rtol=1e-9)

"""Exact variances against dense algebra."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import MemoryGuardError, SolverError, UnknownNameError
from xr_spde._core.options import set_options
from xr_spde.fields.closed_form import torus_covariance
from xr_spde.fields.sar import operator
from xr_spde.fields.stencil import BOUNDARIES
from xr_spde.solvers.dissection import gram_inverse, predict
from xr_spde.solvers.grid_cut import PERIODIC

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def test_every_boundary_has_its_periodic_axes():
    assert set(PERIODIC) == set(BOUNDARIES)


@settings(max_examples=40)
@given(shape=shapes, boundary=st.sampled_from(BOUNDARIES), seed=st.integers(0, 10_000))
def test_varied_parameters_match_dense(shape, boundary, seed):
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(1e-4), np.log(2.0), shape))
    rho, theta = rng.uniform(1, 7, shape), rng.uniform(-np.pi / 2, np.pi / 2, shape)
    check(operator(kappa2, rho, theta, boundary=boundary), shape, boundary)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kappa2", [1e-4, 0.02, 2.0])
@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_constant_parameters_match_dense(kappa2, rho, boundary):
    # the torus at kappa2 = 1e-4 and rho = 7 has a condition number of 3e5, its square 8e10
    shape = (26, 31)
    check(operator(np.full(shape, kappa2), rho, 0.4, boundary=boundary), shape, boundary)


def check(matrix, shape, boundary):
    """Compare with the dense inverse, relative to 1e-10."""
    diagonal, logdet = gram_inverse(matrix, shape=shape, boundary=boundary)
    dense = matrix.toarray()
    expected = (np.linalg.inv(dense) ** 2).sum(axis=1)
    np.testing.assert_allclose(diagonal, expected, rtol=1e-10)
    assert logdet == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-10, abs=1e-9)


def test_large_torus_against_fourier():
    shape, kappa2, rho, theta = (96, 128), 1e-3, 5.0, -0.8
    matrix = operator(np.full(shape, kappa2), rho, theta, boundary="torus")
    diagonal, _ = gram_inverse(matrix, shape=shape, boundary="torus")
    expected = torus_covariance(shape, kappa2=kappa2, rho=rho, theta=theta)[0, 0]
    np.testing.assert_allclose(diagonal, expected, rtol=1e-10)


@pytest.mark.parametrize("boundary", ["cylinder", "plane", "torus"])
@pytest.mark.parametrize("shape", [(60, 80), (150, 30)])
def test_predicted_memory_bounds_the_measured_one(shape, boundary):
    matrix = operator(np.full(shape, 0.1), 3.0, 0.5, boundary=boundary)
    tracemalloc.start()
    gram_inverse(matrix, shape=shape, boundary=boundary)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = predict(shape, boundary=boundary)
    assert peak <= expected <= 2.5 * peak


def test_memory_guard_speaks_first():
    shape = (60, 80)
    matrix = operator(np.full(shape, 0.1), 3.0, 0.5, boundary="plane")
    with (
        set_options(memory_limit=10**6),
        pytest.raises(MemoryGuardError, match=r"exact variance on 60 x 80.*limit is 976"),
    ):
        gram_inverse(matrix, shape=shape, boundary="plane")


def test_singular_and_unknown():
    shape = (12, 14)
    matrix = operator(np.full(shape, 1.0), 1.0, 0.0, boundary="plane")
    matrix.data[matrix.indptr[5] : matrix.indptr[6]] = 0.0
    with pytest.raises(SolverError, match="singular"):
        gram_inverse(matrix, shape=shape, boundary="plane")
    with pytest.raises(UnknownNameError, match="sphere"):
        gram_inverse(matrix, shape=shape, boundary="sphere")

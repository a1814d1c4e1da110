"""Strips of a grid: order, banded Cholesky and blocks of the inverse against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields.sar import operator
from xr_spde.fields.stencil import BOUNDARIES
from xr_spde.solvers.grid_cut import PERIODIC
from xr_spde.solvers.strips import BandedFactor, diagonal_blocks, strips

SHAPES = [(13, 17), (17, 13), (40, 6), (6, 40), (5, 5), (3, 3)]


def varied(shape, boundary, seed=0) -> sp.csc_array:
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(1e-4), np.log(2.0), shape))
    rho, theta = rng.uniform(1, 7, shape), rng.uniform(-np.pi / 2, np.pi / 2, shape)
    return operator(kappa2, rho, theta, boundary=boundary)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    periodic=st.tuples(st.booleans(), st.booleans()),
    reach=st.integers(1, 3),
)
def test_strips_couple_to_the_next_ones_only(shape, periodic, reach):
    order, width = strips(shape, periodic=periodic, reach=reach)
    np.testing.assert_array_equal(np.sort(order), np.arange(shape[0] * shape[1]))
    strip = np.empty(shape[0] * shape[1], dtype=int)
    strip[order] = np.arange(order.size) // width
    strip = strip.reshape(shape)
    for dj in range(-reach, reach + 1):
        for di in range(-reach, reach + 1):
            j, i = np.mgrid[0 : shape[0], 0 : shape[1]]
            inside = (periodic[0] | ((j + dj >= 0) & (j + dj < shape[0]))) & (
                periodic[1] | ((i + di >= 0) & (i + di < shape[1]))
            )
            there = strip[(j + dj) % shape[0], (i + di) % shape[1]]
            assert (np.abs(there - strip)[inside] <= 1).all()


def test_the_narrower_direction_is_taken():
    assert strips((20, 7), periodic=(False, False), reach=1)[1] == 7
    assert strips((7, 20), periodic=(False, False), reach=2)[1] == 14
    assert strips((7, 20), periodic=(False, True), reach=1)[1] == 14  # columns, folded
    assert strips((15, 20), periodic=(False, True), reach=1)[1] == 20  # whole circles


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_of_the_inverse(shape, boundary):
    matrix = varied(shape, boundary)
    truth = np.linalg.inv(matrix.toarray())
    order, width = strips(shape, periodic=PERIODIC[boundary], reach=1)
    found = diagonal_blocks(matrix, order, width, order)
    np.testing.assert_array_equal(np.sort(np.concatenate([m for m, _ in found])), np.sort(order))
    for members, inverse in found:
        np.testing.assert_allclose(inverse, truth[np.ix_(members, members)], atol=1e-11)


def test_only_blocks_that_are_wanted():
    matrix = varied((12, 9), "plane")
    order, width = strips((12, 9), periodic=(False, False), reach=1)
    found = diagonal_blocks(matrix, order, width, np.array([0, 8, 30]))
    assert sorted(int(m.min()) // 9 for m, _ in found) == [0, 3]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_banded_solutions(shape, boundary):
    matrix = varied(shape, boundary)
    gram = sp.csc_array(matrix.T @ matrix)
    order, _ = strips(shape, periodic=PERIODIC[boundary], reach=2)
    b = np.random.default_rng(1).normal(size=(order.size, 5))
    kept = b.copy()
    found = BandedFactor(gram, order).solve(b)
    residual = np.abs(gram @ found - b) / (abs(gram) @ np.abs(found) + np.abs(b))
    assert residual.max() < 1e-13
    np.testing.assert_array_equal(b, kept)


def test_a_matrix_that_is_not_quite_definite_is_solved_all_the_same():
    gram = sp.lil_array(sp.eye_array(30) * 1e6)
    gram[3, 3] = 1e-14
    gram[3, 4] = gram[4, 3] = 1.0
    matrix = sp.csc_array(gram)
    assert np.linalg.eigvalsh(matrix.toarray()).min() < 0
    b = np.random.default_rng(0).normal(size=(30, 2))
    np.testing.assert_allclose(
        BandedFactor(matrix, np.arange(30)).solve(b), np.linalg.solve(matrix.toarray(), b)
    )


def test_matrices_that_cannot_be_solved_are_refused():
    with pytest.raises(ParameterError, match="NaN or infinite"):
        BandedFactor(sp.csc_array(np.full((4, 4), np.nan)), np.arange(4))
    with pytest.raises(SolverError):
        BandedFactor(sp.csc_array(np.ones((4, 4))), np.arange(4))

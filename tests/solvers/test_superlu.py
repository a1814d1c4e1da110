"""SuperLU factors against dense algebra, and the independence of columns bit for bit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import splu

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.fields.sar import operator
from xr_spde.solvers.factor import Factor
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_tree import grow
from xr_spde.solvers.superlu import BLOCK, SuperLUFactor


def varied(shape: tuple[int, int], boundary: str = "cylinder", seed: int = 0) -> sp.csc_array:
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(1e-4), np.log(2.0), shape))
    rho, theta = rng.uniform(1, 7, shape), rng.uniform(-np.pi / 2, np.pi / 2, shape)
    return operator(kappa2, rho, theta, boundary=boundary)


@pytest.mark.parametrize("boundary", ["cylinder", "plane", "torus", "paper"])
@pytest.mark.parametrize("geometric", [False, True])
def test_factor_matches_dense_algebra(boundary, geometric):
    shape = (17, 23)
    matrix = varied(shape, boundary)
    order = grow(grid(shape, boundary=boundary, leaf=16)).order if geometric else None
    factor = SuperLUFactor(matrix, permutation=order)
    assert isinstance(factor, Factor)
    dense = matrix.toarray()
    b = np.random.default_rng(1).standard_normal((factor.n, 37))
    np.testing.assert_allclose(factor.solve(b), np.linalg.solve(dense, b), atol=1e-10)
    np.testing.assert_allclose(factor.solve_transposed(b), np.linalg.solve(dense.T, b), atol=1e-10)
    np.testing.assert_array_equal(factor.solve(b[:, 5]), factor.solve(b)[:, 5])
    assert factor.solve(b[:, 5]).shape == (factor.n,)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    inverse = np.linalg.inv(dense)
    expected = (inverse**2).sum(axis=1)
    np.testing.assert_allclose(factor.gram_inverse_diagonal(), expected, rtol=1e-10)


@pytest.mark.parametrize("kappa2", [1e-4, 1e-2, 2.0])
@pytest.mark.parametrize("rho", [1.0, 7.0])
@pytest.mark.parametrize("boundary", ["plane", "torus"])
def test_no_row_exchange_is_needed_over_the_training_range(kappa2, rho, boundary):
    matrix = operator(np.full((40, 50), kappa2), rho, 0.6, boundary=boundary)
    factor = SuperLUFactor(matrix)
    b = np.random.default_rng(2).standard_normal(factor.n)
    assert factor.residual(matrix, b) < 1e-13


def test_order_of_the_grid_keeps_the_fill_low():
    shape = (96, 96)
    matrix = operator(np.full(shape, 0.1), 2.0, 0.3, boundary="cylinder")
    natural = SuperLUFactor(matrix, permutation=np.arange(shape[0] * shape[1]))
    order = grow(grid(shape, boundary="cylinder", leaf=16)).order
    geometric = SuperLUFactor(matrix, permutation=order)
    assert geometric.fill < 1.2 * SuperLUFactor(matrix).fill
    assert geometric.fill < 0.4 * natural.fill


def test_logdet_counts_absolute_values():
    matrix = varied((6, 7))
    flipped = sp.csc_array(sp.diags_array(np.where(np.arange(42) == 3, -1.0, 1.0)) @ matrix)
    assert np.linalg.slogdet(flipped.toarray())[0] == -1.0
    assert SuperLUFactor(flipped).logdet() == pytest.approx(SuperLUFactor(matrix).logdet())


FACTOR = SuperLUFactor(varied((30, 41), seed=5))
NOISE = np.random.default_rng(6).standard_normal((FACTOR.n, 3 * BLOCK))
REFERENCE = {"N": FACTOR.solve(NOISE), "T": FACTOR.solve_transposed(NOISE)}


@settings(max_examples=40)
@given(
    columns=st.lists(st.integers(0, 3 * BLOCK - 1), min_size=1, max_size=2 * BLOCK + 3),
    trans=st.sampled_from(["N", "T"]),
    contiguous=st.booleans(),
)
def test_a_column_does_not_depend_on_position_or_neighbours(columns, trans, contiguous):
    rhs = NOISE[:, columns]
    rhs = np.asfortranarray(rhs) if contiguous else np.ascontiguousarray(rhs)
    solved = FACTOR.solve(rhs) if trans == "N" else FACTOR.solve_transposed(rhs)
    np.testing.assert_array_equal(solved, REFERENCE[trans][:, columns])


def test_a_missing_value_stays_in_its_column():
    noise = NOISE[:, :BLOCK].copy()
    noise[4, 7] = np.nan
    solved = FACTOR.solve(noise)
    others = np.arange(BLOCK) != 7
    np.testing.assert_array_equal(solved[:, others], REFERENCE["N"][:, :BLOCK][:, others])
    assert np.isnan(solved[:, 7]).any()


def test_permuted_factor_is_independent_of_position_too():
    order = grow(grid((30, 41), boundary="cylinder", leaf=16)).order
    factor = SuperLUFactor(varied((30, 41), seed=5), permutation=order)
    whole = factor.solve(NOISE)
    shuffled = np.random.default_rng(7).permutation(NOISE.shape[1])
    np.testing.assert_array_equal(factor.solve(NOISE[:, shuffled]), whole[:, shuffled])
    np.testing.assert_array_equal(factor.solve(NOISE[:, 33:34]), whole[:, 33:34])


@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("width", [1, BLOCK, BLOCK + 1])
def test_right_hand_sides_are_left_alone(width, permuted):
    order = grow(grid((30, 41), boundary="cylinder", leaf=16)).order if permuted else None
    factor = SuperLUFactor(varied((30, 41), seed=5), permutation=order)
    rhs = np.asfortranarray(NOISE[:, :width])
    solved = factor.solve(rhs)
    np.testing.assert_array_equal(rhs, NOISE[:, :width])
    assert solved.flags.f_contiguous
    assert not np.shares_memory(solved, rhs)


def test_threads_share_a_factor():
    results: dict[int, np.ndarray] = {}

    def work(k: int) -> None:
        results[k] = FACTOR.solve(NOISE)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        np.testing.assert_array_equal(results[k], REFERENCE["N"])


def test_memory_grows_once_the_determinant_has_been_asked():
    factor = SuperLUFactor(varied((20, 20)))
    before = factor.nbytes
    assert before >= 8 * factor.fill
    factor.logdet()
    assert factor.nbytes > before


def test_never_a_silently_wrong_factor():
    singular = operator(np.full((6, 7), 1.0), 1.0, 0.0, boundary="torus") - sp.eye_array(42)
    with pytest.raises(SolverError, match=r"singular|residual"):
        SuperLUFactor(sp.csc_array(singular))
    with pytest.raises(SolverError):
        SuperLUFactor(sp.csc_array((42, 42)))
    with pytest.raises(ParameterError, match="NaN"):
        SuperLUFactor(varied((6, 7)) * np.nan)
    with pytest.raises(ParameterError, match="square"):
        SuperLUFactor(sp.csc_array(np.ones((2, 3))))
    with pytest.raises(ParameterError, match=r"\(41, 2\).*\(42, K\)"):
        SuperLUFactor(varied((6, 7))).solve(np.ones((41, 2)))


def test_symmetric_mode_halves_the_fill_of_the_default():
    matrix = varied((96, 144))
    assert SuperLUFactor(matrix).fill < 0.65 * splu(matrix).nnz

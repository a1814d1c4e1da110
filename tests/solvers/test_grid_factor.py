"""The grid solver against dense algebra and SuperLU."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import MemoryGuardError, ParameterError, SolverError
from xr_spde._core.options import set_options
from xr_spde.fields.sar import operator
from xr_spde.fields.stencil import BOUNDARIES, assemble
from xr_spde.solvers.factor import Factor
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.grid_fronts import _places
from xr_spde.solvers.grid_memory import block_width, predict
from xr_spde.solvers.grid_tree import grow
from xr_spde.solvers.superlu import SuperLUFactor

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
boundaries = st.sampled_from(BOUNDARIES)
leaves = st.sampled_from([1, 8, 30, 72])


def sar(shape, boundary, seed, least=1e-4):
    """SAR matrix with parameters that jump from node to node."""
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(least), np.log(2.0), shape))
    rho, theta = rng.uniform(1, 7, shape), rng.uniform(-np.pi / 2, np.pi / 2, shape)
    return operator(kappa2, rho, theta, boundary=boundary)


def error(found, expected):
    """Largest error relative to the largest value of each column."""
    return (np.abs(found - expected).max(axis=0) / np.abs(expected).max(axis=0)).max()


def close(found, expected, rtol):
    """Compare relative to the largest value of each column."""
    assert error(found, expected) <= rtol


@settings(max_examples=40, deadline=None)
@given(shape=shapes, boundary=boundaries, leaf=leaves, seed=st.integers(0, 10_000))
def test_general_matrices_match_dense(shape, boundary, leaf, seed):
    matrix = sar(shape, boundary, seed)
    held = GridFactor(matrix, shape=shape, boundary=boundary, leaf=leaf)
    assert isinstance(held, Factor)
    dense, b = matrix.toarray(), np.random.default_rng(seed).standard_normal((held.n, 3))
    close(held.solve(b), np.linalg.solve(dense, b), 1e-10)
    close(held.solve_transposed(b), np.linalg.solve(dense.T, b), 1e-10)
    sign, logdet = np.linalg.slogdet(dense)
    assert held.slogdet() == pytest.approx((sign, logdet), rel=1e-10, abs=1e-10)
    assert held.nbytes == held.memory.factor


@settings(max_examples=40, deadline=None)
@given(shape=shapes, boundary=boundaries, leaf=leaves, seed=st.integers(0, 10_000))
def test_random_stencils_match_dense(shape, boundary, leaf, seed):
    # signs at random, nothing symmetric; a centre that keeps pivots away from zero
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((9, *shape))
    weights[4] = 1.2 * np.abs(weights).sum(axis=0) * rng.choice([-1, 1], shape)
    matrix = assemble(weights, boundary=boundary)
    held = GridFactor(matrix, shape=shape, boundary=boundary, leaf=leaf)
    dense, b = matrix.toarray(), rng.standard_normal((held.n, 2))
    close(held.solve(b), np.linalg.solve(dense, b), 1e-12)
    assert held.slogdet() == pytest.approx(np.linalg.slogdet(dense), rel=1e-12, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, boundary=boundaries, leaf=leaves, seed=st.integers(0, 10_000))
def test_positive_definite_matrices_match_dense(shape, boundary, leaf, seed):
    rng = np.random.default_rng(seed)
    matrix = sar(shape, boundary, seed, least=1e-2)
    observed = sp.diags_array(10.0 * (rng.random(matrix.shape[0]) < 0.2))
    posterior = sp.csc_array(matrix.T @ matrix + observed)
    held = GridFactor(posterior, shape=shape, boundary=boundary, leaf=leaf, reach=2, symmetric=True)
    dense, b = posterior.toarray(), rng.standard_normal((held.n, 3))
    expected = np.linalg.solve(dense, b)
    close(held.solve(b), expected, 1e-9)
    close(held.solve_transposed(b), expected, 1e-9)
    assert held.slogdet() == pytest.approx(np.linalg.slogdet(dense), rel=1e-10, abs=1e-10)
    assert held.nbytes == held.memory.factor


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_agrees_with_superlu(boundary):
    shape = (75, 100)
    matrix = sar(shape, boundary, 3)
    ours, theirs = GridFactor(matrix, shape=shape, boundary=boundary), SuperLUFactor(matrix)
    b = np.random.default_rng(1).standard_normal((ours.n, 5))
    close(ours.solve(b), theirs.solve(b), 1e-12)
    close(ours.solve_transposed(b), theirs.solve_transposed(b), 1e-12)
    close(ours.solve(b[:, 0]), theirs.solve(b[:, 0]), 1e-12)
    assert ours.logdet() == pytest.approx(theirs.logdet(), rel=1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("symmetric", [False, True])
def test_adjoint_identity(symmetric, dtype):
    shape = (31, 44)
    matrix = sar(shape, "cylinder", 5, least=0.1)
    matrix = sp.csc_array(matrix.T @ matrix) if symmetric else matrix
    held = GridFactor(
        matrix, shape=shape, boundary="cylinder", reach=2, symmetric=symmetric, dtype=dtype
    )
    x, y = np.random.default_rng(2).standard_normal((2, held.n)).astype(dtype)
    left, right = held.solve(x) @ y, x @ held.solve_transposed(y)
    scale = np.linalg.norm(held.solve(x)) * np.linalg.norm(y)
    assert abs(left - right) < 100 * np.finfo(dtype).eps * scale


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bits_of_a_column_depend_on_that_column_alone(dtype):
    shape = (50, 61)
    held = GridFactor(sar(shape, "plane", 8), shape=shape, boundary="plane", dtype=dtype)
    width = block_width(held.n, np.dtype(dtype), host=True)
    b = np.random.default_rng(4).standard_normal((held.n, 2 * width + 7))
    whole = held.solve(b)
    assert whole.dtype == dtype
    shuffled = np.random.default_rng(5).permutation(b.shape[1])
    np.testing.assert_array_equal(held.solve(b[:, shuffled]), whole[:, shuffled])
    np.testing.assert_array_equal(held.solve(b[:, 3:4]), whole[:, 3:4])
    by_column = held.solve(np.asfortranarray(b))
    assert by_column.flags.f_contiguous
    np.testing.assert_array_equal(by_column, whole)
    np.testing.assert_array_equal(held.solve(b[:, ::2]), whole[:, ::2])
    close(held.solve(b[:, 0]), whole[:, 0], 100 * np.finfo(dtype).eps)
    assert held.solve(b[:, :0]).shape == (held.n, 0)


def test_right_hand_sides_are_left_alone():
    shape = (20, 21)
    held = GridFactor(sar(shape, "torus", 8), shape=shape, boundary="torus")
    for b in (np.ones(held.n), np.ones((held.n, 64))):
        held.solve(b)
        assert (b == 1.0).all()


@pytest.mark.parametrize("boundary", ["cylinder", "torus"])
@pytest.mark.parametrize("kappa2", [1e-4, 0.05])
def test_single_precision_loses_what_rounding_the_matrix_loses(kappa2, boundary):
    shape = (64, 96)
    matrix = operator(np.full(shape, kappa2), 7.0, 0.4, boundary=boundary)
    rounded = matrix.astype(np.float32).astype(np.float64)
    held = GridFactor(matrix, shape=shape, boundary=boundary, dtype=np.float32)
    b = np.random.default_rng(6).standard_normal((held.n, 4))
    for transposed in (False, True):
        exact, close_by = (
            SuperLUFactor(one.T.tocsc() if transposed else one).solve(b)
            for one in (matrix, rounded)
        )
        plain = held.solve_transposed(b) if transposed else held.solve(b)
        lost = error(plain, exact)
        assert lost < 2 * error(close_by, exact) + 5e-6
        # each correction multiplies the error by that of the factor
        once = held.solve_refined(matrix, b, transposed=transposed)
        assert once.dtype == np.float64
        assert error(once, exact) < 3 * lost**2 + 1e-12
        # the reference itself is good to epsilon times the condition, 8e-11 for kappa2 = 1e-4
        assert error(held.solve_refined(matrix, b, steps=4, transposed=transposed), exact) < 1e-11
    assert held.logdet() == pytest.approx(SuperLUFactor(matrix).logdet(), rel=1e-6)


def test_refinement_with_another_matrix_is_refused():
    shape = (20, 30)
    matrix = sar(shape, "plane", 3)
    held = GridFactor(matrix, shape=shape, boundary="plane", dtype=np.float32)
    with pytest.raises(SolverError, match="refinement in float32 does not converge"):
        held.solve_refined(3.0 * matrix, np.ones(held.n))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", [(120, 160), (40, 400)])
def test_predicted_memory_bounds_the_measured_one(shape, symmetric, dtype):
    reach = 2 if symmetric else 1
    matrix = operator(np.full(shape, 0.1), 3.0, 0.5, boundary="cylinder")
    matrix = sp.csc_array(matrix.T @ matrix) if symmetric else matrix
    expected = predict(
        grid(shape, boundary="cylinder", reach=reach), symmetric=symmetric, dtype=dtype
    )
    b = np.ones((matrix.shape[0], 256), dtype=dtype)
    _places.cache_clear()
    grow.cache_clear()
    tracemalloc.start()
    settings = {"reach": reach, "symmetric": symmetric, "dtype": dtype}
    held = GridFactor(matrix, shape=shape, boundary="cylinder", **settings)
    left = tracemalloc.get_traced_memory()[0]
    x = held.solve(b)
    peak = tracemalloc.get_traced_memory()[1] - x.nbytes
    tracemalloc.reset_peak()
    held.inverse_on_pattern()
    inverting = tracemalloc.get_traced_memory()[1] - left - x.nbytes
    tracemalloc.stop()
    assert held.memory == expected
    assert held.nbytes == expected.factor <= left
    assert left <= expected.factor + expected.index <= 1.15 * left
    assert peak <= expected.peak <= 1.15 * peak
    # a workspace of some megabytes is counted three times over, which shows on small grids
    assert inverting <= expected.inverting <= 1.3 * inverting + 8e6


def test_memory_of_any_grid_is_known_at_once():
    large = predict(grid((3600, 7200), boundary="cylinder"), symmetric=False, dtype=np.float32)
    assert 10e9 < large.factor < 40e9
    assert large.peak < 2 * large.factor


@pytest.mark.parametrize(("n", "width"), [(100, 64), (55_296, 64), (2**19, 16), (2**25, 8)])
def test_blocks_of_right_hand_sides_fit_memory(n, width):
    assert block_width(n, np.dtype(np.float64), host=True) == width
    assert block_width(n, np.dtype(np.float32), host=True) >= width


def test_memory_guard_speaks_first():
    shape = (60, 80)
    matrix = sar(shape, "plane", 0)
    with (
        set_options(memory_limit=10**6),
        pytest.raises(MemoryGuardError, match=r"factor of a grid of 60 x 80.*limit is 976"),
    ):
        GridFactor(matrix, shape=shape, boundary="plane")


def test_singular_matrices_are_refused():
    shape = (24, 30)
    matrix = operator(np.full(shape, 1.0), 1.0, 0.0, boundary="plane")
    matrix.data[matrix.indptr[5] : matrix.indptr[6]] = 0.0
    with pytest.raises(SolverError, match="singular"):
        GridFactor(matrix, shape=shape, boundary="plane")
    flat = operator(np.full(shape, 1e-18), 2.0, 0.3, boundary="torus")
    with pytest.raises(SolverError, match="singular"):
        GridFactor(flat, shape=shape, boundary="torus")
    poor = operator(np.full(shape, 1e-9), 2.0, 0.3, boundary="torus")
    GridFactor(poor, shape=shape, boundary="torus")
    with pytest.raises(SolverError, match=r"singular.*float64"):
        GridFactor(poor, shape=shape, boundary="torus", dtype=np.float32)
    settings = {"shape": shape, "boundary": "torus", "reach": 2, "symmetric": True}
    with pytest.raises(SolverError, match="positive definite"):
        GridFactor(-sp.csc_array(poor.T @ poor), **settings)
    mild = operator(np.full(shape, 0.5), 2.0, 0.3, boundary="torus")
    skew = sp.csc_array(mild.T @ mild + 0.01 * sp.triu(mild, 1))
    with pytest.raises(SolverError, match="not symmetric"):
        GridFactor(skew, **settings)


def test_bad_arguments_are_named():
    shape = (12, 14)
    matrix = sar(shape, "torus", 0)
    with pytest.raises(ParameterError, match=r"shape \(168, 168\); expected \(169, 169\)"):
        GridFactor(matrix, shape=(13, 13), boundary="torus")
    with pytest.raises(ParameterError, match=r"more than 1 rows.*larger reach"):
        GridFactor(matrix @ matrix, shape=shape, boundary="torus")
    with pytest.raises(ParameterError, match="not periodic"):
        GridFactor(matrix, shape=shape, boundary="cylinder", leaf=9)
    with pytest.raises(ParameterError, match="dtype is int64"):
        GridFactor(matrix, shape=shape, boundary="torus", dtype=int)
    with pytest.raises(ParameterError, match="complex128"):
        GridFactor(matrix * 1j, shape=shape, boundary="torus")
    held = GridFactor(matrix, shape=shape, boundary="torus")
    with pytest.raises(ParameterError, match=r"\(3,\); expected \(168, K\)"):
        held.solve(np.ones(3))
    matrix.data[7] = np.nan
    with pytest.raises(ParameterError, match="NaN"):
        GridFactor(matrix, shape=shape, boundary="torus")


def test_entries_given_twice_are_added():
    shape = (9, 11)
    matrix = sar(shape, "plane", 2).tocoo()
    rows, columns = matrix.coords
    halves = (np.tile(matrix.data / 2, 2), (np.tile(rows, 2), np.tile(columns, 2)))
    held = GridFactor(sp.coo_array(halves), shape=shape, boundary="plane")
    assert held.logdet() == pytest.approx(np.linalg.slogdet(matrix.toarray())[1], rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_entries_do_not_fade_into_slow_arithmetic(dtype):
    # kappa2 = 60: the inverse falls by 1e-38 within 20 cells
    shape = (160, 90)
    matrix = operator(np.full(shape, 60.0), 1.0, 0.0, boundary="cylinder")
    held = GridFactor(matrix, shape=shape, boundary="cylinder", dtype=dtype)
    smallest = np.finfo(dtype).tiny ** 0.5
    for batch, blocks in zip(held._tree.levels[0], held._sweeps.blocks[0], strict=True):
        assert batch.pivots == 160
        sizes = np.abs(blocks.down[blocks.down != 0.0])
        assert sizes.min() > smallest / held._sweeps.scale
    exact = SuperLUFactor(matrix).solve(np.eye(held.n, 3))
    close(held.solve(np.eye(held.n, 3)), exact, 10 * np.finfo(dtype).eps)

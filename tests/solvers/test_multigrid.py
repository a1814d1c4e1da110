"""The multigrid solver against dense algebra, SuperLU and the Galerkin product of matrices."""

from __future__ import annotations

import logging
import threading
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import splu

from xr_spde._core.errors import (
    MemoryGuardError,
    ParameterError,
    SolverError,
    UnknownNameError,
)
from xr_spde._core.options import set_options
from xr_spde.fields.sar import operator, weights
from xr_spde.fields.stencil import BOUNDARIES, OFFSETS, assemble
from xr_spde.solvers import multigrid_stencil as stencil
from xr_spde.solvers.factor import Factor
from xr_spde.solvers.multigrid import Convergence, MultigridFactor, predict_bytes
from xr_spde.solvers.multigrid_level import Level, extended, inner, join, split
from xr_spde.solvers.multigrid_lines import Lines

boundaries = st.sampled_from(BOUNDARIES)
seeds = st.integers(0, 10_000)


def constant(shape, kappa2, rho, degrees):
    return weights(*(np.full(shape, v) for v in (kappa2, rho, np.radians(degrees))))


def smooth(shape, kappa2=1.0, rho=9.0):
    """Weights of maps that vary smoothly: kappa2 by a factor of 50, all directions."""
    ny, nx = shape
    y, x = np.linspace(0, 1, ny)[:, None], 2 * np.pi * np.arange(nx) / nx
    level = 0.5 + 0.5 * np.sin(x) * np.cos(3 * y)
    ratio = 1 + (rho - 1) * (0.5 + 0.5 * np.cos(x - 2 * y))
    return weights(kappa2 * 0.01 * 50.0**level, ratio, 1.5 * np.sin(x + 3 * y))


def rough(shape, seed, least=1e-4, most=7.0):
    """Weights of maps that jump from node to node."""
    rng = np.random.default_rng(seed)
    kappa2 = np.exp(rng.uniform(np.log(least), np.log(2.0), shape))
    return weights(kappa2, rng.uniform(1, most, shape), rng.uniform(-np.pi / 2, np.pi / 2, shape))


def noise(n, count=1, seed=0):
    return np.random.default_rng(seed).standard_normal((n, count))


def residual(matrix, x, b):
    return (np.linalg.norm(matrix @ x - b, axis=0) / np.linalg.norm(b, axis=0)).max()


def interpolation(size, ring):
    """Linear interpolation from even nodes, node by node."""
    matrix = np.zeros((size, (size + 1) // 2))
    for node in range(size):
        if node % 2 == 0:
            matrix[node, node // 2] = 1
            continue
        for even in (node - 1, node + 1):
            if even < size or ring:
                matrix[node, even % size // 2] += 0.5
    return matrix


# the parts, on grids so small that every special case of an edge occurs


def any_stencil(shape, boundary, seed):
    rng = np.random.default_rng(seed)
    given = rng.standard_normal((9, *shape))
    given[4] = 9 + rng.random(shape)
    return given, *stencil.checked(given, boundary)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=80, deadline=None)
@given(shape=shapes, boundary=boundaries, seed=seeds)
def test_stencils_are_matrices(shape, boundary, seed):
    raw, own, periodic = any_stencil(shape, boundary, seed)
    dense = stencil.to_matrix(own, periodic).toarray()
    transposed = stencil.to_matrix(stencil.transpose(own, periodic), periodic).toarray()
    np.testing.assert_allclose(transposed, dense.T, atol=1e-14)
    if boundary != "paper" or min(shape) > 2:  # a row that is north and south at once
        np.testing.assert_allclose(dense, assemble(raw, boundary=boundary).toarray(), atol=1e-14)
        found = stencil.from_matrix(assemble(raw, boundary=boundary), shape, boundary)
        np.testing.assert_allclose(stencil.to_matrix(found, periodic).toarray(), dense, atol=1e-14)
    assert stencil.OFFSETS == OFFSETS


@settings(max_examples=80, deadline=None)
@given(shape=shapes, boundary=boundaries, seed=seeds)
def test_coarse_operators_are_galerkin_products(shape, boundary, seed):
    _, own, periodic = any_stencil(shape, boundary, seed)
    ways = np.kron(*(interpolation(n, ring) for n, ring in zip(shape, periodic, strict=True)))
    coarse = stencil.to_matrix(stencil.coarsen(own, periodic), periodic).toarray()
    expected = ways.T @ stencil.to_matrix(own, periodic).toarray() @ ways
    np.testing.assert_allclose(coarse, expected, atol=1e-13)


@settings(max_examples=80, deadline=None)
@given(shape=shapes, boundary=boundaries, seed=seeds)
def test_levels_do_what_matrices_do(shape, boundary, seed):
    _, own, periodic = any_stencil(shape, boundary, seed)
    own[4] += 20  # lines are solved exactly where they dominate
    dense = stencil.to_matrix(own, periodic).toarray()
    ways = np.kron(*(interpolation(n, ring) for n, ring in zip(shape, periodic, strict=True)))
    level, rng = Level(own, periodic, np.float64), np.random.default_rng(seed)
    x, b = level.padded(), rng.standard_normal(shape)
    planes = level.planes(split(b))

    def left():
        return (b.ravel() - dense @ join(inner(x)).ravel()).reshape(shape)

    fine = level.smooth_columns(x, planes)
    if min(shape) > 2:
        np.testing.assert_allclose(left()[:, 1::2], 0, atol=1e-13)
        np.testing.assert_allclose(left()[:, 0::2], fine, atol=1e-13)
    spread = np.zeros(shape)
    spread[:, 0::2] = fine
    np.testing.assert_allclose(level.restrict(fine).ravel(), ways.T @ spread.ravel(), atol=1e-14)
    coarse = rng.standard_normal(fine[::2].shape)
    expected = join(inner(x)).ravel() + ways @ coarse.ravel()
    level.correct(x, extended(coarse, periodic))
    np.testing.assert_allclose(join(inner(x)).ravel(), expected, atol=1e-14)
    product = np.empty(level.n)
    level.apply(x, product)
    np.testing.assert_allclose(join(level.planes(product)).ravel(), dense @ expected, atol=1e-12)
    level.smooth_rows(x, planes)
    if min(shape) > 2 and not (periodic[0] and shape[0] % 2):
        np.testing.assert_allclose(left()[0::2], 0, atol=1e-12)


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 50])
def test_lines_match_dense(length, ring):
    rng = np.random.default_rng(length)
    lower, upper = rng.uniform(-1, 1, (2, length, 3))
    diagonal = rng.uniform(2.1, 3, (length, 3))
    b = rng.standard_normal((length, 3))
    x = b.copy()
    Lines(lower, diagonal, upper, ring=ring).solve(x)
    for m in range(3):
        dense = np.diag(diagonal[:, m]) + np.diag(lower[1:, m], -1) + np.diag(upper[:-1, m], 1)
        if ring and length > 2:
            dense[0, -1], dense[-1, 0] = lower[0, m], upper[-1, m]
        np.testing.assert_allclose(x[:, m], np.linalg.solve(dense, b[:, m]), atol=1e-13)


# the solver


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    boundary=boundaries,
    coarsest=st.sampled_from([1, 20, 300]),
    seed=seeds,
)
@example(shape=(1, 1), boundary="torus", coarsest=1, seed=475)
def test_any_grid_matches_dense(shape, boundary, coarsest, seed):
    own = rough(shape, seed)
    matrix = stencil.to_matrix(*stencil.checked(own, boundary))
    dense = matrix.toarray()
    # where weights cancel on a ring of one or two nodes, rounding alone leaves a larger residual
    assume(np.abs(own).sum(axis=0).max() < 4e3 * np.linalg.svd(dense, compute_uv=False)[-1])
    held = MultigridFactor(own, boundary=boundary, coarsest=coarsest, tol=1e-11)
    assert isinstance(held, Factor)
    assert held.n == shape[0] * shape[1]
    b = noise(held.n, 2, seed)
    for found, expected in (
        (held.solve(b), np.linalg.solve(dense, b)),
        (held.solve_transposed(b), np.linalg.solve(dense.T, b)),
    ):
        assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max()


@pytest.mark.parametrize("boundary", ["cylinder", "plane", "torus"])
@pytest.mark.parametrize("kappa2", [1.0, 1e-2, 1e-5])
@pytest.mark.parametrize(
    ("rho", "degrees"), [(1, 0), (3, 45), (10, 0), (10, 22.5), (10, 45), (10, 70), (10, 90)]
)
def test_iterations_are_few_for_any_anisotropy(boundary, kappa2, rho, degrees):
    shape = 97, 128
    held = MultigridFactor(constant(shape, kappa2, rho, degrees), boundary=boundary, coarsest=500)
    b = noise(held.n)
    x = held.solve(b)
    (report,) = held.convergence
    matrix = operator(
        *(np.full(shape, v) for v in (kappa2, rho, np.radians(degrees))), boundary=boundary
    )
    assert report.residual == pytest.approx(residual(matrix, x, b), rel=1e-2)
    assert report.residual <= 1e-8
    assert report.iterations <= 16


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_varying_maps_match_superlu(boundary):
    own = smooth((150, 201), 1e-2)
    matrix = assemble(own, boundary=boundary)
    held = MultigridFactor(matrix, shape=(150, 201), boundary=boundary, coarsest=600)
    b, exact = noise(held.n, 2), splu(matrix)
    for found, way in ((held.solve(b), "N"), (held.solve_transposed(b), "T")):
        expected = exact.solve(b, way)
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    assert max(report.iterations for report in held.convergence) <= 20


def test_iterations_do_not_grow_with_the_grid():
    counts = []
    for size in (64, 128, 256):
        held = MultigridFactor(
            constant((size, size), 1e-2, 10, 30), boundary="cylinder", coarsest=300
        )
        held.solve(noise(held.n))
        counts.append(held.convergence[0].iterations)
    assert counts[2] <= counts[0] + 3


def test_error_of_a_field_stays_below_the_bound():
    kappa2, shape = 1e-5, (128, 128)
    matrix = operator(*(np.full(shape, v) for v in (kappa2, 4.0, 0.5)), boundary="torus")
    b = noise(matrix.shape[0])
    expected = splu(matrix).solve(b)
    for tol in (1e-4, 1e-8):
        held = MultigridFactor(matrix, shape=shape, boundary="torus", tol=tol, coarsest=300)
        wrong = np.linalg.norm(held.solve(b) - expected) / np.linalg.norm(b)
        assert wrong <= tol / kappa2


def test_columns_do_not_see_each_other():
    held = MultigridFactor(smooth((61, 90)), boundary="cylinder", coarsest=200)
    b = noise(held.n, 5)
    b[:, 3] *= 1e-30
    b[:, 1] = 0.0
    x = held.solve(b)
    assert [report.iterations for report in held.convergence][1] == 0
    order = [4, 0, 3]
    np.testing.assert_array_equal(held.solve(b[:, order]), x[:, order])
    np.testing.assert_array_equal(held.solve(np.asfortranarray(b)[:, 2]), x[:, 2])
    assert held.convergence[0].residual <= 1e-8
    found = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: held.solve(b[:, k])}))
        for k in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.stack([found[k] for k in range(5)], axis=1), x)


def test_single_precision():
    own = smooth((80, 96), 1e-1)
    matrix = assemble(own, boundary="cylinder")
    held = MultigridFactor(own, boundary="cylinder", dtype=np.float32, coarsest=200)
    b = noise(held.n).astype(np.float32)
    x = held.solve(b)
    assert (x.dtype, held.tol) == (np.float32, 1e-5)
    assert residual(matrix, x.astype(float), b.astype(float)) <= 2e-5
    exact = splu(matrix).solve(b.astype(float))
    assert np.abs(x - exact).max() <= 1e-3 * np.abs(exact).max()


def test_progress_is_logged(caplog):
    held = MultigridFactor(smooth((40, 50)), boundary="plane", coarsest=100)
    with caplog.at_level(logging.INFO, "xr_spde.solvers"):
        held.solve(noise(held.n)[:, 0])
    report = held.convergence[0]
    assert isinstance(report, Convergence)
    assert f"{report.iterations} cycles" in caplog.text
    assert f"{report.residual:.1e}" in caplog.text


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_memory_is_predicted(boundary):
    shape, coarsest = (300, 410), 2000
    given = constant(shape, 1e-3, 10.0, 45.0)
    b = noise(given[0].size)[:, 0]
    tracemalloc.start()
    held = MultigridFactor(given, boundary=boundary, coarsest=coarsest)
    own = held.nbytes
    held.solve(b)
    _, forward = tracemalloc.get_traced_memory()
    held.solve_transposed(b)
    _, both = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    borrowed = 0 if boundary == "paper" else given.nbytes
    for peak, transposed in ((forward, False), (both, True)):
        predicted = predict_bytes(
            shape, boundary=boundary, transposed=transposed, coarsest=coarsest
        )
        assert 0.6 * predicted < peak + borrowed < 1.02 * predicted
    assert own <= predict_bytes(shape, boundary=boundary, coarsest=coarsest)


def test_a_solver_that_would_not_fit_is_refused():
    with set_options(memory_limit=10_000_000), pytest.raises(MemoryGuardError, match="300 x 400"):
        MultigridFactor(np.broadcast_to(np.ones((9, 1, 1)), (9, 300, 400)), boundary="plane")


def test_no_half_converged_field():
    held = MultigridFactor(smooth((80, 90), 1e-3), boundary="torus", coarsest=100, max_iterations=3)
    with pytest.raises(SolverError, match=r"residual of .* after 3 cycles.*max_iterations"):
        held.solve(noise(held.n))
    # a stencil without any smoothness is not what the grids are made for
    own = np.random.default_rng(0).standard_normal((9, 60, 60))
    own[4] = np.abs(own[4])
    with pytest.raises(SolverError):
        MultigridFactor(own, boundary="plane", coarsest=100).solve(noise(3600))


def test_singular_matrices_are_refused():
    own = constant((40, 40), 1e-3, 2.0, 30.0)
    own[4] -= own.sum(axis=0)
    with pytest.raises(SolverError, match="singular"):
        MultigridFactor(own, boundary="torus", coarsest=100)


def test_what_it_cannot_give():
    held = MultigridFactor(smooth((20, 20)), boundary="plane")
    with pytest.raises(SolverError, match="log-determinant"):
        held.logdet()
    with pytest.raises(SolverError, match="diagonal"):
        held.gram_inverse_diagonal()


def test_bad_input():
    own = smooth((12, 14))
    for bad, match in (
        (own[:8], r"\(9, ny, nx\)"),
        (np.where(own == own[4].max(), np.nan, own), "NaN"),
        (-own, "centre"),
    ):
        with pytest.raises(ParameterError, match=match):
            MultigridFactor(bad, boundary="plane")
    for bad, match in (
        ({"dtype": np.int64}, "dtype"),
        ({"tol": 2.0}, "tol"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"shape": (14, 12)}, "shape"),
    ):
        with pytest.raises(ParameterError, match=match):
            MultigridFactor(own, boundary="plane", **bad)
    with pytest.raises(UnknownNameError):
        MultigridFactor(own, boundary="sphere")
    with pytest.raises(ParameterError, match="shape"):
        MultigridFactor(assemble(own, boundary="plane"), boundary="plane")
    with pytest.raises(ParameterError, match="apart"):
        MultigridFactor(
            sp.diags_array([1.0, 1.0], offsets=[0, 5], shape=(168, 168)),
            shape=(12, 14),
            boundary="plane",
        )
    held = MultigridFactor(own, boundary="plane")
    for bad in (np.zeros(5), np.zeros((168, 2, 2)), np.full(168, np.nan)):
        with pytest.raises(ParameterError, match="right-hand side"):
            held.solve(bad)

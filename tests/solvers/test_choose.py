"""Choice of solver, memory guard and thread limit."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from xr_spde._core.device import card_count
from xr_spde._core.errors import (
    MemoryGuardError,
    MissingDependencyError,
    ParameterError,
    SolverError,
    UnknownNameError,
)
from xr_spde._core.options import set_options
from xr_spde.fields.sar import operator
from xr_spde.solvers import choose
from xr_spde.solvers.threads import single_blas_thread

SHAPE = (12, 15)
MATRIX = operator(np.full(SHAPE, 0.2), 2.0, 0.4, boundary="cylinder")


needs_cholmod = pytest.mark.skipif(
    importlib.util.find_spec("sksparse") is None, reason="scikit-sparse is not installed"
)
CHOLMOD = pytest.param("cholmod", marks=needs_cholmod)
DIRECT = ["dissection", "superlu", CHOLMOD]


@pytest.mark.parametrize("solver", ["auto", *DIRECT])
def test_every_direct_solver_keeps_the_protocol(solver):
    factor = choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", solver=solver)
    dense = MATRIX.toarray()
    b = np.random.default_rng(0).standard_normal((factor.n, 3))
    np.testing.assert_allclose(factor.solve(b), np.linalg.solve(dense, b), atol=1e-12)
    np.testing.assert_allclose(factor.solve_transposed(b), np.linalg.solve(dense.T, b), atol=1e-12)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    expected = (np.linalg.inv(dense) ** 2).sum(axis=1)
    np.testing.assert_allclose(factor.gram_inverse_diagonal(), expected, rtol=1e-12)
    assert factor.nbytes > 0


@pytest.mark.skipif(card_count() > 0, reason="there is a graphics card")
def test_a_graphics_card_that_is_not_there_is_an_error():
    with set_options(device="cuda"), pytest.raises((MissingDependencyError, ParameterError)):
        choose.factor(MATRIX, shape=SHAPE, boundary="cylinder")


def test_the_log_says_what_was_chosen(caplog):
    with caplog.at_level(logging.INFO, "xr_spde.solvers"):
        choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", dtype=np.float32)
    assert "12 x 15 nodes, solver='auto': dissection on the processor in float32" in caplog.text
    assert "the limit is" in caplog.text


def test_single_precision_is_refused_where_it_loses_too_much():
    shape = (60, 60)
    near = operator(np.full(shape, 1e-4), 7.0, 0.4, boundary="torus")
    with pytest.raises(SolverError, match=r"error of [1-9]e-04.*limit 3e-05; factorise in float"):
        choose.factor(near, shape=shape, boundary="torus", dtype=np.float32)
    held = choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", dtype=np.float32)
    assert held.solve(np.ones(held.n)).dtype == np.float32
    other = choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", dtype="f4", solver="superlu")
    assert other.solve(np.ones(held.n)).dtype == np.float64


@pytest.mark.parametrize("solver", ["multigrid", *DIRECT])
@pytest.mark.parametrize("kappa2", [1e-15, 1e-18, 1e-300])
def test_near_singular_matrices_are_refused(solver, kappa2):
    shape = (24, 32)
    near = operator(np.full(shape, kappa2), 2.0, 0.4, boundary="torus")
    with pytest.raises(SolverError, match=r"singular.*kappa2"):
        choose.factor(near, shape=shape, boundary="torus", solver=solver)


def test_multigrid_where_dissection_does_not_fit():
    shape = (1024, 2048)
    with set_options(memory_limit=10**9):
        choice = choose.choose(shape, boundary="cylinder")
        assert (choice.solver, choice.needed < choice.limit) == ("multigrid", True)
        assert "does not fit: dissection on the processor in float64" in str(choice)
        with pytest.raises(MemoryGuardError, match=r'4.2 GiB.*953.7 MiB.*or solver="multigrid"'):
            choose.choose(shape, boundary="cylinder", solver="dissection")
    with set_options(memory_limit=10**10):
        assert choose.choose(shape, boundary="cylinder").solver == "dissection"
        assert choose.choose(shape, boundary="cylinder", margin=3.0).solver == "multigrid"
    small = choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", solver="multigrid")
    b = np.random.default_rng(0).standard_normal(small.n)
    np.testing.assert_allclose(MATRIX @ small.solve(b), b, atol=1e-6)


def test_large_grids_take_the_order_of_the_grid(monkeypatch):
    small = choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", solver="superlu")
    monkeypatch.setattr(choose, "GEOMETRIC_FROM", 1)
    large = choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", solver="superlu")
    b = np.random.default_rng(0).standard_normal(small.n)
    np.testing.assert_allclose(large.solve(b), small.solve(b), rtol=1e-10)
    assert large.fill != small.fill


def test_unknown_solver_lists_the_known():
    known = "known: 'auto', 'dissection', 'multigrid', 'superlu', 'cholmod'"
    with pytest.raises(UnknownNameError, match=f"unknown solver 'pardiso'; {known}"):
        choose.factor(MATRIX, shape=SHAPE, boundary="cylinder", solver="pardiso")


def test_a_missing_library_comes_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sksparse", None)
    with pytest.raises(MissingDependencyError, match="pip install scikit-sparse"):
        choose.choose(SHAPE, boundary="cylinder", solver="cholmod")


@needs_cholmod
def test_cholmod_agrees_with_dissection_column_by_column():
    shape = (40, 52)
    matrix = operator(np.full(shape, 0.02), 5.0, 0.4, boundary="cylinder")
    grid = {"shape": shape, "boundary": "cylinder"}
    theirs = choose.factor(matrix, **grid, solver="cholmod")
    ours = choose.factor(matrix, **grid)
    b = np.random.default_rng(0).standard_normal((ours.n, 70))
    solved = theirs.solve(b)
    np.testing.assert_allclose(solved, ours.solve(b), atol=1e-9)
    np.testing.assert_array_equal(theirs.solve(b[:, 40:41]), solved[:, 40:41])
    np.testing.assert_allclose(theirs.solve_transposed(b), ours.solve_transposed(b), atol=1e-9)
    assert theirs.logdet() == pytest.approx(ours.logdet(), rel=1e-10)


def test_shape_must_fit():
    with pytest.raises(ParameterError, match=r"\(180, 180\).*\(168, 168\)"):
        choose.factor(MATRIX, shape=(12, 14), boundary="cylinder")


def test_guard_speaks_before_anything_is_allocated():
    tracemalloc.start()
    with (
        set_options(memory_limit=10**5),
        pytest.raises(MemoryGuardError, match=r"12 x 15 nodes.*set_options\(memory_limit="),
    ):
        choose.factor(MATRIX, shape=SHAPE, boundary="cylinder")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**5


def test_prediction_covers_what_was_measured():
    # rows and peak growth in bytes, SuperLU in symmetric mode on one machine
    for n, peak in ((24_576, 48e6), (55_296, 118e6), (524_288, 1.44e9), (2_097_152, 3.2e9)):
        assert peak < choose.predict_bytes(n) < 2.5 * peak


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_thread_limit_holds_in_a_thread_while_another_has_set_its_own():
    seen: list[set[int]] = []

    def work() -> None:
        with single_blas_thread():
            seen.append(blas_threads())
        seen.append(blas_threads())

    with threadpool_limits(2, user_api="blas"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [{1}, {2}]


def test_thread_limit_is_restored_by_the_last_one_out():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        entered, leave = threading.Event(), threading.Event()

        def other() -> None:
            with single_blas_thread():
                entered.set()
                leave.wait(10)

        thread = threading.Thread(target=other)
        with single_blas_thread():
            assert blas_threads() == {1}
            thread.start()
            entered.wait(10)
        assert blas_threads() == {1}
        leave.set()
        thread.join()
        assert blas_threads() == before

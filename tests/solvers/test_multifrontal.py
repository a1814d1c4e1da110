"""Multifrontal elimination against dense algebra."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import xr_spde
from xr_spde.errors import MemoryGuardError, ParameterError, SolverError
from xr_spde.fields.sar import operator
from xr_spde.solvers.multifrontal import MultifrontalFactor, _separator


def bordered(seed, shape, boundary, far, last):
    """Precision on a grid, rows that see patches of it, and unknowns coupled to all."""
    rng, n = np.random.default_rng(seed), shape[0] * shape[1]
    maps = rng.uniform(0.1, 1.0, shape), rng.uniform(1.0, 4.0, shape), rng.uniform(-1.5, 1.5, shape)
    b = operator(*maps, boundary=boundary)
    nodes = np.stack(np.divmod(np.arange(n), shape[1]), axis=1).astype(float)
    centres = nodes[rng.integers(n, size=far)]
    seen = np.abs(centres[:, None] - nodes).max(axis=2) <= 3.0
    across = sp.csr_array(seen * rng.uniform(0.1, 1.0, seen.shape))
    errors = sp.diags_array([np.full(far, 1.5), np.full(far - 1, 0.5), np.full(far - 1, 0.5)],
                            offsets=[0, 1, -1])  # fmt: skip
    loads, more = rng.standard_normal((last, n)), rng.standard_normal((last, far))
    matrix = sp.block_array(
        [[b.T @ b, across.T, sp.csr_array(loads.T)],
         [across, -errors, sp.csr_array(more.T)],
         [sp.csr_array(loads), sp.csr_array(more), 50.0 * n * sp.eye_array(last)]]
    )  # fmt: skip
    return sp.csr_array(matrix), np.concatenate([nodes, centres, np.zeros((last, 2))])


def test_threads_may_share_a_factor():
    matrix, places = bordered(0, (21, 17), "plane", 40, 2)
    factor = MultifrontalFactor(matrix, places, last=2)
    b = np.random.default_rng(0).standard_normal((len(places), 64))
    alone = factor.solve(b), factor.inverse_diagonal()

    def work(_):
        return factor.solve(b), factor.inverse_diagonal()

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(60)):
            for one, expected in zip(found, alone, strict=True):
                np.testing.assert_array_equal(one, expected)


def test_parts_that_nothing_couples():
    matrix, places = bordered(0, (21, 17), "plane", 40, 0)
    twice = sp.csr_array(sp.block_diag([matrix, 2.0 * matrix]))
    apart = np.concatenate([places, places + np.array([0.0, 100.0])])
    factor, one = MultifrontalFactor(twice, apart), MultifrontalFactor(matrix, places)
    b = np.random.default_rng(0).standard_normal((len(places), 3))
    expected = np.concatenate([one.solve(b), 0.5 * one.solve(b)])
    np.testing.assert_allclose(factor.solve(np.concatenate([b, b])), expected, atol=1e-10)
    expected = 2.0 * one.logdet() + len(b) * np.log(2.0)
    assert factor.logdet() == pytest.approx(expected, rel=1e-12)
    diagonal = one.inverse_diagonal()
    expected = np.concatenate([diagonal, diagonal / 2])
    np.testing.assert_allclose(factor.inverse_diagonal(), expected, atol=1e-12)


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(9, 31), (21, 17), (14, 14)]),
    st.sampled_from(["plane", "cylinder", "torus"]),
    st.integers(2, 80),
    st.sampled_from([0, 1, 3]),
)
def test_solutions_determinant_and_inverse(seed, shape, boundary, far, last):
    matrix, places = bordered(seed, shape, boundary, far, last)
    dense = matrix.toarray()
    factor, inverse = MultifrontalFactor(matrix, places, last=last), np.linalg.inv(dense)
    b = np.random.default_rng(seed).standard_normal((len(dense), 20))
    solved, scale = factor.solve(b), np.abs(inverse).max()
    np.testing.assert_allclose(solved, inverse @ b, atol=1e-10 * scale)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-11)
    np.testing.assert_allclose(factor.inverse_diagonal(), np.diagonal(inverse), atol=1e-11 * scale)
    np.testing.assert_array_equal(factor.solve(b[:, 7:8])[:, 0], solved[:, 7])


def test_places_decide_on_the_work_alone():
    matrix, places = bordered(0, (21, 17), "plane", 40, 0)
    b = np.random.default_rng(0).standard_normal((len(places), 3))
    known = MultifrontalFactor(matrix, places)
    other = MultifrontalFactor(matrix, np.random.default_rng(1).permutation(places))
    np.testing.assert_allclose(other.solve(b), known.solve(b), atol=1e-9)
    assert other.nbytes > 1.5 * known.nbytes
    together = MultifrontalFactor(matrix, np.zeros_like(places))
    np.testing.assert_allclose(together.solve(b), known.solve(b), atol=1e-9)


def most_pairs(edges):
    """Size of the largest matching of rows and columns, by augmenting paths."""
    partner = np.full(len(edges), -1)

    def placed(row, tried):
        for column in np.flatnonzero(edges[row]):
            if column not in tried:
                tried.add(column)
                if partner[column] < 0 or placed(partner[column], tried):
                    partner[column] = row
                    return True
        return False

    return sum(placed(row, set()) for row in range(len(edges)))


@given(st.integers(0, 10**6), st.integers(2, 40), st.floats(0.01, 0.5))
def test_separators_are_the_least_that_separate(seed, n, density):
    rng = np.random.default_rng(seed)
    dense = rng.random((n, n)) < density
    dense, left = dense | dense.T, rng.random(n) < 0.5
    held = _separator(sp.csr_array(dense), left)
    rest = ~held
    assert not dense[np.ix_(left & rest, ~left & rest)].any()
    assert np.count_nonzero(held) == most_pairs(dense & left[:, None] & ~left)


def test_bad_matrices_say_what_is_wrong():
    matrix, places = bordered(0, (9, 31), "plane", 5, 0)
    with pytest.raises(ParameterError, match="places"):
        MultifrontalFactor(matrix, places[:-1])
    broken = matrix.copy()
    broken.data[3] = np.nan
    with pytest.raises(ParameterError, match="NaN"):
        MultifrontalFactor(broken, places)
    for singular in (0.0 * matrix, sp.csr_array(np.ones(matrix.shape))):
        with pytest.raises(SolverError, match="singular in double precision"):
            MultifrontalFactor(singular, places)
    with xr_spde.set_options(memory_limit=1000), pytest.raises(MemoryGuardError, match="Sit down"):
        MultifrontalFactor(matrix, places, what="all of it", remedy="Sit down.")

"""Roots by polynomials against eigenvectors."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.assim.roots import best_polynomial, inverse_roots, schedule


def grams(m, size, count, amplitude, seed=0):
    rows = np.random.default_rng(seed).standard_normal((m, size, count))
    rows -= rows.mean(axis=1, keepdims=True)
    rows *= np.reshape(amplitude, (-1, 1, 1)) / np.sqrt(size - 1)
    return rows @ rows.transpose(0, 2, 1)


def all_roots(gram, dtype=np.float64, *, few=False):
    found = np.full(gram.shape, np.nan)
    unit = np.broadcast_to(np.eye(gram.shape[1]), gram.shape)
    for which, roots in inverse_roots(gram, dtype=dtype, few=few):
        found[which] = (roots if few else roots.formed())(unit[which])
    return found


def reference(gram):
    values, vectors = np.linalg.eigh(gram)
    return (vectors / np.sqrt(1 + np.maximum(values, 0))[:, None]) @ vectors.transpose(0, 2, 1)


@pytest.mark.parametrize("amplitude", [0.0, 1e-3, 0.1, 1.0, 3.0, 30.0, 1e3, 1e5])
@pytest.mark.parametrize(("size", "count"), [(2, 1), (7, 3), (20, 50)])
@pytest.mark.parametrize("few", [False, True])
def test_roots_are_those_of_the_eigenproblem(size, count, amplitude, few):
    gram = grams(9, size, count, amplitude)
    found = all_roots(gram, few=few)
    tolerance = 1e-13 * (1 + np.linalg.norm(gram, axis=(1, 2)).max())
    np.testing.assert_allclose(found, reference(gram), atol=min(tolerance, 1e-3))
    np.testing.assert_allclose(found.sum(axis=2), 1.0, atol=min(tolerance, 1e-3))


def test_beyond_what_polynomials_can_do():
    gram = grams(3, 5, 8, 1e8)
    found = all_roots(gram)
    np.testing.assert_allclose(found, reference(gram), atol=1e-9)


def test_in_single_precision_where_that_is_enough():
    gram = grams(20, 10, 12, np.geomspace(0.1, 100, 20))
    for few in (False, True):
        found = all_roots(gram, np.float32, few=few)
        np.testing.assert_allclose(found, reference(gram), atol=1e-5)
    unit = np.eye(10)[None]
    dtypes = {roots(unit).dtype for _, roots in inverse_roots(gram, dtype=np.float32)}
    assert dtypes == {np.dtype(np.float32), np.dtype(np.float64)}


def test_same_bits_whatever_stands_beside():
    gram = grams(50, 12, 20, np.geomspace(0.1, 50, 50))
    together = all_roots(gram)
    alone = np.concatenate([all_roots(gram[k : k + 1]) for k in range(50)])
    np.testing.assert_array_equal(together, alone)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(all_roots(gram[order]), together[order])


@pytest.mark.parametrize(("low", "degree"), [(0.5, 1), (0.1, 2), (0.01, 4), (1e-8, 4)])
def test_best_polynomials_alternate(low, degree):
    """Chebyshev: the best one has as many extrema of alternating sign as coefficients, plus one."""
    coefficients, error = best_polynomial(low, 1.0, degree)
    a = np.geomspace(low, 1.0, 20001)
    left = 1 - np.sqrt(a) * np.polynomial.polynomial.polyval(a - 1, coefficients)
    assert np.abs(left).max() == pytest.approx(error, rel=1e-3)
    signs = np.sign(left[np.abs(left) > 0.99 * error])
    assert 1 + np.count_nonzero(np.diff(signs)) >= degree + 2


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("kind", range(1, 61))
def test_schedules_end_at_one(kind, few):
    x = np.geomspace(2.0 ** (-0.25 * kind), 1.0, 999)
    for coefficients in schedule(kind, few=few):
        x = x * np.polynomial.polynomial.polyval(x * x - 1, coefficients)
    np.testing.assert_allclose(x, 1.0, atol=1e-12)

"""Inflation of ensembles, and its estimate from innovations; errors of observation."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import DTypeError, ParameterError
from xr_spde.assim.inflation import Adaptive, inflate
from xr_spde.assim.noise import ErrorModel, IndependentErrors, as_errors
from xr_spde.assim.projection import project


def test_inflate_multiplies_the_spread_and_keeps_the_mean(make):
    members = make().E
    found = inflate(members, 1.2)
    np.testing.assert_allclose(found.mean(axis=0), members.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(np.cov(found.T), 1.44 * np.cov(members.T), atol=1e-12)
    by = np.linspace(1.0, 2.0, 12)
    np.testing.assert_allclose(inflate(members, by).std(axis=0), by * members.std(axis=0))
    assert inflate(members.astype(np.float32), 1.1).dtype == np.float32
    with pytest.raises(ParameterError, match=r"inflation=0\.5"):
        inflate(members, [1.0] * 11 + [0.5])


def test_inflation_in_single_precision_keeps_its_digits_on_a_large_mean(make):
    members = (54_000.0 + 0.1 * make().E).astype(np.float32)
    exact = members.astype(np.float64)
    expected = exact.mean(axis=0) + 1.5 * (exact - exact.mean(axis=0))
    np.testing.assert_allclose(inflate(members, 1.5), expected, rtol=0, atol=0.0025)  # 2^-8.6


def test_adaptive_inflation_finds_the_missing_variance():
    """Members have a third of the variance that the truth has around their mean."""
    rng = np.random.default_rng(0)
    adaptive = Adaptive(uncertainty=0.1)
    for _ in range(400):
        members = rng.standard_normal((30, 60))
        y = np.sqrt(3.0) * rng.standard_normal(60) + rng.standard_normal(60)
        seen = project(members, y, 1.0)
        adaptive = adaptive.update(seen.misfit, seen.spread, seen.count)
    # the mean of 30 members adds 1/30 to the variance of innovations
    assert adaptive.variance_factor == pytest.approx(3.0 + 1 / 30, abs=0.25)
    assert adaptive.factor == pytest.approx(np.sqrt(adaptive.variance_factor))


def test_adaptive_inflation_per_point_and_without_observations():
    adaptive = Adaptive(np.array([1.5, 1.5, 1.5]), uncertainty=0.2)
    found = adaptive.update([30.0, 0.0, 5.0], [10.0, 0.0, 10.0], [10.0, 0.0, 10.0])
    assert found.variance_factor[0] > 1.5
    assert found.variance_factor[1] == 1.5
    assert 1.0 <= found.variance_factor[2] < 1.5
    with pytest.raises(ParameterError, match="uncertainty=0"):
        Adaptive(uncertainty=0)


def test_adaptive_inflation_never_deflates():
    adaptive = Adaptive(uncertainty=1.0)
    for _ in range(50):
        adaptive = adaptive.update(1.0, 10.0, 10.0)
    assert adaptive.factor == 1.0


def test_independent_errors():
    errors = IndependentErrors([1.0, 4.0])
    assert isinstance(errors, ErrorModel)
    np.testing.assert_allclose(errors.whiten(np.array([[2.0, 2.0]])), [[2.0, 1.0]])
    drawn = errors.noise(np.random.default_rng(0), (5000,))
    np.testing.assert_allclose(drawn.var(axis=0), [1.0, 4.0], rtol=0.1)
    assert errors.select(np.array([False, True])).variance.tolist() == [4.0]
    assert as_errors(2.0, 3).variance.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(ParameterError, match=r"0\.0 at observation 1"):
        IndependentErrors([1.0, 0.0])
    with pytest.raises(ParameterError, match=r"expected \(p,\)"):
        IndependentErrors([[1.0]])
    with pytest.raises(DTypeError, match="real numbers"):
        as_errors("1", 1)


def test_correlated_errors_against_dense_matrices(make):
    from xr_spde.assim.correlated import BlockErrors
    from xr_spde.assim.filters import analyse

    linear = make(12, 7, 20)
    root = np.random.default_rng(0).standard_normal((4, 4))
    block = root @ root.T + np.eye(4)
    errors = BlockErrors([(np.arange(4), block), (np.arange(4, 7), np.diag(linear.r[4:]))])
    dense = np.diag(linear.r)
    dense[:4, :4] = block
    cov = np.cov(linear.E.T)
    gain = cov @ linear.H.T @ np.linalg.inv(linear.H @ cov @ linear.H.T + dense)
    mean = linear.E.mean(axis=0)
    for method in ("etkf", "serial"):
        found = analyse(linear.E, linear.HE, linear.y, errors, method=method)
        expected = mean + gain @ (linear.y - linear.H @ mean)
        np.testing.assert_allclose(found.mean(axis=0), expected, atol=1e-10)
        np.testing.assert_allclose(np.cov(found.T), cov - gain @ linear.H @ cov, atol=1e-10)

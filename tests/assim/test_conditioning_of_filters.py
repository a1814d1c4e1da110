"""Filters where numbers are extreme: tiny errors, repeated observations, ensembles of two."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from xr_spde.assim.filters import analyse
from xr_spde.assim.letkf import letkf
from xr_spde.assim.localization import on_plane
from xr_spde.assim.noise import IndependentErrors
from xr_spde.assim.projection import project


def exact(rows):
    return np.array([[Fraction(float(v)) for v in row] for row in np.atleast_2d(rows)])


def solve(matrix, right):
    """Solution in rational numbers, by elimination."""
    a = np.concatenate([matrix, right], axis=1)
    n = len(a)
    for k in range(n):
        pivot = next(i for i in range(k, n) if a[i, k])
        a[[k, pivot]] = a[[pivot, k]]
        a[k] = a[k] / a[k, k]
        for i in range(n):
            if i != k:
                a[i] = a[i] - a[k] * a[i, k]
    return a[:, n:]


def kalman(linear):
    """Mean, covariance and chi-square of the Kalman filter in rational numbers."""
    E, HE, size = exact(linear.E), exact(linear.HE), len(linear.E)
    mean, seen = E.sum(axis=0) / size, HE.sum(axis=0) / size
    X, Y = E - mean, HE - seen
    total = Y.T @ Y / (size - 1) + np.diag([Fraction(float(v)) for v in linear.r])
    departure = exact(linear.y)[0] - seen
    solved = solve(total, np.concatenate([Y.T @ X / (size - 1), departure[:, None]], axis=1))
    posterior = X.T @ X / (size - 1) - solved[:, :-1].T @ (Y.T @ X / (size - 1))
    chi2 = departure @ solved[:, -1]
    return (
        (mean + departure @ solved[:, :-1]).astype(float),
        posterior.astype(float),
        float(chi2),
    )


def repeated(make, std, n=5, p=4, size=7):
    """Two of the observations are the same one, and no state explains all."""
    linear = make(n, p, size)
    linear.H[1], linear.y[1] = linear.H[0], linear.y[0]
    linear.r = np.full(p, std**2)
    return linear


@pytest.mark.parametrize("std", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
def test_tiny_errors_do_not_touch_what_nobody_observes(make, std):
    linear = repeated(make, std)
    mean, cov, chi2 = kalman(linear)
    arguments = (linear.E, linear.HE, linear.y, linear.r)
    for method in ("etkf", "denkf", "enkf"):
        found = analyse(*arguments, method=method, seed=1)
        np.testing.assert_allclose(found.mean(axis=0), mean, atol=1e-10)
    root = analyse(*arguments)
    np.testing.assert_allclose(np.cov(root.T), cov, atol=1e-11)
    local = letkf(
        *arguments, points=on_plane(np.arange(5.0)), sites=on_plane(np.arange(4.0)), radius=np.inf
    )
    np.testing.assert_allclose(local, root, atol=1e-11)
    assert project(*arguments[1:]).chi_square == pytest.approx(chi2, rel=1e-6)


def test_tiny_errors_in_single_precision(make):
    linear = repeated(make, 1e-6)
    single = linear.E.astype(np.float32)
    places = {"points": on_plane(np.arange(5.0)), "sites": on_plane(np.arange(4.0))}
    found = letkf(single, linear.HE, linear.y, linear.r, radius=np.inf, **places)
    np.testing.assert_allclose(found, analyse(linear.E, linear.HE, linear.y, linear.r), atol=1e-5)


@pytest.mark.parametrize("method", ["etkf", "denkf", "serial"])
def test_an_observation_twice_is_one_of_half_the_variance(make, method):
    linear = make(6, 1, 9)
    twice = np.repeat(linear.HE, 2, axis=1), np.repeat(linear.y, 2), np.repeat(linear.r, 2)
    once = analyse(linear.E, linear.HE, linear.y, linear.r / 2, method=method)
    np.testing.assert_allclose(analyse(linear.E, *twice, method=method), once, atol=1e-12)


def test_two_members_and_members_without_spread(make):
    linear = make(5, 3, 2)
    mean, cov, _ = kalman(linear)
    for method in ("etkf", "serial"):
        found = analyse(linear.E, linear.HE, linear.y, linear.r, method=method)
        np.testing.assert_allclose(found.mean(axis=0), mean, atol=1e-12)
        np.testing.assert_allclose(np.cov(found.T), cov, atol=1e-12)
    same = np.repeat(linear.E[:1], 4, axis=0)
    for method in ("etkf", "denkf", "enkf", "serial"):
        found = analyse(same, same @ linear.H.T, linear.y, linear.r, method=method, rtps=0.5)
        np.testing.assert_allclose(found, same, atol=1e-14)


def test_the_spread_of_the_enkf_is_not_biased(make):
    """Of a useless prior for the gain, what is left is the covariance of the perturbations."""
    linear, rng = make(1, 1, 4), np.random.default_rng(0)
    members = 1e4 * (rng.standard_normal((4, 1)))
    spread = [
        analyse(members, members, np.zeros(1), IndependentErrors([1.0]), method="enkf", seed=seed)
        for seed in range(4000)
    ]
    # mean of 4000 estimates of a variance with 3 degrees of freedom: 0.013 either way
    assert np.mean(np.var(spread, axis=1, ddof=1)) == pytest.approx(1.0, abs=0.05)
    assert linear.E.shape == (4, 1)

"""Model noise in the square root: exactness, truncation, and gain over sampling."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.assim.filters import analyse
from xr_spde.assim.model_noise import add_noise


@pytest.mark.parametrize(("n", "size"), [(6, 9), (6, 7), (6, 20)])
def test_covariance_is_the_sum_where_the_ensemble_spans_the_state(make, n, size):
    members = make(n, 2, size).E
    rng = np.random.default_rng(1)
    root = rng.standard_normal((n, 3))
    variances = rng.uniform(0.1, 5.0, n)
    for noise, added in (
        (0.3, 0.3 * np.eye(n)),
        (variances, np.diag(variances)),
        (root, root @ root.T),
    ):
        found = add_noise(members, noise)
        np.testing.assert_allclose(found.mean(axis=0), members.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(np.cov(found.T), np.cov(members.T) + added, atol=1e-12)


def test_a_small_ensemble_keeps_its_leading_directions(make):
    members = make(30, 2, 8).E
    values = np.sort(np.linalg.eigvalsh(np.cov(members.T)))[::-1][:7]
    found = np.sort(np.linalg.eigvalsh(np.cov(add_noise(members, 0.3).T)))[::-1][:7]
    np.testing.assert_allclose(found, values + 0.3, atol=1e-12)
    root = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 4)))[0] * 3
    total = np.cov(members.T) + root @ root.T
    expected = np.sort(np.linalg.eigvalsh(total))[::-1][:7]
    found = np.sort(np.linalg.eigvalsh(np.cov(add_noise(members, root).T)))[::-1][:7]
    np.testing.assert_allclose(found, expected, atol=1e-11)


def test_little_noise_changes_little(make):
    members = make(30, 2, 8).E
    for noise in (1e-14, np.full((30, 2), 1e-8)):
        np.testing.assert_allclose(add_noise(members, noise), members, atol=1e-6)


def test_members_that_do_not_span_n_minus_one_directions():
    members = np.zeros((6, 10))
    members[0, 0] = 1.0
    found = add_noise(members, 0.5)
    values = np.linalg.eigvalsh(np.cov(found.T))[::-1]
    np.testing.assert_allclose(values[:5], [0.5 + 1 / 6, 0.5, 0.5, 0.5, 0.5], atol=1e-12)


def test_etkf_q_is_the_kalman_filter_with_model_noise(make):
    """Mean and covariance at every cycle, N = n + 2."""
    linear = make(10, 6, 12)
    rng = np.random.default_rng(2)
    model = 0.98 * np.linalg.qr(rng.standard_normal((10, 10)))[0]
    members = linear.E
    mean, cov = members.mean(axis=0), np.cov(members.T)
    for _ in range(50):
        linear.y = rng.standard_normal(6)
        members = add_noise(members @ model.T, 0.05)
        members = analyse(members, members @ linear.H.T, linear.y, linear.r, method="etkf-q")
        mean, cov = linear.posterior(model @ mean, model @ cov @ model.T + 0.05 * np.eye(10))
        np.testing.assert_allclose(members.mean(axis=0), mean, atol=1e-10)
        np.testing.assert_allclose(np.cov(members.T), cov, atol=1e-10)


def test_sampled_noise(make):
    members = np.zeros((4000, 3))
    root = np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 2.0]])
    found = add_noise(members, root, how="sampled", seed=0)
    np.testing.assert_allclose(np.cov(found.T), root @ root.T, atol=0.2)
    found = add_noise(members, [1.0, 4.0, 0.25], how="sampled", seed=0)
    np.testing.assert_allclose(found.var(axis=0), [1.0, 4.0, 0.25], rtol=0.1)
    some = add_noise(members[:7], [1.0, 4.0, 0.25], how="sampled", seed=0)
    np.testing.assert_array_equal(some, found[:7])


def test_single_precision(make):
    members = make(6, 2, 9).E
    found = add_noise(members.astype(np.float32), 0.3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, add_noise(members, 0.3), atol=1e-5)


def test_bad_input(make):
    members = make(6, 2, 9).E
    for noise in (0.0, -1.0, np.nan, np.array([1.0, 1, 1, 1, 1, 0])):
        with pytest.raises(ParameterError, match="numbers > 0"):
            add_noise(members, noise)
    with pytest.raises(ParameterError, match=r"expected a number, \(6,\) or \(6, k\)"):
        add_noise(members, np.ones(5))
    with pytest.raises(ParameterError, match="expected"):
        add_noise(members[:, None], 1.0)
    with pytest.raises(UnknownNameError, match="did you mean 'sampled'"):
        add_noise(members, 1.0, how="sample")

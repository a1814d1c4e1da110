"""Conditional simulation with the exact interpolation as the solver (checks B4 and F4)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from xr_spde.assim.neural_ensemble import (
    conditional_anomalies,
    linearity_defect,
    simulated_values,
)
from xr_spde.errors import ParameterError
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.prior_draws import draw_prior, observation_noise
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters

SHAPE, STEPS = (12, 10), 5
NUMBERS = np.array([0.5, 1.0, 0.0, 0.0, 1.0, 0.5, 1.0, 1.0])
"""Of the spec's order: kappa, tau, m1, m2, v1, v2, gamma, beta."""


class Exact:
    """The exact interpolation of one window as a solver."""

    def __init__(self, mask, variance):
        names = ("kappa", "tau", "m1", "m2", "v1", "v2", "gamma", "beta")
        parameters = SpdeParameters.of(SHAPE, **dict(zip(names, NUMBERS, strict=True)))
        prior = SpaceTime(SpdeOperator(Mesh.of(SHAPE)), parameters, steps=STEPS, alpha=2)
        self.mask = mask
        rows = sp.csr_array(sp.eye_array(mask.size, format="csr")[np.flatnonzero(mask)])
        self.posterior = SpaceTimePosterior(prior, rows, variance[mask])

    def __call__(self, values):
        return self.posterior.mean(values[:, self.mask].astype(np.float64))


@pytest.fixture(scope="module")
def window():
    rng = np.random.default_rng(0)
    mask = rng.random((STEPS, *SHAPE)) < 0.15
    mask[3:] = False  # of the last steps nothing is known
    variance = np.where(mask, rng.uniform(0.05, 0.5, mask.shape), np.nan)
    return mask, variance, Exact(mask, variance)


def drawn(members, entropy=1, steps=STEPS):
    theta = np.zeros((8, 1, *SHAPE)) + NUMBERS[:, None, None, None]
    sea = np.ones(SHAPE, dtype=bool)
    fields, _ = draw_prior(theta, sea=sea, members=members, first=0, steps=steps, entropy=entropy,
                           alpha=2)  # fmt: skip
    return fields, observation_noise(entropy, members, 0, steps, SHAPE)


def test_members_are_draws_of_the_posterior(window):
    mask, variance, exact = window
    count = 4000
    fields, white = drawn(range(count))
    found = conditional_anomalies(exact, fields, white, mask, variance, together=500)
    std = exact.posterior.deviation()
    z = found.mean(axis=0) / (std / np.sqrt(count))
    assert 0.9 < np.sqrt(np.mean(z**2)) < 1.1
    mean = found.mean(axis=0, dtype=np.float64).ravel()
    distance = count * mean @ exact.posterior.apply(mean)
    assert 0.001 < chi2.cdf(distance, mean.size) < 0.999
    ratio = np.mean(np.square(found, dtype=np.float64), axis=0) / std**2
    assert abs(ratio.mean() - 1.0) < 0.01
    assert abs(ratio.std() / np.sqrt(2.0 / count) - 1.0) < 0.2
    # and in their covariances
    flat = found.reshape(count, -1)[:, ::37]
    basis = np.eye(mask.size)[:, ::37]
    covariance = exact.posterior.solve(basis)[::37]
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs((flat.T @ flat / count - covariance) / scale).max() < 5.0 / np.sqrt(count)


def test_without_errors_of_observation_the_spread_lacks_their_part(window):
    """The released code of the source system leaves them out: fault F4 of the specification."""
    mask, variance, exact = window
    fields, white = drawn(range(2000))
    posterior = exact.posterior.solve(np.eye(mask.size))
    gain = posterior[:, mask.ravel()] / variance[mask]
    lost = np.einsum("ij,j,ij->i", gain, variance[mask], gain)
    expected = (np.diag(posterior) - lost)[mask.ravel()]
    found = conditional_anomalies(exact, fields, 0.0 * white, mask, variance, together=500)
    ratio = np.mean(np.square(found[:, mask], dtype=np.float64), axis=0) / expected
    assert abs(ratio.mean() - 1.0) < 0.02
    assert (expected / np.diag(posterior)[mask.ravel()]).mean() < 0.75


def test_a_member_does_not_depend_on_the_others(window):
    mask, variance, exact = window
    whole = conditional_anomalies(exact, *drawn(range(6)), mask, variance, together=4)
    some = conditional_anomalies(exact, *drawn([5, 2]), mask, variance, together=1)
    np.testing.assert_allclose(some, whole[[5, 2]], atol=2e-6)
    other = conditional_anomalies(exact, *drawn([5], entropy=2), mask, variance)
    assert np.abs(other - whole[5]).max() > 0.1
    assert whole.dtype == np.float32


def test_blended_windows_share_their_draws():
    """Members of two overlapping windows are near where the windows' means are."""
    rng = np.random.default_rng(3)
    steps = 9
    mask = rng.random((steps, *SHAPE)) < 0.2
    variance = np.full(mask.shape, 0.05)
    fields, white = drawn(range(200), steps=steps)
    parts = []
    for first in (0, 4):
        cut = slice(first, first + STEPS)
        solve = Exact(mask[cut], variance[cut])
        parts.append(
            conditional_anomalies(solve, fields[:, cut], white[:, cut], mask[cut], variance[cut],
                                  together=200)
        )  # fmt: skip
    ends, starts = parts[0][:, -1], parts[1][:, 0]  # both of step 4, each with one side unseen
    shared = np.mean(ends * starts) / np.sqrt(np.mean(ends**2) * np.mean(starts**2))
    assert shared > 0.5
    alone = np.mean(ends * np.roll(starts, 1, axis=0)) / np.mean(ends**2)
    assert abs(alone) < 0.1


def test_the_exact_interpolation_has_no_defect(window):
    mask, _, exact = window
    rng = np.random.default_rng(1)
    a, b = np.where(mask, rng.standard_normal((2, 3, *mask.shape)), 0.0)
    assert linearity_defect(exact, a, b) < 1e-10
    assert linearity_defect(lambda y: exact(y) + 2.0, a, b) < 1e-10
    bent = linearity_defect(lambda y: exact(y) * (1.0 + 0.1 * np.abs(exact(y))), a, b)
    assert 0.01 < bent < 1.0
    assert np.isnan(linearity_defect(lambda y: 0.0 * y, a, b))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 7))
def test_values_are_seen_where_there_are_observations_alone(seed, count, together):
    rng = np.random.default_rng(seed)
    mask = rng.random((2, 4, 3)) < 0.5
    variance = np.where(mask, rng.uniform(0.1, 2.0, mask.shape), np.nan)
    fields, white = rng.standard_normal((2, count, *mask.shape))
    values = simulated_values(fields, white, mask, variance)
    assert (values[:, ~mask] == 0.0).all()
    expected = fields[:, mask] + white[:, mask] * np.sqrt(variance[mask])
    np.testing.assert_allclose(values[:, mask], expected, rtol=1e-5, atol=1e-5)
    found = conditional_anomalies(lambda y: 2.0 * y, fields, white, mask, variance,
                                  together=together)  # fmt: skip
    np.testing.assert_allclose(found, fields - 2.0 * values, rtol=1e-5, atol=1e-5)


def test_shapes_that_do_not_fit_are_named():
    ones = np.ones((2, 3, 4, 4))
    with pytest.raises(ParameterError, match="expected \\(K, T, ny, nx\\) twice"):
        conditional_anomalies(np.copy, ones, ones[:1], ones[0] > 0, ones[0])

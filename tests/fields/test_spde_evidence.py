"""Likelihood of scattered observations under the space-time prior, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from xr_spde._core.errors import MemoryGuardError
from xr_spde._core.options import set_options
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_evidence import CorrelatedErrors, Sample, negative_log_evidence

SHAPE = (4, 5)
STEPS = 3
COUNT = 9


def case(seed, *, moving, land):
    rng = np.random.default_rng(seed)
    dry = (rng.random(SHAPE) < 0.15) & land
    mesh = Mesh.of(SHAPE, dx=rng.uniform(0.8, 1.2, (4, 1)), dy=1.1, land=dry)
    full = (STEPS, *SHAPE) if moving else SHAPE
    values = {"kappa": rng.uniform(0.8, 1.0, full), "tau": rng.uniform(0.95, 1.05, full)}
    values |= {name: 0.1 * rng.standard_normal(full) for name in ("m1", "m2")}
    values |= {name: rng.uniform(0.2, 1.0, full) for name in ("v1", "v2")}
    values |= {"gamma": rng.uniform(0.5, 0.6, full), "beta": rng.uniform(0.5, 1.0, full)}
    return SpdeOperator(mesh), values, rng


def built(operator, values, *, alpha, initial="stationary"):
    parameters = SpdeParameters.of(SHAPE, land=operator.mesh.land, **values)
    return SpaceTime(operator, parameters, steps=STEPS, dt=0.8, alpha=alpha, initial=initial)


def rows_of(rng, operator):
    """Means of neighbours in space and time, of which some may be on land."""
    found = np.zeros((COUNT, STEPS, *SHAPE))
    for k in range(COUNT):
        t, j, i = (int(rng.integers(0, size - 1)) for size in (STEPS, *SHAPE))
        found[k, t : t + 2, j : j + 2, i : i + 2] = rng.random((2, 2, 2))
    found *= ~operator.mesh.land
    return sp.csr_array(found.reshape(COUNT, -1))


def track(numbers):
    """One track, with the precision's derivatives by the logarithms of std and length."""
    std, length = np.exp(numbers)

    def precision(length):
        apart = np.abs(np.subtract.outer(np.arange(COUNT), np.arange(COUNT)))
        return np.linalg.inv(std**2 * np.exp(-apart / length))

    h = 1e-5
    ends = [precision(length * np.exp(sign * h)) for sign in (1, -1)]
    dets = [np.linalg.slogdet(one)[1] for one in ends]
    own = precision(length)
    bent = sp.csr_array((ends[0] - ends[1]) / (2 * h)), (dets[0] - dets[1]) / (2 * h)
    slopes = (sp.csr_array(-2.0 * own), -2.0 * COUNT), bent
    return CorrelatedErrors(sp.csr_array(own), float(np.linalg.slogdet(own)[1]), slopes)


def sample(rng, operator, *, correlated=True, weight=1.0):
    errors = track(np.log([0.3, 2.0])) if correlated else None
    return Sample(rows_of(rng, operator), rng.standard_normal(COUNT),
                  rng.uniform(0.2, 0.4, COUNT), errors, weight)  # fmt: skip


def moved(one, **changes):
    return Sample(**{**one.__dict__, **changes})


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("alpha", [2, 4])
def test_value_against_the_dense_density(alpha, correlated):
    operator, values, rng = case(0, moving=False, land=False)
    prior = built(operator, values, alpha=alpha)
    one, other = (sample(rng, operator, correlated=correlated, weight=w) for w in (1.0, 0.5))
    field = np.linalg.inv(prior.precision().toarray())
    expected = 0.0
    for s in (one, other):
        errors = np.diag(s.variance)
        if correlated:
            errors = errors + np.linalg.inv(s.correlated.precision.toarray())
        exact = multivariate_normal(cov=s.rows @ field @ s.rows.T + errors)
        expected -= s.weight * exact.logpdf(s.innovation)
    found = negative_log_evidence(prior, [one, other])
    assert found.value == pytest.approx(expected, rel=1e-10)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]), st.sampled_from(["stationary", "rest"]),
       st.booleans(), st.booleans())  # fmt: skip
def test_gradient_by_every_parameter_and_error(seed, alpha, initial, moving, correlated):
    operator, values, rng = case(seed, moving=moving, land=True)
    kw = {"alpha": alpha, "initial": initial}
    samples = [sample(rng, operator, correlated=correlated, weight=w) for w in (2.0, -0.6)]
    found = negative_log_evidence(built(operator, values, **kw), samples)
    gradient, h = found.by_parameters(), 1e-5
    for name, value in values.items():
        direction = rng.standard_normal(value.shape) * ~operator.mesh.land
        ends = [
            negative_log_evidence(
                built(operator, values | {name: value + sign * h * direction}, **kw), samples
            ).value
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * h)
        got = np.sum(gradient[name] * direction.reshape(gradient[name].shape))
        size = np.linalg.norm(gradient[name]) * np.linalg.norm(direction)
        assert abs(got - slope) <= 1e-5 * size, name
    prior, first = built(operator, values, **kw), samples[0]
    direction = rng.standard_normal(COUNT)
    ends = [
        negative_log_evidence(
            prior, [moved(first, variance=first.variance + sign * h * direction), samples[1]]
        ).value
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * h)
    assert found.by_variance[0] @ direction == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_gradient_by_the_correlated_errors():
    operator, values, rng = case(3, moving=False, land=True)
    prior, one, h = built(operator, values, alpha=4), sample(rng, operator), 1e-5
    found = negative_log_evidence(prior, [one])
    for k in range(2):
        ends = []
        for sign in (1, -1):
            numbers = np.log([0.3, 2.0])
            numbers[k] += sign * h
            ends.append(negative_log_evidence(prior, [moved(one, correlated=track(numbers))]).value)
        assert found.by_slopes[k] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)


def test_likelihood_is_that_of_the_posterior():
    from xr_spde.fields.interpolation import SpaceTimePosterior

    operator, values, rng = case(5, moving=False, land=True)
    prior, one = built(operator, values, alpha=2), sample(rng, operator, correlated=False)
    value = SpaceTimePosterior(prior, one.rows, one.variance).log_likelihood(one.innovation)[0]
    assert negative_log_evidence(prior, [one]).value == pytest.approx(-value, rel=1e-12)


def test_too_many_correlated_errors_are_refused_before_anything_is_allocated():
    operator, values, rng = case(5, moving=False, land=False)
    prior, one = built(operator, values, alpha=2), sample(rng, operator)
    many = moved(
        one,
        rows=sp.csr_array(sp.vstack([one.rows] * 200)),
        innovation=np.tile(one.innovation, 200),
        variance=np.tile(one.variance, 200),
    )
    with set_options(memory_limit=2e7), pytest.raises(MemoryGuardError, match="correlated"):
        negative_log_evidence(prior, [many])

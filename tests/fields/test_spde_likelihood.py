"""Likelihood and its gradient by the field and all eight parameters (check A8)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from xr_spde._core.errors import ParameterError
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import ADVECTIONS, SpdeOperator, SpdeParameters
from xr_spde.fields.spde_likelihood import negative_log_likelihood

SHAPE = (5, 6)


def case(seed, *, advection="centred", moving=True, land=True, boundary="neumann"):
    """Operator and parameters that vary gently, so that a stationary first state exists."""
    rng = np.random.default_rng(seed)
    dry = (rng.random(SHAPE) < 0.15) & land
    dry[0, 0] = False
    mesh = Mesh.of(SHAPE, dx=rng.uniform(0.8, 1.2, (5, 1)), dy=1.1, land=dry, boundary=boundary)
    full = (3, *SHAPE) if moving else SHAPE
    values = {"kappa": rng.uniform(0.8, 1.0, full), "tau": rng.uniform(0.95, 1.05, full)}
    values |= {name: 0.1 * rng.standard_normal(full) for name in ("m1", "m2")}
    values |= {name: rng.uniform(0.2, 1.0, full) for name in ("v1", "v2")}
    values |= {"gamma": rng.uniform(0.5, 0.6, full), "beta": rng.uniform(0.5, 1.0, full)}
    return SpdeOperator(mesh, advection=advection), values, rng


def built(operator, values, *, alpha, initial, steps=3):
    parameters = SpdeParameters.of(SHAPE, land=operator.mesh.land, **values)
    return SpaceTime(operator, parameters, steps=steps, dt=0.8, alpha=alpha, initial=initial)


def test_value_against_the_dense_density():
    operator, values, rng = case(0, land=False)
    prior = built(operator, values, alpha=2, initial="stationary")
    fields = rng.standard_normal((2, 3, *SHAPE))
    exact = multivariate_normal(cov=np.linalg.inv(prior.precision().toarray()))
    found = negative_log_likelihood(prior, fields)
    assert found.value == pytest.approx(-exact.logpdf(fields.reshape(2, -1)).sum(), rel=1e-10)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]), st.sampled_from(ADVECTIONS),
       st.sampled_from(["stationary", "rest"]), st.booleans())  # fmt: skip
def test_gradient_by_every_parameter(seed, alpha, advection, initial, moving):
    operator, values, rng = case(seed, advection=advection, moving=moving)
    fields = rng.standard_normal((2, 3, *SHAPE))
    kw = {"alpha": alpha, "initial": initial}
    gradient = negative_log_likelihood(built(operator, values, **kw), fields).by_parameters()
    for name, value in values.items():
        direction = rng.standard_normal(value.shape) * ~operator.mesh.land
        h = 1e-5
        ends = [
            negative_log_likelihood(
                built(operator, values | {name: value + sign * h * direction}, **kw), fields
            ).value
            for sign in (1, -1)
        ]
        found = np.sum(gradient[name] * direction.reshape(gradient[name].shape))
        slope = (ends[0] - ends[1]) / (2 * h)
        size = np.linalg.norm(gradient[name]) * np.linalg.norm(direction)
        # upwind differences have a kink where the flow turns, far from these values
        assert abs(found - slope) <= 1e-5 * size, name


def test_gradient_by_coefficients_that_are_zero():
    """An isotropic tensor has no diagonal neighbours, whose gradient counts all the same."""
    operator, _, rng = case(1, land=False)
    fields = rng.standard_normal((1, 3, *SHAPE))
    for alpha in (2, 4):
        base = {"kappa": 0.8, "gamma": 1.0, "beta": 1.0}
        kw = {"alpha": alpha, "initial": "stationary"}
        h = 1e-4
        prior = built(operator, base | {"gamma": 1.0 + h}, **kw)  # the diagonal of the others
        found = negative_log_likelihood(prior, fields).by_coefficients[0, 3]
        ends = [
            negative_log_likelihood(
                built(operator, base | {"v1": np.sqrt(h), "v2": sign * np.sqrt(h)}, **kw), fields
            ).value
            for sign in (1, -1)
        ]
        assert found.sum() == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4)


def test_gradient_by_the_field():
    operator, values, rng = case(2)
    prior = built(operator, values, alpha=4, initial="stationary")
    x, step = rng.standard_normal((2, 90)) * np.tile(prior.sea, 3)
    ends = [negative_log_likelihood(prior, (x + s * 1e-5 * step)[None]).value for s in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(prior.apply(x) @ step, rel=1e-5)


def test_what_the_likelihood_refuses():
    operator, values, rng = case(3, land=False)
    prior = built(operator, values, alpha=2, initial="rest")
    fields = rng.standard_normal((1, 3, *SHAPE))
    fields[0, 1, 2, 3] = np.nan
    with pytest.raises(ParameterError, match="1 missing values off land"):
        negative_log_likelihood(prior, fields)
    with pytest.raises(ParameterError, match="fields have shape"):
        negative_log_likelihood(prior, fields[:, :2])
    burnt = SpaceTime(operator, prior.parameters, steps=3, burn_in=2)
    with pytest.raises(ParameterError, match="burn_in=2"):
        negative_log_likelihood(burnt, fields)

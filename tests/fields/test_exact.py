"""Exact likelihood and slope against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde.errors import ParameterError
from xr_spde.fields.exact import ExactLikelihood, regression
from xr_spde.fields.sar import operator, tensor, tensor_weights
from xr_spde.fields.stencil import assemble

BOUNDARIES = ("plane", "cylinder", "torus")


def draw(shape, seed):
    rng = np.random.default_rng(seed)
    kappa2, rho = np.exp(rng.normal(-1.0, 0.7, shape)), np.exp(rng.uniform(0.0, 1.2, shape))
    theta, log_d = rng.uniform(-1.5, 1.5, shape), rng.normal(0.0, 0.4, shape)
    return kappa2, rho, theta, log_d


def dense(fields, maps, boundary, rim, noise, lost=0):
    """Log density of what is observed under the covariance itself."""
    ny, nx = maps[0].shape
    rows = 0 if boundary == "torus" else rim
    columns = rim if boundary == "plane" else 0
    wide = [np.pad(m, ((rows, rows), (columns, columns)), mode="edge") for m in maps]
    b = operator(*wide[:3], boundary=boundary).toarray()
    inverse = np.linalg.inv(b)
    covariance = inverse @ np.diag(np.exp(wide[3].ravel())) @ inverse.T
    inside = np.zeros(wide[0].shape, bool)
    inside[rows : rows + ny, columns : columns + nx] = True
    covariance = covariance[np.ix_(inside.ravel(), inside.ravel())]
    covariance += noise * np.eye(len(covariance))
    total = 0.0
    for field in fields.reshape(len(fields), -1):
        seen = np.isfinite(field)
        if seen.any():
            own = covariance[np.ix_(seen, seen)]
            constant = np.linalg.slogdet(own)[1] + seen.sum() * np.log(2.0 * np.pi)
            total -= 0.5 * (1.0 - lost / len(fields)) * constant
            total -= 0.5 * field[seen] @ np.linalg.solve(own, field[seen])
    return total


def gappy(shape, count, seed):
    rng = np.random.default_rng(seed + 1)
    fields = rng.standard_normal((count, *shape))
    fields[:2, rng.random(shape) < 0.3] = np.nan
    fields[2, :, shape[1] // 2 :] = np.nan
    return fields


@settings(max_examples=12, deadline=None)
@given(
    st.integers(5, 8),
    st.integers(5, 8),
    st.sampled_from(BOUNDARIES),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.3]),
    st.booleans(),
    st.integers(0, 99),
)
def test_value_is_the_density_of_the_observed_cells(ny, nx, boundary, rim, noise, gaps, seed):
    maps = draw((ny, nx), seed)
    fields = gappy((ny, nx), 4, seed)
    if not gaps:
        fields = np.nan_to_num(fields, nan=0.7)
    model = ExactLikelihood(fields, boundary, rim=rim, lost=1)
    q = np.stack([maps[0], *tensor(*maps[1:3])])
    value, *_ = model.value_and_slope(q, maps[3], noise)
    assert value == pytest.approx(dense(fields, maps, boundary, rim, noise, lost=1), rel=1e-9)
    assert model.value(q, maps[3], noise) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_units_only_shift_the_value(unit, noise):
    kappa2, rho, theta, log_d = draw((8, 9), 5)
    fields, q = gappy((8, 9), 4, 5), np.stack([kappa2, *tensor(rho, theta)])
    first, second = (
        ExactLikelihood(u * fields, "plane", rim=2).value_and_slope(
            q, log_d + 2.0 * np.log(u), u**2 * noise
        )
        for u in (1.0, unit)
    )
    assert second[0] == pytest.approx(first[0] - np.isfinite(fields).sum() * np.log(unit), rel=1e-9)
    for a, b in zip(first[1:], second[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("rim", [0, 2])
@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("gaps", [False, True])
def test_slope_is_that_of_the_value(boundary, rim, noise, gaps):
    shape = (6, 7)
    kappa2, rho, theta, log_d = draw(shape, 5)
    fields = gappy(shape, 4, 6)
    if not gaps:
        fields = np.nan_to_num(fields, nan=-0.4)
    model = ExactLikelihood(fields, boundary, rim=rim)
    q = np.stack([kappa2, *tensor(rho, theta)])
    _, by_q, by_log_d, by_noise = model.value_and_slope(q, log_d, noise)
    rng = np.random.default_rng(0)
    for _ in range(3):
        step_q, step_d, step_t = rng.standard_normal(q.shape), rng.standard_normal(shape), 0.3
        h = 1e-5
        ends = [
            model.value_and_slope(q + s * step_q, log_d + s * step_d, noise * np.exp(s * step_t))[0]
            for s in (-h, h)
        ]
        slope = np.vdot(by_q, step_q) + np.vdot(by_log_d, step_d) + by_noise * step_t
        assert slope == pytest.approx((ends[1] - ends[0]) / (2.0 * h), rel=1e-6, abs=1e-6)


def test_complete_fields_have_the_likelihood_of_the_model():
    from xr_spde.fields.field import GaussianField

    shape = (9, 12)
    kappa2, rho, theta, _ = draw(shape, 3)
    fields = np.random.default_rng(1).standard_normal((5, *shape))
    value, *_ = ExactLikelihood(fields, "cylinder").value_and_slope(
        np.stack([kappa2, *tensor(rho, theta)]), np.zeros(shape)
    )
    truth = GaussianField(kappa2, rho, theta, "cylinder").log_likelihood(fields)
    assert value == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize(
    ("fields", "boundary", "problem"),
    [
        (np.zeros((8, 8)), "plane", r"shape \(8, 8\)"),
        (np.full((2, 8, 8), np.nan), "plane", "finite values"),
        (np.full((2, 8, 8), np.inf), "plane", "finite values"),
        (np.zeros((2, 8, 8)), "paper", "'paper'"),
        (np.zeros((2, 8, 4)), "cylinder", "4 columns around"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, boundary, problem):
    with pytest.raises(ParameterError, match=problem):
        ExactLikelihood(fields, boundary)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_regression_is_generalised_least_squares(noise):
    shape, rng = (7, 8), np.random.default_rng(8)
    q = np.stack([np.full(shape, v) for v in (0.4, 1.5, 0.8, 0.3)]) * rng.uniform(0.9, 1.1, shape)
    log_d = 0.2 * rng.standard_normal(shape)
    design = np.stack([np.ones(shape), rng.standard_normal(shape)])
    fields = rng.standard_normal((3, *shape)) + 2.0 + 0.5 * design[1]
    fields[0, 2:4, 1:5] = np.nan
    fields[2, 5, :] = np.nan
    likelihood = ExactLikelihood(fields, "plane", rim=2)
    found, covariance = regression(*likelihood.normal_equations(q, log_d, design, noise))
    wide = np.pad(np.concatenate([q, log_d[None]]), ((0, 0), (2, 2), (2, 2)), mode="edge")
    b = assemble(tensor_weights(*wide[:4]), boundary="plane").toarray()
    root = np.linalg.solve(b, np.diag(np.exp(0.5 * wide[4].ravel())))
    inside = np.zeros(wide[4].shape, dtype=bool)
    inside[2:-2, 2:-2] = True
    whole = (root @ root.T)[np.ix_(inside.ravel(), inside.ravel())]
    normal, right = np.zeros((2, 2)), np.zeros(2)
    for field in fields:
        seen = np.isfinite(field).ravel()
        sigma = whole[np.ix_(seen, seen)] + noise * np.eye(seen.sum())
        x = design.reshape(2, -1)[:, seen]
        normal += x @ np.linalg.solve(sigma, x.T)
        right += x @ np.linalg.solve(sigma, field.ravel()[seen])
    np.testing.assert_allclose(found, np.linalg.solve(normal, right), rtol=1e-8)
    np.testing.assert_allclose(covariance, np.linalg.inv(normal), rtol=1e-8)


def test_dependent_covariates_are_refused():
    fields = np.random.default_rng(0).standard_normal((2, 6, 6))
    q = np.stack([np.full((6, 6), v) for v in (0.4, 1.0, 1.0, 0.0)])
    likelihood = ExactLikelihood(fields, "plane")
    equations = likelihood.normal_equations(q, np.zeros((6, 6)), np.ones((2, 6, 6)))
    with pytest.raises(ParameterError, match="linearly dependent"):
        regression(*equations)

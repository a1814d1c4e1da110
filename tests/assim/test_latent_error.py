"""Model error, representativeness and background of codes, against closed forms and sampling."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde.assim.latent.background import background_factor, draw_codes, field_metric
from xr_spde.assim.latent.model_error import GaussianError, fit_error
from xr_spde.assim.latent.protocols import ErrorModel, Propagator
from xr_spde.assim.latent.residuals import cross_residuals, representativeness, step_residuals
from xr_spde.assim.model_noise import add_noise
from xr_spde.errors import ParameterError, UnknownNameError
from xr_spde.fields.linear_dynamics import LinearPropagator, fit_linear

N = 12


def residuals(count=3000, n=N, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((n, n)) * np.logspace(0, -2, n)[:, None]
    return rng.standard_normal((count, n)) @ mixing.T


@given(st.integers(0, 1000), st.floats(1e-6, 1e4))
@settings(max_examples=15, deadline=None)
def test_a6_likelihood_is_the_closed_form(seed, size):
    r = size * residuals(200, 5, seed)
    for kind in ("scalar", "diagonal"):
        exact = np.mean(r**2) if kind == "scalar" else np.mean(r**2, 0)
        for method in ("closed", "likelihood"):
            found = fit_error(r, kind, method=method)
            np.testing.assert_allclose(found.noise, np.broadcast_to(exact, 5), rtol=1e-3)
    moments = r.T @ r / len(r)
    for method in ("closed", "likelihood"):
        found = fit_error(r, "full", method=method).covariance
        assert np.linalg.norm(found - moments) < 0.01 * np.linalg.norm(moments)


def test_a6_the_penalised_factor_tends_to_the_closed_form_and_is_the_minimum():
    r = residuals()
    moments = r.T @ r / len(r)
    small = fit_error(r, "full", method="likelihood", penalty=1e-7).covariance
    assert np.linalg.norm(small - moments) < 0.01 * np.linalg.norm(moments)
    # a strong penalty leaves independent errors
    strong = fit_error(r, "full", method="likelihood", penalty=10.0)
    np.testing.assert_allclose(strong.covariance, np.diag(np.diag(moments)), rtol=1e-6, atol=1e-12)
    scale = np.sqrt(np.diag(moments))
    S = moments / np.outer(scale, scale)

    def cost(W, penalty=0.05):
        off = np.abs(np.tril(W, -1)).sum()
        return 0.5 * np.trace(W @ S @ W.T) - np.log(np.diag(W)).sum() + penalty * off

    found = fit_error(r, "full", method="likelihood", penalty=0.05)
    W = np.linalg.inv(found.factor / scale[:, None])
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert cost(W) <= cost(W + 1e-3 * np.tril(rng.standard_normal(W.shape))) + 1e-12


def test_fewer_residuals_than_numbers(caplog):
    rng = np.random.default_rng(0)
    truth = np.eye(30) + np.diag(np.full(29, 0.5), 1) + np.diag(np.full(29, 0.5), -1)
    r = rng.multivariate_normal(np.zeros(30), truth, 25)
    with caplog.at_level(logging.WARNING):
        plain = fit_error(r, "full")
    assert "no error in 5 directions" in caplog.text
    held = fit_error(r, "full", method="likelihood", penalty=0.15)
    assert np.linalg.eigvalsh(held.covariance)[0] > 1e-3

    def off(found):
        return np.linalg.norm(found.covariance - truth)

    assert off(held) < off(plain)


@pytest.mark.parametrize("kind", ["scalar", "diagonal", "full"])
def test_samples_have_the_covariance_and_filters_take_it(kind):
    found = fit_error(residuals(), kind, representativeness=[0.1, 0.2])
    assert isinstance(found, ErrorModel)
    drawn = found.sample(np.random.default_rng(0), 40_000)
    size = np.linalg.norm(found.covariance)
    assert np.linalg.norm(drawn.T @ drawn / len(drawn) - found.covariance) < 0.05 * size
    np.testing.assert_allclose(found.factor @ found.factor.T, found.covariance, atol=1e-14)
    again = GaussianError.from_state(found.state()[0], json.loads(json.dumps(found.state()[1])))
    np.testing.assert_array_equal(again.covariance, found.covariance)
    np.testing.assert_array_equal(again.representativeness, [0.1, 0.2])
    # in the square root of an ensemble that spans the codes, over half a step
    members = np.random.default_rng(1).standard_normal((4 * N, N))
    before, after = np.cov(members.T), np.cov(add_noise(members, found.over(0.5)).T)
    np.testing.assert_allclose(after - before, 0.5 * found.covariance, atol=1e-10)


def make_windows(noise=0.1, seed=0, count=200):
    rng = np.random.default_rng(seed)
    propagator = LinearPropagator(0.9 * np.linalg.qr(rng.standard_normal((4, 4)))[0])
    z, rows = rng.standard_normal((count, 4)), []
    for _ in range(4):
        rows.append(z)
        z = propagator.step(z) + noise * rng.standard_normal(z.shape)
    return propagator, np.stack(rows, 1)


def test_residuals_are_those_of_single_steps_over_the_root_of_their_length():
    propagator, windows = make_windows()
    assert isinstance(propagator, Propagator)
    found = step_residuals(propagator, windows)
    expected = windows[:, 1:] - windows[:, :-1] @ propagator.matrix().T
    np.testing.assert_allclose(found, expected.reshape(-1, 4), atol=1e-12)
    dts = np.where(np.arange(200) % 2, 1.0, 4.0)[:, None] * np.ones((1, 3))
    windows[0, 0] = np.nan
    found = step_residuals(propagator, windows, dts=dts, times=np.zeros((200, 4)))
    first = (windows[0, 2] - propagator.step(windows[0, 1:2], 4.0)[0]) / 2.0
    np.testing.assert_allclose(found[0], first)
    assert len(found) == 599
    with pytest.raises(ParameterError, match="no step"):
        step_residuals(propagator, windows * np.nan)
    with pytest.raises(ParameterError, match="dts have shape"):
        step_residuals(propagator, windows, dts=dts[:2])


def test_cross_residuals_are_larger_than_those_of_the_training():
    _, windows = make_windows(count=8)
    fitted = fit_linear(windows, ridge=0.0)
    inside = np.mean(step_residuals(fitted, windows) ** 2)
    outside = np.mean(cross_residuals(lambda w: fit_linear(windows[w], ridge=0.0), windows) ** 2)
    fresh = np.mean(step_residuals(fitted, make_windows(seed=0, count=300)[1][8:]) ** 2)
    assert inside < fresh < 1.5 * outside
    assert outside > 1.2 * inside
    with pytest.raises(ParameterError, match="1 windows"):
        cross_residuals(lambda w: fitted, windows[:1])


def test_representativeness_is_the_weighted_mean_square_without_gaps():
    rng = np.random.default_rng(0)
    e = rng.standard_normal((50, 20, 2)) * [1.0, 3.0]
    e[:, 7, 0] = np.nan
    w = rng.random(20)
    others = np.arange(20) != 7
    expected = np.average(np.mean(e[:, others, 0] ** 2, 0), weights=w[others])
    found = representativeness(e, w)
    assert found[0] == pytest.approx(expected)
    point = representativeness(e, per="point")
    assert point.shape == (20, 2)
    assert np.isnan(point[7, 0])
    np.testing.assert_allclose(point[:, 1], np.mean(e[..., 1] ** 2, 0))
    np.testing.assert_allclose(representativeness(np.full((2, 3, 1), 0.5)), [0.25])


def test_a8_background_covariance_of_a_linear_decoder():
    rng = np.random.default_rng(0)
    A, sigma = rng.standard_normal((60, N)), 0.1
    exact = sigma**2 * np.linalg.inv(A.T @ A)
    F = background_factor(A, sigma**2)
    np.testing.assert_allclose(F @ F.T, exact, atol=1e-8 * np.abs(exact).max())
    jplus = np.linalg.pinv(A)
    np.testing.assert_allclose(F @ F.T, sigma**2 * jplus @ jplus.T, rtol=1e-8)
    members = draw_codes(np.arange(N), F, 20_000, seed=1)
    sample = np.cov(members.T)
    assert np.linalg.norm(sample - exact) < 0.05 * np.linalg.norm(exact)
    np.testing.assert_allclose(members.mean(0), np.arange(N), atol=0.01)
    np.testing.assert_array_equal(members[7], draw_codes(np.arange(N), F, 8, seed=1)[7])
    # the slip of the source: far too small a spread
    slip = np.cov(draw_codes(np.arange(N), F, 2000, seed=1, reproduce=True).T)
    assert np.trace(slip) < 0.05 * np.trace(exact)


def test_background_with_gaps_and_a_prior():
    rng = np.random.default_rng(0)
    A, P = rng.standard_normal((5, N)), rng.random(N) + 0.5
    R = np.array([0.1, np.nan, 0.2, np.inf, 0.3])
    known = [0, 2, 4]
    exact = np.linalg.inv(A[known].T @ np.diag(1 / R[known]) @ A[known] + np.diag(1 / P))
    for prior in (P, np.diag(P)):
        F = background_factor(A, R, prior=prior)
        np.testing.assert_allclose(F @ F.T, exact, atol=1e-12)
    assert background_factor(A, R).shape == (N, 3)
    for wrong in (0.0, np.nan):
        with pytest.raises(ParameterError, match="positive, and finite"):
            background_factor(A, wrong)
    with pytest.raises(ParameterError, match="prior has shape"):
        background_factor(A, 1.0, prior=np.ones(3))


def test_the_metric_of_codes_is_the_mean_square_of_fields():
    rng = np.random.default_rng(0)
    J, w, e = rng.standard_normal((20, 3)), rng.random(10), rng.standard_normal(3)
    squares = (J @ e).reshape(10, 2) ** 2
    assert e @ field_metric(J, w) @ e == pytest.approx((w[:, None] * squares).sum())
    both = rng.random((10, 2))
    assert e @ field_metric(J, both) @ e == pytest.approx((both * squares).sum())
    with pytest.raises(ParameterError, match="do not fit"):
        field_metric(J, np.ones(7))


def test_bad_input_is_refused():
    r = residuals(10)
    with pytest.raises(UnknownNameError, match="diagonal"):
        fit_error(r, "diag")
    with pytest.raises(UnknownNameError, match="closed"):
        fit_error(r, method="adam")
    with pytest.raises(ParameterError, match="finite numbers"):
        fit_error(r * np.nan)
    with pytest.raises(ParameterError, match="penalty= is for"):
        fit_error(r, penalty=1.0)
    with pytest.raises(ParameterError, match="all residuals are zero"):
        fit_error(0 * r)
    with pytest.raises(ParameterError, match="a variance is"):
        GaussianError("scalar", np.zeros(3))
    with pytest.raises(UnknownNameError, match="variable"):
        representativeness(np.ones((2, 3, 1)), per="place")

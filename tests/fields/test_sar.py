"""Tensor, its logarithm and the checks of parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import logm

from xr_spde._core.errors import ParameterError
from xr_spde.fields.sar import from_log_tensor, log_tensor, tensor, weights, wrap_angle

ratios = st.floats(1.0, 20.0)
angles = st.floats(-np.pi / 2, np.pi / 2, exclude_max=True)


@given(rho=ratios, theta=angles)
def test_tensor_has_the_stated_axes(rho, theta):
    hxx, hyy, hxy = tensor(rho, theta)
    h = np.array([[hxx, hxy], [hxy, hyy]])
    assert np.linalg.det(h) == pytest.approx(1.0, rel=1e-9)
    long, short = (
        np.array([np.cos(theta), np.sin(theta)]),
        np.array([-np.sin(theta), np.cos(theta)]),
    )
    np.testing.assert_allclose(h @ long, rho * long, atol=1e-10)
    np.testing.assert_allclose(h @ short, short / rho, atol=1e-10)


@given(rho=st.floats(1.001, 20.0), theta=angles)
def test_log_tensor_is_the_matrix_logarithm_and_inverts(rho, theta):
    hxx, hyy, hxy = tensor(rho, theta)
    h1, h2 = log_tensor(rho, theta)
    expected = logm(np.array([[hxx, hxy], [hxy, hyy]]))
    np.testing.assert_allclose([[h1, h2], [h2, -h1]], expected, atol=1e-8)
    rho2, theta2 = from_log_tensor(h1, h2)
    assert rho2 == pytest.approx(rho, rel=1e-12)
    assert np.exp(2j * theta2) == pytest.approx(np.exp(2j * theta), abs=1e-10)
    assert -np.pi / 2 <= theta2 < np.pi / 2


def test_isotropic_log_tensor():
    rho, theta = from_log_tensor(np.zeros(2), np.zeros(2))
    np.testing.assert_array_equal(rho, 1.0)
    np.testing.assert_array_equal(theta, 0.0)


@given(theta=st.floats(-50.0, 50.0))
def test_wrap_angle_keeps_the_axis(theta):
    wrapped = float(wrap_angle(theta))
    assert -np.pi / 2 <= wrapped < np.pi / 2
    assert np.cos(2 * wrapped) == pytest.approx(np.cos(2 * theta), abs=1e-12)
    assert np.sin(2 * wrapped) == pytest.approx(np.sin(2 * theta), abs=1e-12)


def test_wrap_angle_at_the_seam():
    below = np.nextafter(-np.pi / 2, -10)
    assert wrap_angle(np.pi / 2) == -np.pi / 2
    assert wrap_angle(below) < np.pi / 2


def test_bad_parameters_are_named():
    good = np.ones((3, 4))
    with pytest.raises(ParameterError, match="kappa2 has a minimum of -1; expected > 0"):
        weights(-good, good, good)
    with pytest.raises(ParameterError, match="kappa2 has a minimum of 0"):
        weights(0 * good, good, good)
    with pytest.raises(ParameterError, match=r"rho has a minimum of 0\.5; expected >= 1"):
        weights(good, good / 2, good)
    with pytest.raises(ParameterError, match="theta has 12 non-finite"):
        weights(good, good, good * np.inf)
    with pytest.raises(ParameterError, match="shapes"):
        weights(good, np.ones((4, 3)), good)
    with pytest.raises(ParameterError, match="expected \\(ny, nx\\)"):
        weights(1.0, 1.0, 0.0)
    assert np.isfinite(weights(good, good * (1 - 1e-8), good)).all()

"""Characteristics of velocities that are polynomials in time."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError
from xr_spde.fields.characteristics import departure, nodes
from xr_spde.fields.unsteady import trace, turned_back, velocity_at

RNG = np.random.default_rng(0)


def smooth(degree, n=16):
    y, x = np.mgrid[0:n, 0:n] * (np.pi / n)
    shapes = np.stack([np.sin(x) * np.cos(y), np.cos(x) * np.sin(y)])
    return RNG.uniform(-1.5, 1.5, (degree + 1, 2, 1, 1)) * shapes


def test_velocity_is_the_legendre_series():
    coefficients = RNG.standard_normal((4, 2, 3, 5))
    for s in (0.0, 0.3, 1.0):
        expected = np.polynomial.legendre.legval(2 * s - 1, coefficients)
        np.testing.assert_allclose(velocity_at(coefficients, s), expected, atol=1e-12)


def test_a_steady_velocity_is_traced_as_before():
    q = smooth(0)
    for ours, theirs in zip(trace(q, 0.7, 0.2), departure(q[0], 0.5), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_accelerated_drift_has_its_closed_form():
    # q = 2 a s along x: displacement a (s1^2 - s0^2)
    a = 3.0
    coefficients = np.zeros((2, 2, 6, 6))
    coefficients[:, 0] = a
    for at, since in ((0.5, 0.0), (0.25, 1.0), (1.0, 0.5)):
        y, x = trace(coefficients, at, since)
        rows, columns = nodes(y, (6, 6))
        np.testing.assert_allclose(columns - x, a * (at**2 - since**2), atol=1e-12)
        np.testing.assert_allclose(y, rows, atol=1e-12)


def test_backwards_the_same_paths():
    coefficients = smooth(2)
    there = trace(coefficients, 0.8, 0.1)
    again = trace(turned_back(coefficients), 0.2, 0.9)
    np.testing.assert_allclose(there, again, atol=1e-12)


def test_tensors_in_batches_as_numpy():
    torch = pytest.importorskip("torch")
    coefficients = np.stack([smooth(1), smooth(1)])
    y, x = trace(torch.from_numpy(coefficients), 0.5, 0.0, steps=3)
    for k in range(2):
        rows, columns = trace(coefficients[k], 0.5, 0.0, steps=3)
        np.testing.assert_allclose(y[k].numpy(), rows, atol=1e-10)
        np.testing.assert_allclose(x[k].numpy(), columns, atol=1e-10)


def test_other_shapes_are_refused():
    with pytest.raises(ParameterError, match="coefficients have shape"):
        trace(np.zeros((2, 8, 8)), 1.0, 0.0)

"""Spherical harmonics against quadrature, SciPy's complex ones and symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError
from xr_spde.nets.harmonics import spherical_harmonics, triangle


def gauss_grid(rows, columns):
    """Points and weights of a quadrature that is exact up to degree ``2 rows - 1``."""
    x, weights = np.polynomial.legendre.leggauss(rows)
    longitude = 2.0 * np.pi * np.arange(columns) / columns
    points = np.stack(np.meshgrid(longitude, np.arcsin(x), indexing="ij"), -1).reshape(-1, 2)
    return points, np.tile(weights, columns) * 2.0 * np.pi / columns


def test_harmonics_are_orthonormal():
    pairs = triangle(16)
    pairs = pairs[np.abs(pairs[:, 1]) <= 8]
    points, weights = gauss_grid(20, 40)
    values = spherical_harmonics(points, pairs)
    gram = (values * weights) @ values.T
    assert np.abs(gram - np.eye(len(pairs))).max() < 1e-10


def test_harmonics_are_those_of_scipy():
    pairs = triangle(16)
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(0, 2 * np.pi, 50), np.arcsin(rng.uniform(-1, 1, 50))], 1)
    values = spherical_harmonics(points, pairs)
    for row, (degree, order) in zip(values, pairs, strict=True):
        m = abs(order)
        y = scipy.special.sph_harm_y(degree, m, np.pi / 2 - points[:, 1], points[:, 0])
        y = y * (-1.0) ** m  # SciPy has the Condon-Shortley phase
        expected = y.real if m == 0 else np.sqrt(2.0) * (y.real if order > 0 else y.imag)
        assert np.abs(row - expected).max() < 1e-12


def test_a_high_degree_keeps_its_accuracy():
    points, weights = gauss_grid(130, 4)
    values = spherical_harmonics(points, [[128, 0], [127, 0], [128, 1]])
    gram = (values * weights) @ values.T
    assert np.abs(gram - np.eye(3)).max() < 1e-10


@given(st.floats(-6, 6), st.floats(-1.57, 1.57), st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_the_squares_of_a_degree_add_up_anywhere(longitude, latitude, degree):
    pairs = [[degree, m] for m in range(-degree, degree + 1)]
    values = spherical_harmonics([[longitude, latitude]], pairs)
    assert np.sum(values**2) == pytest.approx((2 * degree + 1) / (4 * np.pi), rel=1e-12)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[180.0, 45.0]], "radians"),
        ([[0.0, 1.7]], "radians"),
        ([[0.0, np.nan]], "missing"),
        (np.zeros((3, 3)), "shape"),
        (np.zeros((0, 2)), "shape"),
    ],
)
def test_points_that_are_on_no_sphere(points, words):
    with pytest.raises(ParameterError, match=words):
        spherical_harmonics(points, [[0, 0]])


@pytest.mark.parametrize("pairs", [[[1, 2]], [[1.0, 0.0]], np.zeros((0, 2), int), [1, 0]])
def test_pairs_that_are_none(pairs):
    with pytest.raises(ParameterError, match="pairs"):
        spherical_harmonics([[0.0, 0.0]], pairs)

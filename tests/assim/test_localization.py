"""Tapers, distances on the sphere, neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.assim.localization import (
    EARTH_RADIUS,
    Neighbours,
    boxcar,
    check_radius,
    gaspari_cohn,
    grid_step,
    on_plane,
    on_ring,
    on_sphere,
)


def test_gaspari_cohn_is_the_published_polynomial():
    r = np.linspace(0.0, 3.0, 601)
    near = -(r**5) / 4 + r**4 / 2 + 5 * r**3 / 8 - 5 * r**2 / 3 + 1
    with np.errstate(divide="ignore"):
        far = r**5 / 12 - r**4 / 2 + 5 * r**3 / 8 + 5 * r**2 / 3 - 5 * r + 4 - 2 / (3 * r)
    expected = np.select([r <= 1, r < 2], [near, far], 0.0)
    np.testing.assert_allclose(gaspari_cohn(3.0 * r, 6.0), expected, atol=1e-14)


def test_gaspari_cohn_is_a_correlation():
    x = np.linspace(0.0, 10.0, 60)
    matrix = gaspari_cohn(np.abs(x[:, None] - x), 4.0)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12
    assert gaspari_cohn(0.0, 1.0) == 1.0
    assert gaspari_cohn(5.0, np.inf) == 1.0
    # near zero it bends like a Gaussian of standard deviation radius / 3.65
    assert gaspari_cohn(0.01, 3.65) == pytest.approx(np.exp(-0.5 * 0.01**2), abs=1e-6)


def great_circle(lon1, lat1, lon2, lat2):
    a, b, c, d = map(np.deg2rad, (lon1, lat1, lon2, lat2))
    half = np.sin((d - b) / 2) ** 2 + np.cos(b) * np.cos(d) * np.sin((c - a) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(half, 1.0)))


@given(st.integers(0, 10**6), st.floats(2e5, 2.1e7))
def test_neighbours_on_the_sphere_against_all_pairs(seed, radius):
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(-180, 360, 30), rng.uniform(-90, 90, 30)
    lon2, lat2 = rng.uniform(-180, 360, 40), rng.uniform(-90, 90, 40)
    first, which, weight = Neighbours(on_sphere(lon2, lat2), radius).of(on_sphere(lon, lat))
    found = np.zeros((30, 40))
    for k in range(30):
        near = slice(first[k], first[k + 1])
        assert (np.diff(which[near]) > 0).all()
        found[k, which[near]] = weight[near]
    distance = great_circle(lon[:, None], lat[:, None], lon2, lat2)
    np.testing.assert_allclose(found, gaspari_cohn(distance, radius), atol=1e-7)


def test_seam_and_pole():
    sites = on_sphere([359.9, 180.0], [0.0, 89.9])
    _, which, _ = Neighbours(sites, 3e4).of(on_sphere([-179.9 + 180.0], [0.0]))
    assert which.tolist() == [0]
    _, which, _ = Neighbours(sites, 3e4).of(on_sphere([0.0], [89.9]))
    assert which.tolist() == [1]


def test_boxcar_and_ring():
    ring = on_ring(np.arange(10), 10.0)
    first, which, weight = Neighbours(ring, 2.5, taper="boxcar").of(ring[:1])
    assert which.tolist() == [0, 1, 2, 8, 9]
    assert first.tolist() == [0, 5]
    assert (weight == 1).all()
    assert boxcar([1.0, 2.1], 2.0).tolist() == [1.0, 0.0]


def test_plane_and_no_radius():
    sites = on_plane([0.0, 3.0], [0.0, 4.0])
    first, which, weight = Neighbours(sites, 10.0).of(on_plane(0.0, 0.0))
    np.testing.assert_allclose(weight, gaspari_cohn([0.0, 5.0], 10.0))
    first, which, weight = Neighbours(sites, np.inf).of(on_plane([0.0, 1.0], [0.0, 0.0]))
    assert first.tolist() == [0, 2, 4]
    assert which.tolist() == [0, 1, 0, 1]
    assert (weight == 1).all()


def test_steps_and_short_radii():
    lon, lat = np.meshgrid(np.arange(0, 360, 5.0), np.arange(-60, 61, 5.0))
    step = grid_step(on_sphere(lon, lat))
    assert 2.5e5 < step < 5.6e5
    assert grid_step(on_sphere(0.0, 0.0)) is None
    with pytest.warns(UserWarning, match="shorter than the step of the grid"):
        check_radius(1e5, step)
    assert check_radius(1e6, step) == 1e6


def test_bad_input():
    for radius in (0.0, -1.0, np.nan, "1000 km"):
        with pytest.raises(ParameterError, match="in metres > 0"):
            check_radius(radius)
    with pytest.raises(UnknownNameError, match="did you mean 'boxcar'"):
        Neighbours(on_sphere(0.0, 0.0), 1.0, taper="boxca")
    with pytest.raises(ParameterError, match="lat reaches 91"):
        on_sphere([0.0], [91.0])
    with pytest.raises(ParameterError, match="lon holds 1 values that are not finite"):
        on_sphere([np.nan], [0.0])

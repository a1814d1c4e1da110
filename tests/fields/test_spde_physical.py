"""Physical units: there and back, variances of the lattice, and what advection does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xr_spde._core.errors import ParameterError
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_physical import from_physical, stationary_variance, to_physical


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
def test_there_and_back(seed, alpha):
    rng = np.random.default_rng(seed)
    given_values = {"longest": rng.uniform(1e5, 2e5, (3, 4)), "time": rng.uniform(1e5, 1e6, (3, 4))}
    given_values |= {"shortest": rng.uniform(1e4, 9e4, (3, 4)), "u": rng.standard_normal((3, 4)),
                     "v": -0.3, "angle": rng.uniform(-1.5, 1.5, (3, 4))}  # fmt: skip
    found = to_physical(from_physical((3, 4), alpha=alpha, **given_values), alpha)
    for name, value in given_values.items():
        np.testing.assert_allclose(getattr(found, name)[0], value + np.zeros((3, 4)), rtol=1e-9)


def test_negative_beta_shortens_along_v():
    found = to_physical(SpdeParameters.of((2, 2), kappa=1.0, gamma=4.0, beta=-3.0, v1=1.0), 2)
    assert found.longest[0, 0, 0] == pytest.approx(2.0)
    assert found.shortest[0, 0, 0] == pytest.approx(1.0)
    assert abs(found.angle[0, 0, 0]) == pytest.approx(np.pi / 2)


@pytest.mark.parametrize(
    ("kappa", "alpha", "exact"), [(0.33, 2, 0.129938), (0.33, 4, 0.333172), (0.2, 4, 0.966043)]
)
def test_variance_of_the_lattice(kappa, alpha, exact):
    assert stationary_variance(kappa=kappa, alpha=alpha) == pytest.approx(exact, rel=1e-5)


def test_variance_of_a_tilted_field_in_metres():
    dx, dy, dt, length = 2e4, 3e4, 2.0, 8e4
    numbers = {"alpha": 4, "longest": length, "shortest": 0.6 * length, "time": 30.0, "angle": 0.7}
    p = from_physical((24, 24), **numbers)
    h11, h22, h12 = (float(h[0, 0]) for h in p.tensor())
    unit = stationary_variance(kappa=float(p.kappa[0, 0, 0]), h11=h11, h22=h22, h12=h12, dx=dx,
                               dy=dy, dt=dt)  # fmt: skip
    p = from_physical((24, 24), **numbers, tau=0.05 / np.sqrt(unit))
    mesh = Mesh.of((24, 24), dx=dx, dy=dy, boundary="periodic")
    prior = SpaceTime(SpdeOperator(mesh), p, steps=1, dt=dt)
    found = np.sqrt(prior.first_factor().inverse_diagonal())
    np.testing.assert_allclose(found, 0.05, rtol=0.02)


@pytest.mark.parametrize("alpha", [2, 4])
def test_velocity_of_long_waves(alpha):
    """A long wave moves by u dt in a step, whatever alpha."""
    n, u = 64, 0.05
    mesh = Mesh.of((4, n), boundary="periodic")
    p = from_physical((4, n), alpha=alpha, longest=1.0, time=50.0, u=u)
    prior = SpaceTime(SpdeOperator(mesh), p, steps=2, alpha=alpha, initial="rest")
    wave = np.exp(2j * np.pi * np.arange(n) / n) * np.ones((4, 1))
    after = prior.factor(1).solve(np.stack([wave.real.ravel(), wave.imag.ravel()], axis=1))
    turned = np.angle(np.vdot(wave.ravel(), after[:, 0] + 1j * after[:, 1]))
    assert -turned * n / (2 * np.pi) == pytest.approx(u, rel=0.06)


def test_impossible_lengths():
    with pytest.raises(ParameterError, match="shortest"):
        from_physical((2, 2), alpha=4, longest=1.0, shortest=2.0, time=1.0)
    with pytest.raises(ParameterError, match="time"):
        from_physical((2, 2), alpha=4, longest=1.0, time=0.0)

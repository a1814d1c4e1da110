"""Filters on arrays that are not numpy's: nothing goes over to the host by itself."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.assim.arrays import namespace, to_host
from xr_spde.assim.correlated import AlongTrack, BlockErrors, JoinedErrors, log_determinant
from xr_spde.assim.filters import FILTERS, analyse
from xr_spde.assim.inflation import inflate
from xr_spde.assim.letkf import letkf
from xr_spde.assim.localization import on_ring
from xr_spde.assim.model_noise import add_noise
from xr_spde.assim.noise import IndependentErrors
from xr_spde.assim.operators import LinearOperator
from xr_spde.assim.projection import project


def test_the_stand_in_is_strict(card):
    there = card.asarray(np.ones(3))
    assert namespace(there) is card
    with pytest.raises(TypeError, match="of the host"):
        there + np.ones(3)
    with pytest.raises(TypeError, match="array of the card"):
        np.linalg.norm(there)


@pytest.mark.parametrize("method", sorted(FILTERS))
def test_global_filters(make, card, method):
    linear = make(12, 5, 20)
    gaps = linear.y.copy()
    gaps[3] = np.nan
    for y in (linear.y, gaps):
        settings = {"method": method, "rotate": True, "rtps": 0.3, "seed": 1}
        expected = analyse(linear.E, linear.HE, y, linear.r, **settings)
        moved = [card.asarray(array) for array in (linear.E, linear.HE, y)]
        for r in (linear.r, card.asarray(linear.r)):
            found = analyse(*moved, r, **settings)
            assert namespace(found) is card
            np.testing.assert_allclose(to_host(found), expected, atol=1e-12)


@pytest.mark.parametrize("variance", [0.5, 1e-12])
def test_letkf(make, card, variance):
    linear = make(12, 7, 10)
    places = {"points": on_ring(np.arange(12), 12), "sites": on_ring(np.arange(7), 12)}
    settings = {"radius": 4.0, "rotate": True, "rtps": 0.3, "rtpp": 0.1, "seed": 1}
    expected = letkf(linear.E, linear.HE, linear.y, variance, **places, **settings)
    moved = [card.asarray(array) for array in (linear.E, linear.HE, linear.y)]
    found = letkf(*moved, variance, **places, **settings)
    assert namespace(found) is card
    np.testing.assert_allclose(to_host(found), expected, atol=1e-6)


@pytest.mark.parametrize("variables", [1, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_letkf_of_several_variables(make, card, dtype, variables):
    linear = make(12, 7, 10)
    fields = np.stack([linear.E * (k + 1) for k in range(variables)], axis=1).astype(dtype)
    places = {"points": on_ring(np.arange(12), 12), "sites": on_ring(np.arange(7), 12)}
    expected = letkf(fields, linear.HE, linear.y, linear.r, **places, radius=4.0)
    moved = [card.asarray(array) for array in (fields, linear.HE, linear.y, linear.r)]
    found = letkf(*moved, **places, radius=4.0)
    assert found.dtype == dtype
    assert namespace(found) is card
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-6)


def test_correlated_errors_and_tiny_ones(make, card):
    linear = make(12, 8, 20)
    track = AlongTrack(1.0, length=2.0, share=0.7).errors(np.ones(5), np.arange(5.0), np.zeros(5))
    block = BlockErrors([(np.array([1, 0]), np.array([[1.0, 0.3], [0.3, 2.0]]))])
    moved = [card.asarray(array) for array in (linear.E, linear.HE, linear.y)]
    for here, there in (
        (IndependentErrors([0.5]), IndependentErrors(card.asarray(np.array([0.5])))),
        (IndependentErrors([1e-14]), IndependentErrors(card.asarray(np.array([1e-14])))),
    ):
        errors, same = JoinedErrors([here, block, track]), JoinedErrors([there, block, track])
        found = analyse(*moved, same)
        assert namespace(found) is card
        expected = analyse(linear.E, linear.HE, linear.y, errors)
        np.testing.assert_allclose(to_host(found), expected, atol=1e-10)
        assert log_determinant(same) == pytest.approx(log_determinant(errors))
        chi2 = project(linear.HE, linear.y, errors).chi_square
        assert project(*moved[1:], same).chi_square == pytest.approx(chi2)


def test_observing_fields(card):
    rng = np.random.default_rng(0)
    operator = LinearOperator(rng.integers(0, 2, (7, 30)) * rng.uniform(size=(7, 30)), (5, 6))
    fields, values = rng.standard_normal((4, 5, 6)), rng.standard_normal((3, 7))
    for name, given in (("apply", fields), ("adjoint", values)):
        for part in (operator, operator.select(np.array([5, 2]))):
            here = given if name == "apply" else given[:, : part.size]
            found = getattr(part, name)(card.asarray(here))
            assert namespace(found) is card
            np.testing.assert_allclose(to_host(found), getattr(part, name)(here), atol=1e-14)


@pytest.mark.parametrize("how", ["deterministic", "sampled"])
def test_model_noise_and_inflation(make, card, how):
    members = make(6, 2, 9).E
    for noise in (0.3, np.full((6, 2), 0.1)):
        found = add_noise(card.asarray(members), noise, how=how, seed=0)
        assert namespace(found) is card
        np.testing.assert_allclose(to_host(found), add_noise(members, noise, how=how, seed=0))
    np.testing.assert_allclose(to_host(inflate(card.asarray(members), 1.1)), inflate(members, 1.1))

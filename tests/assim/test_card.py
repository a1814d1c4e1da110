"""Filters on arrays that are not numpy's: nothing goes over to the host by itself."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.assim.arrays import namespace, to_host
from xr_spde.assim.filters import FILTERS, analyse
from xr_spde.assim.inflation import inflate
from xr_spde.assim.letkf import letkf
from xr_spde.assim.localization import on_ring
from xr_spde.assim.model_noise import add_noise


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


@pytest.mark.parametrize("how", ["deterministic", "sampled"])
def test_model_noise_and_inflation(make, card, how):
    members = make(6, 2, 9).E
    for noise in (0.3, np.full((6, 2), 0.1)):
        found = add_noise(card.asarray(members), noise, how=how, seed=0)
        assert namespace(found) is card
        np.testing.assert_allclose(to_host(found), add_noise(members, noise, how=how, seed=0))
    np.testing.assert_allclose(to_host(inflate(card.asarray(members), 1.1)), inflate(members, 1.1))

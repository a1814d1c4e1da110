"""Priors of second order in time, from their Dataset."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.assim.mapping import interpolate
from xr_spde.assim.prior_recipe import read_prior


def prior(**attrs):
    """A constant prior of 6 x 7 cells of a degree."""
    maps = {"length": 150.0, "decay_time": 4.0, "std": 0.3}
    coords = {"lat": 36.0 + np.arange(6.0), "lon": np.arange(7.0)}
    known = {k: (("lat", "lon"), np.full((6, 7), v)) for k, v in maps.items()}
    return xr.Dataset(known, coords, {"time_step": 1.0, "alpha": 2, **attrs})


def one_point():
    """An observation without noise to speak of, amid grid and times."""
    when = np.array(["2014-05-05"], "datetime64[ns]")
    place = {"lat": ("obs", [38.0]), "lon": ("obs", [3.0]), "time": ("obs", when)}
    return xr.DataArray([1.0], place, "obs")


def test_what_a_point_says_of_other_days_is_flat_near_its_own():
    days = np.arange("2014-05-01", "2014-05-10", dtype="datetime64[D]").astype("datetime64[ns]")
    found = {
        order: interpolate(prior(time_order=order), one_point(), times=days, obs_error=1e-3,
                           draws=0)["mean"].sel(lat=38.0, lon=3.0)
        for order in (1, 2)
    }  # fmt: skip
    for mean in found.values():
        np.testing.assert_allclose(mean, mean[::-1], atol=1e-5)  # as seen from either side
    near, far = (1.0 - found[2].values[[5, 6]] / found[2].values[4]).tolist()
    assert far > 2.5 * near  # a parabola; of first order a roof
    near, far = (1.0 - found[1].values[[5, 6]] / found[1].values[4]).tolist()
    assert far < 2.0 * near


def test_deviation_without_observations_nearby_is_that_of_the_prior():
    days = np.arange("2014-05-01", "2014-05-04", dtype="datetime64[D]").astype("datetime64[ns]")
    seen = one_point().assign_coords(time=("obs", days[:1]))
    wide = prior(time_order=2, boundary="neumann").assign(
        length=(("lat", "lon"), np.full((6, 7), 30.0))
    )
    found = interpolate(wide, seen, times=days, obs_error=1e3, solver="direct")["std"]
    assert float(found[1, 2, 3]) == pytest.approx(0.3, rel=0.02)


def test_who_does_not_know_it_says_so():
    recipe, _ = read_prior(prior(time_order=2))
    with pytest.raises(ParameterError, match="first order in time"):
        recipe.check_plain("a variational solver")
    with pytest.raises(UnknownNameError, match="time_order"):
        read_prior(prior(time_order=3))

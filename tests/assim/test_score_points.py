"""Scores at points and along tracks, against the operator of the observations and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import assimilate, read_observations, score
from xr_spde.assim.score import crps
from xr_spde.errors import AxisNotFoundError, ParameterError


@pytest.fixture
def ens():
    coords = {
        "lat": ("lat", 50.0 - np.arange(7), {"units": "degrees_north"}),
        "lon": ("lon", 355.0 + np.arange(9), {"units": "degrees_east"}),
    }
    z = np.random.default_rng(0).standard_normal((12, 7, 9)).cumsum(axis=1)
    return xr.DataArray(z, coords, ("number", "lat", "lon"), "z", {"units": "m"})


@pytest.fixture
def track():
    rng = np.random.default_rng(1)
    place = {"lat": ("time", rng.uniform(44, 50, 20)), "lon": ("time", rng.uniform(-5, 3, 20))}
    return xr.DataArray(rng.standard_normal(20), place, "time")


def by_hand(ens, obs):
    seen = obs.operator.apply(ens.values)
    error = seen.mean(axis=0) - obs.values
    return {
        "rmse": np.sqrt((error**2).mean()),
        "bias": error.mean(),
        "spread": np.sqrt(seen.var(axis=0, ddof=1).mean()),
        "crps": crps(seen, obs.values).mean(),
    }


@pytest.mark.parametrize("chunks", [None, {"lat": 3, "number": 5}])
def test_members_at_points(ens, track, chunks):
    track[4] = np.nan
    expected = by_hand(ens, read_observations(track, ens, obs_error=1.0))
    found = score(ens if chunks is None else ens.chunk(chunks), track)
    assert (chunks is not None) == (found.rmse.chunks is not None)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12)
    np.testing.assert_allclose(found.rank_histogram.sum(), 1.0)
    assert found.rmse.attrs["units"] == "m"


def test_land_and_what_lies_outside_is_left_out(ens, track):
    sea = ens.copy()
    sea[:, 1:5, 2:7] = np.nan
    track = track.assign_coords(lat=("time", [*track.lat.values[:-1], -20.0]))
    kept = read_observations(track, ens, obs_error=1.0, unusable="drop", land=sea[0].isnull())
    assert 5 < kept.size < 19
    found = score(sea, track)
    for name, value in by_hand(sea.fillna(0.0), kept).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12)
    with pytest.raises(ParameterError, match="none of the observations can be used"):
        score(sea, track.assign_coords(lat=track.lat - 70))


def test_leading_dimensions_variables_and_gaussians(ens, track):
    many = xr.concat([ens, 2 * ens], xr.Variable("step", [0, 1]))
    found = score(many, track)
    np.testing.assert_allclose(found.rmse[0], score(ens, track).rmse)
    np.testing.assert_allclose(found.spread[1], 2 * found.spread[0])
    both = score(xr.Dataset({"z": ens, "t": ens + 1}), xr.Dataset({"z": track, "t": track + 1}))
    np.testing.assert_allclose(both.rmse, [found.rmse[0]] * 2)
    moments = xr.Dataset({"mean": ens.mean("number"), "std": ens.std("number", ddof=1)})
    gauss = score(moments, track)
    np.testing.assert_allclose(gauss.rmse, found.rmse[0])
    assert float(gauss.spread) >= float(found.spread[0]) * (1 - 1e-12)  # interpolated


def test_a_withheld_track_is_better_known_after_the_others(ens, track):
    truth = ens[0]
    seen = truth.stack(obs=("lat", "lon"))
    half = np.random.default_rng(2).random(seen.size) < 0.5
    place = {"lat": ("obs", seen.lat.values), "lon": ("obs", seen.lon.values)}
    points = xr.DataArray(seen.values, place, "obs")
    post = assimilate(ens[1:], points[half], obs_error=0.2, localization=400e3)
    before, after = score(ens[1:], points[~half]), score(post, points[~half])
    assert float(after.rmse) < float(before.rmse)


def test_points_without_a_place(ens):
    with pytest.raises(AxisNotFoundError, match="no latitude"):
        score(ens, xr.DataArray([1.0, 2.0], dims="obs"))

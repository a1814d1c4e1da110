"""Quality control of tracks against the prior: what is rejected, named and counted."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.errors import ParameterError

NY, NX, DAYS, COUNT = 9, 10, 8, 60
COORDS = {
    "lat": ("lat", 40.0 + 0.5 * np.arange(NY), {"units": "degrees_north"}),
    "lon": ("lon", 3.0 + 0.5 * np.arange(NX), {"units": "degrees_east"}),
}
START = np.datetime64("2014-05-15", "ns")
TIMES = START + np.arange(DAYS) * np.timedelta64(1, "D")
WRONG = [4, 17, 40]


def prior(std=0.08):
    land = np.zeros((NY, NX), bool)
    land[2:4, 5] = True
    maps = {"length": 90.0, "decay_time": 12.0, "std": std, "mean": 0.3}
    maps = {k: (("lat", "lon"), np.where(land, np.nan, v)) for k, v in maps.items()}
    return xr.Dataset(maps, COORDS, {"time_step": 1.0, "alpha": 2})


def guess_of(mean):
    """A first guess that rises by 1 a day and varies in space, and with latitude reversed."""
    rise = xr.DataArray(np.arange(DAYS, dtype=float), {"time": TIMES}, ("time",))
    return (mean + rise + 0.1 * mean.lat).transpose("time", "lat", "lon")[:, ::-1]


def points(seed=0):
    """Values within a deviation of 0.3, but for three that are ten deviations off."""
    rng = np.random.default_rng(seed)
    when = START + (rng.uniform(0, DAYS - 1, COUNT) * 86400e9).astype("timedelta64[ns]")
    at = {"lat": ("obs", rng.uniform(40.2, 43.8, COUNT)), "time": ("obs", when),
          "lon": ("obs", rng.uniform(3.2, 4.9, COUNT))}  # fmt: skip
    values = 0.3 + rng.uniform(-0.08, 0.08, COUNT)
    values[WRONG] += [0.9, -0.9, 1.2]
    return xr.DataArray(values, at, "obs", name="sla")


def test_what_is_far_from_the_prior_is_rejected_named_and_counted():
    obs = points()
    kept = np.setdiff1d(np.arange(COUNT), WRONG)
    found = prior().assim.assimilate(obs, obs_error=0.03, times=TIMES, threshold=4.0)
    other = prior().assim.assimilate(obs[kept], obs_error=0.03, times=TIMES)
    for name in ("mean", "std"):
        np.testing.assert_array_equal(found[name], other[name])
    assert np.flatnonzero(found["status"] == 4).tolist() == WRONG
    assert "rejected" in found["status"].attrs["flag_meanings"].split()[4]
    assert "3 rejected" in found.attrs["xr_spde_observations"]
    assert found.attrs["xr_spde_threshold"] == 4.0
    # the prior has the same deviation everywhere, and its variance at a point is at most that
    expected = (obs.values - 0.3) / np.hypot(0.08, 0.03)
    np.testing.assert_allclose(found["departure"], expected, rtol=1e-9)
    none = prior().assim.assimilate(obs, obs_error=0.03, times=TIMES, threshold=np.inf)
    assert (none["status"] == 0).all()


@pytest.mark.parametrize("chunks", [None, 1, 3, DAYS])
def test_first_guess_at_the_time_of_each(chunks):
    obs = points()
    guess = guess_of(prior()["mean"])
    days = (obs.time - START) / np.timedelta64(1, "D")
    moved = obs + days + 0.1 * obs.lat
    lazy = guess if chunks is None else guess.chunk(time=chunks)
    settings = {"prior": prior(), "obs_error": 0.03, "threshold": 4.0}
    found = lazy.assim.assimilate(moved.drop_attrs(), **settings)
    expected = (obs.values - 0.3) / np.hypot(0.08, 0.03)
    np.testing.assert_allclose(found["departure"], expected, atol=1e-9)
    assert np.flatnonzero(found["status"] == 4).tolist() == WRONG
    assert (found["mean"].chunks is not None) == (chunks is not None)


def test_gaussian_covariance_checks_too():
    found = guess_of(prior()["mean"]).assim.assimilate(
        points() + 4.0, method="oi-gaussian", obs_error=0.03, std=2.0, lx=1.0, ly=1.0, lt=9.0,
        threshold=50.0,
    )  # fmt: skip
    assert (found["status"] == 0).all()
    assert float(abs(found["departure"]).max()) < 4.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"threshold": 0.0}, "threshold=0.0"), ({"threshold": "4"}, "one number"),
     ({"threshold": 1e-9}, "rejects all 60"), ({"threshold": np.nan}, "threshold=nan")],
)  # fmt: skip
def test_impossible_thresholds(settings, message):
    with pytest.raises(ParameterError, match=message):
        prior().assim.assimilate(points(), obs_error=0.03, times=TIMES, **settings)


def test_gridded_observations_are_not_checked():
    grid = xr.DataArray(np.zeros((DAYS, NY, NX)), {"time": TIMES, **COORDS}, ("time", "lat", "lon"))
    with pytest.raises(ParameterError, match="mask these"):
        prior().assim.assimilate(grid, obs_error=0.03, threshold=4.0, unusable="drop")

"""Latent models of real fields: ten members of a reanalysis, and surface winds to the poles."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.assim import fit


@pytest.fixture
def members(real_data):
    """Height of 500 hPa and temperature of 850 hPa of ten members at four times."""
    both = xr.open_dataset(real_data("era5_eda_z_t_500_850_201701.nc")).load()
    z500, t850 = both.z.sel(level=500, drop=True), both.t.sel(level=850, drop=True)
    return xr.Dataset({"z500": z500, "t850": t850})


def test_ten_members_are_analysed_end_to_end(members):
    model = fit(members, method="pod", code=12, seed=0)
    truth, first = members.isel(number=9), members.isel(time=0, number=slice(0, 9))
    rng = np.random.default_rng(0)
    seen = rng.random(truth.z500.shape) < 0.05
    errors = {"z500": 20.0, "t850": 0.3}
    obs = {
        name: (truth[name] + error * rng.standard_normal(seen.shape)).where(seen)[1:]
        for name, error in errors.items()
    }
    found = first.assim.assimilate(obs, model=model, obs_error=errors, seed=0)
    weights = np.cos(np.radians(truth.latitude))
    for name in errors:
        right = truth[name][1:]
        still = first[name].mean("number")
        off, kept = (
            np.sqrt(((one - right) ** 2).weighted(weights).mean(("latitude", "longitude")))
            for one in (found[f"{name}_mean"], still)
        )
        assert (off < kept).all()  # of persistence, also at the time that was held out
    assert found.codes.sizes["number"] == 9


def test_winds_from_points_beat_their_climatology(real_data):
    winds = xr.open_dataset(real_data("navy_winds_198201_198912.nc"))[["u", "v"]].load()
    model = fit(winds.isel(time=slice(0, 72)), method="pod", code=20, seed=0)
    test = winds.isel(time=slice(71, 96))
    rng = np.random.default_rng(1)
    seen = rng.random(test.u.shape) < 0.05
    noisy = test + 0.5 * xr.zeros_like(test).map(lambda v: v + rng.standard_normal(v.shape))
    obs = noisy.where(seen).isel(time=slice(1, None))
    found = test.isel(time=0).assim.assimilate(obs, model=model, obs_error=0.5, seed=0)
    clim = model.decode(model.encode(test) * 0.0)  # the mean of each month
    weights = np.cos(np.radians(test.lat))
    for name in ("u", "v"):
        off, usual = (
            float(((one - test[name][1:]) ** 2).weighted(weights).mean())
            for one in (found[f"{name}_mean"], clim[name][1:])
        )
        assert off < usual

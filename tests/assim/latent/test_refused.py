"""Bad input of latent models: what is refused, what is supported and said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde._core.errors import GridError, ParameterError, UnknownNameError
from xr_spde.assim import fit

FIT = {"method": "pod", "code": 4, "seed": 0}


def test_irregular_times_are_used_as_they_are_and_said(series, truth):
    kept = [k for k in range(24) if k not in (5, 6, 13)]
    with pytest.warns(UserWarning, match="2 of 20 intervals"):
        model = fit(series.isel(time=kept), method="pod", code=6)
    assert model.card["data"]["intervals_of_other_length"] == 2
    ahead = model.forecast(truth.isel(time=0), 3)
    np.testing.assert_allclose(ahead, truth[1:4], atol=0.02)


def test_times_that_do_not_increase_are_refused(series):
    with pytest.raises(ParameterError, match="do not all increase"):
        fit(series.isel(time=slice(None, None, -1)), **FIT)


def test_a_plane_is_no_sphere(series):
    plane = series.rename(lat="y", lon="x").drop_attrs()
    for name in ("x", "y"):
        plane[name].attrs = {"units": "km"}
    with pytest.raises(GridError, match="sphere"):
        fit(plane, domain="sphere", **FIT)
    assert fit(plane, **FIT).layout.domain == "plane"


def test_variables_of_land_or_of_one_value_are_named(series):
    both = xr.Dataset({"z": series, "t": series * np.nan})
    with pytest.raises(ParameterError, match="t has no value"):
        fit(both, **FIT)
    with pytest.raises(ParameterError, match="t does not vary"):
        fit(both.assign(t=series * 0.0 + 3.0), **FIT)
    with pytest.raises(ParameterError, match="no value at all"):
        fit(series * np.nan, **FIT)
    with pytest.raises(ParameterError, match="infinite"):
        fit(series.where(series.lat != 7.5, np.inf), **FIT)


def test_codes_larger_than_the_snapshots_span_are_refused(series):
    with pytest.raises(ParameterError, match="114 snapshots"):
        fit(series, method="pod", code=200)
    with pytest.raises(ParameterError, match="has 3 times"):
        fit(series.isel(time=slice(0, 3)), **FIT)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"dynamics": "lstm"}, UnknownNameError, "lstm"),
        ({"model_error": "none"}, UnknownNameError, "none"),
        ({"climatology": "daily"}, UnknownNameError, "daily"),
        ({"code": -3}, ParameterError, "code=-3"),
        ({"held": 1.5}, ParameterError, "held=1.5"),
        ({"epochs": 3}, UnknownNameError, "epochs"),
        ({"climatology": "monthly"}, ParameterError, "calendar month"),
        ({"network": {"depht": 3}, "method": "lainr"}, UnknownNameError, "depht"),
    ],
)
def test_settings_that_make_no_sense_are_refused(series, settings, error, said):
    pytest.importorskip("torch")
    with pytest.raises(error, match=said):
        fit(series, **{**FIT, **settings})


def test_observations_are_no_part_of_a_latent_fit(series):
    with pytest.raises(ParameterError, match="observations were given"):
        fit(series, series, **FIT)


def test_other_variables_and_units_are_refused(model, truth):
    with pytest.raises(ParameterError, match="'t' was given and the model is of 'z'"):
        model.encode(truth.rename("t"))
    with pytest.raises(ParameterError, match="units 'km'"):
        model.encode(truth.assign_attrs(units="km"))
    with pytest.raises(ParameterError, match="dimension 'code'"):
        model.decode(truth)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"method": "letkf"}, UnknownNameError, "letkf"),
        ({"method": "enkf", "localization": 1e6}, ParameterError, "localization"),
        ({"footprint": 1e5}, ParameterError, "footprint"),
        ({"tol": 1e-3}, ParameterError, "tol"),
        ({"model_noise": -1.0}, ParameterError, "model_noise"),
        ({"inflation": 0.5}, ParameterError, "inflation"),
        ({"times": [np.datetime64("1999-01-01", "ns")]}, ParameterError, "does not increase"),
        ({"obs_error": {"t": 0.1}}, ParameterError, "'z' lacks"),
        ({"n": 1, "method": "etkf"}, ParameterError, "at least 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model, truth, observed, settings, error, said):
    with pytest.raises(error, match=said):
        truth[0].assim.assimilate(observed, model=model, **{"obs_error": 0.1, **settings})


def test_first_guesses_and_observations_that_do_not_fit_are_refused(model, truth, observed):
    known = {"model": model, "obs_error": 0.1}
    with pytest.raises(ParameterError, match="has no time"):
        truth[0].drop_vars("time").assim.assimilate(observed, **known)
    with pytest.raises(ParameterError, match="13 times"):
        truth.assim.assimilate(observed, **known)
    with pytest.raises(ParameterError, match="observations of 't'"):
        truth[0].assim.assimilate({"t": observed}, **known)
    with pytest.raises(ParameterError, match="no observation with a value"):
        truth[0].assim.assimilate(observed * np.nan, **known)
    with pytest.raises(ParameterError, match="from every analysis"):
        truth[0].assim.assimilate(observed, times=truth.time[1:3], **known)
    some = truth[0].assim.assimilate(observed, times=truth.time[1:3], unusable="drop", **known)
    assert some.sizes["time"] == 2
    with pytest.raises(ParameterError, match="obs="):
        truth[0].assim.assimilate(model=model)


def test_kalman_is_for_linear_models_with_one_first_guess(model, truth, observed, waves):
    bent = dataclasses.replace(model, propagator=Bent())
    with pytest.raises(ParameterError, match="bent dynamics are not"):
        truth[0].assim.assimilate(observed, model=bent, method="kalman", obs_error=0.1)
    ensemble = waves(1, members=5).isel(time=0)
    with pytest.raises(ParameterError, match="first guess of one"):
        ensemble.assim.assimilate(observed, model=model, method="kalman", obs_error=0.1)
    with pytest.raises(ParameterError, match="needs model="):
        truth[0].assim.assimilate(observed, method="kalman", obs_error=0.1)


class Bent:
    """Dynamics that are not linear."""

    name, affine = "bent", False

    def step(self, codes, dt=1.0, time=None):
        return np.tanh(codes)


def test_land_stays_land_and_observations_on_it_are_refused(waves):
    series = waves(24, members=4)
    sea = series.where(np.abs(series.lon - 180.0) > 40.0)
    model = fit(sea, method="pod", code=6, seed=1)
    assert model.layout.cells.size == int(sea.isel(member=0, time=0).notnull().sum())
    truth = waves(4, seed=99).isel(member=0)
    decoded = model.decode(model.encode(truth))
    land = sea.isel(member=0, time=0).isnull()
    np.testing.assert_array_equal(decoded.isnull().isel(time=0), land)
    at = {"time": ("obs", truth.time.values[1:3]), "lat": ("obs", [7.5, 7.5]),
          "lon": ("obs", [10.0, 180.0])}  # fmt: skip
    points = xr.DataArray([1.0, 2.0], at, "obs", name="z")
    with pytest.raises(ParameterError, match="on land"):
        truth[0].assim.assimilate(points, model=model, obs_error=0.1)
    found = truth[0].assim.assimilate(points, model=model, obs_error=0.1, unusable="drop")
    assert float(found.observations_used.sum()) == 1.0


def test_several_variables_and_levels_are_analysed_together(waves):
    z = waves(24, members=3)
    both = xr.Dataset({"z": z, "t": (xr.concat([z + 1.0, 2.0 * z], "level")
                                     .assign_coords(level=[500.0, 850.0]))})  # fmt: skip
    model = fit(both, method="pod", code=6, seed=1)
    assert model.variables == ("z", "t at 500", "t at 850")
    truth = both.isel(member=0, time=slice(0, 6))
    seen = truth["t"].sel(level=850.0).where(np.arange(24) % 6 == 0).isel(time=slice(1, None))
    found = truth.isel(time=0).assim.assimilate(
        {"t": seen}, model=model, obs_error=0.01, background_error={"z": 0.5, "t": 0.5}
    )
    assert {"z_mean", "t_mean", "z_std", "codes", "chi_square"} <= set(found)
    assert found["t_mean"].dims == ("time", "level", "lat", "lon")
    np.testing.assert_allclose(found["z_mean"], truth["z"][1:], atol=0.02)

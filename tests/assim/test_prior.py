"""The prior of a field in space and time as a Dataset: recovered, described, stored, refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.assim.prior_recipe import read_prior
from xr_spde.errors import AxisNotFoundError, ParameterError, SchemaError, UnknownNameError

TRUE = {"length": 70.0, "length_across": 40.0, "angle": 0.5, "decay_time": 6.0, "u": 0.1,
        "v": -0.06, "std": 0.09, "mean": 0.4}  # fmt: skip


def draw(days=30, ny=22, nx=26, alpha=2, seed=0):
    coords = {"y": ("y", 25.0 * np.arange(ny), {"units": "km"}),
              "x": ("x", 25.0 * np.arange(nx), {"units": "km"})}  # fmt: skip
    land = np.zeros((ny, nx), bool)
    land[4:7, 3:6] = True
    maps = {k: (("y", "x"), np.where(land, np.nan, v)) for k, v in TRUE.items()}
    prior = xr.Dataset(maps, coords, {"time_step": 1.0, "alpha": alpha})
    recipe, found = read_prior(prior)
    space = recipe.build({k: v.values for k, v in found.items()}, land, days)
    noise = np.random.default_rng(seed).standard_normal((1, days, ny * nx))
    z = 0.4 + np.where(land, np.nan, space.sample(noise)[0].reshape(days, ny, nx))
    coords["time"] = np.datetime64("2014-05-15", "ns") + np.arange(days) * np.timedelta64(1, "D")
    attrs = {"units": "m", "long_name": "sea level"}
    return xr.DataArray(z, coords, ("time", "y", "x"), name="adt", attrs=attrs)


@pytest.fixture(scope="module")
def fitted():
    fields = draw()
    return fields, fields.assim.spde_prior(alpha=2, flow=True, mean=0.4)


def test_known_numbers_come_back_within_their_errors(fitted):
    _, prior = fitted
    for name in ("length", "length_across", "angle", "decay_time", "u", "v", "std"):
        value = float(prior[name].mean())
        error = float(prior[f"{name}_stderr"].mean())
        assert 0.0 < error < 0.3 * abs(TRUE[name]), name
        assert abs(value - TRUE[name]) < 3.5 * error, name


def test_it_is_described_and_has_the_land_of_the_fields(fitted):
    fields, prior = fitted
    assert {n: prior[n].units for n in ("length", "decay_time", "u", "std", "std_stderr")} == {
        "length": "km", "decay_time": "days", "u": "m s-1", "std": "m", "std_stderr": "m",
    }  # fmt: skip
    assert prior.attrs["schema"] == "xr_spde.spde_prior"
    assert prior.attrs["time_step"] == 1.0
    assert prior.attrs["alpha"] == 2
    assert "sea level" in prior["std"].long_name
    assert (prior["length"].isnull() == fields[0].isnull()).all()
    assert bool(prior.converged)


def test_it_survives_the_disk_and_chains(fitted, tmp_path):
    fields, prior = fitted
    prior.to_netcdf(tmp_path / "prior.nc")
    with xr.open_dataset(tmp_path / "prior.nc") as again:
        xr.testing.assert_identical(again.load(), prior)
        fields = fields[:10]
        obs = fields[::3, ::4, ::3]
        found = [one.assim.assimilate(obs, obs_error=0.02, unusable="drop")
                 for one in (prior, again)]  # fmt: skip
    xr.testing.assert_equal(*(one.drop_attrs() for one in found))
    error = (found[0]["mean"] - fields) / found[0]["std"]
    assert 0.9 < float((error**2).mean()) ** 0.5 < 1.1


def test_lazy_single_precision_and_further_dimensions():
    fields = draw(8, 9, 10).astype("float32")
    two = xr.concat([fields, fields + 1.0], "season")
    direct = fields.assim.spde_prior(alpha=2, stderr=False)
    lazy = two.chunk(time=3, season=1).assim.spde_prior(alpha=2, stderr=False)
    assert lazy["length"].chunks
    assert lazy["length"].dtype == np.float32
    done = lazy.compute()
    assert done["length"].dims == ("season", "y", "x")
    np.testing.assert_allclose(done["length"][0], direct["length"], rtol=1e-3)
    apart = (done["mean"][1] - done["mean"][0]).values
    np.testing.assert_allclose(apart[np.isfinite(apart)], 1.0, atol=1e-5)


def test_smooth_maps_follow_what_varies():
    calm, rough = draw(seed=1), draw(seed=2)
    side = (rough.x - rough.x.mean()) / rough.x.max()
    fields = 0.4 + (calm - 0.4) * np.exp(2.0 * side)
    prior = fields.assim.spde_prior(alpha=2, mean=0.4, knots=(1, 3), stderr=False)
    ratio = float(prior["std"].isel(x=-1).mean() / prior["std"].isel(x=0).mean())
    assert 0.5 * np.e**2 < ratio < 2.0 * np.e**2


def test_lengths_beyond_the_fields_are_warned_of():
    fields = draw(6, 8, 9)
    # a field that hardly changes
    still = fields[0].drop_vars("time") - 0.4 + 0.01 * (fields - 0.4)
    with pytest.warns(UserWarning, match="do not say how far"):
        still.transpose("time", "y", "x").assim.spde_prior(alpha=2, mean=0.0, stderr=False)


def test_bad_fields_are_refused():
    fields = draw(6, 8, 9)
    holes = fields.copy()
    holes[2, 0, 0] = np.nan
    with pytest.raises(ParameterError, match="1 of 432 values are missing off land"):
        holes.assim.spde_prior()
    with pytest.raises(ParameterError, match="expected equal steps"):
        fields.isel(time=[0, 1, 3]).assim.spde_prior()
    with pytest.raises(ParameterError, match="do not increase"):
        fields[::-1].assim.spde_prior()
    with pytest.raises(AxisNotFoundError, match="dates"):
        fields.drop_vars("time").assim.spde_prior()
    with pytest.raises(UnknownNameError, match="alpha"):
        fields.assim.spde_prior(alpha=3)
    with pytest.raises(UnknownNameError, match="boundary"):
        fields.assim.spde_prior(boundary="open")


def test_bad_priors_are_refused():
    _, maps = read_prior(good := draw_prior())
    assert set(maps) >= {"length", "u", "mean"}
    with pytest.raises(SchemaError, match="units 'm'"):
        read_prior(good.assign(length=good.length.assign_attrs(units="m")))
    with pytest.raises(SchemaError, match="version 9"):
        read_prior(good.assign_attrs(schema_version=9, schema="xr_spde.spde_prior"))
    with pytest.raises(SchemaError, match="time_step"):
        read_prior(good.drop_attrs(deep=False))
    with pytest.raises(SchemaError, match="season"):
        read_prior(good.expand_dims(season=2))


def draw_prior():
    maps = {k: (("y", "x"), np.full((4, 5), v)) for k, v in TRUE.items()}
    coords = {
        "y": ("y", np.arange(4.0), {"units": "km"}),
        "x": ("x", np.arange(5.0), {"units": "km"}),
    }
    return xr.Dataset(maps, coords, {"time_step": 1.0})

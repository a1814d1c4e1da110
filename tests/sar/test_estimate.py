"""The public estimator: round trips, labels, gaps, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

import xr_spde
from xr_spde._core.errors import (
    AxisNotFoundError,
    DTypeError,
    GridError,
    ParameterError,
    UnknownNameError,
)
from xr_spde.sar import emulate, estimate

PURE = {"modes": 0, "dilation": 1}
NAMES = ["kappa2", "rho", "theta", "mean", "std"]
NY, NX = 14, 18


def wrap(angle):
    return (angle + np.pi / 2) % np.pi - np.pi / 2


def constant(shape, kappa2=0.3, rho=2.5, theta=0.6, dims=("y", "x"), **coords) -> xr.Dataset:
    maps = {"kappa2": kappa2, "rho": rho, "theta": theta}
    return xr.Dataset({k: (dims, np.full(shape, float(v))) for k, v in maps.items()}, coords)


@pytest.fixture(scope="module")
def regional() -> xr.DataArray:
    """Ten members on a regional grid."""
    lat = xr.DataArray(np.linspace(40.0, 53.0, NY), dims="lat", attrs={"units": "degrees_north"})
    lon = xr.DataArray(np.linspace(5.0, 22.0, NX), dims="lon", attrs={"units": "degrees_east"})
    params = constant((NY, NX), dims=("lat", "lon"), lat=lat, lon=lon)
    fields = emulate(params, 10, seed=1).compute() * 2.0 + 280.0
    fields.attrs = {
        "units": "K",
        "long_name": "air temperature",
        "standard_name": "air_temperature",
    }
    return fields.rename("t2m")


@pytest.fixture(scope="module")
def world() -> xr.DataArray:
    """Twelve members on a global grid, with parameters that vary around it."""
    ny, nx = 12, 24
    lat = xr.DataArray(-82.5 + 15.0 * np.arange(ny), dims="lat", attrs={"units": "degrees_north"})
    lon = xr.DataArray(15.0 * np.arange(nx), dims="lon", attrs={"units": "degrees_east"})
    params = constant((ny, nx), dims=("lat", "lon"), lat=lat, lon=lon)
    turn = 0.8 * np.sin(np.deg2rad(lon.values))
    params["theta"] = params.theta.copy(data=params.theta.values + turn)
    return emulate(params, 12, seed=2).compute()


def identical(found: xr.Dataset, truth: xr.Dataset) -> None:
    assert set(found.data_vars) == set(truth.data_vars)
    for name in truth.data_vars:
        np.testing.assert_array_equal(
            found[name].transpose(*truth[name].dims).values, truth[name].values, err_msg=str(name)
        )


# --- round trips -----------------------------------------------------------------------------


def test_estimate_emulate_estimate():
    """Check B5 on a small grid: the maps come back from 200 emulated members."""
    y, x = np.mgrid[0:32, 0:36]
    truth = constant((32, 36))
    truth["kappa2"] = ("y", "x"), 0.2 * np.exp(0.8 * np.sin(2 * np.pi * x / 36))
    truth["rho"] = ("y", "x"), 2.5 + 1.2 * np.cos(np.pi * y / 32)
    first = estimate(emulate(truth, 30, seed=1).compute() + 5.0, **PURE)
    logs = [np.log(p.kappa2).values.ravel() for p in (truth, first)]
    assert np.corrcoef(logs)[0, 1] > 0.9
    bare = estimate(emulate(first.drop_vars(["mean", "std"]), 200, seed=2).compute(), **PURE)
    assert np.corrcoef(logs[1], np.log(bare.kappa2).values.ravel())[0, 1] > 0.97
    assert float(np.sqrt((np.log(bare.kappa2 / first.kappa2) ** 2).mean())) < 0.12
    assert float(np.abs(bare.rho - first.rho).max()) < 0.3
    assert float(np.abs(wrap(bare.theta - first.theta)).max()) < 0.1
    # the std of 30 members is known to 13 %, which the members carry and the stencil sees
    again = estimate(emulate(first, 200, seed=2).compute(), **PURE)
    assert np.corrcoef(logs[1], np.log(again.kappa2).values.ravel())[0, 1] > 0.9
    assert float(np.sqrt((np.log(again.kappa2 / first.kappa2) ** 2).mean())) < 0.3
    # a mean of 200 deviates by std / sqrt(200), a std by std / 20
    assert float((np.abs(again["mean"] - first["mean"]) / first["std"]).max()) < 5 / np.sqrt(200)
    assert float(np.abs(again["std"] / first["std"] - 1).max()) < 0.25


def test_accessors_and_function_agree(regional):
    truth = estimate(regional, **PURE)
    identical(regional.sar.estimate(**PURE), truth)
    identical(regional.to_dataset().sar.estimate(**PURE), truth)


def test_moments_are_those_of_the_data(regional):
    found = estimate(regional, **PURE)
    np.testing.assert_allclose(found["mean"], regional.mean("realization"), rtol=1e-12)
    np.testing.assert_allclose(found["std"], regional.std("realization", ddof=1), rtol=1e-10)


def test_direction_on_a_wide_grid():
    """Check A6 through the estimator, 192 columns; north to south and rolled: the same answer."""
    ny, nx, theta = 36, 192, np.deg2rad(30.0)
    lat = xr.DataArray(-87.5 + 5.0 * np.arange(ny), dims="lat", attrs={"units": "degrees_north"})
    lon = xr.DataArray(1.875 * np.arange(nx), dims="lon", attrs={"units": "degrees_east"})
    params = constant((ny, nx), 0.02, 6.0, theta, dims=("lat", "lon"), lat=lat, lon=lon)
    fields = emulate(params, 8, seed=4).compute()
    found = estimate(fields, **PURE)
    assert np.rad2deg(float(found.theta.mean())) == pytest.approx(30.0, abs=3.0)
    inner = found.theta.isel(lat=slice(4, -4))
    assert np.rad2deg(float(np.abs(wrap(inner - theta)).max())) < 3.0
    turned = estimate(fields.isel(lat=slice(None, None, -1)).roll(lon=77, roll_coords=True), **PURE)
    np.testing.assert_array_equal(turned.theta.sel(lat=lat, lon=lon).values, found.theta.values)


# --- storage ---------------------------------------------------------------------------------


def test_north_to_south_gives_the_same_maps(world):
    truth = estimate(world, uncertainty=True, modes=2)
    found = estimate(world.isel(lat=slice(None, None, -1)), uncertainty=True, modes=2)
    assert found.lat.values[0] > found.lat.values[-1]
    identical(found.sel(lat=world.lat), truth)


@pytest.mark.parametrize("shift", [1, 12, 23])
def test_rolled_longitudes_give_the_same_maps(world, shift):
    truth = estimate(world, modes=2)
    found = estimate(world.roll(lon=shift, roll_coords=True), modes=2)
    identical(found.sel(lon=world.lon), truth)


def test_longitudes_around_zero_give_the_same_maps(world):
    truth = estimate(world, modes=2)
    moved = world.assign_coords(lon=((world.lon + 180) % 360 - 180).assign_attrs(world.lon.attrs))
    moved = moved.sortby("lon")
    assert float(moved.lon.min()) == -180.0
    found = estimate(moved, modes=2)
    assert found.attrs["boundary"] == "cylinder"
    identical(found.assign_coords(lon=found.lon % 360).sel(lon=world.lon), truth)


@pytest.mark.parametrize("order", [("lat", "lon", "realization"), ("lon", "realization", "lat")])
def test_dimensions_in_any_order(regional, order):
    found = estimate(regional.transpose(*order), **PURE)
    identical(found, estimate(regional, **PURE))
    assert found.kappa2.dims == ("lat", "lon")


def test_replicates_in_any_order(regional):
    order = np.random.default_rng(0).permutation(10)
    found, truth = estimate(regional[order], **PURE), estimate(regional, **PURE)
    for name in truth.data_vars:
        np.testing.assert_allclose(found[name], truth[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_precision_is_kept(regional, dtype):
    found = estimate(regional.astype(dtype), uncertainty=True, modes=1)
    for name in found.data_vars:
        expected = "int64" if name == "dilation" else dtype
        assert found[name].dtype == expected, name


def test_integers_are_converted(regional):
    scaled = (100.0 * (regional - 280.0)).round()
    found = estimate(scaled.astype("int16"), **PURE)
    assert found.kappa2.dtype == np.float64
    identical(found, estimate(scaled, **PURE))


# --- labels ----------------------------------------------------------------------------------


def test_coordinates_attributes_and_units(regional):
    found = estimate(regional.assign_coords(height=2.0), uncertainty=True, **PURE)
    for name in ("lat", "lon", "height"):
        xr.testing.assert_identical(found[name].drop_vars(list(found[name].coords)),
                                    regional.assign_coords(height=2.0)[name].drop_vars(
                                        list(found[name].coords)))  # fmt: skip
    assert found.kappa2.dims == found["std"].dims == ("lat", "lon")
    units = {name: found[name].attrs["units"] for name in found.data_vars if name != "dilation"}
    assert units == {
        "kappa2": "1", "rho": "1", "theta": "radian", "mean": "K", "std": "K",
        "kappa2_stderr": "1", "rho_stderr": "1", "theta_stderr": "radian",
    }  # fmt: skip
    assert all(found[name].attrs["long_name"] for name in found.data_vars)
    assert found.attrs["boundary"] == "plane"
    assert found.attrs["xr_spde_method"] == "whittle"
    assert found.attrs["xr_spde_replicates"] == 10
    assert found.attrs["xr_spde_dim"] == "realization"
    assert regional.attrs["units"] == "K"


def test_patterns_have_units_and_a_dimension(regional):
    found = estimate(regional, modes=2, dilation=1)
    assert found.patterns.dims == ("mode", "lat", "lon")
    assert found.patterns.attrs["units"] == "K"
    assert found.sizes["mode"] == 2


def test_uncertainty_adds_three_variables(regional):
    plain, more = estimate(regional, **PURE), estimate(regional, uncertainty=True, **PURE)
    assert set(more.data_vars) - set(plain.data_vars) == {
        "kappa2_stderr", "rho_stderr", "theta_stderr",
    }  # fmt: skip
    identical(more[list(plain.data_vars)], plain)
    for name in ("kappa2_stderr", "rho_stderr", "theta_stderr"):
        assert float(more[name].min()) > 0


def test_dataset_of_one_variable(regional):
    ds = regional.to_dataset().assign(crs=0)
    found = estimate(ds, **PURE)
    identical(found, estimate(regional, **PURE))
    assert found["mean"].attrs["units"] == "K"
    assert "variable" not in found.dims


def test_dataset_of_several_variables(regional):
    other = (regional * 3.0).assign_attrs(units="m s-1").rename("u10")
    found = estimate(xr.merge([regional, other], combine_attrs="drop"), **PURE)
    assert found.kappa2.dims == ("variable", "lat", "lon")
    assert list(found["variable"].values) == ["t2m", "u10"]
    for name, da in (("t2m", regional), ("u10", other)):
        identical(found.sel(variable=name), estimate(da, **PURE))
    assert "units" not in found["mean"].attrs


def test_leading_dimensions_are_mapped(regional):
    levels = [regional, regional**2, regional.copy(data=regional.values[::-1] * 0.1)]
    fields = xr.concat(levels, "level").assign_coords(level=[1000, 850, 500])
    fields = fields.expand_dims(season=["djf"], axis=2)
    found = estimate(fields, "realization", uncertainty=True, **PURE)
    assert found.kappa2.dims == ("level", "season", "lat", "lon")
    assert found.dilation.dims == ("level", "season")
    for level in (1000, 850, 500):
        alone = fields.sel(level=level, season="djf", drop=True)
        truth = estimate(alone, "realization", uncertainty=True, **PURE)
        identical(found.sel(level=level, season="djf"), truth)


def test_replicate_dimension_by_name(regional):
    stacked = regional.rename(realization="run")
    identical(estimate(stacked, "run", **PURE), estimate(regional, **PURE))
    identical(estimate(stacked, **PURE), estimate(regional, **PURE))


def test_axes_by_name(regional):
    plain = regional.drop_vars(["lat", "lon"]).rename(lat="a", lon="b")
    found = estimate(plain, x="b", y="a", **PURE)
    np.testing.assert_array_equal(found.kappa2, estimate(regional, **PURE).kappa2)


def test_saved_and_chained_again(regional, tmp_path):
    found = estimate(regional, uncertainty=True, modes=2, dilation=1)
    found.to_netcdf(tmp_path / "params.nc")
    with xr.open_dataset(tmp_path / "params.nc") as back:
        identical(back, found)
        assert back.attrs == found.attrs
        members = emulate(back, 3, seed=1)
        np.testing.assert_array_equal(members, emulate(found, 3, seed=1))
        again = estimate(members.compute(), **PURE)
    assert again.kappa2.shape == (NY, NX)


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus", "paper"])
def test_boundary_is_recorded_and_used_by_emulate(regional, boundary):
    found = estimate(regional.drop_vars(["lat", "lon"]), boundary=boundary, **PURE)
    assert found.attrs["boundary"] == boundary
    assert emulate(found, 2, seed=1).values.shape == (2, NY, NX)


# --- gaps ------------------------------------------------------------------------------------


def test_land_is_carried(regional):
    land = xr.zeros_like(regional[0], dtype=bool)
    land[3:7, 2:9] = True
    found = estimate(regional.where(~land), uncertainty=True, modes=1, dilation=1)
    for name in found.data_vars:
        if name != "dilation":
            np.testing.assert_array_equal(found[name].isnull().any("mode") if name == "patterns"
                                          else found[name].isnull(), land)  # fmt: skip
    members = emulate(found, 2, seed=0)
    np.testing.assert_array_equal(members.isnull().all("realization"), land)


@pytest.mark.parametrize(("kappa2", "mean"), [(0.2, 280.0), (0.02, 0.0), (0.02, 5e4)])
def test_sporadic_gaps_change_little(kappa2, mean):
    """A tenth of the values gone at random: close to the estimate without gaps."""
    fields = emulate(constant((30, 36), kappa2, 2.0, 0.5), 30, seed=1).compute() + mean
    gone = np.random.default_rng(1).random(fields.shape) < 0.1
    found, full = estimate(fields.where(~gone), **PURE), estimate(fields, **PURE)
    assert not found.kappa2.isnull().any()
    assert float(np.abs(np.log(found.kappa2 / full.kappa2)).mean()) < 0.3
    assert float(np.abs(found.rho - full.rho).mean()) < 0.3
    assert float(np.abs(wrap(found.theta - full.theta)).mean()) < 0.06
    np.testing.assert_allclose(
        found["mean"], fields.where(~gone).mean("realization"), rtol=1e-10, atol=1e-9
    )


def test_gaps_with_patterns_chosen_from_the_data():
    fields = emulate(constant((18, 20), 0.3, 2.0, 0.5), 16, seed=1).compute() + 280.0
    gone = np.random.default_rng(1).random(fields.shape) < 0.05
    found = estimate(fields.where(~gone), dilation=1)
    assert float(np.abs(found.patterns).max()) == 0.0
    assert float(found.rho.mean()) == pytest.approx(2.0, abs=0.4)


def test_a_cell_seen_once_is_land(regional):
    fields = regional.copy()
    fields[1:, 4, 4] = np.nan
    found = estimate(fields, **PURE)
    assert int(found.kappa2.isnull().sum()) == 1
    assert found.kappa2.isnull()[4, 4]


def test_constant_cells_are_left_out_with_a_warning(regional):
    fields = regional.copy()
    fields[:, 2:5, 3:6] = 271.35
    with pytest.warns(UserWarning, match=r"9 of 252 cells never vary .* \(std is 0\)") as caught:
        found = estimate(fields, **PURE)
    assert caught[0].filename == __file__
    assert not found.kappa2.isnull().any()
    assert float(found["std"][2:5, 3:6].max()) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(found["mean"][2:5, 3:6], 271.35)
    members = emulate(found, 2, seed=0)
    np.testing.assert_allclose(members[:, 2:5, 3:6], 271.35, atol=1e-6)
    near = estimate(regional, **PURE)
    assert float(np.abs(np.log(found.kappa2 / near.kappa2)).max()) < 0.5


# --- few replicates --------------------------------------------------------------------------


def test_two_replicates():
    fields = emulate(constant((40, 44)), 2, seed=3).compute() + 100.0
    found = estimate(fields, uncertainty=True)
    assert "patterns" not in found
    assert float(np.log(found.kappa2 / 0.3).mean()) == pytest.approx(0.0, abs=0.5)
    assert float(found.rho.mean()) == pytest.approx(2.5, abs=0.5)
    assert float(found.theta.mean()) == pytest.approx(0.6, abs=0.15)
    more = estimate(emulate(constant((40, 44)), 20, seed=3).compute(), uncertainty=True, **PURE)
    assert float(found.rho_stderr.mean()) > float(more.rho_stderr.mean())


def test_one_replicate_with_a_declared_penalty():
    anomaly = emulate(constant((64, 64)), 1, seed=3).compute()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # a value near zero is no constant cell
        anomaly[0, 5, 5] = 1e-9
        found = estimate(anomaly, penalty=1e4, **PURE)
    assert float(np.log(found.kappa2 / 0.3).mean()) == pytest.approx(0.0, abs=0.5)
    assert float(found.theta.mean()) == pytest.approx(0.6, abs=0.15)
    assert float(np.abs(found["mean"]).max()) == 0.0
    rms = float(np.sqrt((anomaly**2).mean()))
    np.testing.assert_allclose(found["std"], rms, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_one_replicate_without_variation(regional, value):
    with pytest.raises(ParameterError, match="same value in every cell"):
        estimate(regional[:1] * 0 + value, penalty=10.0)


# --- what is refused -------------------------------------------------------------------------


def refused(regional) -> dict:
    """Input, keyword arguments, error and message by name."""
    members = regional.drop_vars("realization", errors="ignore").rename(realization="first")
    members = members.expand_dims(second=3)
    steps = regional.lat.values.copy()
    steps[5] += 0.4
    turned = regional.lat.values.copy()
    turned[[5, 6]] = turned[[6, 5]]
    nothing, whole = regional * np.nan, regional * 0 + 280.0
    infinite = regional.copy()
    infinite[3, 2, 1] = np.inf
    few = {"x": "x", "y": "y"}
    return {
        "no replicate dimension": (regional[0], {}, AxisNotFoundError,
            r"no replicate dimension: the dimensions are 'lat', 'lon'"),
        "ambiguous replicates": (members, {}, AxisNotFoundError,
            r"ambiguous between .*'first'.*pass one of"),
        "replicates that are not there": (regional, {"dim": "time"}, AxisNotFoundError,
            r"dim='time' is .*pass one of 'realization'"),
        "replicates that are space": (regional, {"dim": "lat"}, AxisNotFoundError,
            r"dim='lat' is .*'realization'"),
        "one replicate": (regional[:1], {"method": "whittle"}, ParameterError,
            r"1 replicate along 'realization'; at least 2 .*penalty="),
        "no replicates": (regional[:0], {}, ParameterError,
            r"0 replicates along 'realization'; at least 2"),
        "no spatial axes": (xr.DataArray(np.zeros((4, 9)), dims=("realization", "station")), {},
            AxisNotFoundError, r"no [XY] axis: the dimensions are 'realization', 'station'"),
        "names that are no axes": (regional, few, AxisNotFoundError, r"='[xy]' is neither"),
        "a Dataset without a grid": (xr.Dataset({"crs": 0}), {}, AxisNotFoundError,
            r"no variable of the Dataset lies on a grid"),
        "irregular": (regional.assign_coords(lat=steps), {}, GridError,
            r"'lat' is irregular: its steps run from"),
        "not monotonic": (regional.assign_coords(lat=turned), {}, GridError,
            r"'lat' is not monotonic"),
        "complex": (regional.astype(complex), {}, DTypeError,
            r"'t2m' has dtype complex128; .*pass \.real"),
        "object": (regional.astype(object), {}, DTypeError, r"has dtype object; .*astype\(float\)"),
        "dates": (regional.astype("datetime64[s]"), {}, DTypeError, r"has dtype datetime64"),
        "all NaN": (nothing, {}, ParameterError, r"no cell has values .*all NaN\?"),
        "all constant": (whole, {}, ParameterError, r"every cell has the same value .*Pass dim="),
        "infinite": (infinite, {}, ParameterError,
            r"replicate 3 has 1 infinite values \(the first in row 2, column 1\)"),
        "no neighbours": (regional.where((regional.lat.astype(int) + regional.lon.astype(int)) % 2),
            {}, ParameterError, r"no cell of the 14 x 18 grid has data together with"),
        "unknown method": (regional, {"method": "whitle"}, UnknownNameError,
            r"unknown method 'whitle'; known: 'auto', 'whittle'"),
        "unknown boundary": (regional, {"boundary": "sphere"}, UnknownNameError,
            r"unknown boundary 'sphere'; known: .*cylinder"),
        "too small a grid": (regional[:, :5], {}, GridError,
            r"5 rows \(lat\) and 18 columns \(lon\); expected at least 6"),
        "modes by another name": (regional, {"modes": "all"}, ParameterError, r"modes='all'"),
        "negative modes": (regional, {"modes": -1}, ParameterError, r"modes=-1 was given"),
        "fractional modes": (regional, {"modes": 1.5}, ParameterError, r"modes=1\.5 was given"),
        "true modes": (regional, {"modes": True}, ParameterError, r"modes=True was given"),
        "more modes than replicates": (regional, {"modes": 9}, ParameterError,
            r"modes=9 patterns were asked of 10 replicates; expected at most 8"),
        "errors in words": (regional, {"uncertainty": "yes"}, ParameterError,
            r"uncertainty='yes' was given; expected True or False"),
        "odd dilation": (regional, {"dilation": 3}, ParameterError,
            r"dilation=3 was given; expected .*\(1, 2, 4, 8\)"),
        "true dilation": (regional, {"dilation": True}, ParameterError, r"dilation=True was given"),
        "dilation too large": (regional, {"dilation": 8}, ParameterError,
            r"dilation=8 needs more than 16 rows and columns; the grid has 14 x 18"),
        "negative penalty": (regional, {"penalty": -1.0}, ParameterError, r"penalty=-1\.0 was"),
        "zero penalty": (regional, {"penalty": 0}, ParameterError, r"penalty=0 was given"),
        "undefined penalty": (regional, {"penalty": np.nan}, ParameterError, r"penalty=nan was"),
        "penalty in words": (regional, {"penalty": "much"}, ParameterError, r"penalty='much'"),
        "negative buffer": (regional, {"buffer": -2}, ParameterError, r"buffer=-2 was given"),
        "fractional buffer": (regional, {"buffer": 2.5}, ParameterError, r"buffer=2\.5 was given"),
        "buffer by name": (regional, {"buffer": "wide"}, ParameterError, r"buffer='wide' was"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def bad_input(regional) -> dict:
    return refused(regional)


@pytest.mark.parametrize(
    "name",
    list(refused(xr.DataArray(np.zeros((10, NY, NX)), {"lat": np.arange(NY), "lon": np.arange(NX)},
                              ("realization", "lat", "lon")))),
)  # fmt: skip
def test_bad_input(bad_input, name):
    data, settings, error, message = bad_input[name]
    with pytest.raises(error, match=message) as caught:
        estimate(data, **settings)
    assert isinstance(caught.value, xr_spde._core.errors.XrSpdeError)


def test_messages_differ(bad_input):
    messages = set()
    for data, settings, error, _ in bad_input.values():
        with pytest.raises(error) as caught:
            estimate(data, **settings)
        messages.add(str(caught.value))
    assert len(messages) == len(bad_input)


@pytest.mark.parametrize(
    ("count", "settings", "torch", "method"),
    [
        (1, {}, True, "net"),
        (7, {}, True, "net"),
        (8, {}, True, "whittle"),
        (1, {"penalty": 50.0}, True, "whittle"),
        (7, {}, False, "whittle"),
    ],
)
def test_few_replicates_are_read_by_the_network(monkeypatch, count, settings, torch, method):
    from xr_spde.sar import settings as module

    monkeypatch.setattr(module, "has_module", lambda _: torch)
    lazy = xr.DataArray(np.zeros((count, 12, 14)), dims=("time", "lat", "lon")).chunk()
    assert estimate(lazy, **settings).attrs["xr_spde_method"] == method


@pytest.mark.parametrize("method", ["whittle", "mle"])
def test_a_replicate_without_data_counts_as_absent(regional, method):
    fields = regional
    parts = [fields[:2], fields[:1] * np.nan, fields[2:]]
    with_empty = xr.concat(parts, "realization", join="override")
    found, expected = (estimate(f, "realization", method=method) for f in (with_empty, fields))
    for name in NAMES:
        np.testing.assert_array_equal(found[name], expected[name])

"""Exact conditioning of labelled fields against dense algebra."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from xr_spde.assim.correlated import AlongTrack
from xr_spde.assim.kriging import condition
from xr_spde.assim.observations import read_observations
from xr_spde.errors import (
    DTypeError,
    GridError,
    ParameterError,
    UnknownNameError,
)
from xr_spde.fields.sar import operator
from xr_spde.labels.grid import Grid
from xr_spde.sar import emulate

SHAPE = (8, 12)


def make_params(*, seed=0, closed=True, patterns=0, land=False, moments=True, leading=None):
    """Parameters stored from north to south, with longitudes from -180."""
    rng = np.random.default_rng(seed)
    step = 360.0 / SHAPE[1] if closed else 3.0
    lat = xr.DataArray(
        np.linspace(35.0, -35.0, SHAPE[0]), dims="lat", attrs={"units": "degrees_north"}
    )
    lon = -180.0 + step * np.arange(SHAPE[1])
    shape = SHAPE if leading is None else (leading, *SHAPE)
    dims = ("lat", "lon") if leading is None else ("season", "lat", "lon")
    maps = {
        "kappa2": np.exp(rng.normal(-1.5, 0.4, shape)),
        "rho": rng.uniform(1.0, 3.0, shape),
        "theta": rng.uniform(-1.5, 1.5, shape),
    }
    if moments:
        maps |= {"mean": rng.normal(10.0, 2.0, shape), "std": rng.uniform(1.0, 2.0, shape)}
    coords = {"lat": lat, "lon": ("lon", lon, {"units": "degrees_east"})}
    params = xr.Dataset({name: (dims, values) for name, values in maps.items()}, coords)
    if patterns:
        values = 0.3 * rng.standard_normal((patterns, *SHAPE))
        params["patterns"] = (("mode", "lat", "lon"), values)
    if moments:
        for name in ("mean", "std"):
            params[name].attrs = {"units": "K", "long_name": f"{name} of x over the replicates"}
    if land:
        params = params.where(~((params.lon > -60) & (params.lon < 30) & (params.lat > 10)))
    return params


def make_obs(params, count=12, *, seed=1, dry=None):
    rng = np.random.default_rng(seed)
    lat = rng.uniform(-35, 35 if dry is None else 0, count)
    lon = params.lon.values[0] + rng.uniform(0, params.lon.values[-1] - params.lon.values[0], count)
    coords = {"lat": ("obs", lat), "lon": ("obs", (lon + 360.0) % 360.0)}
    return xr.DataArray(rng.normal(10.0, 2.0, count), coords, ("obs",), name="t")


def dense(params, rows, r, d, buffer, boundary):
    """Posterior mean, variance and evidence (stored order) from the covariance itself."""
    grid = Grid.from_object(params)
    land = params.kappa2.isnull().values
    filled = params[["kappa2", "rho", "theta"]]
    maps = [grid.to_canonical(filled[name].values) for name in ("kappa2", "rho", "theta")]
    widths = [(buffer, buffer), (buffer, buffer) if boundary == "plane" else (0, 0)]
    inverse = np.linalg.inv(
        operator(*(np.pad(m, widths, mode="edge") for m in maps), boundary=boundary).toarray()
    )
    ny, nx = (n + a + b for n, (a, b) in zip(SHAPE, widths, strict=True))
    inside = np.zeros((ny, nx), dtype=bool)
    inside[buffer : buffer + SHAPE[0], widths[1][0] : widths[1][0] + SHAPE[1]] = True
    covariance = (inverse @ inverse.T)[np.ix_(inside.ravel(), inside.ravel())]
    order = grid.from_canonical(np.arange(land.size).reshape(SHAPE)).ravel()
    covariance = covariance[np.ix_(order, order)]
    mean = np.zeros(land.size)
    if "std" in params:
        std = params["std"].values.ravel()
        mean = params["mean"].values.ravel()
        large = np.zeros((0, land.size))
        if "patterns" in params:
            large = params["patterns"].values.reshape(-1, land.size)
        left = np.sqrt(std**2 - (large**2).sum(0)) / np.sqrt(np.diagonal(covariance))
        covariance = covariance * np.outer(left, left) + large.T @ large
    seen = rows @ covariance @ rows.T + r
    gain = np.linalg.solve(seen, rows @ covariance).T
    left = d - rows @ mean
    chi2 = left @ np.linalg.solve(seen, left)
    value = -0.5 * (d.size * np.log(2 * np.pi) + np.linalg.slogdet(seen)[1] + chi2)
    posterior = covariance - gain @ rows @ covariance
    return (mean + gain @ left).reshape(SHAPE), posterior, value, chi2


@pytest.mark.parametrize("route", ["precision", "augmented", "covariance"])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("patterns", [0, 2])
def test_posterior_is_that_of_kriging(route, closed, patterns):
    params = make_params(closed=closed, patterns=patterns)
    obs = make_obs(params)
    boundary = "cylinder" if closed else "plane"
    post = condition(params, obs, obs_error=0.5, route=route, buffer=3)
    rows = read_observations(obs, params, obs_error=0.5).operator.matrix.toarray()
    mean, covariance, value, chi2 = dense(params, rows, 0.25 * np.eye(12), obs.values, 3, boundary)
    np.testing.assert_allclose(post["mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(post["std"] ** 2, np.diagonal(covariance).reshape(SHAPE), rtol=1e-9)
    np.testing.assert_allclose(post.increment, mean - params["mean"], atol=1e-9)
    assert post.log_likelihood.item() == pytest.approx(value, rel=1e-9)
    assert post.chi_square.item() == pytest.approx(chi2, rel=1e-9)
    np.testing.assert_allclose(
        post.innovation, obs.values - rows @ params["mean"].values.ravel(), atol=1e-12
    )
    assert post["mean"].attrs["units"] == "K"
    assert post.attrs["xr_spde_observations"] == "12 observations: 12 used"
    assert post.obs_lat.dims == ("obs",)


def test_footprints_and_tracks_with_correlated_errors():
    params = make_params(closed=False)
    obs = make_obs(params, 8).sortby("lon")
    errors = AlongTrack(0.5, length=800e3, share=0.8)
    ready = read_observations(obs, params, obs_error=errors, footprint=900e3)
    rows, white = ready.operator.matrix.toarray(), ready.error.whiten(np.eye(8))
    assert (rows > 0).sum(axis=1).max() > 5
    r = np.linalg.inv(white @ white.T)
    mean, covariance, value, _ = dense(params, rows, r, obs.values, 2, "plane")
    for given in (condition(params, ready, buffer=2),
                  condition(params, obs, obs_error=errors, footprint=900e3, buffer=2),
                  condition(params, ready, buffer=2, route="augmented")):  # fmt: skip
        np.testing.assert_allclose(given["mean"], mean, rtol=1e-9)
        np.testing.assert_allclose(
            given["std"] ** 2, np.diagonal(covariance).reshape(SHAPE), rtol=1e-9
        )
        assert given.log_likelihood.item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("share", [None, 0.6, 1.0])
def test_hundreds_of_wide_or_correlated_observations_augment_the_precision(share):
    """Against one column each, which is tested against dense algebra."""
    params = make_params(closed=True, patterns=1)
    track, rng = np.arange(450) // 150, np.random.default_rng(0)
    along = np.linspace(0.0, 700.0, 150)
    lat, lon = 34.0 * np.sin(np.radians(np.tile(along, 3) + 90.0 * track)), np.tile(along, 3)
    coords = {"lat": ("obs", lat), "lon": ("obs", lon), "pass": ("obs", track)}
    obs = xr.DataArray(rng.normal(10.0, 2.0, 450), coords, ("obs",), name="t")
    options = {"obs_error": 0.5, "footprint": 5000e3}
    if share is not None:
        options = {"obs_error": AlongTrack(0.5, length=900e3, share=share, track="pass")}
    found, columns = (
        condition(params, obs, route=route, buffer=2, **options) for route in ("auto", "covariance")
    )
    for name in ("mean", "std", "log_likelihood", "chi_square"):
        np.testing.assert_allclose(found[name], columns[name], rtol=1e-9)


def test_draws_have_the_posterior_mean_and_covariance():
    params, n = make_params(closed=False, patterns=1), 4000
    obs = make_obs(params, 10)
    post = condition(params, obs, obs_error=0.5, n=n, seed=3, buffer=2)
    rows = read_observations(obs, params, obs_error=0.5).operator.matrix.toarray()
    mean, covariance, *_ = dense(params, rows, 0.25 * np.eye(10), obs.values, 2, "plane")
    drawn = post.ensemble.values.reshape(n, -1)
    std = np.sqrt(np.diagonal(covariance))
    assert np.abs((drawn.mean(0) - mean.ravel()) / std * np.sqrt(n)).max() < 4.5
    error = np.cov(drawn.T) - covariance
    assert np.abs(error / np.outer(std, std) * np.sqrt(n)).max() < 6.5


@pytest.mark.parametrize("route", ["precision", "augmented", "covariance"])
def test_a_member_is_that_of_emulate_and_does_not_depend_on_its_company(route):
    params = make_params(patterns=1)
    far = {"obs_error": 1e12, "seed": 5, "route": route}
    free = condition(params, make_obs(params), n=3, **far).ensemble
    np.testing.assert_allclose(free, emulate(params, 3, seed=5), rtol=1e-9)
    near = {"obs_error": 0.3, "seed": 5, "route": route}
    whole = condition(params, make_obs(params), n=150, **near).ensemble.values
    parts = condition(params, make_obs(params), n=9, chunks=4, **near).ensemble
    np.testing.assert_array_equal(parts.values, whole[:9])
    np.testing.assert_array_equal(parts[5].values, whole[5])
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(parts[7:9].values, whole[7:9])
    assert not np.array_equal(whole[0], whole[1])


def test_land_stays_missing_and_is_not_observed():
    params = make_params(land=True, patterns=1)
    assert params.kappa2.isnull().any()
    obs = make_obs(params, 20, dry=True)
    post = condition(params, obs, obs_error=0.5, n=2, seed=1)
    for name in ("mean", "std", "increment"):
        np.testing.assert_array_equal(post[name].isnull(), params.kappa2.isnull())
    assert (post.ensemble.isnull() == params.kappa2.isnull()).all()
    assert (post["std"] <= params["std"] * (1 + 1e-9)).where(params.kappa2.notnull(), True).all()
    wet = make_obs(params, 40)
    with pytest.raises(ParameterError, match="are on land, where the fields have no values"):
        condition(params, wet, obs_error=0.5)
    dropped = condition(params, wet, obs_error=0.5, unusable="drop")
    assert (dropped.status == 3).sum() > 0
    np.testing.assert_array_equal(dropped.innovation.isnull(), dropped.status != 0)


def test_every_field_of_gridded_observations_is_used_by_itself():
    params = make_params()
    rng = np.random.default_rng(2)
    time = np.array(["2020-01-01", "2020-01-02"], "M8[ns]")
    gaps = rng.random((2, *SHAPE)) < 0.7
    values = np.where(gaps, np.nan, rng.normal(10.0, 2.0, (2, *SHAPE)))
    fields = xr.DataArray(
        values, {"time": time, "lat": params.lat, "lon": params.lon}, ("time", "lat", "lon")
    )
    post = condition(params, fields, obs_error=0.5, n=3, seed=1)
    assert post["mean"].dims == ("time", "lat", "lon")
    assert post.ensemble.dims == ("realization", "time", "lat", "lon")
    assert post.innovation.dims == ("time", "obs_lat", "obs_lon")
    for k in range(2):
        one = condition(params, fields[k], obs_error=0.5)
        np.testing.assert_array_equal(post["mean"][k], one["mean"])
        np.testing.assert_array_equal(post["std"][k], one["std"])
        assert post.chi_square[k].item() == one.chi_square.item()
        np.testing.assert_array_equal(post.status[k] == 1, gaps[k])
    points = fields[0].stack(obs=("lat", "lon")).reset_index("obs").dropna("obs")
    same = condition(params, points.rename("t"), obs_error=0.5)
    np.testing.assert_allclose(same["mean"], post["mean"][0], rtol=1e-12)
    # a matching dimension of the parameters is matched by its labels
    seasons = params.expand_dims(time=time[::-1])
    with pytest.raises(ParameterError, match=r"other labels along 'time'.*obs\.sel\(time=params"):
        condition(seasons, fields, obs_error=0.5)
    both = condition(params.expand_dims(time=time), fields, obs_error=0.5)
    np.testing.assert_array_equal(both["mean"], post["mean"])
    leap = xr.date_range("2020-01-01", periods=2, calendar="noleap", use_cftime=True)
    with pytest.raises(ParameterError, match="cannot be compared; convert"):
        condition(params.expand_dims(time=leap), fields, obs_error=0.5)


def test_leading_dimensions_of_the_parameters_and_lazy_data():
    params = make_params(leading=3)
    obs = make_obs(params)
    post = condition(params, obs, obs_error=0.5, n=4, seed=2)
    assert post["mean"].dims == ("season", "lat", "lon")
    assert post.innovation.dims == ("season", "obs")
    one = condition(params.isel(season=1), obs, obs_error=0.5)
    np.testing.assert_array_equal(post["mean"][1], one["mean"])
    np.testing.assert_allclose(
        condition(params, obs, obs_error=1e12, n=2, seed=2).ensemble,
        emulate(params, 2, seed=2), rtol=1e-9,
    )  # fmt: skip
    lazy = condition(params.chunk(season=1, lat=3), obs, obs_error=0.5, n=4, seed=2, chunks=2)
    assert all(lazy[name].chunks is not None for name in lazy.data_vars)
    for name in lazy.data_vars:
        np.testing.assert_array_equal(lazy[name].values, post[name].values)


def test_a_field_without_moments_has_those_of_the_model():
    params = make_params(moments=False)
    obs = make_obs(params) - 10.0
    post = condition(params, obs, obs_error=0.1, threshold=20.0, buffer=2)
    rows = read_observations(obs, params, obs_error=0.1).operator.matrix.toarray()
    mean, covariance, *_ = dense(params, rows, 0.01 * np.eye(12), obs.values, 2, "cylinder")
    np.testing.assert_allclose(post["mean"], mean, atol=1e-9)
    np.testing.assert_allclose(post["std"] ** 2, np.diagonal(covariance).reshape(SHAPE), atol=1e-9)


def test_quality_control_and_single_precision():
    params = make_params()
    obs = make_obs(params)
    obs[3] = 500.0
    post = condition(params, obs, obs_error=0.5, threshold=5.0)
    assert post.status.values.tolist() == [0, 0, 0, 4] + 8 * [0]
    kept = condition(params, obs.isel(obs=np.arange(12) != 3), obs_error=0.5)
    np.testing.assert_allclose(post["mean"], kept["mean"], rtol=1e-12)
    with pytest.raises(ParameterError, match="rejects all 12"):
        condition(params, obs + 1e4, obs_error=0.5, threshold=5.0)
    single = condition(params.astype(np.float32), obs, obs_error=0.5, n=2)
    assert single["mean"].dtype == single.ensemble.dtype == np.float32


def test_nothing_but_land():
    params = make_params(leading=2).where(lambda ds: ds.season == 0)
    params = params.assign_coords(season=[0, 1])
    params = params.where(params.season == 0)
    post = condition(params, make_obs(params), obs_error=0.5, n=2)
    assert post["mean"][1].isnull().all()
    assert post.ensemble[:, 1].isnull().all()
    assert (post.status[1] == 3).all()
    assert post["mean"][0].notnull().all()


def test_results_survive_the_disk(tmp_path):
    pytest.importorskip("netCDF4")
    params = make_params(patterns=1)
    post = condition(params, make_obs(params), obs_error=0.5, n=2, seed=1, threshold=9.0)
    post.to_netcdf(tmp_path / "post.nc")
    with xr.open_dataset(tmp_path / "post.nc") as again:
        xr.testing.assert_identical(again.load().drop_attrs(), post.compute().drop_attrs())
        assert again.attrs["xr_spde_method"] == "condition"


BAD = [
    ({"n": -1}, ParameterError, "n=-1 was given"),
    ({"n": 2.5}, ParameterError, "n=2.5 was given"),
    ({"chunks": 0}, ParameterError, "chunks=0 was given"),
    ({"dtype": "int16"}, DTypeError, "dtype=int16"),
    ({"dtype": "nothing"}, DTypeError, "is no dtype"),
    ({"route": "dual"}, UnknownNameError, "unknown route 'dual'"),
    ({"solver": "magic"}, UnknownNameError, "unknown solver 'magic'"),
    ({"obs_error": 0.0}, ParameterError, "zero, negative or not known"),
    ({"obs_error": None}, ParameterError, "error of the observations is needed"),
    ({"operator": lambda x: x[..., 0, :]}, ParameterError, "is a function, and a matrix is needed"),
    ({"threshold": -1.0}, ParameterError, r"threshold=-1\.0"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_arguments_say_what_is_wrong(options, error, message):
    params = make_params()
    with pytest.raises(error, match=message):
        condition(params, make_obs(params), **({"obs_error": 0.5} | options))


def test_observations_that_were_read_for_something_else():
    params = make_params()
    obs = make_obs(params)
    ready = read_observations(obs, params, obs_error=0.5)
    with pytest.raises(ParameterError, match="obs_error was given together with observations"):
        condition(params, ready, obs_error=0.5)
    with pytest.raises(ParameterError, match="stored in another order than the parameters"):
        condition(params.isel(lat=slice(None, None, -1)), ready)
    with pytest.raises(GridError, match=r"the field is on .* what was observed on"):
        condition(params.isel(lat=slice(1, None)), ready)
    errors = xr.Dataset({"t": obs, "t_error": ("obs", np.full(12, 0.5))})
    np.testing.assert_array_equal(
        condition(params, errors)["mean"], condition(params, ready)["mean"]
    )

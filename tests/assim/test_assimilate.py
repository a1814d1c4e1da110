"""Observations into labelled ensembles: truth, laziness, labels, and bad input."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import pytest
import xarray as xr

import xr_spde
from xr_spde.assim import Adaptive, assimilate, read_observations, thin
from xr_spde.errors import (
    AxisNotFoundError,
    DTypeError,
    GridError,
    ParameterError,
    UnknownNameError,
)

METHODS = ["letkf", "etkf", "denkf", "enkf", "serial"]
ERROR = 0.3


def waves(size=12, shape=(14, 18), *, seed=0, dtype=np.float64):
    """Smooth members on a part of the globe."""
    lat, lon = np.linspace(60.0, 34.0, shape[0]), 350.0 + 2.0 * np.arange(shape[1])
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 3, shape[0]), np.linspace(0, 4, shape[1]), indexing="ij")
    z = sum(
        rng.standard_normal((size, 1, 1)) * np.sin(a * y + b * x + c)
        for a, b, c in rng.uniform(0.3, 3.0, (8, 3))
    )
    coords = {
        "number": np.arange(size) + 1,
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon % 360.0, {"units": "degrees_east"}),
        "time": np.datetime64("2020-01-01", "ns"),
    }
    attrs = {"units": "m", "standard_name": "height"}
    return xr.DataArray((z + 5.0).astype(dtype), coords, ("number", "lat", "lon"), "z", attrs)


def seen_of(field, count=25, *, seed=1, error=ERROR, wrap=180.0):
    """Noisy bilinear values of a field at points, longitudes from -180 to 180."""
    rng = np.random.default_rng(seed)
    ny, nx = field.shape
    row, column = rng.uniform(0, ny - 1, count), rng.uniform(0, nx - 1, count)
    lat, lon = 60.0 - 2.0 * row, (350.0 + 2.0 * column + wrap) % 360.0 - wrap
    j, i = row.astype(int).clip(0, ny - 2), column.astype(int).clip(0, nx - 2)
    u, v = row - j, column - i
    f = field.values
    clean = (1 - u) * (1 - v) * f[j, i] + (1 - u) * v * f[j, i + 1]
    clean += u * (1 - v) * f[j + 1, i] + u * v * f[j + 1, i + 1]
    place = {"lat": ("obs", lat), "lon": ("obs", lon)}
    return xr.DataArray(clean + error * rng.standard_normal(count), place, "obs")


@pytest.fixture
def ens():
    return waves()[1:]


@pytest.fixture
def obs():
    return seen_of(waves()[0])


def dense_kalman(ens, obs, matrix):
    members = ens.values.reshape(ens.sizes["number"], -1)
    mean, cov = members.mean(axis=0), np.cov(members.T)
    gain = cov @ matrix.T @ np.linalg.inv(matrix @ cov @ matrix.T + ERROR**2 * np.eye(obs.size))
    d = obs.values - matrix @ mean
    chi2 = d @ np.linalg.solve(matrix @ cov @ matrix.T + ERROR**2 * np.eye(obs.size), d)
    return mean + gain @ d, cov - gain @ matrix @ cov, chi2


@pytest.mark.parametrize("method", ["letkf", "etkf", "serial"])
def test_analysis_is_the_kalman_filter(ens, obs, method):
    matrix = read_observations(obs, ens, obs_error=ERROR).operator.matrix.toarray()
    more = {"localization": np.inf} if method == "letkf" else {}
    found = assimilate(ens, obs, method=method, obs_error=ERROR, **more)
    mean, cov, chi2 = dense_kalman(ens, obs, matrix)
    np.testing.assert_allclose(found["mean"].values.ravel(), mean, atol=1e-10)
    np.testing.assert_allclose(found["std"].values.ravel() ** 2, np.diag(cov), atol=1e-10)
    np.testing.assert_allclose(np.cov(found.z.values.reshape(11, -1).T), cov, atol=1e-10)
    np.testing.assert_allclose(found.chi_square, chi2, rtol=1e-10)
    np.testing.assert_allclose(found.increment, found["mean"] - ens.mean("number"), atol=1e-12)


def test_statistics_are_those_of_the_innovations(ens, obs):
    found = assimilate(ens, obs, method="etkf", obs_error=ERROR)
    operator = read_observations(obs, ens, obs_error=ERROR).operator
    seen = operator.apply(ens.values)
    innovation = obs.values - seen.mean(axis=0)
    np.testing.assert_allclose(found.innovation, innovation)
    assert found.observations_used == obs.size
    np.testing.assert_allclose(found.innovation_mean, innovation.mean())
    np.testing.assert_allclose(found.innovation_rms, np.sqrt((innovation**2).mean()))
    expected = np.sqrt((seen.var(axis=0, ddof=1) + ERROR**2).mean())
    np.testing.assert_allclose(found.innovation_expected_rms, expected)
    np.testing.assert_array_equal(found.obs_lat, obs.lat)
    assert found.attrs["observations"] == "25 observations: 25 used"


def test_labels_stay(ens, obs):
    stored = ens.transpose("lat", "number", "lon")
    found = assimilate(stored, obs, obs_error=ERROR)
    assert found.z.dims == stored.dims
    assert found.z.attrs == stored.attrs
    assert found["mean"].attrs["units"] == "m"
    for name in stored.coords:
        xr.testing.assert_identical(found[name].drop_vars("time"), stored[name].drop_vars("time"))
    again = assimilate(ens, obs, obs_error=ERROR)
    xr.testing.assert_allclose(found.z.transpose(*ens.dims), again.z)


def test_longitudes_and_storage_do_not_matter(ens, obs):
    one = assimilate(ens, obs, obs_error=ERROR, localization=800e3)
    turned = ens.assign_coords(lon=(ens.lon + 180) % 360 - 180).sortby(["lat", "lon"])
    two = assimilate(
        turned, obs.assign_coords(lon=obs.lon % 360), obs_error=ERROR, localization=800e3
    )
    back = two.assign_coords(lon=two.lon % 360).sel(lat=ens.lat, lon=ens.lon)
    np.testing.assert_allclose(back.z.values, one.z.values, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_lazy_is_eager_for_any_chunks(method, dtype):
    fields = waves(dtype=dtype)
    ens, obs = fields[1:], seen_of(fields[0])
    eager = assimilate(ens, obs, method=method, obs_error=ERROR, seed=3)
    assert {eager[name].dtype for name in ("z", "mean", "std", "increment")} == {np.dtype(dtype)}
    for chunks in ({"lat": 5, "lon": 7}, {"number": 4, "lat": 14, "lon": 3}, {}):
        lazy = assimilate(ens.chunk(chunks), obs, method=method, obs_error=ERROR, seed=3)
        assert all(lazy[name].chunks is not None for name in ("z", "mean", "std", "increment"))
        found = lazy.compute()
        np.testing.assert_array_equal(found.chi_square, eager.chi_square)
        np.testing.assert_array_equal(found.status, eager.status)
        if method == "letkf":
            for name in ("z", "mean", "std", "increment", "localization"):
                np.testing.assert_array_equal(found[name], eager[name])
        else:
            tolerance = 2e-6 if dtype == np.float32 else 1e-14
            np.testing.assert_allclose(found.z, eager.z, rtol=tolerance)


def test_nothing_is_computed_before_it_is_asked_for(obs):
    touched = []

    def look(block):
        touched.append(block.shape)
        return block

    ens = waves()[1:].chunk(lat=5)
    spied = ens.copy(data=ens.data.map_blocks(look, meta=np.empty((0, 0, 0))))
    result = assimilate(spied, obs, obs_error=ERROR)
    assert touched == []
    result["mean"][0, 0].compute()
    assert touched


def test_processes_find_the_same_bits(ens, obs):
    eager = assimilate(ens, obs, obs_error=ERROR, localization=900e3)
    with dask.config.set(scheduler="processes", num_workers=2):
        found = assimilate(ens.chunk(lat=5), obs, obs_error=ERROR, localization=900e3).z.compute()
    np.testing.assert_array_equal(found, eager.z)


def test_a_large_ensemble_is_read_for_the_observations_and_again(obs, monkeypatch):
    monkeypatch.setattr("xr_spde.labels.blocks.memory_budget", lambda: 1000)
    ens = waves()[1:]
    found = assimilate(ens.chunk(lat=5), obs, method="etkf", obs_error=ERROR)
    np.testing.assert_allclose(
        found.z.compute(), assimilate(ens, obs, method="etkf", obs_error=ERROR).z, rtol=1e-14
    )
    reads = [k for k in found.z.data.dask if "xarray" in str(k)]
    assert len(reads) > len(list(ens.chunk(lat=5).data.dask))


def test_zarr_there_and_back(ens, obs, tmp_path):
    pytest.importorskip("zarr")
    result = assimilate(ens.chunk(lat=5), obs, obs_error=ERROR, localization=900e3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result.to_zarr(tmp_path / "analysis.zarr")
        back = xr.open_zarr(tmp_path / "analysis.zarr")
    eager = assimilate(ens, obs, obs_error=ERROR, localization=900e3)
    np.testing.assert_array_equal(back.z, eager.z)
    again = assimilate(back.z, obs, obs_error=ERROR, localization=900e3)
    assert float(again["std"].mean()) < float(eager["std"].mean())


def test_gridded_observations_and_land(ens):
    land = xr.zeros_like(ens[0], dtype=bool)
    land[3:7, 2:9] = True
    sea = ens.where(~land)
    truth = waves()[0].where(~land)
    gridded = truth.where(np.random.default_rng(0).random(truth.shape) < 0.3)
    for data in (sea, sea.chunk(lat=5)):
        found = assimilate(data, gridded, obs_error=ERROR, method="etkf").compute()
        assert bool((found.z.isnull() == land).all())
        assert bool((found["mean"].isnull() == land).all())
        assert found.observations_used == gridded.notnull().sum()
        kept = np.nan_to_num(found.z.values)
    whole = assimilate(ens, gridded, obs_error=ERROR, method="etkf")
    np.testing.assert_allclose(kept, np.nan_to_num(whole.z.where(~land).values), atol=1e-12)


def test_land_does_not_change_the_sea(ens, obs):
    """Points of land are left out of local analyses: the others keep their bits."""
    land = xr.zeros_like(ens[0], dtype=bool)
    land[3:7, 2:9] = True
    sea = ens.where(~land)
    clear = obs.isel(obs=(obs.lat.values < 46.0))
    whole = assimilate(ens, clear, obs_error=ERROR, localization=900e3)
    for data in (sea, sea.chunk(lat=5, lon=4), sea.chunk(lat=1, lon=1)):  # some all land
        found = assimilate(data, clear, obs_error=ERROR, localization=900e3).compute()
        for name in ("z", "mean", "std", "increment"):
            np.testing.assert_array_equal(found[name], whole[name].where(~land))


def test_points_on_land(ens, obs):
    land = xr.zeros_like(ens[0], dtype=bool)
    land[3:7, 2:9] = True
    sea = ens.where(~land)
    with pytest.raises(ParameterError, match=r"on land.*unusable"):
        assimilate(sea, obs, obs_error=ERROR)
    lazy = assimilate(sea.chunk(lat=5), obs, obs_error=ERROR, unusable="drop")
    eager = assimilate(sea, obs, obs_error=ERROR, unusable="drop")
    expected = read_observations(obs, sea, obs_error=ERROR, unusable="drop", land=land)
    np.testing.assert_array_equal(eager.status, expected.status)
    np.testing.assert_array_equal(lazy.status, expected.status)
    np.testing.assert_array_equal(lazy.z, eager.z)
    with pytest.raises(ParameterError, match="on land"):
        assimilate(sea.chunk(lat=5), obs, obs_error=ERROR).compute()


def test_several_variables_change_through_their_covariance(ens, obs):
    other = (2.0 * ens + 1.0).rename("t").astype(np.float32)
    both = xr.Dataset({"z": ens, "t": other, "mask": ens[0] > 0})
    for data in (both, both.chunk(lat=5, lon=4)):
        for method in ("etkf", "letkf"):
            found = assimilate(data, obs.rename("z"), obs_error=ERROR, method=method)
            alone = assimilate(ens, obs, obs_error=ERROR, method=method)
            np.testing.assert_allclose(found.z, alone.z, atol=1e-12)
            np.testing.assert_allclose(found.t, 2.0 * alone.z + 1.0, atol=2e-5)  # single precision
            assert found.t.dtype == found.t_mean.dtype == np.float32
            assert found.z_observations_used == obs.size
            assert "mask" not in found
    pairs = assimilate(both, {"z": obs, "t": 2 * obs + 1}, obs_error={"z": ERROR, "t": 2 * ERROR})
    assert pairs.t_observations_used == obs.size
    twice = assimilate(
        ens, obs, obs_error=ERROR / np.sqrt(2), localization=float(pairs.localization)
    )
    np.testing.assert_allclose(pairs.z_mean, twice["mean"], atol=2e-4)  # t is in single precision


def test_a_level_that_was_observed_changes_all(ens, obs):
    levels = xr.concat([ens, 3.0 * ens], xr.Variable("level", [500, 850])).transpose("number", ...)
    etkf = [
        assimilate(data, obs.assign_coords(level=500), obs_error=ERROR, method="etkf").z
        for data in (levels, levels.copy(data=levels.values.copy()))  # transposed, and contiguous
    ]
    np.testing.assert_allclose(etkf[0], etkf[1], atol=1e-12)
    found = assimilate(levels, obs.assign_coords(level=500), obs_error=ERROR)
    alone = assimilate(ens, obs, obs_error=ERROR)
    np.testing.assert_allclose(found.z.sel(level=500), alone.z, atol=1e-12)
    np.testing.assert_allclose(found.z.sel(level=850), 3.0 * alone.z, atol=1e-11)
    with pytest.raises(ParameterError, match=r"do not say which.*assign_coords\(level=500\)"):
        assimilate(levels, obs, obs_error=ERROR)
    with pytest.raises(ParameterError, match="labelled level=700"):
        assimilate(levels, obs.assign_coords(level=700), obs_error=ERROR)


def test_times_that_both_have_are_mapped_over(ens, obs):
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]")
    still = ens.drop_vars("time")
    many = xr.concat([still, 2 * still, 3 * still], xr.Variable("time", days))
    seen = xr.concat([obs, 2 * obs, obs * np.nan], xr.Variable("time", days))
    for data in (many, many.chunk(lat=5, time=1)):
        found = assimilate(data, seen, obs_error=ERROR, localization=900e3)
        for k in range(2):
            one = assimilate(many[k], seen[k], obs_error=ERROR, localization=900e3)
            np.testing.assert_array_equal(found.z[k], one.z)
            np.testing.assert_array_equal(found.innovation[k], one.innovation)
        np.testing.assert_array_equal(found.z[2], many[2])
        np.testing.assert_array_equal(found.observations_used, [obs.size, obs.size, 0])
    with pytest.raises(ParameterError, match="other labels along 'time'"):
        assimilate(many[:2], seen, obs_error=ERROR)


def test_a_window_shares_points_out_among_times(ens, obs):
    days = np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")
    many = xr.concat([ens.drop_vars("time")] * 2, xr.Variable("time", days))
    when = np.where(np.arange(obs.size) < 10, days[0], days[1]) + np.timedelta64(5, "h")
    dated = obs.assign_coords(when=("obs", when))
    found = assimilate(many, dated, obs_error=ERROR, window=np.timedelta64(6, "h"), method="etkf")
    np.testing.assert_array_equal(found.observations_used, [10, 15])
    one = assimilate(ens, obs[:10], obs_error=ERROR, method="etkf")
    np.testing.assert_array_equal(found.z[0], one.z)
    scalar = assimilate(ens, dated, obs_error=ERROR, window=np.timedelta64(6, "h"), method="etkf")
    np.testing.assert_array_equal(scalar.z, one.z)


def test_a_function_observes(ens, obs):
    numbers = read_observations(obs, ens, obs_error=ERROR).operator

    def square(fields):
        return numbers.apply(fields) ** 2

    values = xr.DataArray(obs.values**2, dims="obs")
    found = assimilate(ens, values, operator=square, obs_error=2.0, method="etkf")
    lazy = assimilate(ens.chunk(lat=5), values, operator=square, obs_error=2.0, method="etkf")
    np.testing.assert_allclose(lazy.z, found.z, rtol=1e-13)
    assert float(found.innovation_rms) > 0
    with pytest.raises(ParameterError, match="no position"):
        assimilate(ens, values, operator=square, obs_error=2.0)


def test_quality_control_and_readings_done_before(ens, obs):
    wild = obs.copy()
    wild[3] += 100.0
    found = assimilate(ens, wild, obs_error=ERROR, threshold=5.0)
    assert found.observations_used == obs.size - 1
    assert int(found.status[3]) == 4
    assert np.isnan(found.innovation[3])
    rest = assimilate(ens, obs.isel(obs=np.arange(obs.size) != 3), obs_error=ERROR, threshold=5.0)
    np.testing.assert_allclose(found.z, rest.z, atol=0.05)
    thinned = thin(read_observations(obs, ens, obs_error=ERROR), 800e3)
    assert assimilate(ens, thinned).observations_used == thinned.size < obs.size


def test_inflation_relaxation_and_rotation(ens, obs):
    plain = assimilate(ens, obs, obs_error=ERROR, method="etkf")
    more = assimilate(ens, obs, obs_error=ERROR, method="etkf", inflation=1.5)
    np.testing.assert_allclose(more["std"], 1.5 * plain["std"], rtol=1e-9)
    kept = assimilate(ens, obs, obs_error=ERROR, rtps=1.0, localization=900e3)
    np.testing.assert_allclose(kept["std"], ens.std("number", ddof=1), rtol=1e-9)
    turned = assimilate(ens, obs, obs_error=ERROR, method="etkf", rotate=True, seed=1)
    np.testing.assert_allclose(turned["mean"], plain["mean"], atol=1e-10)
    assert float(abs(turned.z - plain.z).max()) > 0.01
    adaptive = assimilate(ens, obs + 3.0, obs_error=ERROR, inflation=Adaptive(1.2, 0.5))
    assert float(adaptive.inflation) > 1.2
    assert float(adaptive.chi_square) > 0


def test_model_noise_in_the_square_root():
    ens, obs = waves(60, (4, 5))[1:], seen_of(waves(60, (4, 5))[0], 6)
    found = assimilate(ens, obs, obs_error=ERROR, method="etkf-q", model_noise=0.05)
    members = ens.values.reshape(59, -1)
    matrix = read_observations(obs, ens, obs_error=ERROR).operator.matrix.toarray()
    cov = np.cov(members.T) + 0.05 * np.eye(20)
    inner = np.linalg.inv(matrix @ cov @ matrix.T + ERROR**2 * np.eye(6))
    after = cov - cov @ matrix.T @ inner @ matrix @ cov
    np.testing.assert_allclose(np.cov(found.z.values.reshape(59, -1).T), after, atol=1e-9)
    with pytest.raises(ParameterError, match="model_noise= was not given"):
        assimilate(ens, obs, obs_error=ERROR, method="etkf-q")
    with pytest.raises(ParameterError, match="is a dask array"):
        assimilate(ens.chunk(), obs, obs_error=ERROR, method="etkf-q", model_noise=0.05)


def test_parameters_are_conditioned_exactly(obs):
    params = xr_spde.synthetic.constant_parameters((14, 18), kappa2=0.3)
    zero = xr.zeros_like(params.kappa2)
    params = params.assign(mean=zero, std=zero + 1.0)
    seen = xr.DataArray([1.0], {"y": ("obs", [params.y[5]]), "x": ("obs", [params.x[5]])}, "obs")
    found = assimilate(params, seen, obs_error=1.0)
    np.testing.assert_allclose(found["mean"][5, 5], 0.5, atol=1e-9)
    with pytest.raises(ParameterError, match=r"needs an ensemble.*emulate"):
        assimilate(params, seen, obs_error=1.0, method="etkf")
    with pytest.raises(ParameterError, match="rtps belongs to an ensemble"):
        assimilate(params, seen, obs_error=1.0, rtps=0.5)


BAD = {
    "one member": (lambda e, o: (e[:1], o, {}), ParameterError, "1 replicate along 'number'"),
    "no members": (lambda e, o: (e[0], o, {}), AxisNotFoundError, "no replicate dimension"),
    "unknown method": (lambda e, o: (e, o, {"method": "ukf"}), UnknownNameError, "ukf"),
    "oi": (lambda e, o: (e, o, {"method": "oi"}), ParameterError, "sar.estimate"),
    "deflation": (lambda e, o: (e, o, {"inflation": 0.9}), ParameterError, "factor >= 1"),
    "relaxation": (lambda e, o: (e, o, {"rtps": 1.5}), ParameterError, r"share in \[0, 1\]"),
    "zero error": (lambda e, o: (e, o, {"obs_error": 0.0}), ParameterError, "zero, negative"),
    "negative error": (lambda e, o: (e, o, {"obs_error": -1.0}), ParameterError, "zero, negative"),
    "no error": (lambda e, o: (e, o, {"obs_error": None}), ParameterError, "obs_error=0.1"),
    "outside": (
        lambda e, o: (e, o.assign_coords(lat=o.lat - 60), {}), ParameterError, "25 outside grid",
    ),
    "one outside": (
        lambda e, o: (e, o.assign_coords(lat=("obs", [-50, *o.lat.values[1:]])), {}),
        ParameterError,
        "1 of 25 observations are outside the grid",
    ),
    "all rejected": (
        lambda e, o: (e, o + 1e6, {"threshold": 3.0}), ParameterError, "rejects all 25",
    ),
    "threshold": (lambda e, o: (e, o, {"threshold": 0.0}), ParameterError, "threshold=0.0"),
    "missing": (lambda e, o: (e, o * np.nan, {}), ParameterError, "25 missing"),
    "radius": (lambda e, o: (e, o, {"localization": -5.0}), ParameterError, "radius of local"),
    "global radius": (
        lambda e, o: (e, o, {"localization": 1e6, "method": "etkf"}), ParameterError, "letkf",
    ),
    "exact only": (lambda e, o: (e, o, {"n": 10}), ParameterError, "n belongs to parameters"),
    "which variable": (
        lambda e, o: (xr.Dataset({"a": e, "b": e}), o, {}), ParameterError, "which was observed",
    ),
    "no such variable": (
        lambda e, o: (xr.Dataset({"a": e, "b": e}), {"c": o}, {}), ParameterError, "of 'c'",
    ),
    "type": (lambda e, o: (e, o.values, {}), DTypeError, "ndarray"),
    "taken name": (lambda e, o: (e.rename("mean"), o, {}), ParameterError, "rename it"),
    "words": (lambda e, o: (e, o, {"threshold": "4"}), ParameterError, "threshold='4'.*number"),
    "nothing": (lambda e, o: (e, o[:0], {}), ParameterError, "there are no observations"),
    "error of another": (
        lambda e, o: (e, o, {"obs_error": {"t": 1.0}}), ParameterError, "given for 't', and 'z'",
    ),
    "empty window": (
        lambda e, o: (
            e,
            o.assign_coords(when=("obs", np.full(o.size, np.datetime64("1999-01-01", "ns")))),
            {"window": np.timedelta64(6, "h")},
        ),
        ParameterError,
        "lies within window=6 hours",
    ),
    "noise in words": (
        lambda e, o: (e, o, {"model_noise": "a"}), ParameterError, "model_noise='a'",
    ),
    "no time": (
        lambda e, o: (e.drop_vars("time"), o, {"window": np.timedelta64(1, "h")}),
        ParameterError,
        "no coordinate of one date",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input_is_named(ens, obs, case):
    change, kind, message = BAD[case]
    data, seen, settings = change(ens, obs)
    with pytest.raises(kind, match=message):
        assimilate(data, seen, **{"obs_error": ERROR, **settings})


@pytest.mark.parametrize("where", ["observed", "elsewhere"])
@pytest.mark.parametrize("method", ["letkf", "etkf"])
def test_broken_members_are_named(ens, obs, where, method):
    broken = ens.copy()
    near = obs[:1].assign_coords(lat=("obs", [60.0]), lon=("obs", [350.0]))
    j = 0 if where == "observed" else 9
    broken[4, j, j] = np.nan
    for data in (broken, broken.chunk(lat=5)):
        with pytest.raises(ParameterError, match=r"member\(s\) 4 "):
            assimilate(
                data,
                near,
                obs_error=ERROR,
                method=method,
                **({"localization": 1e6} if method == "letkf" else {}),
            ).compute()


def test_other_calendars(ens, obs):
    cftime = pytest.importorskip("cftime")
    when = [cftime.DatetimeNoLeap(2020, 1, 1)] * obs.size
    with pytest.raises(ParameterError, match="convert_calendar"):
        assimilate(ens, obs.assign_coords(when=("obs", when)), obs_error=ERROR)


def test_a_radius_below_the_grid_step_is_warned_of(ens, obs):
    with pytest.warns(UserWarning, match="shorter than the step of the grid"):
        assimilate(ens, obs, obs_error=ERROR, localization=10e3)


def test_observations_on_another_grid_that_is_a_plane(ens):
    flat = xr.DataArray([1.0], {"x": ("obs", [3.0]), "y": ("obs", [4.0])}, "obs")
    with pytest.raises((AxisNotFoundError, GridError)):
        assimilate(ens, flat.assign_coords(x=flat.x.assign_attrs(units="m")), obs_error=ERROR)

"""Diagnostics against dense algebra and closed forms."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import scipy.stats
import xarray as xr

from xr_spde import set_options
from xr_spde._core.errors import (
    AxisNotFoundError,
    DTypeError,
    GridError,
    MemoryGuardError,
    ParameterError,
    SchemaError,
    UnknownNameError,
)
from xr_spde._core.rng import member_generator
from xr_spde.labels.grid import EARTH_RADIUS, Grid
from xr_spde.sar import (
    correlation,
    emulate,
    log_likelihood,
    operator,
    standardize,
    variance,
)
from xr_spde.sar import range as practical_range

NAMES = ("kappa2", "rho", "theta")
BOUNDARIES = ["plane", "cylinder", "torus", "paper"]


def maps(params):
    return [params[name].values for name in NAMES]


def constant(shape, kappa2, rho, theta, dims=("y", "x"), **coords) -> xr.Dataset:
    values = {"kappa2": kappa2, "rho": rho, "theta": theta}
    return xr.Dataset({k: (dims, np.full(shape, float(v))) for k, v in values.items()}, coords)


@pytest.fixture
def bare(params):
    return params[list(NAMES)]


@pytest.fixture
def patterned(params):
    """Two patterns that take part of the variance."""
    waves = np.sin(np.arange(63).reshape(7, 9) / np.array([4.0, 9.0])[:, None, None])
    return params.assign(patterns=(("mode", "lat", "lon"), 0.6 * params["std"].values * waves))


@pytest.fixture
def fields(params):
    return emulate(params, 40, seed=7).compute()


# --- exact correlation and variance -----------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_exact_moments_against_dense_algebra(bare, dense_covariance, boundary):
    exact = dense_covariance(*maps(bare), boundary)
    v = variance(bare, boundary=boundary, buffer=0)
    np.testing.assert_allclose(v.values.ravel(), np.diag(exact), rtol=1e-10)
    r = correlation(bare, at=(42.0, 8.0), boundary=boundary, buffer=0)
    node = 2 * 9 + 3
    expected = exact[node] / np.sqrt(exact[node, node] * np.diag(exact))
    np.testing.assert_allclose(r.values.ravel(), expected, atol=1e-10)
    assert (float(r.point_lat), float(r.point_lon)) == (42.0, 8.0)


def test_buffer_is_the_padded_model(bare, dense_covariance):
    padded = [np.pad(m, 3, mode="edge") for m in maps(bare)]
    exact = dense_covariance(*padded, "plane")
    diagonal = np.diag(exact).reshape(13, 15)[3:-3, 3:-3]
    np.testing.assert_allclose(variance(bare, buffer=3).values, diagonal, rtol=1e-10)


def test_torus_closed_form():
    """Check A3 of the specification (its angle 45 degrees is -45 degrees here)."""
    params = constant((64, 64), 0.5, 3.0, -np.pi / 4)
    assert float(variance(params, boundary="torus").mean()) == pytest.approx(0.13362, abs=2e-5)
    r = correlation(params, at=(20, 20), boundary="torus")
    found = [float(r[20 + j, 20 + i]) for j, i in ((0, 1), (1, 0), (1, 1), (-1, 1))]
    np.testing.assert_allclose(found, [0.7541, 0.7541, 0.4832, 0.7592], atol=1e-4)


def test_variance_with_std_is_that_of_the_emulated_field(params):
    v = variance(params)
    np.testing.assert_allclose(v, params["std"] ** 2)
    assert v.attrs["units"] == "(K)^2"
    assert v.name == "variance"


def test_empirical_correlation_of_the_ensemble_tends_to_the_exact_one(params):
    n = 4000
    exact = correlation(params, at=(43.0, 9.0))
    sample = correlation(emulate(params, n, seed=2), at=(43.0, 9.0))
    z = (sample - exact) / ((1 - exact**2) / np.sqrt(n))
    z = z.where(exact < 1 - 1e-9)
    assert float(abs(z).max()) < 4.5
    assert float((z**2).mean()) == pytest.approx(1.0, abs=0.6)


def test_several_points_and_every_way_to_name_them(bare):
    both = correlation(bare, at=[(42.0, 8.0), {"lon": 12.2, "lat": 44.6}])
    assert both.dims == ("point", "lat", "lon")
    np.testing.assert_array_equal(both.point_lat, [42.0, 45.0])
    np.testing.assert_array_equal(both.point_lon, [8.0, 12.0])
    xr.testing.assert_allclose(both[0], correlation(bare, at=[42.0, 8.0]))
    xr.testing.assert_allclose(both[1], correlation(bare, at=np.array([[45.2, 12.4]]))[0])
    xr.testing.assert_identical(both, correlation(bare, at=[(42.0, 368.0), (45.0, -348.0)]))


def test_land_is_carried_and_has_no_correlation(bare):
    land = xr.zeros_like(bare["rho"], dtype=bool)
    land[3, 4:6] = True
    masked = bare.where(~land)
    r = correlation(masked, at=[(40.0, 5.0), (43.0, 9.0)])
    assert bool((r[0].isnull() == land).all())
    assert bool(r[1].isnull().all())
    assert bool((variance(masked).isnull() == land).all())
    assert bool(variance(bare.where(bare["rho"] < 0)).isnull().all())


def test_storage_order_does_not_matter():
    rng = np.random.default_rng(0)
    lat, lon = np.arange(-40.0, 41.0, 16.0), np.arange(0.0, 360.0, 45.0)
    shape = (lat.size, lon.size)
    values = {
        "kappa2": rng.uniform(0.2, 1, shape),
        "rho": rng.uniform(1, 4, shape),
        "theta": rng.uniform(-1.5, 1.5, shape),
    }
    params = xr.Dataset(
        {k: (("lat", "lon"), v) for k, v in values.items()}, {"lat": lat, "lon": lon}
    )
    turned = params.isel(lat=slice(None, None, -1)).roll(lon=3, roll_coords=True)
    turned = turned.assign_coords(lon=(turned.lon + 180) % 360 - 180).transpose("lon", "lat")
    for diagnose in (variance, practical_range, lambda p: correlation(p, at=(8, 90))):
        plain, other = diagnose(params), diagnose(turned)
        back = other.assign_coords(lon=other.lon % 360).sortby(["lat", "lon"])
        drop = [c for c in ("point_lat", "point_lon") if c in plain.coords]
        xr.testing.assert_identical(
            back.drop_vars(drop).transpose("lat", "lon"), plain.drop_vars(drop)
        )
    expected = operator(params).toarray()
    np.testing.assert_array_equal(operator(turned).toarray(), expected)


# --- empirical correlation --------------------------------------------------------------------


def test_empirical_correlation_is_pairwise_complete(fields):
    rng = np.random.default_rng(1)
    gaps = fields.where(rng.random(fields.shape) > 0.3)
    gaps[:, 0, 0] = 3.5  # never varies
    gaps[2:, 6, 8] = np.nan
    gaps[1, 6, 8] = np.nan  # present once
    r = correlation(gaps, at=(42.0, 8.0))
    v = gaps.values
    for j, i in np.ndindex(7, 9):
        both = np.isfinite(v[:, j, i]) & np.isfinite(v[:, 2, 3])
        if (j, i) in ((0, 0), (6, 8)):
            assert np.isnan(r[j, i])
        else:
            expected = np.corrcoef(v[both, j, i], v[both, 2, 3])[0, 1]
            assert float(r[j, i]) == pytest.approx(expected, abs=1e-9)


def test_a_large_mean_cancels_nothing(fields):
    shifted = (fields.astype("float64") - 280.0) + 1e7
    expected = correlation(fields - 280.0, at=(42.0, 8.0))
    np.testing.assert_allclose(correlation(shifted, at=(42.0, 8.0)), expected, atol=1e-7)


@pytest.mark.parametrize(
    "chunks", [{"realization": 7}, {"realization": 3, "lat": 2, "lon": 4}, {"lon": 1}]
)
def test_empirical_correlation_does_not_depend_on_chunks(fields, chunks):
    gaps = fields.where(np.random.default_rng(1).random(fields.shape) > 0.1)
    lazy = correlation(gaps.chunk(chunks), at=[(42.0, 8.0), (45.0, 6.0)])
    assert isinstance(lazy.data, da.Array)
    xr.testing.assert_identical(lazy.compute(), correlation(gaps, at=[(42.0, 8.0), (45.0, 6.0)]))


def test_leading_dimensions_and_datasets_of_fields(fields):
    levels = xr.concat([fields, -2 * fields], "level").transpose(
        "lat", "realization", "level", "lon"
    )
    r = correlation(levels, at=(42.0, 8.0), dim="realization")
    assert r.dims == ("level", "lat", "lon")
    np.testing.assert_allclose(r[0], r[1], atol=1e-12)
    several = correlation(xr.Dataset({"a": fields, "b": fields**3}), at=(42.0, 8.0))
    assert list(several["variable"].values) == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"at": (60.0, 8.0)}, ParameterError, "outside the grid"),
        ({"at": (42.0, 30.0)}, ParameterError, "outside the grid"),
        ({"at": (np.nan, 8.0)}, ParameterError, "outside the grid"),
        ({"at": []}, ParameterError, "no position"),
        ({"at": "Paris"}, ParameterError, "no position"),
        ({"at": 3.0}, ParameterError, "no position"),
        ({"at": [(1.0, 2.0, 3.0)]}, ParameterError, "no position"),
        ({"at": {"lat": 42.0}}, ParameterError, "no position.*'lon'"),
        ({"at": {"lat": 42.0, "time": 1.0}}, ParameterError, "no position"),
        ({"dim": "member"}, AxisNotFoundError, "member"),
        ({"solver": "superlu"}, ParameterError, "empirical"),
        ({"boundary": "plane"}, ParameterError, "empirical"),
    ],
)
def test_bad_arguments_for_fields(fields, arguments, error, message):
    with pytest.raises(error, match=message):
        correlation(fields, **({"at": (42.0, 8.0)} | arguments))


def test_other_refusals_of_correlation(fields, params):
    with pytest.raises(ParameterError, match="1 replicate along"):
        correlation(fields[:1], at=(42.0, 8.0))
    with pytest.raises(AxisNotFoundError, match="replicate"):
        correlation(fields[0], at=(42.0, 8.0))
    with pytest.raises(DTypeError, match="complex"):
        correlation(fields * 1j, at=(42.0, 8.0))
    with pytest.raises(ParameterError, match="infinite"):
        correlation(fields.where(fields != fields[3, 1, 1], np.inf), at=(42.0, 8.0))
    with pytest.raises(ParameterError, match="has no replicates"):
        correlation(params, at=(42.0, 8.0), dim="number")
    with pytest.raises(SchemaError, match="lacks 'theta'"):
        correlation(params.drop_vars("theta"), at=(42.0, 8.0))
    with pytest.raises(UnknownNameError, match="known: 'auto'"):
        correlation(params, at=(42.0, 8.0), solver="none")
    with set_options(memory_limit=1000), pytest.raises(MemoryGuardError, match="7 x 9"):
        variance(params)


# --- range ------------------------------------------------------------------------------------


def test_range_on_the_sphere():
    lat = np.array([-60.0, -30.0, 0.0, 30.0, 60.0])
    params = constant((5, 12), 0.5, 4.0, np.pi / 2 - 1e-12, ("lat", "lon"), lat=lat,
                      lon=np.arange(12) * 30.0)  # fmt: skip
    found = practical_range(params)
    side = EARTH_RADIUS * np.radians(30.0) / 1e3
    # Along the meridian sqrt(8 rho / kappa2) = 8 cells of one size everywhere, across it 2 cells
    # that shrink with cos(lat).
    np.testing.assert_allclose(found.range_along, 8 * side, rtol=1e-9)
    np.testing.assert_allclose(
        found.range_across,
        (2 * side * np.cos(np.radians(params.lat))).broadcast_like(found.bearing),
    )
    np.testing.assert_allclose(np.minimum(found.bearing, 180 - found.bearing), 0.0, atol=1e-6)
    assert found.range_along.attrs["units"] == "km"


def test_shorter_cells_near_the_pole_turn_the_bearing():
    lat = np.array([0.0, 60.0])
    params = constant((2, 12), 0.5, 1.0, 0.0, ("lat", "lon"), lat=lat, lon=np.arange(12) * 30.0)
    params["theta"] = params["theta"] + np.pi / 4
    params["rho"] = params["rho"] + 2.0
    found = practical_range(params)
    side = np.radians(60.0) * EARTH_RADIUS / 1e3  # of a cell along the meridian
    for row, dx in ((0, side / 2), (1, side / 4)):
        turn = np.diag([dx, side])
        h = np.array([[5 / 3, 4 / 3], [4 / 3, 5 / 3]])
        values, vectors = np.linalg.eigh(turn @ h @ turn / 0.5)
        east, north = vectors[:, 1]
        assert float(found.range_along[row, 0]) == pytest.approx(np.sqrt(8 * values[1]))
        assert float(found.range_across[row, 0]) == pytest.approx(np.sqrt(8 * values[0]))
        assert float(found.bearing[row, 0]) == pytest.approx(
            np.degrees(np.arctan2(east, north)) % 180
        )


@pytest.mark.parametrize("theta", [-90.0, -89.0, -30.0, 0.0, 30.0, 89.9])
def test_bearing_is_clockwise_from_north(theta):
    axis = {"units": "km"}
    params = constant((3, 4), 0.5, 4.0, np.radians(theta)).assign_coords(
        y=("y", np.arange(3) * 2.0, axis), x=("x", np.arange(4) * 2.0, axis)
    )
    found = practical_range(params)
    np.testing.assert_allclose(found.bearing, (90.0 - theta) % 180.0, atol=1e-9)
    np.testing.assert_allclose(found.range_along, 16.0)
    np.testing.assert_allclose(found.range_across, 4.0)


def test_range_is_where_the_correlation_has_fallen_to_its_practical_value():
    """Check the Matern limit r K1(r) = 0.14 at r = sqrt(8), along and across."""
    params = constant((121, 121), 0.02, 2.0, 0.0)
    found = practical_range(params)
    along, across = int(found.range_along[0, 0].round()), int(found.range_across[0, 0].round())
    r = correlation(params, at=(60, 60), boundary="torus")
    assert (along, across) == (28, 14)
    expected = np.sqrt(8) * scipy.special.k1(np.sqrt(8))
    for value in (r[60, 60 + along], r[60 + across, 60]):
        assert float(value) == pytest.approx(expected, abs=0.015)


def test_range_without_units_counts_cells_and_isotropy_has_bearing_zero():
    found = practical_range(constant((3, 3), 0.5, 1.0, 0.7).where(np.eye(3).astype(bool)[::-1]))
    assert found.range_along.attrs["units"] == "1"
    np.testing.assert_allclose(found.range_along.values[::-1].diagonal(), 4.0)
    np.testing.assert_array_equal(found.bearing.values[::-1].diagonal(), 0.0)
    assert np.isnan(found.range_across.values).sum() == 6
    assert np.isnan(found.bearing.values).sum() == 6


# --- log-likelihood ---------------------------------------------------------------------------


def full_covariance(params, covariance):
    """Of the field: patterns, and the local model scaled to what they leave of std."""
    modes = params["patterns"].values.reshape(-1, 63) if "patterns" in params else np.zeros((0, 63))
    left = params["std"].values.ravel() ** 2 - (modes**2).sum(axis=0)
    scale = np.sqrt(left / np.diag(covariance))
    return covariance * np.outer(scale, scale) + modes.T @ modes


def dense_log_density(params, covariance, fields):
    full = full_covariance(params, covariance)
    total = 0.0
    for field in fields.values.reshape(fields.sizes["realization"], -1):
        seen = np.isfinite(field)
        law = scipy.stats.multivariate_normal(
            params["mean"].values.ravel()[seen], full[np.ix_(seen, seen)]
        )
        total += law.logpdf(field[seen])
    return total


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_log_likelihood_against_the_dense_density(params, fields, dense_covariance, boundary):
    exact = dense_covariance(*maps(params), boundary)
    found = log_likelihood(fields, params, boundary=boundary)
    assert found.dims == ()
    assert float(found) == pytest.approx(dense_log_density(params, exact, fields), rel=1e-10)


def test_gaps_and_buffer_are_integrated_out(params, fields, dense_covariance):
    gaps = fields.where(np.random.default_rng(0).random(fields.shape) > 0.2)
    gaps[3] = np.nan
    gaps[:, 2:4, 3:5] = np.nan
    exact = dense_covariance(*maps(params), "plane")
    expected = dense_log_density(params, exact, gaps[[0, 1, 2, 4]])
    assert float(log_likelihood(gaps[:5], params)) == pytest.approx(expected, rel=1e-10)

    padded = dense_covariance(*[np.pad(m, 2, mode="edge") for m in maps(params)], "plane")
    inner = np.arange(11 * 13).reshape(11, 13)[2:-2, 2:-2].ravel()
    expected = dense_log_density(params, padded[np.ix_(inner, inner)], fields)
    assert float(log_likelihood(fields, params, buffer=2)) == pytest.approx(expected, rel=1e-10)


def test_patterns_are_integrated_out(patterned, fields, dense_covariance):
    exact = dense_covariance(*maps(patterned), "plane")
    gaps = fields.where(np.random.default_rng(0).random(fields.shape) > 0.2)
    for data in (fields, gaps[:4]):
        expected = dense_log_density(patterned, exact, data)
        assert float(log_likelihood(data, patterned)) == pytest.approx(expected, rel=1e-10)
    turned = patterned.isel(lat=slice(None, None, -1)).chunk(mode=1, lon=3)
    lazy = log_likelihood(fields.chunk(realization=9), xr.concat([turned, turned], "model"))
    np.testing.assert_allclose(lazy, dense_log_density(patterned, exact, fields), rtol=1e-10)


def test_patterns_have_their_part_in_correlation_and_in_members(patterned, dense_covariance):
    full = full_covariance(patterned, dense_covariance(*maps(patterned), "plane"))
    node = 3 * 9 + 4
    r = correlation(patterned, at=(43.0, 9.0), buffer=0)
    expected = full[node] / np.sqrt(full[node, node] * np.diag(full))
    np.testing.assert_allclose(r.values.ravel(), expected, atol=1e-10)
    np.testing.assert_allclose(variance(patterned), patterned["std"] ** 2)
    n = 4000
    members = emulate(patterned, n, seed=3, buffer=0).values.reshape(n, -1)
    sd = np.sqrt(np.diag(full))
    off = (np.cov(members.T) - full) / np.outer(sd, sd)
    assert abs(off).max() < 5 * np.sqrt(2 / n)
    assert emulate(patterned, 50, seed=3, chunks=7, buffer=0).values.tobytes() == (
        members[:50].tobytes()
    )


def test_land_in_the_parameters_is_a_gap(params, fields):
    """Land has the parameters of the nearest cell, here either of two equal ones."""
    for name in NAMES:
        params[name][0, 0] = params[name][0, 1] = params[name][1, 0]
    land = xr.zeros_like(params["std"], dtype=bool)
    land[0, 0] = True
    on_land = float(log_likelihood(fields, params.where(~land)))
    assert on_land == pytest.approx(float(log_likelihood(fields.where(~land), params)), rel=1e-12)


def test_the_truth_is_more_likely_than_its_neighbours(params):
    data = emulate(params, 200, seed=3, buffer=0).compute()
    truth = float(log_likelihood(data, params))
    for name, factor in (
        ("kappa2", 1.5),
        ("kappa2", 0.7),
        ("rho", 1.4),
        ("std", 1.1),
        ("std", 0.9),
    ):
        assert truth > float(log_likelihood(data, params.assign({name: params[name] * factor})))
    assert truth > float(log_likelihood(data, params.assign(theta=params["theta"] + 0.3)))


def test_log_likelihood_matches_leading_dimensions_and_storage_order(params, fields):
    both = xr.concat([params, params.assign(std=params["std"] * 2)], "model")
    each = log_likelihood(fields, both.isel(lat=slice(None, None, -1)))
    assert each.dims == ("model",)
    single = [float(log_likelihood(fields, both.isel(model=k))) for k in (0, 1)]
    np.testing.assert_allclose(each, single, rtol=1e-12)
    days = xr.concat(
        [f.drop_vars("realization") for f in (fields[:20], fields[20:])], "day"
    ).transpose("realization", "lat", "day", "lon")
    split = log_likelihood(days, params, "realization")
    assert split.dims == ("day",)
    assert float(split.sum()) == pytest.approx(single[0], rel=1e-12)
    lazy = log_likelihood(fields.chunk(realization=7, lat=3), both.chunk(lon=2))
    assert isinstance(lazy.data, da.Array)
    np.testing.assert_allclose(lazy, single, rtol=1e-12)


def test_log_likelihood_refuses(params, fields):
    with pytest.raises(GridError, match=r"a grid of 7 x 8 cells.*a grid of 7 x 9 cells"):
        log_likelihood(fields.isel(lon=slice(1, None)), params)
    with pytest.raises(GridError, match="the same cells"):
        log_likelihood(fields.assign_coords(lat=fields.lat + 1), params)
    still = params.copy(deep=True)
    still["std"][0, 0] = 0.0
    with pytest.raises(ParameterError, match="std is 0, or taken up by patterns, at 1 cells"):
        log_likelihood(fields, still)
    assert np.isfinite(log_likelihood(fields.where(still["std"] > 0), still))
    with pytest.raises(ParameterError, match="infinite"):
        log_likelihood(fields.where(fields != fields[3, 1, 1], np.inf), params)


# --- operator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_operator_is_the_documented_matrix(params, dense, boundary):
    matrix = operator(params, boundary=boundary)
    np.testing.assert_allclose(matrix.toarray(), dense(*maps(params), boundary), atol=1e-14)


def test_operator_maps_to_fields_through_the_grid(params):
    stored = params.isel(lat=slice(None, None, -1), lon=slice(None, None, -1))
    grid = Grid.from_object(stored)
    y = emulate(stored[list(NAMES)], 1, seed=1, buffer=0)[0].values
    noise = operator(stored) @ grid.to_canonical(y).ravel()
    np.testing.assert_allclose(noise, member_generator(1, 0).standard_normal(63), atol=1e-12)


def test_operator_refuses_more_than_one_map(params):
    with pytest.raises(ParameterError, match=r"dimension model.*isel\(model=0\)"):
        operator(params.expand_dims(model=2))
    assert operator(params.expand_dims(model=1)).shape == (63, 63)
    with pytest.raises(ParameterError, match="all 63 cells are land"):
        operator(params.where(params["rho"] < 0))


# --- standardize ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_standardized_fields_have_mean_zero_and_sum_of_squares(dtype):
    """Check A7, on geopotential-like numbers that single precision hardly resolves."""
    z = 5e4 + 100 * np.random.default_rng(0).standard_normal((30, 6, 7))
    da_ = xr.DataArray(z.astype(dtype), dims=("number", "lat", "lon"), name="z",
                       attrs={"units": "m2 s-2", "standard_name": "geopotential"})  # fmt: skip
    s = standardize(da_)
    assert s.dtype == dtype
    assert s.name == "z"
    assert s.attrs["units"] == "1"
    assert "standard_name" not in s.attrs
    np.testing.assert_allclose(s.astype("f8").mean("number"), 0.0, atol=1e-5)
    np.testing.assert_allclose((s.astype("f8") ** 2).sum("number"), 29.0, rtol=1e-5)


def test_standardize_gaps_and_cells_that_never_vary(fields):
    gaps = fields.where(np.random.default_rng(0).random(fields.shape) > 0.3)
    gaps[:, 0, 0] = 0.1
    gaps[:, 0, 1] = np.nan
    gaps[1:, 0, 2] = np.nan
    s = standardize(gaps)
    assert bool(s[:, 0, :3].isnull().all())
    rest = s[:, 1:]
    assert bool((rest.isnull() == gaps[:, 1:].isnull()).all())
    count = rest.notnull().sum("realization")
    np.testing.assert_allclose((rest**2).sum("realization"), count - 1, rtol=1e-9)
    lazy = standardize(gaps.chunk(realization=7, lon=4))
    assert isinstance(lazy.data, da.Array)
    xr.testing.assert_allclose(lazy.compute(), s, rtol=1e-12)


def test_standardize_datasets_and_dimension_order(fields):
    ds = xr.Dataset({"t": fields.transpose("lat", "realization", "lon"), "orography": fields[0]})
    s = standardize(ds)
    assert s["t"].dims == ("lat", "realization", "lon")
    xr.testing.assert_identical(s["orography"], ds["orography"])
    counts = standardize((fields > 280.0).astype(int))
    assert counts.dtype == np.float64


def test_standardize_refuses(fields):
    with pytest.raises(ParameterError, match="1 replicate along 'realization'"):
        standardize(fields[:1])
    with pytest.raises(AxisNotFoundError, match="no variable has the axes"):
        standardize(xr.Dataset({"a": fields[0]}))
    with pytest.raises(DTypeError, match="object"):
        standardize(fields.astype(object))
    with pytest.raises(AxisNotFoundError, match="ambiguous"):
        standardize(fields.expand_dims(number=2))
    infinite = fields.copy()
    infinite[2, 1, 3] = -np.inf
    for given in (infinite, infinite.to_dataset(name="t"), infinite.chunk(realization=1)):
        with pytest.raises(ParameterError, match=r"1 infinite values; .* or NaN for missing"):
            standardize(given).compute()


def test_fields_called_theta_and_rho_are_fields(fields):
    at = (float(fields.lat[2]), float(fields.lon[3]))
    ocean = xr.Dataset({"theta": fields, "rho": 2.0 * fields})
    found = correlation(ocean, at=at)
    assert found.dims == ("variable", "lat", "lon")
    alone = correlation(fields, at=at)
    np.testing.assert_array_equal(found.sel(variable="theta"), alone)


def test_positions_may_be_coordinates(fields):
    expected = correlation(fields, at=(float(fields.lat[2]), float(fields.lon[3])))
    for at in ((fields.lat[2], fields.lon[3]), {"lat": fields.lat[2], "lon": fields.lon[3]}):
        xr.testing.assert_identical(correlation(fields, at=at), expected)
    with pytest.raises(ParameterError, match="is no position"):
        correlation(fields, at={"lat": "north", "lon": 3.0})


def test_gaps_at_first_and_a_large_mean_cancel_nothing(fields):
    gappy = fields.copy()
    gappy[:3, 2:5] = np.nan
    at = (float(fields.lat[3]), float(fields.lon[3]))
    expected = correlation(gappy, at=at)
    np.testing.assert_allclose(correlation(gappy + 3e8, at=at), expected, atol=1e-6)

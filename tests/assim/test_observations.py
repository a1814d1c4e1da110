"""Observations as people have them, made ready for a grid."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xr_spde.assim.correlated import AlongTrack
from xr_spde.assim.noise import IndependentErrors
from xr_spde.assim.observations import read_observations
from xr_spde.assim.tracks import TrackErrors
from xr_spde.errors import (
    AxisNotFoundError,
    DTypeError,
    GridError,
    ParameterError,
    UnknownNameError,
)

DEGREES = {"lat": {"units": "degrees_north"}, "lon": {"units": "degrees_east"}}


def field_on(lat, lon, values=None):
    data = np.zeros((len(lat), len(lon))) if values is None else values
    coords = {name: (name, at, DEGREES[name]) for name, at in (("lat", lat), ("lon", lon))}
    return xr.DataArray(data, coords, ("lat", "lon"))


def points(lat, lon, values=1.0, **more):
    data = np.broadcast_to(np.asarray(values, dtype=float), (len(lat),))
    return xr.DataArray(data, {"lat": ("obs", lat), "lon": ("obs", lon), **more}, ("obs",))


@pytest.fixture
def world():
    lat, lon = np.linspace(87.5, -87.5, 36), np.arange(-180.0, 180.0, 5.0)
    smooth = np.sin(np.radians(lat))[:, None] + np.cos(np.radians(lat))[:, None] * np.cos(
        np.radians(lon - 20.0)
    )
    return field_on(lat, lon, smooth)


def smooth_at(lat, lon):
    lat, lon = np.radians(lat), np.radians(lon)
    return np.sin(lat) + np.cos(lat) * np.cos(lon - np.radians(20.0))


@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.integers(0, 71))
def test_the_storage_of_fields_and_the_convention_of_longitudes_do_not_matter(
    seed, south_first, east, turn
):
    lat, lon = np.linspace(-87.5, 87.5, 36), np.arange(-180.0, 180.0, 5.0)
    rng = np.random.default_rng(seed)
    field = field_on(lat, lon, rng.standard_normal((36, 72)))
    at = points(rng.uniform(-90, 90, 20), rng.uniform(-180, 180, 20))
    expected = read_observations(at, field, obs_error=1.0).operator.apply(field.values)
    stored = field if south_first else field.isel(lat=slice(None, None, -1))
    stored = stored.roll(lon=turn, roll_coords=True)
    if east:
        stored = stored.assign_coords(lon=stored.lon % 360)
    else:
        at = at.assign_coords(lon=at.lon % 360)
    found = read_observations(at, stored, obs_error=1.0).operator.apply(stored.values)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_points_around_the_globe_see_a_smooth_field(world):
    rng = np.random.default_rng(0)
    lat = np.append(np.degrees(np.arcsin(rng.uniform(-1, 1, 500))), [90.0, -90.0, 89.9, -89.9])
    lon = np.append(rng.uniform(-360, 720, 500), [10.0, 20.0, 200.0, 179.99])
    obs = read_observations(points(lat, lon, smooth_at(lat, lon)), world, obs_error=0.1)
    assert np.abs(obs.innovation(world.values)).max() < 0.003
    nearest = read_observations(points(lat, lon), world, obs_error=0.1, operator="nearest")
    assert (np.diff(nearest.operator.matrix.indptr) == 1).all()


def test_gridded_observations_with_gaps(world):
    gappy = world.where(world > 0.5)
    obs = read_observations(gappy, world, obs_error=0.1)
    np.testing.assert_array_equal(obs.operator.apply(world.values), obs.values)
    assert obs.counts() == {"used": int((world > 0.5).sum()), "missing": int((world <= 0.5).sum())}
    other = gappy.isel(lat=slice(None, None, -1)).assign_coords(lon=gappy.lon % 360)
    again = read_observations(other.sortby("lon"), world, obs_error=0.1)
    np.testing.assert_array_equal(again.operator.apply(world.values), again.values)
    coarse = world.interp(lat=[10.0, 0.0], lon=[1.0, 33.0, 65.0])
    on_points = read_observations(coarse, world, obs_error=0.1)
    np.testing.assert_allclose(on_points.operator.apply(world.values), coarse.values.ravel())
    report = again.report()
    assert report.status.dims == ("lat", "lon")
    np.testing.assert_array_equal(report.status == 1, other.sortby("lon").isnull())


def test_projected_grids_take_metres_and_kilometres():
    coords = {n: (n, np.arange(5) * 10.0, {"units": "km"}) for n in ("y", "x")}
    field = xr.DataArray(np.arange(25.0).reshape(5, 5), coords, ("y", "x"))
    at = {n: ("obs", [15e3], {"units": "m"}) for n in ("y", "x")}
    degrees = {"lat": ("obs", [40.0]), "lon": ("obs", [3.0])}
    obs = read_observations(xr.DataArray([9.0], {**at, **degrees}, ("obs",)), field, obs_error=1.0)
    np.testing.assert_allclose(obs.innovation(field.values), 0.0)
    with pytest.raises(GridError, match="in degrees, and the grid is in lengths on a plane"):
        read_observations(xr.DataArray([9.0], degrees, ("obs",)), field, obs_error=1.0)


def test_the_variables_of_a_track_are_found(world):
    lat, lon = [0.0, 10.0, 20.0], [0.0, 1.0, 2.0]
    track = xr.Dataset(
        {
            "adt": ("n", [0.1, np.nan, 0.3]),
            "adt_error": ("n", [0.01, np.nan, 0.03]),
            "latitude": ("n", lat),
            "longitude": ("n", lon),
            "cycle": ("n", [1, 1, 2]),
            "time": ("n", np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[ns]")),
        }
    )
    obs = read_observations(track, world)
    np.testing.assert_allclose(obs.values, [0.1, 0.3])
    np.testing.assert_allclose(obs.error.variance, [1e-4, 9e-4])
    assert obs.time.astype("M8[D]").astype(str).tolist() == ["2020-01-01", "2020-01-03"]
    assert obs.label(obs.values).coords["obs_lat"].values.tolist() == [0.0, 20.0]
    assert obs.summary() == "3 observations: 2 used, 1 missing"
    along = read_observations(
        track[["adt", "latitude", "longitude", "cycle"]],
        world,
        obs_error=AlongTrack(0.1, length=1e6, track="cycle"),
    )
    assert isinstance(along.error, TrackErrors)
    np.testing.assert_allclose(along.error.whiten(np.eye(2)), 10.0 * np.eye(2))
    one = read_observations(track.adt.set_index().isel(n=0).assign_coords(lat=0.0, lon=5.0), world,
                            obs_error=1.0)  # fmt: skip
    assert one.size == 1


def test_errors_along_a_track_fall_with_the_distance(world):
    at = points([0.0, 0.0, 0.0], [10.0, 12.0, 11.0], time=("obs", np.array([0, 20, 10], "M8[D]")))
    obs = read_observations(at, world, obs_error=AlongTrack(2.0, length=200e3, share=0.5))
    step = np.radians(1.0) * 6_371_000.0 / 200e3
    expected = 4.0 * 0.5 * np.exp(-step * np.abs(np.subtract.outer([0, 2, 1], [0, 2, 1])))
    np.fill_diagonal(expected, 4.0)
    white = obs.error.whiten(np.eye(3))
    np.testing.assert_allclose(np.linalg.inv(white @ white.T), expected)


def test_footprints_are_means_over_their_area(world):
    at = points([42.5, 88.0], [0.0, 100.0])
    disc = read_observations(at, world, obs_error=1.0, footprint=800e3)
    np.testing.assert_allclose(disc.operator.matrix.sum(axis=1), 1.0)
    assert np.diff(disc.operator.matrix.indptr).min() > 5
    np.testing.assert_allclose(disc.operator.apply(world.values), smooth_at(
        np.array([42.5, 88.0]), np.array([0.0, 100.0])), atol=0.01)  # fmt: skip
    cells = read_observations(at[:1], world, obs_error=1.0, footprint=(3, 5))
    assert cells.operator.matrix.nnz == 15


def test_land_is_not_observed(world):
    land = (world.lon > 0) & (world.lon < 60) & (world == world)
    at = points([0.0, 0.0, 0.0], [30.0, 1.0, -30.0], [1.0, 2.0, 3.0])
    with pytest.raises(ParameterError, match=r"1 of 3 observations are on land.*index 0 \(lat=0"):
        read_observations(at, world, obs_error=1.0, land=land)
    obs = read_observations(
        at, world, obs_error=1.0, land=land.transpose("lat", "lon").values, unusable="drop"
    )
    assert obs.counts() == {"used": 2, "on_land": 1}
    masked = world.where(~land)
    assert np.isfinite(obs.innovation(masked.values)).all()
    assert obs.report().status.values.tolist() == [3, 0, 0]


def test_functions_and_matrices_observe_the_whole_field(world):
    values = xr.DataArray([1.0, np.nan, 3.0], dims="band")
    obs = read_observations(
        values,
        world,
        obs_error=[0.1, 0.2, 0.3],
        operator=lambda x: np.stack([x.mean((-2, -1)), x.max((-2, -1)), x.min((-2, -1))], -1),
    )
    assert obs.size == 2
    assert np.isnan(obs.y).all()
    np.testing.assert_allclose(obs.error.variance, [0.01, 0.09])
    expected = [1.0 - world.values.mean(), 3.0 - world.values.min()]
    np.testing.assert_allclose(obs.innovation(world.values), expected)
    with pytest.raises(ParameterError, match="is a function, and a matrix is needed"):
        obs.canonical()
    matrix = sp.random_array((3, world.size), density=0.01, rng=np.random.default_rng(0))
    linear = read_observations(values, world, obs_error=0.1, operator=matrix.tocsr())
    np.testing.assert_allclose(
        linear.operator.apply(world.values), (matrix @ world.values.ravel())[[0, 2]]
    )
    canonical = linear.grid.to_canonical(world.values)
    np.testing.assert_allclose(
        linear.canonical().apply(canonical), linear.operator.apply(world.values)
    )


BAD = [
    ({}, ParameterError, "the error of the observations is needed"),
    ({"obs_error": 0.0}, ParameterError, "error of 2 of 2 observations is zero, negative"),
    ({"obs_error": [1.0, -1.0]}, ParameterError, r"error of 1 of 2 .* first at index 1 \(-1\)"),
    ({"obs_error": [1.0, 1.0, 1.0]}, ParameterError, r"shape \(3,\) and the observations \(2,\)"),
    ({"obs_error": IndependentErrors(np.ones(3))}, ParameterError, "that of 3 observations and 2"),
    ({"obs_error": xr.DataArray([1.0], dims="q")}, ParameterError, "has the dimension 'q'"),
    ({"obs_error": AlongTrack(1.0, 1e5, track="pass")}, ParameterError, "track='pass' is no"),
    ({"obs_error": 1.0, "operator": "cubic"}, UnknownNameError, "unknown operator 'cubic'"),
    ({"obs_error": 1.0, "operator": np.eye(3, 12)}, ParameterError, "3 rows and there are 2"),
    ({"obs_error": 1.0, "unusable": "skip"}, UnknownNameError, "unknown unusable 'skip'"),
    ({"obs_error": 1.0, "footprint": -1.0}, ParameterError, "expected a radius in metres > 0"),
    ({"obs_error": 1.0, "footprint": (2, 3)}, ParameterError, "two odd numbers"),
    ({"obs_error": 1.0, "land": np.zeros((2, 2))}, ParameterError, r"land has shape \(2, 2\)"),
    ({"obs_error": 1.0, "land": np.ones((3, 4), bool)}, ParameterError, "none .*2 on land"),
    ({"obs_error": 1.0, "obs_x": "nowhere"}, AxisNotFoundError, "no longitude among"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_arguments_say_what_is_wrong(options, error, message):
    field = field_on([50.0, 40.0, 30.0], [0.0, 10.0, 20.0, 30.0])
    with pytest.raises(error, match=message):
        read_observations(points([40.0, 45.0], [5.0, 15.0]), field, **options)


def test_bad_observations_say_what_is_wrong():
    field = field_on([50.0, 40.0, 30.0], [0.0, 10.0, 20.0, 30.0])

    def read(obs, **options):
        return read_observations(obs, field, obs_error=1.0, **options)

    outside = points([40.0, 70.0, 20.0], [5.0, 15.0, 5.0])
    with pytest.raises(ParameterError, match=r"2 of 3 .* outside the grid .*index 1 \(lat=70") as e:
        read(outside)
    assert 'unusable="drop"' in str(e.value)
    assert read(outside, unusable="drop").counts() == {"used": 1, "outside_grid": 2}
    with pytest.raises(ParameterError, match=r"none .*\(2 observations: 2 outside grid\)"):
        read(outside[1:], unusable="drop")
    with pytest.raises(ParameterError, match=r"none .*1 observations: 1 missing"):
        read(points([40.0], [5.0], np.nan))
    with pytest.raises(ParameterError, match="1 of 1 observations are infinite"):
        read(points([40.0], [5.0], np.inf))
    with pytest.raises(ParameterError, match="'time' besides 'lat' and 'lon'"):
        read(field.expand_dims(time=2))
    with pytest.raises(ParameterError, match=r"2 variables that may be the value .*value=\"adt\""):
        read(xr.Dataset({"u": outside, "v": outside}))
    with pytest.raises(ParameterError, match="value='w' is no variable"):
        read(xr.Dataset({"u": outside}), value="w")
    with pytest.raises(DTypeError, match="type ndarray"):
        read(np.zeros(3))
    with pytest.raises(AxisNotFoundError, match="no longitude among the coordinates 'lat'"):
        read(outside.drop_vars("lon"))
    with pytest.raises(GridError, match=r"\(index\) and the fields on .*\(geographic\)"):
        read(xr.DataArray(np.zeros((3, 4)), dims=("y", "x")))
    at = xr.DataArray([1.0], {"lat": ("obs", [40.0]), "lon": ("obs", [4e4], {"units": "m"})}, "obs")
    with pytest.raises(GridError, match="in m, and the grid is in degrees"):
        read(at, obs_x="lon")

"""The grid: the same canonical arrays however the data are stored, and honest refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xr_spde._core.errors import GridError, ParameterError
from xr_spde.labels.grid import EARTH_RADIUS, Grid

LON = {"units": "degrees_east", "standard_name": "longitude"}
LAT = {"units": "degrees_north", "standard_name": "latitude"}


def field(lat, lon, *, lat_attrs=LAT, lon_attrs=LON, dims=("lat", "lon")):
    lat, lon = np.asarray(lat), np.asarray(lon)
    values = np.arange(lat.size * lon.size, dtype=float).reshape(lat.size, lon.size)
    y, x = dims
    return xr.DataArray(values, dims=dims, coords={y: (y, lat, lat_attrs), x: (x, lon, lon_attrs)})


def longitude(values, **kwargs):
    return Grid.from_object(field([0.0, 1.0], values, **kwargs))


@st.composite
def stored_fields(draw):
    """A global or regional field, and the same one rolled, flipped and renumbered."""
    ny, nx = draw(st.integers(2, 9)), draw(st.integers(3, 24))
    periodic = draw(st.booleans())
    step = 360.0 / nx if periodic else draw(st.sampled_from([0.1, 0.125, 1.0, 1.875, 7.5]))
    start = draw(st.sampled_from([0.0, 0.5, 12.25, 179.0, 181.5, 350.0, 359.9]))
    lon = start + step * np.arange(nx)
    dlat = draw(st.sampled_from([0.25, 1.0, 2.5]))
    lat = draw(st.sampled_from([-60.0, -5.0, 30.5])) + dlat * np.arange(ny)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    base = field(lat.astype(dtype), (lon % 360.0).astype(dtype))
    other = base.roll(lon=draw(st.integers(0, nx - 1)), roll_coords=True)
    if draw(st.booleans()):
        other = other.assign_coords(lon=("lon", ((lon_of(other) + 180.0) % 360.0) - 180.0, LON))
    if draw(st.booleans()):
        other = other.isel(lat=slice(None, None, -1))
    if draw(st.booleans()):
        other = other.isel(lon=slice(None, None, -1))
    if draw(st.booleans()):
        other = other.sortby("lon")
    return base, other, periodic


def lon_of(da):
    return da["lon"].values


@given(stored_fields())
def test_storage_does_not_change_the_canonical_grid(case):
    base, other, periodic = case
    one, two = Grid.from_object(base), Grid.from_object(other)
    assert one.periodic_x is two.periodic_x is periodic
    assert one.boundary == ("cylinder" if periodic else "plane")
    np.testing.assert_array_equal(one.to_canonical(base.values), two.to_canonical(other.values))
    np.testing.assert_allclose(one.canonical_x(), two.canonical_x(), rtol=0, atol=2e-4)
    np.testing.assert_allclose(one.canonical_y(), two.canonical_y(), rtol=0, atol=2e-5)
    assert -0.01 < two.canonical_x()[0] < 360.0
    assert (np.diff(two.canonical_x()) > 0).all()
    assert (np.diff(two.canonical_y()) > 0).all()


@given(stored_fields(), st.integers(0, 2))
def test_canonical_round_trip(case, leading):
    _, other, _ = case
    grid = Grid.from_object(other)
    array = np.random.default_rng(0).normal(size=(2,) * leading + grid.shape)
    np.testing.assert_array_equal(grid.from_canonical(grid.to_canonical(array)), array)
    np.testing.assert_array_equal(grid.to_canonical(grid.from_canonical(array)), array)


@given(stored_fields())
def test_canonical_coordinates_are_those_of_the_stored_columns(case):
    _, other, _ = case
    grid = Grid.from_object(other)
    x = np.broadcast_to(other["lon"].values, grid.shape)
    y = np.broadcast_to(other["lat"].values[:, None], grid.shape)
    apart = (grid.to_canonical(x)[0] - grid.canonical_x() + 180.0) % 360.0 - 180.0
    np.testing.assert_allclose(apart, 0.0, atol=2e-4)
    np.testing.assert_allclose(grid.to_canonical(y)[:, 0], grid.canonical_y(), atol=2e-5)


@given(stored_fields(), st.data())
def test_locate_finds_every_node(case, data):
    _, other, _ = case
    grid = Grid.from_object(other)
    row = data.draw(st.integers(0, grid.ny - 1))
    column = data.draw(st.integers(0, grid.nx - 1))
    turns = data.draw(st.integers(-1, 1)) * 360.0
    y = float(other["lat"][row]) + 0.4 * grid.dy
    x = float(other["lon"][column]) - 0.4 * grid.dx + turns
    j, i = grid.locate(y, x)
    assert grid.to_canonical(other.values)[j, i] == other.values[row, column]


def test_smallest_longitude_comes_first():
    grid = longitude(np.arange(-180.0, 180.0, 10.0))
    assert grid.periodic_x
    assert grid.roll == 18
    np.testing.assert_allclose(grid.canonical_x(), np.arange(0.0, 360.0, 10.0), atol=1e-9)


def test_a_hair_below_the_seam_counts_as_zero():
    grid = longitude(np.array([-1e-9, 90.0, 180.0, 270.0]))
    assert (grid.periodic_x, grid.roll) == (True, 0)


def test_region_across_the_seam_in_both_orders():
    unsorted = longitude([350.0, 355.0, 0.0, 5.0])
    ordered = longitude([0.0, 5.0, 350.0, 355.0])
    assert (unsorted.roll, ordered.roll) == (0, 2)
    assert not ordered.periodic_x
    np.testing.assert_allclose(ordered.canonical_x(), [350.0, 355.0, 360.0, 365.0])
    np.testing.assert_array_equal(
        ordered.to_canonical(np.array([[2, 3, 0, 1]] * 2)), [[0, 1, 2, 3]] * 2
    )


def test_nearly_global_region_is_not_periodic():
    assert not longitude(np.arange(0.0, 358.0, 2.0)).periodic_x
    assert longitude(np.arange(0.0, 360.0, 2.0)).periodic_x
    assert not longitude([0.0, 1.0]).periodic_x
    assert longitude([0.0, 180.0]).periodic_x


@pytest.mark.parametrize("nx", [90, 1080, 1440, 3600])
def test_single_precision_jitter_is_tolerated(nx):
    jittery = ((np.arange(nx) + 0.5) * np.float32(360.0 / nx) - np.float32(180.0)).astype(
        np.float32
    )
    grid = longitude(jittery)
    assert grid.periodic_x
    assert grid.dx == 360.0 / nx
    assert longitude(jittery.astype(float)) == grid


def test_gaussian_latitudes_are_regular_to_one_per_cent():
    nodes = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(64)[0]))
    grid = Grid.from_object(field(nodes, [0.0, 1.0]))
    assert grid.ny == 64
    np.testing.assert_allclose(grid.canonical_y(), nodes, atol=0.05)


def test_cell_size_on_the_sphere():
    grid = Grid.from_object(field([90.0, 60.0, 30.0, 0.0, -30.0], np.arange(0.0, 360.0, 30.0)))
    dy, dx = grid.cell_size()
    arc = EARTH_RADIUS * np.pi / 6
    np.testing.assert_allclose(dy, np.full(5, arc))
    np.testing.assert_allclose(dx, arc * np.cos(np.radians([-30.0, 0.0, 30.0, 60.0, 75.0])))
    assert grid.north_pole
    assert not grid.south_pole
    assert grid.y_descending


@pytest.mark.parametrize(("lat", "north", "south"), [
    (np.arange(-89.5, 90.0, 1.0), True, True),
    (np.arange(-88.0, 89.0, 2.0), False, False),
    (np.arange(90.0, -1.0, -2.5), True, False),
])  # fmt: skip
def test_poles(lat, north, south):
    grid = Grid.from_object(field(lat, [0.0, 1.0]))
    assert (grid.north_pole, grid.south_pole) == (north, south)
    assert (grid.cell_size()[1] > 0).all()


@pytest.mark.parametrize(("units", "metres"), [("m", 1.0), ("km", 1000.0), ("metre", 1.0)])
def test_projected_grid(units, metres):
    da = field(
        np.arange(5.0, 0.0, -1.0), np.arange(0.0, 8.0, 2.0), dims=("y", "x"),
        lat_attrs={"units": units}, lon_attrs={"units": units},
    )  # fmt: skip
    grid = Grid.from_object(da)
    dy, dx = grid.cell_size()
    assert grid.kind == "projected"
    assert not grid.longitude
    assert not grid.north_pole
    np.testing.assert_array_equal(dy, np.full(5, metres))
    np.testing.assert_array_equal(dx, np.full(5, 2 * metres))


def test_projected_coordinates_beyond_360_do_not_wrap():
    da = field([0.0, 1.0], np.arange(0.0, 720.0, 90.0), dims=("y", "x"), lat_attrs={}, lon_attrs={})
    assert not Grid.from_object(da).periodic_x


def test_grid_without_coordinates():
    grid = Grid.from_object(xr.DataArray(np.zeros((3, 4, 5)), dims=("member", "y", "x")))
    assert (grid.kind, grid.shape, grid.boundary) == ("index", (4, 5), "plane")
    assert np.isnan(grid.cell_size()).all()
    assert grid.locate(2, 3) == (2, 3)


def test_unitless_lon_and_lat_by_name_are_degrees():
    grid = longitude([0.0, 120.0, 240.0], lat_attrs={}, lon_attrs={})
    assert (grid.kind, grid.periodic_x) == ("geographic", True)


def test_grid_is_a_value():
    grid = longitude([10.0, 20.0, 30.0])
    again = pickle.loads(pickle.dumps(grid))
    assert again == grid == longitude([10.0, 20.0, 30.0])
    assert hash(again) == hash(grid)


@pytest.mark.parametrize(("y", "x"), [(0.0, 31.0), (2.0, 10.0), (np.nan, 10.0), (0.0, np.inf)])
def test_locate_outside(y, x):
    with pytest.raises(
        ParameterError, match=r"outside the grid, which covers lat 0 to 1 and lon 10"
    ):
        longitude([10.0, 20.0, 25.0 + 5.0]).locate(y, x + 5 if x == 31.0 else x)


@pytest.mark.parametrize(("lon", "text"), [
    (np.arange(-50.0, 21.0, 10.0), "lon -50 to 20;"),
    (np.arange(20.0, -51.0, -10.0), "lon -50 to 20;"),
    (np.arange(310.0, 381.0, 10.0), "lon 310 to 380;"),
    (np.arange(-180.0, 180.0, 10.0), "lon -180 to 170;"),
    (np.arange(0.0, 360.0, 10.0), "lon 0 to 350;"),
    ([0.0, 10.0, 340.0, 350.0], "lon 340 to 370;"),
])  # fmt: skip
def test_outside_is_told_in_the_longitudes_of_the_grid(lon, text):
    with pytest.raises(ParameterError, match=text):
        longitude(lon).locate(80.0, 30.0)


def test_locate_wraps_on_the_cylinder():
    grid = longitude(np.arange(0.0, 360.0, 10.0))
    assert grid.locate(0.0, 357.0) == (0, 0)
    assert grid.locate(0.0, -10.0) == (0, 35)


def test_array_of_another_shape():
    with pytest.raises(
        ParameterError, match=r"shape \(3, 2\) does not end with the shape \(2, 3\)"
    ):
        longitude([10.0, 20.0, 30.0]).to_canonical(np.zeros((3, 2)))


BAD = [
    ([0.0, 1.0, 1.0, 2.0], r"same meridian twice \(1 and 1"),
    (
        np.linspace(0.0, 360.0, 13),
        r"same meridian twice \(360 and 0.*isel\(lon=slice\(None, -1\)\)",
    ),
    (np.linspace(-180.0, 180.0, 13), r"same meridian twice"),
    ([0.0, 10.0, 5.0, 15.0], r"not monotonic around the circle.*sortby"),
    ([0.0, 1.0, 2.0, 4.0, 5.0], r"irregular: its steps run from 1 to 2.*interp\(lon"),
    ([0.0, 10.0, np.nan, 30.0], r"NaN or infinite at 1 of 4 positions, first at index 2"),
    ([0.0, 10.0, np.inf, np.nan], r"NaN or infinite at 2 of 4"),
    ([5.0], r"'lon' has length 1; at least 2"),
    (np.array(["a", "b"]), r"dtype <U1; numbers at a constant step"),
    (np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]"), r"dtype datetime64\[ns\]"),
]


@pytest.mark.parametrize(("lon", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_bad_longitudes(lon, message):
    with pytest.raises(GridError, match=message):
        longitude(lon)


BAD_LINE = [
    ([0.0, 1.0, 1.0, 2.0], r"repeats the value 1 at indices 1 and 2.*drop_duplicates"),
    ([0.0, 2.0, 1.0, 3.0], r"not monotonic: it goes 0, 2, 1 from index 0.*sortby"),
    ([0.0, 1.0, 2.0, 3.5], r"irregular: its steps run from 1 to 1.5.*between index 2 \(2\) and 3"),
    ([0.0, np.nan, 2.0, 3.0], r"NaN or infinite at 1 of 4 positions, first at index 1"),
    ([0.0], r"'lat' has length 1"),
    ([60.0, 80.0, 100.0], r"reaches 100; values between -90 and 90"),
]


@pytest.mark.parametrize(
    ("lat", "message"), BAD_LINE, ids=[message[:20] for _, message in BAD_LINE]
)
def test_bad_latitudes(lat, message):
    with pytest.raises(GridError, match=message):
        Grid.from_object(field(lat, [0.0, 1.0, 2.0]))


@given(st.integers(4, 30), st.data())
def test_one_displaced_position_is_noticed(n, data):
    lat = np.linspace(-40.0, 40.0, n)
    where = data.draw(st.integers(0, n - 1))
    lat[where] += (
        data.draw(st.floats(0.05, 0.45)) * (80.0 / (n - 1)) * data.draw(st.sampled_from([-1, 1]))
    )
    with pytest.raises(GridError, match="irregular"):
        Grid.from_object(field(lat, [0.0, 1.0]))

"""Finding space and replicates, and saying what is wrong when they cannot be found."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import AxisNotFoundError, GridError, ParameterError
from xr_spde.labels.axes import check_replicates, find_replicates, find_spatial, spatial_axes


def array(*dims, sizes=None, **coords):
    sizes = sizes or {}
    shape = tuple(sizes.get(dim, 3) for dim in dims)
    return xr.DataArray(np.zeros(shape), dims=dims, coords=coords)


def attr_coord(dim, **attrs):
    return xr.Variable(dim, np.arange(3.0), attrs)


def test_cf_axis_attribute_wins_over_names():
    da = array(
        "x", "b", "a", a=attr_coord("a", axis="X"), b=attr_coord("b", axis="Y")
    )  # fmt: skip
    assert find_spatial(da) == ("b", "a")


def test_cf_units_find_a_longitude_of_any_name():
    da = array(
        "t",
        "q",
        "p",
        p=attr_coord("p", units="degrees_east"),
        q=attr_coord("q", units="degrees_north"),
    )
    assert find_spatial(da) == ("q", "p")


def test_standard_name_of_a_coordinate_that_is_not_a_dimension():
    da = array(
        "row", "cell",
        where=attr_coord("cell", standard_name="longitude", units="degrees_east"),
        up=attr_coord("row", standard_name="latitude", units="degrees_north"),
    )  # fmt: skip
    y_axis, x_axis = spatial_axes(da)
    assert (y_axis.dim, y_axis.coord, y_axis.name) == ("row", "up", "up")
    assert (x_axis.dim, x_axis.coord) == ("cell", "where")


@pytest.mark.parametrize(
    ("y", "x"),
    [
        ("lat", "lon"),
        ("latitude", "longitude"),
        ("y", "x"),
        ("rlat", "rlon"),
        ("nav_lat", "nav_lon"),
        ("south_north", "west_east"),
        ("northing", "easting"),
        ("j", "i"),
        ("LAT", "LON"),
        ("yc", "xc"),
    ],
)
def test_well_known_names(y, x):
    assert find_spatial(array("member", y, x)) == (y, x)
    assert find_spatial(array(x, "latent", y)) == (y, x)
    assert find_spatial(array("member", y, x).to_dataset(name="t")) == (y, x)


def test_geographic_name_beats_a_planar_one():
    assert find_spatial(array("y", "lat", "lon")) == ("lat", "lon")


def test_explicit_names_override_metadata():
    da = array("lat", "lon", "level")
    assert find_spatial(da, x="lon", y="level") == ("level", "lon")
    named = da.assign_coords(height=("level", np.arange(3.0)))
    assert find_spatial(named, y="height") == ("level", "lon")


def test_units_beat_a_bare_counter_along_the_same_dimension():
    da = array(
        "y", "x", x=np.arange(3), y=np.arange(3),
        lon=attr_coord("x", units="degrees_east"), lat=attr_coord("y", units="degrees_north"),
    )  # fmt: skip
    assert [axis.coord for axis in spatial_axes(da)] == ["lat", "lon"]


def test_no_spatial_axes_lists_what_was_found():
    with pytest.raises(AxisNotFoundError, match=r"no Y axis.*'member', 'cell'.*pass x="):
        find_spatial(array("member", "cell"))


def test_one_spatial_axis_is_not_enough():
    with pytest.raises(AxisNotFoundError, match=r"no X axis.*'time', 'lat'"):
        find_spatial(array("time", "lat"))


def test_ambiguous_axis_names_the_candidates():
    with pytest.raises(
        AxisNotFoundError, match=r"X axis is ambiguous between 'lon', 'lon2'.*x='lon'"
    ):
        find_spatial(array("lat", "lon", "lon2"))


def test_unknown_explicit_name_lists_the_known():
    with pytest.raises(AxisNotFoundError, match=r"x='east' is neither.*dimensions: 'lat', 'lon'"):
        find_spatial(array("lat", "lon"), x="east")


def test_points_are_not_a_grid():
    da = array("obs", lon=("obs", np.arange(3.0)), lat=("obs", np.arange(3.0)))
    with pytest.raises(GridError, match=r"both run along the dimension 'obs': these are points"):
        find_spatial(da)


def curvilinear(*dims):
    two_d = np.arange(9.0).reshape(3, 3)
    return array("time", *dims, lon=(dims, two_d), lat=(dims, two_d.T))


@pytest.mark.parametrize("dims", [("y", "x"), ("j", "i"), ("rows_of_cells", "cells")])
def test_two_dimensional_coordinates(dims):
    with pytest.raises(
        GridError, match=r"two-dimensional coordinates .*curvilinear.*regrid.*x= and y="
    ):
        find_spatial(curvilinear(*dims))
    assert find_spatial(curvilinear(*dims), y=dims[0], x=dims[1]) == dims


def test_two_dimensional_coordinate_given_by_name():
    with pytest.raises(GridError, match=r"two-dimensional coordinates lon\('y', 'x'\)"):
        find_spatial(curvilinear("y", "x"), x="lon")


def test_projected_axes_with_auxiliary_two_dimensional_positions():
    da = curvilinear("y", "x").assign_coords(
        y=("y", np.arange(3.0), {"units": "km"}), x=("x", np.arange(3.0), {"units": "km"})
    )
    assert find_spatial(da) == ("y", "x")


SPACE = ("lat", "lon")


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("number", "time", "level"), "number"),
        (("season", "realization"), "realization"),
        (("whatever",), "whatever"),
        (("time",), "time"),
        (("time", "scenario"), "time"),
        (("year", "level"), "year"),
        (("depth", "run_of_the_day"), "run_of_the_day"),
        (("model", "Member"), "Member"),
    ],
)
def test_replicates_are_found(dims, expected):
    assert find_replicates(array(*dims, *SPACE), spatial=SPACE) == expected


def test_replicates_by_standard_name():
    da = array("a", "b", *SPACE, b=attr_coord("b", standard_name="realization"))
    assert find_replicates(da, spatial=SPACE) == "b"


def test_replicates_by_dates():
    dates = np.array(["2001-01-01", "2002-01-01", "2003-01-01"], dtype="datetime64[ns]")
    da = array("epoch", "scenario", *SPACE, epoch=dates)
    assert find_replicates(da, spatial=SPACE) == "epoch"


def test_explicit_replicates():
    da = array("number", "level", *SPACE)
    assert find_replicates(da, "level", spatial=SPACE) == "level"
    with pytest.raises(
        AxisNotFoundError, match=r"dim='lat' is a horizontal axis.*'number', 'level'"
    ):
        find_replicates(da, "lat", spatial=SPACE)
    with pytest.raises(AxisNotFoundError, match=r"dim='members' is not a dimension"):
        find_replicates(da, "members", spatial=SPACE)


def test_no_replicates():
    with pytest.raises(
        AxisNotFoundError, match=r"no replicate dimension.*'lat', 'lon'.*xr\.concat"
    ):
        find_replicates(array(*SPACE), spatial=SPACE)


@pytest.mark.parametrize("dim", ["level", "depth", "variable", "isobaricInhPa"])
def test_levels_are_not_taken_for_replicates(dim):
    with pytest.raises(AxisNotFoundError, match=f"pass dim='{dim}' if those are the replicates"):
        find_replicates(array(dim, *SPACE), spatial=SPACE)


@pytest.mark.parametrize("dims", [("model", "scenario"), ("number", "sample"), ("time", "year")])
def test_ambiguous_replicates(dims):
    with pytest.raises(
        AxisNotFoundError, match=f"ambiguous between '{dims[0]}', '{dims[1]}'.*dim="
    ):
        find_replicates(array(*dims, *SPACE), spatial=SPACE)


def test_check_replicates():
    check_replicates(2)
    check_replicates(1, minimum=1)
    with pytest.raises(ParameterError, match=r"1 replicate along 'time'; at least 2"):
        check_replicates(1, dim="time")
    with pytest.raises(ParameterError, match=r"3 replicates along .* at least 5"):
        check_replicates(3, minimum=5)

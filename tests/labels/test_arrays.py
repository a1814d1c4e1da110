"""One floating DataArray out of what users hold, and the attributes that travel."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import AxisNotFoundError, DTypeError, GridError
from xr_spde.labels.arrays import array_of, as_float
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.lazy import is_lazy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.int8, np.float64),
        (np.uint32, np.float64),
        (np.bool_, np.float64),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.longdouble, np.float64),
    ],
)
def test_as_float(given, expected):
    da = xr.DataArray(np.array([0, 1, 1], dtype=given), dims="x", attrs={"units": "K"}, name="t")
    result = as_float(da)
    assert result.dtype == expected
    assert (result.name, result.attrs) == ("t", {"units": "K"})
    np.testing.assert_array_equal(result, [0.0, 1.0, 1.0])


def test_as_float_stays_lazy():
    assert is_lazy(as_float(xr.DataArray(dask.array.zeros(3, dtype=int), dims="x")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(2, complex), r"'t' has dtype complex128; real numbers are expected; pass \.real"),
        (np.array([1.0, None], object), r"'t' has dtype object.*astype\(float\)"),
        (np.array(["2001-01-01"], "datetime64[ns]"), r"datetime64.*subtract a date"),
        (np.array([1], "timedelta64[ns]"), r"timedelta64.*divide by"),
        (np.array(["a"]), r"dtype <U1.*convert it to numbers"),
    ],
)
def test_as_float_refuses(values, message):
    with pytest.raises(DTypeError, match=message):
        as_float(xr.DataArray(values, dims="x", name="t"))


def grid(dtype=float, dims=("time", "lat", "lon"), **attrs):
    return xr.DataArray(np.ones((3,) * len(dims), dtype), dims=dims, attrs=attrs)


def test_array_of_a_dataarray_is_itself():
    da = grid()
    assert array_of(da) is da


def test_one_variable_among_others():
    ds = xr.Dataset(
        {
            "t": grid(units="K"),
            "mask": grid(np.int8, ("lat", "lon")),
            "time_bnds": (("time", "bnds"), np.ones((3, 2))),
            "crs": 0,
            "label": (("lat", "lon"), np.full((3, 3), "a")),
        }
    )
    xr.testing.assert_identical(array_of(ds), ds["t"])


def test_integers_where_nothing_floats():
    ds = xr.Dataset({"codes": grid(np.uint8), "crs": 0})
    xr.testing.assert_identical(array_of(ds), ds["codes"])


def test_several_variables_are_joined():
    ds = xr.Dataset(
        {
            "a": grid(np.float32, units="K", source="s"),
            "b": grid(units="m", source="s").transpose("lon", "time", "lat") * 2.0,
            "c": 4.0,
        }
    ).chunk({"time": 1})
    joined = array_of(ds)
    assert joined.dims == ("variable", "time", "lat", "lon")
    assert list(joined["variable"].values) == ["a", "b"]
    assert joined.name is None
    assert joined.attrs == {"source": "s"}
    assert is_lazy(joined)
    assert (joined.sel(variable="b") == 2.0).all()


def test_variables_on_other_grids_are_named():
    ds = xr.Dataset({"a": grid(), "b": grid(dims=("time", "rlat", "rlon"))})
    with pytest.raises(
        GridError, match=r"different grids: a on \('lat', 'lon'\); b on \('rlat', 'rlon'"
    ):
        array_of(ds)


def test_variables_of_other_dimensions_are_named():
    ds = xr.Dataset({"a": grid(), "height": grid(dims=("lat", "lon"))})
    with pytest.raises(
        GridError, match=r"different dimensions: a\('time', 'lat', 'lon'\); height\("
    ):
        array_of(ds)


def test_dataset_without_a_grid():
    with pytest.raises(AxisNotFoundError, match=r"no variable .* lies on a grid: a\('time',\)"):
        array_of(xr.Dataset({"a": ("time", [1.0])}))
    with pytest.raises(AxisNotFoundError, match="it has none"):
        array_of(xr.Dataset())
    with pytest.raises(AxisNotFoundError, match="no Y axis"):
        array_of(xr.Dataset({"a": grid(dims=("time", "cell"))}))


def test_explicit_axes_choose_the_variables():
    ds = xr.Dataset({"a": grid(dims=("time", "u", "v")), "b": grid(dims=("time", "cell"))})
    xr.testing.assert_identical(array_of(ds, x="v", y="u"), ds["a"])


def test_derived_attrs_drop_what_no_longer_holds():
    source = {
        "units": "K", "standard_name": "air_temperature", "cell_methods": "time: mean",
        "valid_range": [0, 1], "grid_mapping": "crs", "long_name": "temperature",
    }  # fmt: skip
    assert derived_attrs(source, long_name="variance", units="K2", note=None, method="exact") == {
        "long_name": "variance", "units": "K2", "grid_mapping": "crs", "method": "exact",
    }  # fmt: skip


def test_projection_comes_along():
    field = (("time", "y", "x"), np.zeros((2, 3, 4)), {"grid_mapping": "crs"})
    crs = ((), 0, {"grid_mapping_name": "polar_stereographic"})
    one = array_of(xr.Dataset({"t": field, "crs": crs}))
    assert one.name == "t"
    assert one.coords["crs"].attrs["grid_mapping_name"] == "polar_stereographic"
    two = array_of(xr.Dataset({"t": field, "u": field, "crs": crs}))
    assert "crs" in two.coords
    assert two.attrs["grid_mapping"] == "crs"

"""Parameter datasets: what is written, what is accepted, what is refused and how it is said."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import DTypeError, SchemaError
from xr_spde.labels.lazy import is_lazy
from xr_spde.labels.schema import (
    PARAMETER_SCHEMA,
    check_parameter_values,
    parameter_attrs,
    parameters_dataset,
    validate_parameters,
)


def maps(ny=4, nx=5, **changes):
    rng = np.random.default_rng(1)
    values = {
        "kappa2": rng.uniform(0.05, 1.0, (ny, nx)),
        "rho": rng.uniform(1.0, 3.0, (ny, nx)),
        "theta": rng.uniform(-np.pi / 2, np.pi / 2, (ny, nx)),
    }
    return {**values, **changes}


def dataset(**kwargs):
    coords = {"lat": np.arange(4.0), "lon": np.arange(5.0)}
    return xr.Dataset({name: (("lat", "lon"), v) for name, v in maps(**kwargs).items()}, coords)


def test_dataset_describes_itself_and_survives_netcdf(tmp_path):
    pytest.importorskip("netCDF4")
    source = xr.DataArray(
        np.zeros(2), dims="time", name="t2m",
        attrs={"units": "K", "long_name": "temperature", "standard_name": "air_temperature"},
    )  # fmt: skip
    variables = dict(dataset().data_vars)
    variables["mean"] = variables["kappa2"] * 0 + 280.0
    variables["mean_stderr"] = variables["kappa2"] * 0
    variables["kappa2_stderr"] = variables["kappa2"].assign_attrs(
        units="K", cell_methods="time: sum"
    )
    built = parameters_dataset(
        variables, method="whittle", boundary="plane", source=source, settings={"penalty": [1, 2]}
    )
    path = tmp_path / "parameters.nc"
    built.to_netcdf(path, engine="netcdf4")
    with xr.open_dataset(path, engine="netcdf4") as read:
        xr.testing.assert_identical(validate_parameters(read.load()), validate_parameters(built))
        attrs = read.attrs
    assert attrs["schema"] == PARAMETER_SCHEMA
    assert attrs["schema_version"] == 1
    assert attrs["boundary"] == "plane"
    assert attrs["source_variable"] == "t2m"
    assert attrs["xr_spde_method"] == "whittle"
    assert attrs["xr_spde_penalty"] == "[1, 2]"
    assert "cell_methods" not in built["kappa2_stderr"].attrs
    assert built["kappa2_stderr"].attrs["units"] == "1"
    assert built["mean"].attrs == {
        "long_name": "mean of temperature over the replicates",
        "units": "K",
    }
    assert built["mean_stderr"].attrs["units"] == "K"
    assert built["mean_stderr"].attrs["long_name"].startswith("standard error of: mean")
    assert built["theta"].attrs["units"] == "radian"


def test_attrs_without_a_source():
    assert "units" not in parameter_attrs("std")
    assert parameter_attrs("std")["long_name"] == "standard deviation of field over the replicates"


def test_builder_needs_all_three():
    with pytest.raises(SchemaError, match="lacks 'theta'; found 'kappa2', 'rho'"):
        parameters_dataset(
            dataset()[["kappa2", "rho"]].data_vars, method="whittle", boundary="plane"
        )


def test_written_by_hand():
    by_hand = xr.Dataset(
        {
            "kappa2": (("lon", "lat"), np.ones((5, 4), int)),
            "rho": 1,
            "theta": 0.0,
            "orography": 3.0,
        },
        coords={"lat": np.arange(4.0), "lon": np.arange(5.0)},
    )
    checked = validate_parameters(by_hand)
    assert set(checked.data_vars) == {"kappa2", "rho", "theta"}
    assert all(da.dims == ("lat", "lon") for da in checked.values())
    assert all(da.dtype == float for da in checked.values())


def test_a_leading_dimension_may_be_called_mode():
    values = (("mode", "y", "x"), np.ones((2, 4, 5)))
    params = xr.Dataset(dict.fromkeys(("kappa2", "rho", "theta"), values))
    assert validate_parameters(params).kappa2.dims == ("mode", "y", "x")


def test_leading_dimensions_come_first_and_stay_lazy():
    params = dataset().expand_dims(season=["w", "s"], axis=2).chunk({"season": 1})
    params["mean"] = params["kappa2"].isel(season=0, drop=True)
    params["std"] = params["rho"].astype(np.float32)
    checked = validate_parameters(params)
    assert checked["theta"].dims == ("season", "lat", "lon")
    assert checked["mean"].dims == ("lat", "lon")
    assert checked["std"].dtype == np.float32
    assert is_lazy(checked)


def test_explicit_axes():
    params = dataset().rename(lat="u", lon="v").drop_vars(["u", "v"])
    assert validate_parameters(params, x="v", y="u")["rho"].dims == ("u", "v")


BAD_STRUCTURE = [
    (
        lambda ds: ds["kappa2"],
        SchemaError,
        r"a DataArray was given; a parameter Dataset with kappa2",
    ),
    (
        lambda ds: ds.drop_vars(["rho", "theta"]),
        SchemaError,
        r"lacks 'rho', 'theta'; found 'kappa2'",
    ),
    (
        lambda ds: ds.assign_attrs(schema=PARAMETER_SCHEMA, schema_version=9),
        SchemaError,
        r"version 9",
    ),
    (
        lambda ds: ds.assign(theta=ds.theta.assign_attrs(units="degrees")),
        SchemaError,
        r"'degrees'; radian are expected; convert with .*deg2rad",
    ),
    (lambda ds: ds.assign(rho=ds.rho + 1j), DTypeError, r"'rho' has dtype complex128"),
    (
        lambda ds: ds.assign(kappa2=ds.kappa2.astype(object)),
        DTypeError,
        r"'kappa2' has dtype object",
    ),
    (
        lambda ds: ds.isel(lat=0, lon=0, drop=True).assign(mean=ds.rho),
        SchemaError,
        r"without 'lat' and 'lon'",
    ),
    (
        lambda ds: ds.assign(std=ds.rho.expand_dims(member=2)),
        SchemaError,
        r"'std' has the dimension 'member', which kappa2",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_STRUCTURE)
def test_bad_structure(change, error, message):
    with pytest.raises(error, match=message):
        validate_parameters(change(dataset()))


def put(name, value, *points):
    values = maps()
    for point in points:
        values[name][point] = value
    return values


def test_good_values():
    assert not check_parameter_values(**maps()).any()
    assert not check_parameter_values(**put("rho", 1 - 1e-9, (0, 0))).any()
    assert not check_parameter_values(**put("theta", 6.2, (0, 0))).any()
    std = np.zeros((4, 5))
    assert not check_parameter_values(**maps(), mean=std, std=std).any()


def test_land_is_missing_in_all_three_and_carried():
    values = maps()
    expected = np.zeros((4, 5), bool)
    expected[1:3, 2] = True
    for array in values.values():
        array[expected] = np.nan
    moments = np.where(expected, np.nan, 2.0)
    land = check_parameter_values(**values, mean=moments, std=moments)
    np.testing.assert_array_equal(land, expected)
    # moments may go on over land
    np.testing.assert_array_equal(check_parameter_values(**values, mean=np.ones((4, 5))), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (put("kappa2", 0.0, (1, 2), (3, 4)), r"kappa2 is not positive at 2 of 20 .*\(1, 2\) \(0\)"),
        (put("kappa2", -0.5, (0, 0)), r"kappa2 is not positive at 1 of 20 .*\(-0.5\).*clip"),
        (put("rho", 0.5, (2, 1)), r"rho is below 1 at 1 of 20 .*index \(2, 1\) \(0.5\).*1 / rho"),
        (put("kappa2", np.inf, (0, 3)), r"kappa2 is infinite at 1 of 20"),
        (put("rho", np.inf, (0, 3)), r"rho is infinite at 1 of 20"),
        (put("theta", -np.inf, (0, 3)), r"theta is infinite at 1 of 20"),
        (put("theta", 45.0, (0, 3)), r"theta is beyond a full turn at 1 of 20.*np\.deg2rad"),
        (
            put("theta", np.nan, (0, 3)),
            r"only some .*\(theta at 1 grid points while kappa2, rho are not",
        ),
        (
            put("rho", np.nan, (0, 3), (0, 4)),
            r"\(rho at 2 grid points while kappa2, theta are not\)",
        ),
        ({**maps(), "std": np.full((4, 5), -1.0)}, r"std is negative at 20 of 20"),
        ({**maps(), "std": np.full((4, 5), np.nan)}, r"std is NaN off land at 20 of 20"),
        ({**maps(), "mean": np.full((4, 5), np.inf)}, r"mean is infinite at 20 of 20"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(SchemaError, match=message):
        check_parameter_values(**values)


def test_missing_in_two_variables_counts_both():
    values = put("rho", np.nan, (0, 3), (0, 4))
    values["theta"][0, 3] = np.nan
    with pytest.raises(
        SchemaError, match=r"\(rho at 2, theta at 1 grid points while kappa2 is not\)"
    ):
        check_parameter_values(**values)


def test_names_stand_in_for_long_names_and_lost_projections_are_not_named():
    dims = ("y", "x")
    maps = {name: xr.DataArray(np.ones((2, 3)), dims=dims) for name in ("kappa2", "rho", "theta")}
    source = xr.DataArray(0.0, name="t2m", attrs={"grid_mapping": "crs", "units": "K"})
    built = parameters_dataset(
        {**maps, "mean": maps["rho"]}, method="m", boundary="plane", source=source
    )
    assert built["mean"].attrs == {"long_name": "mean of t2m over the replicates", "units": "K"}
    source.attrs["standard_name"] = "air_temperature"
    mean = maps["rho"].assign_coords(crs=0)
    built = parameters_dataset({**maps, "mean": mean}, method="m", boundary="plane", source=source)
    assert built["mean"].attrs["grid_mapping"] == "crs"
    assert built["mean"].attrs["long_name"] == "mean of air_temperature over the replicates"


def test_one_pattern_may_be_selected():
    dims = ("y", "x")
    maps = {name: (dims, np.ones((2, 3))) for name in ("kappa2", "rho", "theta", "std")}
    patterns = (("mode", *dims), np.ones((4, 2, 3)))
    params = xr.Dataset({**maps, "patterns": patterns}, coords={"mode": np.arange(4)})
    checked = validate_parameters(params.isel(mode=2))
    assert checked["patterns"].dims == ("mode", "y", "x")
    assert checked["patterns"].shape == (1, 2, 3)

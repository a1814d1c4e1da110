"""Ensembles: their law, their identity, what they carry, and what is refused."""

from __future__ import annotations

import logging
import re
import tracemalloc
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from xr_spde import set_options
from xr_spde._core.errors import (
    AxisNotFoundError,
    DTypeError,
    GridError,
    MemoryGuardError,
    ParameterError,
    SchemaError,
    SolverError,
    UnknownNameError,
)
from xr_spde._core.rng import member_generator
from xr_spde.labels.schema import parameters_dataset
from xr_spde.sar import emulate, variance


def constant(shape, kappa2, rho, theta, dims=("y", "x"), **coords) -> xr.Dataset:
    maps = {"kappa2": kappa2, "rho": rho, "theta": theta}
    return xr.Dataset({k: (dims, np.full(shape, float(v))) for k, v in maps.items()}, coords)


# --- the law ---------------------------------------------------------------------------------


def test_sample_covariance_is_the_exact_one(dense_covariance):
    """Check A5: 2000 draws on 24 x 16 with the boundary of the paper."""
    params = constant((16, 24), 0.5, 3.0, -np.pi / 3)
    fields = emulate(params, 2000, seed=6777, boundary="paper").values.reshape(2000, -1)
    exact = dense_covariance(*(params[k].values for k in ("kappa2", "rho", "theta")), "paper")
    sample = np.cov(fields.T)
    assert np.linalg.norm(sample - exact) / np.linalg.norm(exact) < 0.2
    assert np.mean(np.diag(sample) / np.diag(exact)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("boundary", ["plane", "cylinder", "torus", "paper"])
def test_a_member_solves_the_operator_for_its_own_noise(params, dense, boundary):
    bare = params[["kappa2", "rho", "theta"]]
    fields = emulate(bare, 3, seed=11, boundary=boundary, buffer=0)
    matrix = dense(*(bare[k].values for k in ("kappa2", "rho", "theta")), boundary)
    for m in range(3):
        noise = member_generator(11, m).standard_normal(matrix.shape[0])
        np.testing.assert_allclose(matrix @ fields[m].values.ravel(), noise, atol=1e-11)


def test_mean_and_std_are_restored_within_sampling_error(params):
    n = 6000
    fields = emulate(params, n, seed=3).compute()
    z_mean = (fields.mean("realization") - params["mean"]) / (params["std"] / np.sqrt(n))
    z_std = (fields.std("realization", ddof=1) / params["std"] - 1) * np.sqrt(2 * (n - 1))
    # The largest of 63 correlated normals exceeds 4.5 once in 3000 seeds.
    assert float(abs(z_mean).max()) < 4.5
    assert float(abs(z_std).max()) < 4.5


def test_std_is_an_exact_rescaling_of_the_bare_field(params):
    bare = params[["kappa2", "rho", "theta"]]
    y, v = emulate(bare, 4, seed=1), variance(bare)
    expected = y / np.sqrt(v) * params["std"] + params["mean"]
    xr.testing.assert_allclose(
        emulate(params, 4, seed=1).drop_attrs(), expected.drop_attrs(), rtol=1e-12
    )


def test_mean_alone_is_added_to_the_bare_field(params):
    bare = emulate(params[["kappa2", "rho", "theta"]], 3, seed=1)
    both = emulate(params.drop_vars("std"), 3, seed=1)
    np.testing.assert_allclose(both.values, bare.values + params["mean"].values, rtol=1e-14)


def direction(fields: xr.DataArray, j: int, i: int) -> float:
    """Angle of the major axis of the region with correlation > 0.5, degrees from increasing x."""
    anomalies = fields - fields.mean("realization")
    point = anomalies.isel(lat=j, lon=i)
    r = (anomalies * point).mean("realization") / (
        anomalies.std("realization") * point.std("realization")
    )
    dy = r["lat"] - point["lat"]
    dx = (r["lon"] - point["lon"] + 180.0) % 360.0 - 180.0
    inside = (r > 0.5).astype(float)
    xx, yy = (float((inside * a * a).sum()) for a in (dx, dy))
    return float(np.degrees(0.5 * np.arctan2(2 * float((inside * dx * dy).sum()), xx - yy)))


@pytest.mark.parametrize("shift", [0, 17])
@pytest.mark.parametrize("step", [1, -1])
def test_direction_does_not_depend_on_storage_order(step, shift):
    """Check A6, also with latitudes from north to south and longitudes rolled."""
    n = 64
    axis = np.arange(n) * 360.0 / n
    params = constant(
        (n, n), 0.02, 6.0, np.radians(30.0), ("lat", "lon"), lat=axis / 4 - 45, lon=axis
    )
    plain = emulate(params, 600, seed=9, dtype="float32").compute()
    stored = params.isel(lat=slice(None, None, step)).roll(lon=shift, roll_coords=True)
    fields = emulate(stored, 600, seed=9, dtype="float32").compute()
    xr.testing.assert_identical(fields.sortby(["lat", "lon"]), plain)
    # lat was squeezed by 4 to stay on the sphere: measure angles in cells.
    assert direction(fields.assign_coords(lat=fields.lat * 4), 30, 20) == pytest.approx(30, abs=3)


def test_buffer_keeps_the_edge_from_being_felt():
    params = constant((12, 15), 0.3, 2.0, 0.4)
    felt = emulate(params, 3000, seed=1, buffer=0).std("realization")
    free = emulate(params, 3000, seed=1, buffer="auto").std("realization")
    assert float(felt[0].mean() / felt[6].mean()) < 0.85
    assert float(free[0].mean() / free[6].mean()) == pytest.approx(1.0, abs=0.03)


# --- identity of members ---------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 7, 32, 50, "auto", 10**6])
def test_members_do_not_depend_on_chunks_or_number(params, chunks):
    reference = emulate(params, 50, seed=4, chunks=50).values
    fields = emulate(params, 70, seed=4, chunks=chunks)
    np.testing.assert_array_equal(fields.values[:50], reference)


def test_a_slice_computes_its_own_block_only(params):
    fields = emulate(params, 1000, seed=1, chunks=32)
    (one,) = dask.optimize(fields[5].data)
    blocks = {k for k in one.__dask_graph__() if "sar-members" in str(k)}
    assert len(blocks) == 1
    np.testing.assert_array_equal(fields[5].values, emulate(params, 6, seed=1).values[5])


def test_seeds_tell_ensembles_apart_and_are_recorded(params):
    first, second = emulate(params, 2), emulate(params, 2)
    assert not np.array_equal(first.values, second.values)
    again = emulate(params, 2, seed=int(first.attrs["xr_spde_seed"]))
    np.testing.assert_array_equal(first.values, again.values)
    sequence = np.random.SeedSequence(8)
    np.testing.assert_array_equal(emulate(params, 2, seed=sequence), emulate(params, 2, seed=8))


def test_leading_dimensions_are_mapped_with_independent_noise(params):
    n = 3000
    seasons = xr.concat([params, params, params.assign(theta=-params.theta)], "season")
    seasons = seasons.assign_coords(season=["DJF", "MAM", "JJA"])
    seasons["mean"] = params["mean"]  # a moment without the leading dimension is broadcast
    fields = emulate(seasons, n, seed=2)
    assert fields.dims == ("realization", "season", "lat", "lon")
    assert list(fields.season.values) == ["DJF", "MAM", "JJA"]
    anomalies = ((fields - seasons["mean"]) / seasons["std"]).compute()
    across = (anomalies.sel(season="DJF") * anomalies.sel(season="MAM")).mean("realization")
    assert float(abs(across).max()) < 4.5 / np.sqrt(n)
    own = (anomalies.sel(season="MAM") ** 2).mean("realization")
    np.testing.assert_allclose(own, 1.0, atol=5 * np.sqrt(2 / n))


def test_leading_index_has_its_documented_stream(params, dense):
    bare = params[["kappa2", "rho", "theta"]].expand_dims(model=3)
    field = emulate(bare, 2, seed=5, buffer=0)[1, 2].values
    matrix = dense(*(bare[k][2].values for k in ("kappa2", "rho", "theta")), "plane")
    noise = member_generator(5, 1, 2).standard_normal(matrix.shape[0])
    np.testing.assert_allclose(matrix @ field.ravel(), noise, atol=1e-11)


def test_memory_does_not_grow_with_the_number_of_members(params):
    wide = constant((48, 48), 0.5, 2.0, 0.3)
    emulate(wide, 1, seed=1).compute()

    def peak(n: int) -> int:
        largest = emulate(wide, n, seed=1, chunks=32).max(("y", "x"))
        tracemalloc.start()
        largest.compute(scheduler="sync")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(640) < 1.2 * peak(64)


# --- what the result carries ------------------------------------------------------------------


def test_dimensions_coordinates_and_attributes(params):
    params = params.assign_coords(height=2.0, area=(("lat", "lon"), np.ones((7, 9))))
    fields = emulate(params, 5, seed=1)
    assert isinstance(fields.data, da.Array)
    assert fields.dims == ("realization", "lat", "lon")
    assert fields.attrs["units"] == "K"
    assert fields.attrs["long_name"] == "air temperature"
    assert fields.attrs["xr_spde_seed"] == 1
    assert fields.attrs["xr_spde_method"] == "emulate"
    assert list(fields.realization.values) == [0, 1, 2, 3, 4]
    assert fields.realization.attrs["standard_name"] == "realization"
    assert {"height", "area"} <= set(fields.coords)
    xr.testing.assert_identical(fields.lat, params.lat.assign_coords(height=2.0))


@pytest.mark.parametrize(
    ("moments", "asked", "expected"),
    [
        (("float32", "float32"), None, "float32"),
        (("float32", "float64"), None, "float64"),
        (("float64", "float64"), "float32", "float32"),
        ((), None, "float64"),
        ((), np.float32, "float32"),
    ],
)
def test_dtype(params, moments, asked, expected):
    if moments:
        params = params.assign(
            mean=params["mean"].astype(moments[0]), std=params["std"].astype(moments[1])
        )
    else:
        params = params.drop_vars(["mean", "std"])
    fields = emulate(params, 2, seed=1, dtype=asked)
    assert fields.dtype == expected
    assert fields.compute().dtype == expected


def test_single_precision_has_the_members_of_the_double_one(params):
    double, single = (emulate(params, 200, seed=1, dtype=d).values for d in ("f8", "f4"))
    std, mean = params["std"].values, params["mean"].values
    rounding = np.finfo("f4").eps * np.abs(mean)
    assert (np.abs(single - double) < 1e-5 * std + rounding).all()


def test_maps_too_smooth_for_single_precision_are_solved_in_the_double_one(caplog):
    maps = constant((48, 48), 1e-4, 5.0, 0.3)
    with caplog.at_level(logging.INFO, "xr_spde.solvers"):
        single = emulate(maps, 2, seed=1, dtype="float32", boundary="torus").values
    assert "float64 instead of float32" in caplog.text
    double = emulate(maps, 2, seed=1, dtype="float64", boundary="torus").values
    np.testing.assert_array_equal(single, double.astype("f4"))


def test_land_stays_missing_and_the_rest_is_drawn(params):
    land = xr.zeros_like(params["std"], dtype=bool)
    land[2:4, 3:6] = True
    fields = emulate(params.where(~land), 5, seed=1).compute()
    assert bool((fields.isnull() == land).all())
    nothing = emulate(params.where(params["std"] < 0), 2, seed=1)
    assert bool(nothing.isnull().all())


@pytest.mark.parametrize("store", ["netcdf", "zarr"])
def test_parameters_and_ensembles_survive_the_disk(params, store, tmp_path):
    land = xr.zeros_like(params["std"], dtype=bool)
    land[0, 0] = True
    arrays = dict(params.where(~land).data_vars)
    built = parameters_dataset(arrays, method="by hand", boundary="plane", source=params["mean"])
    path = tmp_path / store
    write, read = {
        "netcdf": (xr.Dataset.to_netcdf, xr.open_dataset),
        "zarr": (xr.Dataset.to_zarr, xr.open_zarr),
    }[store]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(built, path)
        with read(path) as back:
            expected, fields = emulate(built, 40, seed=1), emulate(back, 40, seed=1)
            xr.testing.assert_identical(fields.compute(), expected.compute())
            write(fields.to_dataset(name="t"), tmp_path / "ensemble")
            with read(tmp_path / "ensemble") as ensemble:
                xr.testing.assert_identical(ensemble["t"].compute(), expected.rename("t").compute())


# --- boundaries ------------------------------------------------------------------------------


def test_boundary_comes_from_argument_then_attributes_then_coordinates(params):
    names = {}
    for key, ds, given in (
        ("argument", params.assign_attrs(boundary="torus"), "paper"),
        ("attribute", constant((6, 6), 0.5, 1.0, 0.0).assign_attrs(boundary="torus"), None),
        ("regional", params, None),
        ("global", constant((6, 8), 1.0, 1.0, 0.0, ("lat", "lon"), lon=np.arange(8) * 45.0), None),
    ):
        names[key] = emulate(ds, 1, boundary=given).attrs["xr_spde_boundary"]
    assert names == {
        "argument": "paper", "attribute": "torus", "regional": "plane", "global": "cylinder",
    }  # fmt: skip


def test_a_map_cut_from_a_global_one_is_not_joined_silently(params):
    cut = params.assign_attrs(boundary="cylinder")
    with pytest.warns(UserWarning, match=r"span 9 of 360.*boundary=\"plane\"") as caught:
        emulate(cut, 1)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emulate(cut, 1, boundary="cylinder")


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ParameterError, "n=0 members.*at least 1"),
        ({"n": -3}, ParameterError, "n=-3 members"),
        ({"n": 2.0}, ParameterError, "n=2.0 is of type float.*whole number"),
        ({"n": True}, ParameterError, "type bool"),
        ({"n": "10"}, ParameterError, "type str"),
        ({"chunks": 0}, ParameterError, 'chunks=0.*"auto"'),
        ({"chunks": 1.5}, ParameterError, "chunks=1.5"),
        ({"chunks": "large"}, ParameterError, "chunks='large'"),
        ({"dtype": "float16"}, DTypeError, "float16.*float32"),
        ({"dtype": int}, DTypeError, "int64"),
        ({"dtype": "number"}, DTypeError, "no dtype"),
        ({"solver": "pardiso"}, UnknownNameError, "solver 'pardiso'; known: 'auto', 'dissection'"),
        ({"boundary": "sphere"}, UnknownNameError, "boundary 'sphere'; known: .*'torus'"),
        ({"buffer": -1}, ParameterError, "buffer=-1"),
        ({"buffer": "wide"}, ParameterError, "buffer='wide'"),
        ({"buffer": True}, ParameterError, "buffer=True"),
        ({"seed": -1}, ParameterError, "seed=-1"),
        ({"seed": 0.5}, ParameterError, "seed=0.5"),
        ({"x": "longitude"}, AxisNotFoundError, "longitude"),
    ],
)
def test_bad_arguments_have_their_own_message(params, arguments, error, message):
    with pytest.raises(error, match=message):
        emulate(params, **({"n": 10} | arguments))


def test_dataset_without_parameters_says_so(params):
    with pytest.raises(SchemaError, match=r"lacks 'rho'.*estimate\(\)"):
        emulate(params.drop_vars("rho"), 10)
    with pytest.raises(SchemaError, match="DataArray was given"):
        emulate(params["kappa2"], 10)
    with pytest.raises(SchemaError, match=r"dimension 'realization'.*rename"):
        emulate(params.expand_dims(realization=2), 10)
    with pytest.raises(GridError, match="lat"):
        emulate(params.isel(lat=[0, 1, 3, 6]), 10)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kappa2", 0.0, "kappa2 is not positive at 1 of 63"),
        ("rho", 0.5, "rho is below 1 at 1 of 63"),
        ("theta", np.inf, "theta is infinite at 1"),
        ("theta", np.nan, "NaN in only some of the parameters .theta at 1"),
        ("std", -1.0, "std is negative at 1"),
        ("mean", np.nan, "mean is NaN off land at 1"),
    ],
)
def test_impossible_values_are_named_when_computed(params, name, value, message):
    params[name][2, 3] = value
    fields = emulate(params, 3, seed=1)
    with pytest.raises(SchemaError, match=message):
        fields.compute()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_field_without_a_variance_is_refused(dtype):
    fields = emulate(constant((20, 30), 1e-17, 1.0, 0.0), 2, seed=1, dtype=dtype, boundary="torus")
    with pytest.raises(SolverError, match=r"singular.*kappa2"):
        fields.compute()


def test_a_grid_too_large_is_refused_from_its_shape_alone():
    huge = da.full((200_000, 400_000), 0.5, chunks=10_000)
    params = xr.Dataset(dict.fromkeys(("kappa2", "rho", "theta"), (("y", "x"), huge)))
    with pytest.raises(MemoryGuardError, match="200000 x 400000") as caught:
        emulate(params, 10)
    text = str(caught.value)
    assert re.search(r"about [\d.]+ TiB.*limit is [\d.]+ .iB", text)
    assert "memory_limit" in text
    assert "coarser" in text


def test_the_memory_limit_counts_a_given_buffer(params):
    with set_options(memory_limit=20_000_000):
        emulate(params, 1, buffer=0)
        with pytest.raises(MemoryGuardError, match="407 x 409"):
            emulate(params, 1, buffer=200)


def untouched(block):
    raise AssertionError("a lazy parameter was computed")


@pytest.mark.parametrize(
    ("shape", "limit", "buffer", "solver"),
    [
        ((192, 288), 2 * 10**8, 0, "dissection"),
        ((400, 600), 7 * 10**8, 0, "dissection"),
        ((400, 600), 7 * 10**8, "auto", "multigrid"),  # leaves room for the buffer
        ((1024, 2048), 3 * 10**9, 0, "multigrid"),
        ((1024, 2048), 5 * 10**9, 0, "dissection"),
    ],
)
def test_the_solver_is_chosen_from_the_shape_alone_and_named(shape, limit, buffer, solver, caplog):
    lazy = da.zeros(shape, chunks=shape).map_blocks(untouched, dtype=float)
    params = xr.Dataset(dict.fromkeys(("kappa2", "rho", "theta"), (("y", "x"), lazy)))
    caplog.set_level(logging.INFO, "xr_spde.solvers")
    with set_options(memory_limit=limit, device="cpu"):
        fields = emulate(params, 1000, boundary="cylinder", buffer=buffer)
        assert fields.attrs["xr_spde_solver"] == solver
        assert fields.attrs["xr_spde_device"] == "cpu"
        assert f"solver='auto': {solver} on the processor" in caplog.text
        assert ("does not fit: dissection" in caplog.text) == (solver == "multigrid")
        assert fields[0].nbytes <= fields.data.blocks[0].nbytes <= max(64e6, 8 * fields[0].nbytes)
    with pytest.raises(AssertionError, match="computed"):
        fields[0].compute()


def test_members_of_multigrid_are_those_of_dissection():
    # too large for the coarsest grid alone
    maps = constant((300, 420), 0.1, 3.0, 0.4)
    expected = emulate(maps, 3, seed=1, buffer=0, solver="dissection").compute()
    for dtype, tolerance in (("float64", 1e-6), ("float32", 1e-4)):
        found = emulate(maps, 3, seed=1, buffer=0, solver="multigrid", dtype=dtype, chunks=2)
        assert found.dtype == dtype
        scale = float(expected.std())
        np.testing.assert_allclose(found, expected, atol=tolerance * scale)
        alone = emulate(maps, 3, seed=1, buffer=0, solver="multigrid", dtype=dtype)[2]
        np.testing.assert_array_equal(alone, found[2])


def test_one_selected_pattern_is_one_pattern(params):
    waves = np.stack([np.full((7, 9), 0.3), np.full((7, 9), 0.6)])
    both = params.assign(patterns=(("mode", "lat", "lon"), waves * params["std"].values))
    one = emulate(both.isel(mode=1), 3, seed=1)
    xr.testing.assert_equal(one, emulate(both.isel(mode=[1]), 3, seed=1))

"""The lazy engine: nothing runs early, and chunks and schedulers never change a bit."""

from __future__ import annotations

import time
from functools import partial

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xr_spde._core.errors import MemoryGuardError, ParameterError
from xr_spde.labels import lazy
from xr_spde.labels.chain import Fold
from xr_spde.labels.lazy import Output, apply_core, fold_replicates, is_lazy, single_core_chunk

NY, NX, MEMBERS = 5, 7, 12


def new_state(shape):
    return {"count": np.zeros(shape), "sum": np.zeros(shape), "log": []}


def add_member(state, member):
    """In place on purpose, with an order-dependent recursion so that any slip changes bits."""
    assert member.shape[0] == 1
    assert member.flags["C_CONTIGUOUS"]
    valid = np.isfinite(member[0])
    state["count"] += valid
    state["sum"] += np.where(valid, member[0], 0.0) * 1.1
    state["sum"] *= 0.97
    state["log"].append(float(np.nansum(member)))
    return state


def close_state(state):
    return {"sum": state["sum"], "count": state["count"], "n": np.asarray(len(state["log"]))}


OUTPUT = {
    "sum": Output(("lat", "lon")),
    "count": Output(("lat", "lon"), np.int32),
    "n": Output((), np.int64),
}


def fold(da):
    return fold_replicates(
        da,
        "member",
        ("lat", "lon"),
        init=partial(new_state, (NY, NX)),
        step=add_member,
        finish=close_state,
        output=OUTPUT,
    )


@pytest.fixture
def fields():
    values = np.random.default_rng(3).normal(size=(MEMBERS, 2, NY, 3, NX))
    values[4, :, 2, :, 3] = np.nan
    return xr.DataArray(
        values,
        dims=("member", "season", "lat", "level", "lon"),
        coords={
            "lat": np.arange(NY) * 2.0,
            "lon": np.arange(NX) * 3.0,
            "season": ["winter", "summer"],
            "member": np.arange(MEMBERS),
            "area": (("lat", "lon"), np.ones((NY, NX))),
        },
        attrs={"units": "K"},
        name="t",
    )


def by_hand(fields):
    ordered = fields.transpose("season", "level", "member", "lat", "lon").values
    total = np.zeros((2, 3, NY, NX))
    for k in range(MEMBERS):
        total += np.where(np.isfinite(ordered[:, :, k]), ordered[:, :, k], 0.0) * 1.1
        total *= 0.97
    return total, np.isfinite(ordered).sum(axis=2)


CHUNKINGS = [
    {"member": 1},
    {"member": 5},
    {"member": -1},
    {"member": 1, "season": 1, "level": 2},
    {"member": (3, 1, 8), "lat": 2, "lon": 3},
    {"member": 4, "season": 1, "level": 1, "lat": 1, "lon": -1},
]


def test_fold_in_memory_agrees_with_a_loop(fields):
    result = fold(fields)
    total, count = by_hand(fields)
    assert not is_lazy(result["sum"])
    np.testing.assert_array_equal(result["sum"].values, total)
    np.testing.assert_array_equal(result["count"].values, count)
    assert (result["n"].values == MEMBERS).all()
    assert result["sum"].dims == ("season", "level", "lat", "lon")
    assert result["count"].dtype == np.int32
    assert result["n"].dims == ("season", "level")
    assert set(result["sum"].coords) == {"lat", "lon", "season", "area"}
    assert set(result["n"].coords) == {"season"}


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
@pytest.mark.parametrize("chunks", CHUNKINGS, ids=str)
def test_fold_is_bitwise_independent_of_chunks(fields, chunks, scheduler):
    expected = fold(fields)
    lazy_result = fold(fields.chunk(chunks))
    assert all(is_lazy(da) for da in lazy_result.values())
    with dask.config.set(scheduler=scheduler, num_workers=4):
        computed = dask.compute(lazy_result)[0]
    for name, da in expected.items():
        xr.testing.assert_identical(computed[name], da)
        assert lazy_result[name].dtype == da.dtype
        assert lazy_result[name].shape == da.shape


def test_fold_on_processes(fields):
    with dask.config.set(scheduler="processes", num_workers=2):
        computed = fold(fields.chunk({"member": 3, "season": 1}))["sum"].compute()
    xr.testing.assert_identical(computed, fold(fields)["sum"])


def test_fold_on_distributed(fields):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ):
        persisted = fields.chunk({"member": 2}).persist()
        computed = fold(persisted)["sum"].compute()
    xr.testing.assert_identical(computed, fold(fields)["sum"])


def test_storage_order_does_not_change_bits(fields):
    turned = fields.transpose("lon", "level", "member", "lat", "season")
    result = fold(turned.chunk({"member": 2}))["sum"].transpose(*fold(fields)["sum"].dims)
    xr.testing.assert_identical(result.compute(), fold(fields)["sum"])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_fold_any_replicate_chunks(pieces):
    members = sum(pieces)
    values = np.random.default_rng(members).normal(size=(members, NY, NX)).astype(np.float32)
    da = xr.DataArray(values, dims=("member", "lat", "lon"))
    chunked = fold(da.chunk({"member": tuple(pieces)}))
    xr.testing.assert_identical(chunked["sum"].compute(scheduler="threads"), fold(da)["sum"])


def counted_source(calls, members, delay=0.0, lock=None):
    """One dask chunk per member; notes every read."""

    def read(block_id=None):
        calls.append(block_id[0])
        time.sleep(delay)
        return np.full((1, NY, NX), float(block_id[0]))

    data = dask.array.map_blocks(
        read, chunks=((1,) * members, (NY,), (NX,)), dtype=float, meta=np.empty((0, 0, 0))
    )
    return xr.DataArray(data, dims=("member", "lat", "lon"))


def test_nothing_is_computed_at_build_and_each_chunk_is_read_once():
    calls: list[int] = []
    result = fold(counted_source(calls, 9))
    assert calls == []
    dask.compute(result, scheduler="threads")
    assert sorted(calls) == list(range(9))


def test_reads_do_not_run_ahead_of_the_walk():
    """Constant memory: with many idle threads, at most one chunk is waiting."""
    calls: list[int] = []
    ahead: list[int] = []

    def slow_step(state, member):
        time.sleep(0.01)
        ahead.append(len(calls) - int(state["count"].max()) - 1)
        return add_member(state, member)

    result = fold_replicates(
        counted_source(calls, 20) * 2.0,
        "member",
        ("lat", "lon"),
        init=partial(new_state, (NY, NX)),
        step=slow_step,
        finish=close_state,
        output=OUTPUT,
    )
    with dask.config.set(scheduler="threads", num_workers=8):
        total = result["n"].compute()
    assert total == 20
    assert max(ahead) == 0


def test_lazy_anomalies_share_their_reads():
    calls: list[int] = []
    source = counted_source(calls, 6)
    result = fold(source - source.mean("member"))["sum"].compute(scheduler="threads")
    assert sorted(calls) == list(range(6))
    members = xr.DataArray(
        np.broadcast_to(np.arange(6.0)[:, None, None], (6, NY, NX)), dims=("member", "lat", "lon")
    )
    np.testing.assert_allclose(result, fold(members - members.mean("member"))["sum"], atol=1e-12)


def test_computing_twice_and_the_source_stay_untouched(fields):
    chunked = fields.chunk({"member": 2}).persist()
    before = chunked.compute()
    result = fold(chunked)["sum"]
    first, second = result.compute(), result.compute()
    xr.testing.assert_identical(first, second)
    xr.testing.assert_identical(chunked.compute(), before)


def test_a_step_in_place_leaves_the_received_states_alone():
    ones = np.ones((1, NY, NX))
    task = Fold(partial(new_state, (NY, NX)), add_member, close_state, {"sum": (NY, NX)}, {})
    first = task.advance(None, ones)
    second = task.advance(first, ones)
    assert (first[0]["count"] == 1).all()
    assert (second[0]["count"] == 2).all()
    assert (len(first[0]["log"]), len(second[0]["log"])) == (1, 2)


def test_a_step_that_writes_into_its_member_leaves_the_data_alone(fields):
    def careless(state, member):
        member *= 0.0
        return state

    before = fields.copy(deep=True)
    fold_replicates(
        fields, "member", ("lat", "lon"), init=partial(new_state, (NY, NX)), step=careless,
        finish=close_state, output=OUTPUT,
    )  # fmt: skip
    xr.testing.assert_identical(fields, before)


def test_names_are_deterministic_and_tell_inputs_apart(fields):
    names = [fold(da.chunk({"member": 2}))["sum"].data.name for da in (fields, fields, fields + 1)]
    assert names[0] == names[1] != names[2]


def test_graph_stays_small(fields):
    one = fields.isel(season=0, level=0, drop=True).chunk({"member": 1})
    assert len(dict(fold(one)["sum"].data.__dask_graph__())) < 3 * MEMBERS + 10


def test_wrong_output_shape_is_told(fields):
    with pytest.raises(ValueError, match=r"output 'sum' has shape \(5, 7\); \(7, 5\) was declared"):
        fold_replicates(
            fields, "member", ("lat", "lon"), init=partial(new_state, (NY, NX)), step=add_member,
            finish=close_state, output={"sum": Output(("lon", "lat"))},
        )  # fmt: skip


def spectrum(field, weight, *, power):
    return {"total": (field**power).sum() * weight, "row": field.mean(axis=0)}


@pytest.mark.parametrize("chunks", [None, *CHUNKINGS], ids=str)
def test_apply_core_maps_leading_dimensions(fields, chunks):
    da = fields if chunks is None else fields.chunk(chunks)
    weight = xr.DataArray([1.0, 3.0], dims="season", coords={"season": fields.season})
    result = apply_core(
        spectrum,
        da,
        weight,
        core_dims=[("lat", "lon"), ()],
        output={"total": Output(()), "row": Output(("lon",), np.float32)},
        kwargs={"power": 2},
    )
    assert is_lazy(result["row"]) == (chunks is not None)
    xr.testing.assert_allclose(
        result["total"].compute(), (fields**2).sum(("lat", "lon"), skipna=False) * weight
    )
    expected = fields.mean("lat", skipna=False).astype(np.float32)
    xr.testing.assert_allclose(result["row"].transpose(*expected.dims).compute(), expected)
    assert result["row"].dtype == np.float32


def repeated(field, *, n):
    return np.stack([field] * n)


def test_apply_core_new_dimension_without_computing():
    calls: list[int] = []
    result = apply_core(
        partial(repeated, n=4),
        counted_source(calls, 3),
        core_dims=[("lat", "lon")],
        output={"copies": Output(("copy", "lat", "lon"), float, {"copy": 4})},
    )["copies"]
    assert calls == []
    assert result.sizes == {"member": 3, "copy": 4, "lat": NY, "lon": NX}
    np.testing.assert_array_equal(result.isel(copy=3, lat=0, lon=0), [0.0, 1.0, 2.0])


def test_single_core_chunk_splits_what_merging_made_large(monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK_BYTES", 8 * NY * NX * 3)
    da = xr.DataArray(
        dask.array.zeros((10, 4, NY, NX), chunks=((7, 3), (4,), (2, 3), (7,))),
        dims=("time", "level", "lat", "lon"),
    )
    merged = single_core_chunk(da, ("lat", "lon"))
    assert merged.chunksizes["lat"] == (NY,)
    assert merged.chunksizes["level"] == (3, 1)
    assert set(merged.chunksizes["time"]) == {1}
    assert single_core_chunk(merged, ("lat", "lon")).chunks == merged.chunks


def test_single_core_chunk_guards_memory():
    da = xr.DataArray(dask.array.zeros((1000, 1000), chunks=100), dims=("lat", "lon"))
    with pytest.raises(MemoryGuardError, match=r"7.6 MiB.*1.0 KiB are allowed.*memory_limit"):
        single_core_chunk(da, ("lat", "lon"), limit=1024)
    assert single_core_chunk(da.compute(), ("lat", "lon"), limit=1024).shape == (1000, 1000)


def test_is_lazy():
    da = xr.DataArray(dask.array.zeros(3), dims="x")
    assert is_lazy(da)
    assert is_lazy(da.data)
    assert is_lazy(da.to_dataset(name="a"))
    assert not is_lazy(da.compute())
    assert not is_lazy(np.zeros(3))


def test_new_dimensions_do_not_take_the_name_of_old_ones():
    fields = xr.DataArray(np.zeros((2, 5, 3, 4)), dims=("mode", "time", "lat", "lon"))
    output = {"total": Output(("mode", "lat", "lon"), sizes={"mode": 6})}
    walk = {"init": list, "step": list, "finish": dict, "output": output}
    with pytest.raises(ParameterError, match=r"dimension or coordinate 'mode'.*\.rename"):
        fold_replicates(fields, "time", ("lat", "lon"), **walk)
    with pytest.raises(ParameterError, match="'mode'"):
        fold_replicates(fields[0].assign_coords(mode=3), "time", ("lat", "lon"), **walk)
    with pytest.raises(ParameterError, match="'mode'"):
        apply_core(np.sum, fields, core_dims=[("lat", "lon")], output=output)

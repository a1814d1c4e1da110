"""Estimates of lazy data: built without looking, the same bits for all chunks and schedulers."""

from __future__ import annotations

import sys

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.sar import emulate, estimate

NY, NX, COUNT = 12, 16, 10
SETTINGS = {"uncertainty": True, "modes": 2, "dilation": 1}
CHUNKS = {
    "single members": {"realization": 1, "lat": NY, "lon": NX},
    "uneven, cut in space": {"realization": (4, 1, 5), "lat": 5, "lon": 7},
    "space only": {"realization": COUNT, "lat": 3, "lon": 16},
}
SCHEDULERS = {
    "threads": {"scheduler": "threads", "num_workers": 3},
    "sync": {"scheduler": "sync"},
    "processes": {"scheduler": "processes", "num_workers": 2},
}


class ComputedError(Exception):
    """Raised by data that were looked at too early."""


def _explode(block):
    raise ComputedError


def untouchable(*shape: int) -> da.Array:
    return da.zeros(shape, chunks=4).map_blocks(_explode, dtype="f8", meta=np.empty(0))


@pytest.fixture(scope="module")
def fields() -> xr.DataArray:
    """Members with land, sporadic gaps, a large mean, stored north to south from 90 degrees on."""
    maps = {"kappa2": 0.4, "rho": 2.0, "theta": 0.5}
    lat = xr.DataArray(np.linspace(82.5, -82.5, NY), dims="lat")
    lon = xr.DataArray((90 + 22.5 * np.arange(NX)) % 360, dims="lon")
    params = xr.Dataset(
        {k: (("lat", "lon"), np.full((NY, NX), v)) for k, v in maps.items()},
        {"lat": lat, "lon": lon},
    )
    members = emulate(params, COUNT, seed=1).compute() + 280.0
    rng = np.random.default_rng(0)
    gone = rng.random(members.shape) < 0.02
    gone[:, 3:6, 5:8] = True
    return members.where(~gone).astype("f4")


@pytest.fixture(scope="module")
def reference(fields) -> xr.Dataset:
    return estimate(fields, **SETTINGS)


def identical(found: xr.Dataset, truth: xr.Dataset) -> None:
    assert list(found.data_vars) == list(truth.data_vars)
    for name in truth.data_vars:
        assert found[name].dtype == truth[name].dtype
        np.testing.assert_array_equal(found[name].values, truth[name].values, err_msg=str(name))
    assert found.attrs == truth.attrs


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_chunks_and_schedulers_change_no_bit(fields, reference, chunks, scheduler):
    lazy = estimate(fields.chunk(CHUNKS[chunks]), **SETTINGS)
    assert dask.is_dask_collection(lazy)
    with dask.config.set(**SCHEDULERS[scheduler]):
        identical(lazy.compute(), reference)


def test_leading_dimensions_are_separate_tasks(fields):
    levels = xr.concat([fields, 2.0 * fields + 1.0], "level")
    truth = estimate(levels, "realization", modes=0, dilation=1)
    for chunks in ({"level": 1}, {"level": 2, "realization": 3}):
        lazy = estimate(levels.chunk(chunks), "realization", modes=0, dilation=1)
        identical(lazy.compute(scheduler="sync"), truth)


def test_variables_of_a_lazy_dataset(fields):
    ds = xr.Dataset({"a": fields, "b": fields * 2.0})
    truth = estimate(ds, modes=0, dilation=1)
    lazy = estimate(ds.chunk(realization=3), modes=0, dilation=1)
    assert dask.is_dask_collection(lazy)
    identical(lazy.compute(scheduler="sync"), truth)


CALLS = {
    "function": lambda f: estimate(f),
    "accessor": lambda f: f.sar.estimate(uncertainty=True),
    "dataset": lambda f: f.to_dataset(name="t").sar.estimate(),
    "fixed settings": lambda f: estimate(f, modes=3, dilation=2, penalty=10.0, buffer=4),
    "integers": lambda f: estimate(f.astype("i4"), modes=0),
    "chain": lambda f: emulate(estimate(f), 50, seed=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_building_computes_nothing(name):
    fields = xr.DataArray(untouchable(9, 20, 24), dims=("realization", "lat", "lon"))
    result = CALLS[name](fields)
    assert dask.is_dask_collection(result)
    with pytest.raises(ComputedError):
        result.compute(scheduler="sync")


def test_mistakes_are_found_without_computing():
    from xr_spde._core.errors import GridError, ParameterError

    fields = xr.DataArray(untouchable(9, 20, 24), dims=("realization", "lat", "lon"))
    with pytest.raises(ParameterError, match="at least 2"):
        estimate(fields[:1], method="whittle")
    with pytest.raises(GridError, match="at least 6"):
        estimate(fields[:, :4])
    with pytest.raises(ParameterError, match="dilation=5"):
        estimate(fields, dilation=5)


def test_errors_of_the_data_wait_for_compute(fields):
    from xr_spde._core.errors import ParameterError

    lazy = estimate((fields * np.nan).chunk(realization=2), modes=0, dilation=1)
    for settings in SCHEDULERS.values():
        with dask.config.set(**settings), pytest.raises(ParameterError, match=r"all NaN\?"):
            lazy.compute()


def test_the_fit_runs_once_for_all_variables(fields, monkeypatch):
    module = sys.modules["xr_spde.sar.fit"]

    calls = []
    fit = module.best_scale

    def counted(*args, **kwargs):
        calls.append(1)
        return fit(*args, **kwargs)

    monkeypatch.setattr(module, "best_scale", counted)
    estimate(fields.chunk(realization=2), modes=0, dilation=1).compute(scheduler="sync")
    assert len(calls) == 1


def test_every_member_is_read_once_and_few_are_held():
    """One pass, in order: a read belongs to the step that needs it."""
    read = []

    def make(block_id):
        read.append(block_id[0])
        return np.random.default_rng(block_id[0]).normal(size=(1, NY, NX))

    data = da.map_blocks(
        lambda block_info=None: make(block_info[None]["chunk-location"]),
        chunks=((1,) * 30, (NY,), (NX,)), dtype="f8", meta=np.empty((0, 0, 0)),
    )  # fmt: skip
    fields = xr.DataArray(data, dims=("realization", "y", "x"))
    estimate(fields, modes=0, dilation=1).compute(scheduler="threads", num_workers=4)
    assert read == list(range(30))

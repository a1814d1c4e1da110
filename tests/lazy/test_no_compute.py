"""Nothing computes before it is asked for, and parameters are made once."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.sar import (
    correlation,
    emulate,
    log_likelihood,
    standardize,
    variance,
)
from xr_spde.sar import range as practical_range

SHAPE = (6, 8)


class ComputedError(Exception):
    """Raised by data that were looked at too early."""


def _explode(block):
    raise ComputedError


def untouchable(shape, dims, dtype="f8") -> xr.DataArray:
    data = da.zeros(shape, chunks=3, dtype=dtype).map_blocks(
        _explode, dtype=dtype, meta=np.empty(0)
    )
    return xr.DataArray(data, dims=dims)


@pytest.fixture
def params() -> xr.Dataset:
    names = ("kappa2", "rho", "theta", "mean", "std")
    return xr.Dataset({name: untouchable(SHAPE, ("lat", "lon")) for name in names})


@pytest.fixture
def fields() -> xr.DataArray:
    return untouchable((9, *SHAPE), ("realization", "lat", "lon"), "f4")


CALLS = {
    "emulate": lambda f, p: emulate(p, 100),
    "variance": lambda f, p: variance(p),
    "bare variance": lambda f, p: variance(p.drop_vars("std")),
    "range": lambda f, p: practical_range(p),
    "exact correlation": lambda f, p: correlation(p, at=[(2, 3), (1, 1)]),
    "empirical correlation": lambda f, p: correlation(f, at=(2, 3)),
    "standardize": lambda f, p: standardize(f),
    "log-likelihood": lambda f, p: log_likelihood(f, p),
    "accessor emulate": lambda f, p: p.sar.emulate(100),
    "accessor variance": lambda f, p: p.sar.variance(),
    "accessor range": lambda f, p: p.sar.range(),
    "accessor correlation": lambda f, p: f.sar.correlation((2, 3)),
    "accessor standardize": lambda f, p: f.to_dataset(name="t").sar.standardize(),
    "accessor log-likelihood": lambda f, p: f.sar.log_likelihood(p),
}


@pytest.mark.parametrize("name", CALLS)
def test_building_computes_nothing(name, fields, params):
    result = CALLS[name](fields, params)
    assert dask.is_dask_collection(result)
    with pytest.raises(ComputedError):
        result.compute(scheduler="sync")


def test_emulate_is_lazy_on_parameters_in_memory():
    maps = {"kappa2": -1.0, "rho": 2.0, "theta": 0.0}  # impossible, and nobody has looked yet
    params = xr.Dataset({k: (("lat", "lon"), np.full(SHAPE, v)) for k, v in maps.items()})
    assert dask.is_dask_collection(emulate(params, 10**6, seed=1))


def test_parameters_are_made_once_for_all_blocks():
    made = []

    def make(block):
        made.append(1)
        return block + 0.5

    kappa2 = da.zeros(SHAPE, chunks=-1).map_blocks(make, dtype="f8", meta=np.empty((0, 0)))
    params = xr.Dataset({"kappa2": (("lat", "lon"), kappa2)}).assign(rho=2.0, theta=0.3)
    emulate(params, 320, seed=1, chunks=32).compute(scheduler="sync")
    assert len(made) == 1


def test_one_member_of_a_million_costs_one_block():
    params = xr.Dataset({"kappa2": (("lat", "lon"), np.full(SHAPE, 0.5))}).assign(
        rho=2.0, theta=0.3
    )
    ensemble = emulate(params, 10**6, seed=1)
    (optimised,) = dask.optimize(ensemble[777_777])
    assert len(optimised.__dask_graph__()) < 12
    alone = emulate(params, 777_778, seed=1, chunks=1000)[-1]
    np.testing.assert_array_equal(ensemble[777_777].values, alone.values)

"""Settings of the estimator that no data are needed for."""

from __future__ import annotations

import dask.array as da
import pytest
import xarray as xr

from xr_spde import set_options
from xr_spde._core.errors import MemoryGuardError
from xr_spde.sar import estimate


def test_a_grid_too_large_is_refused_before_anything_is_read():
    values = da.zeros((4, 20_000, 30_000), chunks=(1, -1, -1), dtype="float32")
    fields = xr.DataArray(values, dims=("time", "lat", "lon"))
    refusal = r"a grid of 20000 x 30000 cells would take about .*Coarsen.*dilation=1"
    with set_options(memory_limit=8 * 2**30):
        with pytest.raises(MemoryGuardError, match=refusal):
            estimate(fields, method="whittle")
        small = estimate(fields.isel(lat=slice(50), lon=slice(60)))
    assert small.sizes["lat"] == 50


def test_networks_and_steps_after_them_are_known_to_take_more():
    fields = xr.DataArray(da.zeros((4, 600, 800), chunks=(1, -1, -1)), dims=("time", "lat", "lon"))
    # 300, 650 and 790 maps of 4 MB
    with set_options(memory_limit=int(1.8e9)):
        estimate(fields, method="whittle")
        with pytest.raises(MemoryGuardError, match="600 x 800"):
            estimate(fields, method="net")
    with set_options(memory_limit=int(2.8e9)):
        estimate(fields, method="net")
        with pytest.raises(MemoryGuardError, match="600 x 800"):
            estimate(fields, method="net", refine=3)

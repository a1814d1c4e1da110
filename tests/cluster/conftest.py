"""Parameter maps that are written and read, and that every process finds the same."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr


@pytest.fixture(scope="session")
def params() -> xr.Dataset:
    """Non-stationary maps with land, mean and spread on 12 x 20 cells."""
    ny, nx = 12, 20
    rng = np.random.default_rng(5)
    limits = {
        "kappa2": (0.1, 1.0), "rho": (1.0, 5.0), "theta": (-1.5, 1.5),
        "mean": (270.0, 290.0), "std": (0.5, 2.0),
    }  # fmt: skip
    maps = {k: (("lat", "lon"), rng.uniform(*v, (ny, nx))) for k, v in limits.items()}
    coords = {"lat": np.linspace(-66.0, 66.0, ny), "lon": np.arange(nx) * 18.0}
    ds = xr.Dataset(maps, coords)
    land = xr.zeros_like(ds["rho"], dtype=bool)
    land[4:6, 3:8] = True
    return ds.where(~land)

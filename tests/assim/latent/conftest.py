"""Waves on a sphere with linear dynamics: the truth of all latent analyses is known here."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import fit

LAT = np.arange(-82.5, 90.0, 15.0)
LON = np.arange(0.0, 360.0, 15.0)
ORDERS = (1, 2, 3)


def phases(rng, count):
    """Amplitudes and phases (count, 3)."""
    return rng.normal(1.0, 0.4, (count, 3)), rng.uniform(0.0, 2.0 * np.pi, (count, 3))


def make_waves(steps, seed=0, *, members=1, lat=LAT, lon=LON, start="2001-01-01", freq="6h"):
    """Zonal waves 1 to 3 that turn at rates of their own, about a zonal mean."""
    amplitude, phase = phases(np.random.default_rng(seed), members)
    time = xr.date_range(start, periods=steps, freq=freq)
    t = np.arange(steps)[None, :, None, None]
    x, y = np.radians(lon), np.radians(lat)[:, None]
    field = 5.0 + 2.0 * np.sin(y) ** 2 + np.zeros((members, steps, lat.size, lon.size))
    for k, m in enumerate(ORDERS):
        a, p = amplitude[:, k, None, None, None], phase[:, k, None, None, None]
        field = field + a * np.cos(y) ** m * np.cos(m * x - 0.3 * (k + 1) * t + p)
    return xr.DataArray(
        field, {"time": time, "lat": ("lat", lat, {"units": "degrees_north"}),
                "lon": ("lon", lon, {"units": "degrees_east"})},
        ("member", "time", "lat", "lon"), name="z", attrs={"units": "m", "long_name": "height"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def waves():
    return make_waves


@pytest.fixture(scope="session")
def series():
    return make_waves(24, members=6)


@pytest.fixture(scope="session")
def model(series):
    return fit(series, method="pod", code=6, seed=1)


@pytest.fixture(scope="session")
def truth():
    """One trajectory that no model has seen."""
    return make_waves(13, seed=99).isel(member=0)


@pytest.fixture(scope="session")
def observed(truth):
    """A twelfth of the grid at every time but the first, with errors of 0.1."""
    rng = np.random.default_rng(5)
    noisy = truth + 0.1 * rng.standard_normal(truth.shape)
    return noisy.where(rng.random(truth.shape) < 1 / 12).isel(time=slice(1, None))

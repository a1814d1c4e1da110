"""Errors of frames: what images disagree on, and intervals calibrated on frames that were known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import GridError, ParameterError, SchemaError
from xr_spde.latent.cases import make_case
from xr_spde.latent.textures import texture

N = 32


def triple(seed, n=N, name=None, gaps=False):
    """Images at 0, 1, 2 and 3 h of a case, or of a texture that drifts and fades a little."""
    if name is not None:
        case = make_case(name, n, seed)
        stack = np.array([case.frame(t) for t in (0.0, 0.5, 1.0)])
    else:
        j, i = np.mgrid[0:n, 0:n].astype(float)
        rough = np.random.default_rng(seed).standard_normal((4, n, n))
        stack = np.array([texture(seed, j, i - 0.8 * t) + 0.02 * rough[t] for t in range(4)])
    if gaps:
        stack[0, :, :6] = np.nan
    time = np.datetime64("2020-03-01T00", "ns") + np.arange(len(stack)) * np.timedelta64(1, "h")
    return xr.DataArray(
        stack, {"time": time}, ("time", "y", "x"), "sigma0", {"units": "dB", "standard_name": "s"}
    )


@pytest.fixture(scope="module")
def table() -> xr.Dataset:
    return triple(1, gaps=True).latent.calibrate()


def test_table_and_intervals(table, tmp_path):
    assert dict(table.sizes) == {"seen": 3, "level": 6}
    assert table.attrs["xr_spde_withheld"] == 2
    both = table["quantile"].sel(seen=2)
    assert (both.diff("level") > 0).all()
    table.to_netcdf(tmp_path / "table.nc")
    pair = triple(2).isel(time=[0, 2])
    when = pair.time.values[0] + np.array([30, 60], "timedelta64[m]")
    with xr.open_dataset(tmp_path / "table.nc") as back:
        found = pair.latent.interpolate(when, uncertainty=True, calibration=back, level=0.9)
    assert set(found) == {"sigma0", "disagreement", "seen", "error", "lower", "upper"}
    assert found["error"].dims == pair.dims
    assert found["error"].attrs["units"] == "dB"
    assert "standard_name" not in found["error"].attrs
    assert found["error"].dtype == pair.dtype
    half = (found["upper"] - found["lower"]) / 2
    known = found["seen"] == 2
    np.testing.assert_allclose(
        (half / found["error"]).where(known).median(),
        float(both.sel(level=0.9) / table["rms"].sel(seen=2)),
        rtol=1e-6,
    )
    wider = pair.latent.interpolate(when, uncertainty=True, calibration=table, level=0.99)
    assert (wider["upper"] >= found["upper"]).where(known, other=True).all()
    lazy = pair.chunk(time=1, y=10).latent.interpolate(
        when, uncertainty=True, calibration=table, level=0.9
    )
    assert lazy["error"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), found)
    at_ends = pair.latent.interpolate(pair.time, uncertainty=True, calibration=table, level=0.9)
    assert (at_ends["error"].where(at_ends["seen"] == 2).fillna(0) == 0).all()


def test_given_truth_is_the_same_as_withholding(table):
    frames = triple(1)
    one = frames.isel(time=[0, 1, 2]).latent.calibrate()
    other = frames.isel(time=[0, 2]).latent.calibrate(frames.isel(time=1))
    np.testing.assert_allclose(one["quantile"], other["quantile"])
    assert int(one["count"].sum()) <= N * N


def test_what_cannot_be_calibrated(table):
    frames = triple(1)
    pair = frames.isel(time=[0, 2])
    with pytest.raises(ParameterError, match="none to withhold"):
        pair.latent.calibrate()
    with pytest.raises(ParameterError, match="not between"):
        pair.latent.calibrate(frames.isel(time=3))
    with pytest.raises(GridError):
        pair.latent.calibrate(frames.isel(time=1, y=slice(1, None)))
    with pytest.raises(ParameterError, match="can be calibrated"):
        frames.latent.calibrate(method="linear")
    when = frames.time[1]
    with pytest.raises(ParameterError, match="uncertainty=True"):
        pair.latent.interpolate(when, calibration=table)
    with pytest.raises(ParameterError, match="holds"):
        pair.latent.interpolate(when, uncertainty=True, calibration=table, level=0.93)
    with pytest.raises(SchemaError, match="calibrate"):
        pair.latent.interpolate(when, uncertainty=True, calibration=frames.to_dataset())
    with pytest.raises(ParameterError, match="calibrate them"):
        pair.latent.interpolate(when, uncertainty=True, calibration=table, method="latent")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["swirl", *(pytest.param(n, marks=pytest.mark.long) for n in ("lead_open", "floe_rot"))]
)
def test_intervals_cover_other_textures(name):
    """Calibrated on two textures of a motion, checked on two that were not used for anything."""
    scenes = xr.concat([triple(s, 128, name).drop_vars("time") for s in (100, 200)], "scene")
    scenes = scenes.assign_coords(time=triple(1, 16, name).time)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # swirl moves about as far as is searched
        table = scenes.latent.calibrate()
        for seed in (500, 600):
            frames = triple(seed, 128, name)
            pair, middle = frames.isel(time=[0, 2]), frames.isel(time=1)
            found = pair.latent.interpolate(middle.time, uncertainty=True, calibration=table)
            off = abs(found["sigma0"] - middle)
            held = (middle >= found["lower"]) & (middle <= found["upper"])
            known = np.isfinite(found["upper"]).to_numpy()
            share = held.to_numpy()[known].mean()
            two = (found["seen"] == 2).to_numpy()
            order = spearmanr(abs(found["disagreement"]).to_numpy()[two], off.to_numpy()[two])[0]
            assert 0.85 <= share <= 0.97
            assert order >= 0.3

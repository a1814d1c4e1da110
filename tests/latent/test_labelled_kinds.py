"""The latent model on the kinds of images that users bring: gaps, integers, globes, odd times."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.latent.textures import texture

QUICK = {"iterations": 6, "patch": 16, "width": 4, "depth": 2, "progress": False, "seed": 1}
HOURS = np.array(["2020-03-01T00", "2020-03-01T02", "2020-03-01T06"], "datetime64[ns]")
N = 36


def moving(t, shift=(0.5, 1.0)):
    y, x = np.mgrid[0:N, 0:N] + 0.0
    return texture(3, y - shift[0] * t, x - shift[1] * t)


@pytest.fixture(scope="module")
def images():
    stack = np.stack([moving(t) for t in (0.0, 2.0, 6.0)])
    coords = {"time": HOURS, "y": 500.0 * np.arange(N), "x": 500.0 * np.arange(N)}
    da = xr.DataArray(stack, coords, ("time", "y", "x"), "brightness", {"units": "K"})
    da["y"].attrs = da["x"].attrs = {"units": "m"}
    return da


def off(found, truth):
    inner = (slice(5, -5),) * 2
    return float(np.sqrt(np.nanmean((np.asarray(found) - truth)[inner] ** 2)))


def test_three_frames_at_irregular_times(images):
    model = images.latent.fit(**QUICK)
    np.testing.assert_array_equal(model.times, [0, 7200, 21600])
    again = images.latent.interpolate(images.time, method="latent", model=model)
    np.testing.assert_allclose(again, images, atol=1e-6)
    for hours in (1, 4):
        found = images.latent.interpolate(
            HOURS[0] + np.timedelta64(hours, "h"), method="latent", model=model
        )
        still = images.latent.interpolate(HOURS[0] + np.timedelta64(hours, "h"), method="linear")
        assert off(found, moving(hours)) < 0.3 * off(still, moving(hours))
    motion = images.latent.velocity(model=model)
    assert motion.sizes["time"] == 2
    np.testing.assert_allclose(motion.u.median(["y", "x"]), 500 / 3600, rtol=0.1)


def test_gaps_travel_with_the_motion(images):
    gappy = images.isel(time=[0, 2]).astype("float32").copy()
    gappy[0, 6:12] = np.nan
    gappy[1, :, 20:27] = np.nan
    found = gappy.latent.interpolate(HOURS[1], method="latent", uncertainty=True, **QUICK)
    assert found.brightness.dtype == np.float32
    assert found.brightness.attrs["units"] == "K"
    np.testing.assert_array_equal(np.isnan(found.brightness), found.seen == 0)
    # where gaps cross, and where a gap meets what has come in from outside
    assert 0 < float(np.isnan(found.brightness).mean()) < 0.1
    assert off(found.brightness, moving(2.0)) < 0.03
    lazy = gappy.chunk({"time": 1, "y": 10}).latent.interpolate(HOURS[1], method="latent", **QUICK)
    np.testing.assert_allclose(lazy, found.brightness, atol=1e-5)


def test_the_operator_is_that_of_the_latent_state(images):
    pair = images.isel(time=[0, 1])
    how = {"method": "latent", "operator": "advection-source", **QUICK}
    found = pair.latent.interpolate("2020-03-01T01", **how)
    model = pair.latent.fit(operator="advection-source", **QUICK)
    again = pair.latent.interpolate("2020-03-01T01", method="latent", model=model)
    np.testing.assert_array_equal(found, again)
    assert model.source.shape == (1, N, N)


def test_integers_are_images_as_well(images):
    counts = (200 * images.isel(time=[0, 1])).round().astype(np.uint8)
    found = counts.latent.interpolate("2020-03-01T01", method="latent", **QUICK)
    assert found.dtype == np.float64
    same = counts.astype(float).latent.interpolate("2020-03-01T01", method="latent", **QUICK)
    np.testing.assert_array_equal(found, same)
    assert off(found / 200, moving(1.0)) < 0.02


@pytest.mark.parametrize("start", [150.0, 340.0])
def test_longitudes_in_either_convention(start):
    lon, lat = start + 1.0 * np.arange(N), 60 + 0.5 * np.arange(N)[::-1]
    stack = np.stack([moving(0.0), moving(2.0)])
    frames = []
    for values in (lon % 360, (lon + 180) % 360 - 180):
        da = xr.DataArray(
            stack, {"time": HOURS[:2], "lat": lat, "lon": values}, ("time", "lat", "lon")
        )
        da["lat"].attrs["units"], da["lon"].attrs["units"] = "degrees_north", "degrees_east"
        frames.append(da.sortby("lon"))
    found = [f.latent.interpolate("2020-03-01T01", method="latent", **QUICK) for f in frames]
    aligned = [f.assign_coords(lon=f.lon % 360).sortby("lon") for f in found]
    np.testing.assert_allclose(aligned[0], aligned[1], atol=1e-6)
    assert (
        off(found[0].assign_coords(lon=(found[0].lon - start) % 360).sortby("lon"), moving(1.0))
        < 0.02
    )
    moved = frames[0].latent.velocity(model=frames[0].latent.fit(**QUICK))
    assert float(moved.v.median()) < 0  # rows run from north to south, and the image with them
    assert moved.u.attrs["units"] == "m s-1"


def test_a_globe_has_no_seam():
    y, x = np.mgrid[0:24, 0:48] + 0.0
    waves = [(3, 0.2, 0.0), (5, -0.3, 1.0), (2, 0.4, 2.0)]

    def image(shift):
        return sum(np.sin(2 * np.pi * k * (x - shift) / 48 + a * y + b) for k, a, b in waves)

    lon, lat = 7.5 * np.arange(48), -57.5 + 5 * np.arange(24)
    coords = {"time": HOURS[:2], "lat": lat, "lon": lon}
    da = xr.DataArray(np.stack([image(0.0), image(2.0)]), coords, ("time", "lat", "lon"))
    da["lat"].attrs["units"], da["lon"].attrs["units"] = "degrees_north", "degrees_east"
    found = da.latent.interpolate("2020-03-01T01", method="latent", **QUICK)
    error = np.abs(found.values - image(1.0))[4:-4]
    assert error[:, [0, 1, 2, -2, -1]].mean() < 2 * error.mean()
    assert error.mean() < 0.1
    west = da.assign_coords(lon=(da.lon + 180) % 360 - 180).sortby("lon")
    again = west.latent.interpolate("2020-03-01T01", method="latent", **QUICK)
    again = again.assign_coords(lon=again.lon % 360).sortby("lon")
    assert np.abs(again.values - found.values).mean() < 0.5 * error.mean() + 0.02

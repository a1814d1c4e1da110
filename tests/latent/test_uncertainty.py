"""How far motions can be trusted: local information, refits, directions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2, spearmanr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import GridError, ParameterError, UnknownNameError
from xr_spde.fields.cells import Cells
from xr_spde.latent.cases import make_case
from xr_spde.latent.compare import displacement_of
from xr_spde.latent.directions import axis_directions
from xr_spde.latent.motion import Motion, fit_motion
from xr_spde.latent.textures import texture
from xr_spde.latent.uncertainty import (
    LEVELS,
    conformal_table,
    error_scale,
    local_information,
    refit_spread,
)

N = 96
INNER = (slice(14, -14), slice(14, -14))


def striped(angle, shift, noise=0.0, seed=0):
    """Plane waves of one direction that moved along x, and noise."""
    rng = np.random.default_rng(0)
    waves, phases = 2 * np.pi / rng.uniform(6, 40, 30), rng.uniform(0, 2 * np.pi, 30)
    y, x = np.mgrid[0:N, 0:N].astype(float)
    place = np.cos(angle) * (x - shift) + np.sin(angle) * y
    image = sum(np.cos(k * place + p) for k, p in zip(waves, phases, strict=True)) / np.sqrt(15)
    return image + noise * np.random.default_rng(seed).standard_normal((N, N))


def still(shift):
    return np.stack([np.full((N, N), shift), np.zeros((N, N))])


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4, np.pi / 2])
def test_stripes_tell_one_direction(angle, noise):
    pair = striped(angle, 0.0, noise, 1), striped(angle, 2.0, noise, 2)
    told = local_information(*pair, still(2.0), brightness="constant")
    assert (told.determined[INNER] == 1).mean() > 0.98
    assert np.isnan(told.covariance[0][INNER]).mean() > 0.98


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_texture_tells_both_and_emptiness_none(noise):
    y, x = np.mgrid[0:N, 0:N].astype(float)
    rng = np.random.default_rng(3)
    pair = [texture(1, y, x - s) + noise * 0.16 * rng.standard_normal((N, N)) for s in (0.0, 2.0)]
    told = local_information(*pair, still(2.0), brightness="constant")
    assert (told.determined[INNER] == 2).mean() > 0.9
    for image in pair:
        image[:, :40] = 0.5 + noise * 0.16 * rng.standard_normal((N, 40))
    told = local_information(*pair, still(2.0), brightness="constant")
    assert (told.determined[14:-14, :28] == 0).mean() > 0.9


def test_standard_error_of_a_shift_in_noise():
    """Against least squares in windows that do not overlap, over many draws of the noise."""
    y, x = np.mgrid[0:N, 0:N].astype(float)
    clean = texture(5, y, x) / 0.16
    away, claimed = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        u0, u1 = (clean + 0.2 * rng.standard_normal((N, N)) for _ in range(2))
        told = local_information(u0, u1, still(0.0), brightness="constant")
        g0, g1 = (gaussian_filter(u, 1.0) for u in (u0, u1))
        gx, gy = (np.gradient(gaussian_filter(clean, 1.0), axis=a) for a in (1, 0))

        def mean(f):
            return gaussian_filter(f, 3.0)[20:-20:15, 20:-20:15]

        xx, xy, yy = mean(gx * gx), mean(gx * gy), mean(gy * gy)
        bx, by = mean(gx * (g0 - g1)), mean(gy * (g0 - g1))
        away.append((yy * bx - xy * by) / (xx * yy - xy * xy))
        claimed.append(told.covariance[0][20:-20:15, 20:-20:15] - 0.03**2)
    away, claimed = np.array(away), np.array(claimed)
    good = np.isfinite(claimed).all(axis=0)
    assert good.mean() > 0.5
    ratio = np.sqrt(np.mean(away[:, good] ** 2, axis=0) / np.mean(claimed[:, good], axis=0))
    assert 0.6 < np.median(ratio) < 1.1  # on the safe side


def test_seam_and_exchange():
    y, x = np.mgrid[0:48, 0:64].astype(float)
    wave = [np.sin(2 * np.pi * (3 * (x - s) + y) / 64) + np.cos(2 * np.pi * (2 * (x - s) - y) / 64)
            for s in (0.0, 1.0)]  # fmt: skip
    q = np.stack([np.ones((48, 64)), np.zeros((48, 64))])
    told = local_information(*wave, q, brightness="constant", periodic_x=True)
    rolled = [np.roll(u, 20, axis=1) for u in wave]
    again = local_information(*rolled, q, brightness="constant", periodic_x=True)
    np.testing.assert_array_equal(np.roll(told.determined, 20, axis=1), again.determined)
    back = local_information(wave[1], wave[0], -q, brightness="constant", periodic_x=True)
    np.testing.assert_allclose(back.covariance, told.covariance, rtol=1e-3)


def test_refits_spread_where_nothing_tells():
    y, x = np.mgrid[0:48, 0:48].astype(float)
    pair = [texture(2, y, x - s) for s in (0.0, 2.0)]
    for image in pair:
        image[:, :20] = 0.5
    motion = Motion(still(2.0)[:, :48, :48], Cells(48, 48), 0.0)
    spread = refit_spread(*pair, motion, count=2, seed=1)
    again = refit_spread(*pair, motion, count=2, seed=1)
    np.testing.assert_array_equal(spread, again)
    size = np.hypot(*spread)
    assert np.median(size[:, :14]) > 3 * np.median(size[:, 28:44])
    with pytest.raises(ParameterError, match="restarts"):
        refit_spread(*pair, motion, count=1)


def test_scale_of_the_error():
    d = np.full((20, 20), 0.3)
    seen = np.full((20, 20), 2, np.int8)
    seen[:, 15:] = 1
    d[:, 15:] = np.nan
    middle, quarter, end = (error_scale(d, seen, t, 1.0) for t in (0.5, 0.25, 1.0))
    np.testing.assert_allclose(middle[:, :15], np.hypot(0.3, 0.01), rtol=1e-6)
    np.testing.assert_allclose(quarter[:, :15], np.sqrt(0.75) * middle[:, :15])
    assert (end[:, :15] == 0).all()
    assert (middle[:, 15:] == 1).all()
    assert np.isnan(error_scale(d, seen, 1.2, 1.0)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([30, 300]))
def test_conformal_quantiles_cover_new_draws(seed, n):
    rng = np.random.default_rng(seed)
    scores = np.abs(rng.standard_t(3, n))
    quantiles, rms, count = conformal_table(scores, np.full(n, 2))
    assert count.tolist() == [0, 0, n]
    assert np.isnan(quantiles[:2]).all()
    assert np.isnan(rms[:2]).all()
    for level, q in zip(LEVELS, quantiles[2], strict=True):
        rank = np.ceil(level * (n + 1))
        if rank > n:
            assert np.isnan(q)
        else:
            assert (scores <= q).sum() == rank


def stereographic(n=24, step=50e3, angle=0.7):
    """Latitude and longitude of a tilted grid around a pole of a sphere, with its coordinates."""
    line = step * (np.arange(n) - n / 2 + 0.3)
    x, y = np.meshgrid(line, line)
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    lat = 90 - 2 * np.degrees(np.arctan(np.hypot(x, y) / (2 * 6_371_000)))
    return line, lat, np.degrees(np.arctan2(x, -y))


def test_directions_on_a_polar_grid():
    _, lat, lon = stereographic()
    parts = axis_directions(lat, lon)
    # east in the plane is at the angle lon, and the x axis of the grid at 0.7
    turn = 0.7 - np.radians(lon)
    far = lat < 88
    np.testing.assert_allclose(parts[0, 0][far], np.cos(turn)[far], atol=0.02)
    np.testing.assert_allclose(parts[1, 0][far], np.sin(turn)[far], atol=0.02)
    # right angles and unit lengths: the projection is conformal
    np.testing.assert_allclose((parts[:, 0] * parts[:, 1]).sum(axis=0)[far], 0, atol=0.02)
    np.testing.assert_allclose(np.hypot(*parts[:, 0]), 1)


@pytest.mark.parametrize("flipped", [False, True])
def test_velocity_to_east_and_north(flipped):
    line, lat, lon = stereographic()
    j, i = np.mgrid[0:24, 0:24].astype(float)
    stack = np.stack([texture(1, j, i), texture(1, j, i - 1.0)])
    space = {"lat": (("y", "x"), lat), "lon": (("y", "x"), lon), "y": line, "x": line}
    time = np.array(["2020-03-01", "2020-03-02"], "datetime64[ns]")
    pair = xr.DataArray(stack, {"time": time, **space}, ("time", "y", "x"), attrs={"units": "dB"})
    for name in ("x", "y"):
        pair[name].attrs["units"] = "m"
    if flipped:
        pair = pair.isel(y=slice(None, None, -1)).transpose("x", "y", "time")
    found = pair.latent.velocity(components="east_north", medium="sea_ice")
    assert found["eastward"].attrs["standard_name"] == "eastward_sea_ice_velocity"
    assert found["u"].attrs["standard_name"] == "sea_ice_x_velocity"
    speed = np.hypot(found["u"], found["v"])
    np.testing.assert_allclose(np.hypot(found["eastward"], found["northward"]), speed, rtol=0.02)
    # moving a parcel by its eastward and northward velocity leads along the grid
    k = {"x": 5, "y": 6, "time": 0}
    east, north = (float(found[n].isel(k)) for n in ("eastward", "northward"))
    here = pair.isel(x=5, y=6)
    metres = np.array([east, north]) * 10.0  # of ten seconds
    new_lat = float(here["lat"]) + np.degrees(metres[1] / 6_371_000)
    new_lon = float(here["lon"]) + np.degrees(
        metres[0] / (6_371_000 * np.cos(np.radians(float(here["lat"]))))
    )
    r = 2 * 6_371_000 * np.tan(np.radians(90 - new_lat) / 2)
    x, y = r * np.sin(np.radians(new_lon)), -r * np.cos(np.radians(new_lon))
    u, v = float(found["u"].isel(k)), float(found["v"].isel(k))
    back = np.cos(0.7) * x + np.sin(0.7) * y, -np.sin(0.7) * x + np.cos(0.7) * y
    went = np.array(back) - [float(here["x"]), float(here["y"])]
    factor = 1 / np.cos(np.radians(90 - float(here["lat"])) / 2) ** 2  # scale of the projection
    np.testing.assert_allclose(
        went, 10 * factor * np.array([u, v]), atol=0.03 * 10 * np.hypot(u, v)
    )
    lazy = pair.chunk().latent.velocity(components="east_north")
    np.testing.assert_array_equal(lazy["eastward"], found["eastward"])


def test_directions_must_be_known():
    j, i = np.mgrid[0:24, 0:24].astype(float)
    metres = 500.0 * np.arange(24)
    line = {name: (name, metres, {"units": "m"}) for name in "yx"}
    stack = np.stack([texture(1, j, i), texture(1, j, i - 1.0)])
    pair = xr.DataArray(stack, {"time": [0.0, 1.0], **line}, ("time", "y", "x"))
    pair["time"].attrs["units"] = "days"
    with pytest.raises(GridError, match="latitude of every cell"):
        pair.latent.velocity(components="east_north")
    with pytest.raises(UnknownNameError, match="components"):
        pair.latent.velocity(components="polar")
    with pytest.raises(ParameterError, match="restarts"):
        pair.latent.velocity(restarts=1)
    found = pair.latent.velocity(restarts=2, seed=3)
    assert {"u_spread", "v_spread", "u_error", "determined"} <= set(found)
    assert found["u_spread"].attrs["units"] == "m s-1"
    assert found["determined"].attrs["flag_values"].tolist() == [0, 1, 2]
    again = pair.chunk().latent.velocity(restarts=2, seed=3)
    np.testing.assert_array_equal(found["u_spread"], again["u_spread"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swirl", "floe_rot"])
def test_standard_errors_hold_the_true_motion(name):
    """Settings were chosen on the textures +100 and +200."""
    case = make_case(name, seed=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # swirl moves about as far as is searched
        motion = fit_motion(case.u0, case.u1)
    told = local_information(case.u0, case.u1, motion.velocity, brightness="constant")
    off_x, off_y = displacement_of(motion) - case.displacement
    xx, xy, yy = told.covariance
    square = (yy * off_x**2 - 2 * xy * off_x * off_y + xx * off_y**2) / (xx * yy - xy * xy)
    known = np.isfinite(square)
    assert 0.85 < (square[known] < chi2.ppf(0.9, 2)).mean() <= 1
    size = np.hypot(off_x, off_y)
    assert spearmanr(np.sqrt(xx + yy)[known], size[known])[0] > 0.3
    if name == "floe_rot":  # the rim of the floe, where both motions mix
        blind = np.isfinite(size) & ~known
        assert size[blind].mean() > 5 * size[known].mean()

"""Simulated tracks: geometry of repeat orbits, sampling of a truth, seeds and bad input."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.assim import simulate_tracks
from xr_spde.assim.observing import MISSIONS, Mission, ground_track
from xr_spde.errors import DTypeError, GridError, ParameterError, UnknownNameError

DAYS = np.datetime64("2005-04-01", "ns") + np.arange(20) * np.timedelta64(1, "D")


def plane(days=DAYS, lon=None):
    """Truth that is linear in time, latitude and longitude, so that interpolation is exact."""
    lat, lon = np.arange(30.0, 46.0, 0.5), np.arange(-6.0, 36.5, 0.5) if lon is None else lon
    t = np.arange(len(days), dtype=np.float64)[:, None, None]
    z = 0.01 * t + 0.1 * lat[:, None] - 0.02 * lon
    attrs = {"units": "m", "standard_name": "sea_surface_height_above_geoid"}
    return xr.DataArray(z, {"time": days, "lat": lat, "lon": lon}, ("time", "lat", "lon"), "adt",
                        attrs)  # fmt: skip


@given(st.sampled_from(sorted(MISSIONS)), st.floats(0, 1e9))
def test_tracks_repeat_and_stay_within_the_inclination(name, start):
    mission = MISSIONS[name]
    seconds = start + np.arange(0.0, 6000.0, 10.0)
    lat, lon = ground_track(mission, seconds)
    again = ground_track(mission, seconds + mission.repeat * 86400)
    np.testing.assert_allclose(again[0], lat, atol=1e-5)
    np.testing.assert_allclose((again[1] - lon + 180) % 360, 180, atol=1e-4)
    tilt = min(mission.inclination, 180 - mission.inclination)
    assert np.abs(lat).max() <= tilt + 1e-9


def test_crossings_of_the_equator_are_spread_evenly():
    mission = MISSIONS["jason"]
    period = mission.repeat * 86400 / mission.revolutions
    lat, lon = ground_track(mission, period * np.arange(mission.revolutions))
    np.testing.assert_allclose(lat, 0.0, atol=1e-6)
    # 127 nodes, 315 km apart
    np.testing.assert_allclose(np.diff(np.sort(lon)), 360 / 127, atol=1e-6)
    # topex in the middle between them
    other = ground_track(MISSIONS["topex"], period * np.arange(mission.revolutions))[1]
    gaps = np.diff(np.sort(np.concatenate([lon, other])))
    np.testing.assert_allclose(gaps, 180 / 127, atol=1e-6)


def test_a_linear_truth_is_observed_exactly_at_one_hertz():
    truth = plane()
    tracks = simulate_tracks(truth, ["jason", "swot"], noise=0.0)
    days = (tracks.time - DAYS[0]) / np.timedelta64(1, "D")
    expected = 0.01 * days + 0.1 * tracks.latitude - 0.02 * tracks.longitude
    np.testing.assert_allclose(tracks.adt, expected, atol=1e-9)
    nadir = tracks.isel(obs=np.flatnonzero(tracks.mission == 0))
    one = nadir.isel(obs=np.flatnonzero(nadir["track"] == nadir["track"][0]))
    assert set(np.diff(one.time).astype("timedelta64[ms]").astype(int)) == {1000}
    apart = np.hypot(np.diff(one.latitude), np.diff(one.longitude) * np.cos(np.radians(38))) * 111.2
    assert 5.0 < apart.min() <= apart.max() < 7.5
    assert tracks.adt.attrs["units"] == tracks.adt_error.attrs["units"] == "m"
    assert "standard_name" not in tracks.adt_error.attrs
    assert tracks.mission.attrs["flag_meanings"] == "jason swot"


def test_a_swath_has_two_sides_and_a_gap():
    tracks = simulate_tracks(plane(), ["swot"], noise=0.0, across=10.0)
    line = tracks.isel(obs=np.flatnonzero(tracks.time == tracks.time[len(tracks.obs) // 2]))
    assert line.sizes["obs"] == 12  # 10 to 60 km on either side
    km = 111.195 * np.column_stack(
        [line.latitude, line.longitude * np.cos(np.radians(line.latitude.mean().item()))]
    )
    steps = np.linalg.norm(np.diff(km, axis=0), axis=1)
    np.testing.assert_allclose(steps, [10.0] * 5 + [20.0] + [10.0] * 5, rtol=0.02)


def test_errors_belong_to_a_mission_and_a_seed():
    truth = plane()
    both = simulate_tracks(truth, ["jason", "gfo"], noise={"jason": 0.02, "gfo": 0.05}, seed=1)
    alone = truth.assim.simulate_tracks(["gfo"], noise=0.05, seed=1)
    gfo = both.isel(obs=np.flatnonzero(both.mission == 1))
    np.testing.assert_array_equal(gfo.adt, alone.adt)
    exact = simulate_tracks(truth, ["jason", "gfo"], noise=0.0).adt
    error = (both.adt - exact).values
    for k, std in enumerate((0.02, 0.05)):
        assert error[both.mission == k].std() == pytest.approx(std, rel=0.05)
        assert (both.adt_error[both.mission == k] == std).all()
    other = simulate_tracks(truth, ["gfo"], noise=0.05, seed=2)
    assert not np.array_equal(other.adt, alone.adt)


def test_chunks_storage_and_parts_of_the_series_do_not_matter():
    truth = plane()
    truth[:, 10:14, 30:40] = np.nan
    whole = simulate_tracks(truth, noise=0.0)
    assert np.isfinite(whole.adt).all()
    turned = truth.isel(lat=slice(None, None, -1)).transpose("lon", "time", "lat").chunk(time=7)
    other = simulate_tracks(turned, noise=0.0)
    np.testing.assert_allclose(other.adt, whole.adt, atol=1e-12)
    late = simulate_tracks(truth[5:12], noise=0.0)
    inside = (whole.time >= late.time.min()) & (whole.time <= late.time.max())
    same = whole.isel(obs=np.flatnonzero(inside))
    np.testing.assert_array_equal(np.sort(same.time), np.sort(late.time))
    narrow = truth.astype("float32").isel(lon=slice(20, 60))
    assert simulate_tracks(narrow).adt.dtype == np.float32


def test_longitudes_of_the_whole_sphere_and_model_dates():
    days = xr.date_range("2005-04-01", periods=4, calendar="noleap", use_cftime=True)
    truth = plane(days, lon=np.arange(0.0, 360.0, 2.0))
    found = simulate_tracks(truth, {"own": Mission(80.0, 3.0, 3, 43)}, noise=0.0)
    assert isinstance(found.time.values[0], cftime.DatetimeNoLeap)
    assert float(found.longitude.max()) > 358.5  # beyond the last column
    near = found.longitude < 358.0
    days = np.array([(t - truth.time.values[0]).total_seconds() for t in found.time.values]) / 86400
    expected = 0.01 * days + 0.1 * found.latitude - 0.02 * found.longitude
    np.testing.assert_allclose(found.adt[near], expected[near], atol=1e-9)


def test_tracks_are_mapped_and_scored():
    truth = plane()[:6, ::2, ::2]
    tracks = simulate_tracks(truth, ["jason", "gfo"], noise=0.01, seed=0, every=4.0)
    guess = xr.zeros_like(truth) + truth.mean()
    maps = guess.assim.assimilate(tracks, method="oi-gaussian", lx=4, ly=4, lt=10, std=1.0)
    seen = tracks.mission == 0
    found = maps.assim.score(tracks.adt[seen], obs_error=0.01)
    assert float(found.rmse) < 0.05


def test_bad_input_is_named():
    truth = plane()
    for call, kind, message in (
        (lambda: simulate_tracks(truth, ["jasn"]), UnknownNameError, "jason"),
        (lambda: simulate_tracks(truth, []), ParameterError, "at least one"),
        (lambda: simulate_tracks(truth, noise=-1.0), ParameterError, "noise"),
        (lambda: simulate_tracks(truth, ["gfo"], noise={"swot": 1.0}), ParameterError, "gfo"),
        (lambda: simulate_tracks(truth, every=0.0), ParameterError, "every"),
        (lambda: simulate_tracks(truth.to_dataset()), DTypeError, "Dataset"),
        (lambda: simulate_tracks(truth[[0, 1, 5]]), ParameterError, "equal steps"),
        (lambda: simulate_tracks(truth[:2, :2, :2], ["gfo"]), ParameterError, "none of gfo"),
        (
            lambda: simulate_tracks(truth.assign_coords(
                lat=truth.lat.assign_attrs(units="km"), lon=truth.lon.assign_attrs(units="km"))),
            GridError, "latitudes",
        ),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            call()

"""Quality control, times, thinning and superobbing."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xr_spde.assim.correlated import AlongTrack
from xr_spde.assim.observations import read_observations
from xr_spde.assim.screening import check_innovations, screen, select_time, superob, thin
from xr_spde.errors import ParameterError

EARTH = 6_371_000.0


def globe():
    coords = {"lat": np.linspace(-85.0, 85.0, 18), "lon": np.arange(0.0, 360.0, 10.0)}
    return xr.DataArray(np.zeros((18, 36)), coords, ("lat", "lon"))


def scattered(seed, count=60):
    rng = np.random.default_rng(seed)
    coords = {
        "lat": ("obs", rng.uniform(-90, 90, count)),
        "lon": ("obs", rng.uniform(-180, 360, count)),
    }
    values = xr.DataArray(rng.standard_normal(count), coords, ("obs",), name="v")
    return xr.Dataset({"v": values, "v_std": ("obs", rng.uniform(0.5, 2.0, count))})


def test_innovations_beyond_the_threshold_are_rejected_and_reported():
    obs = read_observations(scattered(0), globe())
    variance = np.full(obs.size, 0.5)
    innovation = np.sqrt(variance + obs.error.variance) * np.where(np.arange(60) % 3, 1.0, -4.5)
    left = check_innovations(obs, innovation, variance)
    assert left.counts() == {"used": 40, "rejected": 20}
    report = left.report()
    np.testing.assert_allclose(report.departure, np.where(np.arange(60) % 3, 1.0, -4.5))
    np.testing.assert_array_equal(report.status == 4, np.arange(60) % 3 == 0)
    assert report.status.attrs["flag_meanings"].split()[4] == "rejected"
    assert report.attrs["summary"] == "60 observations: 40 used, 20 rejected"
    np.testing.assert_allclose(left.values, obs.values[np.arange(60) % 3 > 0])
    again = check_innovations(left, innovation[np.arange(60) % 3 > 0], variance[:40], threshold=5)
    assert again.report().departure.notnull().all()
    assert check_innovations(obs, innovation, variance, threshold=np.inf).size == 60


def test_all_rejected_and_other_bad_input():
    obs = read_observations(scattered(0), globe())
    with pytest.raises(ParameterError, match=r"rejects all 60 .*median, mean \+.*check units"):
        check_innovations(obs, np.full(60, 1e3), np.ones(60))
    with pytest.raises(ParameterError, match="threshold=0"):
        check_innovations(obs, np.ones(60), np.ones(60), threshold=0)
    with pytest.raises(ParameterError, match="no value at 1 of 60 observations; pass land="):
        check_innovations(obs, np.where(np.arange(60) == 3, np.nan, 0.0), np.ones(60))
    with pytest.raises(ParameterError, match="all 60 observations would be thinned"):
        obs.select(np.zeros(60, dtype=bool), "thinned")
    with pytest.raises(ParameterError, match="at least two of them"):
        screen(obs, np.zeros((1, 18, 36)))


def test_an_ensemble_gives_its_own_variance():
    given_obs = scattered(1)
    given_obs.v[0] = 50.0
    obs = read_observations(given_obs, globe())
    members = np.random.default_rng(0).standard_normal((30, 18, 36))
    modelled = obs.operator.apply(members)
    scaled = (obs.values - modelled.mean(0)) / np.sqrt(modelled.var(0, ddof=1) + obs.error.variance)
    left = screen(obs, members, threshold=2.0)
    np.testing.assert_allclose(left.report().departure, scaled)
    np.testing.assert_array_equal(left.status == 0, np.abs(scaled) <= 2.0)


@given(st.integers(0, 10**6), st.floats(200e3, 5e6), st.sampled_from([0.0, 90.0, -180.0]))
def test_boxes_part_the_sphere_and_do_not_know_the_seam(seed, distance, shift):
    data = scattered(seed)
    obs = read_observations(data, globe())
    left = thin(obs, distance)
    turned = data.assign_coords(lon=(data.lon + 360.0 * (data.lon < shift)))
    again = thin(read_observations(turned, globe()), distance)
    np.testing.assert_array_equal(left.status, again.status)
    joined = superob(obs, distance)
    assert joined.size == left.size
    assert joined.row.max() == joined.size - 1
    # the least error of each box is the one that thinning keeps
    for k in range(joined.size):
        own = np.flatnonzero(joined.row == k)
        kept = own[left.status[own] == 0]
        assert kept.size == 1
        assert obs.error.variance[kept[0]] == obs.error.variance[own].min()
        # a box is no longer than its sides
        assert np.ptp(obs.y[own]) <= np.degrees(distance / EARTH) * (1 + 1e-9)


def test_superobs_are_the_weighed_means_of_value_operator_and_place():
    data = scattered(3)
    obs = read_observations(data, globe())
    joined = superob(obs, 3e6, floor=0.1)
    weight = (joined.row == np.arange(joined.size)[:, None]) / obs.error.variance
    weight /= weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(joined.values, weight @ obs.values)
    np.testing.assert_allclose(joined.y, weight @ obs.y)
    fields = np.random.default_rng(0).standard_normal((3, 18, 36))
    np.testing.assert_allclose(
        joined.operator.apply(fields), obs.operator.apply(fields) @ weight.T, atol=1e-12
    )
    np.testing.assert_allclose(joined.error.variance, weight**2 @ obs.error.variance + 0.01)
    assert joined.summary() == f"60 observations: 60 used, joined into {joined.size}"
    rejected = joined.select(np.arange(joined.size) != 2)
    np.testing.assert_array_equal(rejected.status == 4, joined.row == 2)


def test_what_cannot_be_thinned_or_joined():
    obs = read_observations(scattered(0), globe())
    along = read_observations(scattered(0).v, globe(), obs_error=AlongTrack(1.0, 1e5, share=0.9))
    assert thin(along, 1e6).error.variance.size == thin(along, 1e6).size
    with pytest.raises(ParameterError, match="independent errors"):
        superob(along, 1e6)
    with pytest.raises(ParameterError, match="distance=0"):
        thin(obs, 0)
    with pytest.raises(ParameterError, match="floor=-1"):
        superob(obs, 1e6, floor=-1)
    free = read_observations(
        xr.DataArray([1.0], dims="obs"), globe(), obs_error=1.0, operator=lambda x: x[..., 0, :1]
    )
    with pytest.raises(ParameterError, match="no positions"):
        thin(free, 1e6)


def test_times_about_the_analysis():
    days = np.arange("2020-01-01", "2020-01-11", dtype="M8[D]").astype("M8[ns]")
    track = xr.DataArray(np.arange(10.0), {"time": ("obs", days)}, ("obs",))
    kept = select_time(track, np.datetime64("2020-01-04"), window=np.timedelta64(24, "h"))
    assert kept.values.tolist() == [2.0, 3.0, 4.0]
    gridded = track.swap_dims(obs="time")
    again = select_time(gridded, xr.DataArray(days[3]), window=timedelta(hours=12))
    assert again.values.tolist() == [3.0]
    model = xr.date_range("2020-01-04", periods=1, calendar="noleap", use_cftime=True)[0]
    with pytest.raises(ParameterError, match=r"'noleap'.*convert_calendar\('noleap', use_cftime=T"):
        select_time(track, model, window=timedelta(1))
    same = track.assign_coords(
        time=("obs", xr.date_range("2020-01-01", periods=10, calendar="noleap", use_cftime=True))
    )
    assert select_time(same, model, window=timedelta(1)).values.tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(ParameterError, match="is no length of time"):
        select_time(track, days[0], window=3)
    with pytest.raises(ParameterError, match="have none as coordinates of dates"):
        select_time(track.drop_vars("time"), days[0], window=timedelta(1))

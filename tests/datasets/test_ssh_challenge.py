"""The loader of the SSH mapping challenge, on small files of its layout written here."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde._core.errors import (
    DataUnavailableError,
    ParameterError,
    SchemaError,
    UnknownNameError,
)
from xr_spde.datasets import (
    CHALLENGE_BOX,
    CHALLENGE_MISSIONS,
    CHALLENGE_PERIODS,
    open_ssh_challenge,
)
from xr_spde.labels.grid import Grid

LAT, LON = np.arange(33.0, 38.0, 0.5), np.arange(-65.0, -59.0, 0.5)
FIRST = np.datetime64("2012-10-21", "ns")
DAYS = 4


def height(time, lat, lon):
    """Truth that is linear in hours and degrees."""
    hours = (time - FIRST) / np.timedelta64(1, "h")
    return 0.01 * hours + 0.1 * lat - 0.05 * lon


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("challenge")
    (base / "dc_ref").mkdir()
    (base / "dc_obs").mkdir()
    for day in range(DAYS):
        start = FIRST + np.timedelta64(day, "D")
        hours = start + np.arange(24) * np.timedelta64(1, "h") + np.timedelta64(30, "m")
        values = height(hours[:, None, None], LAT[:, None], LON)
        ds = xr.Dataset({"sossheig": (("time", "lat", "lon"), values)},
                        {"time": hours, "lat": LAT, "lon": LON})  # fmt: skip
        stamp = str(start.astype("datetime64[D]")).split("-")
        name = "NATL60-CJM165_GULFSTREAM_y{}m{}d{}.1h_SSH.nc".format(*stamp)
        ds.to_netcdf(base / "dc_ref" / name)
    (base / "dc_ref" / "readme.nc").write_bytes(b"not one of them")
    for number, (mission, name) in enumerate(CHALLENGE_MISSIONS.items()):
        along(mission, number).to_netcdf(base / "dc_obs" / name)
    return base


def along(mission, number):
    """Two passes of five points, a day and a half apart; longitudes count from 0 to 360."""
    seconds = np.concatenate([np.arange(5), 129_600 + np.arange(5)]) + 600 * number
    time = FIRST + seconds * np.timedelta64(1, "s")
    lat, lon = np.tile(33.2 + 0.9 * np.arange(5), 2), 295.3 + 0.5 * number + np.zeros(10)
    if mission == "swot":
        across = 0.1 * np.arange(3)
        lat, lon, time2 = lat[:, None] + 0 * across, lon[:, None] + across, time[:, None]
        dims = ("time", "nC")
    else:
        dims, time2 = ("time",), time
    ssh = height(time2, lat, lon - 360)
    if mission == "swot":
        ssh[0, 1] = np.nan
    return xr.Dataset({"ssh_model": (dims, ssh), "ssh_obs": (dims, ssh + 0.01),
                       "lat": (dims, lat), "lon": (dims, lon)}, {"time": time})  # fmt: skip


def test_truth_is_the_daily_mean_at_noon_and_lazy(folder):
    truth = open_ssh_challenge(folder)["truth"].ssh
    assert truth.chunks is not None
    assert truth.dims == ("time", "lat", "lon")
    noon = FIRST + (np.arange(DAYS) * 24 + 12) * np.timedelta64(1, "h")
    np.testing.assert_array_equal(truth.time, noon)
    np.testing.assert_allclose(truth, height(noon[:, None, None], LAT[:, None], LON))
    assert Grid.from_object(truth).kind == "geographic"
    assert truth.attrs["units"] == "m"
    hourly = open_ssh_challenge(folder, daily=False)["truth"].ssh
    assert hourly.sizes["time"] == 24 * DAYS
    np.testing.assert_allclose(hourly.mean("time"), truth.mean("time"))


def test_tracks_are_those_of_the_files(folder):
    tracks = open_ssh_challenge(folder, missions=[*CHALLENGE_MISSIONS])["tracks"].to_dataset()
    assert dict(tracks.sizes) == {"obs": 5 * 10 + 30}
    assert tracks.ssh.chunks is not None
    expected = height(tracks.time, tracks.latitude, tracks.longitude)
    seen = np.isfinite(tracks.ssh.values)
    assert (~seen).sum() == 1
    np.testing.assert_allclose(tracks.ssh.values[seen], expected.values[seen])
    assert float(tracks.longitude.max()) < 0
    meanings = tracks.mission.attrs["flag_meanings"].split()
    counts = {meanings[k]: n for k, n in enumerate(np.bincount(tracks.mission))}
    assert counts == dict.fromkeys(CHALLENGE_MISSIONS, 10) | {"swot": 30}
    # two passes of each mission, each with its own number
    passes = tracks.to_dataframe().groupby("track")
    assert len(passes) == 12
    assert (passes["mission"].nunique() == 1).all()
    noisy = open_ssh_challenge(folder, variable="ssh_obs", missions="jason")["tracks"]
    np.testing.assert_allclose(
        noisy.ssh.values - 0.01, tracks.ssh.values[tracks.mission.values == 1]
    )


def test_a_period_opens_its_files_alone(folder):
    tree = open_ssh_challenge(folder, period=("2012-10-22", "2012-10-23"), missions=["jason"])
    assert tree["truth"].sizes["time"] == 2
    assert dict(tree["tracks"].sizes) == {"obs": 5}
    assert "truth" not in open_ssh_challenge(folder, truth=False).children


def test_it_is_ready_for_the_analysis(folder):
    tree = open_ssh_challenge(folder, missions=[*CHALLENGE_MISSIONS])
    truth, tracks = tree["truth"].ssh, tree["tracks"].to_dataset()
    guess = xr.full_like(truth, float(truth.mean())).compute()
    # half a day lies outside the days at noon
    maps = guess.assim.assimilate(
        tracks, method="oi-gaussian", lx=3.0, ly=3.0, lt=7.0, std=1.0, unusable="drop"
    )
    seen = {"time": "2012-10-22", "lon": slice(-65.0, -62.0)}  # the passes of the second day
    error = (maps["mean"] - truth).sel(seen)
    assert float(abs(error).max()) < 0.03 < float(abs((guess - truth).sel(seen)).max())


def test_the_split_of_the_challenge():
    days = {name: np.array(pair, "datetime64[D]") for name, pair in CHALLENGE_PERIODS.items()}
    assert int((days["evaluation"][1] - days["evaluation"][0]).astype(int)) + 1 == 42
    assert days["spin_up"][1] < days["evaluation"][0]
    assert days["evaluation"][1] < days["training"][0]
    assert CHALLENGE_BOX == {"lat": (33.0, 43.0), "lon": (-65.0, -55.0)}


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(DataUnavailableError, match=r"no folder.*AVISO"):
        open_ssh_challenge(tmp_path / "none")
    with pytest.raises(DataUnavailableError, match=r"jason1\.nc.*there: nothing.*AVISO"):
        open_ssh_challenge(tmp_path)
    (tmp_path / "dc_obs").symlink_to(folder / "dc_obs")
    with pytest.raises(DataUnavailableError, match=r"1h_SSH\.nc.*truth=False"):
        open_ssh_challenge(tmp_path)
    assert set(open_ssh_challenge(tmp_path, truth=False).children) == {"tracks"}
    with pytest.raises(DataUnavailableError, match="2013-01-02 to 2013-09-30"):
        open_ssh_challenge(folder, period=CHALLENGE_PERIODS["training"])


def test_other_layouts_are_refused(folder, tmp_path):
    (tmp_path / "dc_obs").mkdir()
    path = tmp_path / "dc_obs" / CHALLENGE_MISSIONS["jason"]
    good = along("jason", 1)
    wrong = (good.rename(ssh_model="sla"), good.rename(time="n"), along("swot", 1),
             good.assign_coords(time=np.arange(10)))  # fmt: skip
    for number, ds in enumerate(wrong):
        path.unlink(missing_ok=True)
        ds.to_netcdf(path)
        with pytest.raises(SchemaError, match="challenge 2020a" if number < 3 else "times"):
            open_ssh_challenge(tmp_path, missions=["jason"], truth=False)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [({"missions": ["cryosat"]}, UnknownNameError, "mission"),
     ({"missions": []}, ParameterError, "missions"),
     ({"obs_error": 0.0}, ParameterError, "obs_error"),
     ({"period": ("2012-12-02", "2012-10-22")}, ParameterError, "period"),
     ({"period": ("soon", "later")}, ParameterError, "period")],
)  # fmt: skip
def test_impossible_requests(folder, wrong, error, match):
    with pytest.raises(error, match=match):
        open_ssh_challenge(folder, **wrong)

"""Forecast and analysis in turn: against the Kalman filter, interrupted, and with broken models."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import Adaptive, assimilate, cycle, steps
from xr_spde.errors import DTypeError, ParameterError

DAYS = np.array(["2020-01-02", "2020-01-03", "2020-01-04", "2020-01-05"], "datetime64[ns]")
SHAPE = (3, 4)
ERROR = 0.5


@pytest.fixture
def ens():
    coords = {
        "lat": ("lat", [40.0, 41.0, 42.0], {"units": "degrees_north"}),
        "lon": ("lon", [0.0, 1.0, 2.0, 3.0], {"units": "degrees_east"}),
        "number": np.arange(20),
        "time": np.datetime64("2020-01-01", "ns"),
    }
    z = np.random.default_rng(0).standard_normal((20, *SHAPE))
    return xr.DataArray(z, coords, ("number", "lat", "lon"), "z", {"units": "m"})


@pytest.fixture
def obs():
    values = np.random.default_rng(1).standard_normal((4, 5))
    place = {
        "time": DAYS,
        "lat": ("obs", [40.0, 41, 42, 42, 40]),
        "lon": ("obs", [0.0, 1, 2, 3, 3]),
    }
    return xr.DataArray(values, place, ("time", "obs"))


def rolled(ensemble, start, stop):
    """Advection by one cell a day, somewhat damped."""
    days = int((stop - start) / np.timedelta64(1, "D"))
    return 0.9**days * ensemble.roll(lon=days)


def test_a_cycle_is_the_kalman_filter(ens, obs):
    found = cycle(ens, obs, forecast=rolled, method="etkf", obs_error=ERROR)
    index = np.ravel_multi_index(
        (obs.lat.values.astype(int) - 40, obs.lon.values.astype(int)), SHAPE
    )
    H = np.eye(12)[index]
    M = 0.9 * np.stack([np.roll(np.eye(12)[k].reshape(SHAPE), 1, -1).ravel() for k in range(12)], 1)
    members = ens.values.reshape(20, 12)
    mean, cov = members.mean(axis=0), np.cov(members.T)
    for k in range(4):
        mean, cov = M @ mean, M @ cov @ M.T
        gain = cov @ H.T @ np.linalg.inv(H @ cov @ H.T + ERROR**2 * np.eye(5))
        mean, cov = mean + gain @ (obs.values[k] - H @ mean), cov - gain @ H @ cov
        np.testing.assert_allclose(found["mean"][k].values.ravel(), mean, atol=1e-10)
        np.testing.assert_allclose(np.cov(found.z[k].values.reshape(20, 12).T), cov, atol=1e-10)
    np.testing.assert_array_equal(found.time, DAYS)
    assert found.z.dims == ("time", "number", "lat", "lon")
    assert found.z.attrs == ens.attrs
    assert found.innovation.dims == ("time", "obs")


def test_times_without_observations_are_forecast_only(ens, obs):
    gap = obs.copy()
    gap[1] = np.nan
    found = cycle(ens, gap, forecast=rolled, obs_error=ERROR, method="etkf")
    np.testing.assert_array_equal(found.observations_used, [5, 0, 5, 5])
    np.testing.assert_allclose(found.z[1], rolled(found.z[0], DAYS[0], DAYS[1]), atol=1e-14)
    more = cycle(
        ens, gap.isel(time=[0, 2, 3]), forecast=rolled, obs_error=ERROR, method="etkf", times=DAYS
    )
    np.testing.assert_array_equal(more.z, found.z)


@pytest.mark.parametrize("method", ["enkf", "letkf"])
def test_an_interrupted_cycle_goes_on(ens, obs, method, tmp_path):
    pytest.importorskip("zarr")
    settings = {"method": method, "obs_error": ERROR, "seed": 7, "inflation": Adaptive(1.1, 0.3)}
    whole = cycle(ens, obs, forecast=rolled, **settings)
    calls = []

    def dies(ensemble, start, stop):
        calls.append(stop)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rolled(ensemble, start, stop)

    with pytest.raises(KeyboardInterrupt):
        cycle(ens, obs, forecast=dies, store=tmp_path / "run", **settings)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["000000.zarr", "000001.zarr"]
    (tmp_path / "run" / "000002.part").mkdir()  # one that was being written
    found = cycle(ens, obs, forecast=dies, store=tmp_path / "run", **settings)
    assert calls[3:] == list(DAYS[2:])
    np.testing.assert_array_equal(found.z, whole.z)
    np.testing.assert_array_equal(found.inflation, whole.inflation)
    with pytest.raises(ParameterError, match="another store"):
        cycle(ens, obs[1:], forecast=rolled, store=tmp_path / "run", **settings)
    longer = obs.reindex(time=[*DAYS, DAYS[-1] + np.timedelta64(1, "D")])
    other = {**settings, "inflation": 1.2}
    with pytest.raises(ParameterError, match=r"inflation was adaptive and is 1\.2; give another"):
        cycle(ens, longer, forecast=rolled, store=tmp_path / "run", **other)


def test_random_numbers_in_a_store_want_a_seed(ens, obs, tmp_path):
    pytest.importorskip("zarr")
    settings = {"obs_error": ERROR, "forecast": rolled}
    with pytest.warns(UserWarning, match="no seed was given"):
        cycle(ens, obs[:1], method="enkf", store=tmp_path / "one", **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*seed")
        cycle(ens, obs[:1], method="etkf", store=tmp_path / "two", **settings)
        cycle(ens, obs[:1], method="enkf", seed=1, store=tmp_path / "three", **settings)


def test_the_recipe_to_restart_from_a_store_of_ones_own(ens, obs, tmp_path):
    pytest.importorskip("zarr")
    settings = {"method": "enkf", "obs_error": ERROR, "seed": 7}
    whole = cycle(ens, obs, forecast=rolled, **settings)
    for part in steps(ens, obs[:2], forecast=rolled, **settings):
        last = tmp_path / "last.zarr"
        part.to_zarr(last, mode="w", consolidated=False)
    again = xr.open_zarr(last, consolidated=False)
    rest = cycle(again.z, obs[2:], forecast=rolled, **settings)
    np.testing.assert_array_equal(rest.z, whole.z[2:])


def test_lazy_datasets_and_windows(ens, obs):
    flat = obs.stack(obs_time=("time", "obs")).reset_index("obs_time")
    points = xr.DataArray(
        flat.values,
        {
            "lat": ("p", flat.lat.values),
            "lon": ("p", flat.lon.values),
            "when": ("p", flat.time.values),
        },
        "p",
    )
    both = xr.Dataset({"z": ens, "t": 2 * ens})
    found = cycle(
        both.chunk(lat=2), {"z": points}, forecast=rolled, times=DAYS,
        window=np.timedelta64(6, "h"), obs_error=ERROR, method="etkf",
    )  # fmt: skip
    plain = cycle(ens, obs, forecast=rolled, obs_error=ERROR, method="etkf")
    np.testing.assert_allclose(found.z, plain.z, atol=1e-12)
    np.testing.assert_allclose(found.t, 2 * plain.z, atol=1e-12)
    np.testing.assert_array_equal(found.z_observations_used, [5, 5, 5, 5])


@pytest.mark.parametrize("bad", [False, True])
def test_lazy_forecasts_are_not_computed_to_look_for_missing_values(ens, obs, bad):
    """The analysis reads them at most twice, and looks on the way."""
    seen = []

    def forecast(ensemble, start, stop):
        def blocks(block):
            seen.append(stop)
            moved = 0.9 * np.roll(block, 1, axis=-1)
            if bad and stop == DAYS[2]:
                moved[4, 1, 1] = np.nan
            return moved

        meta = np.empty((0, 0, 0))
        return ensemble.copy(data=ensemble.chunk().data.map_blocks(blocks, meta=meta))

    settings = {"obs_error": ERROR, "localization": 1e5}
    if bad:
        with pytest.raises(ParameterError, match=r"to 2020-01-04.*1 in 1 members.*member 4"):
            cycle(ens, obs, forecast=forecast, **settings)
        return
    found = cycle(ens, obs, forecast=forecast, **settings)
    assert max(seen.count(day) for day in DAYS) <= 2
    plain = cycle(ens, obs, forecast=rolled, **settings)
    np.testing.assert_array_equal(found.z, plain.z)


def test_models_on_arrays(ens, obs):
    def bare(ensemble, start, stop):
        return 0.9 * np.roll(ensemble.values, 1, axis=-1)

    one, two = (cycle(ens, obs, forecast=f, obs_error=ERROR, method="etkf") for f in (bare, rolled))
    np.testing.assert_allclose(one.z, two.z, atol=1e-14)


def blown_up(ensemble, start, stop):
    found = ensemble.copy()
    if stop == DAYS[1]:
        found[3, 1, 1] = np.inf
    return found


BROKEN = {
    "unstable": (
        blown_up, ParameterError, r"from 2020-01-02.* to 2020-01-03.*: 1 in 1 members.*member 3",
    ),
    "shape": (lambda e, a, b: e[:, :2], ParameterError, "with the sizes.*'lat': 2.*expected"),
    "array": (lambda e, a, b: e.values[:5], ParameterError, "returned shape"),
    "nothing": (lambda e, a, b: None, DTypeError, "NoneType"),
    "moved": (
        lambda e, a, b: e.assign_coords(lat=e.lat + 1), ParameterError, "other labels along 'lat'",
    ),
    "reordered": (lambda e, a, b: e[::-1], ParameterError, "other labels along 'number'"),
    "renamed": (lambda e, a, b: e.rename(number="k"), ParameterError, "expected.*'number': 20"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN, ids=list(BROKEN))
def test_broken_forecasts_are_named(ens, obs, case):
    forecast, kind, message = BROKEN[case]
    with pytest.raises(kind, match=message):
        cycle(ens, obs, forecast=forecast, obs_error=ERROR, method="etkf")


def test_a_model_that_fails_says_when(ens, obs):
    def fails(ensemble, start, stop):
        raise RuntimeError("no convergence")

    with pytest.raises(RuntimeError, match="no convergence") as caught:
        cycle(ens, obs, forecast=fails, obs_error=ERROR, method="etkf")
    assert "forecast from 2020-01-01" in caught.value.__notes__[0]


def test_labels_that_a_model_drops_come_back(ens, obs):
    def bare(ensemble, start, stop):
        found = rolled(ensemble, start, stop).transpose().drop_vars(["lat", "lon", "number"])
        if isinstance(found, xr.DataArray):
            return found.drop_attrs().rename(None)
        return found.drop_attrs()

    settings = {"obs_error": ERROR, "method": "etkf"}
    one, two = (cycle(ens, obs, forecast=f, **settings) for f in (bare, rolled))
    xr.testing.assert_identical(one, two)
    both = xr.Dataset({"z": ens, "t": 2 * ens})
    one, two = (cycle(both, {"z": obs}, forecast=f, **settings) for f in (bare, rolled))
    xr.testing.assert_identical(one, two)


def test_times_make_sense(ens, obs):
    with pytest.raises(ParameterError, match="do not all increase"):
        cycle(ens, obs, forecast=rolled, times=DAYS[::-1], obs_error=ERROR)
    with pytest.raises(ParameterError, match=r"pass times="):
        cycle(ens, obs[0], forecast=rolled, obs_error=ERROR)
    with pytest.raises(ParameterError, match="after the first analysis"):
        cycle(ens, obs, forecast=rolled, start=DAYS[2], obs_error=ERROR)


def test_calendars_and_functions_and_folders(ens, obs, tmp_path):
    cftime = pytest.importorskip("cftime")
    days = [cftime.Datetime360Day(2020, 2, day) for day in (27, 28, 29, 30)]
    other = obs.assign_coords(time=days)
    with pytest.raises(ParameterError, match=r"360_day.*convert_calendar"):
        cycle(ens, other, forecast=rolled, obs_error=ERROR)
    start = cftime.Datetime360Day(2020, 2, 26)
    settings = {"obs_error": ERROR, "method": "enkf", "seed": 3}
    again = cycle(ens.assign_coords(time=start), other, forecast=daily, **settings)
    assert list(again.time.values) == days
    with pytest.raises(DTypeError, match="forecast= is a int"):
        cycle(ens, obs, forecast=3, obs_error=ERROR)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ParameterError, match="is no folder"):
        cycle(ens, obs, forecast=rolled, obs_error=ERROR, method="etkf", store=file)


def test_a_restart_reads_dates_of_other_calendars(ens, obs, tmp_path):
    cftime = pytest.importorskip("cftime")
    pytest.importorskip("zarr")
    days = [cftime.Datetime360Day(2020, 2, day) for day in (27, 28, 29, 30)]
    other = obs.assign_coords(time=days)
    first = ens.assign_coords(time=cftime.Datetime360Day(2020, 2, 26))
    settings = {"obs_error": ERROR, "method": "etkf", "forecast": daily}
    whole = cycle(first, other, **settings)
    cycle(first, other[:2], store=tmp_path / "run", **settings)
    found = cycle(first, other, store=tmp_path / "run", **settings)
    np.testing.assert_array_equal(found.z, whole.z)


def daily(ensemble, start, stop):
    return 0.9 * ensemble.roll(lon=(stop - start).days)


def test_without_a_start_the_ensemble_is_the_first_forecast(ens, obs):
    found = cycle(ens.drop_vars("time"), obs, forecast=rolled, obs_error=ERROR, method="etkf")
    one = assimilate(ens, obs[0], obs_error=ERROR, method="etkf")
    np.testing.assert_array_equal(found.z[0], one.z)

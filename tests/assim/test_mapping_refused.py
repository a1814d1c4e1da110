"""What maps in space and time refuse, through the accessor: nothing is a silently wrong map."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.errors import ParameterError, SolverError, UnknownNameError

NY, NX, DAYS, COUNT = 6, 7, 5, 12
COORDS = {
    "lat": ("lat", 40.0 + 0.5 * np.arange(NY), {"units": "degrees_north"}),
    "lon": ("lon", 3.0 + 0.5 * np.arange(NX), {"units": "degrees_east"}),
}
TIMES = np.datetime64("2014-05-15", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
DIMS = ("time", "lat", "lon")
SCALES = {"lx": 1.0, "ly": 1.0, "lt": 5.0, "std": 0.1}


def prior(**changes):
    numbers = {"length": 90.0, "length_across": 60.0, "angle": 0.4, "decay_time": 12.0,
               "u": 0.02, "v": -0.01, "std": 0.08, "mean": 0.3} | changes  # fmt: skip
    maps = {k: (("lat", "lon"), np.full((NY, NX), float(v))) for k, v in numbers.items()}
    return xr.Dataset(maps, COORDS, {"time_step": 1.0, "alpha": 2})


def points():
    rng = np.random.default_rng(0)
    when = TIMES[0] + (rng.uniform(0, DAYS - 1, COUNT) * 86400e9).astype("timedelta64[ns]")
    at = {"lat": ("obs", rng.uniform(40.0, 42.5, COUNT)), "time": ("obs", when),
          "lon": ("obs", rng.uniform(3.0, 6.0, COUNT))}  # fmt: skip
    return xr.DataArray(0.3 + 0.1 * rng.standard_normal(COUNT), at, "obs")


def fields(value=0.3):
    return xr.DataArray(np.full((DAYS, NY, NX), value), {"time": TIMES, **COORDS}, DIMS)


def with_one(array, index, value):
    changed = array.copy(deep=True)
    changed[index] = value
    return changed


GRIDDED = {
    "unsorted": (lambda o: o[::-1], "do not increase"),
    "twice the same time": (lambda o: o.isel(time=[0, 0, 1]), "do not increase"),
    "infinite": (lambda o: with_one(o, (1, 2, 3), np.inf), "1 observations are infinite"),
    "all missing": (lambda o: o * np.nan, "all 210 gridded observations are NaN"),
    "at other times": (lambda o: o.assign_coords(time=o.time + np.timedelta64(99, "D")),
                       "5 of 5 times .* outside"),
    "elsewhere": (lambda o: o.assign_coords(lat=o.lat + 30.0), "none of the observations"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDDED)
def test_gridded_observations(name):
    change, message = GRIDDED[name]
    with pytest.raises(ParameterError, match=message):
        prior().assim.assimilate(change(fields()), obs_error=0.03, times=TIMES, unusable="drop")


@pytest.mark.parametrize("error", [0.0, -1.0, np.nan])
@pytest.mark.parametrize("as_array", [False, True])
def test_errors_of_gridded_observations(error, as_array):
    given = with_one(fields(0.03), (2, 1, 1), error) if as_array else error
    with pytest.raises(ParameterError, match=r"1 of 210 observations|expected a standard dev"):
        prior().assim.assimilate(fields(), obs_error=given, times=TIMES)


def test_points_that_are_infinite_or_of_unknown_error():
    with pytest.raises(ParameterError, match=r"1 of 12 observations are infinite.*index 3"):
        prior().assim.assimilate(with_one(points(), 3, np.inf), obs_error=0.03, times=TIMES)
    for error in (np.nan, np.inf, -0.1):
        given = with_one(xr.full_like(points(), 0.03), 2, error)
        with pytest.raises(ParameterError, match=r"1 of 12 observations is zero, negative or not"):
            prior().assim.assimilate(points(), obs_error=given, times=TIMES)
    lost = prior().assim.assimilate(with_one(points(), 3, np.nan), obs_error=0.03, times=TIMES)
    assert "1 missing" in lost.attrs["xr_spde_observations"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("settings", [{"prior": prior()}, {"method": "oi-gaussian", **SCALES}])
def test_first_guess_with_a_hole(value, lazy, settings):
    guess = with_one(fields(), (3, 2, 2), value)
    guess = guess.chunk(time=2) if lazy else guess
    with pytest.raises(ParameterError, match=r"1 values off land .* first at time 3"):
        guess.assim.assimilate(points(), obs_error=0.03, **settings)["mean"].compute()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"mean": np.inf}, "mean of the prior has 42 infinite"), ({"u": np.nan}, "m1 has 42"),
     ({"angle": np.inf}, "non-finite"), ({"length": np.inf}, "length of the prior"),
     ({"length": -90.0}, "length of the prior has a minimum of -90"),
     ({"length_across": 95.0}, "shortest <= longest"), ({"std": -0.08}, "std of the prior"),
     ({"decay_time": 0.0}, "decay_time of the prior")],
)  # fmt: skip
def test_numbers_of_the_prior(changes, message):
    with pytest.raises(ParameterError, match=message):
        prior(**changes).assim.assimilate(points(), obs_error=0.03, times=TIMES)


@pytest.mark.parametrize("step", [0.0, np.nan, -1.0])
def test_time_step_of_the_prior(step):
    with pytest.raises(ParameterError, match="time_step"):
        prior().assign_attrs(time_step=step).assim.assimilate(points(), obs_error=0.03)


def test_flow_that_is_too_fast_for_the_steps():
    with pytest.raises(SolverError, match="slower flow or shorter steps"):
        prior(u=50.0).assim.assimilate(points(), obs_error=0.03, times=TIMES)


@pytest.mark.parametrize("tol", [0.0, -1.0, np.nan, "small", 2.0])
def test_tolerances(tol):
    with pytest.raises(ParameterError, match="tol="):
        prior().assim.assimilate(points(), obs_error=0.03, times=TIMES, tol=tol, solver="pcg")


def test_unknown_power():
    with pytest.raises(UnknownNameError, match="alpha 3"):
        prior().assign_attrs(alpha=3).assim.assimilate(points(), obs_error=0.03, times=TIMES)

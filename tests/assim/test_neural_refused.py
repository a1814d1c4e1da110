"""What maps by a solver refuse or warn of, with words that say what to do; grids from tracks."""

from __future__ import annotations

import re
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from tests.assim.standins import LocalSolver
from tests.assim.test_neural_apply import (
    DAY,
    MODEL,
    START,
    assimilate,
    make_gridded,
    make_points,
    make_sea,
    times_of,
)
from xr_spde import set_options
from xr_spde.assim import assimilate as call
from xr_spde.assim.neural_grid import covering
from xr_spde.errors import MemoryGuardError, ParameterError, UnknownNameError, XrSpdeError

LIKE = make_sea(20, 24)
POINTS = make_points(LIKE, 6, 900)
KNOWN = {"like": LIKE, "times": times_of(6), "unusable": "drop"}

WRONG = {
    "no model": ({"model": None, "method": "4dvarnet"}, "fit one with truth.assim.fit"),
    "another method": ({"method": "letkf"}, "leave one of the two out"),
    "a prior": ({"prior": xr.Dataset()}, "brings its own"),
    "no solver": ({"model": 3.0}, "expected a NeuralSolver"),
    "of ensembles": ({"inflation": 1.1}, "inflation: no argument of a trained solver"),
    "of parameters": ({"solver": "pcg"}, "solver: no argument"),
    "of operators": ({"operator": "nearest"}, "operator: no argument"),
    "footprint": ({"footprint": 1e4}, "footprint: no argument"),
    "lead": ({"lead": 3}, "leads up to 2"),
    "lead that is none": ({"lead": -1}, "lead=-1"),
    "lead of another kind": ({"lead": True}, "lead=True"),
    "task": ({"lead": 0, "model": LocalSolver(tasks=("mapping",))}, "'nrt'"),
    "stride": ({"stride": 6}, "stride=6"),
    "overlap": ({"patch": 20, "overlap": 20}, "overlap is less than a patch"),
    "patch": ({"patch": 2.5}, "patch=2.5"),
    "dtype": ({"dtype": "i4"}, "dtype"),
    "n": ({"n": -1}, "n=-1"),
    "threshold": ({"threshold": "4"}, "threshold='4'"),
    "no parameters": ({"parameters": True}, "needs a solver of parameters"),
    "units": ({"model": LocalSolver(units="K")}, "units 'm' and the solver was trained on 'K'"),
    "irregular times": ({"times": times_of(9)[[0, 1, 3]]}, "expected equal steps"),
    "times elsewhere": ({"times": times_of(6) + 99 * DAY}, "outside the times"),
    "like with time": ({"like": LIKE.expand_dims(time=[0])}, "like="),
    "land alone": ({"like": LIKE.where(False)}, "all cells of the grid are land"),
    "error": ({"obs_error": 0.0}, "zero, negative or not known"),
    "all rejected": ({"threshold": 1e-9}, "all"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_refusals_say_what_to_do(case):
    settings, words = WRONG[case]
    settings = {"model": MODEL, "obs_error": 0.03, **KNOWN, **settings}
    with pytest.raises(ParameterError, match=words):
        call(POINTS, **settings)


def test_unknown_arguments_are_named():
    with pytest.raises(UnknownNameError, match="halo"):
        assimilate(POINTS, halo=3, **KNOWN)


def test_no_argument_of_a_solver_for_ensembles():
    with pytest.raises(ParameterError, match="need prior= or model="):
        call(LIKE.expand_dims(realization=3), POINTS, patch=30, obs_error=0.1)


def test_units_of_guess_and_observations():
    guess = LIKE.expand_dims(time=times_of(6)).assign_attrs(units="cm")
    with pytest.raises(ParameterError, match="the first guess have units 'cm'"):
        assimilate(guess, POINTS, unusable="drop")
    free = replace(MODEL, units="1")
    with pytest.raises(ParameterError, match="units differ"):
        assimilate(guess, POINTS, model=free, unusable="drop")
    metres = POINTS.assign_attrs(units="metres")
    assert assimilate(metres, **KNOWN)["mean"].attrs["units"] == "metres"


def test_first_guesses_that_do_not_fit():
    guess = LIKE.expand_dims(time=times_of(6))
    settings = {"unusable": "drop"}
    with pytest.raises(ParameterError, match="times= was given with a first guess"):
        assimilate(guess, POINTS, times=times_of(6), **settings)
    with pytest.raises(ParameterError, match="'level'"):
        assimilate(guess.expand_dims(level=2), POINTS, **settings)
    with pytest.raises(ParameterError, match="pass one variable"):
        call(guess.to_dataset(name="adt"), POINTS, model=MODEL, obs_error=0.1)
    with pytest.raises(ParameterError, match="2 values off land"):
        assimilate(guess.where((guess.time != guess.time[3]) | (guess.lat < 36.85) |
                               (guess.lon < 5.15)), POINTS, **settings)  # fmt: skip
    with pytest.raises(ParameterError, match="expected equal steps"):
        assimilate(guess.isel(time=[0, 1, 4]), POINTS, **settings)
    with pytest.raises(XrSpdeError, match=r"like is on .* and the first guess on"):
        assimilate(guess, POINTS, like=make_sea(), **settings)


def test_observations_that_cannot_be_used():
    with pytest.raises(ParameterError, match="outside the grid"):
        assimilate(POINTS, like=LIKE.isel(lat=slice(0, 6)), times=times_of(6))
    with pytest.raises(ParameterError, match="on land"):
        assimilate(POINTS, like=LIKE, times=times_of(6))
    post = assimilate(POINTS, **KNOWN)
    assert int((post["status"] == 3).sum()) > 0
    assert "on land" in post.attrs["xr_spde_observations"]
    obs = make_gridded(LIKE, 6)
    with pytest.raises(ParameterError, match="gridded observations are NaN"):
        assimilate(obs.where(False), like=LIKE)
    with pytest.raises(ParameterError, match="mask these"):
        assimilate(obs, like=LIKE, threshold=4.0)
    with pytest.raises(ParameterError, match="expected one"):
        assimilate(POINTS.drop_vars("time"), **KNOWN)


def test_far_off_points_are_rejected():
    """A hundredth of the points a metre off, where anomalies have a decimetre."""
    wild = POINTS.copy(data=np.where(np.arange(900) % 100 == 0, POINTS + 1.0, POINTS))
    post = assimilate(wild, threshold=5.0, **KNOWN)
    assert (post["status"] == 4).values.nonzero()[0].tolist() == [
        k for k in range(0, 900, 100) if post["status"].values[k] != 3
    ]
    assert float(abs(post["departure"]).max()) > 5.0
    kept = POINTS[(np.arange(900) % 100 > 0)]
    assert post["mean"].equals(assimilate(kept, **KNOWN)["mean"])


@pytest.mark.parametrize("lead", [None, 0])
@pytest.mark.parametrize("size", [1e6, -1e6, 1e200])
def test_values_beyond_single_precision_are_refused(size, lead):
    """Eight million errors and more: they would leave no map, or one of rounding."""
    wild = POINTS.copy(data=np.where(np.arange(900) % 100 == 0, size, POINTS))
    words = rf"anomaly of {re.escape(f'{size:g}')} with an error of 0.03 at \(35.*check units"
    with pytest.raises(ParameterError, match=words):
        assimilate(wild, lead=lead, **KNOWN)
    obs = make_gridded(LIKE, 6)
    obs = obs.where(obs.isnull() | (abs(obs) < 0.2), size)
    with pytest.raises(ParameterError, match="check units"):
        assimilate(obs, like=LIKE, lead=lead)
    for given in ((obs.chunk(time=2),), (LIKE.expand_dims(time=times_of(6)).chunk(time=2), wild)):
        post = assimilate(*given, like=LIKE, lead=lead, unusable="drop")
        with pytest.raises(ParameterError, match="check units"):
            post["mean"].compute(scheduler="synchronous")


def test_large_values_are_no_error_by_themselves():
    """Of such a field, or about such a first guess."""
    settings = {"unusable": "drop", "like": LIKE}
    expected = assimilate(POINTS, times=times_of(6), **settings)["mean"]
    big = assimilate(1e6 * POINTS, times=times_of(6), model=replace(MODEL, scale=1e5),
                     obs_error=3e4, **settings)  # fmt: skip
    np.testing.assert_allclose(1e-6 * big["mean"], expected, rtol=1e-5, atol=1e-8)
    guess = (LIKE + 1e6).expand_dims(time=times_of(6))
    about = assimilate(guess, POINTS + 1e6, **settings)["mean"]
    np.testing.assert_allclose(about - 1e6, expected, atol=1e-7)


def test_cells_unlike_those_of_the_training_are_warned_of():
    with pytest.warns(UserWarning, match=r"along X .* 8.89 to 9.11 km .* trained on 30 km"):
        assimilate(POINTS, model=replace(MODEL, spacing=(11.0, 30.0)), **KNOWN)
    with pytest.warns(UserWarning, match="1 days apart .* trained on 2 days"):
        assimilate(POINTS, model=replace(MODEL, time_step=2.0), **KNOWN)
    plane = make_gridded(LIKE, 5).rename(lat="y", lon="x")
    with pytest.raises(XrSpdeError, match="have no lengths"):
        assimilate(plane.drop_vars(["y", "x"]))


def test_memory_is_asked_for_first():
    with set_options(memory_limit=10_000), pytest.raises(MemoryGuardError, match="6 times of 20"):
        assimilate(POINTS, **KNOWN)


def test_a_grid_from_the_tracks_alone():
    """The least box that holds them, with the steps of the training."""
    post = assimilate(POINTS)
    lat, lon = post["lat"], post["lon"]
    assert float(lat[0]) <= POINTS["lat"].min() <= POINTS["lat"].max() <= float(lat[-1])
    assert float(lon[0]) <= POINTS["lon"].min() <= POINTS["lon"].max() <= float(lon[-1])
    step = 6371.0 * np.radians(float(lat[1] - lat[0]))
    assert step == pytest.approx(11.0)
    middle = np.cos(np.radians(float(lat.mean())))
    assert 6371.0 * np.radians(float(lon[1] - lon[0])) * middle == pytest.approx(9.0, rel=1e-3)
    assert post["time"].values[0] == START
    assert post["mean"].notnull().all()
    assert post["lat"].attrs["standard_name"] == "latitude"


def test_units_of_degrees_say_which_is_which():
    """As most files have them: both in degrees, so units alone do not tell them apart."""
    marked = POINTS.copy()
    marked["lat"].attrs["units"], marked["lon"].attrs["units"] = "degrees_north", "degrees_east"
    settings = {"model": MODEL, "obs_error": 0.03}
    expected = call(POINTS, **settings)
    assert call(marked, **settings)["mean"].equals(expected["mean"])
    plain = marked.rename(lat="phi", lon="lambda")
    assert call(plain, **settings)["mean"].equals(expected["mean"])


def around(lon, lat=(10.0, 12.0)):
    place = {"lon": ("obs", lon), "lat": ("obs", np.resize(lat, len(lon)))}
    return xr.DataArray(np.zeros(len(lon)), place, "obs")


def test_grids_across_the_dateline_and_around_the_circle():
    box = covering(around([179.0, -178.0, -179.5, 178.2]), (50.0, 50.0))
    lon = box["lon"].values
    assert lon[0] <= 178.2
    assert lon[-1] >= 182.0
    assert lon.size < 14
    globe = covering(around(np.arange(0.0, 360.0, 0.3)), (100.0, 100.0))
    steps = np.diff(globe["lon"].values)
    assert steps.max() * globe.sizes["lon"] == pytest.approx(360.0)
    one = covering(around([5.0, 5.0], lat=(3.0, 3.0)), (10.0, 10.0))
    assert one.shape == (2, 2)
    with pytest.raises(ParameterError, match="like= is needed"):
        covering(around([1.0, 2.0]).rename(lon="x", lat="y"), (10.0, 10.0))


def test_nothing_is_computed_before_it_is_asked_for():
    def explode(block):
        raise AssertionError

    lazy = da.zeros((6, *LIKE.shape), chunks=(2, -1, -1), dtype="f8")
    lazy = lazy.map_blocks(explode, dtype="f8", meta=np.empty((0, 0, 0)))
    guess = xr.DataArray(lazy, {"time": times_of(6), **LIKE.coords}, ("time", "lat", "lon"))
    for settings in ({}, {"lead": 1}, {"n": 2}):
        post = assimilate(guess, POINTS, like=LIKE, unusable="drop", **settings)
        assert post["mean"].shape == guess.shape
        with pytest.raises(AssertionError):
            post["mean"].compute(scheduler="synchronous")
    assert assimilate(guess, like=LIKE)["mean"].chunks is not None

"""Windows that a solver is trained on end as those that it is given at work."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import simulate_tracks
from xr_spde.assim.neural_cells import cells_from_points
from xr_spde.assim.neural_maps import Maps
from xr_spde.assim.neural_settings import FitSettings
from xr_spde.assim.neural_sources import SeriesSource, TrackCells, simulated_missions
from xr_spde.assim.observing import MISSIONS
from xr_spde.labels.grid import Grid

pytest.importorskip("torch")

from xr_spde.nets.variational_windows import WindowBatches

ORBITS = {name: replace(one, swath=(10.0, 150.0)) for name, one in MISSIONS.items()}
TASKS = {
    "mapping": False, "nrt": True, "forecast": True, ("mapping",): False, ("mapping", "nrt"): True,
}  # fmt: skip


@pytest.mark.parametrize("tasks", TASKS, ids=str)
def test_windows_that_serve_near_real_time_are_causal(tasks):
    assert FitSettings(tasks=tasks).causal is TASKS[tasks]
    assert (0 in FitSettings(tasks=tasks).hidden) is (tasks != "forecast")


def truth_and(changed_from):
    """A truth of 16 days, and the same with other values from a step on."""
    rng, days = np.random.default_rng(5), 16
    times = np.datetime64("2020-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    coords = {"time": times, "lat": 35.0 + 0.1 * np.arange(40), "lon": 5.0 + 0.1 * np.arange(40)}
    field = rng.standard_normal((days, 40, 40))
    other = np.where(np.arange(days)[:, None, None] >= changed_from, field + 9.0, field)
    return [xr.DataArray(f, coords, ("time", "lat", "lon")) for f in (field, other)]


def observed_by(kind, truth, grid):
    """As `fit` reads tracks that were made, or makes them."""
    if kind == "missions":
        noise = dict.fromkeys(ORBITS, (0.01, 0.02))
        return simulated_missions(truth, grid, 1.0, "time", [tuple(ORBITS)], ORBITS, noise)
    seen = simulate_tracks(truth, ORBITS, noise=0.01, seed=1)
    reading = {"obs_error": 0.01, "unusable": "drop", "value": None, "obs_x": None, "obs_y": None}
    land = np.zeros(grid.shape, bool)
    return TrackCells(cells_from_points(seen["value"], grid, truth["time"], 1.0, land, reading)[0])


def window_of(kind, truth, hidden, *, causal):
    """Steps 4 to 10, the last ones hidden."""
    grid = Grid.from_object(truth)
    mean, sea = np.zeros(grid.shape), np.ones(grid.shape, bool)
    observed = observed_by(kind, truth, grid)
    source = SeriesSource(Maps(truth, grid, "time"), None, mean, observed, sea, 1.0)
    batches = WindowBatches([source], [(4, 11)], [1.0], steps=7, patch=30, batch=1, hidden={0: 1.0},
                            causal=causal, seed=4)  # fmt: skip
    return batches.sample(0, 0, hidden=hidden)


@pytest.mark.parametrize("hidden", [0, 2])
@pytest.mark.parametrize("kind", ["missions", "tracks"])
def test_training_windows_end_as_those_at_work_do(kind, hidden):
    """What came half a day after the last seen day is not in them; the days before are the same."""
    end = 6 - hidden
    truths = truth_and(4 + end + 1)  # other values from the day after the last that is seen
    old, new = (window_of(kind, truth, hidden, causal=True) for truth in truths)
    np.testing.assert_array_equal(old.mask, new.mask)
    np.testing.assert_array_equal(old.obs, new.obs)
    assert not old.mask[end + 1 :].any()
    wide, other = (window_of(kind, truth, hidden, causal=False) for truth in truths)
    assert not np.array_equal(wide.obs[end], other.obs[end])
    assert old.mask[end].any()
    for name in ("obs", "mask", "variance"):
        np.testing.assert_array_equal(getattr(old, name)[:end], getattr(wide, name)[:end])


def test_a_window_is_at_one_place_whatever_is_hidden():
    truth = truth_and(99)[0]
    two, none = (window_of("tracks", truth, hidden, causal=True) for hidden in (2, 0))
    np.testing.assert_array_equal(two.truth, none.truth)
    np.testing.assert_array_equal(two.obs[:4], none.obs[:4])

"""Runs of shallow water with labels, and the published figures of their data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde import synthetic
from xr_spde._core.errors import ParameterError
from xr_spde.labels.grid import Grid

SPEEDS = (68.340, 68.720, 71.016, 79.341, 64.440, 77.857, 61.526, 77.469, 60.207, 75.426, 63.605,
          63.083, 75.554, 70.279, 76.976, 64.466, 65.893, 73.007, 61.951, 71.763)  # fmt: skip
"""Of the seeds 1 to 20, as published."""

LOGGED = (0, 3, 6, 8, 11, 13, 14, 15, 17, 18, 19, 21, 36, 39, 44, 46)
"""Windows of the test runs behind the published persistence curve."""
PERSISTENCE = (0.0144, 0.0273, 0.0398, 0.0524, 0.0648, 0.0769, 0.0888, 0.1004, 0.1116)
SPECTRAL = (0.0180, 0.0345, 0.0505, 0.0665, 0.0821, 0.0974, 0.1122, 0.1264, 0.1402)
"""Published, and of another spectral solver of the same flow on all windows."""
SIZES = {"height": 538.6, "vorticity": 1.840e-5}
"""Standard deviations of the runs 1 to 18."""


def few(**options):
    defaults = {"hours": (0, 6), "step": 2, "rows": 12, "truncation": 15}
    return synthetic.shallow_water(**(defaults | options))


def test_runs_are_labelled_and_are_their_seeds():
    runs = few(seed=range(1, 21), hours=(0, 1))
    np.testing.assert_allclose(runs.speed, SPEEDS, atol=5e-4)
    two = few(seed=(19, 4))
    assert two.trajectory.values.tolist() == [19, 4]
    assert dict(two.sizes) == {"trajectory": 2, "time": 3, "lat": 12, "lon": 24}
    assert (two.height.dtype, two.height.units, two.vorticity.units) == (np.float32, "m", "s-1")
    assert (np.diff(two.time) == np.timedelta64(2, "h")).all()
    assert Grid.from_object(two.height).kind == "geographic"
    assert two.identical(few(seed=(19, 4)))
    np.testing.assert_allclose(few(seed=4).height[0], two.height[1], atol=0.02)


def test_the_two_halves_of_the_grid_interleave_and_hemispheres_mirror():
    even, odd = (few(seed=3, interleaved=half) for half in (False, True))
    np.testing.assert_allclose(odd.lat, -even.lat[::-1], atol=1e-12)
    np.testing.assert_allclose(odd.lon - even.lon, 3.75)
    close = few(seed=3, rows=24)
    np.testing.assert_allclose(close.lon[::2], even.lon)
    whole = np.sort(np.concatenate([even.lat, odd.lat]))
    np.testing.assert_allclose(whole, np.degrees(np.arcsin(np.polynomial.legendre.leggauss(24)[0])))
    at = odd.assign_coords(lat=-odd.lat).sortby("lat")
    both = few(seed=3, interleaved=True, rows=12)
    xr.testing.assert_allclose(both.height, odd.height)
    assert float(abs(at.height.mean("lon") - even.height.mean("lon")).max()) < 40.0


def test_speeds_of_ones_own_count_from_one():
    runs = few(speed=[62.0, 90.0], dtype="float64")
    assert runs.trajectory.values.tolist() == [1, 2]
    assert runs.speed.values.tolist() == [62.0, 90.0]
    assert runs.vorticity.dtype == np.float64
    assert few(speed=75.0).sizes["trajectory"] == 1


def test_runs_are_kept_and_found_again_lazily(tmp_path, caplog):
    with caplog.at_level("INFO", logger="xr_spde"):
        first = few(seed=(1, 2), cache=tmp_path)
        again = few(seed=(2, 3), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert [r.message[-13:] for r in caplog.records] == ["2 of them new", "1 of them new"]
    assert first.height.chunksizes["trajectory"] == (1, 1)
    xr.testing.assert_equal(first.sel(trajectory=2), again.sel(trajectory=2))
    plain = few(seed=(1, 2))
    assert plain.attrs == first.attrs
    xr.testing.assert_identical(first.load(), plain)


@pytest.mark.parametrize(
    "options",
    [{"hours": (5, 5)}, {"step": 0}, {"rows": 2}, {"seed": (1, 1)}, {"seed": -1}, {"speed": []},
     {"speed": [70.0, np.nan]}, {"truncation": 2}, {"dtype": "int8"}, {"start": "soon"}],
)  # fmt: skip
def test_impossible_runs_are_refused(options):
    with pytest.raises(ParameterError, match=next(iter(options))):
        few(**options)


def persistence(runs, windows):
    """Error of the first field of windows of ten for the next nine hours, normalised."""
    weights = np.cos(np.radians(runs.lat))
    leads = []
    for lead in range(1, 10):
        errors = []
        for name, size in SIZES.items():
            fields = runs[name].stack(window=("trajectory", "time"), create_index=False)
            fields = fields.transpose("window", ...)
            first = fields[10 * np.asarray(windows)].values
            later = fields[10 * np.asarray(windows) + lead].values
            square = xr.DataArray(((later - first) / size) ** 2, dims=("window", "lat", "lon"))
            errors.append(np.sqrt(square.mean("lon").weighted(weights).mean("lat")).mean())
        leads.append(float(np.mean(errors)))
    return np.array(leads)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_persistence_is_the_published_curve():
    runs = synthetic.shallow_water((19, 20))
    ratio = persistence(runs, LOGGED) / PERSISTENCE
    assert abs(ratio[0] - 1.0) < 0.06
    assert np.abs(ratio[1:] - 1.0).max() < 0.03
    assert np.abs(persistence(runs, range(48)) / SPECTRAL - 1.0).max() < 0.04

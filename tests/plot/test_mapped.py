"""Figures of maps in space and time and of their scores: what is on the canvas."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.assim import score
from xr_spde.assim.challenge import challenge_scores
from xr_spde.errors import ParameterError, SchemaError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.collections import PathCollection, QuadMesh  # noqa: E402

from xr_spde import plot  # noqa: E402

DAYS = np.datetime64("2014-05-15", "ns") + np.arange(6) * np.timedelta64(1, "D")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def maps(offset=0.0):
    rng = np.random.default_rng(0)
    coords = {
        "time": DAYS,
        "lat": ("lat", 40.0 + np.arange(5), {"units": "degrees_north"}),
        "lon": ("lon", 358.0 + np.arange(6), {"units": "degrees_east"}),
    }
    mean = xr.DataArray(rng.standard_normal((6, 5, 6)) + offset, coords, ("time", "lat", "lon"),
                        attrs={"units": "m"})  # fmt: skip
    mean[:, 0, 0] = np.nan
    return xr.Dataset({"mean": mean, "std": 0.0 * mean + 0.5}).assign(
        std=lambda ds: ds["std"].assign_attrs(units="m")
    )


def tracks(count=30, offset=0.0):
    rng = np.random.default_rng(1)
    when = DAYS[0] + (rng.uniform(0, 5, count) * 864e11).astype("m8[ns]")
    at = {"time": ("obs", when), "lat": ("obs", rng.uniform(41.2, 43.8, count)),
          "lon": ("obs", rng.uniform(-0.8, 2.8, count))}  # fmt: skip
    return xr.DataArray(offset + rng.standard_normal(count), at, "obs")


def drawn(ax, kind):
    return [c for c in ax.collections if isinstance(c, kind)]


@pytest.mark.parametrize("turned", [False, True])
def test_tracks_have_the_colours_of_the_map(turned):
    found = maps()
    if turned:
        found = found.isel(lat=slice(None, None, -1)).transpose("lon", "time", "lat")
    obs = tracks()
    figure = found.assim.plot.snapshot(obs, time="2014-05-17", days=1.5)
    first, second = figure.axes[:2]
    upright = maps().sel(time="2014-05-17")
    for ax, name in ((first, "mean"), (second, "std")):
        (mesh,) = drawn(ax, QuadMesh)
        np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan).reshape(5, 6),
                                      upright[name])  # fmt: skip
    near = obs[np.abs(obs.time.values - DAYS[2]) <= np.timedelta64(36, "h")]
    rim, core = drawn(first, PathCollection)
    np.testing.assert_array_equal(core.get_array(), near)
    np.testing.assert_allclose(core.get_offsets(), np.column_stack([near.lon + 360, near.lat]))
    assert len(rim.get_offsets()) == near.size
    (mesh,) = drawn(first, QuadMesh)
    assert core.norm is mesh.norm
    assert core.norm.vmin == -core.norm.vmax
    assert [ax.get_ylabel() for ax in figure.axes[2:]] == ["mean (m)", "std (m)"]
    assert first.get_title(loc="left") == "mean, 2014-05-17"


def test_values_of_one_sign_are_not_drawn_about_zero():
    figure = plot.snapshot(maps(9.0), tracks(offset=9.0), time=DAYS[1])
    (mesh,) = drawn(figure.axes[0], QuadMesh)
    assert mesh.norm.vmin > 4.0
    figure = plot.snapshot(maps(9.0), time=DAYS[1], limits=(8.0, 10.0))
    (mesh,) = drawn(figure.axes[0], QuadMesh)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (8.0, 10.0)


def test_one_time_one_panel_and_own_axes():
    one = maps().isel(time=2)[["mean"]]
    figure = plot.snapshot(one, tracks())
    assert len(drawn(figure.axes[0], PathCollection)[1].get_array()) == 30  # all within 5 days
    assert len(figure.axes) == 2
    own = plt.subplots(1, 2)[1]
    assert plot.snapshot(maps().isel(time=[0]), axes=own) is own[0].figure
    # without times, all; with several variables the one that is named
    both = tracks().drop_vars("time").to_dataset(name="adt").assign(sla=("obs", np.zeros(30)))
    figure = plot.snapshot(one, both, value="sla")
    assert not drawn(figure.axes[0], PathCollection)[1].get_array().any()


def test_model_dates_and_planes():
    pytest.importorskip("cftime")
    days = xr.date_range("2014-02-29", periods=6, calendar="360_day", use_cftime=True)
    found = maps().assign_coords(time=days).isel(lat=slice(1, None))
    plane = {"lat": found.lat.assign_attrs(units="km"), "lon": found.lon.assign_attrs(units="km")}
    found = found.assign_coords(plane)
    figure = plot.snapshot(found, time="2014-02-30")
    assert figure.axes[0].get_title(loc="left") == "mean, 2014-02-30"


def test_scores_of_withheld_tracks():
    found = score(maps(), tracks(), obs_error=0.3)
    ax = found.assim.plot.spread_skill()
    diagonal, dots = ax.lines
    np.testing.assert_array_equal(dots.get_xdata(), found.bin_spread)
    np.testing.assert_array_equal(dots.get_ydata(), found.bin_rmse)
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert ax.get_xlabel() == "expected error (m)"
    held = float(found.coverage.sel(level=0.9))
    assert ax.get_title(loc="left").startswith(f"{100 * held:.0f} %")
    figure = plot.series(found)
    assert [ax.get_ylabel() for ax in figure.axes] == ["error, spread (m)", "observations"]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), found.step_spread)
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_array_equal(heights, found.step_count)
    ranks = plot.rank_histogram(found)
    assert ranks.get_ylabel() == "share of observations"


def test_scores_of_the_challenge():
    truth = maps()["mean"]
    found = challenge_scores(0.8 * truth, truth)
    (ax,) = plot.series(found).axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.8)
    assert ax.get_ylim()[1] == 1.0
    assert ax.get_ylabel() == "1 - relative error"


def test_what_cannot_be_drawn_says_what_to_pass():
    found = maps()
    for call, kind, message in (
        (lambda: plot.snapshot(found), ParameterError, r"6 times along 'time'"),
        (lambda: plot.snapshot(found[["std"]]), SchemaError, r"\.assim\.assimilate"),
        (lambda: plot.snapshot(found.isel(time=0), axes=[]), ParameterError, "got 0 axes"),
        (lambda: plot.snapshot(found.isel(time=0), time=DAYS[0]), ParameterError, "no dimension"),
        (
            lambda: plot.snapshot(found.expand_dims(level=2), time=DAYS[0]), ParameterError,
            "level=0",
        ),
        (lambda: plot.spread_skill(found), SchemaError, r"\.assim\.score\(tracks\)"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            call()

"""Figures of analyses and scores: what is on the canvas, for any storage and kind of grid."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde.assim import assimilate, cycle, score
from xr_spde.errors import ParameterError, SchemaError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.collections import PathCollection  # noqa: E402

from xr_spde import plot  # noqa: E402


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def fields(kind="geographic", size=8):
    z = np.random.default_rng(0).standard_normal((size, 5, 6))
    lat, lon = 40.0 + np.arange(5), 358.0 + np.arange(6)
    if kind == "geographic":
        coords = {
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        }
    else:
        coords = {
            "lat": ("lat", lat, {"units": "km", "axis": "Y"}),
            "lon": ("lon", lon, {"units": "km", "axis": "X"}),
        }
    return xr.DataArray(z, coords, ("number", "lat", "lon"), "z", {"units": "m"})


def points(values=(1.0, -1.0, 50.0), **units):
    lat = ("obs", [41.0, 43.5, 42.0][: len(values)], {"units": units.get("y", "degrees_north")})
    lon = ("obs", [-1.0, 1.5, 0.0][: len(values)], {"units": units.get("x", "degrees_east")})
    return xr.DataArray(list(values), {"lat": lat, "lon": lon}, "obs")


def marks(figure):
    """Offsets of dots and of crosses on the increment."""
    found = [c for c in figure.axes[1].collections if isinstance(c, PathCollection)]
    return [np.asarray(c.get_offsets()) for c in found]


def meshes(figure):
    return [
        np.asarray(c.get_array()).reshape(5, 6)
        for ax in figure.axes[:3]
        for c in ax.collections
        if isinstance(c, matplotlib.collections.QuadMesh)
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_maps_are_mean_increment_and_std_with_marks(turned):
    ens = fields()
    if turned:
        ens = ens.isel(lat=slice(None, None, -1)).transpose("lon", "number", "lat")
    found = assimilate(ens, points(), obs_error=0.5, localization=500e3, threshold=5.0)
    figure = plot.increments(found)
    upright = found.transpose("lat", "lon", ...).sortby("lat")
    for drawn, name in zip(meshes(figure), ("mean", "increment", "std"), strict=True):
        np.testing.assert_array_equal(drawn, upright[name])
    assert [ax.get_ylabel() for ax in figure.axes[3:]] == ["mean (m)", "increment (m)", "std (m)"]
    used, rejected = marks(figure)
    np.testing.assert_allclose(used, [[359.0, 41.0], [361.5, 43.5]])
    np.testing.assert_allclose(rejected, [[360.0, 42.0]])
    assert marks(plot.increments(found, observations=False)) == []


def test_gridded_and_single_observations_and_planes_are_marked():
    truth = fields()[0].where(xr.DataArray(np.eye(5, 6) > 0, dims=("lat", "lon")))
    for seen in (truth, truth.transpose("lon", "lat")):
        found = assimilate(fields()[1:], seen, obs_error=0.5, method="etkf")
        used = marks(plot.increments(found))[0]
        np.testing.assert_allclose(used[np.argsort(used[:, 1])][:, 1], 40.0 + np.arange(5))
        np.testing.assert_allclose(used[:, 0] - 358.0, used[:, 1] - 40.0)
    one = assimilate(fields(), points([1.0]), obs_error=0.5, method="etkf")
    np.testing.assert_allclose(marks(plot.increments(one))[0], [[359.0, 41.0]])
    place = {"y": ("obs", [41e3], {"units": "m"}), "x": ("obs", [359e3], {"units": "m"})}
    plane = assimilate(
        fields("plane"), xr.DataArray([1.0], place, "obs"), obs_error=0.5, method="etkf"
    )
    np.testing.assert_allclose(marks(plot.increments(plane))[0], [[359.0, 41.0]])


def test_one_of_several_variables_and_of_several_times():
    both = xr.Dataset({"z": fields(), "t": 2 * fields()})
    found = assimilate(both, {"t": points([1.0])}, obs_error=0.5, method="etkf")
    np.testing.assert_array_equal(meshes(plot.increments(found, variable="z"))[0], found.z_mean)
    assert marks(plot.increments(found, variable="z")) == []
    np.testing.assert_allclose(marks(plot.increments(found, variable="t"))[0], [[359.0, 41.0]])
    times = xr.concat([fields(), fields()], xr.Variable("time", [1, 2]))
    seen = xr.concat([points(), points()], xr.Variable("time", [1, 2]))
    many = assimilate(times, seen, obs_error=0.5, method="etkf")
    with pytest.raises(ParameterError, match=r"isel\(time=0\)"):
        plot.increments(many)
    assert len(marks(plot.increments(many.isel(time=0)))[0]) == 3


def test_what_has_no_place_is_not_marked():
    found = assimilate(
        fields(), xr.DataArray([1.0], dims="obs"), obs_error=0.5, method="etkf",
        operator=lambda z: z[..., 2, 2][..., None],
    )  # fmt: skip
    assert marks(plot.increments(found)) == []


def test_series_of_scores():
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]")
    many = xr.concat([k * fields() for k in (1.0, 2.0, 3.0)], xr.Variable("time", days))
    found = score(many.isel(number=slice(1, None)), many.isel(number=0))
    figure = plot.series(found)
    lines = [[np.asarray(x.get_ydata()) for x in ax.lines] for ax in figure.axes]
    np.testing.assert_array_equal(lines[0][0], found.rmse)
    np.testing.assert_allclose(lines[0][1], np.sqrt(8 / 7) * found.spread)
    np.testing.assert_array_equal(lines[1][0], found.crps)
    assert [ax.get_ylabel() for ax in figure.axes] == ["error, spread (m)", "CRPS (m)"]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == [
        "error of the mean", "spread",
    ]  # fmt: skip
    own = plt.subplots(2)[1]
    assert plot.series(found, dim="time", axes=own) is own[0].figure
    assert len(own[0].lines) == 2


def test_series_of_a_cycle():
    cftime = pytest.importorskip("cftime")
    days = [cftime.Datetime360Day(2020, 2, 29), cftime.Datetime360Day(2020, 2, 30)]
    seen = xr.concat([points(), points()], xr.Variable("time", days))
    both = xr.Dataset({"z": fields(), "t": 2 * fields()})
    found = cycle(
        both, {"z": seen, "t": seen}, forecast=lambda e, a, b: e, obs_error=0.5, method="etkf"
    )
    figure = plot.series(found)
    titles = [ax.get_ylabel() for ax in figure.axes]
    assert titles == ["innovation of z (m)", "innovation of t (m)"]
    drawn = [line.get_ydata() for line in figure.axes[1].lines]
    np.testing.assert_array_equal(drawn[0], found.t_innovation_rms)
    np.testing.assert_array_equal(drawn[1], found.t_innovation_expected_rms)
    assert figure.axes[1].get_xlabel() == "time (number)"


def test_what_cannot_be_drawn_says_what_to_pass():
    scored = score(fields()[1:], fields()[0])
    for call, kind, message in (
        (lambda: plot.series(fields().to_dataset()), SchemaError, r"pass what \.assim\.score"),
        (lambda: plot.series(scored), ParameterError, r"dimensions \[\]"),
        (lambda: plot.series(scored.expand_dims(time=3, level=2)), ParameterError, "'level'"),
        (lambda: plot.series(scored.expand_dims(time=3), axes=[]), ParameterError, "got 0 axes"),
        (lambda: plot.increments(scored), SchemaError, "lacks"),
        (lambda: plot.rank_histogram(fields().to_dataset()), SchemaError, "rank_histogram"),
        (
            lambda: plot.rank_histogram(scored.expand_dims(time=3)), ParameterError, "isel",
        ),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            call()

"""The figure of an uncertainty beside its errors: what is on the canvas."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessors
from xr_spde.errors import ParameterError, SchemaError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.collections import QuadMesh  # noqa: E402

from xr_spde import plot  # noqa: E402


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    coords = {
        "time": np.datetime64("2014-05-15", "ns") + np.arange(5) * np.timedelta64(1, "D"),
        "lat": ("lat", 45.0 - 0.5 * np.arange(20), {"units": "degrees_north"}),
        "lon": ("lon", 350.0 + 0.5 * np.arange(30), {"units": "degrees_east"}),
    }
    std = xr.DataArray(rng.uniform(0.05, 0.2, (5, 20, 30)), coords, ("time", "lat", "lon"),
                       attrs={"units": "m"})  # fmt: skip
    std[:, :4, :6] = np.nan
    noise = xr.DataArray(rng.standard_normal((12, 5, 20, 30)), dims=("realization", *std.dims))
    mean = (0.0 * std).assign_attrs(units="m")
    result = xr.Dataset({"mean": mean, "std": std, "ensemble": std * noise[1:]})
    return result, std * noise[0]


def test_maps_share_a_scale_and_all_panels_are_filled(case):
    result, truth = case
    figure = result.assim.plot.spread(truth, time="2014-05-16")
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    meshes = [next(c for c in ax.collections if isinstance(c, QuadMesh)) for ax in axes[:2]]
    assert meshes[0].norm.vmax == meshes[1].norm.vmax
    shown = meshes[0].get_array().reshape(20, 30)
    expected = np.abs(truth).sel(time="2014-05-16").sortby("lat").values
    np.testing.assert_allclose(np.ma.filled(shown, np.nan), expected)
    assert "2014-05-16" in axes[0].get_title("left")
    assert len(axes[2].lines) == 2
    assert len(axes[3].patches) == 12
    assert axes[3].get_xlabel() == "members below the truth"


def test_without_members_the_last_panel_has_probabilities(case):
    result, truth = case
    figure = plot.spread(result.drop_vars("ensemble").chunk(time=2), truth, border=2)
    last = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"][3]
    assert last.get_xlabel() == "probability of less than the truth"
    np.testing.assert_allclose(sum(p.get_height() for p in last.patches), 1.0)
    assert "2014-05-17" in figure.axes[0].get_title("left")


def test_bad_input_is_named(case):
    result, truth = case
    with pytest.raises(SchemaError, match="pass what"):
        plot.spread(result[["mean"]], truth)
    with pytest.raises(ParameterError, match="4 are expected"):
        plot.spread(result, truth, axes=plt.subplots(1, 2)[1])
    many = xr.concat([result, result], xr.Variable("lead", [0, 2]))
    with pytest.raises(ParameterError, match="'lead'"):
        plot.spread(many, truth)

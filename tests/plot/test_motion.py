"""Figures of moving images: arrows where the motion goes, strips, animations."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import GridError, MissingDependencyError, ParameterError, SchemaError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.animation import FFMpegWriter  # noqa: E402
from matplotlib.quiver import Quiver  # noqa: E402

TIMES = np.array(["2020-03-01T00", "2020-03-01T06", "2020-03-01T12"], "datetime64[ns]")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def images(descending=False):
    y = ("y", 1e3 * np.arange(20), {"units": "m"})
    x = ("x", 1e3 * np.arange(30), {"units": "m"})
    values = np.random.default_rng(0).random((3, 20, 30))
    da = xr.DataArray(values, {"time": TIMES, "y": y, "x": x}, ("time", "y", "x"), "ice")
    return da.isel(y=slice(None, None, -1)) if descending else da


def drift(da, u=0.1, v=-0.05):
    one = xr.ones_like(da.isel(time=[0, 1]))
    return xr.Dataset({"u": u * one, "v": v * one})


@pytest.mark.parametrize("descending", [False, True])
def test_arrows_have_the_length_and_direction_of_the_displacement(descending):
    da = images(descending)
    ax = da.latent.plot.motion(drift(da), interval=1, scale=1.0, across=10)
    (arrows,) = [c for c in ax.collections if isinstance(c, Quiver)]
    np.testing.assert_allclose(arrows.U, 0.1 * 6 * 3600)
    np.testing.assert_allclose(arrows.V, -0.05 * 6 * 3600)
    assert ax.get_title(loc="left").startswith("2020-03-01 06:00 to 2020-03-01 12:00")
    shown = np.asarray(ax.collections[0].get_array()).reshape(20, 30)
    np.testing.assert_allclose(shown, da.isel(time=1).sortby("y"))


def test_motion_is_found_where_none_is_given():
    from xr_spde.latent.textures import texture

    j, i = np.mgrid[0:24, 0:24].astype(float)
    pair = xr.DataArray(
        [texture(3, j, i), texture(3, j, i - 2)],
        {
            "time": TIMES[:2],
            "y": ("y", np.arange(24.0), {"units": "km"}),
            "x": ("x", np.arange(24.0), {"units": "km"}),
        },
        ("time", "y", "x"),
    )
    ax = pair.latent.plot.motion(scale=1.0)
    (arrows,) = [c for c in ax.collections if isinstance(c, Quiver)]
    assert np.median(arrows.U) == pytest.approx(2.0, rel=0.05)


def test_bad_arguments_of_motion():
    da = images()
    with pytest.raises(SchemaError, match="u and v"):
        da.latent.plot.motion(drift(da)[["u"]])
    with pytest.raises(ParameterError, match="interval=5"):
        da.latent.plot.motion(drift(da), interval=5)
    with pytest.raises(ParameterError, match="intervals"):
        da.isel(time=[0, 1]).latent.plot.motion(drift(da))
    with pytest.raises(GridError, match="same cells"):
        da.latent.plot.motion(drift(da.isel(x=slice(3, None))))


def test_strip_has_one_scale_and_the_times():
    da = images()
    figure = da.to_dataset().latent.plot.frames(variable="ice")
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert len(panels) == 3
    limits = {ax.collections[0].get_clim() for ax in panels}
    assert len(limits) == 1
    many = xr.concat([da] * 10, "time").assign_coords(time=np.arange(30))
    with pytest.raises(ParameterError, match="save="):
        many.latent.plot.frames()
    with pytest.raises(ParameterError, match="axes"):
        da.latent.plot.frames(axes=[plt.gca()])


def test_animation_holds_every_image(tmp_path):
    image = pytest.importorskip("PIL.Image")
    da = images()
    da.latent.plot.frames(save=tmp_path / "moving.gif", figsize=(2, 2))
    with image.open(tmp_path / "moving.gif") as made:
        assert made.n_frames == 3
    with pytest.raises(ParameterError, match=r"\.gif"):
        da.latent.plot.frames(save=tmp_path / "moving.avi")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")
def test_mp4_holds_every_image(tmp_path):
    name = tmp_path / "moving.mp4"
    images().latent.plot.frames(save=name, figsize=(2, 2), fps=4)
    assert name.read_bytes()[4:8] == b"ftyp"
    told = subprocess.run(
        ["ffmpeg", "-i", str(name), "-f", "null", "-"], capture_output=True, text=True, check=True
    ).stderr
    assert "h264" in told
    assert re.findall(r"frame=\s*(\d+)", told)[-1] == "3"


def test_mp4_without_ffmpeg_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(FFMpegWriter, "isAvailable", lambda: False)
    with pytest.raises(MissingDependencyError, match="ffmpeg"):
        images().latent.plot.frames(save=tmp_path / "moving.mp4")

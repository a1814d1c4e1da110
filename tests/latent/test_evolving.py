"""Frames between and beyond images by operators other than advection, through the accessor."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import GridError, ParameterError, UnknownNameError
from xr_spde.fields.cells import Cells
from xr_spde.fields.transport import Advection, Composed, Conservation, UserOperator
from xr_spde.latent.cases import make_case
from xr_spde.latent.cases_in_time import divergent
from xr_spde.latent.motion import Motion
from xr_spde.latent.operators import frame_by
from xr_spde.latent.sequence import ChangingMotion
from xr_spde.latent.textures import texture

N = 48
HOUR = np.array(["2020-03-01T00", "2020-03-01T01"], "datetime64[ns]")
SECONDS = 3600.0


def pair_of(first, second):
    km = 1e3 * np.arange(first.shape[0])
    coords = {"time": HOUR, "y": ("y", km, {"units": "m"}), "x": ("x", km, {"units": "m"})}
    return xr.DataArray(np.stack([first, second]), coords, ("time", "y", "x"), "ice")


def motion_of(pair, u, v):
    """What `velocity` returns, of a known velocity in cells per hour."""
    place = {name: pair[name] for name in ("y", "x")}
    middle = xr.DataArray([HOUR[0] + (HOUR[1] - HOUR[0]) / 2], dims="time")
    field = [
        xr.DataArray(np.broadcast_to(part, (1, *pair.shape[1:])) * 1e3 / SECONDS,
                     place, ("time", "y", "x"))
        for part in (u, v)
    ]  # fmt: skip
    bounds = {"time": middle, "time_bounds": (("time", "bounds"), HOUR[None])}
    return xr.Dataset({"u": field[0], "v": field[1]}).assign_coords(bounds)


@pytest.fixture(scope="module")
def spreading():
    pair = pair_of(divergent(0.0, N), divergent(1.0, N))
    y, x = np.mgrid[0:N, 0:N] + 0.5 - N / 2
    return pair, motion_of(pair, 0.5 * x, 0.5 * y)


@pytest.mark.parametrize("minutes", [15, 30, 75])
def test_amounts_are_kept_exactly(spreading, minutes):
    pair, motion = spreading
    when = HOUR[0] + np.timedelta64(minutes, "m")
    found = pair.latent.interpolate(
        when, motion=motion, operator="conservation", extrapolate=minutes > 60
    )
    assert abs(float(found.sum() / pair[0].sum()) - 1) <= 1e-10
    truth = divergent(minutes / 60, N)
    assert float(np.sqrt(((found - truth) ** 2).mean())) < 0.005
    carried = pair.latent.interpolate(when, motion=motion, extrapolate=True)
    assert abs(float(carried.sum() / pair[0].sum()) - 1) > 1e-3
    assert found.attrs["xr_spde_operator"] == "conservation"


def test_amounts_of_two_images_lead_from_one_sum_to_the_other(spreading):
    pair, motion = spreading
    more = pair * xr.DataArray([1.0, 1.3], dims="time")
    found = more.latent.interpolate(HOUR[0] + np.timedelta64(15, "m"), motion=motion,
                                    operator="conservation")  # fmt: skip
    assert abs(float(found.sum() / pair[0].sum()) / 1.075 - 1) <= 1e-10


@pytest.mark.filterwarnings("ignore:the motion reaches")
def test_growth_is_a_source_along_the_path():
    case = make_case("growth", 128)
    pair = pair_of(case.u0, case.u1)
    when = HOUR[0] + np.timedelta64(30, "m")
    off = {
        name: float(np.sqrt(((pair.latent.interpolate(when, **settings)
                              - case.frame(0.5)) ** 2).mean()))
        for name, settings in {
            "source": {"operator": "advection-source"},
            "values": {"brightness": "constant"},
            "chosen": {},
        }.items()
    }  # fmt: skip
    assert max(off["source"], off["chosen"]) <= 0.003
    assert off["values"] >= 0.01


def brightening(t):
    j, i = np.mgrid[0:N, 0:N].astype(float)
    return (1 + 0.4 * t) * texture(3, j - t, i - 3 * t)


def test_a_source_goes_on_beyond_the_images_and_ends_are_met():
    pair = pair_of(brightening(0.0), brightening(1.0))
    motion = motion_of(pair, 3.0, 1.0)
    inner = (slice(4, -4), slice(8, -4))
    when = HOUR[0] + np.array([30, 90], "timedelta64[m]")
    found = pair.latent.interpolate(
        when, motion=motion, operator="advection-source", extrapolate=True
    )
    for frame, t in zip(found.values, (0.5, 1.5), strict=True):
        assert np.abs(frame - brightening(t))[inner].max() < 0.02
    ends = pair.latent.interpolate(HOUR, motion=motion, operator="advection-source")
    np.testing.assert_allclose(ends, pair, atol=1e-12)


def test_diffusion_on_the_way_meets_both_images():
    y, x = np.mgrid[0:N, 0:N] + 0.5 - N / 2

    def blob(t):  # a Gaussian of variance 9 + 2 kappa t that drifts by 4 columns
        variance = 9 + 8.0 * t
        return 9 / variance * np.exp(-((x - 4 * t) ** 2 + y**2) / 2 / variance)

    pair = pair_of(blob(0.0), blob(1.0))
    motion = motion_of(pair, 4.0, 0.0)
    settings = {
        "motion": motion,
        "operator": "advection-diffusion",
        "parameters": {"diffusivity": 4e6 / SECONDS},
        "extrapolate": True,
    }
    found = pair.latent.interpolate(HOUR[0] + np.array([0, 30, 60, 90], "timedelta64[m]"),
                                    **settings)  # fmt: skip
    np.testing.assert_allclose(found[[0, 2]], pair, atol=1e-12)
    for frame, t in ((found[1], 0.5), (found[3], 1.5)):
        assert np.abs(frame - blob(t)).max() < 0.005
    plain = pair.latent.interpolate(HOUR[0] + np.timedelta64(30, "m"), motion=motion)
    assert np.abs(plain - blob(0.5)).max() > 4 * np.abs(found[1] - blob(0.5)).max()
    with pytest.raises(ParameterError, match="backwards"):
        pair.latent.interpolate(HOUR[0] - np.timedelta64(30, "m"), **settings)


def test_operators_of_the_user():
    pair = pair_of(brightening(0.0), 1.2 * brightening(0.0))
    motion = motion_of(pair, 0.0, 0.0)

    def fade(state, params, tau, cells):
        return state * np.exp(-params["rate"] * tau)

    own = Composed((UserOperator(fade, params=(("rate", 1),)), Advection()))
    late = HOUR[0] + np.timedelta64(90, "m")
    rate = xr.full_like(pair[0].drop_vars("time"), 2.0 / SECONDS)
    settings = {"motion": motion, "operator": own, "extrapolate": True}
    for given in (rate, 2.0 / SECONDS):
        found = pair.latent.interpolate(late, parameters={"rate": given}, **settings)
        np.testing.assert_allclose(found, np.exp(-1.0) * pair[1], rtol=1e-6)
    alone = pair.latent.interpolate(
        late, motion=motion, operator=lambda state, params, tau, cells: state + tau,
        extrapolate=True,
    )  # fmt: skip
    np.testing.assert_allclose(alone, pair[1] + 1800.0)


def test_gaps_move_and_are_filled_from_the_other_image():
    pair = pair_of(brightening(0.0), brightening(1.0)).copy()
    pair[0, :, 10:14] = np.nan
    pair[:, 20:24, 30:40] = np.nan
    motion = motion_of(pair, 3.0, 1.0)
    for name in ("advection-source", "conservation"):
        found = pair.latent.interpolate(
            HOUR[0] + np.timedelta64(30, "m"), motion=motion, operator=name, uncertainty=True
        )
        np.testing.assert_array_equal(np.isnan(found["ice"]), found["seen"] == 0)
        inner = found.isel(y=slice(4, -4), x=slice(6, -6))
        assert 10 < int((inner["seen"] == 0).sum()) < 40
        assert int((inner["seen"] == 1).sum()) > 100


def test_lazy_with_fields_of_parameters(spreading):
    pair, motion = spreading
    kappa = xr.full_like(pair[0].drop_vars("time"), 100.0)
    settings = {"motion": motion, "operator": "advection-diffusion"}
    when = HOUR[0] + np.array([20, 40], "timedelta64[m]")
    found = pair.latent.interpolate(when, parameters={"diffusivity": kappa}, **settings)
    lazy = pair.chunk({"time": 1, "y": 11}).latent.interpolate(
        when, parameters={"diffusivity": kappa.chunk({"x": 7})}, **settings
    )
    assert dask.is_dask_collection(lazy.data)
    assert lazy.dims == pair.dims
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), found)


def test_what_an_operator_lacks_or_would_ignore_is_told(spreading):
    pair, motion = spreading
    when = HOUR[0] + np.timedelta64(30, "m")
    for error, text, settings in (
        (UnknownNameError, "conservation", {"operator": "conservative"}),
        (ParameterError, "diffusivity", {"operator": "advection-diffusion"}),
        (ParameterError, "none besides", {"parameters": {"diffusivity": 1.0}}),
        (ParameterError, "means nothing", {"operator": "wave", "method": "linear"}),
        (ParameterError, "a number, or a DataArray", {
            "operator": "diffusion", "parameters": {"diffusivity": np.ones((N, N))}}),
        (GridError, "same cells", {
            "operator": "diffusion", "parameters": {"diffusivity": pair[0, 1:]}}),
        (ParameterError, "another direction", {
            "operator": "diffusion", "parameters": {"diffusivity": pair[0, ::-1]}}),
    ):  # fmt: skip
        given = settings if "method" in settings else {**settings, "motion": motion}
        with pytest.raises(error, match=text):
            pair.latent.interpolate(when, **given)


def test_a_steady_and_a_changing_motion_of_the_same_mean():
    y, x = np.mgrid[0:N, 0:N] + 0.5 - N / 2
    blob = np.exp(-(x**2 + y**2) / 18)
    one = np.stack([np.ones((N, N)), np.zeros((N, N))])
    cells = Cells(N, N)
    changing = ChangingMotion(3 * one, cells, 0.0, ends=np.stack([0 * one, 6 * one]))
    middle = frame_by(blob, np.roll(blob, 3, 1), changing, 0.5, Conservation()).image
    truth = np.exp(-((x - 0.75) ** 2 + y**2) / 18)
    assert np.abs(middle - truth).max() < 0.01
    steady = frame_by(blob, np.roll(blob, 3, 1), Motion(3 * one, cells, 0.0), 0.5, Conservation())
    assert np.abs(steady.image - truth).max() > 0.05

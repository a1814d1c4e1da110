"""One image evolved with a velocity: units, times, spheres, gaps, operators."""

from __future__ import annotations

import logging

import dask
import numpy as np
import pytest
import xarray as xr

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import AxisNotFoundError, GridError, ParameterError, SchemaError
from xr_spde.latent.schedule import Schedule
from xr_spde.latent.textures import texture

N = 48
START = np.datetime64("2020-03-01T00", "ns")
HOUR = np.timedelta64(1, "h")


def scene(rows, columns):
    j, i = np.mgrid[0:N, 0:N].astype(float)
    return texture(4, j - rows, i - columns)


@pytest.fixture(scope="module")
def frame():
    km = 2e3 * np.arange(N)
    coords = {"y": ("y", km, {"units": "m"}), "x": ("x", km, {"units": "m"}), "time": START}
    return xr.DataArray(scene(0, 0), coords, ("y", "x"), "ice", {"units": "1"})


def wind(frame, columns, rows=0.0):
    """Velocity in cells per hour on the grid of a frame."""
    field = xr.zeros_like(frame.drop_vars("time").drop_attrs())
    ds = xr.Dataset({"u": field + columns * 2000 / 3600, "v": field + rows * 2000 / 3600})
    return ds.assign(u=ds.u.assign_attrs(units="m s-1"))


INNER = (slice(8, -8), slice(16, -8))


def test_a_steady_velocity_forwards_and_backwards(frame):
    times = START + np.array([0, 90, 180, -60], "timedelta64[m]")
    found = frame.latent.evolve(times, velocity=wind(frame, 3.0, 1.0))
    assert found.dims == ("time", "y", "x")
    assert {**frame.attrs, "xr_spde_operator": "advection"}.items() <= found.attrs.items()
    np.testing.assert_array_equal(found["time"], times)
    for image, hours in zip(found.values, (0.0, 1.5, 3.0, -1.0), strict=True):
        assert np.abs(image - scene(hours, 3 * hours))[INNER].max() < 0.02
    np.testing.assert_allclose(found[0], frame, atol=1e-12)
    assert np.isnan(found[2, :, :8]).all()  # it comes from outside
    one = frame.latent.evolve("2020-03-01T01:30", velocity=wind(frame, 3.0, 1.0))
    assert one.dims == ("y", "x")
    np.testing.assert_array_equal(one, found[1])


def test_velocities_of_instants_and_of_intervals(frame):
    two = xr.concat([wind(frame, 0.0), wind(frame, 4.0)], "time")
    instants = two.assign_coords(time=START + np.array([0, 2]) * HOUR)
    late = START + 4 * HOUR  # 4 cells while it rises, then 4 an hour
    found = frame.latent.evolve([START + 2 * HOUR, late], velocity=instants)
    assert np.abs(found[0] - scene(0, 4)).values[INNER].max() < 0.01
    assert np.abs(found[1] - scene(0, 12)).values[INNER].max() < 0.01
    ends = START + np.array([[0, 1], [1, 2]]) * HOUR
    intervals = two.assign_coords(
        time=START + np.array([30, 90], "timedelta64[m]"),
        time_bounds=(("time", "bounds"), ends),
    )
    found = frame.latent.evolve(START + 90 * np.timedelta64(1, "m"), velocity=intervals)
    assert np.abs(found - scene(0, 2)).values[INNER].max() < 0.01


def test_a_fitted_motion_carries_a_second_variable(frame):
    times = START + np.arange(3) * HOUR
    frames = xr.DataArray(
        np.stack([scene(0, 3 * t**2) for t in (0, 1, 2)]),
        {**{k: frame[k] for k in "yx"}, "time": times},
        ("time", "y", "x"),
    )
    motion = frames.latent.velocity()
    late = START + np.array([30, 90, 135], "timedelta64[m]")
    tracer = (2 * frame + 5).rename("thickness")
    found = tracer.latent.evolve(late, velocity=motion)
    # it starts from rest and leaves the last frame at 12 cells an hour
    for image, moved in zip(found.values, (0.75, 6.75, 15.0), strict=True):
        assert np.nanmean(np.abs(image - 2 * scene(0, moved) - 5)[8:-8, 20:-12]) < 0.02
    ds = xr.Dataset({"a": frame, "b": tracer, "crs": 0}).latent.evolve(late, velocity=motion)
    np.testing.assert_array_equal(ds["b"], found)
    assert ds["crs"].ndim == 0


def test_a_constant_wind_on_the_sphere_and_across_the_seam():
    lat, lon = np.arange(60.0, 76.0, 0.5), np.arange(0.0, 360.0, 5.0)
    place = {"lat": lat, "lon": lon, "time": START}
    field = xr.DataArray(
        np.sin(np.radians(lon)) * np.ones((lat.size, 1)), place, ("lat", "lon"), "sst"
    )
    u = 20.0 * np.cos(np.radians(lat))[:, None] * np.ones(lon.size)  # as a solid body
    moved = xr.Dataset(
        {"u": (("lat", "lon"), u), "v": (("lat", "lon"), 0 * u)}, {"lat": lat, "lon": lon}
    )
    found = field.latent.evolve(START + 240 * HOUR, velocity=moved)
    angle = np.degrees(20.0 * 240 * 3600 / 6_371_000)
    truth = np.sin(np.radians(lon - angle))
    assert np.abs(found - truth).max() < 2e-3
    turned = found.assign_coords(lon=(lon + 180) % 360 - 180).sortby("lon")
    again = field.assign_coords(lon=(lon + 180) % 360 - 180).sortby("lon").latent.evolve(
        START + 240 * HOUR,
        velocity=moved.assign_coords(lon=(lon + 180) % 360 - 180).sortby("lon"),
    )  # fmt: skip
    np.testing.assert_allclose(again, turned, atol=1e-12)


def test_gaps_move_and_amounts_stay(frame):
    gappy = frame.copy()
    gappy[20:24, 10:20] = np.nan
    found = gappy.latent.evolve(START + HOUR, velocity=wind(frame, 4.0, 2.0))
    np.testing.assert_array_equal(np.isnan(found[22:26, 14:24]), True)
    assert int(np.isnan(found[8:, 8:]).sum()) == 40
    kept = frame.latent.evolve(
        START + np.array([1, 3]) * HOUR, velocity=wind(frame, 3.0), operator="conservation"
    )
    np.testing.assert_allclose(kept.sum(["y", "x"]), frame.sum(), rtol=1e-12)


def test_operators_that_move_nothing(frame):
    settings = {"operator": "diffusion", "parameters": {"diffusivity": 4e6 / 3600}}
    found = frame.latent.evolve(START + np.array([3, 1]) * HOUR, **settings)
    again = frame.latent.evolve(START + 3 * HOUR, **settings)
    np.testing.assert_allclose(found[0], again, atol=1e-12)
    assert float(found[0].std()) < float(found[1].std()) < float(frame.std())
    with pytest.raises(ParameterError, match="moves nothing"):
        frame.latent.evolve(START, velocity=wind(frame, 1.0), **settings)


def test_lazy_over_members_and_chunks(frame):
    members = xr.concat([frame, 2 * frame], "member")
    motion = wind(frame, 3.0, 1.0)
    times = START + np.array([1, 2]) * HOUR
    found = members.latent.evolve(times, velocity=motion)
    assert found.dims == ("time", "member", "y", "x")
    lazy = members.chunk({"member": 1, "x": 13}).latent.evolve(
        times, velocity=motion.chunk({"y": 10})
    )
    assert dask.is_dask_collection(lazy.data)
    for scheduler in ("synchronous", "threads"):
        np.testing.assert_array_equal(lazy.compute(scheduler=scheduler), found)
    assert members.astype("f4").latent.evolve(times, velocity=motion).dtype == np.float32


def test_storage_and_model_calendars(frame):
    cftime = pytest.importorskip("cftime")
    motion = wind(frame, 3.0, 1.0)
    found = frame.latent.evolve(START + 2 * HOUR, velocity=motion)
    turned = frame.isel(y=slice(None, None, -1)).T
    again = turned.latent.evolve(START + 2 * HOUR, velocity=motion.isel(y=slice(None, None, -1)))
    assert again.dims == ("x", "y")
    np.testing.assert_allclose(again.sortby("y").T, found, atol=1e-12)
    dated = frame.assign_coords(time=cftime.Datetime360Day(2000, 2, 30))
    later = dated.latent.evolve("2000-02-30T02:00", velocity=motion)
    np.testing.assert_allclose(later, found, atol=1e-12)
    numbered = frame.assign_coords(time=xr.Variable((), 6.0, {"units": "hours"}))
    np.testing.assert_allclose(numbered.latent.evolve(8.0, velocity=motion), found, atol=1e-12)


def test_the_flow_is_reported(frame, caplog):
    with caplog.at_level(logging.INFO, "xr_spde.latent"):
        frame.latent.evolve(START + HOUR, velocity=wind(frame, 3.0))
    assert "Courant number 0.75" in caplog.text
    assert "0 % of cells folded" in caplog.text


def test_bad_input_says_what_to_do(frame):
    motion = wind(frame, 1.0)
    when = START + HOUR
    two = xr.concat([frame, frame], "time").assign_coords(time=[START, when])
    upside = motion.isel(y=slice(None, None, -1))
    unsorted = xr.concat([motion, motion], "time").assign_coords(time=[when, START])
    for image, time, given, error, text in (
        (frame, when, {}, ParameterError, "needs velocity="),
        (frame, when, {"velocity": motion[["u"]]}, SchemaError, "u and v"),
        (frame, when, {"velocity": motion.isel(x=slice(4, None))}, GridError, "same cells"),
        (frame, when, {"velocity": upside}, ParameterError, "another direction"),
        (frame, when, {"velocity": unsorted}, ParameterError, "not sorted"),
        (frame, 3.0, {"velocity": motion}, ParameterError, "dates"),
        (frame.drop_vars("time"), when, {"velocity": motion}, AxisNotFoundError, "no time"),
        (two, when, {"velocity": motion}, ParameterError, r"isel\(time=-1\)"),
    ):
        with pytest.raises(error, match=text):
            image.latent.evolve(time, **given)
    knots = motion.assign(u=motion.u.assign_attrs(units="knots"))
    with pytest.raises(ParameterError, match="knots"):
        frame.latent.evolve(when, velocity=knots)
    np.testing.assert_allclose(two.isel(time=[0]).latent.evolve(START, velocity=motion), frame)


def test_schedules():
    one = np.ones((2, 3, 4))
    times = np.array([[0.0, 1.0], [1.0, 3.0]])
    ends = np.stack([[0 * one, 2 * one], [2 * one, 6 * one]])
    changing = Schedule(np.stack([one, 4 * one]), times, ends)
    for t, speed in ((-1.0, 0.0), (0.25, 0.5), (1.5, 3.0), (9.0, 6.0)):
        np.testing.assert_allclose(changing.at(t), speed)
    for begin, end, moved in (
        (0.0, 3.0, 9.0),
        (3.0, 1.0, -8.0),
        (2.0, 5.0, 17.0),
        (-4.0, 0.5, 0.25),
    ):
        total = sum(q[0, 0, 0] * h for q, h in changing.held(begin, end))
        assert total == pytest.approx(moved)
    assert len(Schedule(one[None]).held(0.0, 7.0)) == 1
    assert len(Schedule(np.stack([one, one]), times).held(0.5, 7.0)) == 3

"""Sequences of frames: velocities that change on the way, against scenes known at any time."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

import xr_spde  # noqa: F401  registers the accessor
from xr_spde.errors import ParameterError, UnknownNameError
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import nodes
from xr_spde.latent.cases import make_case
from xr_spde.latent.cases_in_time import SCENES, accelerating
from xr_spde.latent.frames import frame_between
from xr_spde.latent.sequence import ChangingMotion, fit_sequence, joined
from xr_spde.latent.textures import texture

N = 64
KM = 1e3 * np.arange(N)


def between(frame, times, motions):
    """Error of the frames at quarters of all intervals."""
    off = []
    for k, motion in enumerate(motions):
        for tau in (0.25, 0.5, 0.75):
            found = frame_between(frame(times[k]), frame(times[k + 1]), motion, tau).image
            off.append(found - frame(times[k] + tau * (times[k + 1] - times[k])))
    return np.sqrt(np.mean(np.square(off)))


def both_paths(frame, times, **settings):
    frames = [frame(t) for t in times]
    found = (fit_sequence(frames, times, path=path, **settings) for path in ("steady", "smooth"))
    return [between(frame, times, motions) for motions in found]


@pytest.mark.parametrize(
    ("name", "times", "ratio"),
    [
        ("accelerating", [0.0, 0.3, 0.5, 1.0], 0.2),
        ("reversing", [0.0, 0.3, 0.6, 1.0], 0.5),
        ("turning", [0.0, 0.4, 1.0], 0.5),
    ],
)
def test_changes_of_velocity_are_found_from_three_frames(name, times, ratio):
    steady, smooth = both_paths(lambda t: SCENES[name](t, N), times)
    assert smooth <= ratio * steady


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.long)
        for n in ("floe_rot", "lead_open", "tex_rot", "swirl")
    ],
)
def test_steady_scenes_do_not_suffer(name):
    case = make_case(name, 96, seed=100)
    for times in ([0.0, 0.3, 1.0], [0.0, 0.25, 0.5, 0.75, 1.0]):
        steady, smooth = both_paths(case.frame, times)
        assert smooth <= 1.05 * steady


def test_velocity_linear_in_time_is_exact():
    pattern = np.random.default_rng(0).uniform(1.0, 2.0, (2, 1, 1)) * np.ones((2, 12, 14))
    times = np.array([0.0, 0.2, 0.9, 1.4])
    middle, lengths = (times[1:] + times[:-1]) / 2, np.diff(times)
    each = [(pattern * (1 + 3 * s) * d, d) for s, d in zip(middle, lengths, strict=True)]
    for k, before, after in ((0, None, each[1]), (1, each[0], each[2]), (2, each[1], None)):
        mean, ends = joined(*each[k], before, after)
        np.testing.assert_allclose(mean, each[k][0], rtol=1e-12)
        for end, t in zip(ends, times[k : k + 2], strict=True):
            np.testing.assert_allclose(end, pattern * (1 + 3 * t) * lengths[k], rtol=1e-9)


def test_a_floe_that_drifts_evenly_has_no_acceleration():
    j, i = np.mgrid[0:40, 0:60]

    def drift(left):  # a floe in water at rest, seen in the middle of an interval
        return np.stack([6.0 * ((i >= left) & (i < left + 20) & (j > 9) & (j < 30)), 0.0 * i])

    _, ends = joined(drift(15), 1.0, None, (drift(21), 1.0))
    # but for its edges, which velocities of cells blur
    inner = np.s_[..., 12:28, 18:32]
    np.testing.assert_allclose(ends[inner], np.stack([drift(15)] * 2)[inner], atol=1e-9)
    assert np.abs(ends - drift(15)).max(axis=(0, 1, 2))[[5, 45]].max() == 0


def test_changes_within_the_errors_are_averaged_out():
    rng = np.random.default_rng(1)
    truth = np.array([4.0, -2.0])[:, None, None] * np.ones((2, 60, 60))
    # errors of fits are smooth
    noise = gaussian_filter(rng.standard_normal((3, 2, 60, 60)), (0, 0, 4, 4))
    own, left, right = truth + 0.5 * noise / noise.std()
    told = np.full((60, 60), 2 * 0.25)
    mean, ends = joined(own, 1.0, (left, 1.0), (right, 1.0), error=told)
    spread = [np.sqrt(((v - truth) ** 2).mean()) for v in (own, mean, ends[0])]
    assert max(spread[1:]) < 0.75 * spread[0]
    moving, _ = joined(own, 1.0, (left - 9, 1.0), (right + 9, 1.0), error=told)
    np.testing.assert_allclose(moving, own, atol=0.1)
    # a short interval has little to say on speed
    short, _ = joined(own, 1.0, None, (right / 10, 0.1), error=told)
    np.testing.assert_allclose(short, own, atol=0.05)


def test_images_that_change_as_they_move():
    """Velocities of pairs err where half of each image is its own; those of three do less."""
    j, i = np.mgrid[0:N, 0:N].astype(float)
    frames = [
        texture(5, j - t, i - 2 * t) + 0.7 * texture(50 + t, j, i, amplitude=0.1) for t in range(4)
    ]
    off = [
        np.mean([np.abs(m.velocity - np.array([2.0, 1.0])[:, None, None]).mean() for m in found])
        for found in (fit_sequence(frames, range(4), path=path) for path in ("steady", "smooth"))
    ]
    assert off[1] < off[0]


def changing(first=0.0, last=6.0, shape=(10, 40)):
    one = np.stack([np.ones(shape), np.zeros(shape)])
    ends = np.stack([first * one, last * one])
    return ChangingMotion((first + last) / 2 * one, Cells(*shape), 0.0, ends=ends)


def test_positions_have_their_closed_form_and_leave_at_the_speed_of_the_end():
    motion = changing()
    _, columns = nodes(motion.velocity, (10, 40))
    for at, since in ((0.5, 0.0), (0.25, 1.0), (1.0, 0.5)):
        _, x = motion.positions(at, since)
        np.testing.assert_allclose(columns - x, 3.0 * (at**2 - since**2), atol=1e-12)
    _, x = motion.positions(1.5, 0.0)
    np.testing.assert_allclose(columns - x, 3.0 + 3.0, atol=1e-12)
    _, x = motion.positions(-0.5, 1.0)
    np.testing.assert_allclose(columns - x, -3.0, atol=1e-12)
    back = motion.reversed()
    np.testing.assert_allclose(back.positions(0.8, 0.0), motion.positions(0.2, 1.0), atol=1e-12)


@pytest.fixture(scope="module")
def images():
    when = np.array(["2020-03-01T00", "2020-03-01T06", "2020-03-01T12"], "datetime64[ns]")
    stack = np.stack([accelerating(t, N) for t in (0.0, 0.5, 1.0)])
    coords = {"time": when, "y": ("y", KM, {"units": "m"}), "x": ("x", KM, {"units": "m"})}
    return xr.DataArray(stack, coords, ("time", "y", "x"), "ice", {"units": "1"})


@pytest.fixture(scope="module")
def motion(images):
    return images.latent.velocity()


def test_velocities_at_the_frames_in_metres_per_second(images, motion):
    day = 43_200.0  # the time of 1 is half a day, in which u is n / 6 cells times 2 t
    expected = 2 * N / 6 * 1e3 / day * np.array([[0.0, 0.5], [0.5, 1.0]])
    found = motion["u_at_bounds"]
    assert found.dims == ("time", "bounds", "y", "x")
    assert found.attrs["units"] == "m s-1"
    middle = found.isel(x=slice(16, -8), y=slice(10, -4)).median(["y", "x"])
    np.testing.assert_allclose(middle, expected, atol=0.02 * expected.max())
    np.testing.assert_allclose(motion["u"].median(["y", "x"]), expected.mean(axis=1), rtol=0.03)


def test_frames_along_the_changing_velocity(images, motion, tmp_path):
    when = "2020-03-01T03"
    steady = images.latent.interpolate(when, path="steady")
    smooth = images.latent.interpolate(when)
    off = [float(np.sqrt(((f - accelerating(0.25, N)) ** 2).mean())) for f in (smooth, steady)]
    assert off[0] < 0.25 * off[1]
    motion.to_netcdf(tmp_path / "motion.nc")
    with xr.open_dataset(tmp_path / "motion.nc") as back:
        np.testing.assert_allclose(images.latent.interpolate(when, motion=back), smooth, atol=1e-9)


def test_forecasts_leave_at_the_last_speed(images, motion):
    steady = motion.drop_vars(["u_at_bounds", "v_at_bounds"])
    later = "2020-03-01T14"
    truth = accelerating(1 + 1 / 6, N)[12:, 24:]
    ahead = [
        images.latent.interpolate(later, motion=m, extrapolate=True).values[12:, 24:]
        for m in (motion, steady)
    ]
    assert np.abs(ahead[0] - truth).mean() < 0.7 * np.abs(ahead[1] - truth).mean()


def test_lazy_with_the_neighbours_that_are_needed(images, motion, monkeypatch):
    from xr_spde.latent import reading

    fits = []
    original = reading.fit_motion
    monkeypatch.setattr(reading, "fit_motion", lambda *a, **k: fits.append(1) or original(*a, **k))
    lazy = images.chunk({"time": 1, "x": 20})
    moved = lazy.latent.velocity()
    found = lazy.latent.interpolate("2020-03-01T03")
    assert dask.is_dask_collection(moved["u_at_bounds"].data)
    assert not fits
    found = found.compute(scheduler="synchronous")
    assert len(fits) == 2
    again = images.latent.interpolate("2020-03-01T03", motion=motion)
    np.testing.assert_allclose(found, again, atol=1e-12)


def test_two_frames_tell_no_change_and_what_would_be_ignored_is_refused(images, motion):
    pair = images.isel(time=[0, 1])
    assert "u_at_bounds" not in pair.latent.velocity()
    with pytest.raises(UnknownNameError, match="smooth"):
        images.latent.velocity(path="smoth")
    with pytest.raises(ParameterError, match="motion="):
        images.latent.interpolate("2020-03-01T03", motion=motion, path="steady")
    with pytest.raises(ParameterError, match="means nothing"):
        images.latent.interpolate("2020-03-01T03", method="linear", path="steady")
    with pytest.raises(ParameterError, match="increase"):
        fit_sequence(list(images.values), [0.0, 0.0, 1.0])


def test_a_neighbour_without_data_is_told_and_left_out(images):
    more = xr.concat([images, images.isel(time=[0]).assign_coords(
        time=images.time.values[[-1]] + np.timedelta64(6, "h")) * np.nan], "time")  # fmt: skip
    with pytest.warns(UserWarning, match="taken not to change towards it"):
        found = more.latent.interpolate("2020-03-01T09")
    np.testing.assert_allclose(found, images.latent.interpolate("2020-03-01T09"), atol=1e-9)
    with pytest.raises(ParameterError, match="leave that frame out"):
        more.latent.interpolate("2020-03-01T15")

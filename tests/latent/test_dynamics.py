"""Latent dynamics of image sequences: exact ends, reversal, gaps, storage, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.errors import (  # noqa: E402
    DataUnavailableError,
    ParameterError,
    SchemaError,
    UnknownNameError,
)
from xr_spde.fields.cells import Cells  # noqa: E402
from xr_spde.fields.characteristics import departure, nodes  # noqa: E402
from xr_spde.latent.cases import make_case, texture  # noqa: E402
from xr_spde.latent.compare import ssim  # noqa: E402
from xr_spde.latent.dynamics import LatentDynamics  # noqa: E402
from xr_spde.latent.fit import fit_latent_dynamics  # noqa: E402
from xr_spde.latent.frames import frame_between  # noqa: E402
from xr_spde.latent.motion import Motion  # noqa: E402

TINY = {"width": 4, "depth": 2, "patch": 16, "batch": 2, "iterations": 6, "progress": False}
SHIFT = np.stack([np.full((32, 40), 3.0), np.full((32, 40), -1.5)])


def drifting(times, speed=1.0):
    y, x = np.mgrid[0:32, 0:40] + 0.0
    return np.stack([texture(5, y + 1.5 * speed * t, x - 3.0 * speed * t) for t in times])


@pytest.fixture(scope="module")
def frames():
    return drifting([0.0, 1.0])


@pytest.fixture(scope="module")
def model(frames):
    return fit_latent_dynamics(frames, [10.0, 14.0], initial=SHIFT, seed=1, **TINY)


def rmse(a, b):
    return float(np.sqrt(np.nanmean((a - b) ** 2)))


def test_given_images_are_exact_and_the_middle_follows_the_motion(frames, model):
    for time, image in zip((10.0, 14.0), frames, strict=True):
        np.testing.assert_allclose(model.frame(time).image, image, atol=1e-6)
    truth = drifting([0.25])[0]
    blend = 0.75 * frames[0] + 0.25 * frames[1]
    assert rmse(model.frame(11.0).image, truth) < 0.5 * rmse(blend, truth)
    np.testing.assert_allclose(
        np.median(model.motion_at(12.0), axis=(1, 2)), [0.75, -0.375], atol=0.1
    )
    assert "2 frames of 32 x 40, times 10 to 14" in repr(model)


def test_times_outside_are_asked_for(model):
    with pytest.raises(ParameterError, match="extrapolate=True"):
        model.frame(14.5)
    y, x = np.mgrid[0:32, 0:40] + 0.0
    later = model.frame(14.4, extrapolate=True).image
    truth = texture(5, y + 1.65, x - 3.3)
    assert rmse(later[6:-6, 6:-6], truth[6:-6, 6:-6]) < 0.02


def test_the_reversed_sequence_has_the_same_frames(frames, model):
    back = fit_latent_dynamics(frames[::-1], [10.0, 14.0], initial=-SHIFT, seed=1, **TINY)
    np.testing.assert_allclose(back.velocity, -model.velocity, atol=1e-12)
    np.testing.assert_allclose(back.frame(13.0).image, model.frame(11.0).image, atol=1e-4)
    np.testing.assert_allclose(
        model.reversed().frame(13.0).image, model.frame(11.0).image, atol=1e-6
    )


def test_a_file_holds_everything(model, tmp_path):
    path = tmp_path / "drift.safetensors"
    model.save(path)
    loaded = LatentDynamics.load(path)
    np.testing.assert_array_equal(loaded.frame(11.3).image, model.frame(11.3).image)
    assert repr(loaded) == repr(model)
    assert loaded.settings == model.settings
    np.testing.assert_array_equal(loaded.log["half"], model.log["half"])
    np.testing.assert_array_equal(loaded.initial, model.initial)
    assert loaded.classical is None


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataUnavailableError, match="nowhere"):
        LatentDynamics.load(tmp_path / "nowhere")
    from xr_spde.nets.tensor_file import write_tensors

    kinds = {"format": 1, "options": {}, "settings": {}, "seed": 1, "log": []}
    write_tensors(tmp_path / "other", {"a": np.zeros(3)}, {**kinds, "kind": "weights"})
    with pytest.raises(SchemaError, match="holds 'weights'"):
        LatentDynamics.load(tmp_path / "other")
    write_tensors(tmp_path / "half", {"a": np.zeros(3)}, {**kinds, "kind": "latent dynamics"})
    with pytest.raises(SchemaError, match="frames"):
        LatentDynamics.load(tmp_path / "half")


def test_encoding_and_decoding_keep_units(frames, model):
    state = model.encode(frames[0])
    assert state.shape == (1, 32, 40)
    assert rmse(model.decode(state), frames[0]) < 0.1 * frames.std()
    other = fit_latent_dynamics(250 + 40 * frames, initial=SHIFT, seed=1, **TINY)
    middle = 250 + 40 * model.frame(12.0).image
    assert rmse(other.frame(0.5).image, middle) < 1e-3 * 40
    with pytest.raises(ParameterError, match="latent state"):
        model.decode(state[:, 1:])


def test_gaps_are_filled_where_the_other_image_sees(frames):
    gappy = frames.astype(np.float32)
    gappy[0, 8:14] = np.nan
    gappy[1, :, 20:27] = np.nan
    model = fit_latent_dynamics(gappy, initial=SHIFT, seed=1, **TINY)
    assert model.networks.options["gaps"]
    frame = model.frame(0.5)
    assert frame.image.dtype == np.float32
    assert np.isnan(frame.image).mean() < 0.06
    np.testing.assert_array_equal(np.isnan(frame.image), frame.seen == 0)
    truth = drifting([0.5])[0]
    inner = (slice(4, -4), slice(4, -4))
    assert rmse(frame.image[inner], truth[inner]) < 0.03
    known = np.isfinite(gappy[0])
    first = model.frame(0.0).image
    np.testing.assert_allclose(first[known], gappy[0][known], atol=1e-5)
    assert np.isfinite(first).mean() > known.mean()


def test_a_closed_grid_has_no_seam():
    y, x = np.mgrid[0:32, 0:48] + 0.0
    waves = [(3, 0.2, 0.0), (5, -0.3, 1.0), (2, 0.4, 2.0)]

    def image(shift):
        return sum(np.sin(2 * np.pi * k * (x - shift) / 48 + a * y + b) for k, a, b in waves)

    cells = Cells(32, 48, periodic_x=True)
    motion = np.stack([np.full((32, 48), 4.0), np.zeros((32, 48))])
    frames = np.stack([image(0.0), image(4.0)])
    model = fit_latent_dynamics(frames, cells=cells, initial=motion, seed=1, **TINY)
    np.testing.assert_allclose(model.frame(1.0).image, frames[1], atol=1e-5)
    off = np.abs(model.frame(0.5).image - image(2.0))
    assert (model.frame(0.5).seen[4:-4] == 2).all()
    assert off[4:-4, :4].mean() < 2 * off[4:-4].mean()


def test_three_frames_tell_an_acceleration():
    # displacement 4 t^2 along x: two frames would put t = 1/4 on a chord
    shares = [0.0, 0.5, 1.0]
    y, x = np.mgrid[0:32, 0:40] + 0.0
    frames = np.stack([texture(5, y, x - 4 * t**2) for t in shares])
    given = np.zeros((2, 2, 32, 40))
    given[:, 0] = 4.0  # 8 t = 4 P_0 + 4 P_1(2 t - 1)
    model = fit_latent_dynamics(frames, shares, initial=given, seed=1, **TINY)
    assert model.velocity.shape == (2, 2, 32, 40)
    for time, image in zip(shares, frames, strict=True):
        np.testing.assert_allclose(model.frame(time).image, image, atol=1e-6)
    inner = (slice(4, -4), slice(8, -4))
    truth = texture(5, y, x - 4 * 0.25**2)
    chord = texture(5, y, x - 4 * 0.25 / 2)
    ours = rmse(model.frame(0.25).image[inner], truth[inner])
    assert ours < 0.3 * rmse(chord[inner], truth[inner])


def test_coefficients_come_from_the_images_of_all_intervals():
    from xr_spde.latent.starts import classical_motion

    shares = np.array([0.0, 0.4, 1.0])
    y, x = np.mgrid[0:32, 0:40] + 0.0
    frames = np.stack([texture(5, y, x - 4 * t**2) for t in shares])
    found = classical_motion(frames, shares, Cells(32, 40), 1)
    np.testing.assert_allclose(np.median(found[:, 0, 6:-6, 6:-6], axis=(1, 2)), [4, 4], atol=0.3)


def test_a_motion_that_falls_short_is_flagged(frames, model):
    sound = model.diagnose()
    assert sound.ok, sound
    short = replace(model, velocity=0.2 * model.velocity)
    found = short.diagnose()
    assert {"motion", "latent"} <= set(found.flags), found
    assert "not to be trusted" in repr(found)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"frames": np.zeros((1, 32, 40))}, ParameterError, "two or more"),
        ({"frames": np.zeros((2, 32, 40))}, ParameterError, "constant"),
        ({"frames": np.full((2, 32, 40), np.nan)}, ParameterError, "no data"),
        ({"times": [1.0, 1.0]}, ParameterError, "none twice"),
        ({"times": [2.0, 1.0]}, ParameterError, "sort the images"),
        ({"initial": "rest"}, UnknownNameError, "classical"),
        ({"initial": np.zeros((2, 5, 5))}, ParameterError, "initial of shape"),
        ({"degree": 1}, ParameterError, "steady"),
        ({"patch": 64}, ParameterError, "at most 32"),
        ({"cells": Cells(4, 4)}, ParameterError, "cells of shape"),
        ({"lam": 1.0}, ParameterError, "lam_c"),
        ({"seed": -1}, ParameterError, "negative"),
    ],
)
def test_what_cannot_be_used_is_refused(frames, change, error, match):
    given = {"frames": frames, "initial": SHIFT, **TINY, **change}
    with pytest.raises(error, match=match):
        fit_latent_dynamics(given.pop("frames"), given.pop("times", None), **given)


# The guard of the latent model: two floes part, and open water appears that is in one image only.

SHORT = {"patch": 32, "iterations": 120, "progress": False}


@pytest.fixture(scope="module")
def crop():
    case = make_case("lead_open", seed=100)
    return (
        np.stack([case.u0, case.u1])[:, 32:96, 32:96],
        case.frame(0.5)[32:96, 32:96],
        (case.displacement[:, 32:96, 32:96]),
    )


def endpoint_error(model, displacement):
    y, x = departure(model.velocity[0], -1.0)
    rows, columns = nodes(y, y.shape)
    return float(np.nanmean(np.hypot(*(np.stack([x - columns, y - rows]) - displacement))))


def test_leads_in_short(crop):
    frames, middle, displacement = crop
    model = fit_latent_dynamics(frames, seed=0, **{**SHORT, "iterations": 60})
    assert endpoint_error(model, displacement) <= 1.0
    assert rmse(model.frame(0.5).image, middle) <= 0.5 * rmse(frames.mean(axis=0), middle)
    assert model.diagnose().ok


@pytest.mark.slow
def test_the_degenerate_fit_is_flagged(crop):
    degenerate = {"lam_c": 0.0, "lam_h": 0.0, "lam_mag": 1e-2, "residual": False}
    found = fit_latent_dynamics(crop[0], initial="none", **degenerate, **SHORT).diagnose()
    assert {"motion", "latent"} <= set(found.flags), found


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [100, 200])
def test_leads_in_full(seed):
    case = make_case("lead_open", seed=seed)
    middle = case.frame(0.5)
    model = fit_latent_dynamics(np.stack([case.u0, case.u1]), seed=0, progress=False)
    frame = model.frame(0.5).image
    assert rmse(frame, middle) <= 0.016
    assert ssim(frame, middle, data_range=1.0) >= 0.99
    assert endpoint_error(model, case.displacement) <= 0.5
    assert model.diagnose().ok


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_large_motion_is_not_lost():
    case = make_case("swirl", seed=100)
    middle = case.frame(0.5)
    frames = np.stack([case.u0, case.u1])
    model = fit_latent_dynamics(frames, seed=0, iterations=200, progress=False)
    start = Motion(model.classical, model.cells, mismatch=0.0)
    classical = frame_between(*frames, start, 0.5).image
    assert rmse(model.frame(0.5).image, middle) <= 1.1 * rmse(classical, middle)

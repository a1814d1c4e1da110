"""Latent states that grow or diffuse on the way; restarts; from coarse to fine; noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde.errors import ParameterError, UnknownNameError  # noqa: E402
from xr_spde.fields.cells import Cells  # noqa: E402
from xr_spde.fields.diffusion import diffuse  # noqa: E402
from xr_spde.latent.cases import texture  # noqa: E402
from xr_spde.latent.dynamics import LatentDynamics  # noqa: E402
from xr_spde.latent.fit import fit_latent_dynamics  # noqa: E402
from xr_spde.latent.motion import fit_motion  # noqa: E402
from xr_spde.latent.starts import first_diffusivity, first_source  # noqa: E402

TINY = {"width": 4, "depth": 2, "patch": 24, "batch": 2, "iterations": 30, "progress": False}
N = 48
Y, X = np.mgrid[0:N, 0:N] + 0.0
DRIFT = np.stack([np.full((N, N), 5.0), np.full((N, N), 2.0)])


def bell(t):
    """Brightens by two thirds while it drifts."""
    r = np.hypot(X - 20 - 5 * t, Y - 22 - 2 * t) / 14
    return (0.6 + 0.4 * t) * np.where(r < 1, (1 + np.cos(np.pi * np.minimum(r, 1))) / 2, 0)


def fading(t, kappa=1.5):
    """Texture that drifts and is smoothed."""
    wide = np.mgrid[-8 : N + 8, -8 : N + 8] + 0.0
    sharp = texture(5, wide[0] - 2 * t, wide[1] - 5 * t, waves=(6.0, 20.0))
    return diffuse(sharp, kappa, t, Cells(N + 16, N + 16))[8:-8, 8:-8]


def rmse(a, b, rim=0):
    inner = (slice(rim, N - rim),) * 2
    return float(np.sqrt(np.nanmean((a - b)[inner] ** 2)))


@pytest.fixture(scope="module")
def growing():
    return fit_latent_dynamics(
        np.stack([bell(0.0), bell(1.0)]), operator="advection-source", seed=1, **TINY
    )


def test_what_grows_is_found_by_a_source_and_not_by_advection(growing):
    frames = np.stack([bell(0.0), bell(1.0)])
    # the motion of values: that of patterns would know of the growth
    values = fit_motion(*frames, brightness="constant").velocity
    plain = fit_latent_dynamics(frames, seed=1, initial=values, **TINY)
    truth = bell(0.5)
    assert rmse(growing.frame(0.5).image, truth) < 0.25 * rmse(plain.frame(0.5).image, truth)
    assert rmse(growing.frame(0.5).image, truth) < 0.1 * rmse(frames.mean(axis=0), truth)
    bright = bell(0.5) > 0.2
    moved = np.hypot(*(growing.velocity[0] - DRIFT))
    assert moved[bright].mean() < 0.5
    # the source is laid where the bell is in the middle, in standard deviations of the images
    found = growing.source[0] * growing.scale[1]
    # (0.4 of 0.8 in the middle; it begins as a mean over some cells)
    off = found[bright] - 0.5 * truth[bright]
    assert np.sqrt(np.mean(off**2)) < 0.15 * np.sqrt(np.mean((0.5 * truth[bright]) ** 2))
    for time, image in zip((0.0, 1.0), frames, strict=True):
        np.testing.assert_allclose(growing.frame(time).image, image, atol=1e-6)


def test_the_operator_is_chosen_by_what_it_explains(tmp_path):
    frames = np.stack([bell(0.0), bell(1.0)])
    few = {**TINY, "iterations": 12, "operator": "auto", "seed": 1}
    model = fit_latent_dynamics(frames, **few)
    assert model.settings.operator == "advection-source"
    assert model.operators["advection-source"] < 0.5 * model.operators["advection"]
    assert "kept the operator advection-source" in repr(model.diagnose())
    model.save(tmp_path / "model")
    assert LatentDynamics.load(tmp_path / "model").operators == model.operators
    drifting = np.stack([texture(5, Y, X), texture(5, Y - 2, X - 5)])
    assert fit_latent_dynamics(drifting, **few).settings.operator == "advection"


def test_a_source_is_kept_and_turned_with_time(growing, tmp_path):
    assert "advection-source" in repr(growing)
    growing.save(tmp_path / "model")
    loaded = LatentDynamics.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.frame(0.3).image, growing.frame(0.3).image)
    assert repr(loaded) == repr(growing)
    back = growing.reversed()
    np.testing.assert_allclose(back.frame(0.7).image, growing.frame(0.3).image, atol=1e-6)


def test_the_first_source_is_the_rate_of_change_of_a_parcel():
    shares = np.array([0.0, 0.3, 1.0])
    rate = texture(9, Y, X, waves=(30.0, 60.0))

    def image(t):  # the rate drifts with the image and is where it is named at the middle
        there = texture(9, Y - 2 * (t - 0.5), X - 5 * (t - 0.5), waves=(30.0, 60.0))
        return texture(5, Y - 2 * t, X - 5 * t) + t * there

    found = first_source(np.stack([image(t) for t in shares]), shares, DRIFT[None],
                         periodic_x=False)  # fmt: skip
    assert rmse(found, rate, rim=8) < 0.25 * rate[8:-8, 8:-8].std()


@pytest.mark.parametrize("turned", [False, True])
def test_smoothing_is_estimated_in_either_direction(turned):
    frames = np.stack([fading(0.0), fading(1.0)])
    frames = (frames - frames.mean()) / frames.std()
    motion = DRIFT[None]
    if turned:
        frames, motion = frames[::-1], -motion
    found = first_diffusivity(frames, np.array([0.0, 1.0]), motion, periodic_x=False)
    assert found == pytest.approx(-1.5 if turned else 1.5, rel=0.15)


def test_diffusion_beats_advection_and_is_kept(tmp_path):
    frames = np.stack([fading(0.0), fading(1.0)])
    shared = {"initial": DRIFT, "seed": 1, **TINY}
    model = fit_latent_dynamics(frames, operator="advection-diffusion", **shared)
    plain = fit_latent_dynamics(frames, **shared)
    truth = fading(0.5)
    assert model.diffusivity == pytest.approx(1.5, rel=0.3)
    assert rmse(model.frame(0.5).image, truth, 6) < 0.7 * rmse(plain.frame(0.5).image, truth, 6)
    for time, image in zip((0.0, 1.0), frames, strict=True):
        np.testing.assert_allclose(model.frame(time).image, image, atol=1e-6)
    model.save(tmp_path / "model")
    loaded = LatentDynamics.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.frame(0.3).image, model.frame(0.3).image)
    turned = model.reversed()
    assert turned.diffusivity == -model.diffusivity
    np.testing.assert_allclose(turned.frame(0.7).image, model.frame(0.3).image, atol=1e-6)


def test_restarts_keep_the_best_and_tell_how_far_they_differ(tmp_path):
    frames = np.stack([texture(5, Y, X), texture(5, Y - 2, X - 5)])
    small = {**TINY, "iterations": 4, "restarts": 3, "initial": DRIFT}
    model = fit_latent_dynamics(frames, seed=2, **small)
    assert len(model.residuals) == 3
    assert model.residuals[model.seed] == min(model.residuals.values())
    assert (model.uncertainty >= model.spread).all()
    assert model.ensemble.max() > 0
    alone = fit_latent_dynamics(frames, seed=model.seed, **{**small, "restarts": 1})
    np.testing.assert_array_equal(alone.velocity, model.velocity)
    assert "best of 3 restarts" in repr(model.diagnose())
    model.save(tmp_path / "model")
    assert LatentDynamics.load(tmp_path / "model").residuals == model.residuals


@pytest.mark.slow
def test_coarser_grids_see_further():
    y, x = np.mgrid[0:64, 0:64] + 0.0
    frames = np.stack([texture(5, y, x), texture(5, y - 4, x - 9)])
    rest = {"initial": "none", "iterations": 60, "patch": 32, "depth": 2, "progress": False}
    found = [fit_latent_dynamics(frames, levels=n, seed=1, **rest).velocity[0] for n in (1, 3)]
    off = [float(np.hypot(q[0] - 9, q[1] - 4).mean()) for q in found]
    assert off[1] < 0.5 * off[0]


def test_noise_raises_the_weights_that_steady_the_motion():
    rng = np.random.default_rng(0)
    frames = np.stack([texture(5, Y, X), texture(5, Y - 2, X - 5)])
    noisy = frames + 0.5 * frames.std() * rng.standard_normal(frames.shape)
    few = {**TINY, "iterations": 2, "initial": DRIFT}
    model = fit_latent_dynamics(noisy, **few)
    assert model.noise == pytest.approx(0.45, rel=0.2)
    factor = model.settings.lam_sm / fit_latent_dynamics(noisy, noise=0.0, **few).settings.lam_sm
    assert factor == pytest.approx((model.noise / 0.1) ** 2)
    assert fit_latent_dynamics(frames, **few).settings.lam_sm == 1e-2
    # noise alone is no reason to distrust a motion, yet a wrong one is still seen
    drifted = replace(model, velocity=DRIFT[None], classical=DRIFT)
    right = np.stack([texture(5, Y, X), texture(5, Y - 2, X - 5)])
    right = right + 0.5 * right.std() * rng.standard_normal(right.shape)
    assert replace(drifted, frames=right).diagnose().ok
    assert not replace(drifted, frames=right, noise=0.0).diagnose().ok
    wrong = replace(drifted, frames=right, velocity=-DRIFT[None]).diagnose()
    assert {"image", "sides"} <= set(wrong.flags)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"operator": "wave"}, UnknownNameError, "advection-source"),
        ({"levels": 0}, ParameterError, "levels"),
        ({"restarts": 1.5}, ParameterError, "restarts"),
        ({"lam_s": -1.0}, ParameterError, "lam_s"),
    ],
)
def test_what_cannot_be_used_is_refused(change, error, match):
    frames = np.stack([bell(0.0), bell(1.0)])
    with pytest.raises(error, match=match):
        fit_latent_dynamics(frames, **{**TINY, "initial": DRIFT, **change})


def test_windows_too_small_for_the_motion_are_told_of():
    frames = np.stack([texture(5, Y, X), texture(5, Y, X - 13)])
    drift = np.stack([np.full((N, N), 13.0), np.zeros((N, N))])
    with pytest.warns(UserWarning, match="at least 26"):
        fit_latent_dynamics(frames, initial=drift, **{**TINY, "iterations": 1})


def test_files_of_the_first_format_are_read(growing, tmp_path):
    plain = replace(growing, source=None, settings=replace(growing.settings, operator="advection"))
    from xr_spde.latent import storage
    from xr_spde.nets import tensor_file

    written = {}

    def first_format(path, tensors, description):
        new = {"diffusivity", "noise", "operators", "residuals"}
        kept = {k: v for k, v in description.items() if k not in new}
        kept["settings"] = {
            k: v for k, v in kept["settings"].items() if k not in ("operator", "lam_s")
        }
        written.update(kept)
        tensor_file_write(path, tensors, {**kept, "format": 1})

    tensor_file_write = tensor_file.write_tensors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_file, "write_tensors", first_format)
        storage.save_dynamics(plain, tmp_path / "old")
    assert "noise" not in written
    loaded = LatentDynamics.load(tmp_path / "old")
    np.testing.assert_array_equal(loaded.frame(0.4).image, plain.frame(0.4).image)

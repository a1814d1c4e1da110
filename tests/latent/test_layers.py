"""Pieces of motion that cover each other: found from images alone, and their frames."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, gaussian_filter

import xr_spde  # noqa: F401
from xr_spde.fields.cells import Cells
from xr_spde.latent.baselines import baseline
from xr_spde.latent.cases import make_case
from xr_spde.latent.compare import displacement_of, endpoint_error, rmse, ssim
from xr_spde.latent.frames import frame_between
from xr_spde.latent.layers import (
    _affine,
    _divergence,
    _Division,
    _forward,
    _on_simplex,
    find_layers,
)
from xr_spde.latent.motion import Motion, fit_motion
from xr_spde.latent.textures import soft, texture

N = 72
DRIFT = (3.0, -7.0)  # y, x

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (100, 200))]


def floe(tau):
    """Cover of a floe of 18 cells, and the image of it over ground at rest."""
    y, x = np.mgrid[0:N, 0:N] + 0.5
    py, px = y - tau * DRIFT[0], x - tau * DRIFT[1]
    cover = soft(18 - np.hypot(py - 35, px - 40))
    ground = texture(12, y, x, amplitude=0.05, mean=0.25, waves=(8.0, 24.0))
    ice = texture(11, py, px, amplitude=0.12, mean=0.7)
    return cover, ground * (1 - cover) + ice * cover


def smeared(where, drift):
    """Velocity as a fit has it: blurred across an edge."""
    return np.stack([gaussian_filter(where * part, 1.5) for part in (drift[1], drift[0])])


@pytest.fixture(scope="module")
def pair():
    (first, u0), (second, u1) = floe(0.0), floe(1.0)
    return u0, u1, smeared((first + second > 0.5).astype(float), DRIFT)


@pytest.fixture(scope="module")
def layers(pair):
    return find_layers(*pair)


def test_the_floe_is_found_and_lies_in_front(pair, layers):
    centre = layers.shares[0][:, 35, 40]
    k = int(centre.argmax())
    assert len(layers.velocities) == 2
    assert centre[k] > 0.99
    assert len(layers.rims) == 1
    front = layers.rims[0].front
    assert front[k, 1 - k]
    assert front.sum() == 1
    for tau, share in zip((0.0, 1.0), layers.shares, strict=True):
        cover = floe(tau)[0]
        np.testing.assert_allclose(share.sum(axis=0), 1, atol=1e-5)
        wrong = (share[k] > 0.5) != (cover > 0.5)
        inner = binary_erosion(cover > 0.5, iterations=2) | binary_erosion(
            cover < 0.5, iterations=2
        )
        assert wrong[inner].mean() < 0.005
    np.testing.assert_allclose(layers.velocities[k][:, 20:50, 20:50].mean(axis=(1, 2)),
                               DRIFT[::-1], atol=0.1)  # fmt: skip
    assert layers.nbytes > layers.velocities.nbytes


@pytest.mark.parametrize("tau", [0.25, 0.5, 0.8])
def test_frames_show_what_the_floe_uncovers(pair, layers, tau):
    u0, u1, velocity = pair
    steady = Motion(velocity, Cells(N, N), 0.0)
    motion = Motion(velocity, Cells(N, N), 0.0, layers=layers)
    truth = floe(tau)[1]
    plain, found = (frame_between(u0, u1, m, tau) for m in (steady, motion))
    assert rmse(found.image, truth) < 0.7 * rmse(plain.image, truth)
    assert rmse(found.image, truth) < 0.15 * rmse((1 - tau) * u0 + tau * u1, truth)
    area = frame_between(u0, u1, motion, tau, blend="area")
    np.testing.assert_array_equal(area.image, plain.image)
    # ground under the floe at one end is shown by the other image alone
    covers = [floe(t)[0] for t in (0.0, tau, 1.0)]
    ground = binary_erosion(covers[1] < 0.5, iterations=3)
    behind = ground & ((covers[0] > 0.9) ^ (covers[2] > 0.9))
    assert (found.seen[behind] == 1).mean() > 0.9
    np.testing.assert_array_equal(np.isnan(found.disagreement), found.seen < 2)


def test_ends_are_the_images_and_time_may_run_backwards(pair, layers):
    u0, u1, velocity = pair
    motion = Motion(velocity, Cells(N, N), 0.0, layers=layers)
    for tau, image in ((0.0, u0), (1.0, u1)):
        np.testing.assert_allclose(frame_between(u0, u1, motion, tau).image, image, atol=1e-6)
    back = Motion(-velocity, Cells(N, N), 0.0, layers=find_layers(u1, u0, -velocity))
    there = frame_between(u0, u1, motion, 0.3).image
    for other in (back, motion.reversed()):
        np.testing.assert_allclose(frame_between(u1, u0, other, 0.7).image, there, atol=1e-4)
    later = frame_between(u0, u1, motion, 1.2, extrapolate=True).image
    assert rmse(later, floe(1.2)[1]) < 0.2 * rmse(u1, floe(1.2)[1])


def test_displacement_is_that_of_what_is_seen(pair, layers):
    velocity = pair[2]
    motion = Motion(velocity, Cells(N, N), 0.0, layers=layers)
    on = floe(0.0)[0] > 0.5
    truth = np.stack([np.where(on, DRIFT[1], 0.0), np.where(on, DRIFT[0], 0.0)])
    found = endpoint_error(displacement_of(motion), truth)
    assert found < 0.3
    assert found < 0.3 * endpoint_error(displacement_of(Motion(velocity, Cells(N, N), 0.0)), truth)


def test_gaps_stay_only_where_neither_image_sees(pair):
    u0, u1, velocity = (part.copy() for part in pair)
    u0[20:28, 50:60] = np.nan
    u1[:6] = np.nan
    layers = find_layers(u0, u1, velocity)
    motion = Motion(velocity, Cells(N, N), 0.0, layers=layers)
    found = frame_between(u0, u1, motion, 0.5)
    assert layers is not None
    assert np.isfinite(found.image).all()
    assert rmse(found.image, floe(0.5)[1]) < 0.25 * rmse((pair[0] + pair[1]) / 2, floe(0.5)[1])
    u1[20:28, 50:60] = np.nan
    found = frame_between(u0, u1, Motion(velocity, Cells(N, N), 0.0, layers=layers), 0.5)
    assert np.isnan(found.image).any()
    np.testing.assert_array_equal(np.isnan(found.image), found.seen == 0)


def test_no_layers_where_nothing_covers_anything(pair, caplog):
    u0, u1, velocity = pair
    y, x = np.mgrid[0:N, 0:N] + 0.5
    turning = np.stack([0.1 * (N / 2 - y), 0.1 * (x - N / 2)])
    assert find_layers(u0, u1, turning) is None
    with caplog.at_level("INFO", logger="xr_spde.latent.layers"):
        assert find_layers(u0, u1, velocity, periodic_x=True) is None
    assert "where x closes" in caplog.text
    # images that do not follow the motion, and a lead: the water belongs to neither floe
    other = texture(3, y, x), texture(4, y, x)
    assert find_layers(*other, velocity) is None
    case = make_case("lead_open", seed=100)
    left, right = (np.nan_to_num(case.displacement[0]) == part for part in (-4.0, 6.0))
    apart = [gaussian_filter(left * a + right * b, 2.0) for a, b in ((-4.0, 6.0), (-2.0, 3.0))]
    assert find_layers(case.u0, case.u1, np.stack(apart)) is None
    assert find_layers(case.u1, case.u0, -np.stack(apart)) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_shares_are_the_nearest_point_of_the_simplex(count, seed):
    values = np.random.default_rng(seed).normal(0, 2, (count, 4, 5)).astype(np.float32)
    found = _on_simplex(values)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    # by the optimality condition: what is kept is lowered alike, what is dropped lay lower
    lowered = np.where(found > 0, values - found, -np.inf).max(axis=0)
    np.testing.assert_allclose(
        np.where(found > 0, values - found, lowered),
        np.broadcast_to(lowered, values.shape),
        atol=1e-5,
    )
    assert (np.where(found > 0, -np.inf, values) <= lowered + 1e-5).all()


def test_division_finds_the_exact_least_cost():
    """Two pieces are a minimum cut; here by trying every division of a small image."""
    rng = np.random.default_rng(0)
    cost = rng.random((2, 3, 4)).astype(np.float32)
    part = _Division(np.zeros((3, 4), np.float32), 2)
    part.minimise(cost, 3000)
    weight = part._limit

    def energy(p):
        stack = np.stack([p, 1 - p]).astype(np.float32)
        return (cost * stack).sum() + (weight * np.sqrt((_forward(stack) ** 2).sum(axis=0))).sum()

    best = min(
        energy(np.array([(k >> i) & 1 for i in range(12)], np.float32).reshape(3, 4))
        for k in range(2**12)
    )
    # the relaxation cannot lie above the best division, and is no looser than its rounding
    assert energy(part.shares[0]) <= best + 1e-3
    assert energy((part.shares[0] > 0.5).astype(np.float32)) <= 1.1 * best
    f, p = rng.random((2, 3, 4)), rng.random((2, 2, 3, 4))
    left = (_forward(f.astype(np.float32)) * p).sum()
    assert left == pytest.approx(-(_divergence(p.astype(np.float32)) * f).sum(), rel=1e-5)


def test_a_core_in_one_line_has_no_slope_across_it():
    y, x = np.mgrid[0:20, 0:30] + 0.0
    core = y == 0
    core[0, 25:] = False
    velocity = np.stack([0.2 * x + 3.0, 0.1 * x - 0.3 * y])
    found = _affine(velocity, core)
    np.testing.assert_allclose(found[0], velocity[0], atol=1e-5)
    np.testing.assert_allclose(found[1], 0.1 * x, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 20.0), st.integers(1, 6))
def test_whatever_the_motion_shares_are_shares(seed, speed, width):
    """Blocky motions of all kinds over images that know nothing of them."""
    rng = np.random.default_rng(seed)
    u0, u1 = gaussian_filter(rng.standard_normal((2, 32, 40)), (0, 2, 2))
    blocks = np.repeat(np.repeat(rng.normal(0, speed, (2, 4, 5)), 8, axis=1), 8, axis=2)
    layers = find_layers(u0, u1, gaussian_filter(blocks, (0, width / 3, width / 3)))
    if layers is None:
        return
    for share in layers.shares:
        assert share.min() >= 0
        np.testing.assert_allclose(share.sum(axis=0), 1, atol=1e-5)
    motion = Motion(blocks, Cells(32, 40), 0.0, layers=layers)
    assert np.isfinite(frame_between(u0, u1, motion, 0.4).image).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_floe_that_turns_over_ground_at_rest(seed):
    case = make_case("floe_rot", seed=seed)
    motion, back = fit_motion(case.u0, case.u1), fit_motion(case.u1, case.u0)
    truth = case.frame(0.5)
    found = frame_between(case.u0, case.u1, motion, 0.5).image
    assert ssim(found, truth, data_range=1.0) >= 0.965
    assert rmse(found, truth) <= 0.3 * rmse((case.u0 + case.u1) / 2, truth)
    assert endpoint_error(displacement_of(motion), case.displacement) <= 0.3
    for tau, image in ((0.0, case.u0), (1.0, case.u1)):
        ends = frame_between(case.u0, case.u1, motion, tau).image
        np.testing.assert_allclose(ends, image, atol=1e-6)
    reversed_ = frame_between(case.u1, case.u0, back, 0.7).image
    there = frame_between(case.u0, case.u1, motion, 0.3).image
    np.testing.assert_allclose(reversed_, there, atol=1e-4)
    pytest.importorskip("cv2")
    peer, _ = baseline(case.u0, case.u1, 0.5, method="dis-splat")
    assert rmse(found, truth) < rmse(peer, truth)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lead_that_closes_is_one_that_opens_backwards(seed):
    opening, closing = (make_case(name, seed=seed) for name in ("lead_open", "lead_close"))
    ahead, back = (fit_motion(c.u0, c.u1) for c in (opening, closing))
    for tau in (0.25, 0.5):
        one = frame_between(opening.u0, opening.u1, ahead, tau).image
        other = frame_between(closing.u0, closing.u1, back, 1 - tau).image
        assert rmse(one, other) <= 1e-3
    truth = closing.frame(0.5)
    assert ssim(other, truth, data_range=1.0) >= 0.985
    assert rmse(other, truth) <= 0.41 * rmse((closing.u0 + closing.u1) / 2, truth)
    assert endpoint_error(displacement_of(back), closing.displacement) <= 0.15
    # water is 0.12 +- 0.02, ice 0.62 +- 0.12: what lies below is water or, rarely, dark ice
    width = (other < 0.35).sum(axis=1).mean()
    assert width == pytest.approx(6.5, abs=1.0)


@pytest.mark.filterwarnings("ignore:the motion reaches")
def test_labelled_frames_have_the_layers_of_their_pair():
    dask = pytest.importorskip("dask")
    case = make_case("floe_rot", 96, seed=100)
    frames = xr.DataArray([case.u0, case.u1], {"time": [0.0, 1.0]}, ("time", "y", "x"))
    with pytest.warns(UserWarning, match="no units"):
        motion = frames.latent.velocity()
    found = {b: frames.latent.interpolate(0.5, motion=motion, blend=b) for b in ("auto", "area")}
    fitted = fit_motion(case.u0, case.u1)
    assert fitted.layers is not None
    for blend, image in found.items():
        direct = frame_between(case.u0, case.u1, fitted, 0.5, blend=blend).image
        np.testing.assert_allclose(image, direct, atol=1e-6)
    assert rmse(found["auto"], case.frame(0.5)) < rmse(found["area"], case.frame(0.5))
    lazy = frames.chunk(time=1).latent.interpolate([0.25, 0.5], motion=motion)
    assert dask.is_dask_collection(lazy)
    np.testing.assert_allclose(lazy[1].to_numpy(), found["auto"].to_numpy(), atol=1e-6)

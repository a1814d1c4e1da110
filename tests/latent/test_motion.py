"""Motion and frames between two images, against cases whose middle is known."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure, nodes
from xr_spde.fields.sampling import sample
from xr_spde.latent.cases import CASES, make_case
from xr_spde.latent.frames import expected_blend, frame_between
from xr_spde.latent.motion import Motion, fit_motion
from xr_spde.latent.pyramid import Pair, noise_ratio, shapes
from xr_spde.latent.textures import texture
from xr_spde.latent.tgv import Regulariser


def rmse(a, b):
    return np.sqrt(np.nanmean((a - b) ** 2))


def endpoint_error(motion, case):
    y, x = departure(motion.velocity, -1.0)
    rows, columns = nodes(y, y.shape)
    return np.nanmean(np.hypot(*(np.stack([x - columns, y - rows]) - case.displacement)))


def to_linear(case, motion, tau=0.5):
    """Error in the middle over that of the linear blend."""
    truth = case.frame(tau)
    blend = (1 - tau) * case.u0 + tau * case.u1
    return rmse(frame_between(case.u0, case.u1, motion, tau).image, truth) / rmse(blend, truth)


# case, largest ratio to the linear blend, largest endpoint error in pixels
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (100, 200))]
SMALL = [
    ("tex_rot", 0.4, 0.5),
    ("swirl", 0.36, 0.5),
    ("lead_open", 0.41, 0.3),
]


@pytest.mark.parametrize(("name", "ratio", "error"), SMALL)
def test_small_cases_reach_their_middle(name, ratio, error):
    case = make_case(name, 64, seed=100)
    motion = fit_motion(case.u0, case.u1)
    assert to_linear(case, motion) <= ratio
    assert endpoint_error(motion, case) <= error


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "ratio", "error"),
    [("swirl", 0.36, 0.5), ("lead_open", 0.41, 0.15), ("tex_rot", 0.4, 0.5),
     ("floe_rot", 0.42, 0.9),
     pytest.param("lead_close", 0.41, 0.15, marks=pytest.mark.long)],
)  # fmt: skip
def test_cases_of_the_specification(name, ratio, error, seed):
    case = make_case(name, seed=seed)
    motion = fit_motion(case.u0, case.u1)
    assert to_linear(case, motion) <= ratio
    assert endpoint_error(motion, case) <= error


@pytest.fixture(scope="module")
def drifting():
    y, x = np.mgrid[0:40, 0:48] + 0.0
    return texture(5, y, x), texture(5, y + 1.5, x - 3.0)


@pytest.fixture(scope="module")
def drift(drifting):
    return fit_motion(*drifting)


def test_a_drift_is_found_and_exchanging_the_images_reverses_it(drifting, drift):
    inner = drift.velocity[:, 4:-4, 4:-4]
    np.testing.assert_allclose(np.median(inner, axis=(1, 2)), [3.0, -1.5], atol=0.05)
    back = fit_motion(drifting[1], drifting[0])
    np.testing.assert_allclose(back.velocity, -drift.velocity, atol=1e-4)
    there = frame_between(*drifting, drift, 0.3).image
    again = frame_between(drifting[1], drifting[0], back, 0.7).image
    np.testing.assert_allclose(there, again, atol=1e-4)


def test_another_level_of_brightness_is_seen_through(drifting, drift):
    motion = fit_motion(drifting[0], 1.2 * drifting[1] + 3.0)
    assert (drift.brightness, motion.brightness) == ("constant", "varying")
    inner = np.abs(motion.velocity - drift.velocity)[:, 6:-6, 6:-6]
    assert inner.mean() < 0.2


def test_ends_are_the_images_and_times_outside_are_asked_for(drifting, drift):
    for tau, image in zip((0.0, 1.0), drifting, strict=True):
        np.testing.assert_allclose(frame_between(*drifting, drift, tau).image, image, atol=1e-6)
    with pytest.raises(ParameterError, match="extrapolate=True"):
        frame_between(*drifting, drift, 1.2)
    y, x = np.mgrid[0:40, 0:48] + 0.0
    later = frame_between(*drifting, drift, 1.2, extrapolate=True)
    inner = (slice(6, -6), slice(6, -6))
    assert np.abs(later.image - texture(5, y + 1.8, x - 3.6))[inner].max() < 0.02


def test_gaps_travel_and_stay_only_where_neither_sees(drifting, drift):
    first, second = drifting[0].copy(), drifting[1].copy()
    first[10:18] = np.nan
    second[:, 20:26] = np.nan
    motion = fit_motion(first, second)
    assert np.abs(motion.velocity - drift.velocity)[:, 6:-6, 6:-6].max() < 0.3
    middle = frame_between(first, second, motion, 0.5)
    whole = frame_between(*drifting, drift, 0.5).image
    missing = np.isnan(middle.image)
    assert missing.any()
    np.testing.assert_array_equal(missing, middle.seen == 0)
    # the gap of the first has moved up by 0.75, that of the second is still 1.5 to the left
    rows, columns = np.nonzero(missing[6:-6, 6:-6])
    assert set(rows + 6) <= set(range(8, 18))
    assert set(columns + 6) <= set(range(17, 26))
    assert np.nanmax(np.abs(middle.image - whole)[6:-6, 6:-6]) < 0.03
    everything = frame_between(first, second, motion, 0.0)
    np.testing.assert_allclose(everything.image[:10], first[:10], atol=1e-6)
    assert np.isfinite(everything.image[12:16, :18]).any()


def test_latitude_is_taken_by_length_and_a_seam_is_nowhere():
    n = 64
    y, x = np.mgrid[0:32, 0:n] + 0.0
    turn = 2 * np.pi / n

    def image(shift):
        return np.sin(3 * turn * (x - shift) + 0.3 * y) + np.cos(7 * turn * (x - shift) - 0.2 * y)

    cells = Cells(32, n, 1.0, np.linspace(1.0, 0.5, 32), True)
    motion = fit_motion(image(0.0), image(2.5), cells)
    np.testing.assert_allclose(motion.velocity[0], 2.5, atol=0.1)
    assert rmse(frame_between(image(0.0), image(2.5), motion, 0.5).image, image(1.25)) < 0.01


def test_expected_blend_of_a_process_of_known_memory():
    rng = np.random.default_rng(0)
    shape, g = (64, 64), 0.36
    first = rng.standard_normal(shape)
    middle = g**0.5 * first + (1 - g) ** 0.5 * rng.standard_normal(shape)
    second = g**0.5 * middle + (1 - g) ** 0.5 * rng.standard_normal(shape)
    found = rmse(expected_blend(first, second, 0.5), middle)
    # variance left by both neighbours of a process of the first order
    assert found == pytest.approx(np.sqrt((1 - g) / (1 + g)), rel=0.05)
    assert found < rmse((first + second) / 2, middle)
    np.testing.assert_allclose(expected_blend(first, first, 0.3), first, atol=1e-4)
    np.testing.assert_allclose(expected_blend(first, first + 2, 0.3), first + 0.6, atol=1e-4)


def test_expected_frames_of_what_does_not_change_are_the_same(drifting, drift):
    plain = frame_between(*drifting, drift, 0.5)
    expected = frame_between(*drifting, drift, 0.5, blend="expected")
    assert rmse(expected.image, plain.image) < 0.005
    with pytest.raises(UnknownNameError, match="expected"):
        frame_between(*drifting, drift, 0.5, blend="best")


@pytest.mark.slow
def test_noise_is_told_and_smooths_more():
    case = make_case("speckle", seed=100)
    assert noise_ratio(case.u0, case.u1) > 0.3
    assert noise_ratio(case.frame(0.0), case.frame(1.0)) < 0.02
    motion = fit_motion(case.u0, case.u1)
    assert endpoint_error(motion, case) <= 0.35


@pytest.mark.slow
def test_growing_patterns_are_followed_when_brightness_may_vary():
    case = make_case("growth", seed=100)
    plain, free = (
        fit_motion(case.u0, case.u1, brightness=kind, starts=["zero", "match"])
        for kind in ("constant", "varying")
    )
    middle = [rmse(frame_between(case.u0, case.u1, m, 0.5).image, case.frame(0.5))
              for m in (plain, free)]  # fmt: skip
    assert middle[1] < 0.003
    assert middle[1] < middle[0] / 3


def test_motion_that_reaches_the_search_is_told():
    y, x = np.mgrid[0:40, 0:40] + 0.0
    with pytest.warns(UserWarning, match="as far as was searched"):
        motion = fit_motion(texture(5, y, x), texture(5, y, x - 3.0), search=0.07)
    assert motion.beyond_search
    assert motion.reversed().velocity[0].mean() < 0


def test_a_given_start_and_types(drifting):
    first, second = (image.astype(np.float32) for image in drifting)
    start = np.stack([np.full((40, 48), 3.0), np.full((40, 48), -1.5)])
    motion = fit_motion(first, second, starts=[start])
    assert motion.velocity.dtype == np.float32
    assert list(motion.starts) == ["given 0"]
    assert frame_between(first, second, motion, 0.5).image.dtype == np.float32
    counts = (100 * drifting[0]).astype(np.uint8), (100 * drifting[1]).astype(np.uint8)
    assert fit_motion(*counts, starts=["zero"]).velocity.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u1": np.zeros((40, 47))}, "same"),
        ({"u0": np.full((40, 48), np.nan)}, "no data"),
        ({"u1": np.ones((40, 48))}, "constant"),
        ({"u0": np.full((40, 48), np.inf)}, "infinite"),
        ({"search": 0.0}, "search"),
        ({"smoothness": -1.0}, "smoothness"),
        ({"starts": []}, "empty"),
        ({"starts": [np.zeros((2, 4, 4))]}, "x component first"),
        ({"cells": Cells(4, 4)}, "cells of shape"),
        ({"u0": np.zeros((40, 48), complex)}, "real numbers"),
    ],
)
def test_what_cannot_be_used_is_refused(drifting, change, message):
    given = {"u0": drifting[0], "u1": drifting[1]} | change
    with pytest.raises(ParameterError, match=message):
        fit_motion(**given)


def test_unknown_names(drifting):
    with pytest.raises(UnknownNameError, match="'match'"):
        fit_motion(*drifting, starts=["matsch"])
    with pytest.raises(UnknownNameError, match="varying"):
        fit_motion(*drifting, brightness="vary")
    with pytest.raises(UnknownNameError, match="did you mean 'swirl'"):
        make_case("swirls")
    with pytest.raises(ParameterError, match="for a motion on"):
        frame_between(*drifting, Motion(np.zeros((2, 8, 8)), Cells(8, 8), 0.0), 0.5)


@pytest.mark.parametrize("name", list(CASES))
def test_cases_move_as_they_say(name):
    case = make_case(name, 32 if name != "growth" else 128, seed=3)
    assert case.u0.shape == case.u1.shape
    if name in ("speckle", "floe_rot", "lead_open", "lead_close", "growth", "bell_rot"):
        return  # noise, cover or growth: no value is simply carried
    y, x = nodes(case.u0, case.u0.shape)
    ty, tx = np.nan_to_num(y + case.displacement[1]), np.nan_to_num(x + case.displacement[0])
    there = sample(case.frame(1.0), ty, tx)
    off = np.abs(there - case.frame(0.0))[np.isfinite(case.displacement[0])]
    assert np.nanmedian(off) < 0.02


def test_known_errors_of_the_linear_blend():
    """Figures of the specification, which tell that the cases are the same."""
    known = {"tex_rot": 0.0964, "swirl": 0.0943, "lead_open": 0.0613, "floe_rot": 0.0596,
             "speckle": 0.1651, "growth": 0.0431, "bell_rot": 0.0851}  # fmt: skip
    for name, value in known.items():
        case = make_case(name)
        assert rmse((case.u0 + case.u1) / 2, case.frame(0.5)) == pytest.approx(value, abs=6e-5)


def test_levels_and_the_steps_of_the_regulariser():
    assert shapes((128, 128)) == [(16, 16), (32, 32), (64, 64), (128, 128)]
    assert shapes((20, 300))[0] == (20, 300)
    pair = Pair.of(np.eye(16), np.eye(16)[::-1])
    assert pair.coarser(pair.shape) is pair
    # minus the divergence is the adjoint of the differences, also with slopes
    rng = np.random.default_rng(0)
    slopes = rng.random(7), rng.random(7)
    one = Regulariser((7, 9), slope_x=slopes[0], slope_y=slopes[1])
    f, p = rng.random((2, 7, 9)), rng.random((2, 2, 7, 9))
    left = (one._forward(f.astype(np.float32)) * p).sum()
    right = -(one._divergence(p.astype(np.float32)) * f).sum()
    assert left == pytest.approx(right, rel=1e-5)


def test_without_data_an_affine_motion_stays():
    y, x = np.mgrid[0:12, 0:14].astype(np.float32)
    affine = np.stack([0.1 * x - 0.2 * y, 0.2 * x + 0.05 * y]).astype(np.float32)
    one = Regulariser((12, 14))
    one.w = np.broadcast_to(
        np.float32([[0.1, 0.2], [-0.2, 0.05]])[..., None, None], (2, 2, 12, 14)
    ).copy()
    zero = np.zeros((12, 14), np.float32)
    out = one.step(affine, zero, np.stack([zero, zero]), zero, iterations=30, reach=1.0)
    np.testing.assert_allclose(out[:, 3:-3, 3:-3], affine[:, 3:-3, 3:-3], atol=0.05)

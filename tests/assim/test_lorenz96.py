"""Filters keep track of a chaotic model; figures over long runs: benchmarks/lorenz96.py."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.assim.filters import analyse
from xr_spde.assim.letkf import letkf
from xr_spde.assim.localization import on_ring
from xr_spde.assim.model_noise import add_noise

RING = on_ring(np.arange(40), 40)


def tendency(x):
    return (np.roll(x, -1, -1) - np.roll(x, 2, -1)) * np.roll(x, 1, -1) - x + 8.0


def forecast(x, step=0.05):
    a = tendency(x)
    b = tendency(x + 0.5 * step * a)
    c = tendency(x + 0.5 * step * b)
    d = tendency(x + step * c)
    return x + step / 6 * (a + 2 * b + 2 * c + d)


def error(size, analysis, *, noise=0.0, how="deterministic", cycles=900, seed=1):
    """Mean RMSE of the analysis after 400 cycles; unit observations of all 40 variables."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(40) * 0.03
    truth[0] += 1.0
    members = truth + 0.03 * rng.standard_normal((size, 40))
    errors = []
    for _ in range(cycles):
        truth = forecast(truth) + np.sqrt(noise) * rng.standard_normal(40)
        y = truth + rng.standard_normal(40)
        members = forecast(members)
        if noise:
            members = add_noise(members, noise, how=how, seed=rng)
        members = analysis(members, y, rng)
        errors.append(np.sqrt(np.mean((members.mean(axis=0) - truth) ** 2)))
    return np.mean(errors[400:])


@pytest.mark.slow
def test_etkf_and_letkf():
    def etkf(members, y, rng):
        return analyse(members, members, y, 1.0, inflation=1.013, rotate=True, seed=rng)

    def local(members, y, rng):
        return letkf(
            members, members, y, 1.0, points=RING, sites=RING, radius=3.64 * 4, inflation=1.04,
            rotate=True, seed=rng,
        )  # fmt: skip

    # 0.18 and 0.22 over thousands of cycles; 0.95 for interpolation, 3.6 for climatology
    assert error(24, etkf) < 0.26
    assert error(7, local) < 0.3


@pytest.mark.slow
def test_noise_in_the_square_root_beats_sampled_noise():
    def etkf(members, y, rng):
        return analyse(members, members, y, 1.0, method="etkf-q")

    rooted = error(30, etkf, noise=0.0025)
    assert rooted < 0.4
    assert error(30, etkf, noise=0.0025, how="sampled") > rooted

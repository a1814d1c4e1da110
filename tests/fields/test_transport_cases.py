"""Acceptance of the evolution operators on cases with a formula: textures, amounts on a sphere."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde.fields.cells import Cells
from xr_spde.fields.transport import Advection, Conservation
from xr_spde.latent.cases import make_case
from xr_spde.latent.cases_in_time import divergent

N = 128


@pytest.mark.parametrize("seed", [0, 100])
def test_swirl_with_its_velocity(seed):
    case = make_case("swirl", N, seed)
    y, x = (np.mgrid[0:N, 0:N] + 0.5) * (np.pi / N)
    q = 0.2 * N * np.stack([np.sin(x) ** 2 * np.sin(2 * y), -(np.sin(y) ** 2) * np.sin(2 * x)])
    errors = []
    for steps in (4, 8):
        out = Advection(steps=steps).evolve(case.u0, {"velocity": q}, 1.0, Cells(N, N))
        errors.append(np.sqrt(np.mean((out - case.u1) ** 2)))
    assert errors[1] <= 0.001
    assert errors[0] / errors[1] >= 3.3


def test_amounts_of_the_divergent_case():
    y, x = np.mgrid[0:N, 0:N] + 0.5 - N / 2
    start, params = divergent(0.0, N), {"velocity": 0.5 * np.stack([x, y])}
    for scheme in ("weno5", "splat"):
        out = Conservation(scheme).evolve(start, params, 1.0, Cells(N, N))
        assert abs(out.sum() / start.sum() - 1) <= 1e-10
    carried = Advection().evolve(start, params, 1.0, Cells(N, N))
    truth = divergent(1.0, N) * np.exp(1.0)  # values stay, amounts thin out by exp(-2 rate)
    assert np.sqrt(np.mean((carried - truth) ** 2)) <= 0.005


def test_amounts_on_the_sphere_grow_where_meridians_meet():
    """Northward at one speed: what lies between two meridians is kept, the width falls."""
    radius, speed, seconds = 6_371_000.0, 1.0, 4 * 86_400.0

    def error(step, scheme):
        latitude = np.radians(np.arange(60.0 + step / 2, 80.0, step))
        metre = radius * np.radians(step)
        cells = Cells(latitude.size, 12, metre, metre * np.cos(latitude))

        def amount(phi):
            return np.exp(-(((phi - np.radians(66)) / np.radians(2)) ** 2))

        before = latitude - speed * seconds / radius
        truth = amount(before) * np.cos(before) / np.cos(latitude)
        ones = np.ones(cells.shape)
        q = cells.to_cells(0 * ones, speed * ones, seconds=seconds)
        state = amount(latitude)[:, None] * ones
        out = Conservation(scheme).evolve(state, {"velocity": q}, 1.0, cells)
        return np.abs(out[:, 6] - truth)[3:-3].max()

    assert error(0.25, "jacobian") <= 0.001
    assert error(0.25, "weno5") <= 0.005
    assert error(0.5, "weno5") / error(0.25, "weno5") >= 2

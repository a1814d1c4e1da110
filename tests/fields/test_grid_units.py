"""Parameters in cells and steps give the same prior as those in metres and days."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError
from xr_spde.fields.grid_units import from_grid_units, to_grid_units
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.nets.spde_stencil import THETA

SHAPE = (5, 7)
HOW = {"dx": 9e3, "dy": 11e3, "dt": 0.7}


def physical(seed, land=None):
    rng = np.random.default_rng(seed)
    full = (3, *SHAPE)
    return SpdeParameters.of(
        SHAPE, kappa=rng.uniform(0.5, 0.6, full), tau=3e3 * rng.uniform(0.95, 1.05, full),
        m1=1e3 * rng.standard_normal(full), m2=1e3 * rng.standard_normal(full),
        v1=rng.uniform(-1, 1, full), v2=rng.uniform(-1, 1, full), gamma=2e8, beta=3e8, land=land,
    )  # fmt: skip


@pytest.mark.parametrize("alpha", [2, 4])
def test_same_precision_on_unit_cells(alpha):
    parameters, scale = physical(0), 0.3
    theta = to_grid_units(parameters, alpha=alpha, scale=scale, **HOW)
    unit = SpdeParameters.of(SHAPE, **dict(zip(THETA, theta, strict=True)))
    wanted = SpaceTime(
        SpdeOperator(Mesh.of(SHAPE, dx=HOW["dx"], dy=HOW["dy"])),
        parameters, steps=3, dt=HOW["dt"], alpha=alpha,
    )  # fmt: skip
    found = SpaceTime(SpdeOperator(Mesh.of(SHAPE)), unit, steps=3, alpha=alpha)
    full = wanted.precision().toarray() * scale**2
    size = abs(full).max()
    np.testing.assert_allclose(found.precision().toarray(), full, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("alpha", [2, 4])
def test_there_and_back(alpha):
    land = np.zeros(SHAPE, bool)
    land[2, 3] = True
    parameters = physical(1, land)
    spacing = HOW | {"dx": 9e3 * np.linspace(1.0, 0.8, SHAPE[0])[:, None]}
    theta = to_grid_units(parameters, alpha=alpha, scale=0.2, **spacing)
    theta[:, :, land] = np.nan
    back = from_grid_units(theta, alpha=alpha, scale=0.2, land=land, **spacing)
    for name in ("kappa", "tau", "m1", "m2"):
        known, found = getattr(parameters, name), getattr(back, name)
        np.testing.assert_allclose(found[:, ~land], known[:, ~land], rtol=1e-12)
    for one, other in zip(back.tensor(1), parameters.tensor(1), strict=True):
        np.testing.assert_allclose(one[~land], other[~land], rtol=1e-10, atol=1e-3)


def test_refused():
    with pytest.raises(ParameterError, match="scale"):
        to_grid_units(physical(0), alpha=2, scale=0.0, **HOW)
    with pytest.raises(ParameterError, match="theta has shape"):
        from_grid_units(np.ones((7, 1, *SHAPE)), alpha=2, **HOW)

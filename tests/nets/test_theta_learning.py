"""Check C5: parameters learned from observations alone beat the best constant ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import xr_spde
from xr_spde.fields.mesh import Mesh
from xr_spde.fields.spde import SpdeOperator
from xr_spde.fields.spde_fit import fit
from xr_spde.nets.spde_stencil import THETA, tensor_of
from xr_spde.nets.theta_losses import likelihood_loss
from xr_spde.nets.theta_solver import ThetaSolver
from xr_spde.nets.variational import VariationalSolver
from xr_spde.nets.variational_window import Window

SIDE, STEPS, TRAIN, TEST, ERROR = 24, 5, 160, 32, 1e-3


def part(data, index):
    window = Window(*(getattr(data.window, n)[index] for n in ("obs", "mask", "variance", "sea")))
    return window, data.mean[index], data.truth[index]


def seen_along_diagonals(truth, rng):
    """The mask of the source with another place of the tracks in every window."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    masks = np.empty(truth.shape, bool)
    for mask in masks:
        first, second = rng.integers(0, SIDE, 2)
        for t, now in enumerate(mask):
            now[:] = (columns - rows - 5 * t + first) % SIDE < 2
            now |= (columns + rows - 5 * t + second) % SIDE < 2
    return masks, truth + ERROR**0.5 * rng.standard_normal(truth.shape)


@pytest.fixture(scope="module")
def world():
    """Windows of the non-stationary process, their interpolation with the constant fit."""
    made = xr_spde.synthetic.spacetime_field(
        (SIDE, SIDE), steps=STEPS, preset="diff", alpha=2, runs=TRAIN + TEST, seed=3
    )
    fields, rng = made.field.values, np.random.default_rng(0)
    masks, obs = seen_along_diagonals(fields, rng)
    scale = fields[:TRAIN].std()
    operator = SpdeOperator(Mesh.of((SIDE, SIDE)))
    found = fit(operator, fields[:32] / scale, alpha=2, stderr=False)
    constants = {name: float(getattr(found.parameters, name)[0, 0, 0]) for name in THETA}
    solver = VariationalSolver(STEPS, iterations=8, alpha=2, theta=constants, hidden=4).eval()
    sea = torch.ones(len(fields), SIDE, SIDE, dtype=torch.bool)
    whole = Window(torch.tensor(obs / scale).float(), torch.tensor(masks),
                   torch.full(fields.shape, ERROR / scale**2), sea)  # fmt: skip
    with torch.no_grad():
        mean = solver(whole)
    data = SimpleNamespace(window=whole, mean=mean, truth=torch.tensor(fields / scale).float())
    known = torch.tensor(np.stack([made[name].values for name in THETA])[None, :, None]).float()
    known[:, 1] /= scale
    numbers = torch.tensor([constants[name] for name in THETA])[None, :, None, None, None]
    return SimpleNamespace(data=data, constants=constants, true=known, constant=numbers)


def loss(theta, truth):
    theta = theta.expand(len(truth), -1, -1, SIDE, SIDE)
    sea = torch.ones_like(truth[:, 0], dtype=torch.bool)
    # given the first step: a third of the work
    return likelihood_loss(theta, truth, sea, alpha=2, initial="given")


def trained(world, steps, *, oracle=False):
    """Likelihood for each value and correlation of H11, both of windows that were held out."""
    torch.manual_seed(0)
    net = ThetaSolver(
        STEPS, alpha=2, iterations=2, hidden=12, theta=world.constants,
        free=["kappa", "tau", "gamma"], oracle_theta=oracle,
    )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps, pct_start=0.1)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        window, mean, truth = part(world.data, torch.tensor(rng.choice(TRAIN, 8, replace=False)))
        value = loss(net(window, mean, oracle=truth if oracle else None), truth)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    window, mean, truth = part(world.data, slice(TRAIN, None))
    with torch.no_grad():
        theta = net.eval()(window, mean, oracle=truth if oracle else None)
    h11 = tensor_of(theta)[0].ravel(), tensor_of(world.true)[0].expand(len(truth), -1, -1, -1)
    return float(loss(theta, truth)), np.corrcoef(h11[0], h11[1].ravel())[0, 1]


def test_learned_from_observations_and_by_the_oracle(world):
    truth = world.data.truth[TRAIN:]
    best, constant = float(loss(world.true, truth)), float(loss(world.constant, truth))
    learned, correlation = trained(world, 80)
    assert best < learned < constant - 0.5 * (constant - best)
    assert correlation >= 0.7
    oracle, more = trained(world, 80, oracle=True)
    assert best < oracle < learned
    assert more > correlation

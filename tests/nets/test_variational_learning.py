"""The solver against exact interpolation: in one step with the exact inverse, and trained (C1, C3).

Scores are ratios to the exact posterior mean of the same windows. The ratio of the cost hides what
is missing, as observations dominate it far from the minimum (C4): it is asked for together with
those of error and explained variance.
"""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from xr_spde.fields.interpolation import SpaceTimePosterior  # noqa: E402
from xr_spde.fields.mesh import Mesh  # noqa: E402
from xr_spde.fields.spacetime import SpaceTime  # noqa: E402
from xr_spde.fields.spde import SpdeOperator, SpdeParameters  # noqa: E402
from xr_spde.nets.stationary import CHANNELS  # noqa: E402
from xr_spde.nets.variational import VariationalSolver  # noqa: E402
from xr_spde.nets.variational_losses import interpolation_loss  # noqa: E402
from xr_spde.nets.variational_window import Window  # noqa: E402

N, STEPS, VARIANCE = 24, 5, 1e-3


class ExactInverse(nn.Module):
    """In place of the ConvLSTM: what makes the last direction the exact Newton step."""

    def __init__(self, problem, parts):
        super().__init__()
        shape = problem.observed.shape
        basis = torch.eye(problem.observed.numel(), dtype=torch.float64)
        columns = [problem.product(one.reshape(shape)).ravel() for one in basis]
        hessian = torch.stack(columns, 1)
        land = (problem.sea.expand(shape) == 0.0).ravel()
        self.inverse = torch.linalg.inv(hessian + torch.diag(land.double()))
        self.parts = parts

    def forward(self, inputs, state):
        ny, nx = inputs.shape[-2:]
        g = inputs[:, :3]
        newton = (self.inverse @ g.ravel()).reshape(g.shape)
        zero = inputs.new_zeros(1, 1, ny, nx)
        return torch.cat([-g, newton] if self.parts == 2 else [newton], 1), (zero, zero)


@pytest.mark.parametrize("alpha", [2, 4])
@pytest.mark.parametrize("preconditioner", ["none", "stationary"])
def test_the_exact_inverse_interpolates_in_one_step(alpha, preconditioner):
    shape, draw = (6, 8), np.random.default_rng(3)
    land = np.zeros(shape, bool)
    land[2:4, 3:5] = True
    values = {name: draw.uniform(0.8, 1.2, (3, *shape)) for name in ("kappa", "gamma", "beta")}
    values |= {name: 0.1 * draw.standard_normal((3, *shape)) for name in ("m1", "m2", "v1", "v2")}
    parameters = SpdeParameters.of(shape, tau=1.2, **values)
    prior = SpaceTime(SpdeOperator(Mesh.of(shape, land=land)), parameters, steps=3, alpha=alpha)
    seen = (draw.random((3, *shape)) < 0.3) & ~land
    obs, noise = draw.standard_normal(seen.shape), draw.uniform(0.01, 0.1, seen.shape)
    nodes = np.flatnonzero(seen)
    rows = sp.csr_array(sp.eye_array(seen.size, format="csr")[nodes])
    exact = SpaceTimePosterior(prior, rows, noise.ravel()[nodes])
    mean = exact.mean(obs.ravel()[nodes])

    theta = np.stack([np.broadcast_to(getattr(parameters, n), seen.shape) for n in CHANNELS])
    theta[:, :, land] = np.nan
    theta = torch.as_tensor(theta)[None]
    window = Window(*(torch.as_tensor(a)[None] for a in (obs, seen, noise, ~land)))
    solver = VariationalSolver(3, iterations=1, alpha=alpha, preconditioner=preconditioner)
    problem = solver.problem(window, theta)
    solver.lstm = ExactInverse(problem, 1 if preconditioner == "none" else 2)
    with torch.no_grad():
        x = solver(window, theta)
    assert np.abs(x[0].numpy() - mean).max() < 1e-8
    least = exact.cost(mean.ravel(), obs.ravel()[nodes])
    assert np.isclose(float(solver.cost(x, window, theta)), least, rtol=1e-10)


@cache
def world(alpha, *, train=300, test=32):
    """Draws of the stationary process under stripes, with their exact interpolation."""
    y, x = np.indices((N, N))
    seen = np.stack([((x - y - 5 * t) % N < 2) | ((x + y - 5 * t) % N < 2) for t in range(STEPS)])
    mesh = Mesh.of((N, N), boundary="dirichlet")
    prior = SpaceTime(SpdeOperator(mesh), SpdeParameters.of((N, N), kappa=0.33), steps=STEPS,
                      alpha=alpha)  # fmt: skip
    noise = np.random.default_rng(1).standard_normal((train + test, STEPS, N * N))
    truth = prior.sample(noise).reshape(-1, STEPS, N, N)
    nodes = np.flatnonzero(seen)
    rows = sp.csr_array(sp.eye_array(seen.size, format="csr")[nodes])
    posterior = SpaceTimePosterior(prior, rows, np.full(nodes.size, VARIANCE))
    values = truth[train:].reshape(test, -1)[:, nodes]
    return SimpleNamespace(
        seen=torch.as_tensor(seen), train=torch.as_tensor(truth[:train]).float(),
        truth=truth[train:], exact=posterior.mean(values), nodes=nodes, values=values, prior=prior,
    )  # fmt: skip


def window_of(truth, seen):
    sea = torch.ones(len(truth), N, N, dtype=torch.bool)
    return Window(truth, seen.expand(truth.shape), torch.full_like(truth, VARIANCE), sea)


def scores(found, x):
    """Error, explained variance and cost over those of the exact interpolation."""
    errors = [np.mean((one - found.truth) ** 2) for one in (x, found.exact)]
    power, costs = np.mean(found.truth**2), []
    for one in (x, found.exact):
        flat = one.reshape(len(one), -1)
        misfit = ((found.values - flat[:, found.nodes]) ** 2).sum(1) / VARIANCE
        costs.append(misfit + found.prior.mahalanobis(flat.T))
    return {
        "mse": errors[0] / errors[1],
        "ev": (1 - errors[0] / power) / (1 - errors[1] / power),
        "j": float(np.mean(costs[0] / costs[1])),
    }


def solved(found, solver):
    with torch.no_grad():
        x = solver.eval()(window_of(torch.as_tensor(found.truth).float(), found.seen))
    return scores(found, x.double().numpy())


def conjugate(found, alpha, iterations):
    """Conjugate gradients with the diagonal of the Hessian, in double precision."""
    solver = VariationalSolver(STEPS, alpha=alpha, boundary="dirichlet")
    problem = solver.problem(window_of(torch.as_tensor(found.truth), found.seen))
    diagonal = torch.as_tensor(found.prior.precision().diagonal()).reshape(STEPS, N, N)
    diagonal, dot = diagonal + problem.precision, partial(torch.sum, dim=(1, 2, 3), keepdim=True)
    x = torch.zeros_like(problem.observed)
    g = problem.gradient(x, create_graph=False)
    p, old = g / diagonal, dot(g * g / diagonal)
    for _ in range(iterations):
        q = problem.product(p)
        length = old / dot(p * q)
        x, g = x - length * p, g - length * q
        new = dot(g * g / diagonal)
        p, old = g / diagonal + new / old * p, new
    return scores(found, x.numpy())


def train(found, alpha, loss, steps, rate=4e-3, **options):
    """Train with ten iterations in batches of eight, as the specification says."""
    torch.manual_seed(0)
    solver = VariationalSolver(STEPS, iterations=10, hidden=16, alpha=alpha, boundary="dirichlet",
                               **options)  # fmt: skip
    optimizer = torch.optim.Adam(solver.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = np.random.default_rng(2)
    for _ in range(steps):
        truth = found.train[draw.integers(0, len(found.train), 8)]
        window = window_of(truth, found.seen)
        x = solver(window)
        known = (x - truth).square().mean().log()
        value = known if loss == "mse" else interpolation_loss(solver, x, window)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(solver.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return solver


@pytest.mark.slow
def test_ten_iterations_learned_without_truth_are_near_the_exact_ones():
    found = world(4)
    before = solved(found, train(found, 4, "oi", 0))
    after = solved(found, train(found, 4, "oi", 80))
    fifty = conjugate(found, 4, 50)
    assert fifty["mse"] > 2.0  # the figure of the specification is 2.58
    assert after["mse"] < fifty["mse"]
    assert after["j"] < min(before["j"], 1.5)
    assert after["ev"] >= 0.90
    assert after["mse"] >= 0.99


@pytest.mark.long
@pytest.mark.parametrize(
    ("alpha", "loss", "steps", "mse", "ev", "j", "options"),
    [
        (4, "mse", 200, 1.6, 0.90, np.inf, {"update": "decay"}),
        (4, "oi", 200, np.inf, 0.90, 1.5, {}),
        (2, "mse", 150, 1.2, 0.85, np.inf, {"update": "decay"}),
        (2, "oi", 150, 1.1, 0.95, 1.1, {}),
    ],
)
def test_the_gates_of_the_specification(alpha, loss, steps, mse, ev, j, options):
    found = world(alpha, train=600, test=64)
    after = solved(found, train(found, alpha, loss, steps, **options))
    assert 0.99 <= after["mse"] <= mse
    assert after["ev"] >= ev
    assert after["j"] <= j

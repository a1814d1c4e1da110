"""Solver of the augmented state: shapes, positivity, what it may see, and what it learns."""

from __future__ import annotations

import pytest
import torch

from xr_spde._core.errors import ParameterError, SolverError, UnknownNameError
from xr_spde.nets.registry import build_network
from xr_spde.nets.spde_stencil import THETA
from xr_spde.nets.theta_fields import ThetaFields
from xr_spde.nets.theta_losses import likelihood_loss, parameter_penalty
from xr_spde.nets.theta_solver import ThetaSolver
from xr_spde.nets.theta_start import LAGS, STARTS, variograms
from xr_spde.nets.variational_window import Window

STEPS = 3
CONSTANTS = {"kappa": 0.4, "tau": 1.5, "gamma": 0.8, "beta": 1.2, "v1": 0.6, "v2": -0.8}


def window(seed=0, shape=(20, 26), batch=2, land=True):
    rng = torch.Generator().manual_seed(seed)
    full = (batch, STEPS, *shape)
    obs, mean = (torch.randn(full, generator=rng) for _ in range(2))
    mask = torch.rand(full, generator=rng) < 0.2
    sea = (torch.rand((batch, *shape), generator=rng) > 0.1) | (not land)
    return Window(obs, mask, torch.full(full, 0.01), sea), mean


def solver(seed=0, **options):
    torch.manual_seed(seed)
    how = {"iterations": 3, "hidden": 8, "theta": CONSTANTS} | options
    found = ThetaSolver(STEPS, **how)
    # a fresh network reads nothing from variograms; give it something to say
    if found.reading is not None:
        torch.nn.init.normal_(found.reading.layers[-1].weight, std=0.3)
    return found.eval()


KINDS = [
    {"start": "variogram"}, {"start": "constant", "diffusion": "vector"},
    {"start": "map", "shape": [20, 26], "coarse": 3},
    {"start": "gradients", "diffusion": "vector", "coarse": 1}, {"per_step": True, "alpha": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS)
def test_positive_parameters_that_can_be_built_again_and_trained(options):
    net = solver(**options)
    seen, mean = window()
    theta = net(seen, mean)
    sets = STEPS if options.get("per_step") else 1
    assert theta.shape == (2, 8, sets, 20, 26)
    kappa, tau, *_, gamma, beta = theta.unbind(1)
    assert all((value > 0.0).all() for value in (kappa, tau, gamma, beta))
    again = build_network(net.architecture, net.options)
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again.eval()(seen, mean), theta, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(seen, mean), theta, rtol=1e-4, atol=1e-5)
    x, _ = net.augmented(seen, mean)
    assert (x[:, 0][~seen.sea] == 0.0).all()
    alpha = options.get("alpha", 4)
    likelihood_loss(theta, mean, seen.sea, alpha=alpha).backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert sum(float(g.abs().sum()) for g in grads) > 0.0


def test_held_parameters_keep_their_numbers():
    seen, mean = window()
    theta = solver(free=["kappa", "m1"], diffusion="vector")(seen, mean).detach()
    for k, name in enumerate(THETA):
        if name in ("kappa", "m1"):
            assert theta[:, k].std() > 1e-4
        else:
            assert theta[:, k].numpy() == pytest.approx(CONSTANTS.get(name, 0.0))


@pytest.mark.parametrize("start", ["variogram", "gradients"])
def test_only_observations_count(start):
    """Neither what stands where nothing is observed nor what stands on land reaches theta."""
    seen, mean = window()
    net = solver(start=start, diffusion="vector")
    wanted = net(seen, mean)
    other = torch.where(seen.mask, seen.obs, torch.nan)
    moved = torch.where(seen.sea[:, None], mean, torch.nan)
    found = net(Window(other, seen.mask, seen.variance, seen.sea), moved)
    assert torch.equal(found, wanted)
    changed = seen.obs.clone()
    changed[0, 0][seen.mask[0, 0]] += 0.5
    assert not torch.equal(net(Window(changed, seen.mask, seen.variance, seen.sea), mean), wanted)
    # one window does not know the others
    torch.testing.assert_close(
        net(Window(seen.obs[1:], seen.mask[1:], seen.variance[1:], seen.sea[1:]), mean[1:]),
        wanted[1:], rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_precisions():
    seen, mean = window()
    net = solver()
    single = net(seen, mean)
    assert net(seen.to(dtype=torch.float64), mean.double()).dtype == torch.float32
    double = net.double()(seen.to(dtype=torch.float64), mean.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single, double.float(), rtol=1e-2, atol=1e-3)


def test_any_domain_without_any_observation():
    net = solver()
    for shape in ((7, 9), (33, 18)):
        seen, mean = window(shape=shape)
        empty = Window(seen.obs, torch.zeros_like(seen.mask), seen.variance, seen.sea)
        assert net(empty, torch.zeros_like(mean)).isfinite().all()
        assert net(seen, mean).shape[-2:] == shape


def test_the_oracle_is_labelled_and_asked_for():
    seen, mean = window()
    net = solver(oracle_theta=True)
    assert "ORACLE" in repr(net)
    assert "ORACLE" not in repr(solver())
    with pytest.raises(ParameterError, match="oracle_theta=True"):
        net(seen, mean)
    with pytest.raises(ParameterError, match="oracle_theta=False"):
        solver()(seen, mean, oracle=mean)
    truth = torch.where(seen.sea[:, None], torch.randn(mean.shape), torch.nan)
    found = net(seen, mean, oracle=truth)
    assert found.isfinite().all()
    assert not torch.equal(found, net(seen, mean, oracle=0.5 * truth))


def test_gradients_through_gradients():
    """With create_graph the weights of the cost learn as well."""
    seen, mean = window(land=False)
    net = solver(create_graph=True, start="constant")
    likelihood_loss(net(seen, mean), mean, seen.sea, alpha=4).backward()
    assert net.log_weights.grad.abs().sum() > 0.0
    assert solver().log_weights.requires_grad is False


@pytest.mark.parametrize("diffusion", ["tensor", "vector"])
def test_channels_of_constants_give_the_constants(diffusion):
    fields = ThetaFields(THETA, dict.fromkeys(THETA, 0.0) | CONSTANTS, diffusion)
    theta = fields.theta(fields.start()[None, :, None, None, None])[0, :, 0, 0, 0]
    _, _, _, _, v1, v2, gamma, beta = theta
    c = CONSTANTS
    for found, wanted in (
        (theta[0], c["kappa"]), (theta[1], c["tau"]), (gamma, c["gamma"]),
        (beta * v1**2, c["beta"] * c["v1"] ** 2), (beta * v1 * v2, c["beta"] * c["v1"] * c["v2"]),
    ):  # fmt: skip
        assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_a_round_tensor_has_a_derivative():
    fields = ThetaFields(THETA, dict.fromkeys(THETA, 0.0) | {"kappa": 1, "tau": 1, "gamma": 1},
                         "tensor")  # fmt: skip
    channels = fields.start()[None, :, None, None, None].double().requires_grad_()
    _, _, _, _, v1, v2, gamma, beta = fields.theta(channels).unbind(1)
    (gamma + beta * v1**2 + 0.3 * beta * v1 * v2).sum().backward()
    # d H11 / d (s, h1, h2) = (1, 1, 0) and d H12 = (0, 0, 1) where H = I
    torch.testing.assert_close(
        channels.grad.flatten()[-3:], torch.tensor([1.0, 1.0, 0.3], dtype=torch.float64),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_variograms_against_a_loop():
    seen, _ = window(shape=(6, 7), batch=1)
    radius = 2
    found = variograms(seen, [radius])[0]
    y, mask = seen.obs[0].double(), seen.mask[0]
    for k, (dt, dj, di) in enumerate(LAGS):
        for j, i in ((0, 0), (3, 4), (5, 6)):
            terms = []
            for t in range(STEPS - dt):
                for a in range(max(j - radius, 0), min(j + radius + 1, 6)):
                    for b in range(max(i - radius, 0), min(i + radius + 1, 7)):
                        to = (t + dt, a + dj, b + di)
                        if to[1] < 6 and 0 <= to[2] < 7 and mask[t, a, b] and mask[to]:
                            terms.append(0.5 * (y[t, a, b] - y[to]) ** 2 - 0.01)
            value, trust = found[1 + k, j, i], found[len(LAGS) + 2 + k, j, i]
            assert float(trust) == pytest.approx(len(terms) / (len(terms) + 4.0), abs=1e-5)
            if terms:
                wanted = torch.stack(terms).mean().clamp_min(1e-4).log()
                assert float(value) == pytest.approx(float(wanted), abs=2e-3)


def test_penalties():
    theta = torch.ones(1, 8, 1, 4, 5, dtype=torch.float64)
    sea = torch.ones(1, 4, 5, dtype=torch.bool)
    centre = dict.fromkeys(THETA, 1.0)
    assert float(parameter_penalty(theta, sea, smoothness=1.0, spread=1.0, centre=centre)) == 0.0
    theta[:, 0, :, :, 2:] = torch.e
    # of 16 pairs along x 4 differ by one, in one map of seven; 3 of 5 columns in one map of four
    rough = float(parameter_penalty(theta, sea, smoothness=2.0))
    assert rough == pytest.approx(2.0 * 4 / 16 / 7)
    away = float(parameter_penalty(theta, sea, spread=1.0, centre=centre))
    assert away == pytest.approx(3 / 5 / 4)
    sea[:, :, 2] = False
    assert float(parameter_penalty(theta, sea, smoothness=2.0)) == 0.0
    with pytest.raises(ParameterError, match="centre"):
        parameter_penalty(theta, sea, spread=1.0)


def test_a_likelihood_that_cannot_be_computed_is_an_error():
    seen, mean = window()
    theta = solver()(seen, mean)
    holed = mean.clone()
    holed[0, 0] = torch.nan
    with pytest.raises(ParameterError, match="1 of 2 windows"):
        likelihood_loss(theta, holed, seen.sea, alpha=4)
    with pytest.raises(ParameterError, match="no sea"):
        likelihood_loss(theta, mean, torch.zeros_like(seen.sea), alpha=4)
    sharp = theta.detach().clone()
    sharp[:, 1, ..., ::2] = 1e4
    with pytest.raises(SolverError, match="given"):
        likelihood_loss(sharp, mean, seen.sea, alpha=4, initial="stationary")


def test_refused():
    for bad, match in (
        ({"start": "map"}, "shape"),
        ({"start": "gradients"}, "vector"),
        ({"free": []}, "free is empty"),
        ({"coarse": 0}, "coarse"),
    ):
        with pytest.raises(ParameterError, match=match):
            ThetaSolver(STEPS, **bad)
    for bad in ({"start": "cold"}, {"free": ["speed"]}, {"diffusion": "round"}, {"alpha": 3}):
        with pytest.raises(UnknownNameError):
            ThetaSolver(STEPS, **bad)
    assert set(STARTS) == {"variogram", "constant", "map", "gradients"}
    seen, mean = window()
    with pytest.raises(ParameterError, match="takes"):
        ThetaSolver(4)(seen, mean)
    with pytest.raises(ParameterError, match="learned for"):
        solver(start="map", shape=[8, 8])(seen, mean)

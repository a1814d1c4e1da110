"""The variational solver: what it may see, shapes, the plumbing of its cost, files of weights."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from xr_spde.errors import ParameterError, UnknownNameError  # noqa: E402
from xr_spde.fields.mesh import Mesh  # noqa: E402
from xr_spde.fields.spacetime import SpaceTime  # noqa: E402
from xr_spde.fields.spde import SpdeOperator, SpdeParameters  # noqa: E402
from xr_spde.nets import variational_losses as losses  # noqa: E402
from xr_spde.nets.auto_encoder import BilinearAutoEncoder  # noqa: E402
from xr_spde.nets.convlstm import ConvLSTM  # noqa: E402
from xr_spde.nets.stationary import BOUNDARIES, StationaryPrior, constant_theta  # noqa: E402
from xr_spde.nets.variational import VariationalSolver  # noqa: E402
from xr_spde.nets.variational_window import Window  # noqa: E402
from xr_spde.nets.weights import load_weights, save_weights  # noqa: E402

FORMS = {
    "search": {},
    "observed": {"directions": "observed"},
    "source": {"preconditioner": "none", "update": "decay", "rate": 1e-3},
    "mean": {"update": "mean", "parameters": True},
    "auto-encoder": {"prior": "auto-encoder", "width": 4},
    "both": {"prior": "both", "width": 4, "coarsen": 2, "truncate": 2},
    "refined": {"refine": 6, "depth": 2, "coarsen": 2},
}


def a_solver(form, steps=3, **options):
    torch.manual_seed(1)
    solver = VariationalSolver(steps, **{"iterations": 4, "hidden": 6} | FORMS[form] | options)
    if form == "refined":  # which does nothing as it starts
        nn.init.normal_(solver.refine.last.weight, std=0.1)
    return solver


def a_window(batch=2, steps=3, ny=11, nx=14, *, land=True, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    obs = torch.randn(batch, steps, ny, nx, generator=draw).to(dtype)
    mask = torch.rand(batch, steps, ny, nx, generator=draw) < 0.3
    sea = torch.ones(batch, ny, nx, dtype=torch.bool)
    if land:
        sea[:, :4, 6:9] = False
    return Window(obs, mask, torch.full_like(obs, 1e-2), sea)


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_where_nothing_is_observed_changes_nothing(form):
    window, solver = a_window(), a_solver(form).eval()
    rubbish = torch.where(window.mask, window.obs, float("nan"))
    noise = torch.where(window.mask, window.variance, -7.0)
    # observations on land do not exist either
    mask = window.mask | ~window.sea[:, None]
    other = Window(torch.where(window.sea[:, None], rubbish, 9.0), mask, noise, window.sea)
    zero = Window(window.obs, window.mask.clone(), window.variance, window.sea)
    spot = tuple((~window.mask & window.sea[:, None]).nonzero()[20])
    zero.mask[spot] = True
    with torch.no_grad():
        x = solver(window)
        assert torch.equal(x, solver(other))
        assert not torch.equal(x, solver(zero))
    assert bool((x[~window.sea[:, None].expand_as(x)] == 0.0).all())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(5, 4), (16, 9), (23, 31)])
def test_any_size_of_domain_with_a_trace_to_the_weights(form, shape):
    solver = a_solver(form)
    window = a_window(1, 3, *shape, land=False)
    x = solver(window)
    assert x.shape == window.shape
    x.square().mean().backward()
    gradients = [p.grad for p in solver.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert all(bool((g != 0.0).any()) for g in gradients if g.ndim > 1)


@pytest.mark.parametrize("form", FORMS)
def test_windows_of_a_batch_do_not_know_each_other(form):
    solver, window = a_solver(form).eval(), a_window()
    single = Window(*(getattr(window, n)[:1] for n in ("obs", "mask", "variance", "sea")))
    with torch.no_grad():
        assert torch.allclose(solver(window)[:1], solver(single), atol=2e-5)


def test_weights_go_through_a_file(tmp_path):
    for form in FORMS:
        solver, window = a_solver(form, theta={"kappa": 0.5}).eval(), a_window()
        save_weights(tmp_path / "w.safetensors", solver)
        again = load_weights(tmp_path / "w.safetensors")
        assert again.options == json.loads(json.dumps(solver.options))
        with torch.no_grad():
            assert torch.equal(again(window), solver(window))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("alpha", [2, 4])
def test_the_stationary_prior_is_that_of_the_sparse_algebra(boundary, alpha):
    steps, shape = 4, (5, 7)
    mesh = Mesh.of(shape, boundary=boundary)
    values = {"kappa": 0.4, "tau": 1.3, "v1": 1.0, "beta": 2.0, "gamma": 0.7}
    prior = SpaceTime(SpdeOperator(mesh), SpdeParameters.of(shape, **values), steps=steps,
                      alpha=alpha)  # fmt: skip
    dense = torch.as_tensor(prior.precision().toarray())
    kappa, tau, h11, h22 = (torch.tensor([v], dtype=torch.float64) for v in (0.4, 1.3, 2.7, 0.7))
    found = StationaryPrior(kappa, tau, h11, h22, shape, alpha=alpha, boundary=boundary)
    x = torch.randn(1, steps, *shape, dtype=torch.float64)
    assert torch.allclose(found.precision(x).ravel(), dense @ x.ravel(), rtol=1e-9, atol=1e-9)
    assert torch.allclose(found.covariance(found.precision(x)), x, atol=1e-9)
    inverse = torch.linalg.inv(dense)
    gain = (inverse.square().sum() / x.numel()).sqrt()
    assert torch.allclose(found.gain(steps), gain)


def test_a_search_never_climbs_and_converges_untrained():
    window, solver = a_window(land=False), a_solver("search", iterations=40).eval()
    fine = solver.double()
    window = window.to(dtype=torch.float64)
    costs, x = [], None
    with torch.no_grad():
        for _ in range(3):
            x = fine(window, start=x)
            costs.append(fine.cost(x, window))
        left = fine.problem(window).gradient(x, create_graph=False)
    assert bool((costs[1] <= costs[0]).all() and (costs[2] <= costs[1]).all())
    assert float(left.abs().max()) < 1e-6


def test_mixed_precision_leaves_the_physics_alone():
    solver, window = a_solver("search").eval(), a_window()
    with torch.no_grad():
        exact = solver(window)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = solver(window)
    assert mixed.dtype == torch.float32
    assert bool((solver.cost(mixed, window) < 1.2 * solver.cost(exact, window)).all())


def test_losses():
    x, sea = torch.randn(2, 5, 9, 10), torch.ones(2, 9, 10, dtype=torch.bool)
    sea[:, 4, 4] = False
    for focus in losses.FOCUSES:
        assert np.isclose(float(losses.time_weights(5, focus).mean()), 1.0)
    assert losses.time_weights(5, "centre").argmax() == 2
    assert losses.time_weights(5, "end").argmax() == 4
    weights = losses.loss_weights(sea, 5, focus="centre", border=2)
    assert weights[:, :, :2].sum() == weights[:, :, 4, 4].sum() == 0.0
    gap = x.clone()
    gap[:, :, 5, 5] = float("nan")
    assert losses.supervised_loss(x, gap, weights) == losses.gradient_loss(x, gap, weights) == 0.0
    assert np.isclose(float(losses.supervised_loss(x + 2.0, gap, weights)), 4.0)
    ramp = torch.arange(10.0).expand(2, 5, 9, 10)
    assert torch.allclose(losses.sobel(ramp)[:, :, 0], torch.tensor(1.0))
    assert torch.allclose(losses.sobel(ramp)[:, :, 1], torch.tensor(0.0))
    window = a_window()
    both = a_solver("both")
    x = torch.randn(2, 3, 11, 14)
    assert losses.projection_loss(both, x, window.sea) > 0.0
    spde = a_solver("search")
    plain = losses.interpolation_loss(spde, x, window, log=False)
    assert torch.isclose(plain, spde.cost(x, window).mean())
    with pytest.raises(ParameterError, match="no projection"):
        losses.projection_loss(spde, x, window.sea)
    with pytest.raises(ParameterError, match="auto-encoder"):
        losses.interpolation_loss(a_solver("auto-encoder"), x, window)
    with pytest.raises(ParameterError, match="border=5"):
        losses.loss_weights(sea, 5, border=5)
    with pytest.raises(UnknownNameError, match="focus"):
        losses.time_weights(5, "start")


def test_what_is_refused():
    with pytest.raises(ParameterError, match="not quadratic"):
        VariationalSolver(3, prior="both", update="search")
    with pytest.raises(ParameterError, match='directions="observed"'):
        VariationalSolver(3, update="decay", directions="observed")
    with pytest.raises(UnknownNameError, match="prior"):
        VariationalSolver(3, prior="sdpe")
    with pytest.raises(UnknownNameError, match="alpha"):
        VariationalSolver(3, alpha=3)
    with pytest.raises(ParameterError, match="steps"):
        a_solver("search")(a_window(steps=4))
    with pytest.raises(ParameterError, match="theta is"):
        a_solver("search")(a_window(), torch.ones(2, 8, 2, 11, 14))
    with pytest.raises(ParameterError, match="kapa"):
        constant_theta({"kapa": 1.0})
    with pytest.raises(ParameterError, match="H = gamma"):
        constant_theta({"beta": -2.0, "v1": 1.0})
    good = a_window()
    with pytest.raises(ParameterError, match="not finite"):
        Window(good.obs / 0.0, good.mask, good.variance, good.sea)
    with pytest.raises(ParameterError, match="not positive"):
        Window(good.obs, good.mask, 0.0 * good.variance, good.sea)
    with pytest.raises(ParameterError, match="sea is"):
        Window(good.obs, good.mask, good.variance, good.sea[:, 1:])
    with pytest.raises(ParameterError, match="expected bool"):
        Window(good.obs, good.mask.float(), good.variance, good.sea)


def test_parts_keep_shapes_and_refuse_odd_sizes():
    cell = ConvLSTM(3, 8, 2, coarsen=2)
    update, state = cell(torch.randn(2, 3, 7, 9))
    assert update.shape == (2, 2, 7, 9)
    assert state[0].shape == (2, 8, 4, 5)
    again, _ = cell(torch.randn(2, 3, 7, 9), state)
    assert again.shape == update.shape
    assert BilinearAutoEncoder(3, 4)(torch.randn(1, 3, 7, 8)).shape == (1, 3, 7, 8)
    with pytest.raises(ParameterError, match="odd kernel"):
        ConvLSTM(3, 8, 2, kernel=4)
    assert isinstance(cell, nn.Module)


@pytest.mark.parametrize("form", ["search", "source"])
def test_an_untrained_refinement_changes_nothing_and_a_trained_one_stays_at_sea(form):
    window = a_window()
    plain, refined = a_solver(form).eval(), a_solver(form, refine=6, depth=2).eval()
    missing = refined.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(name.startswith("refine.") for name in missing)
    with torch.no_grad():
        assert torch.equal(plain(window), refined(window))
        refined.refine.last.bias += 1.0
        change = refined(window) - plain(window)
    assert torch.allclose(change, window.sea[:, None].expand_as(change).float(), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_that_is_cut_changes_gradients_alone(form):
    window, found = a_window(), {}
    for truncate in (None, 2):
        solver = a_solver(form, truncate=truncate)
        x = solver(window)
        (x**2).mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in solver.parameters() if p.grad is not None])
        found[truncate] = x.detach(), gradient
    torch.testing.assert_close(found[None][0], found[2][0], rtol=1e-4, atol=1e-5)
    assert all(bool(gradient.isfinite().all()) for _, gradient in found.values())
    assert not torch.allclose(found[None][1], found[2][1], rtol=1e-3)

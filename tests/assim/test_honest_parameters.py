"""SPDE parameters learned with the state or after it; the truth never reaches a result (C6)."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from xr_spde.assim import assimilate, fit, load_solver  # noqa: E402
from xr_spde.assim.neural_ensemble import conditional_anomalies  # noqa: E402
from xr_spde.assim.neural_solver import NeuralSolver  # noqa: E402
from xr_spde.errors import ParameterError  # noqa: E402
from xr_spde.fields.prior_draws import draw_prior, observation_noise  # noqa: E402
from xr_spde.nets.theta_solver import ThetaSolver  # noqa: E402
from xr_spde.nets.variational import VariationalSolver  # noqa: E402
from xr_spde.nets.variational_inference import run_window  # noqa: E402
from xr_spde.nets.variational_training import Objective, estimate, loss_of  # noqa: E402
from xr_spde.nets.variational_window import Window  # noqa: E402

STEPS, SHAPE = 4, (12, 14)
NUMBERS = {"kappa": 0.6, "tau": 0.5, "gamma": 0.8, "v1": 1.0, "beta": 0.6}


def nets(*, parameters, oracle=False):
    torch.manual_seed(0)
    how = {"alpha": 2, "theta": NUMBERS}
    solver = VariationalSolver(STEPS, iterations=3, hidden=6, parameters=parameters, **how)
    theta = ThetaSolver(
        STEPS, iterations=2, hidden=6, free=["kappa", "tau", "v1"], oracle_theta=oracle, **how
    )
    torch.nn.init.normal_(theta.reading.layers[-1].weight, std=0.1)
    return solver.eval(), theta.eval()


def batch(seed=0):
    """A batch as training and evaluation have it: what may be seen, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((2, STEPS, *SHAPE)).astype(np.float32)
    mask = rng.random(truth.shape) < 0.25
    sea = rng.random((2, *SHAPE)) > 0.1
    obs = truth + 0.1 * rng.standard_normal(truth.shape)
    return SimpleNamespace(obs=obs, mask=mask, sea=sea, truth=truth)


def outputs(given, solver, theta_solver):
    """Mean, parameters and spread of the ensemble, from a batch that carries its truth."""
    tensors = [torch.tensor(a) for a in (given.obs, given.mask, 0 * given.obs + 0.01, given.sea)]
    window = Window(*tensors).to(dtype=torch.float32)
    with torch.no_grad():
        mean, theta = estimate(solver, theta_solver, window)
    spreads = []
    for b in range(2):
        own = theta[b].numpy().astype(float)
        fields, _ = draw_prior(own, sea=given.sea[b], members=range(8), first=0, entropy=1,
                               steps=STEPS, alpha=2)  # fmt: skip
        white = observation_noise(1, range(8), 0, STEPS, SHAPE)

        def solve(values, b=b):
            many = len(values)
            one = [t[b : b + 1].expand(many, *t.shape[1:]) for t in tensors[1:]]
            seen = Window(torch.tensor(values), one[0], one[1].float(), one[2])
            with torch.no_grad():
                found = solver(seen, theta[b : b + 1].expand(many, -1, -1, -1, -1))
            return found.numpy()

        seen = given.mask[b] & given.sea[b]
        members = conditional_anomalies(solve, fields, white, seen, 0 * given.obs[b] + 0.01)
        spreads.append(np.sqrt(np.mean(np.square(members), axis=0)))
    return mean.numpy(), theta.numpy(), np.stack(spreads)


@pytest.mark.parametrize("parameters", [False, True])
def test_noise_in_place_of_the_truth_changes_nothing(parameters):
    """Check C6, bit for bit: the observations are kept, the truth is replaced."""
    known = batch()
    noised = SimpleNamespace(**vars(known))
    noised.truth = 100.0 * np.random.default_rng(5).standard_normal(known.truth.shape)
    pair = nets(parameters=parameters)
    for one, other in zip(outputs(known, *pair), outputs(noised, *pair), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)
    # and it is no wonder that nothing changed for a lack of life in it
    moved = SimpleNamespace(**vars(known))
    moved.obs = known.obs + 0.5
    for one, other in zip(outputs(known, *pair), outputs(moved, *pair), strict=True):
        assert not np.array_equal(one, other)


def test_an_oracle_sees_the_truth_in_training_and_gives_no_estimate():
    known = batch()
    solver, theta = nets(parameters=False, oracle=True)
    sea = torch.tensor(known.sea)
    window = Window(
        torch.tensor(known.obs).float(), torch.tensor(known.mask),
        torch.full(known.obs.shape, 0.01), sea,
    )  # fmt: skip
    with pytest.raises(ParameterError, match="oracle_theta=True"):
        estimate(solver, theta, window)
    truth = torch.tensor(known.truth)
    loss = loss_of(Objective(), solver)
    changed = theta(window, solver(window), oracle=2.0 * truth)
    assert not torch.equal(theta(window, solver(window), oracle=truth), changed)
    assert torch.isfinite(loss(theta, window, truth))
    holed = truth.clone()
    holed[0, 0] = torch.nan
    for some in (nets(parameters=False)[1], theta):
        with pytest.raises(ParameterError, match="1 of 2 windows"):
            loss(some, window, holed)


def test_an_oracle_model_says_so_and_maps_nothing():
    known = batch()
    solver, theta = nets(parameters=False, oracle=True)
    common = {"scale": 1.0, "spacing": (10.0, 10.0), "time_step": 1.0, "tasks": ("mapping",),
              "units": "m"}  # fmt: skip
    model = NeuralSolver(solver, theta_solver=theta, **common)
    plain = NeuralSolver(solver, theta_solver=nets(parameters=False)[1], **common)
    assert "ORACLE" in repr(model)
    assert "ORACLE" not in repr(plain)
    given = (known.obs, known.mask, 0 * known.obs + 0.01, known.sea)
    found = model.solve(*given, oracle=known.truth)[1]
    assert not np.array_equal(found, model.solve(*given, oracle=2.0 * known.truth)[1])
    for one, truth in ((model, None), (plain, known.truth)):
        with pytest.raises(ParameterError, match="oracle_theta"):
            one.solve(*given, oracle=truth)
    _, seen = series()
    with pytest.raises(ParameterError, match="come from the truth"):
        assimilate(seen, method="4dvarnet", model=model, obs_error=0.01)


def series():
    """Sea level that one direction correlates further than the other, on a grid with land."""
    rng = np.random.default_rng(0)
    theta = (
        np.zeros((8, 1, 20, 22)) + np.array([0.6, 0.5, 0, 0, 1.0, 0, 0.5, 4.0])[:, None, None, None]
    )
    sea = np.ones((20, 22), bool)
    sea[:4, :3] = False
    field, _ = draw_prior(theta, sea=sea, members=[0], first=0, entropy=3, steps=60, alpha=2)
    days = np.datetime64("2020-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    coords = {"time": days, "lat": 35 + 0.1 * np.arange(20), "lon": 5 + 0.1 * np.arange(22)}
    truth = xr.DataArray(np.where(sea, 0.1 * field[0], np.nan), coords, ("time", "lat", "lon"),
                         "adt", {"units": "m"})  # fmt: skip
    seen = truth + 0.01 * rng.standard_normal(truth.shape)
    return truth, seen.where(rng.random(truth.shape) < 0.3)


@pytest.mark.parametrize("theta", ["two-stage", "joint"])
def test_both_ways_of_training_raise_the_likelihood(theta, tmp_path):
    truth, seen = series()
    how = {
        "obs_error": 0.01, "theta": theta, "window": 4, "leads": 1, "patch": 16, "batch": 4,
        "validation_windows": 6, "likelihood": 1.0, "smoothness": 0.01, "rate": 1e-2,
        "network": {"prior": "spde", "alpha": 2, "iterations": 2, "hidden": 4, "theta": NUMBERS},
        "theta_network": {"iterations": 2, "hidden": 6, "free": ["kappa", "tau", "v1"]},
    }  # fmt: skip
    short = fit(truth, seen, steps=1, theta_steps=1, every=1, **how)
    long = fit(truth, seen, steps=30, theta_steps=30, every=15, **how)
    assert long.theta_solver.options["theta"]["beta"] == pytest.approx(0.6)
    if theta == "two-stage":
        assert long.card["scores"]["nll"] < short.card["scores"]["nll"] - 0.05
    mask = np.isfinite(seen.values[:4])[None]
    obs = (seen / long.scale).values[None, :4]
    sea = np.isfinite(truth.values[0])[None]

    def parameters(model):
        given = (obs, mask, 0 * obs + 0.01, sea)
        return run_window(model.solver, model.theta_solver, *given)[1]

    found = [parameters(model) for model in (short, long)]
    # tau tells first: the numbers it began with are far from those of the series
    wanted = 0.5 * 0.1 / long.scale
    errors = [abs(np.log(t[0, 1, 0][sea[0]].mean() / wanted)) for t in found]
    assert errors[1] < errors[0]
    long.save(tmp_path / "model.safetensors")
    again = load_solver(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(parameters(again), found[1])

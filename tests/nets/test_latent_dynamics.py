"""Networks that carry codes: sizes, order of the integration, training that resumes, guards."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xr_spde._core.codes import CodeGuard, Forcing  # noqa: E402
from xr_spde.errors import DivergenceError, ParameterError, UnknownNameError  # noqa: E402
from xr_spde.fields.linear_dynamics import (  # noqa: E402
    LinearPropagator,
    PersistencePropagator,
    fit_linear,
    window_index,
)
from xr_spde.nets import latent_dynamics_training as learning  # noqa: E402
from xr_spde.nets.code_batches import CodeBatch, CodeBatches, CodeWindows, roll_out  # noqa: E402
from xr_spde.nets.latent_dynamics_training import DynamicsSettings, fit_dynamics  # noqa: E402
from xr_spde.nets.latent_propagators import (  # noqa: E402
    PROPAGATORS,
    NodePropagator,
    ResidualNodePropagator,
    ReZeroPropagator,
)
from xr_spde.nets.ode import NeuralODE, ResidualODE, flow, rk4_step  # noqa: E402
from xr_spde.nets.rezero import ReZero  # noqa: E402
from xr_spde.nets.training import Schedule  # noqa: E402

N = 8


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_a2_numbers_of_parameters_are_those_of_the_source():
    assert parameters(NeuralODE(400, 800)) == 1_922_803
    assert parameters(NeuralODE(1024, 800)) == 2_921_827
    assert parameters(ReZero(1024, 5)) == 5_253_120
    assert parameters(ReZero(400, 5)) == 804_000


def lorenz(z, forcing=8.0):
    return (torch.roll(z, -1, -1) - torch.roll(z, 2, -1)) * torch.roll(z, 1, -1) - z + forcing


def linear_map(seed=0, n=N, size=0):
    rng = np.random.default_rng(seed)
    L = rng.standard_normal((n, n))
    import scipy.linalg

    A = scipy.linalg.expm(0.3 * (L - L.T) - 0.05 * np.eye(n))
    forcing = Forcing((30.0,), step=1.0) if size else None
    B = rng.standard_normal((n, size))
    return LinearPropagator(A, 0.1 * rng.standard_normal(n), forced=B, forcing=forcing)


def smooth_networks(forcing):
    torch.manual_seed(0)
    plain = NeuralODE(N, 32, 2, forcing=forcing).double()
    residual = ResidualODE(
        linear_map(size=2 if forcing else 0).rows, 32, 2, inner=100.0, outer=101.0, forcing=forcing
    ).double()
    for p in (*residual.network.parameters(), *plain.network.parameters()):
        torch.nn.init.normal_(p, std=0.25)
    return plain, residual


@pytest.mark.parametrize("forcing", [None, Forcing((30.0,), step=1.0)])
@pytest.mark.parametrize("which", [0, 1])
def test_a7_halving_the_step_divides_the_error_by_sixteen(which, forcing):
    network = smooth_networks(forcing)[which]
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((4, N)))

    def end(longest):
        network.longest = longest
        with torch.no_grad():
            return network(z, 4.0, 3.0)

    exact = end(1 / 128)
    errors = [float((end(h) - exact).norm()) for h in (0.25, 0.125, 0.0625)]
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 16.0, rtol=0.1)


@pytest.mark.parametrize("forcing", [None, Forcing((30.0,), step=1.0)])
@pytest.mark.parametrize("which", [0, 1])
def test_a7_two_half_steps_are_one_within_the_order_and_lists_are_taken(which, forcing):
    network = smooth_networks(forcing)[which]
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((4, N)))
    gaps = []
    with torch.no_grad():
        for h in (0.4, 0.2):
            network.longest = h
            gaps.append(float((network(z, h) - network(network(z, h / 2), h / 2, h / 2)).norm()))
        assert gaps[0] / gaps[1] == pytest.approx(32.0, rel=0.25)  # h**5 in a step
        network.longest = 0.05
        at, irregular = 0.0, z
        for dt in (0.31, 1.0, 0.05, 1.64):
            irregular, at = network(irregular, dt, at), at + dt
        torch.testing.assert_close(irregular, network(z, 3.0, 0.0), rtol=1e-5, atol=1e-5)


def test_the_step_is_that_of_the_established_library():
    library = pytest.importorskip("torchdiffeq")
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((3, N)))
    times = torch.tensor([0.0, 0.05, 0.1], dtype=torch.float64)
    expected = library.odeint(lambda t, z: lorenz(z), z, times, method="rk4")[-1]
    found = flow(lambda z, t: lorenz(z), z, 0.1, longest=0.05)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_slope_in_time_is_integrated_exactly_up_to_cubes():
    z = torch.zeros(2, 1, dtype=torch.float64)
    found = rk4_step(lambda z, t: torch.full_like(z, 4.0 * t**3), z, 1.0, 0.5)
    torch.testing.assert_close(found, torch.full_like(z, 1.5**4 - 1.0))


@pytest.mark.parametrize("size", [0, 2])
@pytest.mark.parametrize("dt", [1.0, 0.37, 2.5, 3.0])
def test_an_untrained_residual_is_the_linear_propagator(dt, size):
    linear = linear_map(size=size)
    network = ResidualODE(linear.rows, 16, 2, forcing=linear.forcing).double()
    z = np.random.default_rng(1).standard_normal((5, N))
    found = network(torch.from_numpy(z), dt, 17.0).detach().numpy()
    np.testing.assert_allclose(found, linear.step(z, dt, 17.0), atol=1e-12)


def test_a_residual_fades_outside_the_training_and_has_gradients_at_the_mean():
    _, network = smooth_networks(None)
    whole = network.slope
    z = torch.nn.functional.normalize(torch.randn(3, N, dtype=torch.float64)) * N**0.5
    inside = whole(z)
    assert inside.abs().max() > 0.1
    network.inner, network.outer = 1.5, 2.0
    torch.testing.assert_close(network.slope(z), inside)
    near, far = network.slope(1.75 * z), network.slope(2.1 * z)
    network.inner, network.outer = 100.0, 101.0
    torch.testing.assert_close(near, 0.5 * whole(1.75 * z))
    assert not far.any()
    start = torch.zeros(1, N, dtype=torch.float64, requires_grad=True)
    network(start).sum().backward()
    assert start.grad.isfinite().all()
    with pytest.raises(ParameterError, match="inner < outer"):
        ResidualODE(linear_map().rows, 4, 1, inner=2.0, outer=1.0)


def test_rezero_starts_as_persistence_and_refuses_fractions():
    z = torch.randn(2, N)
    network = ReZero(N)
    torch.testing.assert_close(network(z, 3.0), z)
    with pytest.raises(ParameterError, match="whole steps"):
        network(z, 0.5)


def trajectories(count=24, steps=20, seed=0):
    """Lorenz 96 on its attractor, in steps that linear dynamics miss by a good deal."""
    rng = torch.Generator().manual_seed(seed)
    z = 8.0 + torch.randn(count, N, generator=rng, dtype=torch.float64)
    codes = []
    for k in range(60 + steps):
        z = flow(lambda z, t: lorenz(z), z, 0.1, longest=0.05)
        if k >= 60:
            codes.append(z)
    return torch.stack(codes, 1).numpy()


@pytest.fixture(scope="module")
def windows():
    codes = trajectories()
    index = window_index(20, 5)
    held = np.repeat(np.arange(24) >= 20, len(index))
    return codes[:, index].reshape(-1, 5, N), held


SCHEDULE = Schedule(steps=160, rate=5e-3, warmup=10, every=40, average=0.95, decay=0.0, mixed=False)
SMALL = {"hidden": 64, "layers": 2, "horizon": 2, "batch": 64, "schedule": SCHEDULE}


def error(propagator, codes, steps=1):
    z = codes[:, 0]
    for _ in range(steps):
        z = propagator.step(z)
    return float(np.sqrt(np.mean((z - codes[:, steps]) ** 2)))


def test_networks_learn_what_linear_dynamics_cannot(windows, tmp_path):
    codes, held = windows
    linear = fit_linear(codes[~held])
    found = {
        kind: fit_dynamics(
            codes, DynamicsSettings(kind=kind, **SMALL), tmp_path / kind, held=held, linear=linear
        )
        for kind in PROPAGATORS
    }
    errors = {kind: error(p, codes[held]) for kind, p in found.items()}
    best = error(linear, codes[held])
    assert errors["residual_node"] < 0.5 * best
    assert errors["node"] < 0.7 * best
    # it starts as persistence, which so few steps of training improve a little
    assert errors["rezero"] < 0.9 * error(PersistencePropagator(), codes[held])
    assert [type(p) for p in found.values()] == list(PROPAGATORS.values())
    for propagator in found.values():
        arrays, options = propagator.state()
        again = type(propagator).from_state(arrays, json.loads(json.dumps(options)))
        z = codes[held][:, 0]
        np.testing.assert_array_equal(again.step(z, 2.0), propagator.step(z, 2.0))
        assert again.step(z.astype(np.float32)).dtype == np.float32
        assert not propagator.affine


@pytest.mark.parametrize("how", [{"policy": "scheduled", "decay": 0.9}, {"noise": 0.1},
                                 {"policy": "last"}])  # fmt: skip
def test_a_run_that_is_stopped_ends_as_one_that_is_not(windows, tmp_path, how, monkeypatch):
    codes, held = windows
    quick = Schedule(steps=30, warmup=5, every=10, average=0.9, mixed=False)
    settings = DynamicsSettings(kind="node", hidden=16, layers=1, batch=32, schedule=quick, **how)

    def fitted(folder, seed=0):
        return fit_dynamics(codes, settings, tmp_path / folder, seed, held=held).state()[0]

    whole = fitted("whole")

    class Stops(CodeBatches):
        def __getitem__(self, step):
            if step == 17:
                raise KeyboardInterrupt
            return super().__getitem__(step)

    with monkeypatch.context() as patch:
        patch.setattr(learning, "CodeBatches", Stops)
        with pytest.raises(KeyboardInterrupt):
            fitted("stopped")
    again = fitted("stopped")
    assert all(np.array_equal(again[name], value) for name, value in whole.items())
    with pytest.raises(ParameterError, match="other settings"):
        fitted("whole", seed=1)
    other = fitted("other", seed=1)
    assert any(not np.array_equal(other[name], value) for name, value in whole.items())


def test_irregular_steps_gaps_and_forcing_in_training(tmp_path):
    rng = np.random.default_rng(0)
    linear = linear_map(size=2)
    codes, dts, times = [], [], []
    for _ in range(60):
        z, t = rng.standard_normal(N), rng.uniform(0, 1000.0)
        row, at, lengths = [z], [t], []
        for _ in range(3):
            dt = rng.choice([0.9, 1.0, 1.1])
            z = linear.step(z[None], dt, t)[0]
            t += dt
            row.append(z), at.append(t), lengths.append(dt)
        codes.append(row), dts.append(lengths), times.append(at)
    codes = np.array(codes)
    codes[3, 1] = np.nan
    settings = DynamicsSettings(
        hidden=16, layers=1, batch=16,
        schedule=Schedule(steps=20, warmup=2, every=10, average=0.5, mixed=False),
    )  # fmt: skip
    found = fit_dynamics(codes, settings, tmp_path, dts=dts, times=times, linear=linear)
    assert isinstance(found, ResidualNodePropagator)
    # the linear map is exact: nothing is left to learn, and the untrained network is kept
    np.testing.assert_allclose(
        found.step(codes[0], 0.9, 4.0), linear.step(codes[0], 0.9, 4.0), atol=1e-10
    )
    with pytest.raises(ParameterError, match="time= is missing"):
        found.step(codes[0])


def test_training_that_helps_nothing_leaves_the_linear_propagator(tmp_path, caplog):
    rng = np.random.default_rng(0)
    linear = linear_map()
    z, rows = rng.standard_normal((30, N)), []
    for _ in range(4):
        rows.append(z)
        z = linear.step(z) + 0.1 * rng.standard_normal(z.shape)
    settings = DynamicsSettings(
        hidden=64, batch=8,
        schedule=Schedule(steps=60, rate=3e-2, warmup=2, every=20, average=0.5, mixed=False),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        found = fit_dynamics(np.stack(rows, 1), settings, tmp_path, linear=linear)
    assert "untrained one is kept" in caplog.text
    z = rng.standard_normal((2, N))
    np.testing.assert_allclose(found.step(z), linear.step(z), atol=1e-12)


def test_the_loss_is_that_of_fields(windows, tmp_path):
    codes, held = windows
    quick = Schedule(steps=20, warmup=2, every=10, average=0.5, mixed=False)
    settings = DynamicsSettings(kind="node", hidden=8, layers=1, horizon=1, schedule=quick)
    scores = []
    # codes in other units with the metric of fields, and the scaling of inputs: the same run
    for factor, folder in ((1.0, "one"), (np.logspace(-1, 1, N), "two")):
        metric = np.ones(N) / np.square(factor)
        fit_dynamics(codes * factor, settings, tmp_path / folder, held=held, metric=metric)
        record = (tmp_path / folder / "record.jsonl").read_text().splitlines()
        scores.append([json.loads(line)["score"] for line in record])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3)


def test_in_bfloat16_only_the_network_runs():
    _, network = smooth_networks(None)
    network = network.float().train()
    z = torch.randn(3, N)
    exact = network(z)
    network.mixed = True
    close = network(z)
    assert close.dtype == torch.float32
    assert 0 < (close - exact).abs().max() < 0.02
    assert torch.equal(network.eval()(z), exact)


def test_steps_that_start_anew_start_from_the_true_codes():
    codes = torch.randn(3, 4, 2)
    batch = CodeBatch(
        codes, torch.ones(3, 3), torch.zeros(3, 4), torch.tensor([False, True, False])
    )
    found = roll_out(lambda z, dt, t: z + dt, batch)
    torch.testing.assert_close(found[:, 0], codes[:, 0] + 1)
    torch.testing.assert_close(found[:, 1], codes[:, 1] + 1)
    torch.testing.assert_close(found[:, 2], codes[:, 1] + 2)


def test_an_epoch_sees_every_window_once():
    codes = np.arange(24, dtype=np.float32).reshape(4, 6, 1)
    data = CodeWindows(codes, np.ones((4, 5)), np.zeros((4, 6)))
    batches = CodeBatches(data, 2, 4, seed=3)
    firsts = np.concatenate([batches[k][0].codes[:, 0, 0].numpy() for k in range(4)])
    assert sorted(firsts) == [r * 6 + c for r in range(4) for c in range(4)]
    assert not np.array_equal(firsts[:4], batches[4][0].codes[:, 0, 0].numpy())


def test_codes_that_run_away_are_named():
    torch.manual_seed(0)
    network = NeuralODE(2, 4, 1)
    torch.nn.init.constant_(network.network.layers[-1].bias, 100.0)
    found = NodePropagator(
        network, CodeGuard(np.zeros(2), np.ones(2)),
        {"n": 2, "hidden": 4, "layers": 1, "longest": 1.0, "forcing": None},
    )  # fmt: skip
    with pytest.raises(DivergenceError, match=r"2 of 2 \(members 0, 1\)"):
        found.step(np.zeros((2, 2)))
    with pytest.raises(ParameterError, match=r"expected \(B, 2\)"):
        found.step(np.zeros((2, 3)))


def test_bad_input_is_refused(windows, tmp_path):
    codes, held = windows
    settings = DynamicsSettings(kind="node")
    with pytest.raises(UnknownNameError, match="residual_node"):
        DynamicsSettings(kind="residual")
    with pytest.raises(ParameterError, match="counts of 1 or more"):
        DynamicsSettings(horizon=0)
    with pytest.raises(ParameterError, match="linear= is missing"):
        fit_dynamics(codes, DynamicsSettings(), tmp_path)
    with pytest.raises(ParameterError, match="horizon=3: windows of 3 codes"):
        fit_dynamics(codes[:, :3], settings, tmp_path)
    with pytest.raises(ParameterError, match="do not fit windows"):
        fit_dynamics(codes, settings, tmp_path, held=held[:3])
    with pytest.raises(ParameterError, match="0 complete windows"):
        fit_dynamics(codes, settings, tmp_path, held=np.ones(len(codes), bool))
    with pytest.raises(ParameterError, match="knows no time"):
        fit_dynamics(codes, DynamicsSettings(kind="rezero"), tmp_path, forcing=Forcing((365.0,)))
    with pytest.raises(ParameterError, match="do not change"):
        fit_dynamics(np.ones((5, 5, 2)), settings, tmp_path)
    assert ReZeroPropagator.name == "rezero"

"""The training loop: resuming, stopping, averaging, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from xr_spde.errors import ParameterError  # noqa: E402
from xr_spde.nets import training  # noqa: E402
from xr_spde.nets.cases import CaseBatches, Variation  # noqa: E402
from xr_spde.nets.objectives import replicate_loss, statistics_loss  # noqa: E402
from xr_spde.nets.statistics_net import StatisticsNet  # noqa: E402
from xr_spde.nets.training import Run, Schedule  # noqa: E402


class Toy(nn.Module):
    """A convolution with dropout, so that resuming must repeat random numbers too."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Dropout(0.3))
        self.head = nn.Conv2d(8, 1, 1)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.head(self.layers(x))


def toy(seed=4):
    training.prepare(seed, 1)
    return Toy()


def batch(step):
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(4, 3, 6, 6, generator=draw)
    return x, x[:, :1, 1:-1, 1:-1]


def batches(start, stop, *, dies_at=None):
    for step in range(start, stop):
        if step == dies_at:
            raise KeyboardInterrupt
        yield batch(step)


def loss(model, x, y):
    return (model(x).float() - y).square().mean()


def held(model):
    with torch.no_grad():
        return {"score": float(loss(model, *batch(10_000)))}


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("how", [{"mixed": False}, {}, {"mixed": False, "optimizer": "muon"}])
@pytest.mark.parametrize("dies_at", [3, 10, 17, 24])
def test_a_killed_and_resumed_run_ends_exactly_as_an_uninterrupted_one(tmp_path, dies_at, how):
    schedule = Schedule(steps=25, rate=1e-2, warmup=5, average=0.9, every=5, **how)
    whole = Run(toy(), schedule, tmp_path / "whole")
    rows = list(whole.train(batches(0, 25), loss, held))
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25]

    killed = Run(toy(), schedule, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        list(killed.train(batches(0, 25, dies_at=dies_at), loss, held))
    # a new process builds the network again, with whatever initial weights
    again = Run(toy(), schedule, tmp_path / "killed")
    assert again.step == dies_at // 5 * 5
    list(again.train(batches(again.step, 25), loss, held))
    for name in ("model", "mean"):
        first, second = (getattr(run, name).state_dict() for run in (whole, again))
        assert same(first, second)
    assert again.best == whole.best
    records = [
        (tmp_path / name / "record.jsonl").read_text().splitlines() for name in ("whole", "killed")
    ]
    assert records[0] == records[1]


def test_a_run_survives_a_kill_of_its_process(tmp_path):
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        import test_training as t
        schedule = t.Schedule(steps=30, every=5, average=0.9, mixed=False)
        run = t.Run(t.toy(), schedule, sys.argv[2])
        def endless():
            for step in range(30):
                if step == 13:
                    Path(sys.argv[2], "there").touch()
                    t.time.sleep(600)
                yield t.batch(step)
        list(run.train(endless(), t.loss, t.held))
        """
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", script, __file__.rsplit("/", 1)[0], folder])
    try:
        for _ in range(1200):
            if (folder / "there").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert (folder / "there").exists()
    schedule = Schedule(steps=30, every=5, average=0.9, mixed=False)
    again = Run(toy(), schedule, folder)
    assert again.step == 10
    list(again.train(batches(10, 30), loss, held))
    whole = Run(toy(), schedule, tmp_path / "whole")
    list(whole.train(batches(0, 30), loss, held))
    assert same(whole.model.state_dict(), again.model.state_dict())


def test_a_kill_while_writing_leaves_the_former_checkpoint(tmp_path, monkeypatch):
    schedule = Schedule(steps=10, every=5, mixed=False)
    run = Run(toy(), schedule, tmp_path)
    save, calls = torch.save, []

    def dies(state, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half a file")
            raise KeyboardInterrupt
        save(state, path)

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        list(run.train(batches(0, 10), loss, held))
    assert Run(toy(), schedule, tmp_path).step == 5


def test_it_stops_early_and_leaves_the_best_average_in_the_model(tmp_path):
    scores = iter([3.0, 1.0, 2.0, float("nan"), 1.5, 0.1])
    seen = []

    def validate(model):
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": next(scores)}

    model = toy()
    schedule = Schedule(steps=100, every=4, patience=3, average=0.9, mixed=False)
    run = Run(model, schedule, tmp_path)
    rows = list(run.train(batches(0, 100), loss, validate))
    assert [row["step"] for row in rows] == [4, 8, 12, 16, 20]
    assert run.finished
    assert run.best == 1.0
    assert same(model.state_dict(), seen[1])
    assert not same(model.state_dict(), seen[-1])
    assert not model.training
    # a finished run ends at once, with the same weights
    again = Run(toy(), schedule, tmp_path)
    assert list(again.train(batches(20, 100), loss, validate)) == []
    assert same(again.model.state_dict(), seen[1])


def test_the_average_is_that_of_the_weights(tmp_path):
    model = toy()
    run = Run(model, Schedule(steps=9, every=100, average=0.5, mixed=False), tmp_path)
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(9):
        run._update(*batch(step), loss)
        keep = min(0.5, (step + 2.0) / (step + 11.0))
        expected = [
            keep * e + (1 - keep) * p for e, p in zip(expected, model.parameters(), strict=True)
        ]
    for mean, value in zip(run.mean.parameters(), expected, strict=True):
        torch.testing.assert_close(mean, value)
    assert run.mean.calls.item() == 9


def test_a_gradient_that_is_not_finite_is_skipped(tmp_path):
    model = toy()
    run = Run(model, Schedule(steps=9, mixed=False), tmp_path)
    run._update(*batch(0), loss)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for bad in (float("nan"), float("inf")):
        run._update(*batch(1), lambda *a, bad=bad: bad * loss(*a))
        assert same(before, dict(model.named_parameters()))
    assert run.step == 3
    run._update(*batch(2), loss)
    assert all(p.isfinite().all() for p in run.mean.parameters())
    assert not same(before, dict(model.named_parameters()))


def test_the_gradient_is_clipped(tmp_path):
    model = toy()
    run = Run(model, Schedule(steps=2, clip=1e-3, mixed=False), tmp_path)
    run._update(*batch(0), lambda *a: 1e6 * loss(*a))
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_the_rate_rises_and_falls_once(tmp_path):
    schedule = Schedule(steps=1000, rate=2e-3, warmup=100)
    factors = np.array([schedule.factor(step) for step in range(1000)])
    assert factors[0] == 0.01
    assert factors[99] == factors[100] == 1.0
    assert (np.diff(factors[:100]) > 0).all()
    assert (np.diff(factors[100:]) < 0).all()
    assert factors[550] == pytest.approx(0.505)
    assert factors[-1] == pytest.approx(0.01, abs=1e-4)
    assert Schedule(steps=10, warmup=0).factor(0) == 1.0
    run = Run(toy(), Schedule(steps=1000, rate=2e-3, warmup=100, mixed=False), tmp_path)
    run._update(*batch(0), loss)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(2e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"every": 0}, {"average": 1.0}, {"rate": 0.0}, {"patience": 0}, {"clip": -1.0}],
)
def test_impossible_schedules_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ParameterError, match=f"'{name}': {wrong[name]}.*expected"):
        Schedule(**wrong)


def test_a_new_folder_is_made_and_one_of_another_network_refused(tmp_path):
    folder = tmp_path / "some" / "run"
    schedule = Schedule(steps=2, every=2, mixed=False)
    run = Run(toy(), schedule, folder)
    assert run.step == 0
    (row,) = run.train(batches(0, 2), loss, held)
    assert json.loads((folder / "record.jsonl").read_text()) == row
    with pytest.raises(ParameterError, match="another network, give another folder"):
        Run(nn.Conv2d(3, 1, 1), schedule, folder)
    begun = {"adamw": folder, "muon": tmp_path / "muon"}
    settings = {kind: Schedule(steps=2, every=2, mixed=False, optimizer=kind) for kind in begun}
    list(Run(toy(), settings["muon"], begun["muon"]).train(batches(0, 2), loss, held))
    for kind, other in (("adamw", "muon"), ("muon", "adamw")):
        with pytest.raises(ParameterError, match=f"another optimizer than '{other}'"):
            Run(toy(), settings[other], begun[kind])


@pytest.fixture
def groups():
    rng = np.random.default_rng(3)
    shape = (6, 32, 40)
    return [
        {
            "fields": rng.normal(size=(6, 8, 32, 40)).astype(np.float16),
            "kappa2": rng.uniform(0.1, 1.0, shape).astype(np.float32),
            "rho": rng.uniform(1.0, 5.0, shape).astype(np.float32),
            "theta": rng.uniform(-1.5, 1.5, shape).astype(np.float32),
        }
    ]


def test_batches_come_from_another_process_in_order(groups):
    cases = CaseBatches(groups, [1.0], cells=2000, variation=Variation(), seed=1, moments=False)
    found = list(training.loader(cases, 3, 6))
    assert len(found) == 3
    for step, (inputs, truth) in zip(range(3, 6), found, strict=True):
        expected = cases[step]
        torch.testing.assert_close(inputs, expected[0], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(truth, expected[1], rtol=0, atol=0)
    assert list(training.loader(cases, 6, 6)) == []


def test_the_default_network_is_whitened_and_learns(groups, tmp_path):
    training.prepare(1, 1)
    model = StatisticsNet(widths=(8, 16), down=(0, 1), up=(1,))
    cases = CaseBatches(groups, [1.0], cells=2560, variation=Variation(gaps=0.0), seed=1)
    schedule = Schedule(steps=40, rate=3e-3, warmup=5, every=20, average=0.8)
    run = Run(model, schedule, tmp_path)
    run.fit_inputs([cases[k][0] for k in range(100, 104)])
    white = {n: v for n, v in model.state_dict().items() if n.startswith("pyramid.")}
    assert not torch.equal(white["pyramid.whiten0"], torch.eye(len(white["pyramid.whiten0"])))
    for state in (run.mean.state_dict(), run.best_state):
        assert same(white, {n: state[n] for n in white})
    first, second = run.train(
        (cases[k] for k in range(40)), training.loss_of("net"), lambda _: {"score": 0.0}
    )
    assert second["loss"] < first["loss"]
    assert training.loss_of("net") is statistics_loss
    assert training.loss_of("unet") is replicate_loss

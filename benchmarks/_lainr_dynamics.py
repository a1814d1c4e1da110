"""Roll-outs of propagators in POD space on shallow water: persistence, linear, neural, both.

    python benchmarks/_lainr_dynamics.py CACHE [--split faster] [--modes 128] [--kinds linear node]

Errors are normalised RMSE of decoded fields against the truth, the mean of both variables over all
windows of ten hours of the runs to test on. Two runs of the training, at the quartiles of the
speeds, choose when to stop. The modes are those of every sixth hour.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import _shallow_water as shallow
import numpy as np

from xr_spde.fields.linear_dynamics import PersistencePropagator, fit_linear, window_index
from xr_spde.fields.pod import fit_pod
from xr_spde.nets.latent_dynamics_training import DynamicsSettings, fit_dynamics
from xr_spde.nets.training import Schedule

LEADS = (0, 1, 2, 5, 9)
KINDS = ("persistence", "linear", "node", "residual_node")
STEPS = 300


def settings(kind: str) -> DynamicsSettings:
    """Small networks, short roll-outs: half a minute of one core each."""
    schedule = Schedule(
        steps=STEPS, rate=1e-3, warmup=50, average=0.98, every=STEPS // 6, patience=4, mixed=False
    )
    return DynamicsSettings(kind=kind, hidden=256, layers=2, horizon=3, schedule=schedule)


def errors(propagator: object, state_map: object, runs: shallow.Runs) -> np.ndarray:
    """Errors (leads, runs) of windows that start from the codes of their first field."""
    rows = []
    for run in runs.test:
        chosen = shallow.windows(run[None])
        codes = state_map.encode(chosen[:, 0], prior=False)
        scores = []
        for lead in range(shallow.WINDOW):
            if lead:
                codes = propagator.step(codes)
            if lead in LEADS:
                difference = state_map.decode(codes) - chosen[:, lead]
                scores.append(shallow.rmse(difference, runs.weights).mean())
        rows.append(scores)
    return np.array(rows).T


def compare(cache: str | Path, split: str, modes: int, kinds: list[str]) -> dict[str, np.ndarray]:
    """Errors (leads, runs) of propagators, by kind."""
    runs = shallow.read(cache, split)
    thinned = runs.train[:, ::6].reshape(-1, *runs.train.shape[2:])
    state_map, _ = fit_pod(thinned, runs.points, runs.weights, modes=modes)
    index = window_index(runs.train.shape[1], shallow.WINDOW)
    windows = np.stack([state_map.encode(run, prior=False)[index] for run in runs.train])
    count = len(runs.train)
    speeds = np.array([np.random.RandomState(s).uniform(60, 80) for s in runs.train_seeds])
    held = np.isin(np.arange(count), np.argsort(speeds)[[count // 4, 3 * count // 4]])
    held = np.repeat(held, len(index))
    flat = windows.reshape(-1, *windows.shape[2:])
    found = {}
    for kind in kinds:
        begun = time.process_time()
        if kind == "persistence":
            propagator = PersistencePropagator()
        elif kind == "linear":
            propagator = fit_linear(flat)
        else:
            linear = fit_linear(flat[~held])
            with tempfile.TemporaryDirectory() as folder:
                propagator = fit_dynamics(flat, settings(kind), folder, held=held, linear=linear)
        spent = time.process_time() - begun
        found[kind] = errors(propagator, state_map, runs)
        shown = " ".join(f"{value:.4f}" for value in found[kind].mean(axis=1))
        print(f"{split} POD-{modes} {kind:14s} leads {LEADS}: {shown}  ({spent:.0f} CPU s)")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", help="folder of the runs, see _shallow_water.read")
    parser.add_argument("--split", choices=list(shallow.SPLITS), default="published")
    parser.add_argument("--modes", type=int, default=128)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    compare(given.cache, given.split, given.modes, given.kinds)


if __name__ == "__main__":
    main()

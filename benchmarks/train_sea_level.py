"""Train the solver of sea level that comes with the package.

    python benchmarks/train_sea_level.py --out FOLDER [--seas FOLDER]

Eight simulated seas of two-layer quasi-geostrophic turbulence (`xr_spde.synthetic.turbulent_sea`,
0.1 degree, 200 days each), seen by four nadir altimeters, or by these and a swath, with errors of
1 to 6 cm; a third of the windows are draws of SPDE priors of random ranges instead. The last sea is
held out. First the solver of the state, then that of the SPDE parameters behind the spread. Run
again, it goes on where it was stopped. Leaves ``sea_level.safetensors`` and ``scores.json``, the
errors on windows of the held sea beside those of optimal interpolation. About 40 minutes on one
core; needs torch.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from xr_spde.assim import NeuralSolver, fit
from xr_spde.assim.neural_fit import held_windows
from xr_spde.fields.gaussian import GaussianCovariance, interpolate
from xr_spde.nets.variational import VariationalSolver
from xr_spde.nets.variational_windows import Sample, stacked
from xr_spde.synthetic import turbulent_sea

SEEDS = tuple(range(101, 109))
NADIRS = ("topex", "jason", "gfo", "envisat")
SETTINGS = {
    "missions": [NADIRS, (*NADIRS, "swot")],
    "noise": (0.01, 0.06),
    "leads": 4,
    "patch": 64,
    "border": 4,
    "random_priors": 0.33,
    "augment": ("mirror", "amplitude"),
    "scaling": "observations",
    "network": {
        "prior": "spde", "iterations": 3, "hidden": 24, "coarsen": 2, "refine": 64,
    },
    "validation": [len(SEEDS) - 1],
    "validation_windows": 12,
    "batch": 2,
    "seed": 20,
}  # fmt: skip
# few iterations first; what was learned goes on with more, the gradient through the last three
FIRST = {"window": 11, "steps": 2100, "until": 1200, "every": 300, "rate": 1.5e-3}
SECOND = {"network": {"iterations": 12, "truncate": 3}, "steps": 1200, "every": 200, "rate": 1e-3,
          "seed": 21}  # fmt: skip
# at last with longer windows, more of the past
THIRD = {
    "network": {"iterations": 20, "truncate": 3}, "patch": 48, "random_priors": 0.15, "every": 275,
    "rate": 1e-3, "seed": 22,
}  # fmt: skip
_STEPS = 15
# at work: accurate swaths take more iterations to come to rest than training has
_AT_WORK = 30
_CONVERGED = 60
_NEAR, _DAYS = 1.0, 7.0
"""Scales of the covariance of the challenges, in degrees and days."""


def sea(seed: int, folder: Path) -> xr.DataArray:
    """Read a sea, or simulate it."""
    path = folder / f"sea_{seed}.nc"
    if not path.exists():
        made = turbulent_sea((128, 128), days=200, seed=seed, start="2004-01-01")
        folder.mkdir(parents=True, exist_ok=True)
        made.to_netcdf(path, engine="scipy")
    return xr.open_dataarray(path, engine="scipy")


def longer(model: NeuralSolver, steps: int) -> NeuralSolver:
    """Put weights into a network of more steps; those before the old ones have no effect yet."""
    old = model.solver
    new = VariationalSolver(**{**old.options, "steps": steps})
    before, state = old.options["steps"], new.state_dict()
    wide = old.options["coarsen"] ** 2
    kept = wide * np.arange(steps - before, steps)[:, None] + np.arange(wide)

    def places(groups: int, more: int) -> torch.Tensor:
        """Channels of old steps in groups of new ones, and further ones after these."""
        parts = [(kept + wide * steps * k).ravel() for k in range(groups)]
        return torch.from_numpy(np.concatenate([*parts, np.arange(more) + wide * steps * groups]))

    hidden = old.options["hidden"]
    taken = {
        "lstm.gates.weight": (1, places(3, wide + hidden)),
        "lstm.head.weight": (0, places(2, 0)),
        "lstm.head.bias": (0, places(2, 0)),
        "refine.first.weight": (1, places(4, wide)),
        "refine.last.weight": (0, places(1, 0)),
        "refine.last.bias": (0, places(1, 0)),
    }
    for name, value in old.state_dict().items():
        if name in taken:
            state[name] = torch.zeros_like(state[name]).index_copy(*taken[name], value)
        else:
            state[name] = value
    new.load_state_dict(state)
    return replace(model, solver=new)


def gaussian(sample: Sample, degrees: float) -> np.ndarray:
    """Interpolate the middle and the end of a window with the covariance of the challenges."""
    covariance = GaussianCovariance(time=_DAYS, y=_NEAR / degrees, x=_NEAR / degrees, std=1.0)
    places = np.argwhere(sample.mask).astype(float)
    steps, *shape = sample.mask.shape
    nodes = np.indices(shape).reshape(2, -1).T.astype(float)
    mean, _ = interpolate(
        covariance, places, sample.obs[sample.mask], sample.variance[sample.mask],
        times=np.array([steps // 2, steps - 1.0]), nodes=nodes, deviation=False,
    )  # fmt: skip
    return mean.reshape(2, *shape)


def errors(model: NeuralSolver, windows: list[Sample]) -> dict[str, dict[str, float]]:
    """Root mean square errors in units of the scale, in the middle and at the end of windows."""
    options = {**model.solver.options, "iterations": _CONVERGED, "refine": 0}
    exact = VariationalSolver(**options).eval()
    for weights in (exact.lstm.head.weight, exact.lstm.head.bias):
        torch.nn.init.zeros_(weights)  # nothing learned: preconditioned conjugate gradients

    def ends(solver: VariationalSolver, sample: Sample) -> np.ndarray:
        found = solver(stacked([sample])[0])[0].numpy()
        return found[[len(found) // 2, -1]]

    methods = {
        "neural": lambda s: ends(model.solver, s),
        "SPDE-OI": lambda s: ends(exact, s),
        "Gaussian OI": lambda s: gaussian(s, 0.1),
        "first guess": lambda s: np.zeros((2, *s.sea.shape)),
    }
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        for name, method in methods.items():
            squares: dict[str, list[float]] = {}
            began = time.process_time()
            for sample in windows:
                left = method(sample) - sample.truth[[len(sample.truth) // 2, -1]]
                for task, error in zip(("mapping", "nrt"), left, strict=True):
                    squares.setdefault(task, []).append(np.mean(error[4:-4, 4:-4] ** 2))
            seconds = (time.process_time() - began) / len(windows)
            found[name] = {k: float(np.sqrt(np.mean(v))) for k, v in squares.items()}
            found[name]["seconds"] = seconds
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seas", type=Path, help="folder of the seas; by default in that of --out")
    parser.add_argument("--steps", type=int, default=1100, help="of the last phase")
    parser.add_argument("--theta-steps", type=int, default=0, help="of the parameters; 0 for none")
    parser.add_argument("--windows", type=int, default=8, help="of the comparison")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seas = [sea(seed, given.seas or given.out / "seas") for seed in SEEDS]
    began = time.process_time()
    first = fit(seas, **SETTINGS, **FIRST, folder=given.out)
    second = fit(seas, **SETTINGS | SECOND, start=first, folder=given.out / "second")
    settings = SETTINGS | THIRD | {"start": longer(second, _STEPS), "steps": given.steps}
    if given.theta_steps:
        settings |= {"theta": "two-stage", "theta_steps": given.theta_steps}
    model = fit(
        seas, **settings, folder=given.out / "third",
        card={
            "data": f"turbulent_sea((128, 128), days=200, seed={SEEDS[0]}..{SEEDS[-1]}), 0.1 "
                    "degree; the last one held out; 33 % draws of random SPDE priors",
            "command": f"python benchmarks/train_sea_level.py --steps {given.steps} "
                       f"--theta-steps {given.theta_steps}",
            "before": [FIRST, SECOND],
        },
    )  # fmt: skip
    at_work = VariationalSolver(**{**model.solver.options, "iterations": _AT_WORK}).eval()
    at_work.load_state_dict(model.solver.state_dict())
    model = replace(model, solver=at_work)
    logging.info("%.0f CPU-s, %s", time.process_time() - began, model.card["scores"])
    windows = held_windows(seas, None, given.windows, **settings)
    scores = errors(model, windows)
    for name, row in scores.items():
        print(name, {k: round(v, 4) for k, v in row.items()})
    model.card["comparison"] = scores
    (given.out / "scores.json").write_text(json.dumps(scores, indent=1))
    model.save(given.out / "sea_level.safetensors", half=True)
    print(model)


if __name__ == "__main__":
    main()

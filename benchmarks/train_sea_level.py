"""Train the solver of sea level that comes with the package.

    OMP_NUM_THREADS=1 python benchmarks/train_sea_level.py --out FOLDER [--seas FOLDER]

24 simulated seas of two-layer quasi-geostrophic turbulence (`xr_spde.synthetic.turbulent_sea`, 0.1
degree, 200 days each, brought to one standard deviation of 20 cm), seen by four nadir altimeters,
or by these and a swath, with errors of 0.5 to 5 cm; a tenth of the windows are draws of SPDE priors
of random ranges instead. The last sea is held out. The iterations, conjugate gradients for the cost
with an SPDE prior, are done once for some thousands of windows; the network after them, which tells
the standard deviation of its errors too, is trained on these. Run again, it goes on where it was
stopped. Leaves ``sea_level.safetensors`` and ``scores.json``, the errors on windows of the held sea
beside those of optimal interpolation; needs torch.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from xr_spde.assim import NeuralSolver, fit
from xr_spde.assim.neural_fit import held_windows
from xr_spde.nets.variational import VariationalSolver
from xr_spde.nets.variational_windows import Sample, stacked
from xr_spde.synthetic import turbulent_sea

SEEDS = tuple(range(101, 125))
NADIRS = ("topex", "jason", "gfo", "envisat")
STD = 0.2
# decay of 230 days, 7.3 cells: what altimeters over such a sea are likeliest with; a variance of 1
PRIOR = {"kappa": 0.256784, "tau": 2.49338, "gamma": 3.51384}
SETTINGS: dict[str, Any] = {
    "missions": [NADIRS, (*NADIRS, "swot")],
    "noise": {**dict.fromkeys(NADIRS, (0.01, 0.05)), "swot": (0.005, 0.03)},
    "first_guess": 0.0,
    "leads": 4,
    "window": 21,
    "patch": 64,
    "border": 6,
    "random_priors": 0.1,
    "augment": ("mirror", "amplitude"),
    "amplitude": 0.15,
    "scaling": "observations",
    "network": {
        "prior": "spde", "theta": PRIOR, "nodes": 2, "times": True, "representation": 0.1,
        "hidden": 0, "iterations": 50, "refine": 96, "depth": 8, "cycle": 4, "deviation": True,
    },
    "batch": 8,
    "rate": 1e-3,
    "average": 0.998,
    "gradient": 2.0,
    "mixed": True,
    "validation": [len(SEEDS) - 1],
    "validation_windows": 24,
    "seed": 31,
}  # fmt: skip
_CONVERGED = 100


def sea(seed: int, folder: Path) -> xr.DataArray:
    """Read a sea, or simulate it; on longitudes of its own, so that its tracks are too."""
    path = folder / f"sea_{seed}.nc"
    if not path.exists():
        made = turbulent_sea((128, 128), days=200, seed=seed, start="2004-01-01")
        folder.mkdir(parents=True, exist_ok=True)
        made.to_netcdf(path, engine="scipy")
    found = xr.open_dataarray(path, engine="scipy").astype("float64")
    found = found.assign_coords(lon=found.lon + (7.3 * seed) % 5.0)
    return (found * float(STD / found.std())).assign_attrs(found.attrs)


def errors(model: NeuralSolver, windows: list[Sample]) -> dict[str, dict[str, float]]:
    """Root mean square errors in units of the scale, in the middle and at the end of windows."""
    options = {**model.solver.options, "iterations": _CONVERGED, "refine": 0, "deviation": False}
    exact = VariationalSolver(**options).eval()

    def ends(solver: VariationalSolver, sample: Sample) -> np.ndarray:
        found = solver(stacked([sample])[0])[0].numpy()
        return found[[len(found) // 2, -1]]

    methods = {
        "neural": lambda s: ends(model.solver, s),
        "SPDE-OI": lambda s: ends(exact, s),
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
                    squares.setdefault(task, []).append(np.mean(error[6:-6, 6:-6] ** 2))
            seconds = (time.process_time() - began) / len(windows)
            found[name] = {k: float(np.sqrt(np.mean(v))) for k, v in squares.items()}
            found[name]["seconds"] = seconds
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seas", type=Path, help="folder of the seas; by default in that of --out")
    parser.add_argument("--windows", type=int, default=8000, help="that are searched once")
    parser.add_argument("--steps", type=int, default=8000, help="of the network after the search")
    parser.add_argument("--until", type=int, help="step at which the training is left")
    parser.add_argument("--compare", type=int, default=12, help="windows of the comparison")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seas = [sea(seed, given.seas or given.out / "seas") for seed in SEEDS]
    began = time.process_time()
    model = fit(
        seas, **SETTINGS, searched=given.windows, steps=given.steps, until=given.until,
        every=max(given.steps // 16, 1), folder=given.out,
        card={
            "data": f"turbulent_sea((128, 128), days=200, seed={SEEDS[0]}..{SEEDS[-1]}), 0.1 "
                    "degree, brought to one standard deviation; the last one held out; 10 % draws "
                    "of random SPDE priors",
            "command": f"python benchmarks/train_sea_level.py --windows {given.windows} "
                       f"--steps {given.steps}"
                       + (f" --until {given.until}" if given.until else ""),
        },
    )  # fmt: skip
    logging.info("%.0f CPU-s, %s", time.process_time() - began, model.card["scores"])
    scores = errors(model, held_windows(seas, None, given.compare, **SETTINGS))
    for name, row in scores.items():
        print(name, {k: round(v, 4) for k, v in row.items()})
    model.card["comparison"] = scores
    (given.out / "scores.json").write_text(json.dumps(scores, indent=1))
    model.save(given.out / "sea_level.safetensors", half=True)
    print(model)


if __name__ == "__main__":
    main()

"""Train the solver of `med_neural.py`: resumable, some 10 CPU minutes on one core.

    XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/med_neural_train.py FOLDER
        --steps 1500, and then --steps 1900

Checkpoints go to FOLDER, from which a killed run goes on; the weights of the best validation to
`benchmarks/weights/med_sea_level.safetensors`. Nothing is read of 2014: truths and tracks
are those of `_sea_worlds.py`, whose wide ranges of lengths, times and errors hold the numbers that
fits to the missions of 2014 give, each without the one that it withholds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import med_tracks
import numpy as np
import torch
import xarray as xr
from _machine import machine
from _sea_worlds import LENGTHS, SCALE, STEP_DAYS, STEPS, Sea, Worlds
from torch import Tensor, nn

from xr_spde.assim.neural_solver import NeuralSolver
from xr_spde.datasets import local_path
from xr_spde.nets.stationary import StationaryPrior
from xr_spde.nets.training import Run, Schedule, prepare
from xr_spde.nets.variational import VariationalSolver
from xr_spde.nets.variational_window import Window

WEIGHTS = Path(__file__).parent / "weights" / "med_sea_level.safetensors"
SEED, BATCH, HELD = 20261122, 2, 12
SPACING = (27.8, 22.0)
NETWORK = {"iterations": 1, "hidden": 16, "coarsen": 2, "update": "search", "refine": 80,
           "depth": 5}  # fmt: skip


def prior_of(length: float = 36.0, days: float = 42.0) -> dict[str, float]:
    """Constant SPDE in cells and steps with unit variance: length in km, decay in days."""
    kappa = (STEP_DAYS / days) ** 0.25
    across, along = ((kappa * length / cell) ** 2 for cell in SPACING)
    one = [torch.tensor(v, dtype=torch.float64) for v in (kappa, 1.0, along, across)]
    variance = StationaryPrior(*one, (64, 170), alpha=4).variance.mean()
    return {"kappa": kappa, "tau": float(variance**-0.5), "gamma": across, "beta": along - across,
            "v1": 1.0}  # fmt: skip


def mediterranean() -> Sea:
    """Return the sea of the maps, with the real maps of 2005 about their means."""
    _, mdt = med_tracks.load()
    grid = med_tracks.field(mdt)
    maps = xr.open_dataset(local_path("med_adt_20050401_20050531.nc")).adt
    maps = maps.coarsen(latitude=2, longitude=2, boundary="trim").mean()
    maps = maps.interp(latitude=grid.latitude, longitude=grid.longitude, method="nearest")
    maps = maps - maps.mean("time")
    maps = maps - maps.mean(("latitude", "longitude"))
    return Sea(grid, seed=SEED, maps=maps.fillna(0.0).values)


def squared(model: nn.Module, window: Window, truth: Tensor) -> Tensor:
    """Mean squared error over the sea, in units of the scale."""
    sea = window.sea[:, None].to(truth.dtype)
    return ((model(window) - truth) ** 2 * sea).sum() / (sea.sum() * truth.shape[1])


def main() -> None:
    """Train, or go on, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    prepare(SEED, 1)
    sea, theta = mediterranean(), prior_of()
    solver = VariationalSolver(STEPS, prior="spde", theta=theta, **NETWORK)
    held = Worlds(sea, batch=1, seed=SEED + 1)
    cases = [held[k] for k in range(HELD)]

    def validate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"score": float(np.mean([squared(model, *case) for case in cases]))}

    schedule = Schedule(steps=options.steps, rate=2e-3, warmup=100, average=0.995, every=100,
                        patience=options.steps, decay=1e-4, mixed=True)  # fmt: skip
    run = Run(solver, schedule, options.folder, recipe=f"{NETWORK} {theta} {BATCH} {SEED}")
    batches, began, first = Worlds(sea, batch=BATCH, seed=SEED), time.process_time(), run.step
    untrained = validate(solver)["score"] if first == 0 else None
    print(f"step {first}, {sum(p.numel() for p in solver.parameters())} parameters, {untrained}",
          flush=True)  # fmt: skip
    for row in run.train((batches[k] for k in range(first, options.steps)), squared, validate):
        print(row, f"{time.process_time() - began:.0f} CPU s", flush=True)
    card = {
        "trained": "benchmarks/med_neural_train.py", "steps": options.steps, "batch": BATCH,
        "seed": SEED, "worlds": f"Matern draws of {LENGTHS[0]:.0f} to {LENGTHS[-1]:.0f} km, maps "
        "of 2005 with small scales; tracks of made-up orbits; none of 2014",
        "validation": {"mse": run.best, "of unit variance, unseen worlds": HELD},
        "cpu_seconds": round(time.process_time() - began), "from_step": first,
        "machine": machine("torch"),
    }  # fmt: skip
    options.output.parent.mkdir(exist_ok=True)
    NeuralSolver(solver, SCALE, SPACING, STEP_DAYS, tasks=("mapping",), units="m",
                 card=card).save(options.output, half=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""Weights of one sea applied to others without training there.

    XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/transfer_neural.py

The weights of `med_neural_train.py` (Mediterranean, cells of 1/4 degree, steps of two days), with
anomalies divided by the signal that the observations have, on three truths:

- "at home": the Mediterranean, worlds that the training has not seen;
- "another sea": quasi-geostrophic turbulence of a deformation radius of 28 km at 40 S, cells of
  1/4 degree, below three altimeters; beside it the same weights after a short training on another
  sea of that kind, and exact interpolation with a prior fitted to the tracks;
- "globe": a Gaussian field of the latitudes of altimeters on cells of one degree, with real land
  and closed in longitude, cut into patches; beside it exact interpolation with the SPDE whose
  length, time and deviation are those of the truth.

The score is that of the mapping challenges, mu = 1 - RMSE / RMS of the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from _machine import answer, isolated, machine, table, write

KEPT = Path(__file__).parent / ".transfer"
MISSIONS = ("topex", "jason", "envisat")
NOISE = 0.02
SEA = {"shape": (40, 48), "resolution": 0.25, "step": 2.0, "latitude": -40.0, "radius": 28.0}
SEEDS = {"train": 920_001, "test": 920_002}
LENGTH, TIME, STD = 150.0, 25.0, 0.1
HOME = 6  # worlds
Row = dict[str, Any]


def skill(found: xr.DataArray, truth: xr.DataArray) -> float:
    """Share of the size of the truth that is not missed."""
    missed, size = ((a.astype(float) ** 2).mean() for a in (found - truth, truth))
    return float(1.0 - np.sqrt(missed / size))


def told(method: str, truth: xr.DataArray, work: Callable[[], xr.Dataset]) -> Row:
    """Map, score and time."""
    began = time.process_time()
    found = work()["mean"]
    spent = time.process_time() - began
    return {"method": method, "mu": skill(found, truth), "cpu": spent}


def home(weights: str) -> dict[str, list[Row]]:
    """Worlds of the kind of the training, that it has not seen."""
    import med_neural_train as training
    import torch
    from _sea_worlds import Worlds

    from xr_spde.assim import load_solver

    model, sea = load_solver(weights), training.mediterranean()
    held = Worlds(sea, batch=1, seed=training.SEED + 2)
    missed = size = 0.0
    began = time.process_time()
    for k in range(HOME):
        window, truth = held[k]
        with torch.no_grad():
            missed += float(training.squared(model.solver, window, truth))
            wet = window.sea[:, None].expand_as(truth)
            size += float((truth[wet] ** 2).mean())
    rows = [{"method": "network", "mu": 1.0 - np.sqrt(missed / size),
             "cpu": (time.process_time() - began) / HOME}]  # fmt: skip
    return {"rows": rows}


def fitted(tracks: xr.Dataset, guess: xr.DataArray) -> xr.Dataset:
    """Fit a prior to the tracks of 20 days in the middle of the sea."""
    box = {"lat": slice(-42.0, -38.0), "lon": slice(-62.0, -58.0)}
    grid = guess[0].drop_vars("time")
    early = tracks.isel(obs=(tracks.time < guess.time[10]).values)
    return early.ssh.assim.spde_prior(
        grid=grid, mean=grid, alpha=4, time_step=2.0, unusable="drop", stderr=False, region=box,
        obs_error=early.ssh_error, max_iterations=8,
    )  # fmt: skip


def turbulent(weights: str, steps: int) -> dict[str, list[Row]]:
    """Turbulence of another deformation radius."""
    import xr_spde
    from xr_spde.assim import fit, load_solver

    KEPT.mkdir(exist_ok=True)
    sea = {
        kind: xr_spde.synthetic.turbulent_sea(
            **SEA, days=60 if kind == "test" else 240, seed=seed, cache=KEPT
        )
        for kind, seed in SEEDS.items()
    }
    truth = sea["test"]
    tracks = truth.assim.simulate_tracks(MISSIONS, noise=NOISE, seed=1)
    guess = xr.zeros_like(truth.astype(float))
    model = replace(load_solver(weights), scaling="observations")
    began = time.process_time()
    there = fit(sea["train"], missions=MISSIONS, noise=NOISE, tasks=("mapping",), start=model,
                steps=steps, every=steps, first_guess=0.0, gradient=0.0, seed=0)  # fmt: skip
    trained = time.process_time() - began
    prior = fitted(tracks, guess)
    work = {
        "network": lambda: guess.assim.assimilate(tracks, model=model, unusable="drop"),
        f"network, {steps} steps there": lambda: guess.assim.assimilate(
            tracks, model=there, unusable="drop"),
        "exact, SPDE fitted there": lambda: guess.assim.assimilate(
            tracks, prior=prior, unusable="drop", draws=0, tol=1e-4),
    }  # fmt: skip
    rows = [told(name, truth, one) for name, one in work.items()]
    return {"rows": rows, "trained": trained}


def earth() -> xr.DataArray:
    """Land of the latitudes of altimeters, NaN, on cells of one degree."""
    from xr_spde.datasets import local_path

    name = "ersstv5_monthly_201001_202008.nc"
    coarse = xr.open_dataset(local_path(name)).sst.isel(time=0, drop=True)
    lat, lon = np.arange(-60.0, 61.0), np.arange(0.0, 360.0)
    fine = coarse.sortby("lat").interp(lat=lat, lon=lon, method="nearest",
                                       kwargs={"fill_value": "extrapolate"})  # fmt: skip
    fine.attrs.clear()
    fine["lat"].attrs["units"], fine["lon"].attrs["units"] = "degrees_north", "degrees_east"
    return fine.rename(lat="latitude", lon="longitude")


def globe(weights: str) -> dict[str, list[Row]]:
    """Map the whole globe in patches."""
    from _sea_worlds import STEP_DAYS, STEPS, Sea

    from xr_spde.assim import load_solver

    like = earth()
    sea = Sea(like, boundary=("neumann", "periodic"))
    field = STD * sea.field(np.random.default_rng(5), LENGTH, TIME)
    times = np.datetime64("2014-05-15", "ns") + np.arange(STEPS) * np.timedelta64(
        int(24 * STEP_DAYS), "h")  # fmt: skip
    truth = xr.DataArray(field, {"time": times, **like.coords}, ("time", *like.dims), "ssh")
    truth = truth.where(like.notnull())
    tracks = truth.assim.simulate_tracks(MISSIONS, noise=NOISE, seed=1, every=10.0)
    model = replace(load_solver(weights), scaling="observations")
    numbers = {"length": LENGTH, "decay_time": TIME, "std": STD}
    maps = {name: xr.full_like(like, number).where(like.notnull()) for name, number in
            numbers.items()}  # fmt: skip
    prior = xr.Dataset(maps, attrs={"time_step": STEP_DAYS, "alpha": 4})
    guess = xr.zeros_like(truth)
    work = {
        "network": lambda: guess.assim.assimilate(
            tracks, model=model, unusable="drop", patch=128, overlap=36),
        "exact, SPDE of known numbers": lambda: guess.assim.assimilate(
            tracks, prior=prior, unusable="drop", draws=0, tol=1e-4),
    }  # fmt: skip
    return {"rows": [told(name, truth, one) for name, one in work.items()]}


def main() -> None:
    """Run, print and write the table."""
    if answer({"home": home, "turbulent": turbulent, "globe": globe}):
        return
    from med_neural_train import WEIGHTS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=str(WEIGHTS))
    parser.add_argument("--steps", type=int, default=100, help="of the training there")
    options = parser.parse_args()
    names = {"home": "at home", "turbulent": "another sea", "globe": "globe"}
    rows, trained = [], 0.0
    for part, name in names.items():
        more = {"steps": options.steps} if part == "turbulent" else {}
        found = isolated(__file__, part, weights=options.weights, **more)
        trained = found.get("trained", trained)
        best = max(one["mu"] for one in found["rows"])
        for one in found["rows"]:
            less = "" if one["mu"] == best else f"{best - one['mu']:.3f}"
            rows.append([name, one["method"], f"{one['mu']:.3f}", less, f"{one['cpu']:.2f}"])
            print(rows[-1], flush=True)
    header = ["truth", "method", "mu", "below the best there", "CPU s"]
    body = (
        f"{machine('torch')} One thread. The short training took {trained:.0f} CPU s and started "
        f"from the weights of the Mediterranean; CPU s are those of the maps, first calls of "
        f"libraries included; at home, of a world and its map.\n\n{table(header, rows)}"
    )
    command = "XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/transfer_neural.py"
    write("transfer_neural", "A trained solver in other regions", command, body)


if __name__ == "__main__":
    main()

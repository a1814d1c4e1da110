"""Recalibrate the spread of the sea-level solver on seas that it was not trained on.

    OMP_NUM_THREADS=1 python benchmarks/recalibrate_sea_level.py WEIGHTS [--seas FOLDER]

Four simulated seas of seeds that `train_sea_level.py` has not, 64 x 64 cells of 0.1 degree, seen by
four altimeters in two and by these and a swath in two. Factors on the standard deviation that
the solver tells, or on the spread of members of one that does not, by the share of errors within
the interval of 90 %, for mapping and for leads 0, 2 and 4; those between follow. A fifth sea then
tells what that is worth, before and after. The weights are written again with the factors. A few
minutes on one core for a solver that tells its deviation; needs torch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import xarray as xr

from xr_spde.assim import load_solver
from xr_spde.assim.recalibration import recalibrate
from xr_spde.assim.spread_scaling import recalibrated
from xr_spde.synthetic import turbulent_sea

NADIRS = ("topex", "jason", "gfo", "envisat")
MISSIONS = {201: NADIRS, 202: (*NADIRS, "swot"), 204: NADIRS, 205: (*NADIRS, "swot"), 203: NADIRS}
*FITTED, TESTED = MISSIONS
LEADS = (0, 2, 4)
NOISE, BORDER = 0.025, 6
CUT = {"lat": slice(8, 72), "lon": slice(8, 72)}


def sea(seed: int, folder: Path, days: int) -> tuple[xr.DataArray, xr.Dataset]:
    """Truth and tracks."""
    made = turbulent_sea((80, 80), days=days, seed=seed, start="2010-01-01", cache=folder)
    truth = made.isel(CUT).astype(float)
    return truth, truth.assim.simulate_tracks(MISSIONS[seed], noise=NOISE, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seas", type=Path, default=Path("seas"), help="folder of the seas")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--tendency", action="store_true", help="and on the local change of maps")
    parser.add_argument("--days", type=int, default=64, help="of each sea")
    parser.add_argument(
        "--leads", nargs="*", type=int, default=LEADS, help="besides mapping; none for it alone"
    )
    given = parser.parse_args()
    began = time.process_time()
    leads = (None, *given.leads)
    model = load_solver(given.weights)
    truths, tracks = zip(*(sea(seed, given.seas, given.days) for seed in FITTED), strict=True)
    settings = {"unusable": "drop", "seed": 1}
    model = recalibrate(
        model, list(truths), list(tracks), leads=leads, members=given.members, method="coverage",
        tendency=given.tendency, border=BORDER, **settings,
    )  # fmt: skip
    print(json.dumps(model.recalibration, indent=1))
    print(f"{time.process_time() - began:.0f} CPU-s", flush=True)
    truth, seen = sea(TESTED, given.seas, given.days)
    plane = truth.isel(time=0, drop=True)
    scores = {}
    for lead in leads:
        raw = seen.assim.assimilate(
            model=model, like=plane, times=truth.time, lead=lead,
            draws=0 if model.deviates else given.members, recalibrate=False, **settings,
        )  # fmt: skip
        for name, maps in (("raw", raw), ("recalibrated", recalibrated(raw, model.recalibration,
                                                                     lead))):  # fmt: skip
            found = maps[["mean", "std"]].assim.score(truth, uncertainty=True, border=BORDER)
            row = {"rmse": found.rmse, "crps": found.crps, "spread_skill": found.spread_skill,
                   "coverage": found.coverage.sel(level=0.9), "slope": found.slope,
                   "correlation": found.correlation_pearson.mean(),
                   "expected": found.correlation_expected.mean()}  # fmt: skip
            row = {key: round(float(value), 4) for key, value in row.items()}
            scores[f"lead {lead}, {name}"] = row
            print(f"lead {lead}, {name}: {row}", flush=True)
    model.card["recalibration"] = scores
    model.save(given.weights, half=True)
    print(f"{time.process_time() - began:.0f} CPU-s")


if __name__ == "__main__":
    main()

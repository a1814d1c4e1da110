"""Observing-system experiment: a known sea level, simulated altimeters, maps of three priors.

    XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/osse.py [--quick]

The truth are the daily maps of absolute dynamic topography of the Levantine basin (27 to 34 E,
31.5 to 36 N, 1/8 degree) of April and May 2005, a product that is itself an interpolation of
tracks, with a Gaussian-like covariance; so the plain method meets what it assumes. It is seen at
1 Hz below four altimeters (orbits of Topex, Jason-1, GFO and Envisat, errors of 2.5 cm), or these
and a swath of 120 km (orbit of SWOT, every 6 km, errors of 1 cm), all errors independent. Every
pass is averaged over cells of 1/4 degree, the same for all methods, and mapped for all 61 days
about a first guess: the mean dynamic topography of the product of 2016 plus the mean innovation.
Nothing is taken from the truth. The scales of the plain interpolation are the customary 100 km and
10 days; those of the space-time priors are the mean of those found on real tracks of 2014 in
another basin (med_tracks), or fitted to the four altimeters of the first 20 days, together with an
error of representation (on 1/4 degree in steps of two days). Scores are those of the SSH mapping
data challenge on days 11 to 51; resolved scales from the rows of open water.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import xarray as xr
from _machine import answer, isolated, machine, table, write
from _tracks import DATA, NOISE, averaged

REGION = {"longitude": slice(27.0, 34.0), "latitude": slice(31.5, 36.0)}
PRIORS = {
    "first guess": {},
    "Gaussian, 100 km, 10 d": {},
    "SPDE, alpha = 2": {"length": 172.0, "decay_time": 64.0, "std": 0.051, "alpha": 2},
    "SPDE, alpha = 4": {"length": 50.0, "decay_time": 133.0, "std": 0.057, "alpha": 4},
    "SPDE, alpha = 4, fitted": {"alpha": 4},
}
CELL = 0.25
DRAWS = 12
SCORED = slice(10, 51)


def experiment(data: str, days: int) -> tuple[xr.DataArray, xr.Dataset, xr.DataArray]:
    """Truth, what was seen of it, and the first guess."""
    import xr_spde

    truth = xr_spde.open_dataset("mediterranean_adt").adt.isel(time=slice(0, days)).sel(REGION)
    truth = truth.load().astype(np.float64)
    product = xr_spde.open_dataset("mediterranean_adt_sla").isel(time=0).load()
    tracks = averaged(truth.assim.simulate_tracks(DATA[data], noise=NOISE, seed=0), CELL)
    mdt = (product.adt - product.sla).sel(REGION).where(truth[0].notnull())
    mdt = mdt.interpolate_na("longitude", fill_value="extrapolate").where(truth[0].notnull())
    here = {"longitude": tracks.longitude, "latitude": tracks.latitude}
    shift = (tracks.adt - mdt.interp(here)).mean()
    guess = (mdt + shift).drop_vars("time", errors="ignore")
    guess = guess.expand_dims(time=truth.time).transpose(*truth.dims).copy()
    return truth, tracks, guess.assign_attrs(units="m")


def fitted(mean: xr.DataArray, alpha: int) -> dict[str, float]:
    """Numbers of a prior that is fitted to the altimeters of the first days."""
    _, tracks, _ = experiment("four nadirs", 21)
    coarse = mean.coarsen(latitude=2, longitude=2, boundary="trim").mean()
    found = tracks.adt.assim.spde_prior(
        grid=coarse, mean=coarse, obs_error=tracks.adt_error, alpha=alpha, time_step=2.0,
        unusable="drop", stderr=False,
    )  # fmt: skip
    names = ("length", "decay_time", "std", "obs_error")
    return {name: float(found[name].median()) for name in names}


def run(prior: str, data: str, days: int) -> dict[str, Any]:
    """Map and score."""
    truth, tracks, guess = experiment(data, days)
    settings = PRIORS[prior]
    began = time.process_time()
    if prior == "first guess":
        maps = guess.to_dataset(name="mean")
    elif prior.startswith("Gaussian"):
        degree = 100.0 / 111.2
        maps = guess.assim.assimilate(
            tracks, method="oi-gaussian", unusable="drop", lt=10.0, std=0.06, ly=degree,
            lx=degree / np.cos(np.radians(33.75)),
        )  # fmt: skip
    else:
        names = ("length", "decay_time", "std")
        if "length" not in settings:
            settings = settings | fitted(guess[0].drop_vars("time"), settings["alpha"])
            error = np.hypot(tracks.adt_error, settings["obs_error"])
            tracks = tracks.assign(adt_error=error)
        plane = truth[0].drop_vars("time")
        known = xr.Dataset({k: xr.full_like(plane, settings[k]).where(plane.notnull())
                            for k in names})  # fmt: skip
        known = known.drop_attrs().assign_attrs(time_step=1.0, alpha=settings["alpha"])
        maps = guess.assim.assimilate(tracks, prior=known, unusable="drop", draws=DRAWS, seed=0,
                                      tol=1e-5)  # fmt: skip
    used = time.process_time() - began
    part = {"time": SCORED} if days > 50 else {}
    inside, true = maps.isel(part), truth.isel(part)
    found = inside.assim.score(true, challenge=True)
    scores = {str(name): float(value) for name, value in found.items() if value.ndim == 0}
    scores["rmse"] = float(np.sqrt(((inside["mean"] - true) ** 2).mean()))
    if "std" in maps:
        z = ((inside["mean"] - true) / inside["std"]).values
        scores["coverage"] = float(np.mean(np.abs(z[np.isfinite(z)]) <= 1.6448536))
        scores["spread"] = float(np.sqrt((inside["std"] ** 2).mean())) / scores["rmse"]
    scales = {k: settings[k] for k in ("length", "decay_time", "std", "obs_error")
              if k in settings}  # fmt: skip
    return scores | {"cpu": used, "observations": tracks.sizes["obs"], "scales": scales}


def main() -> None:
    """Run, print and write the table."""
    if answer({"run": run}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="12 days, nothing written")
    options = parser.parse_args()
    rows, scales = [], {}
    for data in DATA:
        for prior in PRIORS:
            if prior == "first guess" and rows:
                continue  # the same but for its mean
            one = isolated(
                __file__, "run", prior=prior, data=data, days=12 if options.quick else 61
            )
            print(data, prior, one, flush=True)
            scales[prior] = one["scales"]
            rows.append([
                prior, data, f"{one['mu']:.3f}", f"{one['sigma']:.3f}", f"{one['lambda_x']:.2f}",
                f"{one['lambda_t']:.1f}", f"{100 * one['rmse']:.2f}", one.get("coverage"),
                one.get("spread"), f"{one['cpu']:.0f}", f"{one['peak_mb']:.0f}",
            ])  # fmt: skip
    header = ["prior", "observations", "mu", "sigma", "lambda_x, degrees", "lambda_t, days",
              "RMSE, cm", "coverage of 90 %", "spread / error", "CPU s", "peak MB"]  # fmt: skip
    found = scales["SPDE, alpha = 4, fitted"]
    notes = (
        f"{__doc__.split(chr(10) * 2)[2].strip()} A dash or nan: no deviation, or no scale that is "
        f"resolved. {DRAWS} draws behind the deviation of the SPDE priors. CPU s with the fit. "
        f"Fitted: {found['length']:.1f} km, {found['decay_time']:.1f} days, std "
        f"{100 * found['std']:.2f} cm, error of representation {100 * found['obs_error']:.2f} cm."
    )
    command = "XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/osse.py"
    body = f"{machine()}\n\n{notes}\n\n{table(header, rows)}"
    write("osse", "Observing-system experiment", command, body, keep=not options.quick)


if __name__ == "__main__":
    main()

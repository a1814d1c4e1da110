"""Synthetic sea level: optimal interpolations and the neural solver, by data and by task.

    OMP_NUM_THREADS=1 python benchmarks/ssh.py [--quick] [--only WORD]

The truth is the sea level of two-layer quasi-geostrophic turbulence
(`xr_spde.synthetic.turbulent_sea`), 7.2 x 7.2 degrees of cells of 0.1 degree, daily, of a seed that
no training has seen. It is observed at 1 Hz below four altimeters (orbits of Topex, Jason-1, GFO
and Envisat, errors of 2.5 cm), or these and a swath of 120 km (orbit of SWOT, every 6 km, errors of
1 cm), all errors independent. All methods are given the same tracks and a first guess of zero, and
nothing of the truth.

The interpolations are on cells of 0.2 degree, from means of every pass over 0.3 degree, and are
interpolated to the grid of the truth. "Gaussian OI, challenge" has the scales of the baseline of
the mapping challenge, 1 degree and 7 days; "tuned" those of three lengths, three times and three
errors of representation that have the least error on another sea of the same kind, with its truth;
both have the standard deviation of that sea. "SPDE-OI" is exact, with priors of constant
parameters. "Fitted" is of first order in time (alpha = 4), its parameters and an error of
representation fitted to the four altimeters of the first 20 days in the inner 4 x 4 degrees.
"Tuned" is of second order in time (alpha = 2): of three lengths by three decay times, then of three
errors of representation, those with the least error on the sea and the days that the Gaussian is
tuned on. Its leads are made from 14 days of observations, as those of the Gaussian are. "neural"
are the weights that come with the package, applied to the tracks as they are.

Mapping knows observations on both sides of a day, near real time those up to it, forecasts none of
its last days. "persistence" is the neural map in near real time of so many days before. Scores are
those of the mapping challenge over 42 days and the inner 6 x 6 degrees. Latitude and longitude
edges are those of the data too: nothing is known beyond. CPU seconds are with the spread where
there is one; that of the neural solver is what it tells itself. Its linearity defect is that of a
member on every eighth of the days, which is not timed. The three tasks with leads of SPDE-OI are
computed together, and each has a third of the CPU seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from _machine import answer, isolated, machine, peak_megabytes, table, write
from _tracks import DATA, NOISE, averaged

KEPT = Path(__file__).parent / ".ssh"
"""Seas, maps and their scores: what is there and was made the same way is not made again."""

SEA = {"shape": (72, 72), "days": 72, "resolution": 0.1}
SEEDS = {"test": 910_001, "tuning": 910_002}
SCORED, SPREAD = slice(15, 57), slice(17, 57, 8)
BORDER = 6
TASKS = {"mapping": None, "near real time": 0, "forecast, 2 days": 2, "forecast, 4 days": 4}
FEW, MANY = DATA
ROWS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "first guess": {FEW: ["mapping"]},
    "Gaussian OI, challenge": {FEW: ["mapping"]},
    "Gaussian OI, tuned": {FEW: ["mapping"], MANY: list(TASKS)},
    "SPDE-OI, fitted": {FEW: ["mapping"], MANY: ["mapping"]},
    "SPDE-OI, tuned": {FEW: ["mapping"], MANY: list(TASKS)},
    "persistence": {MANY: list(TASKS)[2:]},
    "neural": {FEW: ["mapping"], MANY: list(TASKS)},
}
"""Tasks by method and data."""

CELL, COARSE = 0.3, 2
LENGTHS, TIMES, ERRORS = (0.8, 1.0, 1.25), (5.0, 7.0, 10.0), (0.0, 0.02, 0.04)
BOX = {"lat": slice(36.0, 40.0), "lon": slice(-62.0, -58.0)}
SMOOTH = {"alpha": 2, "time_order": 2}
FAR, SLOW, LEFT = (48.0, 60.0, 75.0), (10.0, 13.0, 17.0), (0.0, 0.01, 0.02)
MEMORY = 14
"""Days of observations that leads of SPDE-OI know, as many as those of the Gaussian OI."""
DRAWS, MEMBERS = 8, 8
GAUSSIAN, FITTED = ("lx", "lt", "std", "obs_error"), ("length", "decay_time", "std", "obs_error")
NUMBERS = ("cpu", "peak_mb", "linearity_defect")
"""Kept with maps."""


def sea(kind: str) -> xr.DataArray:
    """Truth (time, lat, lon)."""
    import xr_spde

    return xr_spde.synthetic.turbulent_sea(**SEA, seed=SEEDS[kind], cache=KEPT)


def seen(kind: str, data: str) -> xr.Dataset:
    """Tracks over it."""
    truth = sea(kind)
    return truth.assim.simulate_tracks(DATA[data], noise=NOISE, seed=SEEDS[kind])


def coarse_guess(kind: str) -> xr.DataArray:
    """Zero on the grid of the interpolations."""
    return xr.zeros_like(sea(kind).astype(float).coarsen(lat=COARSE, lon=COARSE).mean())


def gaussian(
    kind: str, data: str, lead: int | None, days: slice, *,
    lx: float, lt: float, std: float, obs_error: float, spread: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Interpolate with a Gaussian covariance, only for some days."""
    guess, tracks = coarse_guess(kind).chunk(time=1), averaged(seen(kind, data), CELL)
    tracks["ssh_error"] = np.hypot(tracks.ssh_error, obs_error)
    maps = guess.assim.assimilate(
        tracks, method="oi-gaussian", unusable="drop", lead=lead, lx=lx, ly=lx, lt=lt, std=std,
        block=1, draws=100 if spread else 0,
    )  # fmt: skip
    with dask.config.set(scheduler="synchronous"):
        return maps[["mean", "std"] if spread else ["mean"]].isel(time=days).compute()


def tuned() -> dict[str, float]:
    """Scales of a Gaussian covariance that suit another sea, of which the truth is known."""
    truth = sea("tuning").astype(float)
    days = slice(SCORED.start, SCORED.stop, 14)
    right = truth.coarsen(lat=COARSE, lon=COARSE).mean().isel(time=days)
    errors = {}
    for lx, lt, error in itertools.product(LENGTHS, TIMES, ERRORS):
        known = {"lx": lx, "lt": lt, "std": float(truth.std()), "obs_error": error}
        maps = gaussian("tuning", FEW, None, days, **known, spread=False)
        errors[tuple(known.items())] = float(((maps["mean"] - right) ** 2).mean())
    return dict(min(errors, key=errors.__getitem__))


def challenge() -> dict[str, float]:
    """Scales of the baseline of the challenge."""
    std = float(sea("tuning").astype(float).std())
    return {"lx": 1.0, "lt": 7.0, "std": std, "obs_error": 0.0}


def fitted() -> dict[str, float]:
    """Numbers of a prior that is fitted to the altimeters of the first 20 days."""
    tracks = averaged(seen("test", FEW), CELL)
    tracks = tracks.isel(obs=tracks.time < sea("test").time[20])
    grid = coarse_guess("test")[0].drop_vars("time")
    found = tracks.ssh.assim.spde_prior(
        grid=grid, mean=grid, obs_error=tracks.ssh_error, alpha=4, time_step=2.0,
        unusable="drop", stderr=False, region=BOX,
    )  # fmt: skip
    return {name: float(found[name].median()) for name in FITTED}


def tuned_spde() -> dict[str, float]:
    """Numbers of a prior of second order in time that suit the other sea, as for the Gaussian."""
    truth = sea("tuning").astype(float)
    scored = slice(SCORED.start, SCORED.stop, 14)
    right = truth.coarsen(lat=COARSE, lon=COARSE).mean().isel(time=scored)
    days = slice(SCORED.start - MEMORY // 2, SCORED.stop - MEMORY // 2)

    def error(length: float, decay_time: float, obs_error: float) -> float:
        known = {"length": length, "decay_time": decay_time, "obs_error": obs_error}
        maps = with_spde("tuning", FEW, known | {"std": float(truth.std())}, days, tol=1e-3)
        return float(((maps["mean"].sel(time=right.time) - right) ** 2).mean())

    length, days_known = min(itertools.product(FAR, SLOW), key=lambda one: error(*one, LEFT[0]))
    left = min(LEFT, key=lambda one: error(length, days_known, one))
    return {"length": length, "decay_time": days_known, "std": float(truth.std()),
            "obs_error": left}  # fmt: skip


def with_spde(
    kind: str, data: str, prior: Mapping[str, float], days: slice, *, draws: int = 0,
    tol: float = 1e-5, until: int | None = None, first_order: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Interpolate some days with the prior of an SPDE, from observations until a day."""
    guess, tracks = coarse_guess(kind), averaged(seen(kind, data), CELL)
    tracks["ssh_error"] = np.hypot(tracks.ssh_error, prior["obs_error"])
    if until is not None:
        tracks = tracks.isel(obs=tracks.time <= guess.time[until])
    plane = guess[0].drop_vars("time").drop_attrs()
    known = xr.Dataset({k: xr.full_like(plane, prior[k]) for k in ("length", "decay_time", "std")})
    known = known.assign_attrs({"time_step": 1.0, **({"alpha": 4} if first_order else SMOOTH)})
    found = guess.isel(time=days).assim.assimilate(
        tracks, prior=known, unusable="drop", draws=draws, seed=0, tol=tol
    )
    return found[["mean", "std"] if draws else ["mean"]]


def spde_leads(prior: Mapping[str, float]) -> dict[str, xr.Dataset]:
    """Interpolate for all tasks with leads, a day from observations up to another one alone."""
    leads = {task: lead for task, lead in TASKS.items() if lead is not None}
    farthest, maps = max(leads.values()), {task: [] for task in leads}
    for day in range(SCORED.start - farthest, SCORED.stop):
        days = slice(max(day - MEMORY, 0), day + farthest + 1)
        found = with_spde("test", MANY, prior, days, tol=1e-4, until=day)
        for task, lead in leads.items():
            if SCORED.start <= day + lead < SCORED.stop:
                maps[task].append(found.isel(time=[day + lead - days.start]))
    return {task: xr.concat(parts, "time") for task, parts in maps.items()}


def with_solver(data: str, task: str, model: str, draws: int) -> xr.Dataset:
    """Apply the neural solver, lazily, a window for every day but in mapping."""
    import xr_spde

    guess, tracks = xr.zeros_like(sea("test")), seen("test", data)
    steps = 1 if draws or TASKS[task] is not None else guess.sizes["time"]
    return guess.chunk(time=steps).assim.assimilate(
        tracks, model=xr_spde.assim.load_solver(model), lead=TASKS[task], draws=draws,
        unusable="drop", seed=0, recalibrate=False,
    )  # fmt: skip


def neural(data: str, task: str, model: str, weights: str) -> xr.Dataset:
    """Return maps of the neural solver, and the standard deviation that it tells."""
    del weights  # names the file of the result
    with dask.config.set(scheduler="synchronous"):
        return with_solver(data, task, model, 0)[["mean", "std"]].isel(time=SCORED).compute()


def defect(data: str, task: str, model: str, weights: str) -> float:
    """Departure of the neural solver from a linear one, on some days."""
    del weights
    with dask.config.set(scheduler="synchronous"):
        found = with_solver(data, task, model, MEMBERS).linearity_defect.isel(time=SPREAD)
        return float(found.mean().compute())


def make(method: str, data: str, task: str, **settings: Any) -> dict[str, Any]:
    """Map, and keep the maps with what they cost."""
    sea("test")  # not counted
    began = time.process_time()
    if method == "SPDE-OI, tuned" and TASKS[task] is not None:
        found = spde_leads(settings)
        used = cost(began, share=len(found))
        for name, maps in found.items():
            keep(maps, used, path_of(method, data, name, settings))
        return {}
    if method.startswith("SPDE-OI"):
        maps = with_spde("test", data, settings, slice(None), draws=DRAWS,
                         first_order=method == "SPDE-OI, fitted").isel(time=SCORED)  # fmt: skip
    elif method == "neural":
        maps = neural(data, task, **settings)
    else:
        # with a swath, deviations by dense algebra would take most of the time of this table
        maps = gaussian("test", data, TASKS[task], SCORED, **settings, spread=data == FEW)
    used = cost(began)
    if method == "neural":
        maps.attrs["linearity_defect"] = defect(data, task, **settings)
    keep(maps, used, path_of(method, data, task, settings))
    return {}


def cost(began: float, share: int = 1) -> dict[str, float]:
    """Return what a task has taken that is one of several."""
    return {"cpu": (time.process_time() - began) / share, "peak_mb": peak_megabytes()}


def keep(maps: xr.Dataset, used: Mapping[str, float], path: Path) -> None:
    """Write maps with what they cost."""
    kept = {k: maps.attrs[k] for k in NUMBERS if k in maps.attrs}
    maps.drop_attrs().assign_attrs({**kept, **used}).to_netcdf(path)


def path_of(method: str, data: str, task: str, settings: Mapping[str, Any]) -> Path:
    """File of maps, named after all that they depend on but the code."""
    # names that maps were kept under
    name = "SPDE-OI" if method == "SPDE-OI, fitted" else method
    depends = [name, data, task, settings, SEA, SEEDS, NOISE, DATA[data],
               [SCORED.start, SCORED.stop, CELL, COARSE, DRAWS]]  # fmt: skip
    depends += [MEMBERS, [SPREAD.start, SPREAD.step]] if method == "neural" else []
    depends += [SMOOTH, MEMORY] if method == "SPDE-OI, tuned" else []
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    return KEPT / f"maps_{digest}.nc"


def once(name: str) -> dict[str, float]:
    """Numbers that a method needs besides the tracks, kept."""
    depends = [name, SEA, SEEDS, NOISE, CELL, COARSE, [SCORED.start, SCORED.stop]]
    depends += [LENGTHS, TIMES, ERRORS] if name == "tuned" else []
    depends += [FAR, SLOW, LEFT, SMOOTH, MEMORY] if name == "tuned_spde" else []
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    path = KEPT / f"{name}_{digest}.json"
    if not path.exists():
        path.write_text(json.dumps(isolated(__file__, "numbers", name=name)))
    return dict(json.loads(path.read_text()))


def numbers(name: str) -> dict[str, float]:
    """Compute them, with what it took."""
    sea("test"), sea("tuning")
    began = time.process_time()
    found = {"tuned": tuned, "challenge": challenge, "fitted": fitted,
             "tuned_spde": tuned_spde}[name]()  # fmt: skip
    return found | {"cpu": time.process_time() - began}


def weights_of(model: str) -> str:
    """Digest of the weights, whatever the recalibration beside them."""
    from xr_spde.assim import load_solver

    found = hashlib.sha256()
    solver = load_solver(model).solver
    for name, weight in sorted(solver.state_dict().items()):
        found.update(name.encode() + weight.numpy().tobytes())
    return f"{found.hexdigest()[:16]}, {solver.options['iterations']} iterations"


def settings_of(method: str, model: str) -> dict[str, Any]:
    """Return the settings of a method, computed where they are not known yet."""
    needs = {"Gaussian OI, challenge": ("challenge", GAUSSIAN),
             "Gaussian OI, tuned": ("tuned", GAUSSIAN),
             "SPDE-OI, fitted": ("fitted", FITTED),
             "SPDE-OI, tuned": ("tuned_spde", FITTED)}  # fmt: skip
    if method == "neural":
        return {"model": model, "weights": weights_of(model)}
    name, kept = needs[method]
    found = once(name)
    return {k: found[k] for k in kept}


def maps_of(method: str, data: str, task: str, model: str) -> xr.Dataset:
    """Return maps of the scored days, made where they are not there yet."""
    truth = sea("test").isel(time=SCORED).astype(float)
    if method == "first guess":
        return xr.zeros_like(truth).to_dataset(name="mean")
    if method == "persistence":
        today = maps_of("neural", data, "near real time", model)
        return today[["mean"]].drop_attrs().shift(time=TASKS[task])
    settings = settings_of(method, model)
    path = path_of(method, data, task, settings)
    if not path.exists():
        isolated(__file__, "make", method=method, data=data, task=task, **settings)
    maps = xr.load_dataset(path)
    if method == "neural":
        return maps.assign_coords(lat=truth.lat, lon=truth.lon)
    return maps.interp(lat=truth.lat, lon=truth.lon)


def on_size(maps: xr.Dataset, model: str, lead: int | None) -> xr.Dataset:
    """Bring the spread to the size of the errors, as a solver does that was recalibrated."""
    from xr_spde.assim import load_solver
    from xr_spde.assim.spread_scaling import recalibrated

    factors = load_solver(model).recalibration
    if factors is None:
        return maps
    return recalibrated(maps, factors, lead).assign_attrs(maps.attrs)


def scores(maps: xr.Dataset) -> dict[str, float]:
    """Scores of maps against the truth, its border and days without maps left out."""
    inner = {"lat": slice(BORDER, -BORDER), "lon": slice(BORDER, -BORDER)}
    there = maps["mean"].notnull().any(["lat", "lon"])
    maps = maps.isel(inner).sel(time=there)
    truth = sea("test").astype(float).isel(inner).sel(time=maps.time)
    maps = maps.assign_coords(lat=truth.lat, lon=truth.lon)
    found = maps.assim.score(truth, challenge=True)
    result = {str(k): float(v) for k, v in found.items() if v.ndim == 0}
    result["rmse"] = float(np.sqrt(((maps["mean"] - truth) ** 2).mean()))
    if "std" in maps:
        known = maps["std"].notnull().any(["lat", "lon"])
        maps, truth = maps.sel(time=known), truth.sel(time=known)
        sure = maps[["mean", "std"]].assim.score(truth, uncertainty=True)
        result |= {"crps": float(sure.crps), "spread_skill": float(sure.spread_skill),
                   "spread": float(sure.spread), "coverage": float(sure.coverage.sel(level=0.9)),
                   "correlation": float(sure.correlation_pearson.mean())}  # fmt: skip
    return result | {k: float(maps.attrs[k]) for k in NUMBERS if k in maps.attrs}


def row(method: str, data: str, task: str, one: Mapping[str, float]) -> list[Any]:
    """Cells of the table."""

    def cell(name: str, digits: int, scale: float = 1.0) -> str | None:
        value = one.get(name, np.nan)
        return f"{scale * value:.{digits}f}" if np.isfinite(value) else None

    return [
        method, task, data, cell("mu", 3), cell("sigma", 3), cell("lambda_x", 2),
        cell("lambda_t", 1), cell("rmse", 2, 100.0), cell("crps", 2, 100.0),
        cell("spread", 2, 100.0), cell("spread_skill", 2), cell("coverage", 3),
        cell("raw_coverage", 3), cell("correlation", 2), cell("linearity_defect", 3),
        cell("cpu", 0), cell("peak_mb", 0),
    ]  # fmt: skip


HEADER = ["method", "task", "observations", "mu", "sigma", "lambda_x, degrees", "lambda_t, days",
          "RMSE, cm", "CRPS, cm", "spread, cm", "spread / error", "coverage of 90 %",
          "not recalibrated", "correlation of error and spread", "linearity defect", "CPU s",
          "peak MB"]  # fmt: skip


def wanted(found: Mapping[tuple[str, str, str], Mapping[str, float]]) -> list[list[Any]]:
    """Return the aims, what was found and whether that reaches them."""
    rows = []
    order = ["neural", "SPDE-OI, tuned", "Gaussian OI, tuned"]
    for data, (name, sign) in itertools.product(
        DATA, (("mu", 1), ("sigma", -1), ("lambda_x", -1), ("lambda_t", -1))
    ):
        for better, worse in itertools.pairwise(order):
            pair = [found.get((method, data, "mapping")) for method in (better, worse)]
            if None not in pair:
                values = [one[name] for one in pair]
                rows.append([f"mapping, {data}: {name} of {better} better than of {worse}",
                             " / ".join(f"{v:.3f}" for v in values),
                             _word(sign * values[0] > sign * values[1])])  # fmt: skip
    for data in DATA:
        known = {task: found[key] for task in TASKS if (key := ("neural", data, task)) in found}
        for name, sign in (("mu", -1), ("raw_spread", 1)):
            values = [one[name] for one in known.values()]
            if len(values) == len(TASKS):
                word = _word(all(np.diff(values) * sign > 0))
                what = "mu falls" if sign < 0 else "spread (m, not recalibrated) grows"
                text = f"neural, {data}: {what} from task to task"
                rows.append([text, " / ".join(f"{v:.3f}" for v in values), word])
        for task, one in known.items():
            rows.append(
                [
                    f"neural, {data}, {task}: daily correlation above 0.3",
                    f"{one['correlation']:.2f}",
                    _word(one["correlation"] > 0.3),
                ]
            )
            rows.append([f"neural, {data}, {task}: 90 % coverage within 0.85 and 0.95",
                         f"{one['coverage']:.3f}",
                         _word(0.85 <= one["coverage"] <= 0.95)])  # fmt: skip
    return rows


def numbers_used(methods: set[str]) -> str:
    """Sentences on what was tuned and fitted."""
    words = []
    if "Gaussian OI, tuned" in methods:
        one = once("tuned")
        words.append(
            f"Gaussian OI, tuned: {one['lx']:g} degrees, {one['lt']:g} days, error of "
            f"representation {100 * one['obs_error']:g} cm ({one['cpu']:.0f} CPU s); std "
            f"{100 * one['std']:.1f} cm."
        )
    for name, method in (("fitted", "SPDE-OI, fitted"), ("tuned_spde", "SPDE-OI, tuned")):
        if method in methods:
            one = once(name)
            words.append(
                f"{method}: {one['length']:.1f} km, {one['decay_time']:.1f} days, std "
                f"{100 * one['std']:.1f} cm, error of representation "
                f"{100 * one['obs_error']:.2f} cm ({one['cpu']:.0f} CPU s)."
            )
    return " ".join([*words, "What tuning and fit took is not in the table."])


def _word(reached: bool) -> str:
    return "yes" if reached else "no"


def published() -> str:
    """Scores of the literature, labelled as such."""
    from xr_spde.assim.published import LEADERBOARD, NEURAL_SPDE, OCEANBENCH

    def lines(given: Mapping[str, Any], *first: str) -> list[list[Any]]:
        return [
            [*first, name, *(f"{v:.3g}" if v < 1 else f"{v:.2f}" for v in values)]
            for name, values in given.items()
        ]

    header = ["source", "method", "mu", "sigma", "lambda_x, degrees", "lambda_t, days"]
    board = [one for data, given in LEADERBOARD.items()
             for one in lines(given, f"SSH mapping challenge 2020a, {data}")]  # fmt: skip
    board += lines(NEURAL_SPDE, "Beauchamp et al. (2025), SWOT + 4 nadirs")
    other = ["method", "mu", "lambda isotropic, km", "lambda_x, km", "lambda_t, days"]
    return (
        "## Published\n\nNone of this was computed here. Gulf Stream in NATL60, 10 x 10 degrees "
        "around a mean that is not zero: only the order of methods and the size of steps can be "
        "compared with the table above, not the numbers.\n\n"
        f"{table(header, board)}\n\nOceanBench, SWOT + 4 nadirs, whose spectra are others "
        f"(not to be mixed with those above):\n\n{table(other, lines(OCEANBENCH))}"
    )


def main() -> None:
    """Make what is lacking, then print and write the tables."""
    if answer({"make": make, "numbers": numbers}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="interpolations of nadirs only")
    parser.add_argument("--only", default="", help="methods with this word; nothing is written")
    parser.add_argument("--model", default="sea-level", help="name or file of the neural solver")
    options = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for method, data in itertools.product(ROWS, DATA):
        if options.only not in method or (options.quick and (data == MANY or method == "neural")):
            continue
        for task in ROWS[method].get(data, ()):
            maps = maps_of(method, data, task, options.model)
            found[method, data, task] = one = scores(maps)
            if method == "neural":
                one |= {f"raw_{k}": one[k] for k in ("coverage", "spread")}
                one |= scores(on_size(maps, options.model, TASKS[task]))
            print(method, data, task, found[method, data, task], flush=True)
    rows = [row(*key, one) for key, one in found.items()]
    notes = __doc__.split("\n\n", 2)[2].strip()
    body = (
        f"{machine('torch')}\n\n{notes}\n\n{table(HEADER, rows)}\n\n"
        f"{numbers_used({key[0] for key in found})}\n\n"
        f"## Aims\n\n{table(['aim', 'found', 'reached'], wanted(found))}\n\n{published()}"
    )
    write("ssh", "Synthetic sea level", "OMP_NUM_THREADS=1 python benchmarks/ssh.py", body,
          keep=not (options.quick or options.only))  # fmt: skip


if __name__ == "__main__":
    main()

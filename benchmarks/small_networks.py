"""Networks in small, at the same budget of training: what lag statistics as input buy.

    python benchmarks/small_networks.py [--minutes 8] [--jobs 2] [--counts 30 5 1] [--quick]

LatticeVision's networks have 25 to 105 million parameters and want a graphics card. Here they
are built to the same designs with about four million (the window network is small as it is), and
trained on the same 64 x 64 fields of the prior, each with the same number of CPU seconds on one
thread, making batches included; lag statistics are paid for by those who use them.

First some steps are timed, and the number of steps that fill the budget follows. Every network
tries both optimisers, with the learning rate that did best in trials of an eighth of the budget.
Networks on replicates take standardised fields, start from the means of the prior, and share the
symmetries of the grid, the loss (mean squared errors over the prior's variances), and the choice
of the averaged weights that validate best. At M = 30 the default network gets the very same
batches, reduced to lag statistics. Below 30, one U-Net is trained for each M, and compared with
one default network trained for any M and with gaps, with the budget of a single U-Net.

Errors are pooled over the cells of held-out fields: "theta" is scored linearly as in the paper,
"angle" modulo pi and weighted by log rho. The rows at the end of the first table did not train
here: the weights that come with the package (larger grids, far longer), and the likelihood.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import _machine
import published_sar as published

SHAPE = (64, 64)
FULL = 30
BATCH = 16  # fields
WINDOW = 25
WINDOWS = 64  # of a batch, as in the source
VALIDATED = 12
VALIDATIONS = 4
TIMED = 10
TRIAL = 1 / 8  # of the budget, for each learning rate
SEED = 1
OPTIMIZERS = ["adamw", "muon"]

VIT = {"patch": 8, "dim": 192, "depth": 8, "heads": 6}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "window CNN 25": ("cnn", {"size": WINDOW}),
    "U-Net": ("unet", {"widths": [24, 48, 104, 208], "bottleneck": 304}),
    "ViT, rotary": ("vit", VIT),
    "ViT, learned": ("vit", {**VIT, "positions": "learned"}),
    "STUN": ("stun", {"widths": [32, 64, 128], "patch": 1, "dim": 192, "depth": 6, "heads": 6}),
    "default network": ("net", {}),
}


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes
    ----------
    name : str
        Key of `NETWORKS`.
    optimizer : str
        "adamw" or "muon".
    count : int
        Replicates to train for; 0 is any number (default network only).
    rates : tuple of float
        Learning rates to try.
    budget : float
        CPU seconds.
    data : str
        Folder with the folders "trained" and "held".
    cases, fields : int
        Cases to train on; held-out fields.
    """

    name: str
    optimizer: str
    count: int
    rates: tuple[float, ...]
    budget: float
    data: str
    cases: int
    fields: int


def train(job: Job) -> dict[str, Any]:
    """Choose the rate, train with the budget, score with each number of replicates served."""
    import _networks as networks

    from xr_spde.nets.cases import CaseBatches, Variation
    from xr_spde.nets.objectives import score_held

    architecture, options = NETWORKS[job.name]
    moments, area = architecture == "net", SHAPE[0] * SHAPE[1]
    if not moments:
        options = {"replicates": job.count, **options}
    # each case gives as many windows as cover its area
    batch = -(-WINDOWS // (area // WINDOW**2)) if architecture == "cnn" else BATCH
    folder = f"{job.data}/trained"
    batches = CaseBatches(
        [networks.read(folder, SHAPE, VALIDATED, VALIDATED + job.cases)],
        [1.0],
        cells=batch * area,
        variation=networks.fixed(job.count) if job.count else Variation(),
        seed=SEED,
        moments=moments,
        window=WINDOW if architecture == "cnn" else 0,
    )
    held = networks.validation(
        networks.read(folder, SHAPE, 0, VALIDATED), moments=moments, count=job.count or FULL
    )
    validate = partial(score_held, held=held)
    build = partial(networks.build, architecture, options, seed=SEED)
    first = networks.schedule(TIMED, min(job.rates), job.optimizer)
    step = networks.step_seconds(build(), batches, first, steps=TIMED)
    trials = {}
    if len(job.rates) > 1:
        steps = max(round(TRIAL * job.budget / step), 1)
        for rate in job.rates:
            trial = networks.schedule(steps, rate, job.optimizer)
            trials[rate] = networks.train(build(), batches, trial, validate)[0]
    rate = min(trials, key=trials.__getitem__) if trials else job.rates[0]
    steps = max(round(job.budget / step), 1)
    model = build()
    settings = networks.schedule(steps, rate, job.optimizer, validations=VALIDATIONS)
    best, seconds = networks.train(model, batches, settings, validate)
    scores = {}
    for count in (job.count,) if job.count else published.COUNTS:
        cases = (published.case_arrays(f"{job.data}/held", SHAPE, k) for k in range(job.fields))
        scores[count] = published.pooled([networks.score(model, case, count) for case in cases])
    return {
        "job": job,
        "parameters": sum(p.numel() for p in model.parameters()),
        "rate": rate,
        "trials": trials,
        "steps": steps,
        "step": step,
        "seconds": seconds,
        "best": best,
        "scores": scores,
    }


def figures(scores: dict[str, Any]) -> list[Any]:
    """Cells of a row that every estimator has."""
    triples = [published.triple(scores[k]) for k in ("rmse", "mae", "r2")]
    return [*triples, round(scores["angle"], 4)]


def finished(pool: ProcessPoolExecutor, jobs: list[Job]) -> list[dict[str, Any]]:
    """Results of the jobs, in their order, told as they come."""
    began, results = time.perf_counter(), []
    for result in pool.map(train, jobs):
        job = result["job"]
        minutes = (time.perf_counter() - began) / 60
        label = f"{job.name}, {job.optimizer}, M = {job.count or 'any'}"
        print(f"{minutes:.1f} min: {label}", flush=True)
        results.append(result)
    return results


def untrained(pool: ProcessPoolExecutor, data: str, fields: int, few: int) -> Iterator[list[Any]]:
    """Rows of the weights that come with the package and of the likelihood."""
    go = partial(published.run, pool, data=f"{data}/held", shape=SHAPE, count=FULL)
    rows = [("default network, as it comes", "net", fields)]
    rows += [(f"{m}, first {few} fields", m, few) for m in ("whittle", "net")]
    for name, method, number in rows:
        s = go(number, method=method)
        yield [name, *[None] * 4, *figures(s), None, round(s["seconds"], 2)]


def main_table(results: list[dict[str, Any]], others: Iterator[list[Any]]) -> str:
    """Every network with either optimiser, at 30 replicates."""
    local = [r for r in results if NETWORKS[r["job"].name][0] == "cnn"]
    reference = min(local, key=lambda r: r["best"])["scores"][FULL]["rmse"] if local else None
    rows = []
    for r in results:
        s = r["scores"][FULL]
        times = None if reference is None else published.triple(reference / s["rmse"], 1)
        optimizer = f"{r['job'].optimizer} {r['rate']:g}"
        mine = [r["job"].name, optimizer, r["steps"], r["step"], r["seconds"]]
        rows.append([*mine, *figures(s), times, round(s["seconds"], 3)])
    header = ("network", "optimiser, rate", "steps", "s a step", "CPU s", "RMSE", "MAE", "R2")
    return _machine.table((*header, "angle", "times better", "s a field"), [*rows, *others])


def size_table(results: list[dict[str, Any]]) -> str:
    """List parameters and options of each network, and what the trials of rates gave."""
    names = dict.fromkeys(r["job"].name for r in results)
    rows = []
    for name in names:
        mine = [r for r in results if r["job"].name == name]
        trials = "; ".join(
            f"{r['job'].optimizer} {rate:g}: {value:.3f}"
            for r in mine
            for rate, value in r["trials"].items()
        )
        options = json.dumps(NETWORKS[name][1])[1:-1].replace('"', "") or "as it comes"
        rows.append([name, mine[0]["parameters"], options, trials])
    return _machine.table(("network", "parameters", "options", "validation by rate"), rows)


def count_table(
    results: list[dict[str, Any]], counts: list[int], ready: dict[int, dict[str, Any]]
) -> str:
    """U-Nets for one number of replicates each, the default network for any, and as it comes."""
    rows = []
    for count in counts:
        for r in results:
            if count in r["scores"]:
                trained = r["job"].count or "any"
                s = r["scores"][count]
                rows.append([count, r["job"].name, trained, r["steps"], *figures(s)])
        rows.append([count, "default network, as it comes", "any", None, *figures(ready[count])])
    header = ("M", "network", "trained for M", "steps", "RMSE", "MAE", "R2", "angle")
    return _machine.table(header, rows)


def options_of_run() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="CPU time of each training")
    parser.add_argument("--jobs", type=int, default=2, help="networks at once")
    parser.add_argument(
        "--counts", type=int, nargs="+", choices=published.COUNTS, default=[30, 5, 1]
    )
    usual = [name for name in NETWORKS if name != "ViT, learned"]
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=usual)
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=OPTIMIZERS)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 2e-3])
    parser.add_argument("--cases", type=int, default=3000, help="fields to train on")
    parser.add_argument("--fields", type=int, default=40, help="held-out fields")
    parser.add_argument("--whittle", type=int, default=6, help="fields for the likelihood")
    parser.add_argument("--data", default="benchmarks/.small", help="where fields are kept")
    parser.add_argument("--name", default="small_networks", help="of the table")
    parser.add_argument("--quick", action="store_true", help="a few steps each, printed only")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.cases, options.fields, options.whittle = 0.02, 24, 2, 1
        options.counts, options.optimizers = [30, 5], ["muon"]
    return options


def main() -> None:
    """Simulate, train, print and write the tables."""
    import _networks as networks

    options = options_of_run()
    data, few = str(Path(options.data)), options.whittle
    simulate = partial(networks.simulate, workers=options.jobs)
    trained, held = f"{data}/trained", f"{data}/held"
    simulate(trained, {SHAPE: VALIDATED + options.cases}, seed=networks.TRAINED_SEED)
    simulate(held, {SHAPE: options.fields}, seed=published.SEED)
    settings: dict[str, Any] = {
        "rates": tuple(options.rates),
        "budget": 60.0 * options.minutes,
        "data": data,
        "cases": options.cases,
        "fields": options.fields,
    }
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [Job(n, o, FULL, **settings) for n in options.networks for o in options.optimizers]
        results = finished(pool, jobs)
        fewer = [count for count in options.counts if count != FULL]
        by_count, more = [], []
        for name, wanted in (("U-Net", fewer), ("default network", [0])):
            tried = [r for r in results if r["job"].name == name]
            if not fewer or not tried:
                continue
            best = min(tried, key=lambda r: r["best"])
            chosen = {**settings, "rates": (best["rate"],)}
            more += [Job(name, best["job"].optimizer, count, **chosen) for count in wanted]
            by_count += [best] * (name == "U-Net")
        by_count += finished(pool, more)
        table = main_table(results, untrained(pool, data, options.fields, few))
        shipped = partial(published.run, pool, data=held, shape=SHAPE, method="net")
        ready = {k: shipped(options.fields, count=k) for k in options.counts if by_count}
    written = [
        _machine.machine("torch"),
        f"{options.cases} fields to train on, {options.fields} held out; triples are "
        f"{', '.join(published.NAMES)}. {options.minutes:g} CPU minutes each, on one thread, "
        f'{options.jobs} at once; "times better" than the better window network.',
        table,
        *(["Fewer replicates:", count_table(by_count, options.counts, ready)] if by_count else []),
        "Sizes, and the validation score (sum of relative errors) of the trials of learning rates:",
        size_table(results),
    ]
    command = (
        f"OMP_NUM_THREADS=1 python benchmarks/small_networks.py --minutes {options.minutes:g} "
        f"--jobs {options.jobs} --cases {options.cases} --fields {options.fields}"
    )
    if options.name != "small_networks":
        chosen = " ".join(f'"{name}"' for name in options.networks)
        listed = " ".join(map(str, options.counts))
        command += f" --networks {chosen} --optimizers {' '.join(options.optimizers)}"
        command += f" --counts {listed} --name {options.name}"
    title = "Networks in small, at equal budget"
    _machine.write(options.name, title, command, "\n\n".join(written), keep=not options.quick)


if __name__ == "__main__":
    main()

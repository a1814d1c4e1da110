"""Exact against local likelihood: time, and accuracy on fields with known parameters.

    OMP_NUM_THREADS=1 python benchmarks/likelihood.py [--fields 20] [--jobs 1] [--quick]

First the CPU seconds of one exact log-likelihood with its slope in all parameters of all cells,
M = 30, with and without a rim of ten cells that is integrated out. Then both estimators on fields
of the prior (96 x 144, M = 30; the parameters of `benchmarks/estimate.py`) simulated on a plane
whose boundary lies ten cells beyond the edge, and told so: where the range is long the exact
likelihood feels it. Errors are pooled as there, and "1 sigma" is the share of the cells whose error
is within the standard error given (log kappa2, theta, rho).
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import xarray as xr
from _machine import machine, table, write
from estimate import FIRST_SEED, RIM

METHODS = {"whittle": {"modes": 0, "dilation": 1}, "mle": {}}


def seconds_of(shape: tuple[int, int], rim: int) -> list[object]:
    """Time one likelihood, the second of two."""
    from xr_spde.fields.exact import ExactLikelihood
    from xr_spde.fields.sar import tensor
    from xr_spde.sar.priors import draw_test_case

    fields, kappa2, rho, theta = draw_test_case(shape, 30, seed=1)
    likelihood = ExactLikelihood(fields, "cylinder", rim=rim)
    q, log_d = np.stack([kappa2, *tensor(rho, theta)]), np.zeros(shape)
    for _ in range(2):
        began = time.process_time()
        likelihood.value_and_slope(q, log_d)
        spent = time.process_time() - began
    return [f"{shape[0]} x {shape[1]}", rim, round(spent, 2)]


def one_field(seed: int, shape: tuple[int, int]) -> dict[str, dict[str, np.ndarray]]:
    """Squared errors, weights, cells inside one standard error and seconds, by method."""
    from xr_spde.sar import estimate
    from xr_spde.sar.priors import draw_test_case

    fields, kappa2, rho, theta = draw_test_case(shape, 30, seed=seed, buffer=RIM, boundary="plane")
    data = xr.DataArray(fields, dims=("realization", "y", "x"))
    out = {}
    for method, options in METHODS.items():
        began = time.process_time()
        found = estimate(
            data, method=method, buffer=RIM, boundary="plane", uncertainty=True, **options
        )
        seconds = time.process_time() - began
        angle = (found.theta.values - theta + np.pi / 2) % np.pi - np.pi / 2
        errors = np.stack([np.log(found.kappa2.values / kappa2), angle, found.rho.values - rho])
        spread = [found.kappa2_stderr / found.kappa2, found.theta_stderr, found.rho_stderr]
        weight = np.stack([np.ones(shape), np.log(rho), np.ones(shape)])
        out[method] = {
            "square": (errors**2 * weight).sum((1, 2)),
            "weight": weight.sum((1, 2)),
            "inside": (np.abs(errors) < np.stack([s.values for s in spread])).mean((1, 2)),
            "seconds": np.array([seconds]),
        }
    return out


def main() -> None:
    """Run, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one small field, nothing written")
    options = parser.parse_args()
    shape, number = ((48, 72), 1) if options.quick else ((96, 144), options.fields)
    sizes = [(96, 144)] if options.quick else [(96, 144), (192, 288)]
    times = [seconds_of(size, rim) for size in sizes for rim in (0, 10)]
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = range(FIRST_SEED, FIRST_SEED + number)
        fields = list(pool.map(partial(one_field, shape=shape), seeds))
    rows = []
    for method in METHODS:
        sums = {k: np.array([f[method][k] for f in fields]) for k in fields[0][method]}
        rmse = np.sqrt(sums["square"].sum(0) / sums["weight"].sum(0))
        inside = sums["inside"].mean(0)
        figures = [", ".join(f"{v:.3f}" for v in values) for values in (rmse, inside)]
        rows.append([method, *figures, f"{float(np.median(sums['seconds'])):.1f}"])
    body = [
        machine(),
        table(["grid", "rim", "CPU s of one likelihood and slope"], times),
        table(["method", "RMSE log kappa2, theta, rho", "1 sigma", "CPU s per field"], rows),
    ]
    title = f"Local and exact likelihood on {number} fields"
    command = f"OMP_NUM_THREADS=1 python benchmarks/likelihood.py --fields {number}"
    write("likelihood", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

"""Accuracy of the training-free estimator on fields with known parameters.

    python benchmarks/estimate.py [--fields 100] [--replicates 5 15 30] [--shape 96 144] [--jobs 2]

Fields come from the prior of LatticeVision (arXiv 2505.09803): parameters that vary by eight kinds
of patterns, simulated with a rim of ten cells. Errors are pooled over all cells of all fields;
the angle is wrapped and weighted by log rho. "boundary known" tells the estimator where the
simulation ends (ten cells outside the grid) and leaves patterns and spacings aside; "defaults",
for the largest number of replicates and the first twenty fields, tells it nothing, and "same
fields" repeats the first setting on those. The last row of each is the error that an
unbiased estimator of a stationary window of 25 x 25 cells cannot go below (inverse Fisher
information of the Whittle likelihood at the true parameters, unknown scale), clipped at the spread
of the prior where a window says nothing.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import xarray as xr

PRIOR_SPREAD = (1.83, 0.735, 1.48)
RIM = 10


def bound(kappa2: np.ndarray, rho: np.ndarray, theta: np.ndarray, replicates: int) -> np.ndarray:
    """Squared error (3, cells) of log kappa2, theta, rho from a stationary 25 x 25 window."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    half, weight = np.pi * (0.5 * (nodes + 1)) ** 3, 0.5 * weights * 3 * (0.5 * (nodes + 1)) ** 2
    kx = np.concatenate([half, -half])[None, :, None]
    ky = half[None, None, :]
    w = (np.concatenate([weight, weight])[:, None] * weight / 2).ravel()
    k, r, t = (np.asarray(v, dtype=float)[:, None, None] for v in (kappa2, rho, theta))
    c, s = np.cos(t), np.sin(t)
    fx, fy = 2 * (1 - np.cos(kx)), 2 * (1 - np.cos(ky))
    fxy = 2 * np.sin(kx) * np.sin(ky)
    hxx, hyy, hxy = r * c**2 + s**2 / r, r * s**2 + c**2 / r, (r - 1 / r) * s * c
    b = k + hxx * fx + hyy * fy + hxy * fxy
    by_theta = 2 * hxy * (fy - fx) + (r - 1 / r) * (c**2 - s**2) * fxy
    by_rho = (c**2 - s**2 / r**2) * fx + (s**2 - c**2 / r**2) * fy + (1 + 1 / r**2) * s * c * fxy
    slopes = [-2 * v / b for v in (k * np.ones_like(b), by_theta, by_rho)] + [np.ones_like(b)]
    flat = np.stack([v.reshape(len(kappa2), -1) for v in slopes])
    information = 0.5 * np.einsum("icn,jcn,n->cij", flat, flat, w) * 625 * (replicates - 1)
    limit = np.array([1 / v**2 for v in PRIOR_SPREAD] + [1e-9])
    inverse = np.linalg.inv(information + np.diag(limit))
    return np.stack([inverse[:, i, i] for i in range(3)])


FIRST_SEED, WITH_DEFAULTS = 10_000, 20


def one_field(seed: int, shape: tuple[int, int], counts: list[int]) -> list[tuple]:
    """Errors of one field for each number of replicates and each setting."""
    from xr_spde.sar import estimate
    from xr_spde.sar.priors import draw_test_case

    fields, kappa2, rho, theta = draw_test_case(shape, max(counts), seed=seed, buffer=RIM)
    rng = np.random.default_rng(seed)
    cells = rng.choice(kappa2.size, 64, replace=False)
    rows = []
    for count in counts:
        data = xr.DataArray(fields[:count], dims=("realization", "y", "x"))
        known = {"modes": 0, "dilation": 1, "buffer": RIM, "boundary": "plane"}
        settings = [("boundary known", known)]
        if count == max(counts) and seed < FIRST_SEED + WITH_DEFAULTS:
            settings.append(("defaults", {}))
        for name, options in settings:
            start = time.process_time()
            found = estimate(data, **options)
            seconds = time.process_time() - start
            angle = (found.theta.values - theta + np.pi / 2) % np.pi - np.pi / 2
            errors = (np.log(found.kappa2.values / kappa2), angle, found.rho.values - rho)
            weights = (np.ones(shape), np.log(rho), np.ones(shape))
            square = [np.average(e**2, weights=w) for e, w in zip(errors, weights, strict=True)]
            plain = [np.average(abs(e), weights=w) for e, w in zip(errors, weights, strict=True)]
            scale = [w.mean() for w in weights]
            rows.append((count, name, square, plain, scale, seconds))
        some = [v.ravel()[cells] for v in (kappa2, rho, theta)]
        least = bound(*some, count)
        share = np.log(some[1])
        square = [least[0].mean(), np.average(least[1], weights=share), least[2].mean()]
        rows.append((count, "25 x 25 bound", square, [np.nan] * 3, [1, share.mean(), 1], np.nan))
    return rows


def summary(count: str, name: str, results: list[tuple]) -> list[str]:
    """Row of the table from the results of all fields in one setting."""
    square, plain, scale = (np.array([result[i] for result in results]) for i in (2, 3, 4))
    pooled = np.sqrt((square * scale).sum(axis=0) / scale.sum(axis=0))
    absolute = (plain * scale).sum(axis=0) / scale.sum(axis=0)
    middle = " / ".join(f"{v:.3f}" for v in np.median(np.sqrt(square), axis=0))
    seconds = np.median([result[5] for result in results])
    shown = [f"{v:.3f}" if np.isfinite(v) else "" for v in (*pooled, *absolute)]
    return [count, name, *shown, middle, f"{seconds:.1f}" if np.isfinite(seconds) else ""]


def main() -> None:
    """Run, print and write the table."""
    from _machine import machine, table, write

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=int, default=100)
    parser.add_argument("--replicates", type=int, nargs="+", default=[5, 15, 30])
    parser.add_argument("--shape", type=int, nargs=2, default=[96, 144])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="six fields, nothing written")
    options = parser.parse_args()
    number = 6 if options.quick else options.fields
    work = partial(one_field, shape=tuple(options.shape), counts=options.replicates)
    with ProcessPoolExecutor(options.jobs) as pool:
        results = list(pool.map(work, range(FIRST_SEED, FIRST_SEED + number), chunksize=1))
    names = [f"{what} {of}" for what in ("RMSE", "MAE") for of in ("log kappa2", "theta", "rho")]
    header = ["M", "setting", *names, "median field RMSE (same order)", "CPU s per field"]
    rows = [
        summary(str(count), name, [r for field in results for r in field if r[:2] == (count, name)])
        for count, name, *_ in results[0]
    ]
    most, known = max(options.replicates), "boundary known"
    twins = [r for field in results[:WITH_DEFAULTS] for r in field if r[:2] == (most, known)]
    rows.append(summary(str(most), "same fields", twins))
    text = table(header, rows)
    text = f"{machine()}\n\n{text}"
    print(text)
    if not options.quick:
        title = f"Estimation on {number} fields of {options.shape[0]} x {options.shape[1]} cells"
        command = f"python benchmarks/estimate.py --fields {number}"
        write("estimate", title, command, text)


if __name__ == "__main__":
    main()

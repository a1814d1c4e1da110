"""Estimators against the figures of LatticeVision (arXiv 2505.09803), on held-out fields.

    python benchmarks/published_sar.py [--fields 160] [--whittle 10] [--data DIR] [--quick]

The fields come from the prior of the paper's released generator at 192 x 288, simulated with a
rim of ten cells, from seeds that no training has seen. As in the paper they are divided by the
pixelwise standard deviation of 30 replicates, and the first M are shown. Errors are pooled over
all cells of all fields; "theta" is scored linearly, as in the paper (its seam lies in the gap of
the generator), "angle" modulo pi and weighted by log rho. SSIM is the mean over fields of the
7 x 7 window index. Rows marked "source" are printed in the paper's repository and were obtained
with its own, slightly different, fields.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter

COUNTS = (1, 5, 15, 30)
SEED = 777
PENALTY = 100.0  # of the likelihood at M = 1
SIZES = {(96, 144): 20, (192, 96): 20, (256, 512): 8}  # and numbers of fields
NAMES = ("log kappa2", "theta", "rho")

# what is scored on the first fields only: the least M, and how
SOME: dict[str, tuple[int, dict[str, Any]]] = {
    "net": (1, {"method": "net"}),
    "whittle": (1, {"method": "whittle"}),
    "mle": (30, {"method": "mle"}),
}

# RMSE of log kappa2, theta, rho at M = 30, as printed by the authors' notebooks
SOURCE = (
    ("ViT, rotary positions (source)", (0.3738, 0.2035, 0.6250)),
    ("window CNN 25, 20 epochs (source)", (0.7302, 0.3512, 1.1787)),
)


def in_release(theta: np.ndarray) -> np.ndarray:
    """Angle with its seam at 1.5, in the gap that the released generator leaves."""
    return np.mod(theta - 1.5, np.pi) + 1.5 - np.pi


def ssim(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean structural similarity with 7 x 7 windows and the truth's range (1 if constant)."""
    span = float(np.ptp(truth)) or 1.0
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean = partial(uniform_filter, size=7)
    a, b = mean(estimate), mean(truth)
    bessel = 49.0 / 48.0
    va, vb = bessel * (mean(estimate**2) - a**2), bessel * (mean(truth**2) - b**2)
    vab = bessel * (mean(estimate * truth) - a * b)
    index = (2 * a * b + c1) * (2 * vab + c2) / ((a**2 + b**2 + c1) * (va + vb + c2))
    return float(index[3:-3, 3:-3].mean())


def case_arrays(data: str, shape: tuple[int, int], index: int) -> dict[str, np.ndarray]:
    """Standardised replicates and true maps of one held-out case."""
    from xr_spde.sar.simulate import ARRAYS, CaseGroup, StoredCases

    group = CaseGroup(shape, index + 1)
    case = {n: StoredCases(data, group, n, index, index + 1)[0].astype(float) for n in ARRAYS}
    fields = case["fields"]
    case["fields"] = (fields - fields.mean(0)) / fields.std(0, ddof=1)
    return case


def deviations(mine: Sequence[np.ndarray], case: dict[str, np.ndarray]) -> dict[str, Any]:
    """Sum errors over the cells of one case, as `pooled` takes them.

    `mine` are maps of log kappa2, theta and rho; "errors" are theirs, theta's modulo pi.
    """
    mine = [mine[0], in_release(mine[1]), mine[2]]
    truth = [np.log(case["kappa2"]), in_release(case["theta"]), case["rho"]]
    errors = np.stack([a - b for a, b in zip(mine, truth, strict=True)])
    log_rho = np.log(np.maximum(case["rho"], 1.0))
    wrapped = np.mod(errors[1] + np.pi / 2, np.pi) - np.pi / 2
    return {
        "errors": np.stack([errors[0], wrapped, errors[2]]),
        "cells": errors[0].size,
        "squares": (errors**2).sum((1, 2)),
        "absolute": np.abs(errors).sum((1, 2)),
        "angle": (wrapped**2 * log_rho).sum(),
        "weight": log_rho.sum(),
        "truth": np.stack(truth).sum((1, 2)),
        "truth2": (np.stack(truth) ** 2).sum((1, 2)),
        "ssim": np.array([ssim(a, b) for a, b in zip(mine, truth, strict=True)]),
    }


def score(
    index: int, *, data: str, shape: tuple[int, int], count: int, method: str, refine: int = 0
) -> dict[str, Any]:
    """Sum errors of one estimate, and time it end to end."""
    from xr_spde.sar import estimate

    case = case_arrays(data, shape, index)
    axes = {"y": np.arange(shape[0]) * 1000.0, "x": np.arange(shape[1]) * 1000.0}
    fields = xr.DataArray(
        case["fields"][:count], dims=("member", "y", "x"), coords=axes, name="field"
    )
    options: dict[str, Any] = {"refine": refine}
    if method == "whittle" and count == 1:
        options["penalty"] = PENALTY
    began = time.perf_counter()
    found = estimate(
        fields, "member", method=method, modes=0, dilation=1, uncertainty=True, **options
    )
    seconds = time.perf_counter() - began
    mine = [np.log(found.kappa2.values), found.theta.values, found.rho.values]
    scored = deviations(mine, case)
    spread = [found.kappa2_stderr / found.kappa2, found.theta_stderr, found.rho_stderr]
    ratio = np.abs(scored.pop("errors")) / np.stack([s.values for s in spread])
    inside = np.stack([(ratio < k).sum((1, 2)) for k in (1, 2)])
    return scored | {"inside": inside, "seconds": seconds}


def pooled(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores over all cells of all fields."""
    total: dict[str, Any] = defaultdict(float)
    for one in scores:
        for name, value in one.items():
            total[name] = total[name] + value
    cells = total["cells"]
    spread = total["truth2"] / cells - (total["truth"] / cells) ** 2
    return {
        "rmse": np.sqrt(total["squares"] / cells),
        "mae": total["absolute"] / cells,
        "r2": 1.0 - total["squares"] / cells / spread,
        "ssim": total["ssim"] / len(scores),
        "angle": float(np.sqrt(total["angle"] / total["weight"])),
        "inside": total["inside"] / cells,
        "seconds": total["seconds"] / len(scores),
        "fields": len(scores),
    }


def triple(values: Any, digits: int = 3) -> str:
    return ", ".join(f"{v:.{digits}f}" for v in values)


def run(
    pool: ProcessPoolExecutor, fields: int, data: str, shape: tuple[int, int], **how: Any
) -> dict[str, Any]:
    return pooled(list(pool.map(partial(score, data=data, shape=shape, **how), range(fields))))


def row(name: str, count: int, s: dict[str, Any]) -> list[Any]:
    figures = [triple(s[k]) for k in ("rmse", "mae", "r2", "ssim")]
    return [name, count, s["fields"], *figures, round(s["angle"], 4), round(s["seconds"], 2)]


def operations(shape: tuple[int, int]) -> float:
    """Floating-point operations of the default network (two a multiply-add), in 1e9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from xr_spde.nets.lag_features import LAGS, LagMoments
    from xr_spde.nets.statistics_net import StatisticsNet

    maps = [torch.ones(1, n, *shape) for n in (len(LAGS), len(LAGS), len(LAGS), 1, 1)]
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        StatisticsNet()(LagMoments(*maps, torch.tensor([30.0])))
    return counter.get_total_flops() / 1e9


def simulate(data: str, wanted: dict[tuple[int, int], int]) -> None:
    from xr_spde.sar.simulate import CaseGroup, simulate_cases

    for shape, cases in wanted.items():
        for _ in simulate_cases(data, CaseGroup(shape, cases), seed=SEED, workers=2):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=160)
    parser.add_argument("--whittle", type=int, default=10, help="fields for the slower estimator")
    parser.add_argument("--data", default="benchmarks/.published", help="where fields are kept")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few small fields, printed only")
    options = parser.parse_args()
    main_shape = (96, 144) if options.quick else (192, 288)
    fields, few = (3, 1) if options.quick else (options.fields, options.whittle)
    sizes = {} if options.quick else SIZES
    data = str(Path(options.data))
    simulate(data, {main_shape: fields, **sizes})
    header = ("method", "M", "fields", "RMSE", "MAE", "R2", "SSIM", "angle", "s")
    rows, covered = [], []
    with ProcessPoolExecutor(options.jobs) as pool:
        go = partial(run, pool, data=data)
        for count in COUNTS:
            s = go(fields=fields, shape=main_shape, count=count, method="net")
            rows.append(row("default network", count, s))
            covered.append([count, triple(s["inside"][0]), triple(s["inside"][1])])
        for count in COUNTS:
            for name, (least, how) in SOME.items():
                if count >= least:
                    s = go(fields=few, shape=main_shape, count=count, **how)
                    rows.append(row(f"{name}, first {few} fields", count, s))
        transfer = []
        for shape, cases in sizes.items():
            for method, n in (("net", cases), ("whittle", min(cases, few))):
                s = go(fields=n, shape=shape, count=30, method=method)
                transfer.append(row(f"{method}, {shape[0]} x {shape[1]}", 30, s))
    rows += [[name, 30, None, triple(v), None, None, None, None, None] for name, v in SOURCE]
    body = [
        _machine.machine("torch"),
        f"Triples are {', '.join(NAMES)}; seconds end to end, statistics included, one thread. "
        f"One replicate says nothing of roughness: there whittle has penalty={PENALTY:g}.",
        _machine.table(header, rows),
        "Shares of the cells within one and within two standard errors (default network):",
        _machine.table(("M", "1 sigma", "2 sigma"), covered),
        "Other sizes (the network saw 96 x 144, 192 x 288, 96 x 96 and 128 x 64 in training):",
        _machine.table(header, transfer) if transfer else "",
        f"Operations of the default network at 192 x 288: {operations((192, 288)):.1f} GFLOP; "
        "window CNN 25, tiled: 13300; U-Net: 80; STUN: 86 (per field, M = 30).",
    ]
    command = (
        f"OMP_NUM_THREADS=1 python benchmarks/published_sar.py --fields {fields} --whittle {few}"
    )
    title = "Estimators on the fields of LatticeVision's prior"
    _machine.write("published_sar", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

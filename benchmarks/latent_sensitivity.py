"""How much the latent model depends on its settings: one at a time, and all at once.

    OMP_NUM_THREADS=1 python benchmarks/latent_sensitivity.py [--seed 100] [--samples 8]
        [--data DIR] [--quick]

The central 64 x 64 cells of an opening lead whose middle is known (`xr_spde.latent.cases`), with 60
steps. What is measured is kept, and not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import _machine

SCORES = ("end_residual", "latent_residual", "mean_speed", "rmse", "epe", "seconds")
HEADER = ("end residual", "latent residual", "mean speed", "RMSE", "EPE", "CPU s")
SHARED = {"iterations": 60, "patch": 32}
ALONE = {
    "lam_ae": [0.1, 10.0],
    "lam_mag": [1e-5, 1e-2],
    "lam_sm": [1e-3, 1e-1],
    "lam_c": [0.0, 10.0],
    "lam_h": [0.0, 5.0],
    "lam_r": [0.0, 3.0],
    "smoothness": ["hessian", "tv"],
    "patch": [16, 64],
    "stride": [16, 32],
    "width": [4, 16],
    "iterations": [30, 120],
    "initial": ["none"],
    "seed": [1, 2],
}
TOGETHER = {
    "lam_mag": [1e-5, 1e-2],
    "lam_sm": [1e-3, 1e-1],
    "lam_c": [0.1, 10.0],
    "lam_r": [0.03, 3.0],
}


def measure(seed: int, samples: int, store: str, quick: bool) -> tuple[Any, Any]:
    """Run both designs."""
    import numpy as np
    import xarray as xr

    import xr_spde  # noqa: F401  registers the accessor
    from xr_spde.latent.cases import make_case

    case = make_case("lead_open", seed=seed)
    cut = (..., slice(32, 96), slice(32, 96))
    stack = np.stack([case.u0, case.frame(0.5), case.u1])[cut]
    images = xr.DataArray(stack, {"time": [0.0, 0.5, 1.0]}, ("time", "y", "x"))
    pair, middle = images.isel(time=[0, 2]), images.isel(time=1)
    shared = {**SHARED, "displacement": case.displacement[cut], "store": store}
    if quick:
        shared["iterations"] = 5
    alone = {k: v for k, v in ALONE.items() if not quick or k in ("lam_c", "seed")}
    return (
        pair.latent.sensitivity(middle, vary=alone, **shared),
        pair.latent.sensitivity(middle, vary=TOGETHER, design="sobol", samples=samples, **shared),
    )


def row(runs: Any, k: int) -> list[Any]:
    """Scores and warnings of a run."""
    one = runs.isel(run=k)
    flags = [str(f) for f in runs.flag.values[one.flagged.values]]
    return [*(float(one[name]) for name in SCORES), ", ".join(flags) or "none"]


def main() -> None:
    """Measure, or take what was kept, and write the tables."""
    from xr_spde.latent import sensitivity_effects

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=100, help="of the texture")
    parser.add_argument("--samples", type=int, default=8, help="runs with all settings at once")
    parser.add_argument(
        "--data", default="benchmarks/.latent_sensitivity", help="where runs are kept"
    )
    parser.add_argument("--quick", action="store_true", help="few steps, printed only")
    options = parser.parse_args()
    store = Path(options.data) / ("quick" if options.quick else "runs")
    alone, together = measure(options.seed, options.samples, str(store), options.quick)

    names = [str(v) for v in alone.varied.values]
    rows = [
        [name or "(as it is)", str(alone[name].values[k]) if name else None, *row(alone, k)]
        for k, name in enumerate(names)
    ]
    first = _machine.table(["setting", "value", *HEADER, "flags"], rows)
    effects = sensitivity_effects(together)
    factors = [str(f) for f in effects.factor.values]
    ranks = [[f, *(float(effects[n].sel(factor=f)) for n in SCORES[:-1])] for f in factors]
    second = _machine.table(["setting", *HEADER[:-1]], ranks)
    body = [
        _machine.machine("torch"),
        "An opening lead, 64 x 64 cells, 60 steps on windows of 32; the motion from the images "
        "alone is the start. Residuals are relative to the standard deviation of the images and to "
        "the latent states without motion; RMSE is of the frame in the middle, images between 0 "
        "and 1; EPE and speed in cells. Flags are those of `diagnose()`. One thread; the machine "
        "was shared. Differences below those between seeds mean nothing.",
        "## One setting at a time",
        first,
        "## All at once",
        f"Rank correlation (Spearman) of {together.sizes['run']} points of a Sobol sequence over "
        + ", ".join(f"{k} {v[0]:g} to {v[1]:g}" for k, v in TOGETHER.items())
        + ". With so few points only values near 1 or -1 mean something.",
        second,
    ]
    command = "OMP_NUM_THREADS=1 python benchmarks/latent_sensitivity.py"
    title = "Sensitivity of the latent model"
    _machine.write("latent_sensitivity", title, command, "\n\n".join(body), keep=not options.quick)


if __name__ == "__main__":
    main()

"""Held-out likelihood of real fields under models fitted to other replicates.

    XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/likelihood_real.py [--quick]

Each model is fitted to the even replicates of a set; the score is the mean exact log-density of a
value of the odd ones, in nats, less that of independent cells with the same means and spreads.
"default" is the local likelihood with patterns and a spacing of its choice, "whittle" the same
without either, "mle" the exact likelihood, also with constant range and anisotropy ("stationary").
The sets are those of `benchmarks/climate_networks.py`.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import xarray as xr
from climate import data_sets

MODELS: dict[str, dict[str, object]] = {
    "default": {},
    "whittle": {"method": "whittle", "modes": 0, "dilation": 1},
    "mle": {"method": "mle"},
    "mle, stationary": {"method": "mle", "structure": "stationary"},
}


def independent(fields: xr.DataArray, params: xr.Dataset, dim: str) -> float:
    """Log-density of all values as independent normals."""
    std = params["std"].where(params["std"] > 0)
    z = (fields - params["mean"]) / std
    one = -0.5 * z**2 - np.log(std) - 0.5 * np.log(2.0 * np.pi)
    return float(one.sum())


def rows_of(name: str, fields: xr.DataArray, dim: str) -> list[list[str]]:
    """Rows of the table for one data set."""
    even, odd = fields.isel({dim: slice(0, None, 2)}), fields.isel({dim: slice(1, None, 2)})
    rows = []
    for label, settings in MODELS.items():
        began = time.process_time()
        params = even.sar.estimate(dim, **settings)
        seconds = time.process_time() - began
        # cells that never vary have no density
        varies = params["std"] > 1e-6 * float(params["std"].max())
        seen = odd.where(varies)
        count = int(seen.notnull().sum())
        gain = float(seen.sar.log_likelihood(params, dim)) - independent(seen, params, dim)
        rows.append([name if not rows else "", label, f"{gain / count:.3f}", f"{seconds:.1f}"])
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run, print and write the table."""
    from _machine import machine, table, write

    warnings.filterwarnings("ignore", message=".*never vary.*")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="embedded data, nothing written")
    parser.add_argument("--only", default="", help="sets with this in their name, nothing written")
    options = parser.parse_args()
    rows = []
    for name, (fields, dim) in data_sets(embedded=options.quick).items():
        if options.only in name and "COBE" not in name:
            rows += rows_of(name, fields, str(dim))
    header = ["data", "model", "gain in nats a value", "estimate CPU s"]
    write(
        "likelihood_real",
        "Held-out likelihood of real fields",
        "XR_SPDE_DATA_DIR=FOLDER OMP_NUM_THREADS=1 python benchmarks/likelihood_real.py",
        f"{machine()}\n\n{table(header, rows)}",
        keep=not (options.quick or options.only),
    )


if __name__ == "__main__":
    main()

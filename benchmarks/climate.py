"""Emulated against real correlations on four climate data sets.

    XR_SPDE_DATA_DIR=FOLDER python benchmarks/climate.py

For each set: correlation maps at 50 random points, of the real replicates and of 1000 emulated
ones, their root mean square difference (cells weighted by area), the noise floor that sampling
alone leaves (specification of LatticeVision's climate score, arXiv 2505.09803, corrected for noise),
and their ratio. "same members" scores against the members that the model was fitted to, as the
source does; a model with large-scale patterns learns part of their noise, so "held out" fits to
the even replicates and scores on the odd ones. Beside them the pure SAR model (``modes=0``), the
best stationary isotropic model of six, and, held out, the sample correlations of the even members
themselves. "no negative" is the least ratio that any model without negative correlations can have.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import xarray as xr

import xr_spde
from xr_spde.datasets import local_path
from xr_spde.metrics import correlation_score

MEMBERS = 1000


def detrend(da: xr.DataArray, dim: str, degree: int) -> xr.DataArray:
    """Anomalies from a polynomial in the order of the replicates, cell by cell."""
    order = da.assign_coords({dim: np.arange(da.sizes[dim])})
    fit = xr.polyval(order[dim], order.polyfit(dim, degree).polyfit_coefficients)
    return (order - fit).transpose(*da.dims)


def data_sets() -> dict[str, tuple[xr.DataArray, str]]:
    """Replicates of each set with the name of their dimension."""
    conus = xr.open_dataset(local_path("conus_annual_meantemp_totalpr_1950_1999.nc")).load()
    cobe = xr.open_dataset(local_path("cobe_sst_annual_1950_2009.nc")).sst.load()
    a1b = xr.open_dataset(local_path("A1B_north_america.nc")).air_temperature.load()
    members = xr_spde.tutorial.open_dataset("ecmwf_ensemble").z.load()
    return {
        "ECMWF z500, 51 members": (members, "number"),
        "CONUS temperature, 50 years less linear trend": (detrend(conus.meantemp, conus.meantemp.dims[0], 1), conus.meantemp.dims[0]),
        "CONUS precipitation, 50 years less linear trend": (detrend(conus.totalpr, conus.totalpr.dims[0], 1), conus.totalpr.dims[0]),
        "A1B temperature, 240 years less quadratic trend": (detrend(a1b, "time", 2), "time"),
        "COBE SST, 60 years less linear trend": (detrend(cobe, cobe.dims[0], 1), cobe.dims[0]),
    }  # fmt: skip


def stationary(fields: xr.DataArray, dim: str) -> xr.Dataset:
    """Parameters of an isotropic field that is the same everywhere, but for its spread."""
    std = fields.std(dim, ddof=1)
    one = xr.ones_like(std).where(std.notnull())
    return xr.Dataset({"kappa2": one, "rho": one, "theta": 0.0 * one, "std": std})


def score(real: xr.DataArray, model: xr.Dataset | xr.DataArray, dim: str) -> list[str]:
    """Raw difference, floor, ratio and noise-corrected difference."""
    if isinstance(model, xr.Dataset):
        model = model.sar.emulate(MEMBERS, seed=1, dtype="float32").load()
    found = correlation_score(real, model, dim=dim)
    return [f"{float(found[name]):.3f}" for name in ("raw", "floor", "ratio", "corrected")]


def no_negative(real: xr.DataArray, dim: str) -> str:
    """Least ratio without negative correlations: all others matched, noise included."""
    found = correlation_score(real, real.rename({dim: "realization"}), dim=dim)
    points = [(float(a), float(b)) for a, b in zip(*(found[c].values for c in _points(found)), strict=True)]  # fmt: skip
    maps = real.sar.correlation(points, dim=dim)
    y = next(d for d in maps.dims if "lat" in str(d))
    weights = np.cos(np.deg2rad(maps[y]))
    negative = float(np.sqrt((maps.clip(max=0) ** 2).weighted(weights).mean()))
    floor = float(np.sqrt((((1 - maps**2) ** 2) / (real.sizes[dim] - 1)).weighted(weights).mean()))
    return f"{negative / floor:.2f}"


def _points(found: xr.Dataset) -> list[str]:
    return [str(c) for c in found.coords if str(c).startswith("point_")]


def rows_of(name: str, real: xr.DataArray, dim: str) -> list[list[str]]:
    """Rows of the table for one data set."""
    start = time.process_time()
    params = real.sar.estimate(dim)
    seconds = time.process_time() - start
    taken = int((np.abs(params.patterns).max(params.kappa2.dims) > 0).sum())
    what = f"default: {taken} patterns, dilation {int(params.dilation)}"
    rows = [[name, what, "same members", *score(real, params, dim), f"{seconds:.1f}"]]
    rows.append(["", "pure SAR (modes=0)", "same members", *score(real, real.sar.estimate(dim, modes=0), dim), ""])  # fmt: skip
    trials = [score(real, stationary(real, dim).assign(kappa2=lambda d, k=k: d.kappa2 * k), dim) for k in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)]  # fmt: skip
    best = min(trials, key=lambda row: float(row[0]))
    rows.append(["", "best stationary isotropic", "same members", *best, ""])
    rows.append(["", "no negative correlation", "same members", "", "", no_negative(real, dim), "", ""])  # fmt: skip
    even, odd = real.isel({dim: slice(0, None, 2)}), real.isel({dim: slice(1, None, 2)})
    for label, options in (("default", {}), ("pure SAR (modes=0)", {"modes": 0})):
        rows.append(["", label, "held out", *score(odd, even.sar.estimate(dim, **options), dim), ""])  # fmt: skip
    rows.append(["", "sample correlations", "held out", *score(odd, even.rename({dim: "realization"}), dim), ""])  # fmt: skip
    return rows


def main() -> None:
    """Run, print and write the table."""
    from _machine import machine, table, write

    warnings.filterwarnings("ignore", message=".*never vary.*")
    header = ["data", "model", "scored on", "raw", "floor", "ratio", "corrected", "estimate CPU s"]
    rows = []
    for name, (real, dim) in data_sets().items():
        rows += rows_of(name, real, str(dim))
        print(table(header, rows[-7:]), flush=True)
    write(
        "climate",
        "Emulated against real correlations",
        "XR_SPDE_DATA_DIR=FOLDER python benchmarks/climate.py",
        f"{machine()}\n\n{table(header, rows)}",
    )


if __name__ == "__main__":
    main()

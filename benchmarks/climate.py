"""Emulated against real correlations on four climate data sets.

    XR_SPDE_DATA_DIR=FOLDER python benchmarks/climate.py

For each set: correlation maps at 50 random points, of the real replicates and of 1000 emulated
ones, their root mean square difference (cells weighted by area), the noise floor that sampling
alone leaves (the climate score of LatticeVision, arXiv 2505.09803, corrected for noise), and
their ratio. "same members" scores against the members that the model was fitted to, as the
source does; a model with large-scale patterns learns part of their noise, so "held out" fits to
the even replicates and scores on the odd ones. Beside them the pure SAR model (``modes=0``), the
best stationary isotropic model of six, and, held out, the sample correlations of the even members
themselves. "no negative" is the least ratio that any model without negative correlations can have.
"""

from __future__ import annotations

import argparse
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


def data_sets(*, embedded: bool) -> dict[str, tuple[xr.DataArray, str]]:
    """Replicates of each set with the name of their dimension."""
    members = xr_spde.tutorial.open_dataset("ecmwf_ensemble").z.load()
    if embedded:
        return {"ECMWF z500, 51 members": (members, "number")}
    conus = xr.open_dataset(local_path("conus_annual_meantemp_totalpr_1950_1999.nc")).load()
    cobe = xr.open_dataset(local_path("cobe_sst_annual_1950_2009.nc")).sst.load()
    a1b = xr.open_dataset(local_path("A1B_north_america.nc")).air_temperature.load()
    year, time = conus.meantemp.dims[0], cobe.dims[0]
    temperature, rain = (detrend(conus[name], year, 1) for name in ("meantemp", "totalpr"))
    return {
        "ECMWF z500, 51 members": (members, "number"),
        "CONUS temperature, 50 years less linear trend": (temperature, year),
        "CONUS precipitation, 50 years less linear trend": (rain, year),
        "A1B temperature, 240 years less quadratic trend": (detrend(a1b, "time", 2), "time"),
        "COBE SST, 60 years less linear trend": (detrend(cobe, time, 1), time),
    }


def stationary(fields: xr.DataArray, dim: str) -> xr.Dataset:
    """Parameters of an isotropic field that is the same everywhere, but for its spread."""
    std = fields.std(dim, ddof=1).drop_attrs()
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
    names = [str(c) for c in found.coords if str(c).startswith("point_")]
    places = zip(*(found[name].values for name in names), strict=True)
    maps = real.sar.correlation([(float(a), float(b)) for a, b in places], dim=dim)
    weights = np.cos(np.deg2rad(maps[next(d for d in maps.dims if "lat" in str(d))]))
    negative = float(np.sqrt((maps.clip(max=0) ** 2).weighted(weights).mean()))
    noise = ((1 - maps**2) ** 2 / (real.sizes[dim] - 1)).weighted(weights).mean()
    return f"{negative / float(np.sqrt(noise)):.2f}"


def rows_of(name: str, real: xr.DataArray, dim: str) -> list[list[str]]:
    """Rows of the table for one data set."""
    start = time.process_time()
    params = real.sar.estimate(dim)
    seconds = f"{time.process_time() - start:.1f}"
    taken = int((np.abs(params.patterns).max(params.kappa2.dims) > 0).sum())
    what = f"default: {taken} patterns, dilation {int(params.dilation)}"
    pure = score(real, real.sar.estimate(dim, modes=0), dim)
    flat = stationary(real, dim)
    trials = [
        score(real, flat.assign(kappa2=flat.kappa2 * kappa2), dim)
        for kappa2 in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    ]
    best = min(trials, key=lambda row: float(row[0]))
    rows = [
        [name, what, "same members", *score(real, params, dim), seconds],
        ["", "pure SAR (modes=0)", "same members", *pure, ""],
        ["", "best stationary isotropic", "same members", *best, ""],
        ["", "no negative correlation", "same members", "", "", no_negative(real, dim), "", ""],
    ]
    even, odd = real.isel({dim: slice(0, None, 2)}), real.isel({dim: slice(1, None, 2)})
    held_out = {
        "default": even.sar.estimate(dim),
        "pure SAR (modes=0)": even.sar.estimate(dim, modes=0),
        "sample correlations": even.rename({dim: "realization"}),
    }
    for label, model in held_out.items():
        rows.append(["", label, "held out", *score(odd, model, dim), ""])
    return rows


def main() -> None:
    """Run, print and write the table."""
    from _machine import machine, table, write

    warnings.filterwarnings("ignore", message=".*never vary.*")
    header = ["data", "model", "scored on", "raw", "floor", "ratio", "corrected", "estimate CPU s"]
    rows = []
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="embedded data, nothing written")
    parser.add_argument("--only", default="", help="sets with this in their name, nothing written")
    options = parser.parse_args()
    for name, (real, dim) in data_sets(embedded=options.quick).items():
        if options.only not in name:
            continue
        rows += rows_of(name, real, str(dim))
        print(table(header, rows[-7:]), flush=True)
    if options.quick or options.only:
        return
    write(
        "climate",
        "Emulated against real correlations",
        "XR_SPDE_DATA_DIR=FOLDER python benchmarks/climate.py",
        f"{machine()}\n\n{table(header, rows)}",
    )


if __name__ == "__main__":
    main()

"""The default network against the likelihood on real ensembles: emulated correlations.

    XR_SPDE_DATA_DIR=FOLDER python benchmarks/climate_networks.py [--quick]

The data sets and the score of `benchmarks/climate.py`. For each set all estimators get the same
settings, and 1000 members are emulated from each; "p" is that of a one-sided paired t-test over
50 random points that the network's raw difference is larger than the likelihood's (small: the
network is worse). "pure" leaves large-scale patterns and spacings out (modes=0, dilation=1), so
that the estimators alone are compared. "5 of them" fits to five replicates, evenly spaced, and
scores on all others; so do 15 and one half. One such subset says little of an estimator: figures
are means over subsets that begin at four places (two where there are no more), differences at the
points too.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import xarray as xr
from climate import MEMBERS, data_sets
from scipy.stats import ttest_rel

from xr_spde.metrics import correlation_score

FEW = (5, 15)
STARTS = 4
METHODS: dict[str, dict[str, object]] = {
    "whittle": {"method": "whittle"},
    "net": {"method": "net"},
}


def scored(
    fitted: xr.DataArray, real: xr.DataArray, dim: str, **settings: object
) -> tuple[xr.Dataset, float]:
    """Score of one estimator, and the CPU seconds of its estimate."""
    began = time.process_time()
    params = fitted.sar.estimate(dim, **settings)
    seconds = time.process_time() - began
    ensemble = params.sar.emulate(MEMBERS, seed=1, dtype="float32").load()
    return correlation_score(real, ensemble, dim=dim).load(), seconds


def trials(
    real: xr.DataArray, dim: str
) -> dict[str, tuple[list[tuple[xr.DataArray, xr.DataArray]], dict]]:
    """List by label what is fitted to and scored on, again and again, and with which settings."""
    out: dict = {
        "default": ([(real, real)], {}),
        "pure": ([(real, real)], {"modes": 0, "dilation": 1}),
    }
    for few in (*FEW, real.sizes[dim] // 2):
        step = real.sizes[dim] // few
        pairs = []
        for start in sorted({k * step // STARTS for k in range(STARTS)}):
            chosen = start + np.arange(few) * step
            rest = np.setdiff1d(np.arange(real.sizes[dim]), chosen)
            pairs.append((real.isel({dim: chosen}), real.isel({dim: rest})))
        out[f"{few} of them"] = (pairs, {})
    return out


def rows_of(name: str, real: xr.DataArray, dim: str) -> list[list[object]]:
    """Rows of one data set."""
    rows = []
    for label, (pairs, settings) in trials(real, dim).items():
        first = None
        for method, how in METHODS.items():
            found = [scored(*pair, dim, **how, **settings) for pair in pairs]
            figures = [
                round(float(np.mean([one[k] for one, _ in found])), 3)
                for k in ("raw", "floor", "ratio", "corrected")
            ]
            points, p = np.mean([one.point_raw.values for one, _ in found], axis=0), ""
            if first is not None:
                p = f"{float(ttest_rel(points, first, alternative='greater').pvalue):.3f}"
            first = points if first is None else first
            seconds = np.mean([spent for _, spent in found])
            rows.append([name, label, len(pairs), method, *figures, p, round(seconds, 1)])
            name = ""
    return rows


def main() -> None:
    """Run, print and write the table."""
    from _machine import machine, table, write

    warnings.filterwarnings("ignore", message=".*never vary.*")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="embedded data, nothing written")
    options = parser.parse_args()
    header = [
        "data",
        "settings",
        "fits",
        "method",
        "raw",
        "floor",
        "ratio",
        "corrected",
        "p",
        "CPU s",
    ]
    rows: list[list[object]] = []
    for name, (real, dim) in data_sets(embedded=options.quick).items():
        if "COBE" in name:  # two more estimates of half a minute, for a fifth set
            continue
        rows += rows_of(name, real, str(dim))
    body = f"{machine('torch')}\n\n{table(header, rows)}"
    command = "XR_SPDE_DATA_DIR=FOLDER python benchmarks/climate_networks.py"
    title = "The default network on real ensembles"
    write("climate_networks", title, command, body, keep=not options.quick)


if __name__ == "__main__":
    main()

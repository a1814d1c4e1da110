"""Daily maps of a long series in windows: peak memory and time by length, and the time to plan.

    OMP_NUM_THREADS=1 python benchmarks/long_series.py [--quick]

A domain of 128 x 344 cells of 1/8 degree, seen by two simulated nadir altimeters, is mapped window
by window with the threads of dask, two windows at once, and written to Zarr as it is computed. The
prior (alpha = 2) is forgotten within days, so that halos are short and the table affordable: what
is shown is how memory and time depend on the length, not how well such a sea is mapped. Every
length is a process of its own.
"""

from __future__ import annotations

import argparse
import time
from tempfile import TemporaryDirectory
from typing import Any

from _machine import answer, isolated, machine, peak_megabytes, table, write

SHAPE = (128, 344)
DAYS = (20, 40, 60)
TEN_YEARS = 3650


def case(days: int, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Make a prior, tracks and a lazy first guess."""
    import dask.array as da
    import numpy as np
    import xarray as xr

    rng = np.random.default_rng(0)
    coords = {
        "lat": ("lat", 30.0 + 0.125 * np.arange(shape[0]), {"units": "degrees_north"}),
        "lon": ("lon", -70.0 + 0.125 * np.arange(shape[1]), {"units": "degrees_east"}),
    }
    maps = {"length": 80.0, "decay_time": 1.5, "std": 0.1}
    prior = xr.Dataset({k: (("lat", "lon"), np.full(shape, v)) for k, v in maps.items()}, coords,
                       {"time_step": 1.0, "alpha": 2})  # fmt: skip
    times = np.datetime64("2014-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    guess = xr.DataArray(da.zeros((days, *shape), chunks=(30, -1, -1)), {"time": times, **coords},
                         ("time", "lat", "lon"), attrs={"units": "m"})  # fmt: skip
    # every pass crosses the domain along a slanted line, one point in every row of cells
    height, width = 0.125 * (shape[0] - 1), 0.125 * (shape[1] - 1)
    begins = np.sort(rng.uniform(0, days - 1.01, 8 * days))
    along = np.linspace(0.02, 0.98, shape[0])
    start = rng.uniform(0.0, 1.0, begins.size) * (width - 0.3 * height)
    lat = np.broadcast_to(30.0 + height * along, (begins.size, along.size))
    lon = -70.0 + start[:, None] + 0.3 * height * along
    day = begins[:, None] + 0.003 * along
    when = times[0] + (day.ravel() * 86400e9).astype("timedelta64[ns]")
    at = {"lat": ("obs", lat.ravel()), "lon": ("obs", lon.ravel()), "time": ("obs", when)}
    wave = np.sin(lat.ravel() + lon.ravel() - 0.1 * day.ravel())
    obs = xr.DataArray(0.1 * wave + 0.03 * rng.standard_normal(wave.size), at, "obs")
    return prior, guess, obs


def plan(days: int, shape: tuple[int, int], compute: bool, folder: str) -> dict[str, Any]:
    """Plan the maps, and compute and write them if that is asked for."""
    import dask

    import xr_spde  # noqa: F401  registers the accessors

    prior, guess, obs = case(days, shape)
    before = peak_megabytes()
    began = time.process_time()
    maps = guess.assim.assimilate(obs, prior=prior, obs_error=0.03, draws=0, block=10, tol=1e-4)
    planned = time.process_time() - began
    found: dict[str, Any] = {"observations": obs.size, "windows": maps.attrs["xr_spde_windows"],
                             "halo": maps.attrs["xr_spde_halo"], "plan_s": planned,
                             "plan_mb": peak_megabytes() - before}  # fmt: skip
    if compute:
        began = time.process_time()
        with dask.config.set(scheduler="threads", num_workers=2):
            maps[["mean", "residual"]].to_zarr(f"{folder}/{days}.zarr", consolidated=False)
        found["compute_s"] = time.process_time() - began
    return found


def main() -> None:
    """Run, print and write the table."""
    if answer({"plan": plan}):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small domain, nothing written")
    options = parser.parse_args()
    shape, lengths = ((32, 40), (30, 60)) if options.quick else (SHAPE, DAYS)
    rows = []
    with TemporaryDirectory() as folder:
        for days in (*lengths, TEN_YEARS):
            computed = days != TEN_YEARS
            one = isolated(__file__, "plan", days=days, shape=shape, compute=computed,
                           folder=folder)  # fmt: skip
            rows.append([days, one["observations"], one["windows"], one["plan_s"],
                         f"{one['plan_mb']:.0f}", one.get("compute_s"),
                         f"{one['peak_mb']:.0f}"])  # fmt: skip
            print(rows[-1], flush=True)
    header = ["days", "observations", "windows", "CPU s to plan", "MB more to plan",
              "CPU s to compute", "peak MB"]  # fmt: skip
    body = f"""{machine()}

{table(header, rows)}

{shape[0]} x {shape[1]} cells, blocks of 10 days with a halo of {one["halo"]}, two windows at once;
means only. The observations themselves are held, which is what grows with the length while
planning; maps are not. The shortest series has windows at its two ends only, whose halo is on one
side."""
    command = "OMP_NUM_THREADS=1 python benchmarks/long_series.py"
    write("long_series", "Long series in windows", command, body, keep=not options.quick)


if __name__ == "__main__":
    main()

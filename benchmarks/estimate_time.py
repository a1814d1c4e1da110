"""Time of one estimate at 192 x 288 with 30 replicates, one thread.

OMP_NUM_THREADS=1 python benchmarks/estimate_time.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import xarray as xr

from xr_spde.sar import estimate
from xr_spde.sar.priors import draw_test_case

SETTINGS = {
    "defaults (patterns and spacing chosen)": {},
    "likelihood alone (modes=0, dilation=1)": {"modes": 0, "dilation": 1},
    "likelihood alone, with standard errors": {"modes": 0, "dilation": 1, "uncertainty": True},
}


def main() -> None:
    """Run, print and write the table."""
    from _machine import machine, table, write

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="48 x 72, nothing written")
    options = parser.parse_args()
    shape = (48, 72) if options.quick else (192, 288)
    fields = draw_test_case(shape, 30, seed=3)[0]
    data = xr.DataArray(fields.astype(np.float32), dims=("realization", "lat", "lon"))
    rows = []
    for name, settings in SETTINGS.items():
        wall, cpu = time.perf_counter(), time.process_time()
        estimate(data, **settings)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        rows.append([name, f"{cpu:.1f}", f"{wall:.1f}"])
    text = table(["setting", "CPU s", "wall s"], rows)
    if options.quick:
        print(text)
    else:
        command = "OMP_NUM_THREADS=1 python benchmarks/estimate_time.py"
        write("estimate_time", "One estimate at 192 x 288, 30 replicates", command,
              f"{machine()}\n\n{text}")  # fmt: skip


if __name__ == "__main__":
    main()

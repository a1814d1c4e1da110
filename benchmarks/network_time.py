"""Time of an estimate by the default network, in pixels and in replicates.

    OMP_NUM_THREADS=1 python benchmarks/network_time.py [--quick]

CPU seconds of `estimate(method="net", modes=0, dilation=1)` end to end, lag statistics included,
on white noise (values do not matter for the time), the least of three; beside it the part of the
statistics, from an estimate's own walk through the replicates.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import xarray as xr
from _machine import machine, table, write


def seconds(shape: tuple[int, int], count: int) -> tuple[float, float]:
    """CPU seconds of all, and of the lag statistics alone."""
    from xr_spde.nets.lag_features import LAG_GROUPS
    from xr_spde.sar import estimate
    from xr_spde.sar.network import SPACINGS
    from xr_spde.sar.statistics import LagSums

    values = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    fields = xr.DataArray(values, dims=("member", "y", "x"))
    whole, part = [], []
    for _ in range(3):
        began = time.process_time()
        estimate(fields, "member", method="net", modes=0, dilation=1)
        whole.append(time.process_time() - began)
        began = time.process_time()
        sums = [LagSums(shape, periodic=False, dilation=d) for d in SPACINGS[: len(LAG_GROUPS)]]
        for member in values:
            for one in sums:
                one.add(member)
        part.append(time.process_time() - began)
    return min(whole), min(part)


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small grids, printed only")
    options = parser.parse_args()
    scale = 4 if options.quick else 1
    shapes = [
        (96 // scale, 144 // scale),
        (192 // scale, 288 // scale),
        (384 // scale, 576 // scale),
    ]
    cases = [(shape, 30) for shape in shapes]
    cases += [(shapes[1], count) for count in (1, 5, 15, 60, 120)]
    rows = []
    for shape, count in cases:
        whole, part = seconds(shape, count)
        each = whole / (shape[0] * shape[1]) * 1e6
        figures = [round(whole, 3), round(part, 3), round(whole - part, 3), round(each, 2)]
        rows.append([f"{shape[0]} x {shape[1]}", count, *figures])
    header = ["grid", "M", "all, CPU s", "statistics", "network", "microseconds a pixel"]
    body = f"{machine('torch')}\n\n{table(header, rows)}"
    command = "OMP_NUM_THREADS=1 python benchmarks/network_time.py"
    title = "Time of the default network"
    write("network_time", title, command, body, keep=not options.quick)


if __name__ == "__main__":
    main()

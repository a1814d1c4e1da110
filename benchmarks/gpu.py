"""Fields, likelihoods and lag products on a graphics card beside the processor.

Where cupy finds no card it says so and ends. ``--quick`` does the smaller grids once and writes no
file.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from _machine import answer, isolated, machine, table, write
from emulate import maps, parameters

import xr_spde
from xr_spde._core.device import card_count
from xr_spde.fields.field import GaussianField

GRIDS = ((192, 288), (512, 1024), (1024, 2048))
FIELDS = dict(zip(GRIDS, (1024, 256, 64), strict=True))
ROUNDS = 3

LARGE = ((1024, 2048), (3600, 7200))
"""Grids of the multigrid solver."""

MEMBERS = 30


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call, the card included."""
    start = time.perf_counter()
    work()
    if card_count():
        import cupy

        cupy.cuda.Device().synchronize()
    return time.perf_counter() - start


def draws(shape: list[int], device: str, dtype: str, fields: int) -> dict[str, float]:
    """Factor, exact variance, one lone solution, solutions, and finished members with their noise.

    Members are drawn block by block in as many threads as there are cores.
    """
    import dask

    size = (shape[0], shape[1])
    with xr_spde.set_options(device=device):
        GaussianField(**maps((16, 16)), boundary="cylinder").factor(dtype)  # wakes the card
        model = GaussianField(**maps(size), boundary="cylinder", buffer=0)
        factor = seconds(lambda: model.factor(dtype))
        held, variance = model.factor(dtype), seconds(model.variance)
        noise = np.random.default_rng(1).standard_normal((held.width, model.size))
        noise = noise.astype(dtype).T
        held.solve(noise)
        solve = median(seconds(lambda: held.solve(noise)) for _ in range(ROUNDS)) / held.width
        one = median(seconds(lambda: held.solve(noise[:, 0].copy())) for _ in range(9))
        ensemble = xr_spde.sar.emulate(parameters(size), fields, seed=1, buffer=0, dtype=dtype)
        with dask.config.set(scheduler="threads", num_workers=os.cpu_count()):
            ensemble.compute()
            field = median(seconds(ensemble.compute) for _ in range(ROUNDS)) / fields
    return {"factor": factor, "variance": variance, "one": one, "solve": solve, "field": field}


def iterated(shape: list[int], device: str) -> dict[str, float]:
    """Set up the multigrid solver, and solve for one field after the other."""
    size = (shape[0], shape[1])
    with xr_spde.set_options(device=device):
        GaussianField(**maps((64, 64)), boundary="cylinder", solver="multigrid").factor()
        model = GaussianField(**maps(size), boundary="cylinder", buffer=0, solver="multigrid")
        setup = seconds(model.factor)
        held, rng = model.factor(), np.random.default_rng(1)
        noise = [rng.standard_normal(model.size) for _ in range(ROUNDS)]
        held.solve(noise[0])
        field = median(seconds(lambda b=b: held.solve(b)) for b in noise)
    return {"setup": setup, "field": field}


def likelihood(shape: list[int], device: str) -> dict[str, float]:
    """One exact likelihood with its slope, rim of ten cells, and the lag products of replicates."""
    from xr_spde.fields.exact import ExactLikelihood
    from xr_spde.fields.sar import tensor
    from xr_spde.sar.statistics import LagSums

    size = (shape[0], shape[1])
    kappa2, rho, theta = maps(size).values()
    fields = np.random.default_rng(1).standard_normal((MEMBERS, *size))
    q = np.stack([kappa2, *tensor(rho, theta)])
    with xr_spde.set_options(device=device):
        made = ExactLikelihood(fields, "cylinder", rim=10)
        made.value_and_slope(q, np.zeros(size))
        slope = median(
            seconds(lambda: made.value_and_slope(q, np.zeros(size))) for _ in range(ROUNDS)
        )

        def walk() -> None:
            sums = LagSums(size, periodic=True, device=device)
            for field in fields:
                sums.add(field)
            sums.finish()

        walk()
        lags = median(seconds(walk) for _ in range(ROUNDS)) / MEMBERS
    return {"slope": slope, "lags": lags}


def card() -> str:
    """Name and memory of the card."""
    import cupy

    found = cupy.cuda.runtime.getDeviceProperties(0)
    return f"{found['name'].decode()}, {found['totalGlobalMem'] / 2**30:.0f} GiB"


PARTS = {"draws": draws, "iterated": iterated, "likelihood": likelihood}
NOTES = """
Wall-clock seconds. A field is finished: noise drawn on the host, which makes members those of the
processor, moved to the card, solved for, brought back, scaled and shifted. `solve` leaves the noise
out, and includes both transfers. The processor solves with one thread for each block of members.
Multigrid is set up on the host and solves for one field at a time. The likelihood is the exact one
of 30 replicates with its slope in all parameters, a rim of ten cells integrated out; lag products
are those of one spacing, with the transfer of each replicate.
""".strip()


def compare(shape: tuple[int, int]) -> str:
    """Table of one grid."""
    rows = []
    for dtype in ("float64", "float32"):
        found = {
            device: isolated(
                __file__, "draws", shape=shape, device=device, dtype=dtype, fields=FIELDS[shape]
            )
            for device in ("cpu", "cuda")
        }
        for device, run in found.items():
            each = [1000 * run[name] for name in ("one", "solve", "field")]
            faster = found["cpu"]["field"] / run["field"]
            cells = [run["factor"], run["variance"], *each, 1 / run["field"], faster]
            rows.append([f"{device}, {dtype}", *cells])
    header = ["", "factor, s", "exact variance, s", "one solve, ms", "solve, ms", "**field, ms**"]
    return f"## {shape[0]} x {shape[1]}\n\n" + table(
        [*header, "fields a second", "times the processor"], rows
    )


def compare_others(quick: bool) -> str:
    """Tables of multigrid, likelihood and lag products."""
    rows = []
    for shape in LARGE[:1] if quick else LARGE:
        found = {
            device: isolated(__file__, "iterated", shape=shape, device=device)
            for device in ("cpu", "cuda")
        }
        for device, run in found.items():
            faster = found["cpu"]["field"] / run["field"]
            grid = f"{shape[0]} x {shape[1]}"
            rows.append([grid, device, run["setup"], run["field"], faster])
    header = ["grid", "", "set-up, s", "field, s", "times the processor"]
    text = "## Multigrid\n\n" + table(header, rows)
    rows = []
    for shape in GRIDS[:1] if quick else GRIDS[:2]:
        found = {
            device: isolated(__file__, "likelihood", shape=shape, device=device)
            for device in ("cpu", "cuda")
        }
        for device, run in found.items():
            grid, slope, lags = f"{shape[0]} x {shape[1]}", run["slope"], 1000 * run["lags"]
            rows.append([grid, device, slope, found["cpu"]["slope"] / slope, lags])
    header = ["grid", "", "likelihood and slope, s", "times the processor", "lag products, ms"]
    return text + "\n\n## Likelihood\n\n" + table(header, rows)


def main() -> None:
    """Measure and write the table."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--quick", action="store_true", help="smaller grid, printed only")
    quick = reader.parse_args().quick
    if not card_count():
        print("cupy reports no graphics card here: nothing was measured.")
        return
    body = [f"{card()}. {machine('cupy-cuda12x')}"]
    body += [compare(shape) for shape in (GRIDS[:1] if quick else GRIDS)]
    body += [compare_others(quick), NOTES]
    command = "python benchmarks/gpu.py" + (" --quick" if quick else "")
    write("gpu", "Graphics card", command, "\n\n".join(body), keep=not quick)


if __name__ == "__main__" and not answer(PARTS):
    main()

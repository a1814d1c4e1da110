"""Maximum of the likelihood where the factor of the grid is not allowed: windows.

    OMP_NUM_THREADS=1 python benchmarks/likelihood_large.py [--estimates] [--quick]

One likelihood with its slope, at once and from windows, on grids of both kinds: CPU seconds, peak
memory, how far the windows are off, and the bound that they give. On request whole estimates by
``method="mle"`` with M = 5 and a fixed penalty, each in a process of its own.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _machine import answer, isolated, machine, table, write

GRIDS = ((192, 288), (512, 1024))
WHOLE = 192 * 288
"""Most cells for which the likelihood at once is measured too."""

MEMBERS = 5

PENALTY = 30.0
"""Of the whole estimate: fixed, which takes one climb; chosen from the data it takes four."""


def drawn(shape: list[int]) -> tuple[np.ndarray, ...]:
    """Fields of a smooth model: kappa2 from 0.02 to 0.5, rho from 1 to 4; a gap in the middle."""
    from xr_spde.fields.field import GaussianField

    y, x = (2.0 * np.pi * np.arange(size) / size for size in shape)
    one = 0.5 + 0.5 * np.sin(y[:, None]) * np.cos(2 * x)
    two = 0.5 + 0.5 * np.cos(2 * y[:, None] + 1.0) * np.sin(x)
    maps = 0.02 * 25.0**one, 1.0 + 3.0 * two, np.pi * one - two
    model = GaussianField(*maps, boundary="cylinder", solver="multigrid")
    noise = np.random.default_rng(1).standard_normal((MEMBERS, model.size))
    fields = np.array(model.sample(noise))
    fields[:, shape[0] // 3 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = np.nan
    return (fields, *maps)


def one(shape: list[int], way: str) -> dict[str, float]:
    """One likelihood with its slope, rim of 20 cells; the second of two."""
    from xr_spde.fields.exact import ExactLikelihood
    from xr_spde.fields.exact_windows import WindowedLikelihood, width_of_tiles
    from xr_spde.fields.sar import tensor
    from xr_spde.fields.windows import overlap_of

    fields, kappa2, rho, theta = drawn(shape)
    overlap = overlap_of(kappa2, rho)
    sizes = {"overlap": overlap, "tile": width_of_tiles(overlap, MEMBERS)}
    likelihood: Any = (
        ExactLikelihood(fields, "cylinder", rim=20)
        if way == "exact"
        else WindowedLikelihood(fields, "cylinder", rim=20, **sizes)
    )
    q, log_d = np.stack([kappa2, *tensor(rho, theta)]), np.zeros(kappa2.shape)
    began = time.process_time()
    value, by_q, *_ = likelihood.value_and_slope(q, log_d)
    found = {"seconds": time.process_time() - began, "value": value, **sizes}
    found["slope"] = by_q[0].ravel()[:: by_q[0].size // 997].tolist()
    if way == "windows":
        found["error"] = likelihood.error(q, log_d)
    return found


def whole(shape: list[int], limit: int) -> dict[str, float]:
    """Estimate within a limit of memory, and its errors."""
    import xarray as xr

    import xr_spde

    fields, kappa2, rho, _ = drawn(shape)
    data = xr.DataArray(fields, dims=("member", "y", "x"))
    began = time.process_time()
    with xr_spde.set_options(memory_limit=limit):
        found = xr_spde.sar.estimate(
            data, "member", method="mle", boundary="cylinder", penalty=PENALTY
        )
    seconds = time.process_time() - began
    errors = [np.log(found[k] / true) for k, true in (("kappa2", kappa2), ("rho", rho))]
    return {
        "seconds": seconds,
        "way": found.attrs["xr_spde_likelihood"],
        "error": float(found.get("log_likelihood_error", np.nan)),
        "rmse": [float(np.sqrt((one**2).mean())) for one in errors],
    }


PARTS = {"one": one, "whole": whole}


def likelihoods(grids: tuple[tuple[int, int], ...]) -> str:
    """Table of single likelihoods."""
    rows = []
    for shape in grids:
        runs = {"windows": isolated(__file__, "one", shape=shape, way="windows")}
        if shape[0] * shape[1] <= WHOLE:
            runs["exact"] = isolated(__file__, "one", shape=shape, way="exact")
        for way, run in sorted(runs.items()):
            cells: list[Any] = [f"{shape[0]} x {shape[1]}", way, run["seconds"], run["peak_mb"]]
            if way == "exact":
                rows.append([*cells, None, None, None, None, None])
                continue
            off = slope = None
            if "exact" in runs:
                true = np.array(runs["exact"]["slope"])
                off = f"{abs(run['value'] - runs['exact']['value']):.1e}"
                slope = f"{np.abs(run['slope'] - true).max() / np.abs(true).max():.1e}"
            bound = f"{run['error']:.1e}"
            rows.append([*cells, run["overlap"], run["tile"], off, bound, slope])
    header = ["grid", "likelihood", "CPU s", "peak MB", "overlap", "tile"]
    return table([*header, "off by", "bound", "slope off by"], rows)


def estimates(grids: tuple[tuple[int, int], ...], limit: int) -> str:
    """Table of whole estimates."""
    rows = []
    for shape in grids:
        run = isolated(__file__, "whole", shape=shape, limit=limit)
        errors = ", ".join(f"{value:.3f}" for value in run["rmse"])
        cells = [f"{shape[0]} x {shape[1]}", run["way"], run["seconds"] / 60.0, run["peak_mb"]]
        rows.append([*cells, f"{run['error']:.1e}", errors])
    header = ["grid", "likelihood", "CPU minutes", "peak MB", "bound of the error"]
    return table([*header, "RMSE log kappa2, log rho"], rows)


NOTES = """
One likelihood with its slope in the four parameters of all cells, M = 5, a rim of 20 cells and a
gap of an eighth of the grid integrated out. "off by" is the difference to the likelihood at once,
in log units, and to its slope by kappa2 relative to the largest; the bound is what windows say of
themselves. Peaks are those of the process, with fields and libraries. 192 x 288 is not cut by tiles
of that width: its row shows the way itself, without an approximation.
""".strip()


def main() -> None:
    """Run, print and write the tables."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--quick", action="store_true", help="smaller grids, printed only")
    reader.add_argument("--estimates", action="store_true", help="half an hour more")
    options = reader.parse_args()
    quick = options.quick
    grids, limit = (((96, 144),), 10**8) if quick else (GRIDS, 4 * 10**9)
    body = [machine(), "## One likelihood", likelihoods(grids), NOTES]
    if options.estimates or quick:
        said = f"`memory_limit` of {limit / 1e9:.2g} GB, `penalty={PENALTY:g}`."
        body += ["## Estimates", said, estimates(grids[-1:], limit)]
    command = "OMP_NUM_THREADS=1 python benchmarks/likelihood_large.py"
    command += " --estimates" * options.estimates + " --quick" * quick
    title = "Likelihood of grids beyond memory"
    write("likelihood_large", title, command, "\n\n".join(body), keep=not quick)


if __name__ == "__main__" and not answer(PARTS):
    main()

"""Speed of the ensemble filters, beside DAPPER and beside a plain product of matrices.

    OMP_NUM_THREADS=1 python benchmarks/filters.py [--quick]

Each row runs in a process of its own on one thread, and gives CPU time, the best of a few runs.
DAPPER is measured where it is installed; its analysis forms a matrix p x p.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import _machine
import numpy as np

GRID = (192, 288)


def best(work: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def draw(n: int, p: int, size: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Members (N, n), observed members (N, p) and observations (p,)."""
    rng = np.random.default_rng(0)
    members = rng.standard_normal((size, n), dtype=dtype)
    return members, members[:, rng.integers(0, n, p)], rng.standard_normal(p, dtype=dtype)


def analysis(method: str, n: int, p: int, size: int, dtype: str, repeats: int) -> dict[str, float]:
    """Whole analysis: whitening, N x N algebra, update of the state."""
    from xr_spde.assim.filters import analyse

    members, observed, y = draw(n, p, size, dtype)
    seconds = best(lambda: analyse(members, observed, y, 1.0, method=method, seed=0), repeats)
    return {"seconds": seconds}


def product(n: int, size: int, dtype: str, repeats: int) -> dict[str, float]:
    """Plain product of the members with a matrix N x N, into an array of its own."""
    members, _, _ = draw(n, 1, size, dtype)
    matrix = np.random.default_rng(1).standard_normal((size, size), dtype=dtype)
    return {"seconds": best(lambda: matrix @ members, repeats)}


def dapper(method: str, n: int, p: int, size: int, repeats: int) -> dict[str, float | None]:
    """Return the analysis of DAPPER on the same arrays; nothing where it is not installed."""
    try:
        from dapper.da_methods.ensemble import EnKF_analysis
        from dapper.tools.randvars import GaussRV
    except ImportError:
        return {"seconds": None}
    members, observed, y = draw(n, p, size, "float64")
    noise = GaussRV(C=1.0, M=p)

    def work() -> Any:
        return EnKF_analysis(members, observed, noise, y, method)

    return {"seconds": best(work, repeats)}


def sites(count: int) -> tuple[Any, Any, float]:
    """Points of a global grid, as many observations at random, and the radius that sees 50."""
    from xr_spde.assim.localization import EARTH_RADIUS, Places, on_sphere

    lat = (np.arange(GRID[0]) + 0.5) * 180.0 / GRID[0] - 90.0
    points = on_sphere(*np.meshgrid(np.arange(GRID[1]) * 360.0 / GRID[1], lat))
    xyz = np.random.default_rng(0).standard_normal((count, 3))
    places = Places(EARTH_RADIUS * xyz / np.linalg.norm(xyz, axis=1)[:, None], EARTH_RADIUS)
    # a cap whose chord is r holds a share r^2 / 4 of the sphere
    return points, places, places.along(np.array(2 * EARTH_RADIUS * np.sqrt(50 / count)))


def local(size: int, dtype: str, variance: float, repeats: int) -> dict[str, float]:
    """LETKF on the grid, 10 000 observations of smooth waves: microseconds per point."""
    from xr_spde.assim.letkf import LocalFilter
    from xr_spde.assim.localization import Neighbours
    from xr_spde.assim.projection import project

    points, places, radius = sites(10_000)
    rng = np.random.default_rng(1)
    waves = 8.0 * rng.standard_normal((60, 3))
    phases, amplitudes = rng.uniform(0, 6, 60), rng.standard_normal((size, 60)) / np.sqrt(30)

    def field(at: Any) -> np.ndarray:
        return amplitudes @ np.cos(waves @ (at.xyz / at.curvature).T + phases[:, None])

    observed, members = field(places), field(points).astype(dtype)
    y = observed[0] + np.sqrt(variance) * rng.standard_normal(observed.shape[1])
    neighbours = Neighbours(places, float(radius))
    filtered = LocalFilter(project(observed, y, variance), neighbours)
    seconds = best(lambda: filtered(members, points), repeats)
    near = np.diff(neighbours.of(points)[0])
    return {"us": 1e6 * seconds / len(points), "near": float(near.mean())}


def eigen(size: int, dtype: str, repeats: int) -> dict[str, float]:
    """Stacked eigenproblems alone (numpy), microseconds each."""
    rows = np.random.default_rng(0).standard_normal((512, size, 50)).astype(dtype)
    gram = rows @ rows.transpose(0, 2, 1)
    return {"us": 1e6 * best(lambda: np.linalg.eigh(gram), repeats) / 512}


PARTS = {"analysis": analysis, "product": product, "dapper": dapper, "local": local, "eigen": eigen}


def globally(quick: bool) -> str:
    """Table of the global filters on a grid, beside DAPPER."""
    n, p, size = 55_296, 500 if quick else 10_000, 40
    rows = []
    names = {"etkf": "Sqrt", "enkf": "PertObs", "serial": "Serial", "denkf": "DEnKF"}
    for method, other in names.items():
        ours = {
            dtype: _machine.isolated(
                __file__, "analysis", method=method, n=n, p=p, size=size, dtype=dtype, repeats=5
            )["seconds"]
            for dtype in ("float64", "float32")
        }
        # one run: each takes a minute
        theirs = _machine.isolated(__file__, "dapper", method=other, n=n, p=p, size=size, repeats=1)
        peer = theirs["seconds"]
        ratio = None if peer is None else peer / ours["float64"]
        rows.append([method, *ours.values(), peer, ratio])
    header = ["filter", "float64 s", "float32 s", "DAPPER s (float64)", "times faster"]
    return f"State {n}, observations {p}, N = {size}.\n\n{_machine.table(header, rows)}"


def against_product(quick: bool) -> str:
    """Table of the ETKF beside the product that it cannot do without."""
    n, p, size = (100_000, 10_000, 100) if quick else (1_000_000, 100_000, 100)
    rows = []
    for dtype in ("float32", "float64"):
        plain = _machine.isolated(__file__, "product", n=n, size=size, dtype=dtype, repeats=5)
        ours = _machine.isolated(
            __file__, "analysis", method="etkf", n=n, p=p, size=size, dtype=dtype, repeats=5
        )
        seconds = plain["seconds"], ours["seconds"]
        rows.append([dtype, *seconds, seconds[1] / seconds[0], ours["peak_mb"]])
    header = ["dtype", "product E T s", "ETKF s", "ratio", "peak MB"]
    return f"State {n}, observations {p}, N = {size}.\n\n{_machine.table(header, rows)}"


def locally(quick: bool) -> str:
    """Table of the LETKF, per grid point."""
    rows = []
    for size in (20,) if quick else (20, 40, 100):
        for dtype in ("float32", "float64"):
            eigh = _machine.isolated(__file__, "eigen", size=size, dtype=dtype, repeats=3)["us"]
            found = [
                _machine.isolated(
                    __file__, "local", size=size, dtype=dtype, variance=variance, repeats=2
                )
                for variance in (1.0, 0.1)
            ]
            rows.append([size, dtype, found[0]["near"], *(one["us"] for one in found), eigh])
    header = ["N", "dtype", "observations", "error as spread", "a tenth", "numpy's eigh alone"]
    text = (
        "LETKF on 192 x 288 points, search for neighbours included: microseconds per point, where "
        "errors of observation have the variance of the ensemble, or a tenth of it."
    )
    return f"{text}\n\n{_machine.table(header, rows)}"


def main() -> None:
    """Run, print and write the tables."""
    if _machine.answer(PARTS):
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, printed only")
    quick = parser.parse_args().quick
    body = [_machine.machine("dapper"), "CPU time of one thread, best of a few runs."]
    body += [part(quick) for part in (globally, against_product, locally)]
    command = "OMP_NUM_THREADS=1 python benchmarks/filters.py"
    title = "Speed of the ensemble filters"
    _machine.write("filters", title, command, "\n\n".join(body), keep=not quick)


if __name__ == "__main__":
    main()

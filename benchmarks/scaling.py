"""Time and memory of one field from ten thousand to 26 million nodes, and robustness of multigrid.

Each figure comes from a process of its own, with one thread, in CPU seconds. ``--quick`` does the
smaller grids and anisotropies and writes no file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from _machine import answer, isolated, machine, table, write
from emulate import maps

SHAPES = ((72, 144), (192, 288), (512, 1024), (1024, 2048), (1800, 3600), (3600, 7200))
LARGEST = {"multigrid": SHAPES[5], "dissection": SHAPES[3], "superlu": SHAPES[3]}
LARGEST |= {"pyamg": SHAPES[3]}
ROBUST = (512, 512)
DEEP = 5000
LIMIT = 12 * 2**30
LIBRARIES = {"pyamg": "pyamg"}
PICTURE = Path(__file__).parents[1] / "docs" / "_static" / "scaling.png"
Figures = dict[str, Any]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, all threads of this process together, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def problem(shape: list[int], rho: float, degrees: float | None, kappa2: float) -> np.ndarray:
    """Weights of constant parameters, or of smooth maps where `degrees` is None.

    The maps are those of ``emulate.py``, with kappa2 from the number given instead of 0.01, and
    with the ratio of ranges up to rho instead of 4.
    """
    from xr_spde.fields.sar import weights

    if degrees is not None:
        values = (kappa2, rho, np.radians(degrees))
        return weights(*(np.full((shape[0], shape[1]), value) for value in values))
    smooth = maps((shape[0], shape[1]))
    ratio = 1 + (rho - 1) / 3 * (smooth["rho"] - 1)
    return weights(100.0 * kappa2 * smooth["kappa2"], ratio, smooth["theta"])


def solved(build: Callable[[], Any], solve: Callable[[Any, np.ndarray], Any], n: int) -> Figures:
    """Seconds to set up, of the first and of a second field; first solution for checks."""
    setup, held = timed(build)
    rng = np.random.default_rng(1)
    first, _ = timed(lambda: solve(held, rng.standard_normal(n)))
    field, _ = timed(lambda: solve(held, rng.standard_normal(n)))
    return {"setup": setup, "first": first, "field": field, "held": held}


def multigrid(shape: list[int], coarsest: int | None = None, **case: Any) -> Figures:
    """Solve with our multigrid to a relative residual of 1e-8."""
    from xr_spde import set_options
    from xr_spde.solvers.multigrid import COARSEST, MultigridFactor, predict_bytes

    set_options(memory_limit=LIMIT)
    own = problem(shape, **case)
    found = solved(
        lambda: MultigridFactor(own, boundary="cylinder", coarsest=coarsest or COARSEST),
        lambda held, b: held.solve(b),
        shape[0] * shape[1],
    )
    (report,) = found.pop("held").convergence
    found |= {"iterations": report.iterations, "residual": report.residual}
    return found | {
        "predicted": predict_bytes((shape[0], shape[1]), boundary="cylinder") / 1e6,
    }


def dissection(shape: list[int], **case: Any) -> Figures:
    """Solve with the grid dissection solver."""
    from xr_spde.fields.stencil import assemble
    from xr_spde.solvers.grid_factor import GridFactor

    size, matrix = (shape[0], shape[1]), assemble(problem(shape, **case), boundary="cylinder")
    found = solved(
        lambda: GridFactor(matrix, shape=size, boundary="cylinder"),
        lambda held, b: held.solve(b),
        matrix.shape[0],
    )
    found.pop("held")
    return found


def superlu(shape: list[int], **case: Any) -> Figures:
    """Solve with SuperLU in the ordering of the grid, without row exchanges, one column."""
    from scipy.sparse.linalg import splu

    from xr_spde.fields.stencil import assemble
    from xr_spde.solvers.grid_cut import grid
    from xr_spde.solvers.grid_tree import grow

    matrix = assemble(problem(shape, **case), boundary="cylinder")
    order = grow(grid((shape[0], shape[1]), boundary="cylinder", leaf=16)).order

    def build() -> Any:
        ordered = matrix[order][:, order].tocsc()
        mode = {"SymmetricMode": True}
        return splu(ordered, permc_spec="NATURAL", diag_pivot_thresh=0.0, options=mode)

    def solve(held: Any, b: np.ndarray) -> np.ndarray:
        x = np.empty_like(b)
        x[order] = held.solve(b[order])
        return x

    found = solved(build, solve, matrix.shape[0])
    found.pop("held")
    return found


def pyamg(shape: list[int], **case: Any) -> Figures:
    """Solve with Ruge-Stueben multigrid of pyamg, its defaults, around it BiCGSTAB."""
    import pyamg as library
    import scipy.sparse as sp

    from xr_spde.fields.stencil import assemble

    system = sp.csr_matrix(assemble(problem(shape, **case), boundary="cylinder"))
    # 32-bit indices, which its compiled kernels are built for
    system.indices, system.indptr = system.indices.astype("i4"), system.indptr.astype("i4")
    counts: list[list[float]] = []

    def solve(held: Any, b: np.ndarray) -> Any:
        counts.append([])
        x = held.solve(b, tol=1e-8, maxiter=300, accel="bicgstab", residuals=counts[-1])
        counts[-1].append(float(np.linalg.norm(b - system @ x) / np.linalg.norm(b)))
        return x

    found = solved(lambda: library.ruge_stuben_solver(system), solve, system.shape[0])
    found.pop("held")
    return found | {"iterations": len(counts[-1]) - 2, "residual": counts[-1][-1]}


PARTS = {f.__name__: f for f in (multigrid, dissection, superlu, pyamg)}
SMOOTH = {"rho": 4.0, "degrees": None, "kappa2": 0.01}


def candidates() -> list[str]:
    """Parts whose library is installed."""
    return [name for name in PARTS if name not in LIBRARIES or find_spec(LIBRARIES[name])]


def sizes(shapes: Iterable[tuple[int, int]]) -> tuple[str, dict[str, list[tuple[int, float]]]]:
    """Table by size, and microseconds per node of a field by solver."""
    rows, curves = [], dict[str, list[tuple[int, float]]]()
    for shape in shapes:
        nodes = shape[0] * shape[1]
        for name in candidates():
            if nodes > LARGEST[name][0] * LARGEST[name][1]:
                continue
            run = isolated(__file__, name, shape=list(shape), **SMOOTH)
            each = 1e6 * run["field"] / nodes
            curves.setdefault(name, []).append((nodes, each))
            rows.append(
                [
                    f"{shape[0]} x {shape[1]}",
                    name,
                    run["setup"],
                    run["field"],
                    each,
                    run["setup"] + run["first"],
                    run.get("iterations"),
                    f"{run['residual']:.0e}" if "residual" in run else None,
                    run["peak_mb"],
                    run.get("predicted"),
                ]
            )
    header = ["grid", "solver", "set-up, s", "**field, s**", "µs per node", "set-up + field, s"]
    header += ["cycles", "residual", "peak MB", "predicted MB"]
    return table(header, rows), curves


def robustness(shape: tuple[int, int], ratios: Iterable[float]) -> str:
    """Table of cycles by anisotropy, direction and range, ours and pyamg's."""
    rows = []
    for kappa2 in (1.0, 1e-2, 1e-5):
        for rho in ratios:
            angles = [0.0] if rho == 1.0 else [0.0, 22.5, 45.0, 70.0, None]
            for degrees in angles:
                case = {"rho": rho, "degrees": degrees, "kappa2": kappa2}
                cells: list[Any] = [kappa2, rho, "varying" if degrees is None else degrees]
                for name in ("multigrid", "pyamg"):
                    if name not in candidates():
                        continue
                    deep = {"coarsest": DEEP} if name == "multigrid" else {}
                    run = isolated(__file__, name, shape=list(shape), **case, **deep)
                    cells += [run["iterations"], f"{run['residual']:.0e}", run["setup"]]
                    cells.append(run["field"])
                rows.append(cells)
    header = ["kappa2", "rho", "angle"]
    for name in ("ours", "pyamg"):
        if name == "ours" or "pyamg" in candidates():
            header += [f"{name}: cycles", "residual", "set-up, s", "field, s"]
    return table(header, rows)


def draw(curves: dict[str, list[tuple[int, float]]]) -> None:
    """Plot microseconds per node against nodes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, points in curves.items():
        axis.loglog(*zip(*points, strict=True), marker="o", label=name)
    axis.set(xlabel="nodes", ylabel="CPU microseconds per node and field")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(PICTURE, dpi=120)


NOTES = f"""
Multigrid and pyamg solve to a relative residual of 1e-8. `field` is a second right-hand side alone,
the set-up kept; `peak` is the whole process, with libraries, parameters and weights, and
`predicted` what the solver says before anything is allocated, weights included. Up to 120 000
nodes multigrid is its direct solver alone. Both direct solvers are faster per field for many at
once (see the table of solvers). pyamg is Ruge-Stueben with its defaults, around it BiCGSTAB, one
step of which takes two cycles. The maps of the first table are those of the emulation benchmark:
kappa2 from 0.01 to 0.5, rho from 1 to 4, all directions, on a cylinder.

The second table is for {ROBUST[0]} x {ROBUST[1]} nodes on a cylinder. The coarsest grid has at most
{DEEP} nodes there instead of 120 000, so that there are as many grids as for ten million nodes.
Directions are degrees from the x axis. `varying` are the same maps with kappa2 from the number
given to 50 times that, and rho from 1 to the number given.
""".strip()


def main() -> None:
    """Measure and write the tables."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--quick", action="store_true", help="smaller cases, printed only")
    quick = reader.parse_args().quick
    by_size, curves = sizes(SHAPES[:2] if quick else SHAPES)
    body = [machine(*LIBRARIES.values()), "## Size\n\n" + by_size]
    if not quick:
        draw(curves)
        body.append(f"![CPU time per node](../../docs/_static/{PICTURE.name})")
    body.append(
        "## Anisotropy and range\n\n"
        + robustness((128, 128) if quick else ROBUST, (10.0,) if quick else (1.0, 3.0, 10.0))
    )
    body.append(NOTES)
    command = "python benchmarks/scaling.py" + (" --quick" if quick else "")
    write("scaling", "Scaling", command, "\n\n".join(body), keep=not quick)


if __name__ == "__main__" and not answer(PARTS):
    main()

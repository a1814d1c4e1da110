"""The grid dissection solver beside SuperLU, and beside CHOLMOD, MUMPS and pyamg if installed.

Each figure comes from a process of its own, with one thread, in CPU seconds; solvers take turns
and medians are shown. ``--quick`` does the smaller grid once and writes no file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse as sp
from _machine import answer, isolated, machine, table, write
from emulate import maps

from xr_spde.fields.sar import operator

GRIDS = ((192, 288), (512, 1024))
ROUNDS = {GRIDS[0]: 5, GRIDS[1]: 1}
MANY = 256
Figures = dict[str, float | None]


def matrix(shape: list[int]) -> sp.csc_array:
    """B of smooth non-stationary maps on a cylinder."""
    return operator(**maps((shape[0], shape[1])), boundary="cylinder")


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Median CPU seconds of a call, all threads of this process together, and its last result."""
    spent, result = [], None
    for _ in range(repeats):
        result = None  # let go of the last one first
        start = time.process_time()
        result = work()
        spent.append(time.process_time() - start)
    return median(spent), result


def solutions(solve: Callable[[Any], Any], n: int, many: int, dtype: str = "float64") -> Figures:
    """Milliseconds per right-hand side, one alone and many at once, after a first call."""
    b = np.random.default_rng(1).standard_normal((n, many)).astype(dtype)
    solve(b[:, 0].copy())
    one = timed(lambda: solve(b[:, 0].copy()), 9)[0]
    return {"one": 1e3 * one, "many": 1e3 * timed(lambda: solve(b), 3)[0] / many}


def dissection(shape: list[int], dtype: str, symmetric: bool) -> Figures:
    """Ours on B, or on Q = B'B."""
    from xr_spde.solvers.grid_factor import GridFactor

    system = matrix(shape)
    system = sp.csc_array(system.T @ system) if symmetric else system
    settings: Mapping[str, Any] = {
        "shape": (shape[0], shape[1]),
        "boundary": "cylinder",
        "reach": 2 if symmetric else 1,
        "symmetric": symmetric,
        "dtype": dtype,
    }
    first, _ = timed(lambda: GridFactor(system, **settings))
    factor, held = timed(lambda: GridFactor(system, **settings), 3)
    figures = solutions(held.solve, held.n, MANY, dtype)
    return figures | {
        "first": first,
        "factor": factor,
        "logdet_s": 0.0,
        "logdet": held.logdet() / (2 if symmetric else 1),
        "inverse": timed(held.inverse_diagonal)[0],
        "gram": None if symmetric else timed(held.gram_inverse_diagonal)[0],
        "held": held.nbytes / 1e6,
        "predicted": held.memory.peak / 1e6,
    }


def superlu(shape: list[int]) -> Figures:
    """SuperLU as the package uses it."""
    from xr_spde.solvers import choose

    system = matrix(shape)
    settings: Mapping[str, Any] = {"shape": (shape[0], shape[1]), "boundary": "cylinder"}
    factor, held = timed(lambda: choose.factor(system, **settings, solver="superlu"))
    figures = solutions(lambda b: held.solve(np.asfortranarray(b)), held.n, 32)
    logdet_s, logdet = timed(held.logdet)
    return figures | {
        "first": factor,
        "factor": factor,
        "logdet_s": logdet_s,
        "logdet": logdet,
        "held": held.nbytes / 1e6,
    }


def cholmod(shape: list[int]) -> Figures:
    """CHOLMOD on Q = B'B: ordering and factor first, then the factor alone."""
    from sksparse.cholmod import cholesky

    system = matrix(shape)
    system = sp.csc_matrix(system.T @ system)
    first, held = timed(lambda: cholesky(system))
    factor, _ = timed(lambda: held.cholesky_inplace(system), 3)
    logdet_s, logdet = timed(held.logdet)
    figures = solutions(lambda b: held(np.asfortranarray(b)), system.shape[0], 64)
    return figures | {
        "first": first,
        "factor": factor,
        "logdet_s": logdet_s,
        "logdet": logdet / 2,
        "held": 12e-6 * held.L().nnz,
    }


def mumps(shape: list[int]) -> Figures:
    """MUMPS on B through python-mumps."""
    from mumps import Context

    system = sp.coo_matrix(matrix(shape))
    context = Context()
    first, _ = timed(lambda: context.factor(system))
    factor, _ = timed(lambda: context.factor(system, reuse_analysis=True), 3)
    figures = solutions(lambda b: context.solve(np.asfortranarray(b)), system.shape[0], 64)
    return figures | {"first": first, "factor": factor}


def pyamg(shape: list[int]) -> Figures:
    """Ruge-Stueben multigrid with BiCGSTAB to a relative residual of 1e-10, column by column."""
    import pyamg as library

    system = sp.csr_matrix(matrix(shape))
    # 32-bit indices, which its compiled kernels are built for
    system.indices, system.indptr = system.indices.astype("i4"), system.indptr.astype("i4")
    factor, held = timed(lambda: library.ruge_stuben_solver(system))

    def solve(b: np.ndarray) -> np.ndarray:
        columns = b.reshape(len(b), -1).T
        return np.array([held.solve(column, tol=1e-10, accel="bicgstab") for column in columns])

    return solutions(solve, system.shape[0], 4) | {"first": factor, "factor": factor}


PARTS = {
    "dissection": dissection,
    "superlu": superlu,
    "cholmod": cholmod,
    "mumps": mumps,
    "pyamg": pyamg,
}
OURS: Mapping[str, Mapping[str, Any]] = {
    "dissection, B": {"dtype": "float64", "symmetric": False},
    "dissection, B, float32": {"dtype": "float32", "symmetric": False},
    "dissection, Q": {"dtype": "float64", "symmetric": True},
}
PEERS = {
    "CHOLMOD, Q": ("sksparse", "cholmod"),
    "MUMPS, B": ("mumps", "mumps"),
    "pyamg, B": ("pyamg", "pyamg"),
}
COLUMNS = {
    "first factor, s": "first",
    "factor, s": "factor",
    "one solve, ms": "one",
    "**many, ms each**": "many",
    "selected inverse, s": "inverse",
    "exact variance, s": "gram",
    "log-determinant, s": "logdet_s",
    "factor MB": "held",
    "predicted peak MB": "predicted",
    "peak MB": "peak_mb",
}
NOTES = f"""
Stencil of nine points on a cylinder, kappa2 from 0.01 to 0.5 and rho from 1 to 4. `first factor`
includes everything that depends on the pattern alone (ordering, index arrays); `factor` is another
matrix of the same pattern, where the library keeps an analysis. `many` solves for {MANY} right-hand
sides at once (SuperLU 32, CHOLMOD and MUMPS 64, pyamg 4, one by one). `selected inverse` is the
diagonal of the inverse, `exact variance` that of (B'B)^-1. Q = B'B has the squared condition, and
its solution is another job: a draw from Q needs one triangular solution. `predicted peak` is known
before anything is allocated, for factor and solutions, and leaves out the libraries and the matrix,
which are in `peak` with the right-hand sides.
""".strip()


def compare(shape: tuple[int, int], rounds: int) -> str:
    """Table of one grid."""
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        name: ("dissection", dict(settings)) for name, settings in OURS.items()
    }
    runs["SuperLU, B"] = ("superlu", {})
    runs |= {name: (part, {}) for name, (module, part) in PEERS.items() if find_spec(module)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (part, settings) in runs.items():
            found[name].append(isolated(__file__, part, shape=list(shape), **settings))
    middle = {
        name: {
            key: median(one[key] for one in results)
            for key, first in results[0].items()
            if first is not None
        }
        for name, results in found.items()
    }
    rows = [[name, *map(values.get, COLUMNS.values())] for name, values in middle.items()]
    reference = middle["SuperLU, B"]["logdet"]
    apart = {
        name: abs(values["logdet"] / reference - 1)
        for name, values in middle.items()
        if "logdet" in values
    }
    agreement = ", ".join(f"{name} {value:.0e}" for name, value in apart.items())
    return (
        f"## {shape[0]} x {shape[1]}: CPU seconds of one thread, median of {rounds}\n\n"
        + table(["", *COLUMNS], rows)
        + f"\n\nlog|det B| relative to that of SuperLU: {agreement}."
    )


def main() -> None:
    """Measure and write the tables."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--quick", action="store_true", help="smaller grid, once, printed only")
    quick = reader.parse_args().quick
    shapes = GRIDS[:1] if quick else GRIDS
    body = [machine("scikit-sparse", "python-mumps", "pyamg")]
    body += [compare(shape, 1 if quick else ROUNDS[shape]) for shape in shapes]
    body.append(NOTES)
    command = "python benchmarks/solvers.py" + (" --quick" if quick else "")
    write("solvers", "Solvers", command, "\n\n".join(body), keep=not quick)


if __name__ == "__main__" and not answer(PARTS):
    main()

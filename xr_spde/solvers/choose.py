"""Which solver factorises a matrix, and whether it fits in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import scipy.sparse as sp

from xr_spde._core.device import resolve_device
from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.memory import check_memory
from xr_spde._core.warn import warn
from xr_spde.solvers.dissection import gram_inverse
from xr_spde.solvers.factor import Factor
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.superlu import SuperLUFactor
from xr_spde.solvers.tree import elimination_order

GEOMETRIC_FROM = 300_000
"""Rows from which the ordering of the grid beats minimum degree."""


def predict_bytes(n: int) -> int:
    """Peak memory of factorising a nine-point matrix of `n` rows with SuperLU.

    Parameters
    ----------
    n : int
        Number of rows.

    Returns
    -------
    int
        Bytes, within about 30 % above what was measured from 24 thousand to 2 million rows.
    """
    return int(150.0 * n * max(math.log2(n), 1.0))


def _gram_diagonal(matrix: sp.csc_array, shape: tuple[int, int], boundary: str) -> np.ndarray:
    return gram_inverse(matrix, shape=shape, boundary=boundary)[0]


def _superlu(matrix: sp.csc_array, shape: tuple[int, int], boundary: str) -> Factor:
    n = shape[0] * shape[1]
    order = elimination_order(shape, boundary=boundary, reach=1) if n >= GEOMETRIC_FROM else None

    diagonal = partial(_gram_diagonal, matrix, shape, boundary)
    return SuperLUFactor(matrix, permutation=order, gram_diagonal=diagonal)


def _dissection(matrix: sp.csc_array, shape: tuple[int, int], boundary: str) -> Factor:
    diagonal = partial(_gram_diagonal, matrix, shape, boundary)
    return GridFactor(matrix, shape=shape, boundary=boundary, gram_diagonal=diagonal)


SOLVERS: Mapping[str, Callable[[sp.csc_array, tuple[int, int], str], Factor]] = {
    "dissection": _dissection,
    "superlu": _superlu,
}
"""Solvers by name; ``"auto"`` stands for the first."""


def check_solver(solver: str) -> str:
    """Return the name of a solver, with ``"auto"`` resolved.

    Parameters
    ----------
    solver : str
        ``"auto"`` or a name in :data:`SOLVERS`.

    Returns
    -------
    str
        A name in :data:`SOLVERS`.

    Raises
    ------
    UnknownNameError
        For another name; lists the known ones.
    """
    if solver == "auto":
        return next(iter(SOLVERS))
    if solver not in SOLVERS:
        raise unknown("solver", solver, ["auto", *SOLVERS])
    return solver


def factor(
    matrix: sp.csc_array, *, shape: tuple[int, int], boundary: str, solver: str = "auto"
) -> Factor:
    """Factorise the matrix of a nine-point stencil on a grid.

    Parameters
    ----------
    matrix : sparse matrix (ny * nx, ny * nx)
        As from :func:`xr_spde.fields.stencil.assemble`.
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Where the grid is periodic.
    solver : {"auto", "dissection", "superlu"}, default "auto"
        Name in :data:`SOLVERS`.

    Returns
    -------
    Factor
        Solutions, log-determinant, variances.

    Raises
    ------
    UnknownNameError
        For an unknown solver.
    ParameterError
        If matrix and shape do not fit.
    MemoryGuardError
        If the factor is predicted not to fit in memory; nothing has been allocated then.
    MissingDependencyError
        If the option ``device`` is "cuda" and cupy is not installed.
    SolverError
        If the matrix is singular.
    """
    name = check_solver(solver)
    n = shape[0] * shape[1]
    if matrix.shape != (n, n):
        raise ParameterError(f"matrix has shape {matrix.shape}; expected {(n, n)} for {shape}")
    guard(shape)
    if resolve_device() == "cuda":
        warn(
            f"device='cuda' was asked for and the solver {name!r} runs on the processor; it is "
            "used all the same"
        )
    return SOLVERS[name](matrix, shape, boundary)


def guard(shape: tuple[int, int]) -> None:
    """Refuse a grid whose factorisation would not fit in memory.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``, buffer included.

    Raises
    ------
    MemoryGuardError
        Saying how much it would take, the limit, and what to do.
    """
    check_memory(
        predict_bytes(shape[0] * shape[1]),
        what=f"factorising a grid of {shape[0]} x {shape[1]} nodes (buffer included)",
        remedy="Use a coarser or smaller grid or a smaller buffer.",
    )

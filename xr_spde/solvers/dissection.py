"""Exact variances of ``B^-1 e`` on a grid: the diagonal of ``(B'B)^-1`` by dissection of B."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.memory import check_memory
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.grid_memory import predict as predict_memory

Float = NDArray[np.float64]


def predict(shape: tuple[int, int], *, boundary: str) -> int:
    """Predict the peak memory of :func:`gram_inverse`, from the shape alone.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic.

    Returns
    -------
    int
        Bytes.
    """
    made = grid(shape, boundary=boundary)
    memory = predict_memory(made, symmetric=False, dtype=np.float64)
    return memory.factor + memory.index + max(memory.factoring, memory.solving, memory.squaring)


def gram_inverse(
    matrix: sp.csc_array, *, shape: tuple[int, int], boundary: str
) -> tuple[Float, float]:
    """Diagonal of ``(B'B)^-1`` and ``log|det B|`` of a nine-point matrix on a grid.

    A factor of B made for this alone; one that is there has
    :meth:`~xr_spde.solvers.factor.Factor.gram_inverse_diagonal`.

    Parameters
    ----------
    matrix : sparse matrix (ny * nx, ny * nx)
        B; couples nodes at most one row and one column apart.
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic.

    Returns
    -------
    diagonal : ndarray (ny * nx,)
        Variances of ``B^-1 e`` with white noise e.
    logdet : float
        ``log|det B|``.

    Raises
    ------
    MemoryGuardError
        If it is predicted not to fit in memory; nothing has been allocated then.
    SolverError
        If the matrix is singular or not finite.
    """
    check_memory(
        predict(shape, boundary=boundary),
        what=f"the exact variance on {shape[0]} x {shape[1]} nodes (buffer included)",
        remedy="Use a coarser or smaller grid, a smaller buffer, or the variance of draws.",
    )
    held = GridFactor(matrix, shape=shape, boundary=boundary)
    return held.gram_inverse_diagonal(), held.logdet()

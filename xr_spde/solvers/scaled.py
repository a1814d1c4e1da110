"""Symmetric matrices whose rows differ by many orders of magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde.solvers.grid_factor import GridFactor

Float = NDArray[np.float64]


class ScaledFactor:
    """Factor of a symmetric matrix A by that of ``D A D`` with ones on its diagonal.

    No other diagonal scaling makes the condition much smaller (van der Sluis 1969).

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        Positive definite, finite.
    **settings
        Of `GridFactor`.

    Raises
    ------
    SolverError
        If the scaled matrix is singular in working precision too.
    """

    def __init__(self, matrix: sp.csc_array, **settings: Any) -> None:
        self._scale: Float = 1.0 / np.sqrt(matrix.diagonal())
        self._held = GridFactor(self._both_sides(matrix), symmetric=True, **settings)

    def _both_sides(self, matrix: sp.csc_array) -> sp.csc_array:
        """Product with the scale from the left and from the right, on the same pattern."""
        columns = np.repeat(self._scale, np.diff(matrix.indptr))
        data = matrix.data * self._scale[matrix.indices] * columns
        return sp.csc_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)

    def logdet(self) -> float:
        """Natural logarithm of ``det A``."""
        return self._held.logdet() - 2.0 * float(np.log(self._scale).sum())

    def solve(self, b: Float) -> Float:
        """Solution of ``A x = b`` for b of shape (n, K)."""
        scale = self._scale[:, None]
        return np.asarray(scale * self._held.solve(scale * b))

    def inverse_on_pattern(self, *, transposed: bool = False) -> sp.csc_array:
        """Entries of the inverse, which is symmetric, on the pattern of A."""
        return self._both_sides(self._held.inverse_on_pattern())

"""Factor of a precision on a grid much of which is land: only what is water is eliminated."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde.fields.mesh import Mesh
from xr_spde.solvers.multifrontal import WIDTH, MultifrontalFactor

__all__ = ["WaterFactor"]

Float = NDArray[np.float64]


class WaterFactor:
    """Factorised symmetric positive definite matrix that is the identity on land.

    The boxes of :class:`xr_spde.solvers.grid_factor.GridFactor` are the same wherever they lie, and
    land costs what water costs. Here the dissection parts what is water, and its cuts pass through
    straits: with 62 % of land a fifth of the work.

    Parameters
    ----------
    matrix : csc_array (layers * n, layers * n)
        Couples no land.
    mesh : Mesh
        Says what is land.
    layers : int, default 1
        Steps.

    Attributes
    ----------
    width : int
        Right-hand sides solved for at a time.
    nbytes : int
        Memory of the factor in bytes.

    Raises
    ------
    MemoryGuardError, SolverError
        As for :class:`xr_spde.solvers.multifrontal.MultifrontalFactor`.
    """

    width = WIDTH

    def __init__(self, matrix: sp.csc_array, mesh: Mesh, layers: int = 1) -> None:
        self._water = np.flatnonzero(np.tile(mesh.sea, layers))
        inner = sp.csr_array(matrix)[self._water][:, self._water]
        places = np.column_stack(np.divmod(self._water % mesh.size, mesh.shape[1]))
        self._held = MultifrontalFactor(
            inner, places.astype(np.float64), what=f"the factor of {self._water.size} unknowns",
            remedy="Use a coarser grid or fewer steps.",
        )  # fmt: skip
        self._size, self.nbytes = matrix.shape[0], self._held.nbytes

    def solve(self, b: Float) -> Float:
        """Solve for one or more right-hand sides; the bits of a column are its own.

        Parameters
        ----------
        b : ndarray (N,) or (N, K)
            Right-hand sides; (N,) is faster than a single column, with other last bits.

        Returns
        -------
        ndarray, shape of b
        """
        out = np.array(b, dtype=np.float64)
        right = out.reshape(self._size, -1)
        right[self._water] = self._held.solve(right[self._water], width=1 if b.ndim == 1 else WIDTH)
        return out

    def inverse_diagonal(self) -> Float:
        """Diagonal of the inverse (N,), one on land."""
        out = np.ones(self._size)
        out[self._water] = self._held.inverse_diagonal()
        return out

    def logdet(self) -> float:
        """Logarithm of the determinant."""
        return self._held.logdet()

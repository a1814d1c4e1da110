"""CHOLMOD on Q = B'B through scikit-sparse: an independent direct solver, where it is installed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import MissingDependencyError, ParameterError, SolverError
from xr_spde._core.lazyimport import has_module
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]

BLOCK = 32
"""Right-hand sides per call of the library; fixed, so that results are reproducible."""


def load() -> Any:
    """Import the library.

    Returns
    -------
    module

    Raises
    ------
    MissingDependencyError
        If it is not installed, with the command that installs it.
    """
    if not has_module("sksparse"):
        raise MissingDependencyError(
            "solver='cholmod' needs scikit-sparse, which is not installed; type: "
            "pip install scikit-sparse"
        )
    return importlib.import_module("sksparse.cholmod")


def predict_bytes(n: int) -> int:
    """Predict the peak memory of factorising Q for a nine-point matrix of `n` rows.

    Parameters
    ----------
    n : int
        Number of rows.

    Returns
    -------
    int
        Bytes.
    """
    return int(330.0 * n * max(math.log2(n), 1.0))


class CholmodFactor:
    """Cholesky factor of ``Q = B'B``, with which ``B x = b`` is ``Q x = B'b``.

    Q has the squared condition of B: solutions are checked, and refused where that is too much.

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        B, finite float64 values.
    gram_diagonal : callable
        Returns the diagonal of ``Q^-1``.

    Raises
    ------
    MissingDependencyError
        If scikit-sparse is not installed.
    ParameterError
        If the matrix holds non-finite values.
    SolverError
        If Q is singular in double precision, or nearly so.
    """

    def __init__(self, matrix: sp.csc_array, *, gram_diagonal: Callable[[], Float]) -> None:
        library = load()
        if not np.isfinite(matrix.data).all():
            raise ParameterError("matrix holds NaN or infinite values; expected finite numbers")
        self._forward, self._turned = sp.csr_array(matrix), sp.csr_array(matrix.T)
        self._gram_diagonal = gram_diagonal
        try:
            with single_blas_thread():
                self._held = library.cholesky(sp.csc_matrix(self._turned @ self._forward))
        except library.CholmodError as error:
            raise SolverError(
                f"CHOLMOD could not factorise B'B of {self.n} rows: {error}. It is singular in "
                "double precision; expected a larger kappa2, or solver='dissection'"
            ) from error
        # the library tells by copying the factor out: asked once
        self._nbytes = 12 * (int(self._held.L().nnz) + 2 * int(self._forward.nnz))
        x = self.solve(np.ones(self.n))
        left = float(np.abs(self._forward @ x - 1.0).max())
        # written so that NaN fails as well
        if not left < 1e-6:
            raise SolverError(
                f"CHOLMOD leaves a residual of {left:.1e}; expected below 1e-6. B'B is singular in "
                "double precision, or nearly so; expected a larger kappa2, or solver='dissection'"
            )

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self._forward.shape[0])

    @property
    def width(self) -> int:
        """Right-hand sides per call of the library."""
        return BLOCK

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self._nbytes

    def solve(self, b: Float) -> Float:
        """Solution of ``B x = b`` for b of shape (n,) or (n, K)."""
        return self._blocks(b, lambda block: self._held.solve_A(self._turned @ block))

    def solve_transposed(self, b: Float) -> Float:
        """Solution of ``B' x = b``; as :meth:`solve`."""
        return self._blocks(b, lambda block: self._forward @ self._held.solve_A(block))

    def _blocks(self, b: Float, work: Callable[[Float], Float]) -> Float:
        """Solve in blocks of one width, so that a column's bits depend on that column alone."""
        rhs = np.asarray(b, dtype=np.float64)
        if rhs.ndim not in (1, 2) or rhs.shape[0] != self.n:
            raise ParameterError(f"right-hand side has shape {rhs.shape}; expected ({self.n}, K)")
        columns = rhs.reshape(self.n, -1)
        out = np.empty(columns.shape, order="F")
        with single_blas_thread():
            for start in range(0, columns.shape[1], BLOCK):
                part = columns[:, start : start + BLOCK]
                block = np.zeros((self.n, BLOCK), order="F")
                block[:, : part.shape[1]] = part
                out[:, start : start + BLOCK] = work(block)[:, : part.shape[1]]
        return out.reshape(rhs.shape, order="F")

    def logdet(self) -> float:
        """Natural logarithm of ``|det B|``."""
        return 0.5 * float(self._held.logdet())

    def gram_inverse_diagonal(self) -> Float:
        """Diagonal of ``Q^-1`` (n,), from the function given for it."""
        return self._gram_diagonal()

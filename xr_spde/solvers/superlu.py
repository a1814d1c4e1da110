"""SuperLU in symmetric mode: the reference that every other solver is tested against."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU, splu

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]

BLOCK = 16
"""Right-hand sides per call of the library; fixed, so that results are reproducible.

Within 10 % of the fastest width from 24 thousand to 500 thousand rows, for half the memory of 32.
"""


def _factorise(matrix: sp.csc_array, permutation: NDArray[np.intp] | None) -> SuperLU:
    """LU factors of a matrix with a nearly symmetric pattern, without row exchanges."""
    ordered = matrix if permutation is None else matrix[permutation][:, permutation].tocsc()
    try:
        with single_blas_thread():
            return splu(
                ordered,
                permc_spec="MMD_AT_PLUS_A" if permutation is None else "NATURAL",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
    except RuntimeError as error:
        raise SolverError(
            f"SuperLU could not factorise a matrix of {matrix.shape[0]} rows: {error}. The matrix "
            "is singular in double precision; expected a larger kappa2"
        ) from error


def _backward_error(matrix: sp.csc_array, x: Float, b: Float) -> float:
    """Largest residual relative to ``|B| |x| + |b|``; NaN for a solution that is not finite."""
    if not np.isfinite(x).all():
        return float("nan")
    size = abs(matrix) @ np.abs(x) + np.abs(b)
    return float((np.abs(matrix @ x - b) / np.maximum(size, np.finfo(float).tiny)).max())


class SuperLUFactor:
    """LU factors of a sparse matrix by SuperLU.

    Symmetric mode with minimum degree on the pattern of A + A' (or a permutation given by the
    caller) and diagonal pivots: SAR matrices of kappa2 >= 1e-4 and rho <= 7 need no row exchange
    (agreement with the pivoted factorisation is part of the tests).

    Parameters
    ----------
    matrix : sparse matrix (n, n)
        Finite float64 values.
    permutation : ndarray of int (n,), optional
        Order of elimination, for rows and columns alike.
    gram_diagonal : callable, optional
        Returns the diagonal of ``(B'B)^-1``; without it that diagonal is found column by column,
        n solutions in all.

    Raises
    ------
    ParameterError
        If the matrix is not square or holds non-finite values.
    SolverError
        If it is singular, or factorised to non-finite values.
    """

    def __init__(
        self,
        matrix: sp.csc_array,
        *,
        permutation: NDArray[np.intp] | None = None,
        gram_diagonal: Callable[[], Float] | None = None,
    ) -> None:
        matrix = sp.csc_array(matrix, dtype=np.float64)
        if matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
            raise ParameterError(f"matrix has shape {matrix.shape}; expected a square one")
        if not np.isfinite(matrix.data).all():
            raise ParameterError("matrix holds NaN or infinite values; expected finite numbers")
        self._n = int(matrix.shape[0])
        self._permutation = permutation
        self._places = None if permutation is None else np.argsort(permutation)
        self._lu = _factorise(matrix, permutation)
        self._fill = int(self._lu.nnz)
        self._gram_diagonal = gram_diagonal
        self._lock = threading.Lock()
        self._logdet: float | None = None
        self._check(matrix)

    def _check(self, matrix: sp.csc_array) -> None:
        """Solve once and refuse a factorisation that lost the matrix."""
        ones = np.ones(self._n)
        x = self._single(ones)
        residual = _backward_error(matrix, x, ones)
        # ones excite the smoothest mode, that of the smallest eigenvalue of a SAR matrix
        growth = float(np.abs(x).max() * abs(matrix).sum(axis=1).max())
        if not (residual < 1e-6 and growth < 1e13):
            raise SolverError(
                f"the factorisation leaves a relative residual of {residual:.1e} and a growth of "
                f"{growth:.1e}; expected below 1e-6 and 1e13. The matrix is singular in double "
                "precision, or nearly so; expected kappa2 of at least 1e-10 and rho up to 100"
            )

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._n

    @property
    def width(self) -> int:
        """Right-hand sides per call of the library."""
        return BLOCK

    @property
    def nbytes(self) -> int:
        """Memory in bytes: values and indices, twice once the library has copied out U."""
        copies = 1 if self._logdet is None else 2
        return copies * 12 * self._fill + 64 * self._n

    @property
    def fill(self) -> int:
        """Number of stored entries of L and U together."""
        return self._fill

    def solve(self, b: Float) -> Float:
        """Solution of ``B x = b``.

        Parameters
        ----------
        b : ndarray (n,) or (n, K)
            Right-hand sides. Columns that are contiguous in memory are fastest.

        Returns
        -------
        ndarray, shape of b
            Column-contiguous.
        """
        return self._solve(b, "N")

    def solve_transposed(self, b: Float) -> Float:
        """Solution of ``B' x = b``; as :meth:`solve`."""
        return self._solve(b, "T")

    def _solve(self, b: Float, trans: Literal["N", "T"]) -> Float:
        """Solve in blocks of exactly BLOCK columns, the last one filled up with zeros.

        With one block width and one BLAS thread, every column goes through the same sequence of
        operations, so its bits depend neither on its position nor on its neighbours.
        """
        rhs = np.asarray(b, dtype=np.float64)
        if rhs.ndim not in (1, 2) or rhs.shape[0] != self._n:
            raise ParameterError(f"right-hand side has shape {rhs.shape}; expected ({self._n}, K)")
        columns = rhs.reshape(self._n, -1)
        count = columns.shape[1]
        with single_blas_thread():
            if count <= BLOCK:
                return self._solve_block(columns, trans).reshape(rhs.shape, order="F")
            out = np.empty(columns.shape, order="F")
            for start in range(0, count, BLOCK):
                part = slice(start, start + BLOCK)
                out[:, part] = self._solve_block(columns[:, part], trans)
        return out.reshape(rhs.shape, order="F")

    def _solve_block(self, columns: Float, trans: Literal["N", "T"]) -> Float:
        """Solve for at most BLOCK columns; the library copies what it is given."""
        width, order = columns.shape[1], self._permutation
        block = columns
        if width < BLOCK:
            block = np.zeros((self._n, BLOCK), order="F")
            block[:, :width] = columns
        if order is not None:
            block = np.take(block.T, order, axis=1).T
        # the library's stubs forget the second argument
        solved: Float = self._lu.solve(block, trans)[:, :width]  # type: ignore[call-overload]
        if self._places is not None:
            for column in solved.T:  # one at a time: no second block of fresh memory
                column[:] = column[self._places]
        return solved

    def _single(self, b: Float) -> Float:
        """Solve for one right-hand side without filling up a block."""
        order = slice(None) if self._permutation is None else self._permutation
        x = np.empty(self._n)
        x[order] = self._lu.solve(b[order])
        return x

    def logdet(self) -> float:
        """Natural logarithm of ``|det B|``, from the diagonal of U (L has a unit diagonal).

        The library copies L and U out for this and keeps the copies as long as the factor.
        """
        with self._lock:
            if self._logdet is None:
                self._logdet = float(np.log(np.abs(self._lu.U.diagonal())).sum())
            return self._logdet

    def gram_inverse_diagonal(self) -> Float:
        """Diagonal of ``(B'B)^-1`` (n,), the row sums of squares of ``B^-1``."""
        if self._gram_diagonal is not None:
            return self._gram_diagonal()
        total = np.zeros(self._n)
        for start in range(0, self._n, BLOCK):
            columns = np.arange(start, min(start + BLOCK, self._n))
            unit = np.zeros((self._n, columns.size), order="F")
            unit[columns, columns - start] = 1.0
            total += (self.solve(unit) ** 2).sum(axis=1)
        return total

    def residual(self, matrix: sp.csc_array, b: Float) -> float:
        """Largest residual of one solution relative to ``|B| |x| + |b|`` (componentwise).

        Parameters
        ----------
        matrix : sparse matrix (n, n)
            The matrix that was factorised.
        b : ndarray (n,)
            Right-hand side.

        Returns
        -------
        float
            About 1e-15 for a stable factorisation; NaN if the solution is not finite.
        """
        return _backward_error(matrix, self._single(b), b)

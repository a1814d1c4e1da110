"""Direct solver for the matrix of a stencil on a grid: batched nested dissection.

One class for general and for symmetric positive definite matrices, in float64 or float32, with
numpy on the processor or cupy on a graphics card.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde.solvers import card
from xr_spde.solvers.grid_cut import grid
from xr_spde.solvers.grid_fronts import Elimination, checked, places
from xr_spde.solvers.grid_gram import gram_diagonal
from xr_spde.solvers.grid_memory import WORKSPACE, block_width, predict
from xr_spde.solvers.grid_sweeps import Sweeps
from xr_spde.solvers.grid_tree import grow
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]

_TILE = 1024


class GridFactor:
    """Factorised matrix of a stencil on a rectangle, cylinder or torus.

    Row exchanges happen among the pivots of one box of the tree only, up to some hundred nodes;
    the first solution is checked against the matrix, so that a loss of accuracy is an error.

    Parameters
    ----------
    matrix : sparse matrix (layers * ny * nx, layers * ny * nx)
        Finite real values; node ``(j, i)`` of layer t is row ``(t * ny + j) * nx + i``.
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic.
    reach : int, default 1
        Largest distance of coupled nodes, in rows or columns: 1 for B, 2 for B'B.
    symmetric : bool, default False
        Whether the matrix is symmetric positive definite: less work and two thirds of the memory.
        Half the matrix is read then, and one that is not symmetric is refused by the check.
    dtype : {float64, float32}
        Of the factor and of solutions; see :meth:`error` and :meth:`solve_refined`.
    leaf : int, optional
        Largest box that is not cut; the default is the fastest measured.
    layers : int, default 1
        Unknowns of every node, such as times.
    xp : module, default numpy
        numpy, or cupy: the factor is on the card then.

    Attributes
    ----------
    dtype : dtype
        Of the factor.
    memory : Memory
        What it was predicted to take.

    Raises
    ------
    ParameterError
        If matrix and shape do not fit, a value is not finite, or nodes further apart are coupled.
    UnknownNameError
        For an unknown boundary.
    MemoryGuardError
        If it is predicted not to fit in memory; nothing has been allocated then.
    SolverError
        If the matrix is singular in working precision, or not positive definite.
    """

    def __init__(
        self,
        matrix: sp.csc_array,
        *,
        shape: tuple[int, int],
        boundary: str,
        reach: int = 1,
        symmetric: bool = False,
        dtype: Any = np.float64,
        leaf: int | None = None,
        layers: int = 1,
        xp: types.ModuleType = np,
    ) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float64, np.float32):
            raise ParameterError(f"dtype is {self.dtype}; expected float64 or float32")
        made = grid(shape, boundary=boundary, reach=reach, leaf=leaf, layers=layers)
        matrix = checked(matrix, made)
        self._symmetric = symmetric
        self.memory = predict(made, symmetric=symmetric, dtype=self.dtype, host=xp is np)
        self._xp = xp
        self._guard(self.memory.peak, f"the factor of a grid of {shape[0]} x {shape[1]} nodes")
        self._tree = grow(made)
        self._where = places(matrix, made)
        self._pattern = matrix.indptr, matrix.indices
        self._block = block_width(self._tree.n, self.dtype, host=xp is np)
        workspace = WORKSPACE[xp is np]
        elimination = Elimination(self._tree, xp, self.dtype, symmetric, workspace)
        with single_blas_thread(), card.exhausted(xp, "factorising", self.memory.peak):
            blocks = elimination.run(self._where, matrix.data)
        self._sign, self._logdet = elimination.sign, elimination.logdet
        index = [[xp.asarray(batch.index) for batch in level] for level in self._tree.levels]
        self._sweeps = Sweeps(
            self._tree, blocks, index, xp, self.dtype, workspace // 4, elimination.scale
        )
        self._order, self._place = xp.asarray(self._tree.order), xp.asarray(self._tree.place)
        self._check(matrix)

    def _check(self, matrix: sp.csc_array) -> None:
        """Solve once and refuse a factorisation that lost the matrix."""
        ones = np.ones(self.n)
        x = self.solve(ones).astype(np.float64)
        eps = float(np.finfo(self.dtype).eps)
        magnitude = abs(matrix)
        error = float((np.abs(matrix @ x - 1.0) / (magnitude @ np.abs(x) + 1.0)).max())
        # ones excite the smoothest mode, that of the smallest eigenvalue of a SAR matrix
        growth = float(np.abs(x).max() * magnitude.sum(axis=1).max())
        # written so that NaN fails as well
        if not (error < 1e4 * eps and growth < 0.1 / eps):
            raise SolverError(
                f"the factorisation in {self.dtype} leaves a relative residual of {error:.1e} and "
                f"a growth of {growth:.1e}; expected below {1e4 * eps:.1e} and {0.1 / eps:.1e}. "
                "The matrix is singular in that precision, or nearly so, or not symmetric where "
                "symmetric=True; expected a larger kappa2, or float64"
            )

    def _guard(self, needed: int, what: str) -> None:
        """Refuse what would not fit in memory."""
        remedy = "Use a coarser or smaller grid, a smaller buffer, or float32."
        card.check(self._xp, needed, what=f"{what} (buffer included)", remedy=remedy)

    def _host(self, array: Any) -> Any:
        """Return an array as one of numpy."""
        return array if self._xp is np else array.get()

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._tree.n

    @property
    def nbytes(self) -> int:
        """Memory of the blocks in bytes."""
        return sum(blocks.nbytes for level in self._sweeps.blocks for blocks in level)

    @property
    def width(self) -> int:
        """Right-hand sides solved for at a time; fewer take as long."""
        return self._block

    def solve(self, b: Any) -> Any:
        """Solution of ``A x = b``.

        Columns are solved for in blocks of one width, the last one filled up with zeros, so that
        the bits of a column depend neither on its place nor on its neighbours. A single
        right-hand side (n,) takes products with vectors: faster, and other last bits.

        Parameters
        ----------
        b : array (n,) or (n, K)
            Right-hand sides, an array of `xp` or of numpy. Those of numpy go to a card in one
            piece, and so do the solutions back. Contiguous rows are fastest.

        Returns
        -------
        array, shape of b
            Where b lives, in the dtype of the factor, contiguous like b.

        Raises
        ------
        ParameterError
            For another shape.
        MemoryGuardError
            If a graphics card runs out of memory; says how many right-hand sides would fit.
        """
        return self._solve(b, transposed=False)

    def solve_transposed(self, b: Any) -> Any:
        """Solution of ``A' x = b``; as :meth:`solve`."""
        return self._solve(b, transposed=True)

    def _solve(self, b: Any, *, transposed: bool) -> Any:
        xp = self._xp
        away = xp is not np and isinstance(b, np.ndarray)
        rhs = b if away else xp.asarray(b)
        if rhs.ndim not in (1, 2) or rhs.shape[0] != self.n:
            raise ParameterError(f"right-hand side has shape {rhs.shape}; expected ({self.n}, K)")
        count = 1 if rhs.ndim == 1 else rhs.shape[1]
        each = 2 * self.n * self.dtype.itemsize
        what = f"solving for {count} right-hand sides at once"
        trap = card.exhausted(xp, what, self.memory.solving, count=count, each=each)
        with single_blas_thread(), trap:
            if away:
                there = card.to_card(xp, rhs, self.dtype)
                return card.to_host(self._solve_there(there, transposed=transposed))
            return self._solve_there(rhs, transposed=transposed)

    def _solve_there(self, rhs: Any, *, transposed: bool) -> Any:
        """Solve where the factor is."""
        xp = self._xp
        if rhs.ndim == 1:
            x = rhs[self._order].astype(self.dtype, copy=False)
            self._sweeps.solve(x[:, None], transposed=transposed)
            return x[self._place]
        by_column = not rhs.flags.c_contiguous
        out = xp.empty(rhs.shape, dtype=self.dtype, order="F" if by_column else "C")
        x = xp.empty((self.n, self._block), dtype=self.dtype)
        # a tile of rows stays in the cache; on a card, tiles only take launches
        step = _TILE if xp is np else self.n
        tiles = [slice(first, first + step) for first in range(0, self.n, step)]
        for start in range(0, rhs.shape[1], self._block):
            part = slice(start, min(start + self._block, rhs.shape[1]))
            used = x[:, : part.stop - start]
            x[:, part.stop - start :] = 0
            for tile in tiles:
                used[self._place[tile]] = rhs[tile, part]
            self._sweeps.solve(x, transposed=transposed)
            for tile in tiles:
                out[tile, part] = used[self._place[tile]]
        return out

    def solve_refined(
        self, matrix: sp.csc_array, b: ArrayLike, *, steps: int = 1, transposed: bool = False
    ) -> Float:
        """Solution in float64 from a float32 factor, by iterative refinement.

        Each step solves for the residual, which is computed in float64, and gains about as many
        digits as the factor has: ``x += A^-1 (b - A x)``.

        Parameters
        ----------
        matrix : sparse matrix (n, n)
            The matrix that was factorised, in float64.
        b : array_like (n,) or (n, K)
            Right-hand sides on the host.
        steps : int, default 1
            Number of corrections; fewer once they gain nothing.
        transposed : bool, default False
            Whether to solve with the transposed matrix.

        Returns
        -------
        ndarray, shape of b
            In float64.

        Raises
        ------
        ParameterError
            For another shape.
        SolverError
            If the first solution does not leave a tenth of the right-hand side at most.
        """
        rhs = np.asarray(b, dtype=np.float64)
        operator = matrix.T if transposed else matrix
        x: Float = self._solve(rhs, transposed=transposed).astype(np.float64)
        size = float(np.abs(rhs).max(initial=0.0))
        for step in range(steps):
            residual = rhs - operator @ x
            left = float(np.abs(residual).max(initial=0.0))
            if step > 0 and not left <= 0.1 * size:
                break  # as small as rounding lets it be
            if not left <= 0.1 * size:
                raise SolverError(
                    f"refinement in {self.dtype} does not converge: the residual is {left:.1e} "
                    f"after {size:.1e}; expected a tenth at most. Factorise in float64"
                )
            size = left
            x += self._solve(residual, transposed=transposed)
        return x

    def error(self, matrix: sp.csc_array) -> float:
        """Error of solutions for white noise, relative to their size (root mean square).

        Parameters
        ----------
        matrix : sparse matrix (n, n)
            The matrix that was factorised, in float64.

        Returns
        -------
        float
            From one step of refinement for one fixed right-hand side.
        """
        noise = np.random.Generator(np.random.SFC64(0)).standard_normal(self.n)
        x = self.solve(noise).astype(np.float64)
        correction = self.solve(noise - matrix @ x)
        return float(np.linalg.norm(correction) / np.linalg.norm(x))

    def slogdet(self) -> tuple[float, float]:
        """Sign of the determinant and natural logarithm of its absolute value."""
        return self._sign, self._logdet

    def logdet(self) -> float:
        """Natural logarithm of ``|det A|``."""
        return self._logdet

    @contextmanager
    def _inverting(self, needed: int) -> Iterator[None]:
        """Hold BLAS to one thread, and explain a card that runs out of memory."""
        with single_blas_thread(), card.exhausted(self._xp, "inverting", needed):
            yield

    def sample(self, noise: Float) -> Float:
        """Draw from the Gaussian whose precision is the matrix, from the root of the tree down.

        Parameters
        ----------
        noise : ndarray (n,) or (n, K)
            White noise z on the host.

        Returns
        -------
        ndarray, shape of noise
            Of covariance ``A^-1``; the bits of a column do not depend on the others.

        Raises
        ------
        ParameterError
            For another shape, or a matrix that was not declared symmetric.
        """
        if not self._symmetric or noise.ndim not in (1, 2) or len(noise) != self.n:
            raise ParameterError(
                f"noise has shape {noise.shape}; expected ({self.n}, K) and symmetric=True"
            )
        xp, columns = self._xp, noise.reshape(self.n, -1)
        x, out = xp.zeros((self.n, self._block), dtype=self.dtype), np.empty(columns.shape)
        with single_blas_thread():
            for start in range(0, columns.shape[1], self._block):
                part = slice(start, min(start + self._block, columns.shape[1]))
                x[:, part.stop - start :] = 0
                x[:, : part.stop - start] = xp.asarray(columns[:, part])[self._order]
                self._sweeps.sample(x)
                out[:, part] = self._host(x[self._place, : part.stop - start])
        return out.reshape(noise.shape)

    def inverse_diagonal(self) -> Float:
        """Diagonal of ``A^-1`` by selected inversion.

        Returns
        -------
        ndarray (n,)
            In float64 with the accuracy of the factor.
        """
        with self._inverting(self.memory.inverting):
            diagonal, _ = self._sweeps.inverse(None, transposed=False)
        placed: Float = self._host(diagonal)[self._tree.place].astype(np.float64)
        return placed

    def inverse_on_pattern(self, *, transposed: bool = False) -> sp.csc_array:
        """Entries of ``A^-1`` where the matrix has stored entries, by selected inversion.

        The gradient of ``log|det A|`` by the entry ``A_ij`` is ``(A^-1)_ji``: the transposed one.

        Parameters
        ----------
        transposed : bool, default False
            Return entries of the transposed inverse instead.

        Returns
        -------
        scipy.sparse.csc_array (n, n)
            With the pattern of the matrix, entry by entry; in float64 with the accuracy of the
            factor.
        """
        with self._inverting(self.memory.inverting):
            _, found = self._sweeps.inverse(self._where, transposed=transposed)
        values = np.empty(self._where.source.size)
        values[self._where.source] = self._host(found)
        pointers, indices = self._pattern
        return sp.csc_array((values, indices.copy(), pointers.copy()), shape=(self.n, self.n))

    def gram_inverse_diagonal(self) -> Float:
        """Diagonal of ``(A'A)^-1`` (n,), with the accuracy of the factor of A.

        Returns
        -------
        ndarray (n,)
            In float64: the variances of ``A^-1 e`` for white noise e.

        Raises
        ------
        MemoryGuardError
            If the workspace is predicted not to fit in memory; nothing has been allocated then.
        """
        ny, nx = self._tree.grid.shape
        self._guard(self.memory.squaring, f"the exact variance on {ny} x {nx} nodes")
        with self._inverting(self.memory.squaring):
            diagonal = gram_diagonal(self._sweeps)
        placed: Float = self._host(diagonal)[self._tree.place].astype(np.float64)
        return placed

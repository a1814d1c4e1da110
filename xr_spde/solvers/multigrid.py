"""Iterative solver for the matrix of a nine-point stencil on grids of many million nodes."""

from __future__ import annotations

import logging
import math
import threading
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError, unknown
from xr_spde.solvers import card
from xr_spde.solvers.grid_cut import PERIODIC, grid
from xr_spde.solvers.grid_memory import predict
from xr_spde.solvers.multigrid_cycle import Hierarchy
from xr_spde.solvers.multigrid_krylov import Operator, gmres
from xr_spde.solvers.multigrid_level import Planes, plane_views
from xr_spde.solvers.multigrid_stencil import BLOCK_NODES, Float, checked, from_matrix, transpose
from xr_spde.solvers.threads import single_blas_thread

Array = NDArray[Any]

LOGGER = logging.getLogger("xr_spde.solvers")

COARSEST = 120_000
"""Most nodes of the coarsest grid, which the dissection solver takes."""

TOLERANCE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-5}
"""Default norm of the residual relative to that of the right-hand side."""

_STEPS = 12
# vectors in single precision gain no more than about six digits before a residual in double
_DROP = 1e-5
_SAFETY = 0.8
_STALLED = 0.5


@dataclass(frozen=True)
class Convergence:
    """How the iteration for one right-hand side ended.

    Parameters
    ----------
    iterations : int
        Cycles over all grids.
    residual : float
        Euclidean norm of the residual in float64, relative to that of the right-hand side.
    """

    iterations: int
    residual: float


def predict_bytes(
    shape: tuple[int, int],
    *,
    boundary: str,
    transposed: bool = False,
    coarsest: int = COARSEST,
    host: bool = True,
) -> int:
    """Peak memory of setting up the solver and of one solution, weights included.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic.
    transposed : bool, default False
        Whether systems with the transposed matrix are solved as well.
    coarsest : int
        As in :class:`MultigridFactor`.
    host : bool, default True
        Whether it is on the processor. On a card lines take more, and products are whole arrays;
        what is set up is set up on the host, where it takes as much as there.

    Returns
    -------
    int
        Upper bound in bytes; solutions from several threads at once take their workspace each.
    """
    n = shape[0] * shape[1]
    ny, nx, kept, extra = *shape, 0, 0
    while ny * nx > coarsest:
        kept += 4 * (9 + (6 if host else 10) + sum(PERIODIC[boundary])) * ny * nx
        extra += 4 * (ny + 2) * (nx + 4) + (0 if ny * nx == n else 28 * ny * nx)
        ny, nx = (ny + 1) // 2, (nx + 1) // 2
    made = grid((ny, nx), boundary=boundary)
    direct = predict(made, symmetric=False, dtype=np.float64, host=host)
    hierarchy = kept + direct.factor + direct.index
    solving = extra + 4 * n * (2 * _STEPS + 3) + (16 if host else 56) * n
    weights = 72 * n
    if boundary == "paper":
        weights *= 2
    # coarse weights, lines in the making, and the products of some rows
    building = max(36 * n + 600 * min(n, BLOCK_NODES), direct.factoring)
    if transposed:
        return 2 * (weights + hierarchy) + max(building, solving)
    return weights + hierarchy + max(building, solving)


def _guard(
    shape: tuple[int, int], boundary: str, coarsest: int, *, given: int = 0, xp: Any = np
) -> None:
    """Refuse a grid that would not fit in memory, `given` bytes of weights being there already."""
    if boundary not in PERIODIC:
        raise unknown("boundary", boundary, PERIODIC)
    host = xp is np
    card.check(
        xp,
        predict_bytes(shape, boundary=boundary, coarsest=coarsest, host=host) - given * host,
        what=f"the multigrid solver of a grid of {shape[0]} x {shape[1]} nodes (buffer included)",
        remedy="Use a coarser or smaller grid or a smaller buffer.",
    )


class MultigridFactor:
    """Solver for a nine-point stencil with memory and time proportional to the nodes.

    Flexible GMRES in single precision, preconditioned by a multigrid cycle: full coarsening with
    Galerkin operators, lines in either direction as smoothers, a direct solver on the coarsest
    grid. Residuals are formed in float64, and the iteration is repeated on them until they are
    below `tol`. It is a solver alone: no factor, hence no determinant and no variances.

    With constant parameters the error of a field is at most ``tol / kappa2`` in norm, where the
    field itself has the norm ``1 / sqrt(4 pi kappa2)`` for white noise of norm one: with kappa2 =
    1e-5, tol = 1e-8 leaves a relative error of 1e-5 at most, and 1e-5 leaves 1e-2. What is left
    is rough, though: against the direct solver the relative error was about tol or below, for
    kappa2 from 1e-5 to 0.01 and rho up to 10 on 256 x 256 nodes.

    Columns are solved for one after the other, each with an iteration of its own: its bits depend
    on that column alone. Several threads may solve at once, each with a workspace of its own.

    Parameters
    ----------
    matrix : ndarray (9, ny, nx) or sparse matrix (ny * nx, ny * nx)
        Weights in the order of :data:`xr_spde.fields.stencil.OFFSETS`, kept without a copy where
        they are float64, or the matrix assembled from them. Centres are positive.
    shape : tuple of int, optional
        ``(ny, nx)``; needed with a sparse matrix.
    boundary : {"cylinder", "plane", "torus", "paper"}
        As in :func:`xr_spde.fields.stencil.periodicity`.
    dtype : {float64, float32}
        Of solutions.
    tol : float, optional
        Norm of the residual relative to that of the right-hand side, before a solution is rounded
        to `dtype`: by default 1e-8, or 1e-5 for float32.
    max_iterations : int, default 200
        Most cycles for one right-hand side.
    coarsest : int, optional
        Most nodes of the coarsest grid.
    xp : module, default numpy
        numpy, or cupy: grids and iteration are on the card then, set up on the host. Only the
        small system of the Krylov method and norms come back.

    Attributes
    ----------
    convergence : tuple of Convergence
        Of the columns of the last solution, that of any thread.

    Raises
    ------
    ParameterError
        For arguments that do not fit, non-finite weights or a centre that is not positive.
    UnknownNameError
        For an unknown boundary.
    MemoryGuardError
        If it is predicted not to fit in memory; nothing has been allocated then.
    SolverError
        If the matrix is singular on the coarsest grid.
    """

    def __init__(
        self,
        matrix: Any,
        *,
        boundary: str,
        shape: tuple[int, int] | None = None,
        dtype: Any = np.float64,
        tol: float | None = None,
        max_iterations: int = 200,
        coarsest: int = COARSEST,
        xp: types.ModuleType = np,
    ) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in TOLERANCE:
            raise ParameterError(f"dtype is {self.dtype}; expected float64 or float32")
        self.tol = TOLERANCE[self.dtype] if tol is None else float(tol)
        if not 1e-14 <= self.tol < 1.0:
            raise ParameterError(f"tol is {tol!r}; expected a number from 1e-14 to below 1")
        if max_iterations < 1 or coarsest < 1:
            raise ParameterError(
                f"max_iterations is {max_iterations}, coarsest is {coarsest}; expected at least 1"
            )
        if sp.issparse(matrix):
            if shape is None:
                raise ParameterError("shape was not given; expected (ny, nx) with a sparse matrix")
            _guard(shape, boundary, coarsest, xp=xp)
            matrix = from_matrix(matrix, shape, boundary)
        weights, periodic = checked(matrix, boundary)
        self.shape = (int(weights.shape[1]), int(weights.shape[2]))
        if shape is not None and tuple(shape) != self.shape:
            raise ParameterError(f"shape is {shape}, that of the weights {self.shape}")
        _guard(self.shape, boundary, coarsest, given=weights.nbytes, xp=xp)
        self._xp: Any = xp
        self.convergence: tuple[Convergence, ...] = ()
        self._boundary, self._lock = boundary, threading.Lock()
        self._max_iterations, self._coarsest = max_iterations, coarsest
        self._forward = self._prepare(weights, periodic)
        self._backward: tuple[Operator, Hierarchy] | None = None

    def _prepare(self, weights: Float, periodic: tuple[bool, bool]) -> tuple[Operator, Hierarchy]:
        xp = self._xp
        needed = self._predicted if xp is not np else 0
        with single_blas_thread(), card.exhausted(xp, "setting up multigrid", needed):
            hierarchy = Hierarchy(weights, periodic, np.float32, self._coarsest, xp)
            return Operator(weights, periodic, xp), hierarchy

    @property
    def _predicted(self) -> int:
        host = self._xp is np
        return predict_bytes(
            self.shape, boundary=self._boundary, coarsest=self._coarsest, host=host
        )

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.shape[0] * self.shape[1]

    @property
    def width(self) -> int:
        """Right-hand sides that are solved for at a time: one."""
        return 1

    @property
    def nbytes(self) -> int:
        """Memory of weights and grids in bytes, those of the transposed matrix once they exist."""
        held = [self._forward] + ([] if self._backward is None else [self._backward])
        return sum(operator.weights.nbytes + grids.nbytes for operator, grids in held)

    def solve(self, b: Any) -> Any:
        """Solution of ``B x = b``.

        Parameters
        ----------
        b : array (n,) or (n, K)
            Right-hand sides, of `xp` or of numpy. Those of numpy go to a card in one piece, and so
            do the solutions back.

        Returns
        -------
        array, shape of b
            Where b lives; column-contiguous.

        Raises
        ------
        ParameterError
            For another shape or non-finite values.
        SolverError
            If the residual of a column does not come below `tol`.
        """
        return self._solve(b, *self._forward)

    def solve_transposed(self, b: Any) -> Any:
        """Solution of ``B' x = b``; as :meth:`solve`.

        The first call sets up and keeps the grids of the transposed matrix: as much memory again.
        """
        with self._lock:
            if self._backward is None:
                operator, _ = self._forward
                _guard(self.shape, self._boundary, self._coarsest, xp=self._xp)
                weights = operator.weights
                weights = weights if self._xp is np else weights.get()
                weights = transpose(weights, operator.periodic)
                self._backward = self._prepare(weights, operator.periodic)
        return self._solve(b, *self._backward)

    def _solve(self, b: Any, operator: Operator, grids: Hierarchy) -> Any:
        xp = self._xp
        away = xp is not np and isinstance(b, np.ndarray)
        rhs = b if away else xp.asarray(b)
        if rhs.ndim not in (1, 2) or rhs.shape[0] != self.n:
            raise ParameterError(f"right-hand side has shape {rhs.shape}; expected ({self.n}, K)")
        count = 1 if rhs.ndim == 1 else rhs.shape[1]
        what = f"solving for {count} right-hand sides at once"
        # those that are given, and the solutions
        each, fixed = 2 * 8 * self.n, self._predicted if xp is not np else 0
        with single_blas_thread(), card.exhausted(xp, what, fixed, count=count, each=each):
            there = card.to_card(xp, rhs, np.dtype(np.float64)) if away else rhs
            out = self._columns(there.reshape(self.n, -1), operator, grids)
            out = out.reshape(rhs.shape, order="F")
            return card.to_host(out) if away else out

    def _columns(self, columns: Array, operator: Operator, grids: Hierarchy) -> Array:
        """Solve for one column (n, K) after the other."""
        xp = self._xp
        out: Array = xp.empty(columns.shape, dtype=self.dtype, order="F")
        work = [level.padded() for level in grids.levels]
        reports = []
        for place in range(columns.shape[1]):
            column = xp.ascontiguousarray(columns[:, place], dtype=np.float64)
            found, report = self._column(column.reshape(self.shape), operator, grids, work)
            out[:, place] = found.ravel()
            reports.append(report)
            LOGGER.info(
                "multigrid, %d x %d: column %d took %d cycles to a relative residual of %.1e",
                *(*self.shape, place, report.iterations, report.residual),
            )
        self.convergence = tuple(reports)
        return out

    def _column(
        self, b: Float, operator: Operator, grids: Hierarchy, work: list[Planes]
    ) -> tuple[Float, Convergence]:
        """Solve for one right-hand side (ny, nx)."""
        xp = self._xp
        x = xp.zeros(self.shape)
        size = math.sqrt(_square(b, xp))
        if not math.isfinite(size):
            raise ParameterError("right-hand side holds NaN, infinite or huge values")
        if size == 0.0:
            return x, Convergence(0, 0.0)
        flat, count, left = xp.empty(self.n, np.float32), 0, 1.0
        operator.residual(b, x, size, flat)

        def cycle(vector: Array) -> Array:
            return grids.solve(vector, work)

        while left > self.tol:
            steps = min(_STEPS, self._max_iterations - count)
            target = max(_DROP, _SAFETY * self.tol / left)
            parts = gmres(flat, left, cycle, operator.apply, target=target, steps=steps, xp=xp)
            for factor, part in parts:
                for p, plane in enumerate(plane_views(part, self.shape)):
                    x[:, p::2] += (factor * size) * plane
            count += len(parts)
            before, left = left, operator.residual(b, x, size, flat)
            LOGGER.debug("multigrid: relative residual %.1e after %d cycles", left, count)
            # written so that NaN fails as well
            if not (
                left <= self.tol or (left < _STALLED * before and count < self._max_iterations)
            ):
                raise SolverError(
                    f"multigrid left a relative residual of {left:.1e} after {count} cycles; "
                    f"expected {self.tol:.1e}. Try a larger max_iterations (now "
                    f"{self._max_iterations}), a larger tol or kappa2, or, where memory allows, "
                    'solver="dissection"'
                )
        return x, Convergence(count, left)

    def logdet(self) -> float:
        """Raise a SolverError: there is no factor to take the determinant from."""
        raise SolverError(
            "multigrid gives solutions, not the log-determinant; expected "
            'solver="dissection", or a smaller grid'
        )

    def gram_inverse_diagonal(self) -> Float:
        """Raise a SolverError: there is no factor to take variances from."""
        raise SolverError(
            "multigrid gives solutions, not the diagonal of (B'B)^-1; expected variances from "
            'draws, or solver="dissection" on a smaller grid'
        )


def _square(b: Float, xp: Any) -> float:
    """Sum of squares (ny, nx)."""
    if xp is not np:
        return float(xp.vdot(b, b))
    return sum(float(row @ row) for row in b)

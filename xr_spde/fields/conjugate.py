"""Conjugate gradients for several right-hand sides, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import SolverError

__all__ = ["conjugate_gradients"]

Float = NDArray[np.float64]


def conjugate_gradients(
    apply: Callable[[Float], Float],
    precondition: Callable[[Float], Float],
    right: Float,
    *,
    tol: float,
    max_iterations: int,
    what: str,
    remedy: str,
) -> tuple[Float, int]:
    """Solve for all columns side by side, each with its own coefficients.

    Parameters
    ----------
    apply : callable
        Product of the matrix, symmetric and positive definite, with (N, K).
    precondition : callable
        Rough solution, symmetric and positive definite as well.
    right : ndarray (N, K)
        Right-hand sides.
    tol : float
        Residual relative to the right-hand side, in the metric of the preconditioner.
    max_iterations : int
        Most of them.
    what, remedy : str
        For the message: what is solved, and what to do where that fails.

    Returns
    -------
    x : ndarray (N, K)
        Solutions; a column does not depend on the others, bit for bit, where those of `apply` and
        `precondition` do not.
    iterations : int

    Raises
    ------
    SolverError
        If `tol` is not reached.
    """
    x = np.zeros_like(right)
    r = right.copy()
    z = precondition(r)
    p, rho = z.copy(), _dots(r, z)
    start = np.maximum(rho, 1e-300)
    for iteration in range(1, max_iterations + 1):
        q = apply(p)
        # a column that is done stands still
        moving = rho > tol**2 * start
        step = np.where(moving, rho / np.where(moving, _dots(p, q), 1.0), 0.0)
        x += step * p
        r -= step * q
        z = precondition(r)
        new = _dots(r, z)
        if (new <= tol**2 * start).all():
            return x, iteration
        p = z + np.where(moving, new / np.where(moving, rho, 1.0), 0.0) * p
        rho = np.where(moving, new, rho)
    worst = float(np.sqrt((rho / start).max()))
    raise SolverError(
        f"{what} leave {worst:.1e} after {max_iterations} iterations, expected {tol:.1e}; {remedy}"
    )


def _dots(a: Float, b: Float) -> Float:
    """Products of columns, each summed in the same order whatever stands beside it."""
    pairs = zip(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), strict=True)
    return np.array([np.sum(one * other) for one, other in pairs])

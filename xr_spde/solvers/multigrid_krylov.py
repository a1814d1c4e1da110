"""Krylov iteration in single precision around a cycle, corrected by residuals in double."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.solvers.multigrid_cycle import CHUNK, dot
from xr_spde.solvers.multigrid_level import plane_views
from xr_spde.solvers.multigrid_stencil import OFFSETS, Float, Periodic

Array = NDArray[Any]
Single = NDArray[np.float32]

_STRIP_NODES = 2**14


class Operator:
    """Product with a nine-point matrix in float64, in strips of rows that fit into a cache.

    Parameters
    ----------
    weights : ndarray (9, ny, nx)
        Of the matrix; kept without a copy.
    periodic : tuple of bool
        Whether y and x are periodic.
    xp : module, default numpy
        numpy, or cupy: the weights go to the card then.
    """

    def __init__(self, weights: Float, periodic: Periodic, xp: Any = np) -> None:
        self.weights, self.periodic, self._xp = xp.asarray(weights), periodic, xp
        self.shape = ny, nx = weights.shape[1], weights.shape[2]
        self._step = max(1, min(ny, _STRIP_NODES // nx)) if xp is np else ny

    def _strips(self, put: Callable[[Float, slice], None]) -> Iterator[tuple[slice, Float]]:
        """Rows, and the nodes in and around them, which `put` writes."""
        ny, nx = self.shape
        buffer = self._xp.zeros((self._step + 2, nx + 2))
        for start in range(0, ny, self._step):
            stop = min(start + self._step, ny)
            near = buffer[: stop - start + 2]
            put(near[1:-1, 1:-1], slice(start, stop))
            for line, j in ((near[:1], start - 1), (near[-1:], stop)):
                if 0 <= j < ny or self.periodic[0]:
                    put(line[:, 1:-1], slice(j % ny, j % ny + 1))
                else:
                    line[...] = 0.0
            if self.periodic[1]:
                near[:, 0], near[:, -1] = near[:, -2], near[:, 1]
            yield slice(start, stop), near

    def _product(self, rows: slice, near: Float) -> Float:
        """Product for some rows (len, nx) from the nodes in and around them."""
        height, nx, xp = rows.stop - rows.start, self.shape[1], self._xp
        out: Float = xp.zeros((height, nx))
        term = xp.empty((height, nx))
        for k, (dj, di) in enumerate(OFFSETS):
            shifted = near[1 + dj : 1 + dj + height, 1 + di : 1 + di + nx]
            xp.multiply(self.weights[k][rows], shifted, out=term)
            out += term
        return out

    def apply(self, x: Single, flat: Single) -> None:
        """Write the product with x (n,) to `flat` (n,), both plane by plane."""
        source, out = plane_views(x, self.shape), plane_views(flat, self.shape)

        def put(target: Float, rows: slice) -> None:
            for p, plane in enumerate(source):
                target[:, p::2] = plane[rows]

        for rows, near in self._strips(put):
            product = self._product(rows, near)
            for p, plane in enumerate(out):
                plane[rows] = product[:, p::2]

    def residual(self, b: Float, x: Float, scale: float, flat: Single) -> float:
        """Write ``(b - B x) / scale`` to `flat` (n,), plane by plane.

        Parameters
        ----------
        b, x : ndarray (ny, nx)
            Right-hand side and solution.
        scale : float
            Divisor.
        flat : ndarray (n,)
            Result.

        Returns
        -------
        float
            Its Euclidean norm.
        """
        out = plane_views(flat, self.shape)
        total = 0.0

        def put(target: Float, rows: slice) -> None:
            target[...] = x[rows]

        for rows, near in self._strips(put):
            left = (b[rows] - self._product(rows, near)) / scale
            total += float(self._xp.vdot(left, left))
            for p, plane in enumerate(out):
                plane[rows] = left[:, p::2]
        return float(np.sqrt(total))


def _subtract(y: Single, factor: float, x: Single, xp: Any) -> None:
    """Take ``factor * x`` from y, on the host without an array of that length."""
    step = CHUNK if xp is np else y.size
    for start in range(0, y.size, step):
        part = slice(start, start + step)
        y[part] -= np.float32(factor) * x[part]


def gmres(
    residual: Single,
    size: float,
    cycle: Callable[[Single], Single],
    product: Callable[[Single, Single], None],
    *,
    target: float,
    steps: int,
    xp: Any = np,
) -> list[tuple[float, Single]]:
    """Flexible GMRES from zero, without restart.

    Parameters
    ----------
    residual : ndarray (n,)
        Right-hand side; overwritten.
    size : float
        Its Euclidean norm.
    cycle : callable
        Returns a new vector, the approximate solution for one.
    product : callable
        Writes the operator's product with its first argument to the second.
    target : float
        Norm of the residual, relative to `size`, at which to stop.
    steps : int
        Most steps.
    xp : module, default numpy
        numpy or cupy; the small system of the coefficients stays on the host.

    Returns
    -------
    list of (float, ndarray (n,))
        Coefficients and vectors whose sum of products is the solution.

    References
    ----------
    Saad (1993), A flexible inner-outer preconditioned GMRES algorithm, SIAM J. Sci. Comput. 14.
    """
    residual /= np.float32(size)
    basis, found = [residual], list[Single]()
    upper = np.zeros((steps, steps))
    right, turns = [size], list[tuple[float, float]]()
    for k in range(steps):
        found.append(cycle(basis[k]))
        new = xp.empty_like(residual)
        product(found[-1], new)
        column = np.empty(k + 2)
        for i, vector in enumerate(basis):
            column[i] = dot(vector, new, xp)
            _subtract(new, column[i], vector, xp)
        column[-1] = norm = np.sqrt(dot(new, new, xp))
        for i, (cos, sin) in enumerate(turns):
            column[i : i + 2] = (
                cos * column[i] + sin * column[i + 1],
                cos * column[i + 1] - sin * column[i],
            )
        length = float(np.hypot(column[k], column[-1]))
        if not (np.isfinite(length) and length > 0.0):
            found.pop()  # the caller's residual tells whether that is enough
            break
        cos, sin = column[k] / length, column[-1] / length
        turns.append((cos, sin))
        upper[:k, k], upper[k, k] = column[:k], length
        right.append(-sin * right[k])
        right[k] *= cos
        if abs(right[-1]) <= target * size or k + 1 == steps or not norm > 0.0:
            break
        new /= np.float32(norm)
        basis.append(new)
    order = len(found)
    if not order:
        return []
    weights = np.linalg.solve(upper[:order, :order], np.array(right[:order]))
    return list(zip(weights.tolist(), found, strict=True))

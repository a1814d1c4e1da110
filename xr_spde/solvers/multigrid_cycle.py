"""A hierarchy of grids and one cycle over it: an approximate inverse in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.multigrid_level import (
    Level,
    Planes,
    extended,
    inner,
    join,
    plane_views,
    split,
)
from xr_spde.solvers.multigrid_stencil import Float, Periodic, coarsen, to_matrix

Array = NDArray[Any]

CHUNK = 2**16
"""Entries that vectors are worked through at a time."""

_ENOUGH = 0.1


def dot(a: Array, b: Array, xp: Any = np) -> float:
    """Inner product of long vectors: chunks in their precision, their sum in double."""
    if xp is not np:
        return float(xp.sum(a * b, dtype=np.float64))
    return float(sum(float(a[s : s + CHUNK] @ b[s : s + CHUNK]) for s in range(0, a.size, CHUNK)))


class Hierarchy:
    """Grids from fine to coarse, the coarsest with a direct solver.

    On every grid but the finest and the coarsest, the coarse problem is solved by up to two
    steps of a Krylov method around the cycle (a K-cycle): where long correlations run obliquely,
    a Galerkin operator is too stiff by up to four from grid to grid, and without these steps the
    factors would multiply.

    Parameters
    ----------
    weights : ndarray (9, ny, nx)
        Operator of the finest grid.
    periodic : tuple of bool
        Whether y and x are periodic.
    dtype : dtype
        Of the cycle; coarse operators are formed, and the coarsest is solved, in float64.
    coarsest : int
        Most nodes of the coarsest grid.
    xp : module, default numpy
        numpy or cupy.

    References
    ----------
    Notay, Vassilevski (2008), Recursive Krylov-based multigrid cycles, Numer. Linear Algebra
    Appl. 15.
    """

    def __init__(
        self, weights: Float, periodic: Periodic, dtype: Any, coarsest: int, xp: Any = np
    ) -> None:
        self.levels: list[Level] = []
        self._xp = xp
        self.shape = weights.shape[1], weights.shape[2]
        self.dtype = np.dtype(dtype)
        while weights[0].size > coarsest:
            self.levels.append(Level(weights, periodic, dtype, xp))
            weights = coarsen(weights, periodic)
        boundary = "torus" if periodic[0] else "cylinder" if periodic[1] else "plane"
        shape = weights.shape[1], weights.shape[2]
        self.direct = GridFactor(
            to_matrix(weights, periodic), shape=shape, boundary=boundary, xp=xp
        )

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.direct.nbytes + sum(level.nbytes for level in self.levels)

    def solve(self, flat: Array, work: list[Planes]) -> Array:
        """Approximate solution of a system on the finest grid.

        Parameters
        ----------
        flat : ndarray (n,)
            Right-hand side, plane by plane.
        work : list of tuple of ndarray
            Padded planes of every grid but the coarsest, overwritten.

        Returns
        -------
        ndarray (n,)
            Plane by plane, a new array.
        """
        if not self.levels:
            return split(self._coarsest(join(plane_views(flat, self.shape), self._xp)), self._xp)
        self._cycle(0, flat, work)
        whole: Array = self._xp.concatenate([plane.ravel() for plane in inner(work[0])])
        return whole

    def _coarsest(self, rhs: Array) -> Array:
        """Solution (my, mx) on the coarsest grid."""
        solved = self.direct.solve(rhs.ravel().astype(np.float64))
        found: Array = solved.reshape(rhs.shape).astype(self.dtype)
        return found

    def _cycle(self, depth: int, flat: Array, x: list[Planes]) -> None:
        """Write an approximate solution for one right-hand side (n,) to ``x[depth]``."""
        level = self.levels[depth]
        planes = level.planes(flat)
        coarse = level.restrict(level.smooth_columns(x[depth], planes))
        if depth + 1 == len(self.levels):
            field = self._coarsest(coarse)
        else:
            self._two_steps(depth + 1, split(coarse, self._xp), x)
            field = join(inner(x[depth + 1]), self._xp)
        level.correct(x[depth], extended(field, level.periodic, self._xp))
        level.smooth_rows(x[depth], planes)

    def _two_steps(self, depth: int, r: Array, x: list[Planes]) -> None:
        """Write the best combination of one or two cycles to ``x[depth]``; overwrites r."""
        level, xp = self.levels[depth], self._xp
        size = dot(r, r, xp)
        self._cycle(depth, r, x)
        first = xp.empty_like(r)
        level.apply(x[depth], first)
        square = dot(first, first, xp)
        if not square > 0.0:
            return
        length = dot(first, r, xp) / square
        r -= self.dtype.type(length) * first
        if dot(r, r, xp) <= _ENOUGH**2 * size:
            for plane in x[depth]:
                plane *= self.dtype.type(length)
            return
        kept = [plane.copy() for plane in x[depth]]
        self._cycle(depth, r, x)
        second = xp.empty_like(r)
        level.apply(x[depth], second)
        shared = dot(first, second, xp) / square
        second -= self.dtype.type(shared) * first
        square = dot(second, second, xp)
        along = dot(second, r, xp) / square if square > 0.0 else 0.0
        for plane, before in zip(x[depth], kept, strict=True):
            plane *= self.dtype.type(along)
            before *= self.dtype.type(length - along * shared)
            plane += before

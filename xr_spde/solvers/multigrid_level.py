"""One grid of a multigrid hierarchy: smoothing along lines, restriction and prolongation.

Fields are kept as two planes, that of the even and that of the odd columns: lines of one colour
and coarse columns are then contiguous. A plane has a rim of one node for what lies around it.
Operators are formed on the host; arrays of the cycle live where the module of arrays puts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.solvers.multigrid_lines import CyclicLines, Lines
from xr_spde.solvers.multigrid_stencil import OFFSETS, Float, Periodic

Array = NDArray[Any]
Planes = tuple[Array, Array]

_STRIP_BYTES = 2**17
_SIDES = tuple(k for k, (_, di) in enumerate(OFFSETS) if di)
_ALL = tuple(range(len(OFFSETS)))
# columns of the neighbours to the west, in place and to the east in their padded plane
_FIRST = ((0, 1, 1), (1, 1, 2))


def plane_views(flat: Array, shape: tuple[int, int]) -> Planes:
    """View a vector (n,) that is stored plane by plane as its two planes (ny, ...)."""
    ny, nx = shape
    even = (nx + 1) // 2
    return flat[: ny * even].reshape(ny, even), flat[ny * even :].reshape(ny, nx - even)


def join(planes: Planes, xp: Any = np) -> Array:
    """Field (ny, nx) of two planes, without rim."""
    even, odd = planes
    field: Array = xp.empty((even.shape[0], even.shape[1] + odd.shape[1]), even.dtype)
    field[:, 0::2], field[:, 1::2] = even, odd
    return field


def split(field: Array, xp: Any = np) -> Array:
    """Vector (n,) of a field (ny, nx), plane by plane."""
    flat: Array = xp.empty(field.size, field.dtype)
    for p, plane in enumerate(plane_views(flat, (field.shape[0], field.shape[1]))):
        plane[...] = field[:, p::2]
    return flat


def inner(x: Planes) -> Planes:
    """Planes without their rim."""
    even, odd = (plane[1:-1, 1:-1] for plane in x)
    return even, odd


class Level:
    """Operator of one grid, its smoothers, and the way to the next coarser grid.

    Smoothing is by lines of two colours: columns before the coarse grid, from a zero guess, and
    rows after it. Even columns are solved for first, then odd ones, so that the residual vanishes
    on odd columns, and on even ones stems from odd neighbours alone.

    Parameters
    ----------
    weights : ndarray (9, ny, nx)
        Operator.
    periodic : tuple of bool
        Whether y and x are periodic.
    dtype : dtype
        Of weights and fields.
    xp : module, default numpy
        numpy, or cupy: weights and fields are on the card then.

    References
    ----------
    Trottenberg, Oosterlee, Schueller (2001), Multigrid, Academic Press, chapters 5.1 (lines) and
    7.7 (Galerkin).
    """

    def __init__(self, weights: Float, periodic: Periodic, dtype: Any, xp: Any = np) -> None:
        self.periodic, self.dtype, self._xp = periodic, np.dtype(dtype), xp
        self.shape: tuple[int, int] = (weights.shape[1], weights.shape[2])
        self.widths = (self.shape[1] + 1) // 2, self.shape[1] // 2
        parts = [weights[:, :, p::2].astype(dtype, order="C") for p in (0, 1)]
        lines = Lines if xp is np else partial(CyclicLines, xp=xp)
        self.columns = tuple(lines(part[7], part[4], part[1], ring=periodic[0]) for part in parts)
        self.rows = tuple(
            lines(
                *(np.ascontiguousarray(weights[k, c::2].T, dtype=dtype) for k in (3, 4, 5)),
                ring=periodic[1],
            )
            for c in (0, 1)
        )
        self.weights = tuple(xp.asarray(part) for part in parts)
        # strips of an even number of rows stay in a cache; on a card they only take launches
        rows = _STRIP_BYTES // (self.widths[0] * self.dtype.itemsize) if xp is np else self.shape[0]
        self._step = max(2, rows + rows % 2)

    @property
    def n(self) -> int:
        """Number of nodes."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        lines = sum(part.nbytes for part in (*self.columns, *self.rows))
        return lines + sum(int(part.nbytes) for part in self.weights)

    def padded(self) -> Planes:
        """Return planes of zeros with their rim."""
        ny = self.shape[0]
        even, odd = (self._xp.zeros((ny + 2, width + 2), self.dtype) for width in self.widths)
        return even, odd

    def planes(self, flat: Array) -> Planes:
        """View the values of all nodes (n,) as two planes without rim."""
        return plane_views(flat, self.shape)

    def close(self, x: Planes) -> None:
        """Fill the rim on periodic axes; elsewhere it stays zero."""
        nx = self.shape[1]
        if self.periodic[1]:
            for column in (-1, nx):
                around = column % nx
                x[column % 2][:, 1 + column // 2] = x[around % 2][:, 1 + around // 2]
        if self.periodic[0]:
            for plane in x:
                plane[0], plane[-1] = plane[-2], plane[1]

    def _strips(self, first: int = 0, every: int = 1) -> Iterator[slice]:
        """Slices of rows that fit into a cache."""
        ny = self.shape[0]
        for start in range(first, ny, self._step * every):
            yield slice(start, min(start + self._step * every, ny), every)

    def _subtract(
        self, p: int, x: Planes, rows: slice, out: Array, kinds: tuple[int, ...] = _ALL
    ) -> None:
        """Take the products of `kinds` of weights on plane p from `out` (rows, width)."""
        product = self._xp.empty_like(out)
        for k in kinds:
            dj, di = OFFSETS[k]
            low = _FIRST[p][di + 1]
            near = x[(p + di) % 2][
                rows.start + 1 + dj : rows.stop + 1 + dj : rows.step, low : low + self.widths[p]
            ]
            self._xp.multiply(self.weights[p][k][rows], near, out=product)
            out -= product

    def apply(self, x: Planes, flat: Array) -> None:
        """Write the operator's product with x, whose rim is filled here, to `flat` (n,)."""
        self.close(x)
        for p, plane in enumerate(self.planes(flat)):
            plane[...] = 0
            for rows in self._strips():
                self._subtract(p, x, rows, plane[rows])
            self._xp.negative(plane, out=plane)

    def smooth_columns(self, x: Planes, b: Planes) -> Array:
        """Overwrite x by one sweep over the columns from zero.

        Returns
        -------
        ndarray (ny, number of even columns)
            Residual on even columns; that on odd ones is zero.
        """
        even, odd = inner(x)
        x[1][...] = 0
        even[...] = b[0]
        self.columns[0].solve(even)
        self.close(x)
        for rows in self._strips():
            odd[rows] = b[1][rows]
            self._subtract(1, x, rows, odd[rows], _SIDES)
        self.columns[1].solve(odd)
        self.close(x)
        residual: Array = self._xp.zeros_like(b[0])
        for rows in self._strips():
            self._subtract(0, x, rows, residual[rows], _SIDES)
        return residual

    def smooth_rows(self, x: Planes, b: Planes) -> None:
        """Improve x by one sweep over the rows."""
        ny, nx = self.shape
        for colour in (1, 0):
            lines = self._xp.empty((nx, len(range(colour, ny, 2))), self.dtype)
            self.close(x)
            for rows in self._strips(colour, 2):
                across = slice(rows.start // 2, (rows.stop - colour + 1) // 2)
                for p in (0, 1):
                    residual = b[p][rows].copy()
                    self._subtract(p, x, rows, residual)
                    lines[p::2, across] = residual.T
            self.rows[colour].solve(lines)
            for rows in self._strips(colour, 2):
                across = slice(rows.start // 2, (rows.stop - colour + 1) // 2)
                for p, plane in enumerate(inner(x)):
                    plane[rows] += lines[p::2, across].T

    def restrict(self, residual: Array) -> Array:
        """Right-hand side of the coarse grid from the residual on even columns.

        Parameters
        ----------
        residual : ndarray (ny, number of even columns)
            As from :meth:`smooth_columns`.

        Returns
        -------
        ndarray ((ny + 1) // 2, number of even columns)
            Transposed bilinear interpolation of the residual.
        """
        coarse, between = residual[0::2].copy(), residual[1::2]
        if between.shape[0]:
            half = 0.5 * between
            coarse[: half.shape[0]] += half
            coarse[1:] += half[: coarse.shape[0] - 1]
            if self.periodic[0] and self.shape[0] % 2 == 0:
                coarse[0] += half[-1]
        return coarse

    def correct(self, x: Planes, coarse: Array) -> None:
        """Add the bilinear interpolation of a coarse field to x.

        Parameters
        ----------
        x : tuple of ndarray
            Padded planes.
        coarse : ndarray ((ny + 1) // 2 + 1, number of even columns + 1)
            With one row and one column more, as from :func:`extended`.
        """
        even, odd = inner(x)
        width = odd.shape[1]
        for start in range(0, self.shape[0], self._step):
            stop = min(start + self._step, self.shape[0])
            on = coarse[start // 2 : (stop + 1) // 2]
            between = coarse[start // 2 : stop // 2] + coarse[start // 2 + 1 : stop // 2 + 1]
            for first, rows in ((start, on), (start + 1, 0.5 * between)):
                even[first:stop:2] += rows[:, :-1]
                odd[first:stop:2] += 0.5 * (rows[:, :width] + rows[:, 1 : width + 1])


def extended(field: Array, periodic: Periodic, xp: Any = np) -> Array:
    """Return a coarse field (my, mx) with what follows its last row and column, wrapped or zero."""
    out: Array = xp.zeros((field.shape[0] + 1, field.shape[1] + 1), field.dtype)
    out[:-1, :-1] = field
    if periodic[1]:
        out[:-1, -1] = field[:, 0]
    if periodic[0]:
        out[-1] = out[0]
    return out

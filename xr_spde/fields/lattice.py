"""Nodes of a grid with a rim, their neighbours, and the sparse matrices that couple them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.stencil import periodicity

Float = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Rim:
    """Nodes between a grid and the boundary of its domain, with parameters of the nearest cell.

    Parameters
    ----------
    rows, columns : int
        Added on each side.
    """

    rows: int
    columns: int

    @classmethod
    def of(cls, width: int, boundary: str) -> Rim:
        """Rim of a width on the sides that are not periodic."""
        periodic = periodicity(boundary, (0, 0))
        return cls(0 if periodic[0] else width, 0 if periodic[1] else width)

    def pad(self, maps: Float, *, fill: float | None = None) -> Float:
        """Put the rim around maps (k, ny, nx): values of the edge repeated, or one value."""
        widths = ((0, 0), (self.rows, self.rows), (self.columns, self.columns))
        if fill is None:
            return np.pad(maps, widths, mode="edge")
        return np.pad(maps, widths, constant_values=fill)

    def fold(self, slopes: Float) -> Float:
        """Add slopes (k, ny, nx) in the rim to the cells they were copied from: adjoint of pad."""
        out = slopes
        for axis, width in zip((1, 2), (self.rows, self.columns), strict=True):
            if width:
                out = np.moveaxis(out, axis, 0)
                inner = out[width:-width].copy()
                inner[0] += out[:width].sum(0)
                inner[-1] += out[-width:].sum(0)
                out = np.moveaxis(inner, 0, axis)
        return np.ascontiguousarray(out)


class Lattice:
    """Neighbours of every node up to a distance, and sparse matrices that couple them.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    around : tuple of bool
        Which of them wrap around.
    reach : int
        Largest distance in rows or columns.

    Attributes
    ----------
    offsets : list of (int, int)
        Rows and columns to each neighbour.
    neighbours : ndarray (offsets, n)
        Their numbers; n where there is none.

    Raises
    ------
    ParameterError
        If a periodic side is so short that neighbours coincide.
    """

    def __init__(self, shape: tuple[int, int], around: tuple[bool, bool], reach: int) -> None:
        ny, nx = shape
        for size, wraps, what in zip(shape, around, ("rows", "columns"), strict=True):
            if wraps and size <= 2 * reach:
                raise ParameterError(
                    f"the grid has {size} {what} around a circle; expected more than {2 * reach}"
                )
        side = range(-reach, reach + 1)
        self.offsets = list(product(side, side))
        self.n = ny * nx
        j, i = np.divmod(np.arange(self.n), nx)
        found = []
        for rows, columns in self.offsets:
            there_j, there_i = j + rows, i + columns
            inside = np.ones(self.n, dtype=bool)
            if not around[0]:
                inside &= (there_j >= 0) & (there_j < ny)
            if not around[1]:
                inside &= (there_i >= 0) & (there_i < nx)
            found.append(np.where(inside, (there_j % ny) * nx + there_i % nx, self.n))
        self.neighbours: Index = np.array(found)
        self._valid = self.neighbours < self.n
        rows_of = np.broadcast_to(np.arange(self.n), self.neighbours.shape)[self._valid]
        columns_of = self.neighbours[self._valid]
        self._order = np.lexsort((rows_of, columns_of))
        self._indices = rows_of[self._order]
        self._starts = np.searchsorted(columns_of[self._order], np.arange(self.n + 1))

    def matrix(self, values: Float) -> sp.csc_array:
        """Sparse matrix (n, n) from the weights (offsets, n) of each node's neighbours."""
        data = values[self._valid][self._order]
        return sp.csc_array((data, self._indices.copy(), self._starts.copy()), shape=(self.n,) * 2)

    def values(self, data: Float) -> Float:
        """Weights (offsets, n) from the entries of such a matrix; zero where there is none."""
        kept = np.empty(self._order.size)
        kept[self._order] = data
        out = np.zeros(self.neighbours.shape)
        out[self._valid] = kept
        return out


@lru_cache(maxsize=2)
def lattice(shape: tuple[int, int], around: tuple[bool, bool], reach: int) -> Lattice:
    """Lattice of a shape; the last two are kept, since windows of one shape come in a row."""
    return Lattice(shape, around, reach)

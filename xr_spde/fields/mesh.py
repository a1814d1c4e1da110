"""Regular grids with spacings in metres, boundaries and land, and products of sparse differences.

Arrays are canonical, ``(ny, nx)`` with both coordinates increasing; node ``(j, i)`` has the flat
index ``j * nx + i``, and unknowns of step t follow those of step t - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Flag = NDArray[np.bool_]

BOUNDARIES = ("neumann", "dirichlet", "periodic")
"""What lies beyond an edge: the same value again (no flux), zero, or the other edge."""

COASTS = BOUNDARIES[:2]
"""What lies on land: the same value again, so that land is a barrier, or zero."""

_ZERO = -1


@dataclass(frozen=True, eq=False)
class Mesh:
    """A grid on which an operator is discretised.

    Attributes
    ----------
    dx, dy : ndarray (ny, nx)
        Spacings in metres at every node; that in x may shrink with latitude.
    boundary : tuple of str
        Names in :data:`BOUNDARIES` for the edges in y and in x.
    land : ndarray (ny, nx) of bool
        Nodes that are no part of the field.
    coast : str
        A name in :data:`COASTS`.
    """

    dx: Float
    dy: Float
    boundary: tuple[str, str]
    land: Flag
    coast: str

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        *,
        dx: ArrayLike = 1.0,
        dy: ArrayLike = 1.0,
        boundary: str | tuple[str, str] = "neumann",
        land: ArrayLike | None = None,
        coast: str = "neumann",
    ) -> Mesh:
        """Check what makes a mesh.

        Parameters
        ----------
        shape : tuple of int
            ``(ny, nx)``, at least 2 each.
        dx, dy : array_like
            Spacings in metres: scalars, (ny, 1) or (ny, nx).
        boundary : str or tuple of str, default "neumann"
            In y and x, or in both.
        land : array_like (ny, nx) of bool, optional
            Nodes without a field.
        coast : {"neumann", "dirichlet"}, default "neumann"
            What lies on land.

        Returns
        -------
        Mesh

        Raises
        ------
        ParameterError
            For spacings that are not positive, another shape of land, or no water.
        UnknownNameError
            For an unknown boundary or coast.
        """
        if len(shape) != 2 or min(shape) < 2:
            raise ParameterError(f"shape={shape!r}; expected (ny, nx) of at least 2 nodes each")
        pair = (boundary, boundary) if isinstance(boundary, str) else tuple(boundary)
        if len(pair) != 2:
            raise ParameterError(f"boundary={boundary!r}; expected one name, or those of y and x")
        for name in pair:
            if name not in BOUNDARIES:
                raise unknown("boundary", name, BOUNDARIES)
        if coast not in COASTS:
            raise unknown("coast", coast, COASTS)
        spacings = []
        for name, given in (("dx", dx), ("dy", dy)):
            value = np.array(np.broadcast_to(np.asarray(given, dtype=np.float64), shape))
            if not (np.isfinite(value) & (value > 0.0)).all():
                raise ParameterError(f"{name} has values that are not positive; expected metres")
            spacings.append(value)
        dry = np.zeros(shape, dtype=bool) if land is None else np.asarray(land)
        if dry.shape != tuple(shape) or dry.dtype != bool or dry.all():
            raise ParameterError(
                f"land has shape {dry.shape}, dtype {dry.dtype} and {int(dry.sum())} true values; "
                f"expected true and false on {tuple(shape)}, with some water"
            )
        return cls(spacings[0], spacings[1], (pair[0], pair[1]), dry, coast)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.land.shape[0], self.land.shape[1]

    @property
    def size(self) -> int:
        """Number of nodes, land included."""
        return int(self.land.size)

    @property
    def sea(self) -> Float:
        """One at nodes of the field and zero on land (n,)."""
        return np.asarray(~self.land.ravel(), dtype=np.float64)

    @property
    def area(self) -> Float:
        """Area of every cell in square metres (n,)."""
        return np.asarray((self.dx * self.dy).ravel())

    @property
    def topology(self) -> str:
        """Boundary rule of the solvers that couples the same edges."""
        over_y, over_x = (name == "periodic" for name in self.boundary)
        return "torus" if over_y else "cylinder" if over_x else "plane"

    def neighbour(self, axis: int, step: int) -> Index:
        """Flat index of the node that gives the value one step away.

        Parameters
        ----------
        axis : {0, 1}
            y or x.
        step : {-1, 1}
            Direction.

        Returns
        -------
        ndarray of int (n,)
            The neighbour; the node itself where nothing flows; -1 where the value is zero.
        """
        here = np.arange(self.size).reshape(self.shape)
        there = np.roll(here, -step, axis=axis)
        outside = np.zeros(self.shape, dtype=bool)
        if self.boundary[axis] != "periodic":
            edge = -1 if step > 0 else 0
            outside[(edge, slice(None)) if axis == 0 else (slice(None), edge)] = True
        on_land = self.land.ravel()[there] & ~outside
        for missing, rule in ((outside, self.boundary[axis]), (on_land, self.coast)):
            there = np.where(missing, here if rule == "neumann" else _ZERO, there)
        return np.where(self.land, _ZERO, there).ravel()

    def shift(self, axis: int, step: int) -> sp.csr_array:
        """Matrix that gives every node the value one step away; rows of land are empty.

        Parameters
        ----------
        axis : {0, 1}
            y or x.
        step : {-1, 1}
            Direction.

        Returns
        -------
        csr_array (n, n)
        """
        there = self.neighbour(axis, step)
        rows = np.flatnonzero(there != _ZERO)
        entries = np.ones(rows.size), (rows, there[rows])
        return sp.csr_array(sp.coo_array(entries, shape=(self.size, self.size)))

    def faces(self, axis: int) -> tuple[sp.csr_array, sp.csr_array]:
        """Differences across the faces between nodes, and means of the two nodes of a face.

        A face to a value of zero has the coefficient of its one node; one without flux does not
        occur.

        Parameters
        ----------
        axis : {0, 1}
            Faces crossed going along y or x.

        Returns
        -------
        differences, means : csr_array (faces, n)
        """
        node, up, down = np.arange(self.size), self.neighbour(axis, 1), self.neighbour(axis, -1)
        water = ~self.land.ravel()
        inner = np.flatnonzero(water & (up != _ZERO) & (up != node))
        last, first = np.flatnonzero(water & (up == _ZERO)), np.flatnonzero(water & (down == _ZERO))
        single = np.concatenate([last, first])
        pairs, alone = np.arange(inner.size), inner.size + np.arange(single.size)
        rows = np.concatenate([pairs, pairs, alone])
        columns = np.concatenate([up[inner], inner, single])
        signs = np.concatenate(
            [np.ones(inner.size), -np.ones(inner.size + last.size), np.ones(first.size)]
        )
        shares = np.where(rows < inner.size, 0.5, 1.0)
        shape = (inner.size + single.size, self.size)
        differences, means = (
            sp.csr_array(sp.coo_array((values, (rows, columns)), shape=shape))
            for values in (signs, shares)
        )
        return differences, means


def expand(
    left: sp.csr_array, right: sp.csr_array, means: sp.csr_array
) -> tuple[Index, Index, Index, Float]:
    """Entries of ``left' diag(means c) right`` as numbers that multiply the coefficients c.

    Parameters
    ----------
    left, right, means : csr_array (f, n)
        Two differences across f places, and how the coefficients of the nodes enter there.

    Returns
    -------
    row, column, node, value : ndarray (k,)
        Entry (row, column) of the product is the sum of ``value * c[node]``.
    """
    counts = [np.diff(one.indptr) for one in (left, right, means)]
    total = counts[0] * counts[1] * counts[2]
    place = np.repeat(np.arange(total.size), total)
    number = np.arange(place.size) - np.repeat(np.cumsum(total) - total, total)
    number, third = np.divmod(number, counts[2][place])
    first, second = np.divmod(number, counts[1][place])
    spots = [
        one.indptr[place] + part
        for one, part in zip((left, right, means), (first, second, third), strict=True)
    ]
    value = left.data[spots[0]] * right.data[spots[1]] * means.data[spots[2]]
    row, column, node = (
        one.indices[spot].astype(np.intp)
        for one, spot in zip((left, right, means), spots, strict=True)
    )
    return row, column, node, value

"""Nested dissection of a rectangular grid: an elimination tree known without a graph partitioner.

A separator as wide as the reach of the matrix cuts a rectangle in two that do not touch; the
pieces are cut again down to small leaves. Pieces are eliminated before their separator, so the
order is bottom up. On a periodic axis a first band is taken out, which leaves a rectangle.

References
----------
George (1973), Nested dissection of a regular finite element mesh, SIAM J. Numer. Anal. 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import unknown

Index = NDArray[np.intp]

PERIODIC: Mapping[str, tuple[bool, bool]] = {
    "cylinder": (False, True),
    "plane": (False, False),
    "torus": (True, True),
    "paper": (True, True),
}
"""Whether y and x couple their two ends, by boundary rule."""


@dataclass(frozen=True)
class Box:
    """A rectangle of nodes, ends excluded; `ring_y` and `ring_x` say where it closes on itself."""

    south: int
    north: int
    west: int
    east: int
    ring_y: bool = False
    ring_x: bool = False

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.north - self.south

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.east - self.west

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.height * self.width


@dataclass(frozen=True)
class Piece:
    """A step of the elimination: the pivots of one box, after the pieces that fill the rest of it.

    Parameters
    ----------
    pivots : Box
        Nodes eliminated in this step (the whole box in a leaf, else the separator).
    box : Box
        Everything eliminated up to this step in this branch.
    children : tuple of int
        Numbers of the pieces next below.
    """

    pivots: Box
    box: Box
    children: tuple[int, ...]


def _cut(box: Box, reach: int, leaf: int) -> tuple[Box, tuple[Box, ...]]:
    """Separator of a box and the boxes it leaves; a leaf is its own separator."""
    height, width = box.height, box.width
    if box.size <= leaf or max(height, width) < reach + 2:
        return box, ()
    # a band across a ring cuts nothing in two yet: worth it unless the other axis is much longer
    if box.ring_x and 2 * width >= height and width > reach:
        middle = box.west + reach
        return replace(box, east=middle, ring_x=False), (replace(box, west=middle, ring_x=False),)
    if box.ring_y and 2 * height >= width and height > reach:
        middle = box.south + reach
        return replace(box, north=middle, ring_y=False), (replace(box, south=middle, ring_y=False),)
    along_x = box.ring_y or (not box.ring_x and width >= height)
    if along_x:
        first = box.west + (width - reach) // 2
        second = first + reach
        return (
            replace(box, west=first, east=second),
            (replace(box, east=first), replace(box, west=second)),
        )
    first = box.south + (height - reach) // 2
    second = first + reach
    return (
        replace(box, south=first, north=second),
        (replace(box, north=first), replace(box, south=second)),
    )


@dataclass(frozen=True)
class Tree:
    """Elimination tree of a grid.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    periodic : tuple of bool
        Whether y and x are periodic.
    reach : int
        Largest distance of coupled nodes, in rows or columns.
    pieces : tuple of Piece
        Children before parents.
    """

    shape: tuple[int, int]
    periodic: tuple[bool, bool]
    reach: int
    pieces: tuple[Piece, ...]

    def nodes(self, box: Box) -> Index:
        """Flat indices of the nodes of a box, row by row."""
        nx = self.shape[1]
        rows = np.arange(box.south, box.north)[:, None] * nx
        return (rows + np.arange(box.west, box.east)).ravel()

    def order(self) -> Index:
        """Flat indices of all nodes in the order of elimination."""
        return np.concatenate([self.nodes(piece.pivots) for piece in self.pieces])

    def _span(self, low: int, high: int, axis: int, reach: int) -> Index:
        """List the indices along one axis within `reach` of ``[low, high)``."""
        size = self.shape[axis]
        if self.periodic[axis]:
            if high - low + 2 * reach >= size:
                return np.arange(size)
            return np.arange(low - reach, high + reach) % size
        return np.arange(max(low - reach, 0), min(high + reach, size))

    def rim(self, box: Box) -> Index:
        """Flat indices of the nodes outside a box that couple to it."""
        rows = self._span(box.south, box.north, 0, self.reach)
        columns = self._span(box.west, box.east, 1, self.reach)
        inside = ((rows >= box.south) & (rows < box.north))[:, None] & (
            (columns >= box.west) & (columns < box.east)
        )
        return (rows[:, None] * self.shape[1] + columns)[~inside]

    def spread(self, box: Box, reach: int) -> int:
        """Return the number of nodes within `reach` of a box, the box included."""
        count = 1
        for axis, (low, high) in enumerate(((box.south, box.north), (box.west, box.east))):
            size = self.shape[axis]
            if self.periodic[axis]:
                count *= min(high - low + 2 * reach, size)
            else:
                count *= min(high + reach, size) - max(low - reach, 0)
        return count


def dissect(shape: tuple[int, int], *, boundary: str, reach: int, leaf: int) -> Tree:
    """Cut a grid by nested dissection.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic; ``"paper"`` couples the first and last rows too.
    reach : int
        Width of separators: 1 for a nine-point matrix B, 2 for B'B.
    leaf : int
        Largest number of nodes that is not cut.

    Returns
    -------
    Tree

    Raises
    ------
    UnknownNameError
        For an unknown boundary.
    """
    if boundary not in PERIODIC:
        raise unknown("boundary", boundary, PERIODIC)
    pieces: list[Piece] = []

    def descend(box: Box) -> int:
        pivots, rest = _cut(box, reach, leaf)
        children = tuple(descend(part) for part in rest)
        pieces.append(Piece(pivots, box, children))
        return len(pieces) - 1

    ring_y, ring_x = PERIODIC[boundary]
    descend(Box(0, shape[0], 0, shape[1], ring_y, ring_x))
    return Tree(shape, PERIODIC[boundary], reach, tuple(pieces))


def elimination_order(
    shape: tuple[int, int], *, boundary: str, reach: int, leaf: int = 16
) -> Index:
    """Order of elimination by nested dissection, for a sparse factorisation.

    Parameters
    ----------
    shape, boundary, reach, leaf
        As in :func:`dissect`.

    Returns
    -------
    ndarray of int (ny * nx,)
        Permutation ``p``: factorise ``A[p][:, p]``.
    """
    return dissect(shape, boundary=boundary, reach=reach, leaf=leaf).order()

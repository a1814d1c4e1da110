"""Kinds of boxes in the nested dissection of a grid, and how each is cut.

A separator as wide as the reach of the matrix cuts a box in two that do not couple; the two are cut
again, down to small leaves. On a periodic axis a band is taken out first, which leaves a
rectangle. A kind is a box without its place: extent and rim decide how it is cut. Boxes of one
kind have the same front up to a shift, so that a tree of a million boxes is a few dozen kinds a
level, and its cost is known before any array exists.

References
----------
George (1973), Nested dissection of a regular finite element mesh, SIAM J. Numer. Anal. 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown

Index = NDArray[np.intp]
Pair = tuple[int, int]

PERIODIC: Mapping[str, tuple[bool, bool]] = {
    "cylinder": (False, True),
    "plane": (False, False),
    "torus": (True, True),
    "paper": (True, True),
}
"""Whether y and x couple their two ends, by boundary rule."""

LEAF = 72
"""Nodes of a box that is not cut: the fastest for many right-hand sides, within 10 %."""


@dataclass(frozen=True)
class Kind:
    """A box of nodes without its place; pairs are (y, x).

    Parameters
    ----------
    extent : tuple of int
        Rows and columns.
    ring : tuple of bool
        Where the box closes on itself.
    before, after : tuple of int
        Rows and columns of the rim to the south and west, and to the north and east.
    """

    extent: Pair
    ring: tuple[bool, bool]
    before: Pair
    after: Pair

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.extent[0] * self.extent[1]

    @property
    def rim(self) -> int:
        """Number of nodes outside that couple to the box."""
        height, width = (
            low + size + high
            for low, size, high in zip(self.before, self.extent, self.after, strict=True)
        )
        return height * width - self.size


@dataclass(frozen=True)
class Cut:
    """How a kind is cut: pivots ``[low, high)`` within the box, and what is left on either side."""

    low: Pair
    high: Pair
    children: tuple[tuple[Pair, Kind], ...]

    @property
    def pivots(self) -> int:
        """Number of nodes eliminated with this box."""
        return (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])


@dataclass(frozen=True)
class Grid:
    """What decides a tree.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    periodic : tuple of bool
        Whether y and x couple their two ends.
    reach : int
        Largest distance of coupled nodes, in rows or columns.
    leaf : int
        Largest number of nodes that is not cut.
    layers : int, default 1
        Unknowns of every node, such as those of several times: they stay together.
    """

    shape: Pair
    periodic: tuple[bool, bool]
    reach: int
    leaf: int
    layers: int = 1

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.shape[0] * self.shape[1] * self.layers

    def root(self) -> Kind:
        """Return the whole grid."""
        return Kind(self.shape, self.periodic, (0, 0), (0, 0))

    def _part(self, kind: Kind, axis: int, low: int, high: int) -> tuple[Pair, Kind]:
        """Rows or columns ``[low, high)`` of a box: where they start, and their kind."""
        size, reach, extent = self.shape[axis], self.reach, high - low
        if self.periodic[axis]:
            # on a ring too small for two rims all that is left is the rim
            wide = extent + 2 * reach >= size
            before, after = (0, size - extent) if wide else (reach, reach)
        else:
            before = kind.before[axis] if low == 0 else reach
            after = kind.after[axis] if high == kind.extent[axis] else reach
        part = Kind(
            _put(kind.extent, axis, extent),
            (kind.ring[0] and axis != 0, kind.ring[1] and axis != 1),
            _put(kind.before, axis, before),
            _put(kind.after, axis, after),
        )
        return _put((0, 0), axis, low), part

    def cut(self, kind: Kind) -> Cut:
        """Cut a box along its longer side; a leaf keeps all its nodes as pivots."""
        extent, ring, reach = kind.extent, kind.ring, self.reach
        if kind.size <= self.leaf or max(extent) < reach + 2:
            return Cut((0, 0), extent, ())
        for axis in (1, 0):
            # a band across a ring cuts nothing in two yet: worth it unless the box is very long
            if ring[axis] and 2 * extent[axis] >= extent[1 - axis] and extent[axis] > reach:
                rest = self._part(kind, axis, reach, extent[axis])
                return Cut((0, 0), _put(extent, axis, reach), (rest,))
        axis = 1 if ring[0] or (not ring[1] and extent[1] >= extent[0]) else 0
        first = (extent[axis] - reach) // 2
        second = first + reach
        sides = (
            self._part(kind, axis, 0, first),
            self._part(kind, axis, second, extent[axis]),
        )
        return Cut(_put((0, 0), axis, first), _put(extent, axis, second), sides)

    def levels(self) -> Iterator[Mapping[Kind, int]]:
        """Count the boxes of every kind, level by level from the root."""
        level = {self.root(): 1}
        while level:
            yield level
            below: dict[Kind, int] = {}
            for kind, count in level.items():
                for _, child in self.cut(kind).children:
                    below[child] = below.get(child, 0) + count
            level = below

    def front(self, kind: Kind) -> tuple[Index, Index]:
        """Rows and columns of the nodes of a front within its box, pivots first.

        Nodes run along separators and along the four sides of the rim, so that the rim of a child
        is a handful of runs in the front of its parent.
        """
        cut = self.cut(kind)
        (height, width), (south, west), (north, east) = kind.extent, kind.before, kind.after
        rows, columns = np.arange(height), np.arange(width)
        across = np.arange(-west, width + east)
        strips = [
            _block(
                np.arange(cut.low[0], cut.high[0]),
                np.arange(cut.low[1], cut.high[1]),
                upright=cut.high[0] - cut.low[0] > cut.high[1] - cut.low[1],
            ),
            _block(np.arange(-south, 0), across),
            _block(np.arange(height, height + north), across),
            _block(rows, np.arange(-west, 0), upright=True),
            _block(rows, columns[-1] + 1 + np.arange(east), upright=True),
        ]
        y, x = (np.concatenate(parts) for parts in zip(*strips, strict=True))
        return y, x


def _put(pair: Pair, axis: int, value: int) -> Pair:
    """Replace one item of a pair."""
    return (value, pair[1]) if axis == 0 else (pair[0], value)


def _block(rows: Index, columns: Index, *, upright: bool = False) -> tuple[Index, Index]:
    """Nodes of a block, row by row, or column by column if `upright`."""
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return (y.T.ravel(), x.T.ravel()) if upright else (y.ravel(), x.ravel())


def grid(
    shape: Pair, *, boundary: str, reach: int = 1, leaf: int | None = None, layers: int = 1
) -> Grid:
    """Check what decides a tree.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``, at least one node.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Which axes are periodic; ``"paper"`` couples the first and last rows too.
    reach : int, default 1
        Width of separators: 1 for a nine-point matrix B, 2 for B'B.
    leaf : int, optional
        Largest number of nodes that is not cut; by default :data:`LEAF` unknowns.
    layers : int, default 1
        Unknowns of every node.

    Returns
    -------
    Grid

    Raises
    ------
    UnknownNameError
        For an unknown boundary.
    ParameterError
        For a shape, reach, leaf or number of layers below one.
    """
    if boundary not in PERIODIC:
        raise unknown("boundary", boundary, PERIODIC)
    if len(shape) != 2 or min(shape) < 1:
        raise ParameterError(f"shape is {shape}; expected (ny, nx) with at least one node each")
    if reach < 1 or layers < 1 or (leaf is not None and leaf < 1):
        raise ParameterError(
            f"reach is {reach}, leaf is {leaf}, layers is {layers}; expected at least 1 for each"
        )
    leaf = max(LEAF // layers, LEAF // 8) if leaf is None else leaf
    sides = int(shape[0]), int(shape[1])
    return Grid(sides, PERIODIC[boundary], int(reach), int(leaf), int(layers))

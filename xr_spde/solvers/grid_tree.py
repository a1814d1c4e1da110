"""Elimination tree of a grid in levels of equal boxes, for batched dense algebra.

Boxes with equally many pivots and equally large rims make a batch: their fronts are stacked in
one array. Unknowns are renumbered so that the pivots of a batch are contiguous. A child's rim is
found in the front of its parent as a handful of runs, the same for all boxes of a kind, so that
children are added to their parents by slices of whole stacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.solvers.grid_cut import Grid, Kind

Index = NDArray[np.intp]
Run = tuple[int, int, int]


@dataclass(frozen=True)
class Link:
    """Where boxes of a batch find one of their children: consecutive boxes, consecutive children.

    Parameters
    ----------
    parents, children : slice
        Members of the parent's batch and of the child's batch, of equal length.
    child : int
        Number of the child's batch in the next level.
    pivots, rim : tuple of (int, int, int)
        Runs of the child's rim among the pivots, and in the rim, of the parent: start in the
        parent's front, start in the child's rim, length.
    """

    parents: slice
    children: slice
    child: int
    pivots: tuple[Run, ...]
    rim: tuple[Run, ...]

    def overlap(self, part: slice) -> tuple[slice, slice] | None:
        """Share of the link in some members: counted within `part`, and in the child's batch."""
        first = max(part.start, self.parents.start)
        last = min(part.stop, self.parents.stop)
        if first >= last:
            return None
        shift = self.children.start - self.parents.start
        return slice(first - part.start, last - part.start), slice(first + shift, last + shift)


@dataclass(frozen=True)
class Batch:
    """Boxes of one level with equally many pivots and equally large rims.

    Parameters
    ----------
    pivots, rim, count : int
        Pivots and rim nodes of each box, and number of boxes.
    start : int
        Position of the first pivot; those of all members follow.
    number : int
        Number of the first box among those of the whole tree, in the order of elimination.
    update : int
        First row of the rims of this batch among those of its level.
    index : ndarray of int (count, pivots + rim)
        Positions of the nodes of each front.
    links : tuple of Link
        The children.
    """

    pivots: int
    rim: int
    count: int
    start: int
    number: int
    update: int
    index: Index
    links: tuple[Link, ...]

    @property
    def front(self) -> int:
        """Rows of each front."""
        return self.pivots + self.rim

    def parts(self, step: int) -> Iterator[slice]:
        """Members in parts of at most `step`."""
        for start in range(0, self.count, step):
            yield slice(start, min(start + step, self.count))

    def rows(self, part: slice) -> slice:
        """Positions of the pivots of some members."""
        return slice(self.start + part.start * self.pivots, self.start + part.stop * self.pivots)

    def updates(self, part: slice) -> slice:
        """Rows of the rims of some members among those of the level."""
        return slice(self.update + part.start * self.rim, self.update + part.stop * self.rim)

    def shared(self, fronts: Any, part: slice, passed: list[Any]) -> Iterator[tuple[Any, Any]]:
        """Give views of what fronts of some members and rims of their children share.

        Parameters
        ----------
        fronts : array (members, front, front)
            Of the members.
        part : slice
            Which members.
        passed : list of array (count, rim, rim)
            Of each batch of the level below.

        Yields
        ------
        array (children, height, width)
            Part of `fronts`.
        array (children, height, width)
            The same nodes in `passed`.
        """
        for link in self.links:
            overlap = link.overlap(part)
            if overlap is None:
                continue
            mine, theirs = fronts[overlap[0]], passed[link.child][overlap[1]]
            runs = link.pivots + link.rim
            for row, row_below, height in runs:
                for column, column_below, width in runs:
                    yield (
                        mine[:, row : row + height, column : column + width],
                        theirs[
                            :, row_below : row_below + height, column_below : column_below + width
                        ],
                    )


@dataclass(frozen=True)
class GridTree:
    """Elimination tree of a grid in levels of batches.

    Parameters
    ----------
    grid : Grid
        What it was made from.
    levels : tuple of tuple of Batch
        From the root down.
    order : ndarray of int (n,)
        Flat index of the unknown at each position of the elimination, layer by layer.
    place : ndarray of int (n,)
        Position of each unknown.
    """

    grid: Grid
    levels: tuple[tuple[Batch, ...], ...]
    order: Index
    place: Index

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return self.order.size

    @property
    def nbytes(self) -> int:
        """Memory of the index arrays in bytes."""
        inside = sum(batch.index.nbytes for level in self.levels for batch in level)
        return inside + self.order.nbytes + self.place.nbytes

    def bottom_up(self) -> Iterator[Batch]:
        """Batches in the order of elimination."""
        for level in reversed(self.levels):
            yield from level


@dataclass(frozen=True)
class _Group:
    """All boxes of one kind in a level, in the order of the kinds above that they come from."""

    kind: Kind
    pivots: int
    origins: tuple[Index, Index]
    sources: tuple[int, ...]


def _descend(grid: Grid) -> list[list[_Group]]:
    """Boxes of all levels from the root down, smallest pivots first in each."""
    zero = np.zeros(1, dtype=np.intp)
    root = grid.root()
    levels = [[_Group(root, grid.cut(root).pivots, (zero, zero), ())]]
    while True:
        found: dict[Kind, list[tuple[int, Index, Index]]] = {}
        for number, group in enumerate(levels[-1]):
            y, x = group.origins
            for (dy, dx), child in grid.cut(group.kind).children:
                found.setdefault(child, []).append((number, y + dy, x + dx))
        if not found:
            return levels
        level = []
        for kind, parts in found.items():
            numbers, y_parts, x_parts = zip(*parts, strict=True)
            origins = np.concatenate(y_parts), np.concatenate(x_parts)
            level.append(_Group(kind, grid.cut(kind).pivots, origins, numbers))
        levels.append(sorted(level, key=lambda group: (group.pivots, group.kind.rim)))


def _nodes(grid: Grid, group: _Group) -> Index:
    """Flat indices of the nodes of the fronts of a group."""
    (ny, nx), (rows, columns) = grid.shape, grid.front(group.kind)
    y, x = group.origins
    return (y[:, None] + rows) % ny * nx + (x[:, None] + columns) % nx


def _runs(child: Index, parent: Index, pivots: int) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Find a child's rim in its parent's front: runs among the pivots, and behind them."""
    by_node = np.argsort(parent)
    spot = by_node[np.searchsorted(parent, child, sorter=by_node)]
    breaks = np.flatnonzero((np.diff(spot) != 1) | (spot[1:] == pivots)) + 1
    ends = [0, *breaks.tolist(), child.size]
    runs = [(int(spot[a]), a, b - a) for a, b in pairwise(ends) if b > a]
    return (
        tuple(run for run in runs if run[0] < pivots),
        tuple(run for run in runs if run[0] >= pivots),
    )


class _Numbers:
    """Batches of one level: which groups each holds, and where each group stands."""

    def __init__(self, level: list[_Group]) -> None:
        sizes = [(group.pivots, group.kind.rim) for group in level]
        self.batches = [
            [k for k, size in enumerate(sizes) if size == wanted] for wanted in sorted(set(sizes))
        ]
        self.home: dict[int, tuple[int, slice]] = {}
        for number, members in enumerate(self.batches):
            first = 0
            for k in members:
                last = first + level[k].origins[0].size
                self.home[k] = number, slice(first, last)
                first = last


def _links(
    parents: list[_Group],
    above: _Numbers,
    fronts: list[Index],
    children: list[_Group],
    below: _Numbers,
    fronts_below: list[Index],
) -> list[list[Link]]:
    """Links of every batch of a level to the next."""
    links: list[list[Link]] = [[] for _ in above.batches]
    for k, child in enumerate(children):
        batch, members = below.home[k]
        first = 0
        for source in child.sources:
            holder, range_above = above.home[source]
            count = range_above.stop - range_above.start
            pivots, rim = _runs(
                fronts_below[k][first, child.pivots :], fronts[source][0], parents[source].pivots
            )
            spots = slice(members.start + first, members.start + first + count)
            links[holder].append(Link(range_above, spots, batch, pivots, rim))
            first += count
    return links


@lru_cache(maxsize=4)
def grow(grid: Grid) -> GridTree:
    """Build the tree of a grid; the last four are kept.

    Parameters
    ----------
    grid : Grid
        As from :func:`xr_spde.solvers.grid_cut.grid`.

    Returns
    -------
    GridTree
        Treat its arrays as read only.
    """
    levels = _descend(grid)
    numbers = [_Numbers(level) for level in levels]
    nodes = [[_nodes(grid, group) for group in level] for level in levels]
    n = grid.shape[0] * grid.shape[1]
    place = np.empty(n, dtype=np.intp)
    start = number = 0
    firsts: list[list[tuple[int, int]]] = []
    for level, fronts, held in zip(levels[::-1], nodes[::-1], numbers[::-1], strict=True):
        firsts.append([])
        for members in held.batches:
            firsts[-1].append((start, number))
            for k in members:
                own = fronts[k][:, : level[k].pivots]
                place[own] = start + np.arange(own.size).reshape(own.shape)
                start += own.size
                number += own.shape[0]
    firsts.reverse()
    built = []
    for depth, level in enumerate(levels):
        links: list[list[Link]] = [[] for _ in numbers[depth].batches]
        if depth + 1 < len(levels):
            links = _links(level, numbers[depth], nodes[depth], levels[depth + 1],
                           numbers[depth + 1], nodes[depth + 1])  # fmt: skip
        batches, update = [], 0
        for members, own_links, (first, box) in zip(
            numbers[depth].batches, links, firsts[depth], strict=True
        ):
            index = place[np.concatenate([nodes[depth][k] for k in members])]
            pivots, rim = level[members[0]].pivots, level[members[0]].kind.rim
            batches.append(
                Batch(pivots, rim, len(index), first, box, update, index, tuple(own_links))
            )
            update += len(index) * rim
        built.append(tuple(batches))
    return _layered(GridTree(grid, tuple(built), np.argsort(place), place))


def _layered(tree: GridTree) -> GridTree:
    """Give every node its layers, next to one another in the order of elimination."""
    layers, nodes = tree.grid.layers, tree.order.size
    if layers == 1:
        return tree

    def spread(index: Index) -> Index:
        wide: Index = (index[..., None] * layers + np.arange(layers)).reshape(*index.shape[:-1], -1)
        return wide

    def runs(given: tuple[Run, ...]) -> tuple[Run, ...]:
        return tuple((layers * a, layers * b, layers * length) for a, b, length in given)

    def links(given: tuple[Link, ...]) -> tuple[Link, ...]:
        return tuple(replace(one, pivots=runs(one.pivots), rim=runs(one.rim)) for one in given)

    levels = tuple(
        tuple(
            Batch(layers * b.pivots, layers * b.rim, b.count, layers * b.start, b.number,
                  layers * b.update, spread(b.index), links(b.links))
            for b in level
        )
        for level in tree.levels
    )  # fmt: skip
    order = (tree.order[:, None] + nodes * np.arange(layers)).ravel()
    return GridTree(tree.grid, levels, order, np.argsort(order))

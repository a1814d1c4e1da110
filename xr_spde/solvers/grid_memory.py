"""Memory of the grid solver, from the tree alone: nothing of the size of the grid is made."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from xr_spde.solvers.grid_cut import Grid

WORKSPACE = {True: 2**21, False: 2**28}
"""Bytes of fronts at a time, on the processor (about its caches) or on a card."""

_ROW_BYTES = {True: 512, False: 2048}
_BLOCK_BYTES = {True: 2**26, False: 2**33}
_NARROWEST = 8


def block_width(n: int, dtype: np.dtype[Any], *, host: bool) -> int:
    """Return the number of right-hand sides that are solved for at a time.

    Parameters
    ----------
    n : int
        Number of rows.
    dtype : dtype
        Of the factor.
    host : bool
        Whether it is on the processor.

    Returns
    -------
    int
    """
    widest = _ROW_BYTES[host] // dtype.itemsize
    fit = _BLOCK_BYTES[host] // (n * dtype.itemsize)
    # a multiple of what kernels take at a time
    return max(_NARROWEST, min(widest, fit // _NARROWEST * _NARROWEST))


@dataclass(frozen=True)
class Memory:
    """Bytes that the grid solver takes.

    Parameters
    ----------
    factor : int
        Blocks that are kept.
    index : int
        Index arrays of the tree and places of the entries, shared by matrices of one pattern.
    factoring, solving, inverting, squaring : int
        Workspace of the factorisation, of one block of right-hand sides (what is given and
        returned not counted), of the selected inverse, and of the diagonal of ``(A'A)^-1``.
    """

    factor: int
    index: int
    factoring: int
    solving: int
    inverting: int
    squaring: int

    @property
    def peak(self) -> int:
        """Most that is held at a time while factorising and solving."""
        return self.factor + self.index + max(self.factoring, self.solving)


def predict(grid: Grid, *, symmetric: bool, dtype: Any, host: bool = True) -> Memory:
    """Predict what the factor of a matrix on a grid takes.

    Parameters
    ----------
    grid : Grid
        As from :func:`xr_spde.solvers.grid_cut.grid`.
    symmetric : bool
        Whether the matrix is symmetric positive definite.
    dtype : {float64, float32}
        Of the factor.
    host : bool, default True
        Whether it is on the processor.

    Returns
    -------
    Memory
        ``factor`` exactly, workspaces as upper bounds.
    """
    kind_of_number = np.dtype(dtype)
    size, n, layers = kind_of_number.itemsize, grid.size, grid.layers
    entries = (2 * grid.reach + 1) ** 2 * n * min(layers, 3)
    width = block_width(n, kind_of_number, host=host)
    kept = inner = nodes = widest = 0
    squares, rims = [0], [0]
    for level in grid.levels():
        squares.append(0)
        rims.append(0)
        for kind, count in level.items():
            pivots, rim = layers * grid.cut(kind).pivots, layers * kind.rim
            front = pivots + rim
            kept += count * pivots * (front if symmetric else front + rim)
            inner += count * pivots * front if grid.cut(kind).children else 0
            nodes += count * front
            widest = max(widest, front)
            squares[-1] += count * rim * rim
            rims[-1] += count * rim
    passed = size * max(map(sum, pairwise(squares)))
    # the stack of fronts, and as much again in products
    fronts = 3 * max(WORKSPACE[host], widest * widest * size)
    pairs = 4 * max(WORKSPACE[host] // 4, widest * widest * size)
    updates = max(rims[0::2]) + max(rims[1::2])
    gathered = max(WORKSPACE[host] // 4, widest * width * size)
    return Memory(
        factor=size * kept,
        index=8 * (nodes + 2 * n) + 24 * entries,
        factoring=max(20 * entries, passed + fronts + size * entries),
        solving=size * width * (n + updates) + 2 * gathered,
        inverting=passed + fronts + size * (n + 2 * entries),
        squaring=2 * passed + pairs + size * (inner + 3 * n),
    )

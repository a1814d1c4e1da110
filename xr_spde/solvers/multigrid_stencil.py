"""Nine-point stencils as arrays: coarser ones, transposed ones, to and from sparse matrices.

Weights are those of :func:`xr_spde.fields.stencil.assemble`: ``weights[k, j, i]`` multiplies the
neighbour :data:`OFFSETS` ``[k]`` of node ``(j, i)``. Here a grid is periodic in y, in x, in both
or in neither, and weights that point out of an axis that is not periodic count as zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.solvers.grid_cut import PERIODIC

Float = NDArray[np.float64]
Periodic = tuple[bool, bool]

OFFSETS = tuple((dj, di) for dj in (1, 0, -1) for di in (-1, 0, 1))
"""Neighbours ``(dj, di)`` in the order NW, N, NE, W, C, E, SW, S, SE."""

BLOCK_NODES = 2**14
"""Nodes of the coarse rows that are formed at a time."""


def checked(weights: ArrayLike, boundary: str) -> tuple[Float, Periodic]:
    """Return weights in float64 and which axes (y, x) are periodic.

    Parameters
    ----------
    weights : array_like (9, ny, nx)
        Kept as they are where they are float64 already, but for ``"paper"``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        As in :func:`xr_spde.fields.stencil.periodicity`. ``"paper"`` becomes a torus in which the
        neighbours to the north of the last row and to the south of the first have no weight.

    Returns
    -------
    weights : ndarray (9, ny, nx)
    periodic : tuple of bool

    Raises
    ------
    ParameterError
        If the shape is another one, a weight is not finite, or a centre is not positive.
    UnknownNameError
        For an unknown boundary.
    """
    if boundary not in PERIODIC:
        raise unknown("boundary", boundary, PERIODIC)
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 3 or array.shape[0] != len(OFFSETS) or 0 in array.shape:
        raise ParameterError(
            f"stencil weights have shape {array.shape}; expected (9, ny, nx) in the order of "
            "xr_spde.fields.stencil.OFFSETS"
        )
    # a sum is NaN or infinite if any of its terms is, and takes no array of its own
    if not all(np.isfinite(weight.sum()) for weight in array):
        raise ParameterError("stencil weights hold NaN or infinite values; expected finite numbers")
    if not array[4].min() > 0.0:
        raise ParameterError(
            f"the centre of a stencil is {array[4].min():g}; the multigrid solver expected "
            'positive ones. Take solver="superlu"'
        )
    if boundary == "paper":
        array = array.copy()
        array[1, -1] = array[7, 0] = 0.0
    return array, PERIODIC[boundary]


def _rows(weights: Float, index: NDArray[np.intp], periodic: Periodic) -> Float:
    """Copy rows (3, 3, len, nx), zero what points out; an index of -1 stands for a row of zeros."""
    ny, nx = weights.shape[1:]
    part = weights[:, index].reshape(3, 3, index.size, nx)
    part[:, :, index < 0] = 0.0
    if not periodic[0]:
        part[0, :, index == ny - 1] = 0.0
        part[2, :, index == 0] = 0.0
    if not periodic[1]:
        part[:, 0, :, 0] = 0.0
        part[:, 2, :, -1] = 0.0
    return part


def _merge(below: Float, here: Float, above: Float, seam: tuple[bool, bool]) -> Float:
    """Galerkin product along one axis.

    Arrays are (3, ...): the weights toward the next, the own and the previous line, of the lines
    ``2J - 1``, ``2J`` and ``2J + 1``. Interpolation is linear and restriction its transpose.
    `seam` tells whether the first line lacks the one below, and the last line the one above, and
    touches the next even line instead.
    """
    out = np.empty_like(here)
    out[0] = 0.5 * (here[0] + above[0] + 0.5 * above[1])
    out[1] = here[1] + 0.5 * (here[0] + here[2])
    out[1] += 0.5 * (below[0] + 0.5 * below[1] + above[2] + 0.5 * above[1])
    out[2] = 0.5 * (here[2] + below[2] + 0.5 * below[1])
    first, last = seam
    if first:
        out[2, :, 0] = here[2, :, 0]
        out[1, :, 0] -= 0.5 * here[2, :, 0]
    if last:
        out[0, :, -1] = here[0, :, -1]
        out[1, :, -1] -= 0.5 * here[0, :, -1]
    return out


def _coarse_lines(size: int, periodic: bool) -> tuple[NDArray[np.intp], ...]:
    """Index of the lines below, at and above each coarse line; -1 where there is none."""
    here = np.arange(0, size, 2)
    below, above = here - 1, np.where(here + 1 < size, here + 1, -1)
    if periodic and size % 2 == 0:
        below[0] = size - 1
    return below, here, above


def coarsen(weights: Float, periodic: Periodic) -> Float:
    """Galerkin operator on every second row and column: ``P' B P`` with P bilinear.

    Nodes with even indices are kept. Where a periodic axis has an odd number of nodes, its first
    and last node are neighbours on the coarse grid as well.

    Parameters
    ----------
    weights : ndarray (9, ny, nx)
        Fine operator.
    periodic : tuple of bool
        Whether y and x are periodic.

    Returns
    -------
    ndarray (9, (ny + 1) // 2, (nx + 1) // 2)
        Again nine-point; what points out of an axis that is not periodic is zero.
    """
    ny, nx = weights.shape[1:]
    ring_y, ring_x = periodic[0] and ny % 2 == 1, periodic[1] and nx % 2 == 1
    lines = _coarse_lines(ny, periodic[0])
    west, middle, east = _coarse_lines(nx, periodic[1])
    my, mx = lines[1].size, middle.size
    out = np.empty((9, my, mx))
    step = max(1, BLOCK_NODES // nx)
    for start in range(0, my, step):
        stop = min(start + step, my)
        below, here, above = (_rows(weights, index[start:stop], periodic) for index in lines)
        half = _merge(below, here, above, seam=(ring_y and start == 0, ring_y and stop == my))
        # x takes the place of y, and east, the next column, that of north
        turned = np.moveaxis(half, (1, 3), (0, 2))[::-1]
        columns = [turned[:, :, index] for index in (west, middle, east)]
        for part, index in zip(columns, (west, middle, east), strict=True):
            part[:, :, index < 0] = 0.0
        both = _merge(columns[0], columns[1], columns[2], seam=(ring_x, ring_x))
        block = np.moveaxis(both[::-1], (0, 2), (1, 3)).reshape(9, stop - start, mx)
        out[:, start:stop] = block
    grid = out.reshape(3, 3, my, mx)
    if not periodic[0]:
        grid[0, :, -1] = grid[2, :, 0] = 0.0
    if not periodic[1]:
        grid[:, 0, :, 0] = grid[:, 2, :, -1] = 0.0
    return out


def transpose(weights: Float, periodic: Periodic) -> Float:
    """Weights of the transposed matrix.

    Parameters
    ----------
    weights : ndarray (9, ny, nx)
        Of the matrix.
    periodic : tuple of bool
        Whether y and x are periodic.

    Returns
    -------
    ndarray (9, ny, nx)
    """
    out = np.empty_like(weights)
    for k, (dj, di) in enumerate(OFFSETS):
        source = weights[8 - k].copy()
        if not periodic[0] and dj:
            source[0 if dj > 0 else -1] = 0.0
        if not periodic[1] and di:
            source[:, 0 if di > 0 else -1] = 0.0
        out[k] = np.roll(source, (-dj, -di), axis=(0, 1))
    return out


def to_matrix(weights: Float, periodic: Periodic) -> sp.csc_array:
    """Sparse matrix of a stencil.

    Parameters
    ----------
    weights : ndarray (9, ny, nx)
        Of the matrix.
    periodic : tuple of bool
        Whether y and x are periodic.

    Returns
    -------
    scipy.sparse.csc_array (ny * nx, ny * nx)
        Neighbours that coincide on a tiny periodic grid are summed.
    """
    ny, nx = weights.shape[1:]
    j, i = np.divmod(np.arange(ny * nx), nx)
    rows, columns, values = [], [], []
    for weight, (dj, di) in zip(weights, OFFSETS, strict=True):
        inside = np.ones(ny * nx, dtype=bool)
        for place, size, ring in ((j + dj, ny, periodic[0]), (i + di, nx, periodic[1])):
            if not ring:
                inside &= (place >= 0) & (place < size)
        rows.append(np.flatnonzero(inside))
        columns.append((((j + dj) % ny) * nx + (i + di) % nx)[inside])
        values.append(weight.ravel()[inside])
    entries = tuple(map(np.concatenate, (values, rows, columns)))
    return sp.csc_array(sp.coo_array((entries[0], entries[1:]), shape=(ny * nx, ny * nx)))


def from_matrix(matrix: Any, shape: tuple[int, int], boundary: str) -> Float:
    """Nine weights of every node from a sparse matrix; inverse of :func:`to_matrix`.

    Parameters
    ----------
    matrix : sparse matrix (ny * nx, ny * nx)
        As from :func:`xr_spde.fields.stencil.assemble`.
    shape : tuple of int
        ``(ny, nx)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        Where the grid is periodic.

    Returns
    -------
    ndarray (9, ny, nx)

    Raises
    ------
    ParameterError
        If matrix and shape do not fit, or nodes that are not neighbours are coupled.
    UnknownNameError
        For an unknown boundary.
    """
    if boundary not in PERIODIC:
        raise unknown("boundary", boundary, PERIODIC)
    ny, nx = shape
    if matrix.shape != (ny * nx, ny * nx):
        raise ParameterError(
            f"matrix has shape {matrix.shape}; expected {(ny * nx, ny * nx)} for {shape}"
        )
    entries = sp.coo_array(matrix)
    (j, i), (toward_j, toward_i) = (np.divmod(index, nx) for index in entries.coords)
    steps = []
    for step, size, ring in (
        (toward_j - j, ny, PERIODIC[boundary][0]),
        (toward_i - i, nx, PERIODIC[boundary][1]),
    ):
        # on a ring of two nodes the step of one either way is the same
        short = (step + 1) % size - 1 if ring and size > 2 else step
        if np.abs(short).max(initial=0) > 1:
            raise ParameterError(
                f"matrix couples nodes {int(np.abs(short).max())} rows or columns apart; the "
                "multigrid solver expected a nine-point stencil"
            )
        steps.append(short)
    place = ((1 - steps[0]) * 3 + 1 + steps[1]) * (ny * nx) + entries.coords[0]
    values = np.asarray(entries.data, dtype=np.float64)
    sums = np.bincount(place, weights=values, minlength=9 * ny * nx)
    return np.asarray(sums.reshape(9, ny, nx), dtype=np.float64)

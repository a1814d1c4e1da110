"""Nine-point variable-coefficient stencils: the one place with index arithmetic and boundaries.

Arrays are canonical, ``(..., ny, nx)`` with both coordinates increasing: row 0 is the southern
row and column 0 the western column, so north is ``j + 1`` and east is ``i + 1``. Node ``(j, i)``
has the flat index ``j * nx + i``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown

Float = NDArray[np.float64]

OFFSETS: tuple[tuple[int, int], ...] = (
    (1, -1),
    (1, 0),
    (1, 1),
    (0, -1),
    (0, 0),
    (0, 1),
    (-1, -1),
    (-1, 0),
    (-1, 1),
)
"""Neighbours ``(dj, di)`` in the order NW, N, NE, W, C, E, SW, S, SE."""

BOUNDARIES: tuple[str, ...] = ("cylinder", "plane", "torus", "paper")
"""Names of the boundary rules; see :func:`periodicity`."""


def check_boundary(boundary: str) -> str:
    """Return `boundary` if it is one of :data:`BOUNDARIES`.

    Parameters
    ----------
    boundary : str
        Name to check.

    Returns
    -------
    str
        The same.

    Raises
    ------
    UnknownNameError
        If it is not.
    """
    if boundary not in BOUNDARIES:
        raise unknown("boundary", boundary, BOUNDARIES)
    return boundary


def periodicity(boundary: str, offset: tuple[int, int]) -> tuple[bool, bool]:
    """Whether the neighbour at `offset` wraps around in y and in x.

    Parameters
    ----------
    boundary : str
        ``"plane"`` drops every neighbour outside the grid; ``"cylinder"`` wraps x and drops
        what lies beyond the first and last row; ``"torus"`` wraps both; ``"paper"`` is the rule
        of the LatticeVision release: x wraps, the north and south neighbours are dropped, the
        four diagonal neighbours wrap in both directions. The centre weight never changes.
    offset : tuple of int
        ``(dj, di)``.

    Returns
    -------
    periodic_y, periodic_x : bool

    Raises
    ------
    UnknownNameError
        For an unknown boundary.

    References
    ----------
    LatticeVision, arXiv 2505.09803, and its released code for ``"paper"``.
    """
    check_boundary(boundary)
    diagonal = offset[0] != 0 and offset[1] != 0
    periodic_y = boundary == "torus" or (boundary == "paper" and diagonal)
    return periodic_y, boundary != "plane"


def check_weights(weights: ArrayLike) -> Float:
    """Return stencil weights as a float64 array (9, ny, nx).

    Parameters
    ----------
    weights : array_like (9, ny, nx)
        Weights to check.

    Returns
    -------
    ndarray (9, ny, nx)

    Raises
    ------
    ParameterError
        If the shape is another one or a weight is not finite.
    """
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 3 or array.shape[0] != len(OFFSETS) or 0 in array.shape:
        raise ParameterError(
            f"stencil weights have shape {array.shape}; expected (9, ny, nx) in the order of "
            "xr_spde.fields.stencil.OFFSETS"
        )
    if not np.isfinite(array).all():
        raise ParameterError(
            "stencil weights hold NaN or infinite values; fill land cells of the parameters first "
            "(xr_spde.fields.field.fill_missing)"
        )
    return array


@lru_cache(maxsize=4)
def _pattern(
    shape: tuple[int, int], boundary: str
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64] | None]:
    """Column pointers, row indices and order of the weights of the compressed-column matrix.

    The last item holds the starts of runs of equal entries when a periodic grid is so small
    that several neighbours fall on one node, and is None otherwise.
    """
    ny, nx = shape
    n = ny * nx
    rows = np.full((n, len(OFFSETS)), n, dtype=np.int64)
    j, i = np.divmod(np.arange(n), nx)
    for k, (dj, di) in enumerate(OFFSETS):
        periodic_y, periodic_x = periodicity(boundary, (dj, di))
        # column c is touched by the row of the node that has c as neighbour k
        jr, ir = j - dj, i - di
        inside = np.ones(n, dtype=bool)
        if not periodic_y:
            inside &= (jr >= 0) & (jr < ny)
        if not periodic_x:
            inside &= (ir >= 0) & (ir < nx)
        rows[inside, k] = ((jr % ny) * nx + ir % nx)[inside]
    order = np.argsort(rows, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    kept = rows < n
    indices = rows[kept]
    positions = (order * n + rows)[kept]
    columns = np.repeat(np.arange(n), kept.sum(axis=1))
    first = np.ones(indices.size, dtype=bool)
    first[1:] = (indices[1:] != indices[:-1]) | (columns[1:] != columns[:-1])
    starts = None if first.all() else np.flatnonzero(first)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(columns[first], minlength=n))])
    pattern = (indptr.astype(np.int32), indices[first].astype(np.int32), positions)
    for array in pattern:
        array.flags.writeable = False
    return *pattern, starts


def assemble(weights: ArrayLike, *, boundary: str) -> sp.csc_array:
    """Sparse matrix of a nine-point stencil with one set of weights per node.

    Parameters
    ----------
    weights : array_like (9, ny, nx)
        ``weights[k, j, i]`` multiplies the neighbour ``OFFSETS[k]`` of node ``(j, i)``.
    boundary : {"cylinder", "plane", "torus", "paper"}
        See :func:`periodicity`.

    Returns
    -------
    scipy.sparse.csc_array (ny * nx, ny * nx)
        With sorted indices. Neighbours that coincide on a tiny periodic grid are summed; zero
        weights stay in the pattern, which depends on shape and boundary alone.

    Raises
    ------
    ParameterError
        For another shape or non-finite weights.
    UnknownNameError
        For an unknown boundary.
    """
    array = check_weights(weights)
    ny, nx = array.shape[1:]
    indptr, indices, positions, starts = _pattern((ny, nx), check_boundary(boundary))
    data = array.ravel()[positions]
    if starts is not None:
        data = np.add.reduceat(data, starts)
    matrix = sp.csc_array((data, indices.copy(), indptr.copy()), shape=(ny * nx, ny * nx))
    matrix.has_sorted_indices = True
    return matrix


def _padded(fields: Float, periodic_y: bool, periodic_x: bool) -> Float:
    """Fields with a rim of one cell, wrapped where periodic and zero elsewhere."""
    lead = [(0, 0)] * (fields.ndim - 2)
    out = np.pad(fields, [*lead, (1, 1), (0, 0)], mode="wrap" if periodic_y else "constant")
    return np.pad(out, [*lead, (0, 0), (1, 1)], mode="wrap" if periodic_x else "constant")


def apply(weights: ArrayLike, fields: ArrayLike, *, boundary: str) -> Float:
    """Product of the stencil matrix with fields, without assembling it.

    Parameters
    ----------
    weights : array_like (9, ny, nx)
        As in :func:`assemble`.
    fields : array_like (..., ny, nx)
        Any number of leading dimensions. A missing value spreads to the nodes whose stencil
        touches it.
    boundary : {"cylinder", "plane", "torus", "paper"}
        See :func:`periodicity`.

    Returns
    -------
    ndarray (..., ny, nx)
        ``B y`` in float64.

    Raises
    ------
    ParameterError
        For shapes that do not fit or non-finite weights.
    UnknownNameError
        For an unknown boundary.
    """
    array = check_weights(weights)
    values = np.asarray(fields, dtype=np.float64)
    ny, nx = array.shape[1:]
    if values.ndim < 2 or values.shape[-2:] != (ny, nx):
        raise ParameterError(
            f"fields have shape {values.shape}; expected (..., {ny}, {nx}) as in the weights"
        )
    check_boundary(boundary)
    rims: dict[tuple[bool, bool], Float] = {}
    out = np.zeros_like(values)
    for weight, offset in zip(array, OFFSETS, strict=True):
        wrap = periodicity(boundary, offset)
        if wrap not in rims:
            rims[wrap] = _padded(values, *wrap)
        dj, di = offset
        out += weight * rims[wrap][..., 1 + dj : 1 + dj + ny, 1 + di : 1 + di + nx]
    return out

"""From labelled grids and observations to the arrays of space-time interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import GridError, ParameterError
from xr_spde.fields.mesh import Mesh
from xr_spde.labels.grid import Grid

__all__ = ["finite_guess", "mesh_of", "spacetime_rows"]

Float = NDArray[np.float64]

_SLACK = 1e-9


def mesh_of(
    grid: Grid, *, land: NDArray[Any] | None = None, edge: str = "neumann", coast: str = "neumann"
) -> Mesh:
    """Mesh in metres of a labelled grid.

    Parameters
    ----------
    grid : Grid
        With geographic coordinates or lengths.
    land : ndarray (ny, nx) of bool, optional
        In canonical order.
    edge : {"neumann", "dirichlet"}, default "neumann"
        What lies beyond the edges; longitudes that close are periodic.
    coast : {"neumann", "dirichlet"}, default "neumann"
        What lies on land.

    Returns
    -------
    Mesh
        In canonical order.

    Raises
    ------
    GridError
        If the coordinates have no lengths.
    """
    dy, dx = grid.cell_size()
    if not np.isfinite(dx).all():
        raise GridError(
            f"the coordinates {grid.y_dim!r}, {grid.x_dim!r} have no lengths; expected degrees, or "
            "units such as m or km"
        )
    over_x = "periodic" if grid.periodic_x else edge
    return Mesh.of(grid.shape, dx=dx[:, None], dy=dy[:, None], boundary=(edge, over_x), land=land,
                   coast=coast)  # fmt: skip


def finite_guess(fields: NDArray[Any], land: NDArray[np.bool_], first: int) -> Float:
    """First guess without land, where it is known everywhere else.

    Parameters
    ----------
    fields : ndarray (steps, ny, nx)
        Canonical.
    land : ndarray (ny, nx) of bool
        Canonical.
    first : int
        Step of the first of them, for the error.

    Returns
    -------
    ndarray (steps, ny, nx)
        Zero on land.

    Raises
    ------
    ParameterError
        For values off land that are NaN or infinite.
    """
    found = np.where(land, 0.0, fields)
    bad = ~np.isfinite(found)
    if bad.any():
        raise ParameterError(
            f"the first guess has {int(bad.sum())} values off land that are NaN or infinite, "
            f"the first at time {first + int(np.argmax(bad.any(axis=(1, 2))))} (counted from 0); "
            "land is where it is NaN at its first time: fill the others"
        )
    return found


def spacetime_rows(rows: sp.csr_array, position: Float, steps: int) -> sp.csr_array:
    """Rows of observations between the steps of a window, linear in time.

    Parameters
    ----------
    rows : csr_array (p, n)
        What each observes of the field at its time, in canonical order, such as from
        `Observations.canonical`.
    position : ndarray (p,)
        Time as a fraction of steps: 1.25 is a quarter after step 1.
    steps : int
        Steps of the window.

    Returns
    -------
    csr_array (p, steps * n)

    Raises
    ------
    ParameterError
        For positions that are not finite or outside the window; says how many.
    """
    at = np.asarray(position, dtype=np.float64)
    if at.shape != (rows.shape[0],):
        raise ParameterError(f"position has shape {at.shape}; expected ({rows.shape[0]},)")
    inside = (at >= -_SLACK) & (at <= steps - 1 + _SLACK)  # NaN is outside
    if not inside.all():
        raise ParameterError(
            f"{int((~inside).sum())} of {at.size} observations are outside the window of {steps} "
            f"steps, the first at index {int(np.argmin(inside))} (position "
            f"{at[np.argmin(inside)]:g}); select those inside"
        )
    first = np.clip(np.floor(at), 0, max(steps - 2, 0)).astype(np.intp)
    share = np.clip(at - first, 0.0, 1.0)
    entries = sp.coo_array(rows)
    which, node, n = entries.row, entries.col.astype(np.intp), rows.shape[1]
    parts = [
        (entries.data * weight[which], which, (first + ahead)[which] * n + node)
        for ahead, weight in ((0, 1.0 - share), (1, share))
    ]
    data, row, column = (np.concatenate(one) for one in zip(*parts, strict=True))
    used = data != 0.0
    shape = (rows.shape[0], steps * n)
    return sp.csr_array(sp.coo_array((data[used], (row[used], column[used])), shape=shape))

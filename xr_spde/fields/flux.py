"""Eulerian schemes: first-order upwind, WENO5 fluxes and splatting; numpy and torch alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from xr_spde._core.errors import ParameterError
from xr_spde.fields.arrays import Array, as_kind, is_tensor, neighbour, to_numpy
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure

__all__ = ["splat", "spread", "stable_step", "upwind", "weno5"]

_TINY = 1e-6


def stable_step(velocity: Array, courant: float) -> float:
    """Largest time step at a Courant number, ``courant / max(|qx| + |qy|)``.

    Parameters
    ----------
    velocity : array or tensor (..., 2, ny, nx)
        In cells per unit of time.
    courant : float
        Courant number, > 0.

    Returns
    -------
    float
        Infinite where nothing moves.

    Raises
    ------
    ParameterError
        If the Courant number is not positive or the velocity not finite.
    """
    if not courant > 0:
        raise ParameterError(f"courant={courant!r}; expected a number above 0, stable up to 1")
    q = to_numpy(velocity)
    fastest = float(np.abs(q).sum(axis=-3).max())
    if not math.isfinite(fastest):
        raise ParameterError("the velocity holds NaN or infinite values; fill its gaps first")
    return math.inf if fastest == 0 else courant / fastest


def _march(
    state: Array, tau: float, limit: float, advance: Callable[[Array, float], Array]
) -> Array:
    """Take equal steps not above the limit."""
    count = max(1, math.ceil(abs(tau) / limit - 1e-9)) if math.isfinite(limit) else 1
    for _ in range(count):
        state = advance(state, abs(tau) / count)
    return state


def _components(velocity: Array, tau: float, state: Array) -> tuple[Array, Array]:
    """Components in the direction of time, ready to meet the state."""
    q = velocity if tau >= 0 else -velocity
    if q.ndim == 4:
        q = q.reshape(q.shape[0], 2, *(1,) * (state.ndim - 3), *q.shape[-2:])
        return q[:, 0], q[:, 1]
    return q[0], q[1]


def upwind(
    state: Array, velocity: Array, tau: float, cells: Cells, *, courant: float = 0.5
) -> Array:
    """Advective form by first-order upwind differences; very diffusive, for comparison.

    Parameters
    ----------
    state : array or tensor (..., ny, nx)
        Values that are carried.
    velocity : array or tensor (2, ny, nx) or (b, 2, ny, nx)
        In cells per unit of time.
    tau : float
        Time; negative runs the velocity backwards.
    cells : Cells
        The grid.
    courant : float
        Courant number, stable up to 1.

    Returns
    -------
    array or tensor (..., ny, nx)
    """
    qx, qy = _components(velocity, tau, state)
    wrap = cells.periodic_x

    def advance(p: Array, dt: float) -> Array:
        west, east = (neighbour(p, k, -1, periodic=wrap) for k in (-1, 1))
        south, north = (neighbour(p, k, -2) for k in (-1, 1))
        change = _positive(qx) * (p - west) - _positive(-qx) * (east - p)
        change = change + _positive(qy) * (p - south) - _positive(-qy) * (north - p)
        return p - dt * change

    return _march(state, tau, stable_step(velocity, courant), advance)


def _positive(array: Array) -> Array:
    return (array + abs(array)) / 2


def weno5(
    state: Array, velocity: Array, tau: float, cells: Cells, *, courant: float = 0.6
) -> Array:
    """Conservative form: WENO5 fluxes through faces, Runge-Kutta steps of third order.

    Amounts per area are carried, and their sum over cells is kept to rounding: borders are walls.

    Parameters
    ----------
    state, velocity, tau, cells
        As in :func:`upwind`; state in amount per area.
    courant : float
        Courant number.

    Returns
    -------
    array or tensor (..., ny, nx)

    References
    ----------
    Jiang, G.-S. and Shu, C.-W. (1996): Efficient implementation of weighted ENO schemes. J. Comput.
    Phys. 126, 202-228.
    """
    area = as_kind(cells.area[:, None], state)
    qx, qy = _components(velocity, tau, state)
    wrap = cells.periodic_x
    speed_x = (qx + neighbour(qx, 1, -1, periodic=wrap)) / 2 * area
    speed_y = (qy * area + neighbour(qy * area, 1, -2)) / 2
    open_x, open_y = np.ones((1, cells.nx)), np.ones((cells.ny, 1))
    open_y[-1] = 0.0
    if not wrap:
        open_x[0, -1] = 0.0
    speed_x, speed_y = speed_x * as_kind(open_x, state), speed_y * as_kind(open_y, state)

    def tendency(p: Array) -> Array:
        flux_x, flux_y = _flux(p, speed_x, -1, wrap), _flux(p, speed_y, -2, False)
        # the flux through the last face of a wall is 0, so what rolls around is 0
        into_x, into_y = (
            neighbour(f, -1, a, periodic=True) for f, a in ((flux_x, -1), (flux_y, -2))
        )
        return (into_x - flux_x + into_y - flux_y) / area

    def advance(p: Array, dt: float) -> Array:
        first = p + dt * tendency(p)
        second = 0.75 * p + 0.25 * (first + dt * tendency(first))
        return p / 3 + 2 / 3 * (second + dt * tendency(second))

    return _march(state, tau, stable_step(velocity, courant), advance)


def _flux(p: Array, speed: Array, axis: int, periodic: bool) -> Array:
    """Flux through the face ahead of each node."""
    a, b, _, d, e, f = (neighbour(p, k, axis, periodic=periodic) for k in (-2, -1, 0, 1, 2, 3))
    return _positive(speed) * _face(a, b, p, d, e) - _positive(-speed) * _face(f, e, d, p, b)


def _face(a: Array, b: Array, c: Array, d: Array, e: Array) -> Array:
    """Value at the face between c and d, seen from the side of c."""
    first = (2 * a - 7 * b + 11 * c) / 6
    second = (-b + 5 * c + 2 * d) / 6
    third = (2 * c + 5 * d - e) / 6
    rough = (
        13 / 12 * (a - 2 * b + c) ** 2 + (a - 4 * b + 3 * c) ** 2 / 4,
        13 / 12 * (b - 2 * c + d) ** 2 + (b - d) ** 2 / 4,
        13 / 12 * (c - 2 * d + e) ** 2 + (3 * c - 4 * d + e) ** 2 / 4,
    )
    w = [share / (_TINY + r) ** 2 for share, r in zip((0.1, 0.6, 0.3), rough, strict=True)]
    return (w[0] * first + w[1] * second + w[2] * third) / (w[0] + w[1] + w[2])


def splat(
    state: Array, velocity: Array, tau: float, cells: Cells, *, steps: int | None = None
) -> Array:
    """Conservative form by parcels: each cell's amount is laid on the four nodes where it goes.

    The exact adjoint of bilinear sampling. Sums are kept to rounding; parcels that would leave stay
    at the border. Where parcels spread by more than a cell, gaps show between them.

    Parameters
    ----------
    state, velocity, tau, cells
        As in :func:`weno5`.
    steps : int, optional
        Of the characteristics; see :func:`xr_spde.fields.characteristics.steps_for`.

    Returns
    -------
    array or tensor (..., ny, nx)
    """
    y, x = departure(velocity, -tau, steps=steps, periodic_x=cells.periodic_x)
    area = as_kind(cells.area[:, None], state)
    return spread(state * area, y, x, periodic_x=cells.periodic_x) / area


def spread(amount: Array, y: Array, x: Array, *, periodic_x: bool = False) -> Array:
    """Lay the amounts of nodes on the four nodes around their new positions.

    Parameters
    ----------
    amount : array or tensor (..., ny, nx)
        What each node sends.
    y, x : array or tensor (ny, nx) or (b, ny, nx)
        Where to, in cells; clipped to the grid.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    array or tensor (..., ny, nx)
        With the same sum.
    """
    ny, nx = amount.shape[-2:]
    if y.ndim == 3:
        parts = [
            spread(a, b, c, periodic_x=periodic_x) for a, b, c in zip(amount, y, x, strict=True)
        ]
        if is_tensor(amount):
            import torch

            return torch.stack(parts)
        return np.stack(parts)
    y = y.clip(0, ny - 1)
    x = x % nx if periodic_x else x.clip(0, nx - 1)
    flat = amount.reshape(-1, ny * nx)
    j, i = (_floor(p) for p in (y, x))
    out = flat * 0
    for dj in (0, 1):
        for di in (0, 1):
            weight = (1 - abs(y - j - dj)) * (1 - abs(x - i - di))
            column = (i + di) % nx if periodic_x else (i + di).clip(0, nx - 1)
            index = (j + dj).clip(0, ny - 1) * nx + column
            _add(out, index.reshape(-1), flat * weight.reshape(-1))
    return out.reshape(amount.shape)


def _floor(position: Array) -> Array:
    if is_tensor(position):
        return position.detach().floor()
    return np.floor(position)


def _add(out: Array, index: Array, values: Array) -> None:
    """Add values (m, n) to the columns of ``out`` (m, n) that an index names, in place."""
    if is_tensor(out):
        out.index_add_(1, index.long(), values)
        return
    whole = index.astype(np.intp)
    for row, value in zip(out, values, strict=True):
        row += np.bincount(whole, weights=value, minlength=row.size)

r"""Characteristics of a velocity that changes slowly: a polynomial in time at every cell.

.. math::

    q(x, s) = \sum_{j=0}^{d} c_j(x)\, P_j(2 s - 1), \qquad 0 \le s \le 1,

with the polynomials of Legendre. Degree 0 is a steady velocity; n images tell n - 1 coefficients.
Values that are carried may grow on the way (:func:`grown`) and be smoothed (:func:`levelled`).
"""

from __future__ import annotations

import math

from xr_spde._core.errors import ParameterError
from xr_spde.fields.arrays import Array, to_numpy
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure
from xr_spde.fields.diffusion import diffuse
from xr_spde.fields.sampling import sample

__all__ = ["grown", "levelled", "trace", "turned_back", "velocity_at"]

MIDDLE = 0.5
"""Share of the span at which sources are laid on the grid: the same seen from either end."""

PER_SPAN = 8
"""Pieces of the whole span in which an unsteady velocity is held at its value in the middle."""


def velocity_at(coefficients: Array, s: float) -> Array:
    """Velocity at a time.

    Parameters
    ----------
    coefficients : array or tensor (..., d + 1, 2, ny, nx)
        In cells per span, x first.
    s : float
        Time as a share of the span.

    Returns
    -------
    array or tensor (..., 2, ny, nx)
    """
    z = 2.0 * s - 1.0
    before, value = 0.0, 1.0
    total = coefficients[..., 0, :, :, :]
    for j in range(1, coefficients.shape[-4]):
        before, value = value, ((2 * j - 1) * z * value - (j - 1) * before) / j
        total = total + value * coefficients[..., j, :, :, :]
    return total


def trace(
    coefficients: Array,
    at: float,
    since: float,
    *,
    steps: int | None = None,
    start: tuple[Array, Array] | None = None,
    periodic_x: bool = False,
) -> tuple[Array, Array]:
    """Positions at one time of the parcels that are at the nodes at another.

    Parameters
    ----------
    coefficients : array or tensor (d + 1, 2, ny, nx) or (b, d + 1, 2, ny, nx)
        Velocity, see the head of this module.
    at : float
        Time, as a share of the span, at which parcels are at the nodes.
    since : float
        Time at which their positions are asked; before or after.
    steps : int, optional
        Runge-Kutta steps; see :func:`xr_spde.fields.characteristics.steps_for`. Of an unsteady
        velocity: steps of each piece in which it is held.
    start : (y, x), optional
        Positions at the time `at`, instead of the nodes.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    y, x : array or tensor (ny, nx) or (b, ny, nx)
        In cells.

    Raises
    ------
    ParameterError
        For coefficients of another shape.
    """
    if coefficients.ndim not in (4, 5) or coefficients.shape[-3] != 2:
        raise ParameterError(
            f"coefficients have shape {tuple(coefficients.shape)}; expected (d + 1, 2, ny, nx) or "
            "(b, d + 1, 2, ny, nx)"
        )
    steady = coefficients.shape[-4] == 1
    pieces = 1 if steady else max(1, math.ceil(PER_SPAN * abs(at - since) - 1e-9))
    h = (at - since) / pieces
    positions = start
    for piece in range(pieces):
        held = velocity_at(coefficients, at - (piece + 0.5) * h)
        positions = departure(held, h, steps=steps, start=positions, periodic_x=periodic_x)
    if positions is None:  # pieces is at least one
        raise ParameterError("no piece of time to trace over")
    return positions


def turned_back(coefficients: Array) -> Array:
    """Coefficients of the same motion seen with time running backwards.

    Parameters
    ----------
    coefficients : array or tensor (d + 1, 2, ny, nx)
        Velocity.

    Returns
    -------
    array or tensor (d + 1, 2, ny, nx)
    """
    out = -coefficients
    for j in range(1, coefficients.shape[-4], 2):
        out[..., j, :, :, :] = coefficients[..., j, :, :, :]
    return out


def grown(
    values: Array,
    source: Array,
    coefficients: Array,
    at: float,
    since: float,
    *,
    periodic_x: bool = False,
) -> Array:
    r"""Add what a source that each parcel carries has given to carried values.

    :math:`p(x, t) = p_0(X_{t_0}) + (t - t_0)\, s(X_{1/2})`, with :math:`X_r` where the parcel is at
    the time r: the rate of change s of a parcel is laid where it is in the middle of the span.

    Parameters
    ----------
    values : array or tensor (..., ny, nx) or (b, ..., ny, nx)
        Carried from the time `since` to the time `at`.
    source : array or tensor like `values`
        Per span.
    coefficients : array or tensor (d + 1, 2, ny, nx) or (b, d + 1, 2, ny, nx)
        Velocity, see the head of this module.
    at, since : float
        Times as shares of the span.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    array or tensor like `values`
    """
    here = source
    if at != MIDDLE:
        y, x = trace(coefficients, at, MIDDLE, periodic_x=periodic_x)
        here = sample(source, y, x, kernel="linear", periodic_x=periodic_x)
    return values + (at - since) * here


def levelled(
    values: Array,
    diffusivity: Array | float,
    since: float,
    at: float,
    *,
    periodic_x: bool = False,
) -> Array:
    """Smooth values as diffusion between two times does, or not at all where it would sharpen.

    Parameters
    ----------
    values : array or tensor (..., ny, nx)
        As they were at the time `since`.
    diffusivity : float, or array or tensor without dimensions
        In squares of a cell per span; negative if images sharpen with time.
    since, at : float
        Times as shares of the span.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    array or tensor (..., ny, nx)
    """
    if float(to_numpy(diffusivity)) * (at - since) <= 0:
        return values
    ny, nx = values.shape[-2:]
    cells = Cells(ny, nx, periodic_x=periodic_x)
    return diffuse(values, abs(diffusivity), abs(at - since), cells)

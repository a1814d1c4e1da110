"""Functions of position from which a multiplicative network takes its filters.

Every bank gives, for each layer, q functions at P points. The banks of the sphere take longitude
and latitude in radians, those of a plane x and y within [-1, 1]. With `levels` a third coordinate
within [-1, 1] (a scaled logarithm of pressure, a depth) multiplies every function with Legendre
polynomials, the tensor product.

- ``"spherical"``, the source's: at layer i the harmonics ``(|m| + i, m)``, ``|m| <= order``;
- ``"rotational"``: all harmonics up to degree `order` at every layer, a space that any rotation
  maps into itself, which that of the source is not (only rotations about the axis);
- ``"fourier"``: products of cosines and sines, `order` waves along each axis; along an axis that
  is not periodic the period is twice the domain, so that nothing is imposed at its edges;
- ``"spline"``: products of cubic B-splines on `order` intervals along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.harmonics import spherical_harmonics, triangle

__all__ = ["BANKS", "bank_size", "evaluate_bank"]

BANKS = ("spherical", "rotational", "fourier", "spline")
_ROUNDING = 1e-6
_Array = NDArray[np.float64]


def bank_size(bank: str, order: int, levels: int, periodic: Sequence[bool]) -> int:
    """Count the functions of a layer.

    Parameters
    ----------
    bank : str
        One of `BANKS`.
    order : int
        Its resolution.
    levels : int
        Degree of the polynomials of the third coordinate; 0 for none.
    periodic : two of bool
        Whether the axes of a plane are.

    Returns
    -------
    int

    Raises
    ------
    UnknownNameError
        For another bank.
    """
    if bank == "spherical":
        count = 2 * order + 1
    elif bank == "rotational":
        count = (order + 1) ** 2
    elif bank == "fourier":
        count = (2 * order + 1) ** 2
    elif bank == "spline":
        count = math.prod(order if wraps else order + 3 for wraps in periodic)
    else:
        raise unknown("filter bank", bank, BANKS)
    return count * (levels + 1)


def evaluate_bank(
    bank: str, points: ArrayLike, layers: int, order: int, levels: int, periodic: Sequence[bool]
) -> _Array:
    """Evaluate the functions of every layer.

    Parameters
    ----------
    bank : str
        One of `BANKS`.
    points : array_like (P, 2), or (P, 3) with `levels`
        See the module.
    layers : int
        Their number.
    order, levels, periodic
        As for `bank_size`.

    Returns
    -------
    ndarray (layers, P, q) of float64
        A read-only view where all layers have the same functions.

    Raises
    ------
    ParameterError
        For points of another kind, or outside the domain.
    UnknownNameError
        For another bank.
    """
    size = bank_size(bank, order, levels, periodic)
    given, height = _split(points, levels)
    if bank == "spherical":
        orders = np.arange(-order, order + 1)
        shifted = np.abs(orders) + np.arange(layers)[:, None]
        pairs = np.stack([shifted, np.broadcast_to(orders, shifted.shape)], -1)
        values = spherical_harmonics(given, pairs.reshape(-1, 2))
        values = values.reshape(layers, len(orders), -1).transpose(0, 2, 1)
    elif bank == "rotational":
        values = spherical_harmonics(given, triangle(order)).T[None]
    else:
        plane = _inside(given, "coordinates of a plane")
        axis = _waves if bank == "fourier" else _splines
        x, y = (axis(plane[:, i], order, bool(periodic[i])) for i in range(2))
        values = (x[:, :, None] * y[:, None, :]).reshape(1, len(plane), -1)
    if height is not None:
        vertical = legvander(height, levels)
        values = (values[..., None] * vertical[:, None, :]).reshape(*values.shape[:2], -1)
    return np.broadcast_to(values, (layers, len(given), size))


def _split(points: ArrayLike, levels: int) -> tuple[_Array, _Array | None]:
    given = np.asarray(points, dtype=np.float64)
    columns = 3 if levels else 2
    if given.ndim != 2 or given.shape[1] != columns:
        raise ParameterError(
            f"points of shape {given.shape}: give (points, {columns})"
            + (", the third the height within [-1, 1]" if levels else "")
        )
    if not levels:
        return given, None
    return given[:, :2], _inside(given[:, 2:], "heights").ravel()


def _inside(given: _Array, what: str) -> _Array:
    if given.shape[0] == 0 or not np.isfinite(given).all():
        raise ParameterError("points: none, or some coordinates are missing; leave those out")
    largest = float(np.abs(given).max())
    if largest > 1.0 + _ROUNDING:
        raise ParameterError(
            f"points reach {largest:.4g}: {what} must be scaled to [-1, 1], by the bounds of the "
            "domain that the model was trained on"
        )
    return np.clip(given, -1.0, 1.0)


def _waves(x: _Array, order: int, periodic: bool) -> _Array:
    turns = np.arange(1, order + 1) * (math.pi if periodic else 0.5 * math.pi)
    phase = x[:, None] * turns
    return np.concatenate([np.ones((len(x), 1)), np.cos(phase), np.sin(phase)], axis=1)


def _splines(x: _Array, order: int, periodic: bool) -> _Array:
    place = 0.5 * (x + 1.0) * order
    cell = np.minimum(np.floor(place).astype(np.int64), order - 1)
    t = place - cell
    four = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    values = np.zeros((len(x), order if periodic else order + 3))
    rows = np.arange(len(x))
    for shift, piece in enumerate(four):
        column = (cell + shift) % order if periodic else cell + shift
        # an axis of fewer than four intervals meets itself, and the pieces add up
        np.add.at(values, (rows, column), piece / 6.0)
    return values

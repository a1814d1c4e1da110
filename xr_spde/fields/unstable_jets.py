r"""First states of shallow water: a balanced zonal jet in either hemisphere, and a disturbance.

Between the latitudes :math:`\phi_0 = \pi / 7` and :math:`\phi_1 = \pi / 2 - \phi_0` of either
hemisphere the water flows east with

.. math::

    u = u_m \exp \frac{1}{(|\phi| - \phi_0)(|\phi| - \phi_1)} \Big/
        \exp \frac{-4}{(\phi_1 - \phi_0)^2},

the height balances it, and a bump on top,

.. math::

    120\,\text{m} \cdot \cos \phi \; e^{- (3 \lambda)^2}
    \Big(e^{- (15 (\pi / 4 - \phi))^2} + e^{- (15 (\pi / 4 + \phi))^2}\Big), \qquad
    0 \le \lambda < 2 \pi,

sets the waves off that make it break up within days.

References
----------
Galewsky, Scott and Polvani (2004), Tellus A 56; in both hemispheres, with a bump that begins
abruptly at longitude zero: Li, Dong and Zhang (2024), J. Comput. Phys.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.legendre import gauss_latitudes
from xr_spde.fields.shallow_water import ShallowWater

__all__ = ["jet_speed", "jets"]

Float = NDArray[np.float64]

_EDGES = math.pi / 7.0, math.pi / 2.0 - math.pi / 7.0
_BUMP = 120.0
_WIDTHS = 1.0 / 3.0, 1.0 / 15.0
_ROWS = 128
"""Least number of Gauss latitudes on which jet and bump are sampled."""


def jet_speed(latitudes: ArrayLike) -> Float:
    """Give the speed of the jet over that in its middle.

    Parameters
    ----------
    latitudes : array_like
        In radians.

    Returns
    -------
    ndarray
    """
    low, high = _EDGES
    phi = np.abs(np.asarray(latitudes, dtype=np.float64))
    inside = (phi > low) & (phi < high)
    product = np.where(inside, (phi - low) * (phi - high), -1.0)
    return np.where(inside, np.exp(1.0 / product + 4.0 / (high - low) ** 2), 0.0)


def jets(model: ShallowWater, speeds: ArrayLike, *, bump: float = _BUMP) -> NDArray[Any]:
    """Give first states of a model, one for each speed of the jet.

    Parameters
    ----------
    model : ShallowWater
    speeds : array_like (runs,)
        In the middle of the jet, in m/s.
    bump : float, default 120
        Height of the disturbance in m.

    Returns
    -------
    ndarray (3, 2, T + 1, k, runs)

    Raises
    ------
    ParameterError
        Speeds that are not finite.
    """
    middle = np.atleast_1d(np.asarray(speeds, dtype=np.float64))
    if middle.ndim != 1 or not np.isfinite(middle).all():
        raise ParameterError(f"speeds={speeds!r}; expected finite numbers in m/s")
    rows = max(_ROWS, model.shape[0])
    sines, weights = gauss_latitudes(rows)
    latitudes = np.arcsin(sines)
    (values, slopes), (even, _) = model.functions(sines)
    state = np.zeros((3, 2, *values.shape[::2], middle.size))
    # the rotation of a zonal flow: by parts, against the slopes of the functions of order zero
    flow = 2.0 * np.pi * weights * jet_speed(latitudes) / np.cos(latitudes) / model.radius
    state[0, 0, 0] = (flow @ slopes[0])[:, None] * middle
    state = model.balance(state.astype(model.dtype))
    longitudes = np.pi / rows * np.arange(2 * rows)
    across = np.exp(-(((math.pi / 4.0 - latitudes) / _WIDTHS[1]) ** 2))
    across = (across + across[::-1]) * np.cos(latitudes) * weights
    phase = np.arange(model.truncation + 1)[:, None] * longitudes
    along = np.pi / rows * np.exp(-((longitudes / _WIDTHS[0]) ** 2))
    orders = np.stack([np.cos(phase) @ along, np.sin(phase) @ along])
    shape = bump * orders[:, :, None] * np.einsum("j,mjk->mk", across, even)
    state[2] += shape[..., None].astype(model.dtype)
    return state

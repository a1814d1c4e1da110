r"""Parameters of the prior that a network estimated: joined between windows, and in km and days.

A network counts in cells and steps, both equal to one: ``dx/dt + (kappa^2 + m . grad - div H
grad)^(alpha/2) x = tau z`` with ``H = gamma I + beta v v'``. The direction v has no sign, so
windows and patches are averaged in H itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.grid_units import from_grid_units
from xr_spde.fields.spde_physical import to_physical

__all__ = ["MAPS", "physical_maps", "symmetric", "with_directions"]

Float = NDArray[np.float64]

MAPS: dict[str, tuple[str, str]] = {
    "theta_length": ("correlation length along the direction of longest correlation", "km"),
    "theta_length_across": ("correlation length across that direction", "km"),
    "theta_angle": ("direction of longest correlation, counter-clockwise from increasing X toward "
                    "increasing Y", "radian"),
    "theta_decay_time": ("decay time of the longest waves", "days"),
    "theta_u": ("velocity along increasing X at which anomalies move", "m s-1"),
    "theta_v": ("velocity along increasing Y at which anomalies move", "m s-1"),
    "theta_tau": ("amplitude of the driving noise", "{} km day-0.5"),
}  # fmt: skip
"""Names, descriptions and units of the maps."""

_DAY, _KM = 86_400.0, 1_000.0


def symmetric(theta: NDArray[Any]) -> NDArray[Any]:
    """Replace direction and stretch by the tensor.

    Parameters
    ----------
    theta : ndarray (8, ...)
        kappa, tau, m1, m2, v1, v2, gamma, beta.

    Returns
    -------
    ndarray (7, ...)
        kappa, tau, m1, m2, H11, H22, H12.
    """
    v1, v2, gamma, beta = theta[4:]
    return np.stack([*theta[:4], gamma + beta * v1**2, gamma + beta * v2**2, beta * v1 * v2])


def with_directions(fields: NDArray[Any]) -> NDArray[Any]:
    """Return to direction and stretch, with beta = 1; inverse of `symmetric` but for the sign of v.

    Parameters
    ----------
    fields : ndarray (7, ...)
        kappa, tau, m1, m2, H11, H22, H12.

    Returns
    -------
    ndarray (8, ...)
        kappa, tau, m1, m2, v1, v2, gamma, beta.
    """
    h11, h22, h12 = fields[4:]
    apart = np.hypot(0.5 * (h11 - h22), h12)
    angle = 0.5 * np.arctan2(h12, 0.5 * (h11 - h22))
    length = np.sqrt(2.0 * apart)
    gamma = 0.5 * (h11 + h22) - apart
    return np.stack([*fields[:4], length * np.cos(angle), length * np.sin(angle), gamma,
                     np.ones_like(gamma)])  # fmt: skip


def physical_maps(
    fields: NDArray[Any],
    size_y: Float,
    size_x: Float,
    *,
    step: float,
    alpha: int,
    land: NDArray[np.bool_],
) -> dict[str, Float]:
    """Express joined parameters in km and days.

    Parameters
    ----------
    fields : ndarray (7, steps, ny, nx)
        As of `symmetric`, with tau in units of the field.
    size_y, size_x : ndarray (ny,)
        Of the cells of each row in metres: a length in cells is shorter in km where meridians
        converge.
    step : float
        Days.
    alpha : {2, 4}
        Power of the prior.
    land : ndarray (ny, nx) of bool
        Where nothing is known.

    Returns
    -------
    dict of str to ndarray (steps, ny, nx)
        Those of :data:`MAPS`.
    """
    theta = with_directions(np.asarray(fields, dtype=np.float64))
    dx, dy = size_x[:, None], size_y[:, None]
    found = from_grid_units(theta, dx=dx, dy=dy, dt=step, alpha=alpha, land=land)
    p = to_physical(found, alpha)
    return {
        "theta_length": p.longest / _KM, "theta_length_across": p.shortest / _KM,
        "theta_angle": p.angle, "theta_decay_time": p.time, "theta_u": p.u / _DAY,
        "theta_v": p.v / _DAY, "theta_tau": found.tau / _KM,
    }  # fmt: skip

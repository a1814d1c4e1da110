r"""Parameters of the space-time prior in cells and steps, as networks have them, and back.

With :math:`c = dt^{2/\alpha}`, a field divided by s and cells of area :math:`\Delta = dx\,dy`,

.. math::

    \kappa'^2 = c \kappa^2, \quad m' = c\,(m_1 / dx, m_2 / dy), \quad
    H'_{ij} = c H_{ij} / (dx_i dx_j), \quad \tau' = \tau \sqrt{dt / \Delta} / s

give the same prior on unit cells and steps: exactly where dx and dy are constant, and otherwise up
to the change of the cells' area from one to the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.spde import SpdeParameters

__all__ = ["from_grid_units", "to_grid_units"]

Float = NDArray[np.float64]


def to_grid_units(
    parameters: SpdeParameters,
    *,
    dx: ArrayLike,
    dy: ArrayLike,
    dt: float,
    alpha: int,
    scale: float = 1.0,
) -> Float:
    """Parameters in cells, steps and units of the normalised field.

    Parameters
    ----------
    parameters : SpdeParameters
        In metres and units of time.
    dx, dy : array_like
        Spacings in metres: scalars, (ny, 1) or (ny, nx).
    dt : float
        Length of a step in units of time.
    alpha : {2, 4}
        Power of the prior.
    scale : float, default 1
        By which the field is divided.

    Returns
    -------
    ndarray (8, steps, ny, nx)
        In the order kappa, tau, m1, m2, v1, v2, gamma, beta; v has unit length, gamma is the
        smaller and ``gamma + beta`` the larger eigenvalue of H.

    Raises
    ------
    ParameterError
        For spacings, steps or a scale that are not positive.
    """
    dx, dy, unit = _checked(dx, dy, dt, alpha, scale)
    p = parameters
    h11, h22, h12 = (
        unit * part
        for part in (p.gamma + p.beta * p.v1**2, p.gamma + p.beta * p.v2**2, p.beta * p.v1 * p.v2)
    )
    tau = p.tau * np.sqrt(dt / (dx * dy)) / scale
    flow = unit * p.m1 / dx, unit * p.m2 / dy
    tensor = _decomposed(h11 / dx**2, h22 / dy**2, h12 / (dx * dy))
    return np.stack([np.sqrt(unit) * p.kappa, tau, *flow, *tensor])


def from_grid_units(
    theta: Float,
    *,
    dx: ArrayLike,
    dy: ArrayLike,
    dt: float,
    alpha: int,
    scale: float = 1.0,
    land: ArrayLike | None = None,
) -> SpdeParameters:
    """Parameters in metres and units of time; inverse of :func:`to_grid_units`.

    Parameters
    ----------
    theta : ndarray (8, steps, ny, nx)
        In cells, steps and normalised units.
    dx, dy, dt, alpha, scale
        As for :func:`to_grid_units`.
    land : array_like (ny, nx) of bool, optional
        Where theta may be anything.

    Returns
    -------
    SpdeParameters

    Raises
    ------
    ParameterError
        For another shape, spacings, steps or a scale that are not positive, or parameters with
        which the operator is not elliptic.
    """
    if theta.ndim != 4 or len(theta) != 8:
        raise ParameterError(f"theta has shape {theta.shape}; expected (8, steps, ny, nx)")
    dx, dy, unit = _checked(dx, dy, dt, alpha, scale)
    kappa, tau, m1, m2, v1, v2, gamma, beta = theta.astype(np.float64)
    h11, h22, h12 = gamma + beta * v1**2, gamma + beta * v2**2, beta * v1 * v2
    tensor = _decomposed(h11 * dx**2 / unit, h22 * dy**2 / unit, h12 * dx * dy / unit)
    given = dict(zip(("v1", "v2", "gamma", "beta"), tensor, strict=True))
    return SpdeParameters.of(
        (theta.shape[2], theta.shape[3]), kappa=kappa / np.sqrt(unit),
        tau=tau * scale * np.sqrt(dx * dy / dt), m1=m1 * dx / unit, m2=m2 * dy / unit,
        land=land, **given,
    )  # fmt: skip


def _checked(
    dx: ArrayLike, dy: ArrayLike, dt: float, alpha: int, scale: float
) -> tuple[Float, Float, float]:
    """Spacings as arrays, and the unit of the operator."""
    along, across = (np.asarray(a, dtype=np.float64) for a in (dx, dy))
    if not ((along > 0.0).all() and (across > 0.0).all() and dt > 0.0 and scale > 0.0):
        raise ParameterError(
            f"dt={dt}, scale={scale}, dx from {along.min():g}, dy from {across.min():g}; expected "
            "positive numbers"
        )
    return along, across, float(dt ** (2.0 / alpha))


def _decomposed(h11: Float, h22: Float, h12: Float) -> tuple[Float, Float, Float, Float]:
    """Write a tensor as ``gamma I + beta v v'`` with v of unit length."""
    half, spread = 0.5 * (h11 + h22), np.hypot(0.5 * (h11 - h22), h12)
    angle = 0.5 * np.arctan2(2.0 * h12, h11 - h22)
    return np.cos(angle), np.sin(angle), half - spread, 2.0 * spread

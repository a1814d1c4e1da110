r"""The parameters of the space-time prior in lengths, times, velocities and standard deviations.

With :math:`\lambda(k) = \kappa^2 + k' H k` a wave of number k decays at the rate
:math:`\lambda^{\alpha/2}`: the slowest in the time :math:`\kappa^{-\alpha}`, and one of length
:math:`\sqrt{h} / \kappa` (over :math:`2 \pi`, h an eigenvalue of H) :math:`2^{\alpha/2}` times
faster. For alpha = 4 the field in space is Matern of smoothness 1 with that length,
``(r / l) K_1(r / l)``, which falls to 0.14 at :math:`\sqrt 8 l`; for alpha = 2 its variance depends
on the spacing. Advection moves all waves with m for alpha = 2, and the longest with
:math:`2 \kappa^2 m` for alpha = 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.spde import SpdeParameters

__all__ = ["Physical", "from_physical", "stationary_variance", "to_physical"]

Float = NDArray[np.float64]

_WAVES = 768


@dataclass(frozen=True, eq=False)
class Physical:
    """Parameters in physical units, each (steps, ny, nx).

    Attributes
    ----------
    longest, shortest : ndarray
        Lengths in metres along and across the direction of longest correlation.
    angle : ndarray
        That direction in radians, counter-clockwise from increasing x, in [-pi/2, pi/2).
    time : ndarray
        Decay time of the longest waves, in the unit of time of the parameters.
    u, v : ndarray
        Velocity of the longest waves, in metres per unit of time.
    """

    longest: Float
    shortest: Float
    angle: Float
    time: Float
    u: Float
    v: Float


def to_physical(parameters: SpdeParameters, alpha: int) -> Physical:
    """Express parameters in physical units.

    Parameters
    ----------
    parameters : SpdeParameters
        Of the prior.
    alpha : {2, 4}
        Its power.

    Returns
    -------
    Physical
    """
    p = parameters
    longer = p.gamma + p.beta * (p.v1**2 + p.v2**2)
    stretched = longer >= p.gamma  # a negative beta shortens the correlation along v
    angle = np.where(stretched, np.arctan2(p.v2, p.v1), np.arctan2(p.v1, -p.v2))
    speed = 1.0 if alpha == 2 else 2.0 * p.kappa**2
    return Physical(
        longest=np.sqrt(np.maximum(longer, p.gamma)) / p.kappa,
        shortest=np.sqrt(np.minimum(longer, p.gamma)) / p.kappa,
        angle=np.mod(angle + np.pi / 2, np.pi) - np.pi / 2,
        time=p.kappa ** -float(alpha),
        u=speed * p.m1,
        v=speed * p.m2,
    )


def from_physical(
    shape: tuple[int, int],
    *,
    alpha: int,
    longest: ArrayLike,
    time: ArrayLike,
    tau: ArrayLike = 1.0,
    shortest: ArrayLike | None = None,
    angle: ArrayLike = 0.0,
    u: ArrayLike = 0.0,
    v: ArrayLike = 0.0,
    land: ArrayLike | None = None,
) -> SpdeParameters:
    """Make parameters from physical units; inverse of :func:`to_physical`.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    alpha : {2, 4}
        Power of the prior.
    longest, time, shortest, angle, u, v : array_like
        As in :class:`Physical`, scalars or maps; `shortest` is `longest` by default.
    tau : array_like, default 1
        Noise. That of a wanted standard deviation s is
        ``s / sqrt(stationary_variance(..., tau=1))``.
    land : array_like (ny, nx) of bool, optional
        Where values do not matter and may be NaN.

    Returns
    -------
    SpdeParameters

    Raises
    ------
    ParameterError
        For lengths or times that are not positive, or a shortest above the longest length.
    """
    far, days = (np.asarray(a, dtype=np.float64) for a in (longest, time))
    near = far if shortest is None else np.asarray(shortest, dtype=np.float64)
    water = True if land is None else ~np.asarray(land)
    for name, good in (
        ("shortest", (near > 0.0) & (near <= far)),
        ("longest", far > 0.0),
        ("time", days > 0.0),
    ):
        if not (good | ~np.asarray(water)).all():
            raise ParameterError(
                f"{name} has values that are not positive, or shortest exceeds longest; expected "
                "0 < shortest <= longest in metres and time > 0"
            )
    kappa = days ** (-1.0 / alpha)
    speed = 1.0 if alpha == 2 else 2.0 * kappa**2
    return SpdeParameters.of(
        shape, kappa=kappa, tau=tau, m1=np.asarray(u) / speed, m2=np.asarray(v) / speed,
        v1=np.cos(angle), v2=np.sin(angle), gamma=(kappa * near) ** 2,
        beta=kappa**2 * (far**2 - near**2), land=land,
    )  # fmt: skip


def stationary_variance(
    *,
    kappa: float,
    tau: float = 1.0,
    h11: float = 1.0,
    h22: float = 1.0,
    h12: float = 0.0,
    dx: float = 1.0,
    dy: float = 1.0,
    dt: float = 1.0,
    alpha: int = 4,
) -> float:
    r"""Variance of the discretised prior far from edges, for constant parameters without advection.

    The mean over waves of ``(tau^2 dt / (dx dy)) / ((1 + dt lambda^(alpha/2))^2 - 1)`` with the
    symbol of the stencil.

    Parameters
    ----------
    kappa, tau, h11, h22, h12 : float
        Constant parameters, and the tensor H.
    dx, dy, dt : float
        Spacings and step.
    alpha : {4, 2}
        Power.

    Returns
    -------
    float
        Within about 1 % where the length is below 100 spacings.
    """
    w = 2.0 * np.pi * (np.arange(_WAVES) + 0.5) / _WAVES
    wx, wy = w[None, :], w[:, None]
    symbol = kappa**2 + h11 * (2.0 - 2.0 * np.cos(wx)) / dx**2
    symbol = symbol + h22 * (2.0 - 2.0 * np.cos(wy)) / dy**2
    symbol = symbol + 2.0 * h12 * np.sin(wx) * np.sin(wy) / (dx * dy)
    drift = dt * symbol ** (alpha // 2)
    return float(np.mean(tau**2 * dt / (dx * dy) / (drift * (2.0 + drift))))

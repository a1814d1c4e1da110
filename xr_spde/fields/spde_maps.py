r"""Maps of the parameters of the space-time prior on scales without bounds.

Log kappa, log tau, the velocity in spacings per step, and the matrix logarithm of the diffusion
tensor,

.. math::

    H = e^s \left( \cosh r \, I + \frac{\sinh r}{r}
        \begin{pmatrix} h_1 & h_2 \\ h_2 & -h_1 \end{pmatrix} \right),
    \qquad r^2 = h_1^2 + h_2^2,

which has no seam in the angle and no singularity where H is isotropic; beta and v, of which only
``beta v v'`` is identified, follow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_likelihood import Likelihood

__all__ = ["MAPS", "by_maps", "from_maps", "knot_basis", "to_maps"]

Float = NDArray[np.float64]

MAPS = ("log_kappa", "log_tau", "u", "v", "log_h", "h1", "h2")
"""Names; u and v in spacings per step, log_h of square metres per unit of time."""


def knot_basis(shape: tuple[int, int], knots: tuple[int, int]) -> Float:
    """Functions that are linear between the knots of a coarse grid and sum to one.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    knots : tuple of int
        Knots in y and x, spread over the grid with both ends; (1, 1) is a constant.

    Returns
    -------
    ndarray (ky * kx, ny * nx)

    Raises
    ------
    ParameterError
        For fewer than one knot, or more than nodes.
    """
    sides = []
    for size, count in zip(shape, knots, strict=True):
        if not 1 <= count <= size:
            raise ParameterError(f"knots={knots} for a grid of {shape}; expected 1 to {shape}")
        place = np.linspace(0.0, count - 1.0, size)
        sides.append(np.maximum(0.0, 1.0 - np.abs(place - np.arange(count)[:, None])))
    return np.asarray(np.kron(sides[0], sides[1]), dtype=np.float64)


def from_maps(maps: dict[str, Float], operator: SpdeOperator, dt: float) -> SpdeParameters:
    """Parameters of maps.

    Parameters
    ----------
    maps : dict of str to ndarray (ny, nx)
        Those of :data:`MAPS`.
    operator : SpdeOperator
        Whose spacings scale the velocities.
    dt : float
        Length of a step.

    Returns
    -------
    SpdeParameters
    """
    r = np.hypot(maps["h1"], maps["h2"])
    low, high = np.exp(maps["log_h"] - r), np.exp(maps["log_h"] + r)
    angle = 0.5 * np.arctan2(maps["h2"], maps["h1"])
    unit = _unit(operator, dt)
    return SpdeParameters.of(
        operator.mesh.shape, kappa=np.exp(maps["log_kappa"]), tau=np.exp(maps["log_tau"]),
        m1=unit * maps["u"], m2=unit * maps["v"], v1=np.cos(angle), v2=np.sin(angle),
        gamma=low, beta=high - low,
    )  # fmt: skip


def to_maps(parameters: SpdeParameters, operator: SpdeOperator, dt: float) -> dict[str, Float]:
    """Return the maps of parameters of one step; inverse of :func:`from_maps`.

    Parameters
    ----------
    parameters : SpdeParameters
        The first step is taken.
    operator : SpdeOperator
        Whose spacings scale the velocities.
    dt : float
        Length of a step.

    Returns
    -------
    dict of str to ndarray (ny, nx)
    """
    h11, h22, h12 = parameters.tensor()
    middle = 0.5 * (h11 + h22)
    half = np.hypot(0.5 * (h11 - h22), h12)
    r = np.arctanh(half / middle)
    # sinh(r) / r times e^s turns the logarithm into what is left of H without its mean
    stretch = np.where(half > 0.0, r / np.where(half > 0.0, half, 1.0), 1.0 / middle)
    unit = _unit(operator, dt)
    return {
        "log_kappa": np.log(parameters.kappa[0]), "log_tau": np.log(parameters.tau[0]),
        "u": parameters.m1[0] / unit, "v": parameters.m2[0] / unit,
        "log_h": 0.5 * np.log(middle**2 - half**2),
        "h1": 0.5 * (h11 - h22) * stretch, "h2": h12 * stretch,
    }  # fmt: skip


def _unit(operator: SpdeOperator, dt: float) -> float:
    """Velocity of one spacing per step."""
    return float(np.sqrt(operator.mesh.area.mean())) / dt


def by_maps(found: Likelihood, maps: dict[str, Float]) -> dict[str, Float]:
    """Gradient by the maps.

    Parameters
    ----------
    found : Likelihood
        Of a prior with one set of parameters.
    maps : dict of str to ndarray (ny, nx)
        Those of :func:`from_maps`.

    Returns
    -------
    dict of str to ndarray (ny, nx)
    """
    prior = found.prior
    shape = prior.operator.mesh.shape
    by = found.by_coefficients[0].reshape(-1, *shape)
    kappa, tau = prior.parameters.kappa[0], prior.parameters.tau[0]
    m1, m2 = prior.parameters.m1[0], prior.parameters.m2[0]
    h1, h2 = maps["h1"], maps["h2"]
    r, size = np.hypot(h1, h2), np.exp(maps["log_h"])
    small = r < 1e-4
    safe = np.where(small, 1.0, r)
    sinhc = np.where(small, 1.0 + r**2 / 6.0, np.sinh(safe) / safe)
    # derivative of sinh(r) / r, over r
    bend = np.where(small, 1.0 / 3.0, (np.cosh(safe) - sinhc) / safe**2)
    mean, difference, cross = by[1] + by[2], by[1] - by[2], by[3]
    along = h1 * difference + h2 * cross
    h11, h22, h12 = prior.parameters.tensor()
    unit = _unit(prior.operator, prior.dt)
    return {
        "log_kappa": 2.0 * kappa**2 * by[0], "log_tau": tau * found.by_tau[0],
        "u": unit * np.where(m1 >= 0.0, by[4], by[5]),
        "v": unit * np.where(m2 >= 0.0, by[6], by[7]),
        "log_h": h11 * by[1] + h22 * by[2] + h12 * by[3],
        "h1": size * (sinhc * h1 * mean + sinhc * difference + bend * h1 * along),
        "h2": size * (sinhc * h2 * mean + sinhc * cross + bend * h2 * along),
    }  # fmt: skip

"""Inflation: what an ensemble loses in spread to sampling and model error, given back.

Three remedies, none of which is on by default because none suits every system:

* multiplicative: anomalies times a factor (Anderson and Anderson, 1999, Mon. Weather Rev. 127);
  1.01 to 1.05 where observations are dense and even;
* relaxation to prior perturbations (``rtpp``: Zhang, Snyder, Sun, 2004, Mon. Weather Rev. 132) or
  to prior spread (``rtps``: Whitaker and Hamill, 2012, Mon. Weather Rev. 140), which act only where
  an analysis took spread away; 0.5 to 0.95 where observations are uneven;
* adaptive: the factor is estimated from the innovations of every cycle (:class:`Adaptive`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.arrays import as_members, namespace

Float = NDArray[np.float64]


def check_inflation(inflation: float) -> float:
    """Check a factor of inflation.

    Parameters
    ----------
    inflation : float
        Factor on anomalies.

    Returns
    -------
    float

    Raises
    ------
    ParameterError
        Unless it is a finite number >= 1.
    """
    if not np.ndim(inflation) == 0 or not 1.0 <= inflation < np.inf:
        raise ParameterError(
            f"inflation={inflation!r}; expected a factor >= 1 on the anomalies (not on the "
            "variance), such as 1.02; 1 is none, and less would make an ensemble overconfident"
        )
    return float(inflation)


def check_share(name: str, share: float) -> float:
    """Check a share of relaxation.

    Parameters
    ----------
    name : str
        Of the argument.
    share : float
        How much of what the analysis changed is taken back.

    Returns
    -------
    float

    Raises
    ------
    ParameterError
        Unless it lies in [0, 1].
    """
    if not np.ndim(share) == 0 or not 0.0 <= share <= 1.0:
        raise ParameterError(f"{name}={share!r}; expected a share in [0, 1], 0 being none")
    return float(share)


def inflate(ensemble: Any, factor: ArrayLike) -> Any:
    """Multiply the anomalies of an ensemble, its mean kept.

    Parameters
    ----------
    ensemble : array (N, ...)
        Members first.
    factor : float or array
        At least 1; one number, or one for each value of a member.

    Returns
    -------
    array (N, ...)

    Raises
    ------
    ParameterError
        For a factor below 1.
    """
    members = as_members("ensemble", ensemble)
    xp = namespace(members)
    by = xp.asarray(factor, dtype=members.dtype)
    if not bool((by >= 1.0).all()):
        check_inflation(float(by.min()))
    departures = members - members[0]  # digits are kept where the mean is large
    departures += (by - 1.0) * (departures - departures.mean(axis=0))
    departures += members[0]
    return departures


@dataclass(frozen=True)
class Adaptive:
    """Inflation of the forecast that follows the innovations.

    Innovations ``d`` of a right ensemble obey ``E[d' R^-1 d] = p + lambda tr(R^-1 H P H')``; each
    cycle gives an estimate of ``lambda``, which a scalar Kalman filter joins to the one before.

    Parameters
    ----------
    variance_factor : float or ndarray, default 1
        ``lambda``, by which the variance is to be inflated; the start is no inflation.
    uncertainty : float, default 0.04
        Standard deviation of ``lambda`` before a cycle: the larger, the faster it follows.

    References
    ----------
    Li, Kalnay, Miyoshi (2009), Q. J. R. Meteorol. Soc. 135; the variance of an estimate, and the
    default of 0.04, from Miyoshi (2011), Mon. Weather Rev. 139.
    """

    variance_factor: Any = 1.0
    uncertainty: float = 0.04

    def __post_init__(self) -> None:
        if not self.uncertainty > 0:
            raise ParameterError(f"uncertainty={self.uncertainty!r}; expected a number > 0")

    @property
    def factor(self) -> Any:
        """Factor on the anomalies of the forecast, for :func:`inflate`."""
        return np.sqrt(self.variance_factor)

    def update(self, misfit: ArrayLike, spread: ArrayLike, count: ArrayLike) -> Adaptive:
        """Learn from the innovations of one cycle.

        Parameters
        ----------
        misfit : float or ndarray
            ``d' R^-1 d``, as :attr:`xr_spde.assim.projection.Projection.misfit`; or one number
            per point, of the observations around it.
        spread : float or ndarray
            ``tr(R^-1 H P H')`` of the forecast before inflation.
        count : float or ndarray
            Number of observations, or the sum of their weights.

        Returns
        -------
        Adaptive
            With a `variance_factor` >= 1; unchanged where there is no observation or spread.
        """
        d2, p, trace = (np.asarray(v, dtype=np.float64) for v in (misfit, count, spread))
        before = np.asarray(self.variance_factor, dtype=np.float64)
        known = (p > 0) & (trace > 0)
        p, trace = np.where(known, p, 1.0), np.where(known, trace, 1.0)
        estimate = (d2 - p) / trace
        noise = 2.0 / p * ((before * trace + p) / trace) ** 2
        gain = self.uncertainty**2 / (self.uncertainty**2 + noise)
        after = np.maximum(before + np.where(known, gain * (estimate - before), 0.0), 1.0)
        return replace(self, variance_factor=float(after) if after.ndim == 0 else after)

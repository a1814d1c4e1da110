r"""Optimal interpolation with a Gaussian covariance, the community's baseline.

.. math::

    C = \sigma^2 \exp\left( - (\Delta t / L_t)^2 - (\Delta y / L_y)^2 - (\Delta x / L_x)^2 \right),

by dense algebra with the observations near each output time. The baseline of the SSH mapping
challenge has :math:`L_x = L_y` = 1 degree, :math:`L_t` = 7 days, :math:`\sigma` = 1, an error
standard deviation of 0.05 and observations within :math:`2 L_t`.

References
----------
Le Traon, Nadal, Ducet (1998), J. Atmos. Ocean. Technol. 15; SSH mapping data challenge 2020a
(ocean-data-challenges).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError
from xr_spde._core.memory import check_memory

__all__ = ["GaussianCovariance", "interpolate"]

Float = NDArray[np.float64]

_TARGETS = 2048


@dataclass(frozen=True)
class GaussianCovariance:
    """A separable Gaussian covariance.

    Attributes
    ----------
    time, y, x : float
        Scales, in the units of the coordinates.
    std : float
        Of the field.
    circle : float or None
        Period of x, such as 360 for longitudes.
    """

    time: float
    y: float
    x: float
    std: float = 1.0
    circle: float | None = None

    def __post_init__(self) -> None:
        for name in ("time", "y", "x", "std"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ParameterError(f"{name}={value!r}; expected a scale > 0")

    def between(self, first: Float, second: Float) -> Float:
        """Covariance of two sets of places.

        Parameters
        ----------
        first, second : ndarray (p, 3), (q, 3)
            t, y and x of every place.

        Returns
        -------
        ndarray (p, q)
        """
        # one array at a time: this is the largest that exists
        total = ((first[:, None, 0] - second[None, :, 0]) / self.time) ** 2
        total += ((first[:, None, 1] - second[None, :, 1]) / self.y) ** 2
        apart = first[:, None, 2] - second[None, :, 2]
        if self.circle is not None:
            apart -= self.circle * np.rint(apart / self.circle)
        apart /= self.x
        apart *= apart
        total += apart
        np.negative(total, out=total)
        np.exp(total, out=total)
        total *= self.std**2
        return np.asarray(total)


def interpolate(
    covariance: GaussianCovariance,
    places: Float,
    innovation: Float,
    variance: Float,
    *,
    times: Float,
    nodes: Float,
    window: float = 2.0,
    deviation: bool = True,
) -> tuple[Float, Float | None]:
    """Interpolate observations to the nodes of a grid at given times.

    Parameters
    ----------
    covariance : GaussianCovariance
        Of the anomalies.
    places : ndarray (p, 3)
        t, y and x of the observations.
    innovation : ndarray (p,)
        Observed minus prior mean.
    variance : ndarray (p,)
        Of independent errors, > 0.
    times : ndarray (T,)
        Output times.
    nodes : ndarray (q, 2)
        y and x of the output nodes.
    window : float, default 2
        Observations count within so many time scales of an output time.
    deviation : bool, default True
        Whether to compute the standard deviation, by far the larger part of the work.

    Returns
    -------
    mean : ndarray (T, q)
        Zero where no observation is in the window.
    std : ndarray (T, q) or None

    Raises
    ------
    ParameterError
        For shapes that do not fit, values that are not finite, or variances that are not positive.
    MemoryGuardError
        If the dense covariance of the observations would not fit.
    SolverError
        If it is singular in double precision.
    """
    p = len(places)
    if places.shape != (p, 3) or innovation.shape != (p,) or variance.shape != (p,):
        raise ParameterError(
            f"places, innovation and variance have shapes {places.shape}, {innovation.shape}, "
            f"{variance.shape}; expected (p, 3), (p,), (p,)"
        )
    if not (np.isfinite(places).all() and np.isfinite(innovation).all() and (variance > 0).all()):
        raise ParameterError(
            "places and innovations must be finite and error variances positive; leave out "
            "missing observations"
        )
    chosen = [np.flatnonzero(np.abs(places[:, 0] - t) <= window * covariance.time) for t in times]
    most = max((one.size for one in chosen), default=0)
    check_memory(
        8.0 * (2 * most**2 + 3 * most * min(_TARGETS, len(nodes))),
        what=f"the dense covariance of {most} observations",
        remedy="Thin the observations, shorten the window, or use the SPDE prior.",
    )
    mean = np.zeros((times.size, len(nodes)))
    std = np.full(mean.shape, covariance.std) if deviation else None
    root, known, weights = np.empty((0, 0)), np.empty(0, dtype=np.intp), np.empty(0)
    for k, near in enumerate(chosen):
        if not near.size:
            continue
        if not np.array_equal(near, known):
            root, known = _root(covariance, places[near], variance[near]), near
            weights = _solve(root, _solve(root, innovation[near]), transposed=True)
        for start in range(0, len(nodes), _TARGETS):
            part = slice(start, start + _TARGETS)
            here = nodes[part]
            target = np.column_stack([np.full(len(here), times[k]), here])
            cross = covariance.between(places[near], target)
            mean[k, part] = weights @ cross
            if std is not None:
                left = covariance.std**2 - np.sum(_solve(root, cross) ** 2, axis=0)
                std[k, part] = np.sqrt(np.maximum(left, 0.0))
    return mean, std


def _root(covariance: GaussianCovariance, places: Float, variance: Float) -> Float:
    """Lower Cholesky factor of the covariance of the observations."""
    matrix = covariance.between(places, places)
    matrix[np.diag_indices_from(matrix)] += variance
    try:
        return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise SolverError(
            f"the covariance of {len(places)} observations is singular in double precision: many "
            "nearly coincide; expected larger error variances, or fewer observations"
        ) from error


def _solve(root: Float, right: Float, *, transposed: bool = False) -> Float:
    """Solve with a lower triangular matrix or its transpose."""
    from scipy.linalg import solve_triangular

    found = solve_triangular(
        root, right, lower=True, trans="T" if transposed else "N", check_finite=False
    )
    return np.asarray(found)

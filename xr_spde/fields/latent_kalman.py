r"""The exact Kalman filter of codes, for affine maps and propagators with any model noise.

Codes follow ``z' = A z + b + e`` with ``e ~ N(0, Q)`` and are seen as ``y = H z + h + r`` with
independent errors of variances R. With a square root S of the forecast covariance,

.. math::

    M = I + S' H' R^{-1} H S, \qquad P_a = S M^{-1} S', \qquad
    z_a = z_f + P_a H' R^{-1} (y - H z_f - h),

which stays symmetric and positive whatever the number of observations, and never forms a matrix of
their size. For a step of length dt, ``Q(dt) = P - A(dt) P A(dt)'`` with the P that solves
``P = A P A' + Q``: what the noise of a stationary or growing continuous system adds up to.

References
----------
Kalman (1960), J. Basic Eng. 82; Bierman (1977), Factorization Methods for Discrete Sequential
Estimation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh, solve_discrete_lyapunov, solve_triangular

from xr_spde._core.errors import ParameterError
from xr_spde._core.warn import warn
from xr_spde.solvers.threads import single_blas_thread

__all__ = ["KalmanFilter", "KalmanSeries", "kalman_filter", "noise_over"]

Float = NDArray[np.float64]

_LOG_2PI = math.log(2.0 * math.pi)


class AffineSteps(Protocol):
    """A propagator whose steps are affine, such as `xr_spde.fields.linear_dynamics`' linear one."""

    def matrix(self, dt: float = 1.0) -> Float:
        """Matrix A (n, n) of a step."""

    def offset(self, dt: float = 1.0, time: float | None = None) -> Float:
        """Vector (n,) that a step adds."""


def _covariance(name: str, given: ArrayLike, n: int) -> Float:
    """Read a covariance (n, n) from itself, from variances (n,) or from one."""
    found = np.asarray(given, dtype=np.float64)
    if found.ndim < 2:
        found = np.diag(np.broadcast_to(found, (n,)))
    if found.shape != (n, n) or not np.isfinite(found).all():
        raise ParameterError(
            f"{name} has shape {found.shape}; expected finite numbers: one variance, ({n},) or a "
            f"covariance ({n}, {n})"
        )
    asymmetry = float(np.abs(found - found.T).max())
    if asymmetry > 1e-6 * float(np.abs(found).max()) or found.diagonal().min() < 0.0:
        raise ParameterError(
            f"{name} is no covariance: asymmetric by {asymmetry:.2g}, with a least variance of "
            f"{found.diagonal().min():.2g}"
        )
    return np.asarray(0.5 * (found + found.T))


def _root(covariance: Float) -> Float:
    """Square root of a positive semidefinite matrix."""
    try:
        return np.asarray(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        values, vectors = eigh(covariance)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


class KalmanFilter:
    """Mean and covariance of a code, carried forward and analysed.

    Parameters
    ----------
    mean : array_like (n,)
        Of the code to begin with.
    covariance : float, array_like (n,) or (n, n)
        Its covariance, or variances.

    Attributes
    ----------
    mean, covariance : ndarray (n,), (n, n)
        As they stand.

    Raises
    ------
    ParameterError
        For shapes that do not fit, or a matrix that is no covariance.
    """

    def __init__(self, mean: ArrayLike, covariance: ArrayLike) -> None:
        self.mean = np.array(mean, dtype=np.float64)
        if self.mean.ndim != 1 or not np.isfinite(self.mean).all():
            raise ParameterError(f"mean has shape {self.mean.shape}; expected finite numbers (n,)")
        self.n = len(self.mean)
        self.covariance = _covariance("covariance", covariance, self.n)

    def forecast(self, matrix: Float, offset: ArrayLike = 0.0, noise: ArrayLike = 0.0) -> None:
        """Carry forward by one step.

        Parameters
        ----------
        matrix : ndarray (n, n)
            A.
        offset : array_like (n,), default 0
            b.
        noise : float, array_like (n,) or (n, n), default 0
            Q, or its variances.

        Raises
        ------
        ParameterError
            For shapes that do not fit, or a noise that is no covariance.
        """
        if np.shape(matrix) != (self.n, self.n):
            raise ParameterError(
                f"matrix has shape {np.shape(matrix)}; expected ({self.n}, {self.n})"
            )
        added = _covariance("noise", noise, self.n)
        with single_blas_thread():
            self.mean = matrix @ self.mean + np.asarray(offset, dtype=np.float64)
            moved = matrix @ self.covariance @ matrix.T
        self.covariance = 0.5 * (moved + moved.T) + added

    def analyse(
        self, y: ArrayLike, rows: Float, offset: ArrayLike = 0.0, variance: ArrayLike = 1.0
    ) -> float:
        """Take in observations of one time.

        Parameters
        ----------
        y : array_like (p,)
            Observations; NaN is missing.
        rows : ndarray (p, n)
            H; rows that are not finite (points outside) count as missing.
        offset : array_like (p,), default 0
            h.
        variance : float or array_like (p,), default 1
            R, of independent errors (> 0), representativeness included.

        Returns
        -------
        float
            Log density of the observations under the forecast; 0 where there is none.

        Raises
        ------
        ParameterError
            For shapes that do not fit, or variances that are not positive.
        """
        seen = np.asarray(y, dtype=np.float64)
        if seen.ndim != 1 or np.shape(rows) != (seen.size, self.n):
            raise ParameterError(
                f"y has shape {seen.shape} and rows {np.shape(rows)}; expected (p,), (p, {self.n})"
            )
        spread = np.broadcast_to(np.asarray(variance, dtype=np.float64), seen.shape)
        departure = seen - np.asarray(offset, dtype=np.float64)
        kept = np.isfinite(departure) & np.isfinite(rows[:, 0])
        if not (np.isfinite(spread[kept]) & (spread[kept] > 0.0)).all():
            raise ParameterError("variance has numbers that are not positive; expected > 0")
        if not kept.any():
            return 0.0
        own = np.asarray(rows[kept], dtype=np.float64)
        with single_blas_thread():
            return self._update(departure[kept] - own @ self.mean, own, spread[kept])

    def _update(self, innovation: Float, rows: Float, variance: Float) -> float:
        root = _root(self.covariance)
        whitened = (rows / np.sqrt(variance)[:, None]) @ root
        scaled = innovation / np.sqrt(variance)
        pull = whitened.T @ scaled
        factor = cho_factor(np.eye(self.n) + whitened.T @ whitened, lower=True)
        solved = cho_solve(factor, pull)
        self.mean = self.mean + root @ solved
        half = solve_triangular(factor[0], root.T, lower=True)
        self.covariance = half.T @ half
        logdet = 2.0 * np.log(np.diagonal(factor[0])).sum() + np.log(variance).sum()
        return float(-0.5 * (scaled @ scaled - pull @ solved + logdet + scaled.size * _LOG_2PI))

    def variance_of(self, rows: Float) -> Float:
        """Variances of linear functions of the code.

        Parameters
        ----------
        rows : ndarray (..., n)
            Such as the Jacobian of a map.

        Returns
        -------
        ndarray (...)
        """
        with single_blas_thread():
            return np.asarray(((rows @ _root(self.covariance)) ** 2).sum(axis=-1))


@dataclass(frozen=True)
class KalmanSeries:
    """A filtered series.

    Attributes
    ----------
    means, spreads : ndarray (T, n)
        Analysed codes, and their standard deviations.
    covariance : ndarray (n, n)
        Of the last code.
    log_densities : ndarray (T,)
        Of the observations of each time under the forecast.
    counts : ndarray (T,)
        Numbers of observations.
    """

    means: Float
    spreads: Float
    covariance: Float
    log_densities: Float
    counts: NDArray[np.int64]


def kalman_filter(
    start: KalmanFilter,
    propagator: AffineSteps,
    noise: ArrayLike,
    values: ArrayLike,
    rows: Float,
    *,
    offset: ArrayLike = 0.0,
    variance: ArrayLike = 1.0,
    dts: ArrayLike | None = None,
    times: ArrayLike | None = None,
) -> KalmanSeries:
    """Filter a series of observations by the same rows: a forecast, an analysis, and so on.

    Parameters
    ----------
    start : KalmanFilter
        The code one step before the first observations; left as it is.
    propagator : AffineSteps
        With ``matrix(dt)`` and ``offset(dt, time)``.
    noise : float, array_like (n,) or (n, n)
        Q of a step of length one.
    values : array_like (T, p)
        Observations; NaN is missing, a row of them a time without any.
    rows : ndarray (p, n)
        H.
    offset : array_like (p,), default 0
        h.
    variance : float or array_like (p,), default 1
        R.
    dts : array_like (T,), optional
        Lengths of the steps before each time, any positive numbers; by default one.
    times : array_like (T,), optional
        Days since 1970-01-01 at the start of each step, for forcing.

    Returns
    -------
    KalmanSeries

    Raises
    ------
    ParameterError
        For shapes that do not fit, steps that are not positive, or noise of a fraction of a step
        that is not determined.
    """
    y = np.asarray(values, dtype=np.float64)
    if y.ndim != 2:
        raise ParameterError(f"values have shape {y.shape}; expected (T, p)")
    steps = np.ones(len(y)) if dts is None else np.asarray(dts, dtype=np.float64)
    if steps.shape != (len(y),) or not (np.isfinite(steps) & (steps > 0.0)).all():
        raise ParameterError(f"dts={dts!r}: expected {len(y)} positive numbers")
    clock = [None] * len(y) if times is None else [float(t) for t in np.asarray(times)]
    if len(clock) != len(y):
        raise ParameterError(f"times has {len(clock)} entries; expected {len(y)}")
    state = KalmanFilter(start.mean, start.covariance)
    single = _covariance("noise", noise, state.n)
    known: dict[float, tuple[Float, Float]] = {}
    means, spreads, densities = np.empty((len(y), state.n)), np.empty((len(y), state.n)), []
    for k, (dt, time) in enumerate(zip(steps.tolist(), clock, strict=True)):
        if dt not in known:
            known[dt] = propagator.matrix(dt), noise_over(propagator, single, dt)
        matrix, added = known[dt]
        state.forecast(matrix, propagator.offset(dt, time), added)
        densities.append(state.analyse(y[k], rows, offset, variance))
        means[k], spreads[k] = state.mean, np.sqrt(np.diagonal(state.covariance))
    counts = np.isfinite(y - np.asarray(offset))[:, np.isfinite(rows[:, 0])].sum(axis=1)
    return KalmanSeries(means, spreads, state.covariance, np.array(densities), counts)


def noise_over(propagator: Any, noise: Float, dt: float) -> Float:
    """Covariance of the model noise of a step of any length.

    Parameters
    ----------
    propagator : AffineSteps
        With ``matrix(dt)``.
    noise : ndarray (n, n)
        Q of a step of length one.
    dt : float
        Length.

    Returns
    -------
    ndarray (n, n)

    Raises
    ------
    ParameterError
        For a fraction of a step with a propagator that neither decays nor grows in some direction,
        where noise of a fraction of a step is not determined by that of a whole one.

    Notes
    -----
    Whole steps add up. Of a fraction, what is not a covariance to round-off is cut off, and said.
    """
    whole = math.floor(dt + 1e-9)
    rest = dt - whole if dt - whole > 1e-9 else 0.0
    total = np.zeros_like(noise)
    with single_blas_thread():
        one = propagator.matrix(1.0)
        for _ in range(whole):
            total = one @ total @ one.T + noise
        if not rest:
            return np.asarray(0.5 * (total + total.T))
        part = propagator.matrix(rest)
        try:
            stationary = solve_discrete_lyapunov(one, noise)
        except np.linalg.LinAlgError:
            stationary = np.full_like(noise, np.nan)
        added = stationary - part @ stationary @ part.T
        gap = float(np.abs(one @ stationary @ one.T + noise - stationary).max())
        if not gap <= 1e-6 * float(np.abs(stationary).max()):
            raise ParameterError(
                f"dt={dt}: the model noise of a fraction of a step is not determined, because the "
                "propagator neither decays nor grows in some direction; use whole steps"
            )
        values, vectors = eigh(0.5 * (added + added.T))
        if values[0] < -1e-6 * values[-1]:
            warn(
                f"dt={dt}: model noise of a fraction of a step has negative variances down to "
                f"{values[0]:.2g} (largest {values[-1]:.2g}); they are set to zero"
            )
        added = (vectors * np.maximum(values, 0.0)) @ vectors.T
        total = part @ total @ part.T + added
    return np.asarray(0.5 * (total + total.T))

"""The Kalman filter of codes, exact where decoder and dynamics are linear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.codes import CodeGuard
from xr_spde.assim.latent.filtering import FilterSettings, noise_of, noted
from xr_spde.assim.latent.protocols import ErrorModel, Propagator, StateMap
from xr_spde.assim.latent.seen import NOTHING, Leap, Seen, innovation_statistics
from xr_spde.fields.latent_kalman import KalmanFilter

__all__ = ["ExactState", "exact_filter"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ExactState:
    """Mean and covariance of the code after one time.

    Attributes
    ----------
    codes : ndarray (n,)
        Mean.
    covariance : ndarray (n, n)
        Of its error.
    forecast : ndarray (n,)
        Mean before the analysis.
    statistics : dict of str to float
        As of `Analysed`.
    """

    codes: Float
    covariance: Float
    forecast: Float
    statistics: dict[str, float]

    def fields(self, state_map: StateMap) -> tuple[Float, Float, Float]:
        """Give decoded mean (P, c), standard deviation and mean of the forecast, normalised."""
        both = state_map.decode(np.stack([self.codes, self.forecast]))
        jacobian = np.asarray(state_map.jacobian(self.codes), dtype=np.float64)
        variance = np.einsum("pn,pn->p", jacobian @ self.covariance, jacobian)
        std = np.sqrt(np.maximum(variance, 0.0)).reshape(both.shape[1:])
        return both[0], std, both[1]


def exact_filter(
    state_map: StateMap,
    propagator: Propagator,
    error: ErrorModel | None,
    settings: FilterSettings,
    start: tuple[Float, Float],
    leaps: Sequence[Leap],
) -> Iterator[ExactState]:
    """Alternate forecasts and analyses of mean and covariance.

    Parameters
    ----------
    state_map, propagator, error
        Parts of a model, the first two affine.
    settings : FilterSettings
        ``threshold``, ``noise``, ``limit``, and an ``inflation`` of the standard deviation.
    start : tuple of ndarray (n,), (n, k)
        First mean, and a square root of its covariance.
    leaps : sequence of Leap
        From each time to the next.

    Returns
    -------
    iterator of ExactState

    Raises
    ------
    DivergenceError
        If the mean runs away; names the step and its time.
    """
    guard = CodeGuard(state_map.mean, state_map.spread, settings.limit)
    state = KalmanFilter(start[0], start[1] @ start[1].T)
    by = float(settings.inflation) if isinstance(settings.inflation, int | float) else 1.0
    for number, leap in enumerate(leaps):
        if leap.dt > 0.0:
            matrix, offset = affine_step(propagator, state.n, leap)
            state.forecast(matrix, offset, noise_of(propagator, error, leap.dt, settings.noise))
        with noted(number, leap, "forecast"):
            guard.check(state.mean[None], number)
        before, statistics = state.mean, dict(NOTHING)
        if leap.seen is not None:
            statistics = _analysis(state, state_map, leap.seen, settings.threshold)
            state.covariance = state.covariance * by**2
        yield ExactState(state.mean, state.covariance, before, statistics)


def affine_step(propagator: Propagator, n: int, leap: Leap) -> tuple[Float, Float]:
    """Matrix (n, n) and offset (n,) of a step, as the propagator moves the unit codes.

    Parameters
    ----------
    propagator : Propagator
        Affine.
    n : int
        Size of a code.
    leap : Leap
        Length and time.

    Returns
    -------
    tuple of ndarray
    """
    moved = propagator.step(np.vstack([np.zeros(n), np.eye(n)]), leap.dt, leap.time)
    return np.asarray((moved[1:] - moved[0]).T), np.asarray(moved[0])


def _analysis(
    state: KalmanFilter, state_map: StateMap, seen: Seen, threshold: float | None
) -> dict[str, float]:
    """Take in observations, and give their statistics."""
    rows, forecast = seen.jacobian(state_map, state.mean), seen.of(state_map, state.mean[None])[0]
    known = state.variance_of(rows)
    innovation = seen.values - forecast
    if threshold is not None:
        kept = np.abs(innovation) <= threshold * np.sqrt(known + seen.variance)
        seen, rows, known, innovation = seen.select(kept), rows[kept], known[kept], innovation[kept]
        if not seen.size:
            return dict(NOTHING)
    before = state.mean
    state.analyse(innovation + rows @ before, rows, 0.0, seen.variance)
    # R^-1 (y - H z_a) is (H P H' + R)^-1 (y - H z_f)
    left = innovation - rows @ (state.mean - before)
    chi_square = float(innovation @ (left / seen.variance))
    return innovation_statistics(innovation, known, seen, chi_square)

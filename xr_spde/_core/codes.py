"""What all models of codes in time share: forcing by the calendar, a guard against running away."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import DivergenceError, ParameterError

__all__ = ["CodeGuard", "Forcing", "metric_root"]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Forcing:
    """Cosines and sines of the calendar, as inputs of a model of codes.

    Attributes
    ----------
    periods : tuple of float
        In days: by default the year and the day.
    harmonics : int
        Cosines and sines of each period, halves, thirds and so on of it.
    step : float
        Days of one step of the data.

    Raises
    ------
    ParameterError
        For numbers that are not positive, or a period that the data do not resolve: of two steps or
        less.

    Examples
    --------
    >>> from xr_spde._core.codes import Forcing
    >>> Forcing((365.2425,), step=30.4).features([0.0, 91.310625]).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    periods: tuple[float, ...] = (365.2425, 1.0)
    harmonics: int = 1
    step: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "periods", tuple(float(period) for period in self.periods))
        if not self.periods or min(*self.periods, self.harmonics, self.step) <= 0:
            raise ParameterError(f"{self}: expected positive periods, harmonics and step")
        shortest = min(self.periods) / self.harmonics
        if shortest <= 2.0 * self.step:
            raise ParameterError(
                f"forcing with a period of {shortest:g} days: steps of {self.step:g} days do not "
                "resolve it; give fewer harmonics, or leave the period out of periods="
            )

    @property
    def size(self) -> int:
        """Number of features."""
        return 2 * len(self.periods) * self.harmonics

    @property
    def frequencies(self) -> Float:
        """Radians per day ``(size / 2,)``."""
        orders = np.arange(1, self.harmonics + 1)
        return np.concatenate([2.0 * np.pi * orders / period for period in self.periods])

    def features(self, time: ArrayLike) -> Float:
        """Evaluate the features.

        Parameters
        ----------
        time : array_like (...)
            Days since 1970-01-01.

        Returns
        -------
        ndarray (..., size)
            Cosine and sine of each frequency in turn.
        """
        phase = np.asarray(time, dtype=np.float64)[..., None] * self.frequencies
        both = np.stack([np.cos(phase), np.sin(phase)], axis=-1)
        return both.reshape(*phase.shape[:-1], self.size)

    def generator(self) -> Float:
        """Matrix G ``(size, size)`` with ``d features / dt = G features``, t in steps."""
        matrix = np.zeros((self.size, self.size))
        even = np.arange(0, self.size, 2)
        matrix[even, even + 1] = -self.frequencies * self.step
        matrix[even + 1, even] = self.frequencies * self.step
        return matrix

    def options(self) -> dict[str, Any]:
        """Give what JSON can hold and the constructor takes."""
        return {**asdict(self), "periods": list(self.periods)}


class CodeGuard:
    """Says when codes are far outside those of the training.

    Parameters
    ----------
    mean, spread : array_like (n,)
        Of the codes of the training.
    limit : float, default 10
        Largest distance that is let pass.

    Raises
    ------
    ParameterError
        For shapes that differ, or spreads or a limit that are not positive.

    Notes
    -----
    The distance is the root mean square of ``(code - mean) / spread``: about one for codes of the
    training.
    """

    def __init__(self, mean: ArrayLike, spread: ArrayLike, limit: float = 10.0) -> None:
        self.mean = np.asarray(mean, dtype=np.float64)
        self.spread = np.asarray(spread, dtype=np.float64)
        self.limit = float(limit)
        if self.mean.ndim != 1 or self.mean.shape != self.spread.shape:
            raise ParameterError(
                f"mean and spread have shapes {self.mean.shape} and {self.spread.shape}; expected "
                "(n,) both"
            )
        if not (np.isfinite(self.spread) & (self.spread > 0.0)).all() or not self.limit > 0.0:
            raise ParameterError(
                f"spread is {self.spread.min():g} at least and limit {limit:g}; expected positive "
                "numbers"
            )

    def distance(self, codes: ArrayLike) -> Float:
        """Measure how far codes are from those of the training.

        Parameters
        ----------
        codes : array_like (..., n)
            Codes.

        Returns
        -------
        ndarray (...)
            NaN or infinite where codes are.
        """
        scaled = (np.asarray(codes, dtype=np.float64) - self.mean) / self.spread
        with np.errstate(over="ignore"):
            return np.asarray(np.sqrt(np.mean(scaled**2, axis=-1)))

    def check(self, codes: ArrayLike, step: int | None = None) -> None:
        """Refuse codes that ran away.

        Parameters
        ----------
        codes : array_like (B, n)
            Codes, one for each member.
        step : int, optional
            Number of the time step, for the message.

        Raises
        ------
        DivergenceError
            If a code is not finite or further away than the limit; names the step and the members.
        """
        distance = np.atleast_1d(self.distance(codes))
        away = np.flatnonzero(~(distance <= self.limit))
        if away.size:
            when = "" if step is None else f" at step {step}"
            which = ", ".join(str(member) for member in away[:8]) + (", ..." * (away.size > 8))
            raise DivergenceError(
                f"codes ran away{when}: {away.size} of {distance.size} (members {which}) are not "
                f"finite or more than {self.limit:g} standard deviations of the training codes "
                f"off, the worst {np.max(distance[away]):.3g}; shorten the forecast, lower the "
                "inflation or the model error, or train on longer roll-outs"
            )

    def limited(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Draw codes that are too far away back towards the mean, to the limit.

        Parameters
        ----------
        codes : ndarray (..., n)
            Finite codes.

        Returns
        -------
        ndarray (..., n)
            The same array where none is too far.
        """
        distance = self.distance(codes)
        if (distance <= self.limit).all():
            return codes
        share = np.minimum(1.0, self.limit / np.maximum(distance, 1e-300))[..., None]
        return np.asarray(self.mean + share * (codes - self.mean), dtype=codes.dtype)


def metric_root(metric: ArrayLike | None, n: int) -> Float:
    """Give the factor L of what errors of codes mean in fields, ``|error of field|^2 = |L' e|^2``.

    Parameters
    ----------
    metric : array_like (n,) or (n, n), optional
        Diagonal, or all, of the quadratic form; by default the identity.
    n : int
        Size of a code.

    Returns
    -------
    ndarray (n, n)
        Lower triangular.

    Raises
    ------
    ParameterError
        For other shapes, or a form that is not positive.
    """
    if metric is None:
        return np.eye(n)
    form = np.asarray(metric, dtype=np.float64)
    form = np.diag(form) if form.ndim == 1 else form
    if form.shape != (n, n):
        raise ParameterError(f"metric has shape {form.shape}; expected ({n},) or ({n}, {n})")
    floor = 1e-12 * np.trace(form) / n
    try:
        return np.asarray(np.linalg.cholesky(form + floor * np.eye(n)))
    except np.linalg.LinAlgError as error:
        raise ParameterError("metric is not a positive quadratic form") from error

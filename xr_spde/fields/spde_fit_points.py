"""Maximum likelihood of the space-time prior from scattered observations, with their errors.

The likelihood is that of the observations, the field integrated out; or of each mission given the
others, a cross-validation by their predictive density. Both have exact gradients.

References
----------
Lindgren, Rue, Lindstrom (2011), J. R. Stat. Soc. B 73; Varin, Reid, Firth (2011), Statistica
Sinica 21 (composite conditional likelihood).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_evidence import CorrelatedErrors, Sample, negative_log_evidence
from xr_spde.fields.spde_fit import Problem, SpdeFit
from xr_spde.fields.spde_likelihood import Likelihood
from xr_spde.fields.track_noise import TrackNoise

__all__ = ["OBJECTIVES", "PointFit", "PointWindow", "fit_points", "starting_scales"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

OBJECTIVES = ("likelihood", "missions")
"""Density of all observations, or of those of each mission given the other missions."""

_BINS = 12
_PAIRS = 1500
"""Observations of which pairs are looked at for a start."""


@dataclass(frozen=True, eq=False)
class PointWindow:
    """Observations of one window.

    Attributes
    ----------
    rows : csr_array (p, steps * n)
        What is observed.
    innovation : ndarray (p,)
        Observed minus prior mean.
    known : ndarray (p,)
        Variance of the errors as far as it is known, zero where it is not.
    group : ndarray of int (p,)
        Which of the fitted errors each has.
    mission : ndarray of int (p,)
        Which mission each belongs to.
    tracks : tuple of ndarray (p,), optional
        Distance along the track in metres, and number of the track.
    """

    rows: sp.csr_array
    innovation: Float
    known: Float
    group: Index
    mission: Index
    tracks: tuple[Float, Index] | None = None

    def without(self, mission: int) -> PointWindow:
        """Leave one mission out."""
        keep = np.flatnonzero(self.mission != mission)
        tracks = None if self.tracks is None else (self.tracks[0][keep], self.tracks[1][keep])
        return PointWindow(sp.csr_array(self.rows[keep]), self.innovation[keep], self.known[keep],
                           self.group[keep], self.mission[keep], tracks)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PointFit:
    """Fitted parameters of the prior and of the errors.

    Attributes
    ----------
    field : SpdeFit
        Of the prior; its `log_likelihood` is that of the observations, or the sum of the
        logarithms of the predictive densities of the missions.
    errors, errors_stderr : ndarray (g,)
        Standard deviations of the fitted independent errors, and standard errors.
    track, track_stderr : ndarray (2,), optional
        Standard deviation and length (metres) of the errors along tracks, and standard errors.
    """

    field: SpdeFit
    errors: Float
    errors_stderr: Float
    track: Float | None
    track_stderr: Float | None


class _PointProblem(Problem):
    """Likelihood of scattered observations; further unknowns are logarithms of the errors."""

    tolerances: Mapping[str, float] = {"ftol": 1e-8, "gtol": 1e-5}

    def __init__(
        self, operator: SpdeOperator, windows: Sequence[PointWindow], groups: int, objective: str,
        **how: Any,
    ) -> None:  # fmt: skip
        count = sum(w.innovation.size for w in windows)
        super().__init__(operator, count=count, **how)
        self.groups = groups
        self.parts: list[tuple[PointWindow, TrackNoise | None, float]] = []
        for w in windows:
            missions = np.unique(w.mission)
            if objective == "likelihood" or missions.size < 2:
                split = [(w, 1.0)] if objective == "likelihood" else []
            else:  # log p(one | others) = log p(all) - log p(others)
                split = [(w, float(missions.size)), *((w.without(int(m)), -1.0) for m in missions)]
            for part, weight in split:
                noise = None if part.tracks is None else TrackNoise(*part.tracks)
                self.parts.append((part, noise, weight))
        if not self.parts:
            raise ParameterError(
                'no window has observations of two missions, which objective="missions" needs; '
                'use objective="likelihood"'
            )

    def likelihood(self, prior: SpaceTime, further: Float) -> tuple[Likelihood, Float]:
        """Return that of the observations, and its gradient by the logarithms of the errors."""
        nugget, track = np.exp(2.0 * further[: self.groups]), np.exp(further[self.groups :])
        samples = []
        for part, noise, weight in self.parts:
            correlated: CorrelatedErrors | None = None
            if noise is not None:
                correlated = noise.errors(track[0], float(track[1]))
            variance = part.known + (nugget[part.group] if nugget.size else 0.0)
            samples.append(Sample(part.rows, part.innovation, variance, correlated, weight))
        found = negative_log_evidence(prior, samples)
        gradient = np.zeros(self.groups)
        for (part, _, _), by in zip(self.parts, found.by_variance, strict=True):
            if nugget.size:
                gradient += np.bincount(part.group, weights=by, minlength=nugget.size)
        return found, np.concatenate([2.0 * nugget * gradient, found.by_slopes])


def fit_points(
    operator: SpdeOperator,
    windows: Sequence[PointWindow],
    *,
    steps: int,
    start: SpdeParameters,
    errors: Float,
    track: tuple[float, float] | None = None,
    dt: float = 1.0,
    alpha: int = 4,
    knots: tuple[int, int] = (1, 1),
    names: tuple[str, ...] = ("log_kappa", "log_tau", "log_h"),
    smoothness: float = 0.3,
    objective: str = "likelihood",
    initial: str = "stationary",
    max_iterations: int = 60,
    stderr: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> PointFit:
    """Fit the prior and the errors to scattered observations.

    Parameters
    ----------
    operator : SpdeOperator
        Mesh and scheme.
    windows : sequence of PointWindow
        Independent windows of `steps` steps.
    steps : int
        Of a window.
    start : SpdeParameters
        Where the climb begins.
    errors : ndarray (g,)
        Start of the standard deviations of independent errors; empty to keep what is known.
    track : tuple of float, optional
        Start of standard deviation and length (metres) of errors along tracks.
    dt, alpha, knots, names, smoothness, initial, max_iterations, stderr, progress
        As for :func:`xr_spde.fields.spde_fit.fit`.
    objective : {"likelihood", "missions"}, default "likelihood"
        See :data:`OBJECTIVES`.

    Returns
    -------
    PointFit

    Raises
    ------
    ParameterError
        For windows without observations, or of one mission for "missions".
    UnknownNameError
        For another objective.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if not sum(w.innovation.size for w in windows):
        raise ParameterError("the windows hold no observation; expected some")
    groups, further = errors.size, np.log(errors)
    if track is not None:
        further = np.concatenate([further, np.log(track)])
    problem = _PointProblem(
        operator, windows, groups, objective, steps=steps, dt=dt, alpha=alpha, initial=initial,
        knots=knots, names=names, start=start, smoothness=smoothness, further=further,
    )  # fmt: skip
    found, numbers, deviations = problem.solve(max_iterations, stderr, progress)
    scale = np.exp(numbers)
    parts = [(scale[k], (scale * deviations)[k]) for k in (slice(groups), slice(groups, None))]
    return PointFit(found, *parts[0], *(parts[1] if track is not None else (None, None)))


def starting_scales(when: Float, y: Float, x: Float, values: Float) -> tuple[float, float]:
    """Distance and time at which the correlation of observations has fallen to one half.

    Parameters
    ----------
    when, y, x, values : ndarray (p,)
        Times, positions in metres, and innovations; at most some are looked at.

    Returns
    -------
    distance, time : float
        From means over pairs in bins: a start for a climb, not an estimate. Where no bin falls so
        far, a quarter of the extent.
    """
    thin = slice(None, None, -(-values.size // _PAIRS))
    t, b, a, v = (one[thin] for one in (when, y, x, values))
    product = np.multiply.outer(v, v) / float(np.mean(v**2))
    later = np.abs(np.subtract.outer(t, t))
    apart = np.hypot(np.subtract.outer(b, b), np.subtract.outer(a, a))
    pairs = np.triu(np.ones(product.shape, dtype=bool), 1)
    reach, days = 0.5 * float(apart.max()), 0.75 * float(later.max())
    distance = _half(apart, product, pairs & (later <= 0.1 * days), reach)
    return distance, _half(later, product, pairs & (apart <= 0.5 * distance), days)


def _half(lag: Float, product: Float, chosen: NDArray[np.bool_], reach: float) -> float:
    """First lag at which the mean product falls below one half."""
    edges = np.linspace(0.0, reach, _BINS + 1)
    for low, high in pairwise(edges):
        here = chosen & (lag >= low) & (lag < high)
        if here.any() and product[here].mean() < 0.5:
            return float(0.5 * (low + high))
    return 0.5 * reach

"""Ensemble filters in the space of codes, on arrays: forecast, model error, analysis, guard.

A member is a code z_j, and what an observation at a point p sees of it is ``D(z_j)(p)``, which the
state map evaluates at p itself: no grid and no interpolation in between. All filters of
:mod:`xr_spde.assim.filters` act on codes as on any other state.

Codes have no places, so that distances mean nothing to them. A localised analysis is made where
they are decoded: members are decoded at the points of the training and analysed by an LETKF, and
the increments are brought back by weighted least squares with the Jacobian J of the decoder,

    dz_j = (J' W J + eps S^-2)^-1 J' W dx_j,

S the spread of the training codes. Without localisation that is the ETKF.

References
----------
Peyron et al. (2021), Q. J. R. Meteorol. Soc. 147 (ETKF-Q in latent space); Hunt, Kostelich,
Szunyogh (2007), Physica D 230.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from xr_spde._core.codes import CodeGuard
from xr_spde._core.errors import DivergenceError
from xr_spde.assim.filters import analysis_weights
from xr_spde.assim.inflation import Adaptive
from xr_spde.assim.latent.protocols import ErrorModel, Propagator, StateMap
from xr_spde.assim.latent.seen import NOTHING, Leap, Seen, innovation_statistics
from xr_spde.assim.letkf import LocalFilter
from xr_spde.assim.localization import Neighbours, Places
from xr_spde.assim.model_noise import add_noise
from xr_spde.assim.noise import IndependentErrors
from xr_spde.assim.projection import Projection, project
from xr_spde.assim.transforms import mean_preserving_rotation, transform
from xr_spde.fields.latent_kalman import noise_over

__all__ = ["Analysed", "FilterSettings", "Instant", "LatentFilter", "noted", "noise_of"]

Float = NDArray[np.float64]
_RIDGE = 1e-6


@dataclass(frozen=True)
class FilterSettings:
    """How codes are analysed; see :func:`xr_spde.assim.latent.apply.assimilate_latent`."""

    method: str = "etkf-q"
    localization: float | None = None
    taper: str = "gaspari-cohn"
    inflation: float | Adaptive = 1.0
    rtps: float = 0.0
    rtpp: float = 0.0
    rotate: bool = False
    threshold: float | None = None
    noise: float = 1.0
    limit: float = 10.0
    entropy: int = 0


@dataclass(frozen=True, eq=False)
class Instant:
    """Where the training has its points, for localisation.

    Attributes
    ----------
    places : Places (P)
        For distances.
    weights : ndarray (P,) or (P, c)
        Of the misfits when increments are brought back.
    """

    places: Places
    weights: Float


@dataclass(frozen=True, eq=False)
class Analysed:
    """Codes after one time.

    Attributes
    ----------
    codes : ndarray (N, n)
        Of the members.
    forecast : ndarray (n,)
        Mean before the analysis.
    statistics : dict of str to float
        As in :data:`NOTHING`.
    """

    codes: Float
    forecast: Float
    statistics: dict[str, float]


@dataclass(frozen=True, eq=False)
class LatentFilter:
    """A state map, a propagator and its error, with a filter.

    Attributes
    ----------
    map, propagator, error
        Parts of a model.
    settings : FilterSettings
        Of the filter.
    local : Instant, optional
        For localisation.
    """

    map: StateMap
    propagator: Propagator
    error: ErrorModel | None
    settings: FilterSettings
    local: Instant | None = None

    def run(self, codes: NDArray[Any], leaps: Sequence[Leap]) -> Iterator[Analysed]:
        """Alternate forecasts and analyses.

        Parameters
        ----------
        codes : ndarray (N, n)
            Of the members at the start.
        leaps : sequence of Leap
            From each time to the next.

        Returns
        -------
        iterator of Analysed
            One per leap.

        Raises
        ------
        DivergenceError
            If codes run away; names the step, its time and the members.
        ParameterError
            As :func:`xr_spde.assim.projection.project`.
        """
        settings = self.settings
        guard = CodeGuard(self.map.mean, self.map.spread, settings.limit)
        codes = np.asarray(codes, dtype=np.float64)
        for number, leap in enumerate(leaps):
            seeds = np.random.SeedSequence(settings.entropy, spawn_key=(number,)).spawn(2)
            with noted(number, leap, "forecast"):
                codes = self._forecast(codes, leap, seeds[0])
                guard.check(codes, number)
            mean, statistics = codes.mean(axis=0), dict(NOTHING)
            if leap.seen is not None:
                codes, statistics, settings = self._analysis(codes, leap.seen, settings, seeds[1])
                with noted(number, leap, "analysis"):
                    guard.check(codes, number)
            yield Analysed(codes, mean, statistics)

    def _forecast(self, codes: Float, leap: Leap, seed: Any) -> Float:
        """Codes after a leap, with the model error of its length."""
        if not leap.dt > 0.0:
            return codes
        codes = np.asarray(self.propagator.step(codes, leap.dt, leap.time), dtype=np.float64)
        if self.error is None or self.settings.noise == 0.0:
            return codes
        root = self.error.factor * np.sqrt(self.settings.noise)
        if leap.dt != 1.0:
            added = noise_of(self.propagator, self.error, leap.dt, self.settings.noise)
            values, vectors = np.linalg.eigh(added)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
        how = "deterministic" if self.settings.method == "etkf-q" else "sampled"
        return np.asarray(add_noise(codes, root, how=how, seed=seed))

    def _analysis(
        self, codes: Float, seen: Seen, settings: FilterSettings, seed: Any
    ) -> tuple[Float, dict[str, float], FilterSettings]:
        """Codes with what was observed, statistics, and settings with what inflation learned."""
        members = seen.of(self.map, codes)
        if settings.threshold is not None:
            kept = _accepted(members, seen, settings.threshold)
            if not kept.any():
                return codes, dict(NOTHING), settings
            seen, members = seen.select(kept), members[:, kept]
        projection = project(members, seen.values, IndependentErrors(seen.variance))
        statistics = innovation_statistics(
            seen.values - members.mean(axis=0), members.var(axis=0, ddof=1), seen,
            projection.chi_square,
        )  # fmt: skip
        factor = 1.0
        if isinstance(settings.inflation, Adaptive):
            learned = settings.inflation.update(
                projection.misfit, projection.spread, projection.count
            )
            settings, factor = replace(settings, inflation=learned), float(learned.factor)
            mean = codes.mean(axis=0)
            codes = mean + factor * (codes - mean)
            projection = Projection(projection.anomalies * factor, projection.innovation)
        by = settings.inflation if isinstance(settings.inflation, int | float) else 1.0
        if settings.localization is None:
            weights = analysis_weights(
                projection, method=settings.method, inflation=by, rtpp=settings.rtpp,
                rotate=settings.rotate, seed=seed,
            )  # fmt: skip
            return np.asarray(transform(codes, weights, rtps=settings.rtps)), statistics, settings
        return self._localised(codes, projection, seen, by, seed), statistics, settings

    def _localised(
        self, codes: Float, projection: Projection, seen: Seen, inflation: float, seed: Any
    ) -> Float:
        """Codes moved by the increments of an LETKF on decoded members."""
        settings, local = self.settings, self.local
        if local is None or settings.localization is None:
            return codes
        rotation = None
        if settings.rotate:
            rotation = mean_preserving_rotation(projection.size, seed)
        near = Neighbours(seen.sites, settings.localization, taper=settings.taper)
        analyse = LocalFilter(projection, near, inflation=inflation, rtpp=settings.rtpp,
                              rtps=settings.rtps, rotation=rotation)  # fmt: skip
        fields = np.asarray(self.map.decode(codes), dtype=np.float64)
        columns = np.ascontiguousarray(fields.transpose(0, 2, 1))
        moved = analyse(columns, local.places).transpose(0, 2, 1) - fields
        jacobian = np.asarray(self.map.jacobian(codes.mean(axis=0)), dtype=np.float64)
        weights = np.broadcast_to(_wide(local.weights), fields.shape[1:]).ravel()
        weighted = jacobian * weights[:, None]
        normal = weighted.T @ jacobian
        spread = np.square(self.map.spread)
        ridge = _RIDGE * float(np.mean(np.diagonal(normal) * spread))
        factor = cho_factor(normal + np.diag(ridge / spread))
        return np.asarray(codes + cho_solve(factor, weighted.T @ moved.reshape(len(codes), -1).T).T)


def noise_of(propagator: Propagator, error: ErrorModel | None, dt: float, factor: float) -> Float:
    """Covariance (n, n) of the model error of a step of any length.

    Parameters
    ----------
    propagator : Propagator
        Dynamics, of which the linear ones carry the error of the beginning of a step to its end.
    error : ErrorModel or None
        Of a step of length one.
    dt : float
        Length.
    factor : float
        On the variance.

    Returns
    -------
    ndarray (n, n)
        For other dynamics `dt` times the covariance, as if errors only added up.
    """
    if error is None:
        return np.zeros(())
    covariance = np.asarray(error.covariance) * factor
    if dt == 1.0 or propagator.name != "linear":
        return covariance * dt
    return noise_over(propagator, covariance, dt)


def _wide(weights: Float) -> Float:
    return weights[:, None] if weights.ndim == 1 else weights


@contextmanager
def noted(number: int, leap: Leap, what: str) -> Iterator[None]:
    """Say when codes ran away, whoever found it.

    Parameters
    ----------
    number : int
        Of the leap.
    leap : Leap
        Where it happens.
    what : str
        "forecast" or "analysis".

    Yields
    ------
    None

    Raises
    ------
    DivergenceError
        With a note that names step and time.
    """
    try:
        yield
    except DivergenceError as error:
        error.add_note(f"in the {what} of {leap.name or 'a time'}, step {number} of the cycle")
        raise


def _accepted(members: Float, seen: Seen, threshold: float) -> NDArray[np.bool_]:
    """Observations whose innovation is not too large."""
    expected = members.var(axis=0, ddof=1) + seen.variance
    return np.asarray(np.abs(seen.values - members.mean(axis=0)) <= threshold * np.sqrt(expected))

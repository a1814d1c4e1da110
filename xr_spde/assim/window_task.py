"""One window of interpolation in space and time: what lazy tasks compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.rng import member_generator
from xr_spde.assim.prior_recipe import PriorRecipe
from xr_spde.assim.tracks_in_time import GriddedSeries, PointSeries
from xr_spde.assim.windows import finite_guess, spacetime_rows
from xr_spde.fields.gaussian import GaussianCovariance, interpolate
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.track_noise import TrackNoise
from xr_spde.fields.track_posterior import TrackPosterior
from xr_spde.labels.grid import Grid
from xr_spde.labels.window_map import Window

__all__ = ["GaussianTask", "SpdeTask"]

Float = NDArray[np.float64]
Posterior = SpaceTimePosterior | TrackPosterior

_FIELDS, _ERRORS, _SPREAD = 0, 1, 2
"""Last part of the identity of a random stream."""

_TOGETHER = 50  # draws


@dataclass(frozen=True, eq=False)
class _Task:
    """What both kinds of interpolation have in common.

    Attributes
    ----------
    window : Window
        Which steps.
    grid : Grid
        Of the fields.
    land : ndarray (ny, nx) of bool
        Canonical.
    mean : ndarray (ny, nx) or (steps, ny, nx)
        Prior mean, canonical; a first guess comes with the call.
    observed : PointSeries or GriddedSeries
        Of the window.
    """

    window: Window
    grid: Grid
    land: NDArray[np.bool_]
    mean: Float
    observed: PointSeries | GriddedSeries

    @property
    def steps(self) -> int:
        """Steps that are computed."""
        return self.window.last - self.window.first + 1

    def prior_mean(self, guess: NDArray[Any] | None) -> Float:
        """Mean of every step (steps, ny, nx), canonical, zero on land."""
        if guess is None:
            found = np.broadcast_to(self.mean, (self.steps, *self.land.shape))
        else:
            found = self.grid.to_canonical(np.asarray(guess, dtype=np.float64))
        return finite_guess(found, self.land, self.window.first)

    def rows(self, points: PointSeries) -> sp.csr_array:
        """Rows in space and time of the window."""
        return spacetime_rows(points.rows, points.position - self.window.first, self.steps)

    def stored(self, fields: Float) -> Float:
        """Kept steps of (..., steps, ny, nx), as stored, NaN on land."""
        kept = slice(self.window.start - self.window.first, self.window.stop - self.window.first)
        found = np.where(self.land, np.nan, fields[..., kept, :, :])
        return np.ascontiguousarray(self.grid.from_canonical(found))


@dataclass(frozen=True, eq=False)
class SpdeTask(_Task):
    """Interpolation with the prior of an SPDE.

    Attributes
    ----------
    recipe : PriorRecipe
        Of the prior.
    maps : mapping of str to ndarray (ny, nx) or (steps, ny, nx)
        Its variables, canonical.
    members : int
        Number of draws.
    entropy : int
        Of all that is random.
    draws : int
        Behind the deviation where the exact one does not fit; 0 for no deviation.
    solver, tol
        Of :class:`xr_spde.fields.interpolation.SpaceTimePosterior`.
    """

    recipe: PriorRecipe
    maps: Mapping[str, Float]
    members: int
    entropy: int
    draws: int
    solver: str
    tol: float

    def __call__(self, guess: Any = None, **observed: Any) -> dict[str, Float]:
        """Return mean, deviation, draws and residual of the kept steps."""
        points, mean = self.observed.points(**observed), self.prior_mean(guess)
        prior = self.recipe.build(self.maps, self.land, self.steps)
        rows = self.rows(points)
        found = _given(points, prior, rows, self.solver, self.tol)
        innovation = points.value - rows @ mean.ravel()
        out = {"mean": self.stored(mean + found.mean(innovation))}
        residual = found.residual
        if self.draws:
            stream = member_generator(self.entropy, 0, _SPREAD, self.window.index)
            out["std"] = self.stored(found.deviation(draws=self.draws, noise=stream))
        if self.members:
            # some at a time: of the steps that a window needs besides its own no draws are kept
            out["ensemble"] = np.concatenate([
                self.stored(mean + self._draw(found, points, innovation, range(
                    first, min(first + _TOGETHER, self.members))))
                for first in range(0, self.members, _TOGETHER)
            ])  # fmt: skip
            residual = max(residual, found.residual)
        out["residual"] = np.full(self.window.stop - self.window.start, residual)
        return out

    def _draw(
        self, found: Posterior, points: PointSeries, innovation: Float, members: range
    ) -> Float:
        """Draws whose noise belongs to a step or an observation, whatever the window."""
        nodes, first = self.land.size, self.window.first
        noise = np.stack([
            [member_generator(self.entropy, m, _FIELDS, first + k).standard_normal(nodes)
             for k in range(self.steps)]
            for m in members
        ])  # fmt: skip
        whole = np.floor(points.position + 1e-6).astype(np.intp)
        errors = np.empty((len(members), points.value.size))
        for step in np.unique(whole):
            here = np.flatnonzero(whole == step)
            number = points.number[here]
            for k, m in enumerate(members):
                stream = member_generator(self.entropy, m, _ERRORS, int(step))
                errors[k, here] = stream.standard_normal(int(number.max()) + 1)[number]
        if points.tracks is not None:
            errors = points.tracks.colour(errors)
        return found.draw(innovation, noise, errors)


def _given(
    points: PointSeries, prior: SpaceTime, rows: sp.csr_array, solver: str, tol: float
) -> Posterior:
    """Condition the prior on points, whose errors may be correlated along tracks."""
    tracks = points.tracks
    if tracks is None:
        return SpaceTimePosterior(prior, rows, points.variance, solver=solver, tol=tol)
    std = np.sqrt(tracks.share) * tracks.std
    errors = TrackNoise(tracks.steps, tracks.track).errors(std, tracks.length)
    rest = (1.0 - tracks.share) * points.variance
    return TrackPosterior(prior, rows, rest, errors, solver=solver, tol=tol)


@dataclass(frozen=True, eq=False)
class GaussianTask(_Task):
    """Interpolation with a Gaussian covariance.

    Attributes
    ----------
    covariance : GaussianCovariance
        With times in days.
    step : float
        Days.
    deviation : bool
        Whether to compute it.
    """

    covariance: GaussianCovariance
    step: float
    deviation: bool

    def __call__(self, guess: Any = None, **observed: Any) -> dict[str, Float]:
        """Return mean and deviation of the kept steps."""
        points, mean, w = self.observed.points(**observed), self.prior_mean(guess), self.window
        innovation = points.value - self.rows(points) @ mean.ravel()
        places = np.column_stack([self.step * points.position, points.y, points.x])
        y, x = np.meshgrid(self.grid.canonical_y(), self.grid.canonical_x(), indexing="ij")
        water = ~self.land.ravel()
        nodes = np.column_stack([y.ravel()[water], x.ravel()[water]])
        times = self.step * np.arange(w.start, w.stop, dtype=np.float64)
        found, std = interpolate(self.covariance, places, innovation, points.variance, times=times,
                                 nodes=nodes, deviation=self.deviation)  # fmt: skip
        out = {"mean": self._whole(found, w) + mean}
        if std is not None:
            out["std"] = self._whole(std, w)
        return {name: self.stored(value) for name, value in out.items()}

    def _whole(self, values: Float, w: Window) -> Float:
        """Put values of water at the kept steps into fields of all steps."""
        fields = np.zeros((self.steps, self.land.size))
        fields[w.start - w.first : w.stop - w.first, ~self.land.ravel()] = values
        return fields.reshape(self.steps, *self.land.shape)

"""One analysis on arrays: from what is observed of the members to a change of any block of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.filters import analysis_weights
from xr_spde.assim.inflation import Adaptive, inflate
from xr_spde.assim.letkf import LocalFilter
from xr_spde.assim.localization import Neighbours, Places, on_plane, on_sphere
from xr_spde.assim.observations import Observations
from xr_spde.assim.observed import Observed
from xr_spde.assim.projection import Projection, project
from xr_spde.assim.radius import RadiusSample, best_radius
from xr_spde.assim.transforms import mean_preserving_rotation, transform
from xr_spde.labels.grid import Grid

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Settings:
    """How an ensemble is to be analysed; see :func:`xr_spde.assim.assimilate`."""

    method: str
    localization: float | None
    taper: str
    inflation: float | Adaptive
    rtps: float
    rtpp: float
    rotate: bool
    entropy: int
    threshold: float | None


def smallest_step(grid: Grid) -> float:
    """Distance of neighbouring points, the lesser of both directions, in the middle of a grid.

    Parameters
    ----------
    grid : Grid
        The grid.

    Returns
    -------
    float
        In metres; in units of the coordinates where these have no length.
    """
    if grid.kind == "index":
        return min(abs(grid.dy), abs(grid.dx))
    return float(min(np.median(size) for size in grid.cell_size()))


def places(grid: Grid, y: Float, x: Float) -> Places:
    """Places in space of positions in the units of a grid.

    Parameters
    ----------
    grid : Grid
        The grid.
    y, x : ndarray (p,)
        Positions.

    Returns
    -------
    Places
        In metres; in units of the coordinates where these have no length.

    Raises
    ------
    ParameterError
        If some have no position.
    """
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise ParameterError(
            "some observations have no position, because their operator is a function or a matrix: "
            'localisation needs one; give them coordinates, or use method="etkf"'
        )
    if grid.kind == "geographic":
        return on_sphere(x, y)
    unit = grid.metres or 1.0
    return on_plane(y * unit, x * unit)


@dataclass(frozen=True, eq=False)
class Solve:
    """Finds the change of the members and the statistics of the innovations.

    Attributes
    ----------
    observed : sequence of Observed
        One per observed variable.
    grid : Grid
        Of the ensemble.
    settings : Settings
        Of the filter.
    sample : RadiusSample or None
        What the radius of localisation is to be estimated from; its values come last.
    """

    observed: Sequence[Observed]
    grid: Grid
    settings: Settings
    sample: RadiusSample | None = None

    def __call__(self, *values: NDArray[Any]) -> dict[str, Any]:
        """Solve.

        Parameters
        ----------
        *values : ndarray (N, q)
            What `Observed.pick` found for each, and the sample.

        Returns
        -------
        dict
            ``update``, an `Update`; numbers and arrays by name.
        """
        settings, parts, used = self.settings, [], []
        found: dict[str, Any] = {}
        for number, (part, seen) in enumerate(zip(self.observed, values, strict=False)):
            obs, members = part.see(seen, settings.threshold)
            parts.append(project(members, obs.values, obs.error))
            used.append(obs)
            found |= {f"{k}_{number}": v for k, v in _statistics(obs, members).items()}
        projection = Projection(
            np.concatenate([part.anomalies for part in parts], axis=1),
            np.concatenate([part.innovation for part in parts]),
        )
        factor = 1.0
        if isinstance(settings.inflation, Adaptive):
            adapted = settings.inflation.update(
                projection.misfit, projection.spread, projection.count
            )
            factor = float(adapted.factor)
            found["inflation"] = adapted.variance_factor
            projection = Projection(projection.anomalies * factor, projection.innovation)
        found["chi_square"] = projection.chi_square
        bound = None if self.sample is None else self.sample.bound(values[-1])
        found["update"], found["localization"] = self._update(projection, used, factor, bound)
        return found

    def _update(
        self, projection: Projection, used: list[Observations], factor: float, bound: float | None
    ) -> tuple[Update, float]:
        settings = self.settings
        by = settings.inflation if isinstance(settings.inflation, int | float) else 1.0
        common: dict[str, Any] = {"inflation": by, "rtpp": settings.rtpp}
        if settings.method != "letkf":
            weights = analysis_weights(
                projection,
                method=settings.method,
                rotate=settings.rotate,
                seed=settings.entropy,
                **common,
            )
            return Update(factor, settings.rtps, weights=weights), np.nan
        sites = places(
            self.grid, np.concatenate([o.y for o in used]), np.concatenate([o.x for o in used])
        )
        radius = settings.localization
        if radius is None:
            limit = np.inf if bound is None else bound
            step = smallest_step(self.grid)
            radius = best_radius(projection, sites, limit, step, taper=settings.taper)
        rotation = None
        if settings.rotate:
            rotation = mean_preserving_rotation(projection.size, settings.entropy)
        local = LocalFilter(
            projection,
            Neighbours(sites, radius, taper=settings.taper),
            rtps=settings.rtps,
            rotation=rotation,
            **common,
        )
        return Update(factor, settings.rtps, local=local), radius


def _statistics(obs: Observations, members: NDArray[Any]) -> dict[str, Any]:
    """Numbers and arrays about the innovations of one variable."""
    innovation = obs.values - members.mean(axis=0, dtype=np.float64)
    expected = members.var(axis=0, ddof=1, dtype=np.float64) + np.asarray(obs.error.variance)
    return {
        "count": obs.size,
        "mean": innovation.mean(),
        "rms": np.sqrt(np.mean(innovation**2)),
        "expected": np.sqrt(expected.mean()),
        "innovation": np.where(obs.row >= 0, innovation[obs.row], np.nan),
        "status": obs.status,
    }


@dataclass(frozen=True, eq=False)
class Update:
    """A change of the members that any block of them can be given.

    Attributes
    ----------
    factor : float
        Inflation of the forecast, before all else.
    rtps : float
        Relaxation to prior spread.
    weights : ndarray (N, N), optional
        Of a global filter.
    local : LocalFilter, optional
        Of a local one.
    """

    factor: float
    rtps: float
    weights: Float | None = None
    local: LocalFilter | None = None

    def apply(self, block: NDArray[Any], points: Places | None) -> NDArray[Any]:
        """Analyse members.

        Parameters
        ----------
        block : ndarray (N, levels, n)
            Members of one dtype.
        points : Places (n) or None
            Where they are; not needed by global filters.

        Returns
        -------
        ndarray (N, levels, n)
        """
        members = block if self.factor == 1.0 else inflate(block, self.factor)
        if self.local is not None and points is not None:
            sea = np.isfinite(members).any(axis=(0, 1))
            if sea.all():
                return np.asarray(self.local(members, points))
            analysed = members.copy()  # nothing is asked about land
            if sea.any():
                analysed[:, :, sea] = self.local(members[:, :, sea], points[sea])
            return analysed
        if self.weights is None:
            return members
        return np.asarray(transform(members, self.weights, rtps=self.rtps))


@dataclass(frozen=True, eq=False)
class BlockUpdate:
    """Analyses blocks of the horizontal; what tasks call.

    Attributes
    ----------
    grid : Grid
        Of the ensemble.
    """

    grid: Grid

    def __call__(
        self,
        summary: Mapping[str, Any],
        bounds: Mapping[str, tuple[int, int]],
        blocks: Sequence[NDArray[Any]],
    ) -> list[dict[str, NDArray[Any]]]:
        """Analyse the blocks (N, ..., y, x) of some variables at the same points.

        Parameters
        ----------
        summary : mapping
            With ``update``.
        bounds : mapping
            First and last index (exclusive) along y and x.
        blocks : sequence of ndarray
            Members of each variable.

        Returns
        -------
        list of dict of str to ndarray
            ``analysis`` like the block; ``mean``, ``std`` and ``increment`` without members.
        """
        update: Update = summary["update"]
        points = None
        if update.local is not None:
            grid = self.grid
            rows, columns = (np.arange(*bounds[d]) for d in (grid.y_dim, grid.x_dim))
            y, x = np.meshgrid(grid.y0 + grid.dy * rows, grid.x0 + grid.dx * columns, indexing="ij")
            points = places(grid, y.ravel(), x.ravel())
        flat = [b.reshape(b.shape[0], -1, b.shape[-2] * b.shape[-1]) for b in blocks]
        analysed: list[NDArray[Any]] = [np.empty(0)] * len(flat)
        for dtype in {b.dtype for b in flat}:  # weights are found once for all of a dtype
            which = [k for k, b in enumerate(flat) if b.dtype == dtype]
            joined = (
                np.concatenate([flat[k] for k in which], axis=1) if which[1:] else flat[which[0]]
            )
            parts = np.cumsum([flat[k].shape[1] for k in which])[:-1]
            found = np.split(update.apply(joined, points), parts, axis=1)
            for k, one in zip(which, found, strict=True):
                analysed[k] = one
        return [_moments(b, a.reshape(b.shape)) for b, a in zip(blocks, analysed, strict=True)]


def _moments(before: NDArray[Any], after: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Members, mean, standard deviation and what the mean changed by."""
    first, mean, std = _mean_std(after)
    earlier, old, _ = _mean_std(before, spread=False)
    increment = (first - earlier) + (mean - old)
    results = {"analysis": after, "mean": first + mean, "std": std, "increment": increment}
    return {name: np.asarray(values, dtype=after.dtype) for name, values in results.items()}


def _mean_std(members: NDArray[Any], *, spread: bool = True) -> tuple[Float, Float, Float]:
    """First member, mean departure from it, and standard deviation; member after member."""
    first = members[0].astype(np.float64)
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for member in members[1:]:
        departure = member - first
        total += departure
        if spread:
            squares += departure * departure
    size = len(members)
    mean = total / size
    return first, mean, np.sqrt(np.maximum(squares - size * mean * mean, 0.0) / (size - 1))

"""Observations for the fit of a space-time prior: read, and cut into windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import MemoryGuardError, ParameterError, unknown
from xr_spde.assim.correlated import AlongTrack
from xr_spde.assim.noise import ErrorModel
from xr_spde.assim.prior_recipe import PriorRecipe, check_names
from xr_spde.assim.times import as_times, check_times, regular_times, step_of, time_dim
from xr_spde.assim.tracks_in_time import PointSeries, read_points
from xr_spde.assim.windows import spacetime_rows
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.fields.spde_fit_points import OBJECTIVES, PointWindow, starting_scales
from xr_spde.fields.spde_physical import from_physical
from xr_spde.fields.spde_variance import local_std
from xr_spde.fields.window_blocks import plan
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import as_points, find_time

__all__ = ["TRACK_LENGTH", "PointProblem", "read_point_problem", "thinned"]

Float = NDArray[np.float64]

_WORK = 1e10
"""Operations of the factor of a window up to which it is not cut."""

TRACK_LENGTH = 3e5
"""Start of the length of errors along tracks, in metres."""


@dataclass(frozen=True, eq=False)
class PointProblem:
    """What was given, read.

    Attributes
    ----------
    recipe : PriorRecipe
        On the part of the grid that is used.
    land, whole_land : ndarray (ny, nx) of bool
        Canonical, of the part and of the whole.
    whole : PriorRecipe
        On the whole grid.
    mean : DataArray (Y, X)
        Prior mean.
    series : PointSeries
        Observations less the mean.
    steps : int
        Of all times.
    group, mission : ndarray of int (p,)
        Of the observations of the series.
    groups : ndarray
        Names of the groups of errors.
    known : bool
        Whether errors were given.
    """

    recipe: PriorRecipe
    land: NDArray[np.bool_]
    whole: PriorRecipe
    whole_land: NDArray[np.bool_]
    mean: xr.DataArray
    series: PointSeries
    steps: int
    group: NDArray[np.intp]
    mission: NDArray[np.intp]
    groups: NDArray[Any]
    known: bool

    def windows(self, length: int | str) -> tuple[list[PointWindow], int, SpdeOperator]:
        """Cut the series."""
        operator = self.recipe.operator(self.land)
        if length == "auto":
            length = self._affordable(operator)
        if not isinstance(length, int | np.integer) or isinstance(length, bool) or length < 1:
            raise ParameterError(f'window={length!r} was given; expected steps >= 1, or "auto"')
        length = min(int(length), self.steps - 1)
        place = np.minimum((self.series.position + 1e-6) // length, (self.steps - 2) // length)
        found = []
        for k in np.unique(place).astype(np.intp):
            here = np.flatnonzero(place == k)
            points = self.series.keep(here)
            # the last window may reach beyond the times, where nothing is observed
            position = np.maximum(points.position - k * length, 0.0)
            rows = spacetime_rows(points.rows, position, length + 1)
            along = points.tracks
            found.append(PointWindow(
                rows, points.value, points.variance if self.known else np.zeros(here.size),
                self.group[here], self.mission[here],
                None if along is None else (along.steps, along.track),
            ))  # fmt: skip
        return found, length + 1, operator

    def _affordable(self, operator: SpdeOperator) -> int:
        parameters = SpdeParameters.of(operator.mesh.shape, kappa=1.0)
        length = self.steps - 1
        while True:
            prior = SpaceTime(operator, parameters, steps=length + 1, dt=self.recipe.step,
                              alpha=self.recipe.settings["alpha"])  # fmt: skip
            try:
                cut = plan(prior, reach=prior.coupling, solver="direct")
            except MemoryGuardError:
                if length == 1:
                    raise
            else:
                if length == 1 or cut.work <= _WORK:
                    return length
            length = -(-length // 2)

    def start(self, operator: SpdeOperator) -> tuple[SpdeParameters, dict[str, float]]:
        """Guess lengths and times from pairs of observations."""
        series, recipe = self.series, self.recipe
        dy, dx = (float(np.mean(a)) for a in recipe.grid.cell_size())
        y = series.y * dy / abs(recipe.grid.dy)
        x = series.x * dx / abs(recipe.grid.dx)
        alpha = int(recipe.settings["alpha"])
        distance, days = starting_scales(series.position * recipe.step, y, x, series.value)
        # the correlation of alpha = 4 is one half at 1.26 lengths, where waves decay faster
        scales = {"length": distance / 1.26, "std": float(np.std(series.value)),
                  "time": days / np.log(2.0) * 2.0 ** (alpha // 2)}  # fmt: skip
        if not scales["std"] > 0.0:
            raise ParameterError("the observations do not vary; expected anomalies of a field")
        shape = operator.mesh.shape
        bare = from_physical(shape, alpha=alpha, longest=scales["length"], time=scales["time"])
        unit = local_std(bare, operator.mesh, dt=recipe.step, alpha=alpha)[0]
        tau = scales["std"] / float(unit[~self.land].mean())
        return from_physical(shape, alpha=alpha, longest=scales["length"], time=scales["time"],
                             tau=tau), scales  # fmt: skip


def thinned(obs: Any, thin: Any, x: str | None, y: str | None) -> Any:
    """Turn maps into points, some cells and times of them; leave points as they are.

    Parameters
    ----------
    obs : DataArray or Dataset
        Points, or maps (time, Y, X).
    thin : (int, int) or None
        Every so many times and cells.
    x, y : str or None
        Names of the horizontal axes.

    Returns
    -------
    DataArray or Dataset
        Points.

    Raises
    ------
    ParameterError
        Maps without `thin`, points with it, or numbers that are not positive.
    """
    maps = isinstance(obs, xr.DataArray) and obs.ndim > 1
    if maps == (thin is None):
        raise ParameterError(
            "maps were given and no thin=(times, cells), which says how far apart observations "
            "are taken from them"
            if maps
            else f"thin={thin!r} is of maps, and points were given"
        )
    if not maps:
        return obs
    whole = isinstance(thin, tuple | list) and len(thin) == 2
    if not (whole and all(isinstance(k, int | np.integer) and k > 0 for k in thin)):
        raise ParameterError(f"thin={thin!r} was given; expected two whole numbers > 0")
    grid, dim = Grid.from_object(obs, x=x, y=y), time_dim(obs, "the maps")
    dims = (dim, grid.y_dim, grid.x_dim)
    if obs.ndim != len(dims):
        raise ParameterError(
            f"the maps have the dimensions {obs.dims}; expected {dims}; select along the others"
        )
    steps = zip(dims, (thin[0], thin[1], thin[1]), strict=True)
    taken = obs.isel({name: slice(None, None, k) for name, k in steps})
    return taken.stack({"_point": dims}).dropna("_point").reset_index("_point")


def read_point_problem(given: Mapping[str, Any]) -> PointProblem:
    """Read grid, times and observations.

    Parameters
    ----------
    given : mapping
        Arguments of `xr_spde.assim.prior_points.spde_prior_from_points`.

    Returns
    -------
    PointProblem
    """
    check_names(given["alpha"], given["boundary"], given["coast"], given["advection"])
    if given["objective"] not in OBJECTIVES:
        raise unknown("objective", given["objective"], OBJECTIVES)
    field, region = given["grid"], given["region"]
    if not isinstance(field, xr.DataArray):
        raise ParameterError(
            f"grid of type {type(field).__name__} was given; expected a DataArray (Y, X), NaN on "
            "land"
        )
    if region is not None and tuple(given["knots"]) != (1, 1):
        raise ParameterError(
            f"knots={given['knots']} were given with a region; parameters that vary are known "
            "where they were fitted alone: select that part of the grid, or leave knots out"
        )
    names = {"x": given["x"], "y": given["y"]}
    settings = {name: given[name] for name in ("alpha", "boundary", "coast", "advection")}
    settings["initial"] = "stationary"
    obs, field = as_points(given["obs"]), as_float(field)
    seen = find_time(obs)
    if given["times"] is None:
        if not float(given["time_step"]) > 0.0:
            raise ParameterError(f"time_step={given['time_step']!r} was given; expected days > 0")
        times = regular_times(seen, float(given["time_step"]))
        step = float(given["time_step"])
    else:
        times = check_times(as_times(given["times"], seen), "the prior")
        step = step_of(times, "the prior")
    if times.size < 2:
        raise ParameterError(
            "the observations are of one step; expected at least two, such as by a shorter "
            f"time_step than {step:g} days"
        )
    whole = PriorRecipe(Grid.from_object(field, **names), step, settings)
    part = field if region is None else field.sel(dict(region))
    recipe = PriorRecipe(Grid.from_object(part, **names), step, settings)
    plane = (recipe.grid.y_dim, recipe.grid.x_dim)
    field, part = field.transpose(*plane), part.transpose(*plane)
    series = _series(obs, recipe.grid, times, step, part, given)
    return _observed(obs, given, recipe, whole, part, field, series, times.size)


def _series(
    obs: Any, grid: Grid, times: xr.DataArray, step: float, part: xr.DataArray, given: Any
) -> PointSeries:
    """Read the observations; those of other places go where a region or times were asked for."""
    reading = {name: given[name] for name in ("value", "obs_x", "obs_y", "unusable")}
    reading |= {"operator": "auto", "footprint": None}
    if given["region"] is not None or given["times"] is not None:
        reading["unusable"] = "drop"
    known = _known(given)
    if not known and given["nugget"] is False:
        raise ParameterError(
            "nugget=False needs obs_error, the standard deviation of the errors; give it, or have "
            "it fitted with nugget=True"
        )
    error = given["obs_error"] if known else 1.0
    if given["track"] is not None:  # of which nothing but the distances counts
        error = AlongTrack(error, length=TRACK_LENGTH, share=0.5, track=given["track"])
    return read_points(obs, grid, times, step, part.isnull().values,
                       {**reading, "obs_error": error})[0]  # fmt: skip


def _observed(
    obs: Any, given: Any, recipe: PriorRecipe, whole: PriorRecipe, part: xr.DataArray,
    field: xr.DataArray, series: PointSeries, steps: int,
) -> PointProblem:  # fmt: skip
    """Subtract the mean, and sort the observations into groups."""
    mean = given["mean"]
    if isinstance(mean, xr.DataArray):
        mean = as_float(mean).transpose(*part.dims)
        inside = mean.reindex_like(part).where(part.notnull(), 0.0)
        if inside.isnull().any():
            raise ParameterError(
                f"mean is missing on {int(inside.isnull().sum())} cells of the grid that are not "
                "land; expected it on the grid of the prior, such as by .interp_like(grid)"
            )
        average = np.asarray(series.rows @ recipe.grid.to_canonical(inside.values).ravel())
        mean = mean.where(field.notnull())
    else:
        if isinstance(mean, str):
            if mean != "observations":
                raise unknown("mean", mean, ("observations", "a number", "a DataArray"))
            mean = float(series.value.mean())
        average = np.full(series.value.size, float(mean))
        mean = xr.full_like(field, float(mean)).where(field.notnull())
    series.value[:] = series.value - average
    groups, group = _labels(obs, given["nugget"], series)
    _, mission = _labels(obs, given["mission"] if given["objective"] == "missions" else None,
                         series)  # fmt: skip
    known = _known(given)
    lands = (r.grid.to_canonical(f.isnull().values) for r, f in ((recipe, part), (whole, field)))
    own, all_land = lands
    return PointProblem(recipe, own, whole, all_land, mean, series, steps, group, mission, groups,
                    known)  # fmt: skip


def _known(given: Mapping[str, Any]) -> bool:
    """Whether errors of the observations were given."""
    error = given["obs_error"]
    if isinstance(error, AlongTrack | ErrorModel):
        raise ParameterError(
            f"obs_error of type {type(error).__name__} was given; expected standard deviations; "
            "errors along tracks are fitted, with track="
        )
    return isinstance(error, xr.DataArray) or bool(np.any(error))


def _labels(obs: Any, name: Any, series: PointSeries) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Values of a variable of the observations, and which each has; one where there is no name."""
    if not isinstance(name, str):
        return np.zeros(1), np.zeros(series.value.size, dtype=np.intp)
    known = obs.variables if isinstance(obs, xr.Dataset) else obs.coords
    if name not in known or obs[name].ndim != 1:
        raise ParameterError(
            f"{name!r} is no variable or coordinate along the observations; name one that tells "
            "them apart"
        )
    found, number = np.unique(obs[name].values[series.given], return_inverse=True)
    return found, number.astype(np.intp)

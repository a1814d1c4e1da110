"""What was given for a mapping in space and time: read, and checked against one another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import resolve_seed
from xr_spde.assim.background_check import BackgroundCheck
from xr_spde.assim.prior_recipe import PriorRecipe, check_positive, read_prior, varying
from xr_spde.assim.problem import Problem
from xr_spde.assim.reading import Gridded, as_gridded
from xr_spde.assim.times import as_times, check_times, days_since, regular_times, step_of, time_dim
from xr_spde.assim.tracks_in_time import read_series
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.points import as_points, find_time
from xr_spde.labels.prior_schema import STEP, is_prior

__all__ = ["PriorProblem", "read_problem"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PriorProblem(Problem):
    """What was given, read, with the prior.

    Attributes
    ----------
    recipe : PriorRecipe or None
        Of the prior.
    maps : dict of str to ndarray (ny, nx) or (T, ny, nx)
        Its variables, canonical.
    """

    recipe: PriorRecipe | None
    maps: dict[str, Float]


def read_problem(given: dict[str, Any]) -> PriorProblem:
    """Read the prior, the first guess, the times and the observations.

    Parameters
    ----------
    given : dict
        Arguments of `xr_spde.assim.mapping.interpolate`.

    Returns
    -------
    PriorProblem
    """
    guess, prior, obs = _roles(given)
    if obs is None or not isinstance(obs, xr.DataArray | xr.Dataset):
        raise ParameterError(
            f"obs={type(obs).__name__} was given; expected a DataArray or Dataset of observations"
        )
    names = {"x": given["x"], "y": given["y"]}
    grid = dim = None
    if guess is not None:
        grid, dim = Grid.from_object(guess, **names), time_dim(guess, "the first guess")
        guess = as_float(guess).transpose(dim, grid.y_dim, grid.x_dim)
    reading = {k: given[k] for k in ("obs_error", "operator", "footprint", "unusable", "value",
                                     "obs_x", "obs_y")}  # fmt: skip
    gridded = as_gridded(obs, reading)
    times, step = _times(given["times"], guess, dim, prior, obs, gridded)
    recipe, maps, template, land = None, {}, guess, None
    if prior is not None:
        recipe, labelled = read_prior(prior, step=step, like=grid, **names)
        if grid is not None:
            same_grid(grid, recipe.grid, names=("the first guess", "the prior"))
        labelled = _at_times(labelled, varying(prior), times)
        maps = {k: recipe.grid.to_canonical(np.asarray(v.values)) for k, v in labelled.items()}
        land, grid = _dry(maps), grid or recipe.grid
        template = labelled["mean"] if "mean" in prior else labelled["std"]
        template = template.isel(dict.fromkeys(template.dims[:-2], 0), drop=True)
    if guess is not None:
        template = guess.isel({str(dim): 0}, drop=True)
    if grid is None or template is None:
        raise ParameterError(
            'method="oi-gaussian" needs a first guess (time, Y, X) or a Dataset of a prior with '
            "mean, for the grid; give for instance xr.zeros_like(maps)"
        )
    missing = grid.to_canonical(np.isnan(np.asarray(template.values)))
    land = missing if land is None else land | missing
    if recipe is not None:
        check_positive(maps, land)
    stored = grid.from_canonical(land)
    observed, points = read_series(
        obs, gridded, grid, times, step, stored, reading, given["threshold"],
        partial(_background_check, given, grid, maps, land, guess),
    )  # fmt: skip
    sources = (guess, prior, obs if gridded is None else gridded.values)
    return PriorProblem(grid, land, guess, template, times, step, observed, points, sources,
                        resolve_seed(given["seed"]), recipe, maps)  # fmt: skip


def _at_times(
    maps: dict[str, xr.DataArray], dim: str | None, times: xr.DataArray
) -> dict[str, xr.DataArray]:
    """Select what varies of a prior at the output times."""
    if dim is None:
        return maps
    own = next(da[dim] for da in maps.values() if dim in da.dims)
    days = days_since(check_times(own, "the prior"), times[0])
    wanted = days_since(times, times[0])
    place = np.abs(days[:, None] - wanted).argmin(axis=0)
    missing = np.abs(days[place] - wanted) > 1e-6
    if missing.any():
        raise ParameterError(
            f"the prior varies in time and lacks {int(missing.sum())} of the {wanted.size} output "
            f"times, the first {times.values[missing][0]}; it has {own.size} from {own.values[0]} "
            f"to {own.values[-1]}: interpolate it, such as prior.interp({dim}=times), or select "
            "times= that it has"
        )
    return {name: da.isel({dim: place}) if dim in da.dims else da for name, da in maps.items()}


def _dry(maps: dict[str, Float]) -> NDArray[np.bool_]:
    """Say where a prior is NaN (ny, nx)."""
    land = np.zeros(maps["std"].shape[-2:], dtype=bool)
    for name in ("length", "decay_time", "std", "mean"):
        missing = np.isnan(maps[name]).reshape(-1, *land.shape)
        some = int((missing.any(axis=0) & ~missing.all(axis=0)).sum())
        if some:
            raise ParameterError(
                f"{name} of the prior is missing at some times and not at others in {some} cells; "
                "land is NaN at all times, and what varies is known at all of them"
            )
        land |= missing[0]
    return land


def _background_check(
    given: dict[str, Any], grid: Grid, maps: dict[str, Float], land: NDArray[np.bool_], guess: Any
) -> BackgroundCheck | None:
    """Return what rejects points too far from the prior, if that was asked for."""
    if given["threshold"] is None:
        return None
    if any(maps[name].ndim > 2 for name in ("mean", "std") if name in maps):
        raise ParameterError(
            "threshold= needs a mean and a std that do not vary in time; give the mean as a first "
            "guess, or screen the observations beforehand"
        )
    if given["method"] == "oi-gaussian":
        maps = {"mean": maps.get("mean", np.zeros(grid.shape)),
                "std": np.full(grid.shape, float(given["std"]))}  # fmt: skip
    return BackgroundCheck(given["threshold"], grid, land, maps["mean"], maps["std"], guess)


def _roles(given: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Say which is the first guess, the prior and the observations."""
    obj, obs, prior = given["obj"], given["obs"], given["prior"]
    if is_prior(obj):
        if prior is not None:
            raise ParameterError("two priors were given; leave prior= out")
        return None, obj, obs
    if prior is None and given["method"] == "oi":
        raise ParameterError(
            'method="oi" needs prior=, the Dataset of a space-time prior; fit one with '
            ".assim.spde_prior(), or write length, decay_time and std by hand"
        )
    if obs is None:
        return None, prior, obj
    if not isinstance(obj, xr.DataArray):
        raise ParameterError(
            "the first guess is a Dataset; pass one variable, such as ds.adt.assim.assimilate(...)"
        )
    return obj, prior, obs


def _times(
    times: Any, guess: Any, dim: str | None, prior: Any, obs: Any, gridded: Gridded | None
) -> tuple[xr.DataArray, float]:
    """Output times and their step in days."""
    told = None if prior is None else prior.attrs.get(STEP)
    own = told if told is not None and 0.0 < float(told) < np.inf else None
    if guess is not None:
        if times is not None:
            raise ParameterError("times= was given with a first guess, whose times are taken")
        return guess[dim], step_of(guess[dim], "the first guess")
    if gridded is not None:
        seen = gridded.values[time_dim(gridded.values, "the observations")]
        check_times(seen, "the observations")
    else:
        seen = find_time(as_points(obs))
    if times is not None:
        found = as_times(times, seen)
        check_times(found, "the output")
        if found.size == 1 and own:
            return found, float(own)
        return found, step_of(found, "the output")
    when = None if prior is None else varying(prior)
    if when is not None:
        return prior[when], step_of(prior[when], "the prior")
    if not own:
        raise ParameterError(
            f"times= is needed: the attribute {STEP!r} of the prior is {told!r}; give regular dates"
        )
    return regular_times(seen, float(own)), float(own)

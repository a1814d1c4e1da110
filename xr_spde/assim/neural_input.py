"""What was given for maps by a neural solver: read, and checked against one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import resolve_seed
from xr_spde.assim.background_check import BackgroundCheck
from xr_spde.assim.neural_grid import check_spacing, covering
from xr_spde.assim.observations import Observations
from xr_spde.assim.problem import Problem
from xr_spde.assim.reading import Gridded, as_gridded, value_of
from xr_spde.assim.screening import check_innovations
from xr_spde.assim.times import as_times, check_times, regular_times, step_of, time_dim
from xr_spde.assim.tracks_in_time import GriddedSeries, PointSeries, read_series
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.points import as_points, find_time

__all__ = ["part_of", "read_neural_problem"]

_METRES = ("m", "meter", "meters", "metre", "metres")


def read_neural_problem(given: dict[str, Any]) -> Problem:
    """Read first guess, grid, times and observations.

    Parameters
    ----------
    given : dict
        Arguments of `xr_spde.assim.neural_apply.apply_solver`.

    Returns
    -------
    Problem
    """
    model, names = given["model"], {"x": given["x"], "y": given["y"]}
    guess, obs = _roles(given["obj"], given["obs"])
    reading = {k: given[k] for k in ("obs_error", "unusable", "value", "obs_x", "obs_y")}
    gridded = as_gridded(obs, reading)
    units = _units(obs, given["value"], model, guess)
    dim = None
    if guess is not None:
        dim = time_dim(guess, "the first guess")
        grid = Grid.from_object(guess, **names)
        guess = as_float(guess)
        extra = [str(d) for d in guess.dims if d not in (dim, grid.y_dim, grid.x_dim)]
        if extra:
            raise ParameterError(
                f"the first guess has the dimension {extra[0]!r} besides time and the grid; select "
                f"along it first, such as .isel({extra[0]}=0)"
            )
        guess = guess.transpose(dim, grid.y_dim, grid.x_dim)
    like = _like(given, guess, dim, obs, gridded)
    grid = Grid.from_object(like, **names)
    template = like.transpose(grid.y_dim, grid.x_dim)
    if guess is not None:
        same_grid(grid, Grid.from_object(guess, **names), names=("like", "the first guess"))
    land = grid.to_canonical(np.isnan(np.asarray(template.values)))
    if land.all():
        raise ParameterError("all cells of the grid are land: it is NaN everywhere")
    times, step = _times(given, guess, dim, obs, gridded)
    check_spacing(grid, land, model.spacing, step, model.time_step)
    stored = grid.from_canonical(land)
    own = {**reading, "operator": "auto", "footprint": None}
    observed, points = read_series(
        obs, gridded, grid, times, step, stored, own, given["threshold"],
        partial(_background_check, given, grid, land, guess),
    )  # fmt: skip
    if isinstance(observed, GriddedSeries) and not observed.cells.size:
        raise ParameterError("none of the cells of the gridded observations is on the grid")
    sources = (guess, obs if gridded is None else gridded.values)
    # what like= measures, such as depths in m, says nothing about the field
    kept = template.attrs if given["like"] is None else {}
    kept = {**kept, **{k: v for k, v in template.attrs.items() if k == "grid_mapping"}, **units}
    template = template.copy(deep=False)
    template.attrs = kept
    return Problem(
        grid, land, guess, template, times, step, observed, points, sources,
        resolve_seed(given["seed"]),
    )  # fmt: skip


def _roles(obj: Any, obs: Any) -> tuple[xr.DataArray | None, Any]:
    """Say which is the first guess and which are the observations."""
    if obs is None:
        guess, obs = None, obj
    elif isinstance(obj, xr.DataArray):
        guess = obj
    else:
        raise ParameterError(
            f"a first guess of type {type(obj).__name__} was given; pass one variable, such as "
            "ds.adt.assim.assimilate(...)"
        )
    if not isinstance(obs, xr.DataArray | xr.Dataset):
        raise ParameterError(
            f"obs={type(obs).__name__} was given; expected a DataArray or Dataset of observations"
        )
    return guess, obs


def _units(obs: Any, value: str | None, model: Any, guess: xr.DataArray | None) -> dict[str, str]:
    """Compare units, and return those of the result as attributes."""
    found = {"the observations": value_of(as_points(obs), value).attrs.get("units")}
    if guess is not None:
        found["the first guess"] = guess.attrs.get("units")
    told = None if model.units in (None, "1") else model.units
    known = {who: str(units) for who, units in found.items() if units is not None}
    for who, units in known.items():
        if told is not None and _plain(units) != _plain(told):
            raise ParameterError(
                f"{who} have units {units!r} and the solver was trained on {told!r}; convert "
                "them, and their errors with them"
            )
    if len({_plain(units) for units in known.values()}) > 1:
        raise ParameterError(f"units differ: {known}; convert one of them")
    return {"units": next(iter(known.values()))} if known else {}


def _plain(units: str) -> str:
    word = units.strip().lower()
    return "m" if word in _METRES else word


def _like(
    given: dict[str, Any], guess: Any, dim: str | None, obs: Any, gridded: Gridded | None
) -> xr.DataArray:
    """Find the labelled plane of the output, with NaN on land."""
    like = given["like"]
    if like is not None:
        if not isinstance(like, xr.DataArray) or like.ndim != 2:
            shape = getattr(like, "dims", type(like).__name__)
            raise ParameterError(
                f"like={shape} was given; expected a DataArray (Y, X) with NaN on land, such as "
                "maps.isel(time=0)"
            )
        return like
    if guess is not None:
        found: xr.DataArray = guess.isel({str(dim): 0}, drop=True)
        return found
    if gridded is not None:
        return gridded.template
    spacing = given["model"].spacing
    return covering(obs, spacing, obs_x=given["obs_x"], obs_y=given["obs_y"])


def _times(
    given: dict[str, Any], guess: Any, dim: str | None, obs: Any, gridded: Gridded | None
) -> tuple[xr.DataArray, float]:
    """Output times and their step in days."""
    times, usual = given["times"], float(given["model"].time_step)
    if guess is not None:
        if times is not None:
            raise ParameterError("times= was given with a first guess, whose times are taken")
        own = guess[dim]
        return own, usual if own.size == 1 else step_of(own, "the first guess")
    if gridded is not None:
        seen = gridded.values[time_dim(gridded.values, "the observations")]
    else:
        seen = find_time(as_points(obs))
    if times is None and gridded is None:
        return regular_times(seen, usual), usual
    found = seen if times is None else as_times(times, seen)
    check_times(found, "the observations" if times is None else "the output")
    if found.size == 1:
        return found, usual
    return found, step_of(found, "the observations" if times is None else "the output")


@dataclass(frozen=True, eq=False)
class _Check:
    """Rejects points whose innovation exceeds so many expected standard deviations."""

    background: BackgroundCheck
    scale: Callable[..., float]

    def __call__(self, found: Observations, position: NDArray[np.float64]) -> Observations:
        innovation = self.background.innovation(found, position)
        scale = self.scale(innovation, np.asarray(found.error.variance))
        variance = np.full(innovation.size, scale**2)
        return check_innovations(found, innovation, variance, threshold=self.background.threshold)


def _background_check(
    given: dict[str, Any], grid: Grid, land: NDArray[np.bool_], guess: xr.DataArray | None
) -> _Check | None:
    """Return what rejects points, if that was asked for."""
    if given["threshold"] is None:
        return None
    zeros = np.zeros(grid.shape)
    bare = BackgroundCheck(float(given["threshold"]), grid, land, zeros, zeros, guess)
    return _Check(bare, given["model"].scale_for)


def part_of(observed: PointSeries | GriddedSeries, start: int, stop: int, steps: int) -> Any:
    """Observations whose nearest step lies in a range, and the arrays that hold their values.

    Parameters
    ----------
    observed : PointSeries or GriddedSeries
        Of the series.
    start, stop : int
        Steps; the last is not one of them.
    steps : int
        Of the series.

    Returns
    -------
    PointSeries or GriddedSeries
        Without values where it is gridded.
    (int, int)
        Places of its times among those of the gridded observations; unused for points.
    """
    nearest = np.clip(np.floor(observed.position + 0.5), 0, steps - 1)
    low, high = (int(k) for k in np.searchsorted(nearest, [start, stop]))
    if isinstance(observed, PointSeries):
        return observed.keep(np.arange(low, high)), (low, high)
    error = None if np.ndim(observed.error) else observed.error
    part = replace(observed, values=None, error=error, position=observed.position[low:high],
                   offset=low)  # fmt: skip
    return part, (low, high)

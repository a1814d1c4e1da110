"""What was given to fit a neural solver to: read, checked, and split in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import GridError, ParameterError
from xr_spde.assim.neural_cells import cells_from_points
from xr_spde.assim.neural_maps import Maps, Moments
from xr_spde.assim.neural_settings import FitSettings
from xr_spde.assim.neural_sources import (
    Observed,
    SeriesSource,
    TrackCells,
    gridded_cells,
    simulated_missions,
)
from xr_spde.assim.prior_recipe import read_prior
from xr_spde.assim.reading import value_of
from xr_spde.assim.times import regular_times, step_of, time_dim
from xr_spde.fields.grid_units import to_grid_units
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.points import as_points, find_time

__all__ = ["Series", "read_series"]

Float = NDArray[np.float64]
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class _One:
    """One series before its anomalies are known."""

    grid: Grid
    times: xr.DataArray
    step: float
    units: str
    truth: Maps | None
    observed: Observed
    guess: Maps | float | None


@dataclass(frozen=True, eq=False)
class Series:
    """Series to train on.

    Attributes
    ----------
    sources : tuple of SeriesSource
        What windows are cut from.
    trained, held : tuple of (int, (int, int))
        Which series, and of which steps; `held` are not trained on.
    times : tuple of DataArray
        Of each series.
    scale, spacing, step, units
        As in `xr_spde.assim.neural_solver.NeuralSolver`.
    prior : Dataset or None
        Of the anomalies.
    grid : Grid
        Of the first series.
    """

    sources: tuple[SeriesSource, ...]
    trained: tuple[tuple[int, Span], ...]
    held: tuple[tuple[int, Span], ...]
    times: tuple[xr.DataArray, ...]
    scale: float
    spacing: tuple[float, float]
    step: float
    units: str
    prior: Any
    grid: Grid

    @property
    def described(self) -> str:
        """Sizes, periods and the scale, in words."""
        parts = [
            f"{t.size} times of {s.shape[0]} x {s.shape[1]} cells from {_date(t, 0)} to "
            f"{_date(t, -1)}"
            for s, t in zip(self.sources, self.times, strict=True)
        ]
        words = dict.fromkeys(parts)
        many = [f"{parts.count(p)} series of {p}" if parts.count(p) > 1 else p for p in words]
        return f"{'; '.join(many)}; scale {self.scale:.6g} {self.units}"

    def periods(self, *, held: bool) -> list[Any]:
        """First and last date that were trained on or held out; by series where there are several.

        Parameters
        ----------
        held : bool
            Those held out.

        Returns
        -------
        list
        """
        spans = self.held if held else self.trained
        found = [[_date(self.times[k], a), _date(self.times[k], b - 1)] for k, (a, b) in spans]
        return found[0] if len(found) == 1 else found

    @property
    def alpha(self) -> int:
        """Power of the prior."""
        return 4 if self.prior is None else int(self.prior.attrs.get("alpha", 4))

    def theta(self) -> dict[str, float]:
        """Mean of the prior over the grid in cells and steps.

        Returns
        -------
        dict of str to float
        """
        recipe, labelled = read_prior(self.prior, step=self.step, like=self.grid)
        recipe.check_plain("a variational solver")
        maps = {
            name: recipe.grid.to_canonical(np.asarray(da.values)).reshape(-1, *recipe.grid.shape)[0]
            for name, da in labelled.items()
        }
        land = np.isnan(maps["std"]) | np.isnan(maps["length"])
        mesh = recipe.mesh(land)
        parameters = recipe.build(maps, land, 1).parameters
        fields = to_grid_units(parameters, dx=mesh.dx, dy=mesh.dy, dt=self.step,
                               alpha=self.alpha, scale=self.scale)  # fmt: skip
        kappa, tau, m1, m2, v1, v2, gamma, beta = fields[:, 0][:, ~land]
        tensor = [np.mean(part) for part in
                  (gamma + beta * v1**2, beta * v1 * v2, gamma + beta * v2**2)]  # fmt: skip
        values, vectors = np.linalg.eigh([[tensor[0], tensor[1]], [tensor[1], tensor[2]]])
        return {
            "kappa": float(kappa.mean()), "tau": float(tau.mean()), "m1": float(m1.mean()),
            "m2": float(m2.mean()), "v1": float(vectors[0, 1]), "v2": float(vectors[1, 1]),
            "gamma": float(values[0]), "beta": float(values[1] - values[0]),
        }  # fmt: skip


def _date(times: xr.DataArray, index: int) -> str:
    value = times.values[index]
    return str(np.datetime_as_string(value, "m") if times.dtype.kind == "M" else value.isoformat())


def read_series(obj: Any, observations: Any, settings: FitSettings) -> Series:
    """Read truths, observations and first guesses.

    Parameters
    ----------
    obj, observations
        As for `xr_spde.assim.fit`.
    settings : FitSettings
        Of the fit.

    Returns
    -------
    Series

    Raises
    ------
    ParameterError, GridError, AxisNotFoundError
        As for `xr_spde.assim.fit`.
    """
    if settings.loss == "unsupervised" and settings.spde_prior is None:
        raise ParameterError(
            'loss="unsupervised" is the cost of interpolation with a prior; give spde_prior=, such '
            "as from observations.assim.spde_prior(grid=...)"
        )
    alone = observations is None and settings.loss == "unsupervised"
    if isinstance(obj, xr.Dataset) and not alone:
        raise ParameterError(
            "a Dataset was given as the truth; pass one variable, such as ds.adt.assim.fit(...); "
            'observations without a truth need loss="unsupervised" and spde_prior='
        )
    truths = _listed(observations if obj is None else obj)
    given = _matching(observations, len(truths), "observations")
    guesses = _matching(settings.first_guess, len(truths), "first_guess")
    ones = [
        _observations_alone(truth, guess, settings) if alone
        else _with_truth(truth, seen, guess, settings)
        for truth, seen, guess in zip(truths, given, guesses, strict=True)
    ]  # fmt: skip
    _check_alike(ones)
    trained, held = _split([one.times.size for one in ones], settings)
    stops = dict(trained)
    last = {k: stops[k][1] if k in stops else one.times.size for k, one in enumerate(ones)}
    sources, scale = _anomalies(ones, last, settings)
    dy, dx = ones[0].grid.cell_size()
    return Series(
        sources, tuple(trained), tuple(held), tuple(one.times for one in ones), scale,
        (float(dy.mean()) / 1e3, float(dx.mean()) / 1e3), ones[0].step, ones[0].units,
        settings.spde_prior, ones[0].grid,
    )  # fmt: skip


def _listed(obj: Any) -> list[Any]:
    """Part series along a dimension of runs."""
    if isinstance(obj, list | tuple):
        if not obj:
            raise ParameterError("an empty list of series was given; expected at least one")
        return list(obj)
    if isinstance(obj, xr.DataArray) and obj.ndim == 4:
        grid, dim = Grid.from_object(obj), time_dim(obj, "the truth")
        (run,) = (d for d in obj.dims if d not in (grid.y_dim, grid.x_dim, dim))
        return [obj.isel({run: k}, drop=True) for k in range(obj.sizes[run])]
    return [obj]


def _matching(given: Any, count: int, name: str) -> list[Any]:
    """One of something for each series."""
    if not isinstance(given, list | tuple):
        several = count > 1 and isinstance(given, xr.DataArray) and given.ndim == 4
        if several:
            return _matching(_listed(given), count, name)
        if count > 1 and name == "observations" and given is not None:
            raise ParameterError(
                f"{count} series and one object of observations were given; expected a list of "
                "as many"
            )
        return [given] * count
    if len(given) != count:
        raise ParameterError(f"{name}= has {len(given)} parts for {count} series")
    return list(given)


def _truth(obj: Any, what: str, settings: FitSettings) -> tuple[xr.DataArray, Grid, str, float]:
    """Check a series (time, Y, X)."""
    if not isinstance(obj, xr.DataArray):
        raise ParameterError(
            f"{what} of type {type(obj).__name__} was given; expected a DataArray (time, Y, X)"
        )
    grid = Grid.from_object(obj, x=settings.x, y=settings.y)
    if not np.isfinite(grid.cell_size()[1]).all():
        raise GridError(
            f"{what} is on {grid.described()} without lengths; expected degrees, or units such as "
            "m or km on the coordinates"
        )
    dim = time_dim(obj, what)
    if set(obj.dims) != {dim, grid.y_dim, grid.x_dim}:
        raise ParameterError(
            f"{what} has the dimensions {obj.dims}; expected time and the grid, and at most one "
            "more of runs; select along the others first"
        )
    return as_float(obj), grid, dim, step_of(obj[dim], what)


def _with_truth(obj: Any, seen: Any, guess: Any, settings: FitSettings) -> _One:
    """Read a truth, and the observations of it."""
    truth, grid, dim, step = _truth(obj, "the truth", settings)
    observed: Observed
    if seen is None:
        systems, orbits, noise = settings.systems()
        observed = simulated_missions(truth, grid, step, dim, systems, orbits, noise)
    elif _on_a_grid(seen, settings):
        own = value_of(seen, settings.value)
        times = own[time_dim(own, "the observations")]
        if not np.array_equal(times.values, truth[dim].values):
            raise ParameterError(
                f"gridded observations have {times.size} times from {times.values[0]} on, and the "
                f"truth {truth.sizes[dim]} from {truth[dim].values[0]} on; expected the same: "
                "select, or give points with times"
            )
        observed = gridded_cells(seen, grid, str(times.dims[0]), settings.obs_error,
                                 settings.value)  # fmt: skip
    else:
        observed = _tracks(seen, grid, truth[dim], step, settings)
    return _One(grid, truth[dim], step, str(truth.attrs.get("units", "1")),
                Maps(truth, grid, dim), observed, _guess(guess, grid, dim))  # fmt: skip


def _on_a_grid(seen: Any, settings: FitSettings) -> bool:
    return value_of(as_points(seen), settings.value).ndim > 1


def _tracks(
    seen: Any, grid: Grid, times: xr.DataArray, step: float, settings: FitSettings
) -> TrackCells:
    """Average points in cells and steps."""
    reading = {"obs_error": settings.obs_error, "unusable": "drop", "value": settings.value,
               "obs_x": None, "obs_y": None}  # fmt: skip
    land = np.zeros(grid.shape, dtype=bool)
    return TrackCells(cells_from_points(seen, grid, times, step, land, reading)[0])


def _guess(guess: Any, grid: Grid, dim: str) -> Maps | float | None:
    """Read a first guess."""
    if guess is None or (np.ndim(guess) == 0 and not isinstance(guess, xr.DataArray)):
        if guess is not None and not np.isfinite(float(guess)):
            raise ParameterError(f"first_guess={guess!r} was given; expected a finite number")
        return None if guess is None else float(guess)
    if not isinstance(guess, xr.DataArray):
        raise ParameterError(
            f"first_guess of type {type(guess).__name__} was given; expected a number, or a "
            "DataArray (Y, X) or (time, Y, X)"
        )
    own = Grid.from_object(guess)
    same_grid(grid, own, names=("the truth", "the first guess"))
    return Maps(as_float(guess), own, dim if dim in guess.dims else None)


def _observations_alone(seen: Any, guess: Any, settings: FitSettings) -> _One:
    """Read observations without a truth, about the mean of the prior."""
    prior: Any = settings.spde_prior
    if _on_a_grid(seen, settings):
        own, grid, dim, step = _truth(value_of(seen, settings.value), "the observations", settings)
        observed: Observed = gridded_cells(seen, grid, dim, settings.obs_error, settings.value)
        times = own[dim]
    else:
        recipe, _ = read_prior(prior)
        grid, step = recipe.grid, recipe.step
        times, dim = regular_times(find_time(as_points(seen)), step), "time"
        own = value_of(as_points(seen), settings.value)
        observed = _tracks(seen, grid, times, step, settings)
    found = _guess(guess, grid, dim)
    if found is None:
        _, labelled = read_prior(prior, step=step, like=grid)
        mean = labelled["mean"]
        found = _guess(mean.isel(dict.fromkeys(mean.dims[:-2], 0), drop=True), grid, dim) \
            if mean.coords else 0.0  # fmt: skip
    return _One(grid, times, step, str(own.attrs.get("units", "1")), None, observed, found)


def _check_alike(ones: Sequence[_One]) -> None:
    """Refuse series with other steps or units."""
    first = ones[0]
    for k, one in enumerate(ones):
        if abs(one.step / first.step - 1.0) > 1e-6 or one.units != first.units:
            raise ParameterError(
                f"series {k} has steps of {one.step:g} days and units {one.units!r}, and series 0 "
                f"{first.step:g} days and {first.units!r}; one network knows one of each"
            )


def _split(
    counts: Sequence[int], settings: FitSettings
) -> tuple[list[tuple[int, Span]], list[tuple[int, Span]]]:
    """Part what is trained on from what is held out."""
    share, window = settings.validation, settings.window
    gap = window if settings.gap is None else settings.gap
    if isinstance(share, Sequence):
        chosen = [int(k) for k in share]
        if not chosen or not set(chosen) < set(range(len(counts))):
            raise ParameterError(
                f"validation={share!r} was given for {len(counts)} series; expected numbers of "
                "some of them, or a share of the times"
            )
        spans = [(k, (0, n)) for k, n in enumerate(counts)]
        return [s for s in spans if s[0] not in chosen], [s for s in spans if s[0] in chosen]
    trained, held = [], []
    for k, n in enumerate(counts):
        last = max(window, round(float(share) * n))
        if n - last - gap < window:
            raise ParameterError(
                f"series {k} has {n} times, of which {last} are held out and {gap} left as a gap: "
                f"too few to train with window={window}; give more times, a shorter window, a "
                "smaller gap=, or validation= with numbers of whole series"
            )
        trained.append((k, (0, n - last - gap)))
        held.append((k, (n - last, n)))
    return trained, held


def _anomalies(
    ones: Sequence[_One], last: Mapping[int, int], settings: FitSettings
) -> tuple[tuple[SeriesSource, ...], float]:
    """Find first guesses and the scale, from the times to train on."""
    moments: list[Moments | None] = []
    for k, one in enumerate(ones):
        level = one.guess
        if isinstance(level, float):
            template = xr.DataArray(np.full(one.grid.shape, level), dims=(one.grid.y_dim,
                                    one.grid.x_dim))  # fmt: skip
            level = Maps(template, one.grid, None)
        moments.append(None if one.truth is None else Moments.of(one.truth, last[k], level))
    known = [m.variance for m in moments if m is not None]
    if known:
        scale = float(np.sqrt(np.mean(known)))
    else:
        prior: Any = settings.spde_prior
        _, labelled = read_prior(prior, step=ones[0].step, like=ones[0].grid)
        scale = float(np.nanmean(labelled["std"].values))
    sources = []
    for one, moment in zip(ones, moments, strict=True):
        shape = one.grid.shape
        guess = one.guess if isinstance(one.guess, Maps) else None
        mean = np.full(shape, one.guess) if isinstance(one.guess, float) else np.zeros(shape)
        sea = np.ones(shape, dtype=bool)
        if moment is not None:
            sea = np.isfinite(moment.mean)
            mean = np.where(sea, moment.mean, 0.0) if one.guess is None else mean
        if guess is not None:
            sea = sea & np.isfinite(guess.read(0, 1, slice(0, shape[0]), slice(0, shape[1]))[0])
        sources.append(SeriesSource(one.truth, guess, mean, one.observed, sea, scale))
    return tuple(sources), scale

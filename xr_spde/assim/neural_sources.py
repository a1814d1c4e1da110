"""Series of maps and their observations, from which training windows are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.neural_cells import Cells, cells_from_points
from xr_spde.assim.neural_maps import Maps
from xr_spde.assim.observing import Mission, simulate_tracks
from xr_spde.assim.reading import error_variable, value_of
from xr_spde.labels.arrays import as_float
from xr_spde.labels.grid import Grid, same_grid

if TYPE_CHECKING:
    from xr_spde.nets.variational_windows import Place, Sample

__all__ = [
    "GriddedCells",
    "Missions",
    "Observed",
    "SeriesSource",
    "TrackCells",
    "gridded_cells",
    "simulated_missions",
]

Float = NDArray[np.float64]
Dense = tuple[Float, NDArray[np.bool_], Float, Float]


class Observed(Protocol):
    """Observations of a series."""

    def dense(self, place: Place, rng: np.random.Generator) -> Dense:
        """Return values, mask, variance and times after the step (T, ny, nx) of a window.

        In units of the data, and in steps.
        """


def _cut(cells: Cells, place: Place) -> Dense:
    """Cut a window from cells."""
    return cells.dense(
        place.start, place.start + place.steps, place.rows, place.columns, place.until,
        causal=place.causal,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TrackCells:
    """Observations along tracks as they were made.

    Attributes
    ----------
    cells : Cells
        Of the whole series.
    """

    cells: Cells

    def dense(self, place: Place, rng: np.random.Generator) -> Dense:
        """Return values, mask, variance and times of a window; nothing is drawn."""
        return _cut(self.cells, place)


@dataclass(frozen=True, eq=False)
class GriddedCells:
    """Gridded observations with NaN.

    Attributes
    ----------
    values : Maps
        NaN where nothing is observed.
    error : Maps or float
        Standard deviations.
    """

    values: Maps
    error: Maps | float

    def dense(self, place: Place, rng: np.random.Generator) -> Dense:
        """Return values, mask, variance and times of a window; nothing is drawn."""
        span = place.start, place.start + place.steps, place.rows, place.columns
        values = self.values.read(*span)
        mask = np.isfinite(values)
        error = self.error.read(*span) if isinstance(self.error, Maps) else self.error
        variance = np.where(mask, np.square(error), 1.0)
        if not (np.isfinite(variance) & (variance > 0.0)).all():
            raise ParameterError(
                "obs_error has values that are zero, negative or NaN where something is observed; "
                "expected standard deviations > 0"
            )
        return np.where(mask, values, 0.0), mask, variance, np.zeros(values.shape)


@dataclass(frozen=True, eq=False)
class Missions:
    """A truth that missions observe, with new errors in every window.

    Attributes
    ----------
    cells : sequence of Cells
        Of each mission, without errors; variances are those of a unit error.
    noise : sequence of (float, float)
        Standard deviation of the errors of a point, by mission: between these two, the logarithm
        drawn for every window.
    systems : sequence of tuple of int
        Missions that fly together; one of these is drawn for every window.
    """

    cells: Sequence[Cells]
    noise: Sequence[tuple[float, float]]
    systems: Sequence[tuple[int, ...]]

    def dense(self, place: Place, rng: np.random.Generator) -> Dense:
        """Return values, mask, variance and times of a window, seen by one of the systems."""
        weight = total = late = np.zeros(())
        system, louder = self.systems[int(rng.integers(len(self.systems)))], rng.random()
        for number in system:
            values, mask, share, offset = _cut(self.cells[number], place)
            low, high = self.noise[number]
            variance = share * (low * (high / low) ** louder) ** 2
            drawn = values + np.sqrt(variance) * rng.standard_normal(values.shape)
            weight = weight + mask / variance
            total = total + mask * drawn / variance
            late = late + mask * offset / variance
        mask = weight > 0.0
        variance = 1.0 / np.where(mask, weight, 1.0)
        return total * variance, mask, variance, late * variance


@dataclass(frozen=True, eq=False)
class SeriesSource:
    """A series of maps, what is observed of it, and how its windows are made.

    Attributes
    ----------
    truth : Maps or None
        Where it is known.
    guess : Maps or None
        First guess; zero where there is none.
    mean : ndarray (ny, nx)
        First guess, canonical, where `guess` is None.
    observed : Observed
        Observations.
    sea : ndarray (ny, nx) of bool
        Canonical.
    scale : float
        By which anomalies are divided.
    """

    truth: Maps | None
    guess: Maps | None
    mean: Float
    observed: Observed
    sea: NDArray[np.bool_]
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.sea.shape[0], self.sea.shape[1]

    def cut(self, place: Place, rng: np.random.Generator) -> Sample:
        """Cut a window in normalised units; whatever is drawn comes from `rng`."""
        from xr_spde.nets.variational_windows import Sample

        span = place.start, place.start + place.steps, place.rows, place.columns
        sea = self.sea[place.rows, place.columns]
        values, mask, variance, offset = self.observed.dense(place, rng)
        guess = self.mean[place.rows, place.columns] if self.guess is None \
            else self.guess.read(*span)  # fmt: skip
        # a first guess that is not known off land leaves no anomaly
        mask = mask & sea & np.isfinite(guess)
        truth = np.full(values.shape, np.nan)
        if self.truth is not None:
            truth = (self.truth.read(*span) - guess) / self.scale
        return Sample(
            obs=np.where(mask, (values - guess) / self.scale, 0.0),
            mask=mask,
            variance=variance / self.scale**2,
            truth=truth,
            sea=sea,
            offset=np.where(mask, offset, 0.0),
        )


def gridded_cells(
    obs: xr.DataArray | xr.Dataset, grid: Grid, dim: str, obs_error: Any, value: str | None
) -> GriddedCells:
    """Read gridded observations on the grid and at the times of a series.

    Parameters
    ----------
    obs : DataArray or Dataset
        With NaN where nothing is observed.
    grid : Grid
        Of the series.
    dim : str
        Its times.
    obs_error : float or DataArray, optional
        Standard deviation; by default a variable of the Dataset.
    value : str, optional
        Name of the variable.

    Returns
    -------
    GriddedCells

    Raises
    ------
    GridError
        For another grid.
    ParameterError
        For errors that are not known or not positive.
    """
    source = as_float(value_of(obs, value))
    own = Grid.from_object(source)
    same_grid(grid, own, names=("the truth", "observations"))
    error = error_variable(obs, source) if obs_error is None else obs_error
    if isinstance(error, xr.DataArray):
        has = dim if dim in error.dims else None
        found: Maps | float = Maps(as_float(error), Grid.from_object(error), has)
    elif np.ndim(error) == 0 and 0.0 < float(error) < np.inf:
        found = float(error)
    else:
        raise ParameterError(
            f"obs_error={error!r} was given; expected a number > 0, or a DataArray like the "
            "observations"
        )
    return GriddedCells(Maps(source, own, dim), found)


def simulated_missions(
    truth: xr.DataArray, grid: Grid, step: float, dim: str,
    systems: Sequence[Sequence[str]], known: dict[str, Mission],
    noise: dict[str, tuple[float, float]],
) -> Missions:  # fmt: skip
    """Observe a truth by missions, each apart and without errors.

    Parameters
    ----------
    truth : DataArray (time, Y, X)
        Series.
    grid, step, dim
        Of the series; days.
    systems : sequence of sequence of str
        Names of the missions that fly together.
    known : dict of str to Mission
        Their orbits.
    noise : dict of str to (float, float)
        Least and largest standard deviation of the errors of points.

    Returns
    -------
    Missions

    Raises
    ------
    ParameterError, GridError
        As for `xr_spde.assim.simulate_tracks`.
    """
    names = list(dict.fromkeys(name for system in systems for name in system))
    land = np.zeros(grid.shape, dtype=bool)  # what has land about it was left out
    reading = {"obs_error": 1.0, "unusable": "drop", "value": None, "obs_x": None, "obs_y": None}
    cells = []
    for name in names:
        points = simulate_tracks(truth, {name: known[name]}, noise=0.0, seed=0)
        values = points[str(truth.name) if truth.name is not None else "value"]
        cells.append(cells_from_points(values, grid, truth[dim], step, land, reading)[0])
    which = tuple(tuple(names.index(name) for name in system) for system in systems)
    return Missions(cells, [noise[name] for name in names], which)

"""Observations in space and time, sorted by the steps of a series: points and gridded fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.correlated import is_independent
from xr_spde.assim.observations import Observations, read_observations
from xr_spde.assim.reading import Gridded
from xr_spde.assim.times import check_times, days_since, time_dim
from xr_spde.assim.tracks import TrackErrors
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import as_points, find_points, find_time
from xr_spde.labels.window_map import Window

__all__ = ["GriddedSeries", "PointSeries", "read_gridded", "read_points", "read_series"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Check = Callable[[Observations, Float], Observations]

_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class PointSeries:
    """Points in the order of time.

    Attributes
    ----------
    rows : csr_array (p, n)
        Of the field at the time of each, canonical.
    value, variance, y, x : ndarray (p,)
        Observed, its error variance, and positions in units of the grid.
    position : ndarray (p,)
        Time in steps of the series.
    number : ndarray of int (p,)
        Place among those of the same whole step.
    given : ndarray of int (p,)
        Place among all observations as they were given.
    tracks : TrackErrors, optional
        Errors of which part is correlated along tracks; `variance` is that of the whole.
    """

    rows: sp.csr_array
    value: Float
    variance: Float
    y: Float
    x: Float
    position: Float
    number: Index
    given: Index
    tracks: TrackErrors | None = None

    def keep(self, which: Index) -> PointSeries:
        """Keep some, by their indices."""
        names = ("value", "variance", "y", "x", "position", "number", "given")
        return replace(
            self, rows=sp.csr_array(self.rows[which]),
            tracks=None if self.tracks is None else self.tracks.select(which),
            **{name: getattr(self, name)[which] for name in names},
        )  # fmt: skip

    def select(self, window: Window) -> PointSeries:
        """Keep those that a window may use."""
        last = min(window.last, window.until)
        start = int(np.searchsorted(self.position, window.first - _SLACK))
        stop = int(np.searchsorted(self.position, last + _SLACK, side="right"))
        return self.keep(np.arange(start, max(start, stop)))

    def arrays(self, window: Window) -> dict[str, Any]:
        """Return what a window reads besides: nothing."""
        return {}

    def points(self, observed: Any = None) -> PointSeries:
        """Return itself."""
        return self


@dataclass(frozen=True, eq=False)
class GriddedSeries:
    """Gridded observations; their values are read window by window.

    Attributes
    ----------
    values, error : DataArray (time, y, x), and the same or a number
        Observed, and error standard deviations.
    rows : csr_array (q, n)
        Of the cells that are on the grid of the fields and not on land.
    cells : ndarray of int (q,)
        Their flat indices.
    y, x : ndarray (q,)
        Their positions.
    position : ndarray (t,)
        Times in steps of the series.
    offset : int
        Times before the first one here.
    """

    values: Any
    error: Any
    rows: sp.csr_array
    cells: Index
    y: Float
    x: Float
    position: Float
    offset: int = 0

    def _inside(self, window: Window) -> slice:
        last = min(window.last, window.until)
        start = int(np.searchsorted(self.position, window.first - _SLACK))
        return slice(start, max(start, int(np.searchsorted(self.position, last + _SLACK))))

    def select(self, window: Window) -> GriddedSeries:
        """Keep the times that a window may use, without the values."""
        part = self._inside(window)
        return replace(self, values=None, position=self.position[part], offset=part.start,
                       error=None if np.ndim(self.error) else self.error)  # fmt: skip

    def arrays(self, window: Window) -> dict[str, Any]:
        """Return values of the times that a window may use, and their errors where these differ."""
        part = self._inside(window)
        found = {"observed": self.values[part]}
        return found | ({"error": self.error[part]} if np.ndim(self.error) else {})

    def points(self, observed: NDArray[Any], error: NDArray[Any] | None = None) -> PointSeries:
        """Turn the values that are not NaN into points.

        Raises
        ------
        ParameterError
            If some are infinite, or their errors are not positive.
        """
        values = np.asarray(observed, dtype=np.float64).reshape(len(self.position), -1)
        values = values[:, self.cells]
        if np.isinf(values).any():
            raise ParameterError(
                f"{int(np.isinf(values).sum())} observations are infinite; missing ones are NaN"
            )
        step, cell = np.nonzero(np.isfinite(values))
        std = np.broadcast_to(np.float64(self.error if error is None else 0.0), values.shape)
        if error is not None:
            std = np.asarray(error, np.float64).reshape(len(self.position), -1)[:, self.cells]
        std = std[step, cell]
        if not (np.isfinite(std) & (std > 0.0)).all():
            raise ParameterError(
                f"the error of {int((~(std > 0.0)).sum())} of {std.size} observations is zero, "
                "negative or not known; standard deviations > 0 are expected"
            )
        return PointSeries(
            rows=sp.csr_array(self.rows[cell]), value=values[step, cell], variance=std**2,
            y=self.y[cell], x=self.x[cell], position=self.position[step],
            number=(step + self.offset) * len(self.cells) + cell, given=np.arange(step.size),
        )  # fmt: skip


def read_series(
    obs: Any, gridded: Gridded | None, grid: Grid, times: xr.DataArray, step: float, land: Any,
    reading: dict[str, Any], threshold: float | None, check: Callable[[], Check | None],
) -> tuple[PointSeries | GriddedSeries, Observations | None]:  # fmt: skip
    """Read observations with times, points or gridded.

    Parameters
    ----------
    obs : DataArray or Dataset
        Observations.
    gridded : Gridded or None
        The same, where they are gridded.
    grid, times, step, land, reading
        As for `read_points`.
    threshold : float or None
        Of the quality control, which gridded observations do not have.
    check : callable
        Makes the quality control of points, or None.

    Returns
    -------
    PointSeries or GriddedSeries
    Observations or None
        What became of points.

    Raises
    ------
    ParameterError, AxisNotFoundError, GridError
        As for `read_points`, and for a threshold of gridded observations.
    """
    if gridded is None:
        return read_points(obs, grid, times, step, land, reading, check())
    if threshold is not None:
        raise ParameterError(
            "threshold= checks points, and gridded observations were given; mask these, such as "
            "with obs.where(abs(obs - guess) < 4 * spread)"
        )
    return read_gridded(gridded, reading["obs_error"], grid, times, step, land, reading), None


def read_points(
    obs: xr.DataArray | xr.Dataset, grid: Grid, times: xr.DataArray, step: float, land: Any,
    reading: dict[str, Any], check: Check | None = None,
) -> tuple[PointSeries, Observations]:  # fmt: skip
    """Read points with times.

    Parameters
    ----------
    obs : DataArray or Dataset
        Points along one dimension.
    grid : Grid
        Of the fields.
    times : DataArray (T,)
        Steps of the series.
    step : float
        Days.
    land : ndarray (ny, nx) of bool
        As stored.
    reading : dict
        Of `read_observations`.
    check : callable, optional
        Quality control of the observations and their times in steps.

    Returns
    -------
    PointSeries, Observations

    Raises
    ------
    ParameterError
        Positions or times that are missing, duplicates, observations outside the grid or the
        times, errors that are correlated or not positive.
    """
    obs = as_points(obs)
    names = find_points(obs, grid, x=reading["obs_x"], y=reading["obs_y"])
    when = find_time(obs)
    days = days_since(when, times[0])
    _refuse_missing(obs, (names.y, names.x), days, str(when.name))
    found = read_observations(obs, grid, land=land, **reading)
    if not (isinstance(found.error, TrackErrors) or is_independent(found.error)):
        raise ParameterError(
            f"errors of type {type(found.error).__name__} were given, and interpolation in space "
            "and time knows independent ones and AlongTrack; give one of these"
        )
    if isinstance(found.error, TrackErrors) and not found.error.share < 1.0:
        raise ParameterError(
            f"errors along tracks have share={found.error.share:g}; interpolation in space and "
            "time takes a part of them as independent, such as share=0.9: instruments have noise"
        )
    position = days[found.row >= 0] / step
    inside = (position >= -_SLACK) & (position <= times.size - 1 + _SLACK)
    if not inside.all() and (reading["unusable"] == "raise" or not inside.any()):
        first = int(np.flatnonzero(found.row >= 0)[np.argmin(inside)])
        raise ParameterError(
            f"{int((~inside).sum())} of {inside.size} observations are outside the times "
            f"{times.values[0]} to {times.values[-1]}, the first at index {first} "
            f'({when.values[first]}); select those inside, or leave them out with unusable="drop"'
        )
    if not inside.all():
        found = found.select(inside, "outside_times")
    position = position[inside]
    _refuse_twins(found, position)
    if check is not None:
        found = check(found, position)
        position = days[found.row >= 0] / step
    order = np.argsort(position, kind="stable")
    whole = np.floor(position[order] + _SLACK).astype(np.intp)
    series = PointSeries(
        rows=sp.csr_array(found.canonical().matrix)[order], value=found.values[order],
        variance=np.asarray(found.error.variance)[order], y=found.y[order], x=found.x[order],
        position=position[order], number=np.arange(whole.size) - np.searchsorted(whole, whole),
        given=np.flatnonzero(found.row >= 0)[order],
        tracks=found.error.select(order) if isinstance(found.error, TrackErrors) else None,
    )  # fmt: skip
    return series, found


def read_gridded(
    gridded: Gridded, error: Any, grid: Grid, times: xr.DataArray, step: float, land: Any,
    reading: dict[str, Any],
) -> GriddedSeries:  # fmt: skip
    """Read gridded observations with times, but for their values.

    Parameters
    ----------
    gridded : Gridded
        Observations and their grid.
    error : float or DataArray
        Standard deviations.
    grid, times, step, land, reading
        As for `read_points`.

    Returns
    -------
    GriddedSeries

    Raises
    ------
    ParameterError, AxisNotFoundError, GridError
        As for `read_points`.
    """
    dim = time_dim(gridded.values, "the observations")
    values = gridded.values.transpose(dim, ...)
    if values.ndim != 3:
        raise ParameterError(
            f"the observations have the dimensions {values.dims}; expected time and the grid; "
            "select along the others first"
        )
    if isinstance(values.data, np.ndarray) and np.isnan(values.values).all():
        raise ParameterError(f"all {values.size} gridded observations are NaN; check what was read")
    days = days_since(check_times(values[dim], "the observations"), times[0])
    position = days / step
    inside = (position >= -_SLACK) & (position <= times.size - 1 + _SLACK)
    if not inside.any() or (reading["unusable"] == "raise" and not inside.all()):
        raise ParameterError(
            f"{int((~inside).sum())} of {inside.size} times of the observations are outside "
            f"{times.values[0]} to {times.values[-1]}; select those inside, or leave them out with "
            'unusable="drop"'
        )
    kept = {**reading, "unusable": "drop", "obs_error": 1.0, "value": None}
    rows = read_observations(gridded.template, grid, land=land, **kept)
    part = slice(int(np.argmax(inside)), int(inside.size - np.argmax(inside[::-1])))
    if isinstance(error, xr.DataArray):
        flat = error.rename({d: n for d, n in zip(gridded.template.dims, values.dims[1:],
                                                  strict=True) if d in error.dims})  # fmt: skip
        error = flat.broadcast_like(values).transpose(*values.dims)[part].data
    elif np.ndim(error) or not float(error) > 0.0:
        raise ParameterError(
            f"obs_error={error!r} was given; expected a standard deviation > 0, or a DataArray"
        )
    return GriddedSeries(
        values=values[part].data, error=error, rows=sp.csr_array(rows.canonical().matrix),
        cells=np.flatnonzero(rows.row >= 0), y=rows.y, x=rows.x, position=position[part],
    )  # fmt: skip


def _refuse_missing(obs: Any, names: tuple[str, str], days: Float, when: str) -> None:
    """Refuse positions and times that are NaN where there is a value."""
    for name, values in ((names[0], obs[names[0]].values), (names[1], obs[names[1]].values),
                         (when, days)):  # fmt: skip
        lost = np.flatnonzero(~np.isfinite(np.asarray(values, dtype=np.float64)))
        if lost.size:
            raise ParameterError(
                f"{lost.size} of {days.size} observations have no {name!r} (NaN), the first at "
                f"index {lost[0]}; leave them out, such as with "
                f"obs.where(obs[{name!r}].notnull(), drop=True)"
            )


def _refuse_twins(found: Observations, position: Float) -> None:
    """Refuse observations at the same place and time."""
    places = np.column_stack([position, found.y, found.x])
    _, first, counts = np.unique(places, axis=0, return_index=True, return_counts=True)
    twins = int(counts.sum() - counts.size)
    if twins:
        place = first[np.argmax(counts)]
        index = int(np.flatnonzero(found.row == place)[0])
        raise ParameterError(
            f"{twins} of {position.size} observations repeat the place and time of another, such "
            f"as that at index {index} ({found.y[place]:g}, {found.x[place]:g}); as independent "
            "data they would count twice; drop or average them first"
        )

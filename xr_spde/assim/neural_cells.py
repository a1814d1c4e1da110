"""Points along tracks, averaged in the cells and steps of a series: what a network reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde.assim.observations import Observations
from xr_spde.assim.tracks_in_time import PointSeries, read_points
from xr_spde.labels.grid import Grid

__all__ = ["CellSeries", "Cells", "between_steps", "cells_from_points", "cells_of"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class CellSeries:
    """Cells that are observed, in the order of steps and then of cells.

    Attributes
    ----------
    steps : int
        Of the series.
    shape : tuple of int
        Rows and columns, canonical.
    step, cell : ndarray of int (p,)
        Step, and flat index in its field.
    value, variance : ndarray (p,)
        Inverse-variance mean of the points of a cell and step, and its error variance.
    count : ndarray of int (p,)
        Points behind each.
    offset : ndarray (p,)
        Their mean time after the step, in steps.
    """

    steps: int
    shape: tuple[int, int]
    step: Index
    cell: Index
    value: Float
    variance: Float
    count: Index
    offset: Float

    def dense(
        self, first: int, stop: int, rows: slice, columns: slice, until: int | None = None
    ) -> tuple[Float, NDArray[np.bool_], Float, Float]:
        """Return the observations of some steps on a part of the grid.

        Parameters
        ----------
        first, stop : int
            Steps; the last is not one of them.
        rows, columns : slice
            With start and stop inside the grid.
        until : int, optional
            Last step that is shown.

        Returns
        -------
        values, mask, variance, offset : ndarray (stop - first, ny, nx)
            Zero, false, one and zero where nothing is observed.
        """
        last = stop if until is None else min(stop, until + 1)
        low, high = np.searchsorted(self.step, [first, last])
        step, (row, column) = (
            self.step[low:high] - first,
            divmod(self.cell[low:high], self.shape[1]),
        )
        inside = (row >= rows.start) & (row < rows.stop)
        inside &= (column >= columns.start) & (column < columns.stop)
        place = step[inside], row[inside] - rows.start, column[inside] - columns.start
        size = (stop - first, rows.stop - rows.start, columns.stop - columns.start)
        values, offset, variance = np.zeros(size), np.zeros(size), np.ones(size)
        mask = np.zeros(size, dtype=bool)
        values[place] = self.value[low:high][inside]
        variance[place] = self.variance[low:high][inside]
        offset[place] = self.offset[low:high][inside]
        mask[place] = True
        return values, mask, variance, offset


@dataclass(frozen=True, eq=False)
class Cells:
    """Observed cells of some steps.

    Attributes
    ----------
    full : CellSeries
        With all points whose nearest step it is.
    past : CellSeries
        Without those that come after their step.
    """

    full: CellSeries
    past: CellSeries

    @classmethod
    def of(
        cls,
        points: PointSeries,
        steps: int,
        shape: tuple[int, int],
        *,
        cell: Index | None = None,
        value: Float | None = None,
        causal: bool = True,
    ) -> Cells:
        """Average points in their nearest cells and steps.

        Parameters
        ----------
        points, steps, shape, cell, value
            As for :func:`cells_of`.
        causal : bool, default True
            Whether `past` is needed; the same as `full` where it is not.

        Returns
        -------
        Cells
        """
        full, past = (
            cells_of(points, steps, shape, cell=cell, value=value, past=past)
            for past in (False, causal)
        )
        return cls(full, past)

    def dense(
        self,
        first: int,
        stop: int,
        rows: slice,
        columns: slice,
        until: int | None = None,
        *,
        causal: bool = False,
    ) -> tuple[Float, NDArray[np.bool_], Float, Float]:
        """Return the observations of some steps on a part of the grid.

        Parameters
        ----------
        first, stop, rows, columns, until
            As for :meth:`CellSeries.dense`.
        causal : bool, default False
            Whether to leave out what comes after the step `until`, be it nearest to it.

        Returns
        -------
        values, mask, variance, offset : ndarray (stop - first, ny, nx)
            Zero, false, one and zero where nothing is observed.
        """
        if until is None or not causal:
            return self.full.dense(first, stop, rows, columns, until)
        found = self.full.dense(first, stop, rows, columns, until - 1)
        if first <= until < stop:
            last = self.past.dense(until, until + 1, rows, columns)
            for whole, part in zip(found, last, strict=True):
                whole[until - first] = part[0]
        return found


def cells_of(
    points: PointSeries,
    steps: int,
    shape: tuple[int, int],
    *,
    cell: Index | None = None,
    value: Float | None = None,
    past: bool = False,
) -> CellSeries:
    """Average points in their nearest cells and steps.

    Means are weighted by the inverse variances of independent errors. Of errors that are correlated
    along tracks the points of one track in a cell share one, which no mean makes smaller: it is
    added to the variance of the mean of the track, and tracks are averaged after that.

    Parameters
    ----------
    points : PointSeries
        Read with the operator "nearest" where `cell` is not given.
    steps : int
        Of the series.
    shape : tuple of int
        Rows and columns.
    cell : ndarray of int (p,), optional
        Flat index of the cell of each.
    value : ndarray (p,), optional
        In the place of what was observed, such as the departure from a first guess.
    past : bool, default False
        Leave out points after their nearest step.

    Returns
    -------
    CellSeries
    """
    step = np.clip(np.floor(points.position + 0.5).astype(np.intp), 0, steps - 1)
    kept = points.position <= step + _SLACK if past else np.ones(step.size, dtype=bool)
    cell = points.rows.indices.astype(np.intp) if cell is None else cell
    nodes, tracks = shape[0] * shape[1], points.tracks
    key = (step * nodes + cell)[kept]
    means = (points.value if value is None else value)[kept], points.variance[kept]
    count, offset = np.ones(key.size, dtype=np.intp), (points.position - step)[kept]
    if tracks is not None:
        own, total = tracks.track[kept].astype(np.intp), int(tracks.track.max(initial=0)) + 1
        common = tracks.share * means[1]
        joined = _means(key * total + own, means[0], means[1] - common, count, offset, common)
        key, means, count, offset = joined[0] // total, joined[1:3], joined[3], joined[4]
    none = np.zeros(key.size)
    key, mean, variance, count, offset = _means(key, *means, count, offset, none)
    return CellSeries(steps, shape, key // nodes, key % nodes, mean, variance, count, offset)


def _means(
    key: Index, value: Float, variance: Float, count: Index, offset: Float, common: Float
) -> tuple[Index, Float, Float, Index, Float]:
    """Inverse-variance means by key, with the variance that all of a key have in common."""
    keys, which = np.unique(key, return_inverse=True)
    weight = 1.0 / variance
    total = np.bincount(which, weight, minlength=keys.size)
    mean, late, shared = (
        np.bincount(which, weight * one, minlength=keys.size) / total
        for one in (value, offset, common)
    )
    number = np.bincount(which, count, minlength=keys.size).astype(np.intp)
    return keys, mean, 1.0 / total + shared, number, np.clip(late, -1.0, 1.0)


def between_steps(fields: NDArray[Any], offset: NDArray[Any]) -> NDArray[Any]:
    """Fields at times between their steps, linearly; at the edges nothing changes.

    Parameters
    ----------
    fields : ndarray (..., T, ny, nx)
        At steps.
    offset : ndarray (T, ny, nx)
        Time after the step, from -1 to 1.

    Returns
    -------
    ndarray (..., T, ny, nx)

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.neural_cells import between_steps
    >>> between_steps(np.array([0.0, 1.0, 3.0])[:, None, None], np.full((3, 1, 1), 0.5)).ravel()
    array([0.5, 2. , 3. ])
    """
    after = np.concatenate([fields[..., 1:, :, :], fields[..., -1:, :, :]], axis=-3)
    before = np.concatenate([fields[..., :1, :, :], fields[..., :-1, :, :]], axis=-3)
    late, early = np.maximum(offset, 0), np.minimum(offset, 0)
    found: NDArray[Any] = fields + late * (after - fields) + early * (fields - before)
    return found


def cells_from_points(
    obs: xr.DataArray | xr.Dataset,
    grid: Grid,
    times: xr.DataArray,
    step: float,
    land: NDArray[np.bool_],
    reading: dict[str, Any],
) -> tuple[Cells, Observations]:
    """Read points with times, and average them in cells and steps.

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
        Of `xr_spde.assim.tracks_in_time.read_points`, without ``operator`` and ``footprint``.

    Returns
    -------
    Cells, Observations

    Raises
    ------
    ParameterError, AxisNotFoundError, GridError
        As for `xr_spde.assim.tracks_in_time.read_points`.
    """
    nearest = {**reading, "operator": "nearest", "footprint": None}
    series, found = read_points(obs, grid, times, step, land, nearest)
    return Cells.of(series, times.size, grid.shape), found

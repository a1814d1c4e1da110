"""Observations as people have them, made ready for a grid: values, errors, operator, places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.assim.noise import ErrorModel
from xr_spde.assim.operators import LinearOperator, ObservationOperator, as_operator
from xr_spde.assim.reading import Given, read_error, read_values
from xr_spde.assim.rows import (
    Positions,
    area_rows,
    bilinear_rows,
    nearest_rows,
    window_rows,
    without_land,
)
from xr_spde.assim.status import STATUS, status_attrs, status_counts, summarised
from xr_spde.labels.grid import Grid

__all__ = ["OPERATORS", "Observations", "read_observations"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

OPERATORS = ("auto", "nearest", "bilinear")
"""Operators by name."""


@dataclass(frozen=True, eq=False)
class Observations:
    """p observations that are used, and what became of all P that were given.

    Attributes
    ----------
    grid : Grid
        The grid of the fields.
    operator : ObservationOperator
        From fields (..., ny, nx), as they are stored, to (..., p).
    values : ndarray (p,)
        What was observed.
    error : ErrorModel
        Of the p observations.
    y, x : ndarray (p,)
        Positions in the units of the grid; NaN where a function observes the whole field.
    time : ndarray (p,) or None
        Times.
    status : ndarray of int (P,)
        Place in :data:`STATUS` for every observation that was given.
    row : ndarray of int (P,)
        Which of the p it belongs to; -1 where it is not used.
    departure : ndarray (P,) or None
        Innovation in standard deviations, where quality control has looked at it.
    source : DataArray
        The values as they were given, for their labels.
    """

    grid: Grid
    operator: ObservationOperator
    values: Float
    error: ErrorModel
    y: Float
    x: Float
    time: NDArray[Any] | None
    status: NDArray[np.int8]
    row: Index
    source: xr.DataArray
    departure: Float | None = None

    @property
    def size(self) -> int:
        """Number p of observations that are used."""
        return int(self.values.size)

    def innovation(self, fields: Any) -> Any:
        """Observed minus modelled values.

        Parameters
        ----------
        fields : array (..., ny, nx)
            Fields as they are stored.

        Returns
        -------
        array (..., p)
        """
        return self.values - self.operator.apply(fields)

    def select(self, keep: NDArray[Any], status: str = "rejected") -> Observations:
        """Keep some of the observations.

        Parameters
        ----------
        keep : ndarray of bool (p,)
            Which ones.
        status : str
            Why the others go, a name in :data:`STATUS`.

        Returns
        -------
        Observations

        Raises
        ------
        ParameterError
            If none is left.
        """
        if not keep.any():
            raise ParameterError(
                f"all {self.size} observations would be {status}; none is left to assimilate"
            )
        number = np.where(keep, np.cumsum(keep) - 1, -1)
        used = self.row >= 0
        row = np.where(used, number[self.row], -1)
        flags = np.where(used & (row < 0), STATUS.index(status), self.status)
        return replace(
            self,
            operator=self.operator.select(keep),
            values=self.values[keep],
            error=self.error.select(keep),
            y=self.y[keep],
            x=self.x[keep],
            time=None if self.time is None else self.time[keep],
            status=flags.astype(np.int8),
            row=row,
        )

    def canonical(self) -> LinearOperator:
        """Operator on fields in canonical order.

        Returns
        -------
        LinearOperator

        Raises
        ------
        ParameterError
            If the operator is not linear.
        """
        if not isinstance(self.operator, LinearOperator):
            raise ParameterError(
                "the observation operator is a function, and a matrix is needed: exact "
                "conditioning knows linear observations only; give a sparse matrix (observations, "
                "grid points), or use an ensemble method"
            )
        numbers = np.arange(self.grid.ny * self.grid.nx).reshape(self.grid.shape)
        return self.operator.reorder(self.grid.to_canonical(numbers))

    def counts(self) -> dict[str, int]:
        """Count the observations by status; one that does not occur is left out."""
        return status_counts(self.status)

    def summary(self) -> str:
        """Say in words what became of the observations."""
        joined = int(np.count_nonzero(self.row >= 0))
        merged = f", joined into {self.size}" if joined != self.size else ""
        return summarised(self.status) + merged

    def report(self) -> xr.Dataset:
        """Say what became of every observation that was given.

        Returns
        -------
        Dataset
            ``status``, a CF flag variable, and ``departure`` after quality control, with the
            dimensions and coordinates of the observations as they were given.
        """
        shape = self.source.shape
        found = {"status": self.source.copy(data=self.status.reshape(shape))}
        found["status"].attrs = status_attrs()
        if self.departure is not None:
            found["departure"] = self.source.copy(data=self.departure.reshape(shape))
            found["departure"].attrs = {
                "long_name": "innovation divided by its expected standard deviation",
                "units": "1",
            }
        return xr.Dataset(found, attrs={"summary": self.summary()})

    def label(self, values: Any, attrs: Mapping[str, Any] | None = None) -> xr.DataArray:
        """Attach the positions of the observations to values.

        Parameters
        ----------
        values : array (p,)
            One number per observation that is used.
        attrs : mapping, optional
            Attributes of the result.

        Returns
        -------
        DataArray (obs,)
            With positions, and times where there are any.
        """
        coords = {
            f"obs_{self.grid.y_dim}": ("obs", self.y),
            f"obs_{self.grid.x_dim}": ("obs", self.x),
        }
        if self.time is not None:
            coords["obs_time"] = ("obs", self.time)
        return xr.DataArray(values, coords, ("obs",), attrs=dict(attrs or {}))


def read_observations(
    obs: xr.DataArray | xr.Dataset,
    like: xr.DataArray | xr.Dataset | Grid,
    *,
    obs_error: Any = None,
    operator: str | Callable[[Any], Any] | Any = "auto",
    footprint: float | tuple[int, int] | None = None,
    land: Any = None,
    unusable: str = "raise",
    value: str | None = None,
    obs_x: str | None = None,
    obs_y: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Observations:
    """Make observations ready for fields on a grid.

    Longitudes are compared modulo 360, and latitudes may run either way, in the observations as in
    the fields.

    Parameters
    ----------
    obs : DataArray or Dataset
        A gridded field with NaN where nothing is observed (on the grid of the fields or on any
        other regular one), or points along one dimension with coordinates lat and lon (x and y on a
        plane) and possibly time. Of a Dataset, the floating variable that is neither a position nor
        an error.
    like : DataArray, Dataset or Grid
        The fields, or their grid.
    obs_error : float, array_like, AlongTrack or ErrorModel, optional
        Standard deviation in the units of the observations; an array has one number per
        observation. By default the variable ``error``, ``obs_error``, ``std``,
        ``<value>_error``, ``<value>_std`` or ``<value>_stderr`` of the Dataset.
    operator : {"auto", "nearest", "bilinear"}, callable or sparse matrix, default "auto"
        How a value belongs to the fields. "auto": the cell itself for observations on the grid of
        the fields, else bilinear. A callable takes fields (..., ny, nx) as they are stored and
        returns (..., P); a matrix has P rows.
    footprint : float or (int, int), optional
        Observations are means over an area: a disc of this radius in metres, or a window of so many
        rows and columns.
    land : array_like or DataArray (ny, nx) of bool, optional
        True where the fields have no values, as stored; its weight goes to the other cells.
    unusable : {"raise", "drop"}, default "raise"
        What to do with observations outside the grid or on land.
    value, obs_x, obs_y : str, optional
        Names of the value and of the coordinates of the observations.
    x, y : str, optional
        Names of the horizontal axes of the fields.

    Returns
    -------
    Observations

    Raises
    ------
    ParameterError
        No observation that can be used; some outside the grid or on land; errors that are not
        known, zero or negative; an operator that does not fit.
    UnknownNameError
        Unknown name of an operator.
    AxisNotFoundError, GridError
        Positions that are not found, or in other units than the grid.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.assim.observations import read_observations
    >>> coords = {"lat": [60.0, 30.0, 0.0], "lon": [0.0, 90.0, 180.0, 270.0]}
    >>> field = xr.DataArray(np.arange(12.0).reshape(3, 4), coords, ("lat", "lon"))
    >>> track = {"lat": ("obs", [45.0, 0.0]), "lon": ("obs", [-90.0, -45.0])}
    >>> points = xr.DataArray([5.5, 9.0], track, "obs")
    >>> read_observations(points, field, obs_error=0.1).innovation(field.values).tolist()
    [0.5, -0.5]
    """
    grid = like if isinstance(like, Grid) else Grid.from_object(like, x=x, y=y)
    if unusable not in ("raise", "drop"):
        raise unknown("unusable", unusable, ("raise", "drop"))
    if isinstance(operator, str) and operator not in OPERATORS:
        raise unknown("operator", operator, OPERATORS)
    free = not isinstance(operator, str)
    given = read_values(obs, grid, value=value, x=obs_x, y=obs_y, placed=not free)
    flags = np.where(np.isnan(given.values), STATUS.index("missing"), 0).astype(np.int8)
    at = Positions.of(grid, given.y, given.x)
    if not free:
        flags[(flags == 0) & ~at.inside] = STATUS.index("outside_grid")
    kept = flags == 0
    _refuse_none(flags)
    if free:
        whole = as_operator(operator, shape=grid.shape, count=flags.size)
        chosen: ObservationOperator = whole.select(kept)
    else:
        rows, on_land = _rows(at.select(kept), grid, given, str(operator), footprint, land)
        flags[np.flatnonzero(kept)[on_land]] = STATUS.index("on_land")
        _refuse_unusable(flags, given, grid, unusable)
        chosen = rows.select(~on_land)
        kept = flags == 0
    return Observations(
        grid=grid,
        operator=chosen,
        values=given.values[kept],
        error=read_error(obs_error, given, kept),
        y=given.y[kept],
        x=given.x[kept],
        time=None if given.time is None else given.time[kept],
        status=flags,
        row=np.where(kept, np.cumsum(kept) - 1, -1),
        source=given.source,
    )


def _rows(
    at: Positions,
    grid: Grid,
    given: Given,
    operator: str,
    footprint: float | tuple[int, int] | None,
    land: Any,
) -> tuple[LinearOperator, NDArray[np.bool_]]:
    """Operator on fields as they are stored, and which of its observations are on land."""
    if footprint is not None:
        rows = _footprint(at, footprint)
    elif operator == "nearest" or (operator == "auto" and given.same_grid):
        rows = nearest_rows(at)
    else:
        rows = bilinear_rows(at)
    on_land = np.zeros(at.y.size, dtype=bool)
    if land is not None:
        if isinstance(land, xr.DataArray):
            land = land.transpose(grid.y_dim, grid.x_dim, missing_dims="ignore")
        mask = np.asarray(land)
        if mask.shape != grid.shape or mask.dtype != bool:
            raise ParameterError(
                f"land has shape {mask.shape} and dtype {mask.dtype}; expected true and false on "
                f"the grid, {grid.shape}, such as field.isnull()"
            )
        j, i = at.cells()
        rows, on_land = without_land(rows, grid.to_canonical(mask).ravel(), j * grid.nx + i)
    numbers = np.arange(grid.ny * grid.nx).reshape(grid.shape)
    return LinearOperator(rows, grid.shape).reorder(grid.from_canonical(numbers)), on_land


def _footprint(at: Positions, footprint: Any) -> Any:
    if isinstance(footprint, tuple) and len(footprint) == 2:
        if all(isinstance(k, int | np.integer) and k > 0 and k % 2 for k in footprint):
            return window_rows(at, (int(footprint[0]), int(footprint[1])))
    elif isinstance(footprint, int | float | np.number) and 0.0 < float(footprint) < np.inf:
        return area_rows(at, float(footprint))
    raise ParameterError(
        f"footprint={footprint!r} was given; expected a radius in metres > 0, or a window of cells "
        "of two odd numbers; type for instance footprint=50e3 or footprint=(3, 3)"
    )


def _refuse_none(flags: NDArray[np.int8]) -> None:
    if not flags.size:
        raise ParameterError(
            "there are no observations: what was given has none along its dimension"
        )
    if not (flags == 0).any():
        raise ParameterError(
            f"none of the observations can be used ({summarised(flags)}); check their values, "
            "positions and units"
        )


def _refuse_unusable(flags: NDArray[np.int8], given: Given, grid: Grid, unusable: str) -> None:
    """Refuse observations outside the grid or on land, unless they are to be left out."""
    _refuse_none(flags)
    for name, where, advice in (
        ("outside_grid", f"outside the grid ({grid.described()})", "select those inside"),
        ("on_land", "on land, where the fields have no values", "mask them"),
    ):
        bad = np.flatnonzero(flags == STATUS.index(name))
        if bad.size and unusable == "raise":
            y, x = given.y[bad[0]], given.x[bad[0]]
            raise ParameterError(
                f"{bad.size} of {flags.size} observations are {where}, the first at index "
                f"{bad[0]} ({grid.y_dim}={y:g}, {grid.x_dim}={x:g}); {advice}, or leave them out "
                'with unusable="drop"'
            )

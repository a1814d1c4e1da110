"""Where a user points on a grid, and which cells that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError
from xr_spde.labels.grid import Grid

__all__ = ["POINT", "At", "Points", "find_points"]

POINT = "point"
"""Dimension of several positions."""

Position = tuple[float, float] | Mapping[str, float]
At = Position | Sequence[Position]

_EXPECTED = (
    "expected (y, x), a mapping of the two horizontal dimensions to values, or a list of those"
)


@dataclass(frozen=True)
class Points:
    """Grid cells nearest to given positions.

    Attributes
    ----------
    canonical, stored : tuple of tuple of int
        Row and column of each, in canonical arrays and as stored.
    single : bool
        Whether one position was given by itself, so that no ``point`` dimension is wanted.
    """

    canonical: tuple[tuple[int, int], ...]
    stored: tuple[tuple[int, int], ...]
    single: bool

    def label(self, da: xr.DataArray, grid: Grid) -> xr.DataArray:
        """Attach the coordinates of the cells, and drop the dimension of a single one.

        Parameters
        ----------
        da : DataArray
            With the dimension ``point``.
        grid : Grid
            The grid of the cells.

        Returns
        -------
        DataArray
            With coordinates ``point_<y>`` and ``point_<x>``.
        """
        for dim, place in ((grid.y_dim, 0), (grid.x_dim, 1)):
            index = [cell[place] for cell in self.stored]
            attrs = {"long_name": f"{dim} of the point"}
            if dim in da.coords:
                values = da.coords[dim].values[index]
                attrs |= {k: v for k, v in da.coords[dim].attrs.items() if k == "units"}
            else:
                values = np.array(index)
            da = da.assign_coords({f"{POINT}_{dim}": (POINT, values, attrs)})
        return da.isel({POINT: 0}) if self.single else da


def find_points(at: At, grid: Grid, obj: xr.DataArray | xr.Dataset) -> Points:
    """Find the cells nearest to positions.

    Parameters
    ----------
    at : (y, x), mapping, or sequence of them
        In coordinate units; longitudes count modulo 360.
    grid : Grid
        Where to look.
    obj : DataArray or Dataset
        Whose coordinates may name the positions.

    Returns
    -------
    Points

    Raises
    ------
    ParameterError
        Not a position, none at all, or outside the grid.
    """
    single = isinstance(at, Mapping) or _is_pair(at)
    listed = not isinstance(at, str) and np.iterable(at)
    positions: list[Any] = [at] if single else list(at) if listed else []
    if not positions:
        raise ParameterError(f"at={at!r} is no position; {_EXPECTED}; such as at=(45.0, 7.5)")
    cells = tuple(grid.locate(*_pair(position, grid, obj)) for position in positions)
    numbers = np.arange(grid.ny * grid.nx).reshape(grid.shape)
    order = grid.to_canonical(numbers)
    stored = tuple((int(order[c]) // grid.nx, int(order[c]) % grid.nx) for c in cells)
    return Points(cells, stored, single)


def _is_pair(at: object) -> bool:
    if isinstance(at, str | Mapping) or not np.iterable(at):
        return False
    values = list(at)
    return len(values) == 2 and all(map(_is_number, values))


def _is_number(value: object) -> bool:
    """Whether it is a number, also as ``ds.lat[3]``."""
    if isinstance(value, Real | np.number):
        return True
    dtype = getattr(value, "dtype", None)
    return dtype is not None and np.ndim(value) == 0 and dtype.kind in "iuf"  # type: ignore[arg-type]


def _pair(position: Any, grid: Grid, obj: xr.DataArray | xr.Dataset) -> tuple[float, float]:
    if isinstance(position, Mapping) and all(map(_is_number, position.values())):
        named = {_dimension(name, obj): float(value) for name, value in position.items()}
        if set(named) == {grid.y_dim, grid.x_dim} and len(position) == 2:
            return named[grid.y_dim], named[grid.x_dim]
    elif _is_pair(position):
        y, x = position
        return float(y), float(x)
    example = f"{{{grid.y_dim!r}: 45.0, {grid.x_dim!r}: 7.5}}"
    raise ParameterError(f"{position!r} is no position; {_EXPECTED}; such as {example}")


def _dimension(name: str, obj: xr.DataArray | xr.Dataset) -> str:
    """Dimension along which a coordinate of that name runs."""
    if name not in obj.dims and name in obj.coords and obj.coords[name].ndim == 1:
        return str(obj.coords[name].dims[0])
    return name

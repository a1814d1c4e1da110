"""A regular grid as a frozen value: spacing, direction, seam, poles and cell size.

All numerics of the package see *canonical* arrays (..., ny, nx): both coordinates increase, and a
longitude that closes the circle starts at its smallest value modulo 360. `Grid` knows how the data
are stored and goes there and back, so results cannot depend on storage order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import GridError, ParameterError
from xr_spde.labels.axes import is_degrees, metres_per_unit, spatial_axes
from xr_spde.labels.coordinates import (
    around_circle,
    check_latitude,
    coordinate_values,
    regular_step,
    wrap_longitude,
)

EARTH_RADIUS = 6_371_000.0
"""Radius of the spherical Earth in metres."""

Kind = Literal["geographic", "projected", "index"]


@dataclass(frozen=True)
class Grid:
    """A regular horizontal grid.

    Attributes
    ----------
    y_dim, x_dim : str
        Dimensions.
    ny, nx : int
        Numbers of rows and columns.
    y0, dy, x0, dx : float
        First value and signed step of the coordinates, in their units, as stored.
    kind : {"geographic", "projected", "index"}
        Degrees on the sphere, lengths on a plane, or positions without usable units.
    longitude : bool
        Whether x is a longitude, compared modulo 360.
    periodic_x : bool
        Whether the longitudes close the circle.
    roll : int
        Columns by which the (flipped, if descending) array is rolled back to become canonical.
    metres : float or None
        Metres per unit of a projected coordinate; None otherwise.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.labels.grid import Grid
    >>> coords = {"lat": [60.0, 30.0, 0.0], "lon": [-90.0, 0.0, 90.0, 180.0]}
    >>> grid = Grid.from_object(xr.DataArray(np.zeros((3, 4)), coords))
    >>> grid.boundary, grid.y_descending, grid.canonical_x().tolist()
    ('cylinder', True, [0.0, 90.0, 180.0, 270.0])
    >>> grid.to_canonical(np.broadcast_to(coords["lon"], (3, 4)))[0].tolist()
    [0.0, 90.0, 180.0, -90.0]
    >>> grid.locate(31.0, 269.0)
    (1, 3)
    """

    y_dim: str
    x_dim: str
    ny: int
    nx: int
    y0: float
    dy: float
    x0: float
    dx: float
    kind: Kind
    longitude: bool = False
    periodic_x: bool = False
    roll: int = 0
    metres: float | None = None

    @classmethod
    def from_object(
        cls, obj: xr.DataArray | xr.Dataset, *, x: str | None = None, y: str | None = None
    ) -> Grid:
        """Read the grid of a labelled object from its coordinates.

        Parameters
        ----------
        obj : DataArray or Dataset
            Labelled data.
        x, y : str, optional
            Names of the axes where they should not be searched for.

        Returns
        -------
        Grid

        Raises
        ------
        AxisNotFoundError
            The horizontal axes are missing or ambiguous.
        GridError
            Coordinates that are two-dimensional, irregular, not monotonic, repeated, missing (NaN),
            not numbers, or shorter than two.
        """
        y_axis, x_axis = spatial_axes(obj, x=x, y=y)
        for dim in (y_axis.dim, x_axis.dim):
            if obj.sizes[dim] < 2:
                raise GridError(
                    f"the axis {dim!r} has length {obj.sizes[dim]}; at least 2 grid points are "
                    "needed along each horizontal axis; select a range, not one position"
                )
        y_values = coordinate_values(obj, y_axis)
        x_values = coordinate_values(obj, x_axis)
        latitude = y_axis.coord is not None and is_degrees(obj, y_axis.coord, "Y")
        longitude = x_axis.coord is not None and is_degrees(obj, x_axis.coord, "X")
        if latitude:
            check_latitude(y_values, y_axis.name)
        dy = regular_step(y_values, y_axis.name)
        if longitude:
            dx, periodic, roll = around_circle(x_values, x_axis.name)
        else:
            dx, periodic, roll = regular_step(x_values, x_axis.name), False, 0
        kind, metres = _kind(obj, y_axis.coord, x_axis.coord, latitude and longitude)
        return cls(
            y_dim=y_axis.dim,
            x_dim=x_axis.dim,
            ny=y_values.size,
            nx=x_values.size,
            y0=float(y_values[0]),
            dy=dy,
            x0=float(x_values[0]),
            dx=dx,
            kind=kind,
            longitude=longitude,
            periodic_x=periodic,
            roll=roll,
            metres=metres,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns ``(ny, nx)``."""
        return self.ny, self.nx

    @property
    def boundary(self) -> Literal["cylinder", "plane"]:
        """Default boundary of operators: "cylinder" where longitude closes, else "plane"."""
        return "cylinder" if self.periodic_x else "plane"

    @property
    def y_descending(self) -> bool:
        """Whether rows are stored from large to small y (north to south)."""
        return self.dy < 0

    @property
    def x_descending(self) -> bool:
        """Whether columns are stored from large to small x."""
        return self.dx < 0

    @property
    def north_pole(self) -> bool:
        """Whether a row lies within half a cell of the north pole."""
        return self._at_pole(self.canonical_y()[-1])

    @property
    def south_pole(self) -> bool:
        """Whether a row lies within half a cell of the south pole."""
        return self._at_pole(-self.canonical_y()[0])

    def _at_pole(self, latitude: float) -> bool:
        return self.kind == "geographic" and bool(90.0 - latitude <= abs(self.dy) * 0.501)

    def canonical_y(self) -> NDArray[np.float64]:
        """Increasing y values (ny,) in coordinate units."""
        start = self.y0 + self.dy * (self.ny - 1) if self.y_descending else self.y0
        return np.asarray(start + abs(self.dy) * np.arange(self.ny))

    def canonical_x(self) -> NDArray[np.float64]:
        """Increasing x values (nx,) in coordinate units; longitudes unwrapped from [0, 360)."""
        step = abs(self.dx)
        start = self.x0 - step * self._canonical_column(0)
        if self.longitude:
            start = wrap_longitude(start, step)
        return np.asarray(start + step * np.arange(self.nx))

    def _canonical_column(self, stored: int) -> int:
        flipped = self.nx - 1 - stored if self.x_descending else stored
        return (flipped - self.roll) % self.nx

    def cell_size(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cell size in metres, row by row in canonical order.

        Returns
        -------
        dy, dx : ndarray (ny,)
            North-south and east-west size on a sphere of radius 6371 km. On a row at a pole, where
            meridians meet, dx is taken half a cell away so that it is not 0. NaN where the
            coordinates carry no usable units.
        """
        if self.kind == "geographic":
            limit = 90.0 - abs(self.dy) / 2
            latitude = np.radians(np.clip(self.canonical_y(), -limit, limit))
            size_y = np.full(self.ny, EARTH_RADIUS * np.radians(abs(self.dy)))
            return size_y, EARTH_RADIUS * np.radians(abs(self.dx)) * np.cos(latitude)
        metres = float("nan") if self.metres is None else self.metres
        return (
            np.full(self.ny, abs(self.dy) * metres),
            np.full(self.ny, abs(self.dx) * metres),
        )

    def to_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn stored order into canonical order.

        Parameters
        ----------
        array : ndarray (..., ny, nx)
            As stored, with y and x last.

        Returns
        -------
        ndarray (..., ny, nx)
            Possibly a view of the input.
        """
        self._check_shape(array)
        rows = slice(None, None, -1 if self.y_descending else 1)
        columns = slice(None, None, -1 if self.x_descending else 1)
        flipped = array[..., rows, columns]
        return np.roll(flipped, -self.roll, axis=-1) if self.roll else flipped

    def from_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn canonical order into stored order; the inverse of `to_canonical`.

        Parameters
        ----------
        array : ndarray (..., ny, nx)
            Canonical.

        Returns
        -------
        ndarray (..., ny, nx)
            Possibly a view of the input.
        """
        self._check_shape(array)
        rolled = np.roll(array, self.roll, axis=-1) if self.roll else array
        rows = slice(None, None, -1 if self.y_descending else 1)
        columns = slice(None, None, -1 if self.x_descending else 1)
        return rolled[..., rows, columns]

    def locate(self, y: float, x: float) -> tuple[int, int]:
        """Canonical index of the grid point nearest to a position.

        Parameters
        ----------
        y, x : float
            Position in coordinate units; longitudes count modulo 360.

        Returns
        -------
        tuple of int
            ``(j, i)``.

        Raises
        ------
        ParameterError
            The position is not finite or more than half a cell outside the grid.
        """
        rows, columns = self.canonical_y(), self.canonical_x()
        row = (float(y) - rows[0]) / abs(self.dy)
        offset = float(x) - columns[0]
        if self.longitude and np.isfinite(offset):
            half = abs(self.dx) / 2
            offset = (offset + half) % 360.0 - half
        column = offset / abs(self.dx)
        inside_y = -0.5 - 1e-9 <= row <= self.ny - 0.5 + 1e-9
        inside_x = -0.5 - 1e-9 <= column <= self.nx - 0.5 + 1e-9
        if not (inside_y and (inside_x or (self.periodic_x and np.isfinite(column)))):
            if self.periodic_x or not self.roll:  # longitudes as they are stored
                columns += min(self.x0, self.x0 + self.dx * (self.nx - 1)) - columns[0]
            raise ParameterError(
                f"the position ({self.y_dim}={y}, {self.x_dim}={x}) is outside the grid, which "
                f"covers {self.y_dim} {rows[0]:g} to {rows[-1]:g} and {self.x_dim} "
                f"{columns[0]:g} to {columns[-1]:g}; give a position inside"
            )
        i = int(np.rint(column)) % self.nx if self.periodic_x else int(np.rint(column))
        return min(max(int(np.rint(row)), 0), self.ny - 1), min(max(i, 0), self.nx - 1)

    def described(self) -> str:
        """Size and extent in words, for messages."""
        y, x = self.canonical_y(), self.canonical_x()
        return (
            f"a grid of {self.ny} x {self.nx} cells, {self.y_dim} {y[0]:g} to {y[-1]:g} and "
            f"{self.x_dim} {x[0]:g} to {x[-1]:g}"
        )

    def _check_shape(self, array: NDArray[Any]) -> None:
        if tuple(array.shape[-2:]) != self.shape:
            raise ParameterError(
                f"an array of shape {tuple(array.shape)} does not end with the shape {self.shape} "
                f"of the grid; transpose it to (..., {self.y_dim!r}, {self.x_dim!r})"
            )


def same_grid(
    first: Grid, second: Grid, *, names: tuple[str, str] = ("the first object", "the second")
) -> Grid:
    """Check that two grids have the same cells, in whatever storage order.

    Parameters
    ----------
    first, second : Grid
        Grids of two objects that are used together.
    names : (str, str)
        What the objects are, for the message.

    Returns
    -------
    Grid
        ``second``.

    Raises
    ------
    GridError
        Another shape, or other coordinates by more than a hundredth of a cell.
    """
    # Single precision longitudes are off by a thousandth of a fine cell.
    same = first.shape == second.shape and all(
        np.allclose(mine, theirs, rtol=0.0, atol=0.01 * abs(step))
        for mine, theirs, step in (
            (first.canonical_y(), second.canonical_y(), first.dy),
            (first.canonical_x(), second.canonical_x(), first.dx),
        )
    )
    if not same:
        raise GridError(
            f"{names[0]} is on {first.described()} and {names[1]} on {second.described()}; the "
            "same cells are expected; select or interpolate one of them, for instance with "
            ".sel() or .interp_like()"
        )
    return second


def _kind(
    obj: xr.DataArray | xr.Dataset, y: str | None, x: str | None, degrees: bool
) -> tuple[Kind, float | None]:
    """Kind of the grid and, on a plane, the metres in one unit."""
    if degrees:
        return "geographic", None
    if y is None or x is None:
        return "index", None
    metres = metres_per_unit(obj, y)
    if np.isfinite(metres) and metres == metres_per_unit(obj, x):
        return "projected", metres
    return "index", None

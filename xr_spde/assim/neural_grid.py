"""The grid of maps by a neural solver: from tracks alone, and beside that of the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import GridError, ParameterError
from xr_spde._core.warn import warn
from xr_spde.labels.axes import GEOGRAPHIC_NAMES, is_degrees
from xr_spde.labels.grid import EARTH_RADIUS, Grid
from xr_spde.labels.points import as_points, position_names

__all__ = ["check_spacing", "covering"]

Float = NDArray[np.float64]

_KM = 1_000.0
_DEGREE = np.pi / 180.0 * EARTH_RADIUS / _KM
_FACTOR = 1.5
"""Steps that differ by more from those of the training are warned of."""


def covering(
    obs: xr.DataArray | xr.Dataset,
    spacing: tuple[float, float],
    *,
    obs_x: str | None = None,
    obs_y: str | None = None,
) -> xr.DataArray:
    """Grid of zeros that covers points on the sphere, with the steps of a solver.

    Parameters
    ----------
    obs : DataArray or Dataset
        Points along one dimension with latitudes and longitudes.
    spacing : (float, float)
        Steps in km along Y and along X; the latter holds at the middle latitude.
    obs_x, obs_y : str, optional
        Names of the coordinates.

    Returns
    -------
    DataArray (lat, lon)
        Longitudes across the dateline go on beyond 180; where points leave no gap, all of the
        circle. All cells are sea.

    Raises
    ------
    ParameterError
        For points without degrees, or all at one place.
    """
    points = as_points(obs)
    names = [_degrees(points, "Y", obs_y), _degrees(points, "X", obs_x)]
    if None in names:
        raise ParameterError(
            "like= is needed: the observations have no latitudes and longitudes from which a grid "
            "follows; give a DataArray (Y, X) of the wanted cells, with NaN on land"
        )
    lat, lon = (np.asarray(points[name].values, dtype=np.float64) for name in names)
    known = np.isfinite(lat) & np.isfinite(lon)
    if not known.any():
        raise ParameterError(f"no observation has a position in {names[0]!r} and {names[1]!r}")
    south, north = float(lat[known].min()), float(lat[known].max())
    dy = spacing[0] / _DEGREE
    rows = south + dy * np.arange(max(2, int(np.ceil((north - south) / dy - 1e-9)) + 1))
    rows = rows - 0.5 * (rows[-1] - north)
    if rows[0] < -90.0 or rows[-1] > 90.0:
        rows = np.linspace(max(rows[0], -90.0 + dy / 2), min(rows[-1], 90.0 - dy / 2), rows.size)
    dx = spacing[1] / (_DEGREE * np.cos(np.radians(0.5 * (south + north))))
    coords = {
        "lat": ("lat", rows, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", _around(lon[known], dx),
                {"units": "degrees_east", "standard_name": "longitude"}),
    }  # fmt: skip
    sizes = [coords[name][1].size for name in ("lat", "lon")]
    return xr.DataArray(np.zeros(sizes), coords, ("lat", "lon"))


def _degrees(points: Any, letter: str, given: str | None) -> str | None:
    """Name of the coordinate of degrees."""
    names = [given] if given is not None else position_names(points, letter, geographic=True)
    for name in names:
        if name not in points.coords or points[name].ndim != 1:
            continue
        if is_degrees(points, name, letter) or GEOGRAPHIC_NAMES[letter].fullmatch(name.lower()):
            return name
    return None


def _around(lon: Float, dx: float) -> Float:
    """Columns over the shortest arc that holds some longitudes."""
    seen = np.unique(np.mod(lon, 360.0))
    gaps = np.diff(seen, append=seen[0] + 360.0)
    widest = int(np.argmax(gaps))
    arc = 360.0 - gaps[widest]
    count = max(2, int(np.ceil(arc / dx - 1e-9)) + 1)
    if count * dx >= 360.0 - dx:
        count = int(np.ceil(360.0 / dx))
        return np.asarray(-180.0 + 360.0 / count * np.arange(count))
    start = float(seen[(widest + 1) % seen.size])
    start -= 360.0 if start > 180.0 else 0.0
    return np.asarray(start + dx * np.arange(count) - 0.5 * (dx * (count - 1) - arc))


def check_spacing(
    grid: Grid, land: NDArray[np.bool_], spacing: tuple[float, float], step: float, trained: float
) -> None:
    """Warn of a grid or a step of time far from those of the training.

    The solver counts in cells and steps: on cells of half the size all its lengths are half as long
    in km.

    Parameters
    ----------
    grid : Grid
        Of the maps.
    land : ndarray (ny, nx) of bool
        Canonical; rows without sea do not matter.
    spacing : (float, float)
        Of the training, in km along Y and X.
    step, trained : float
        Days, here and in training.

    Raises
    ------
    GridError
        If the coordinates have no lengths.
    """
    size_y, size_x = grid.cell_size()
    if not np.isfinite(size_x).all():
        raise GridError(
            f"the coordinates {grid.y_dim!r}, {grid.x_dim!r} have no lengths; expected degrees, or "
            "units such as m or km, to compare them with the cells that the solver was trained for"
        )
    wet = ~land.all(axis=1)
    for axis, given, usual in (("Y", size_y, spacing[0]), ("X", size_x, spacing[1])):
        found = given[wet] / _KM
        if found.max() > _FACTOR * usual or found.min() < usual / _FACTOR:
            warn(
                f"along {axis} the cells measure {found.min():.3g} to {found.max():.3g} km and the "
                f"solver was trained on {usual:.3g} km; it counts in cells, so what it knows of "
                f"lengths holds for {found.min() / usual:.2g} to {found.max() / usual:.2g} times "
                "those it was trained on; a grid nearer to that of the training may map better"
            )
    if not trained / _FACTOR <= step <= trained * _FACTOR:
        warn(
            f"the times are {step:g} days apart and the solver was trained on {trained:g} days; "
            "fields change by so much more or less from step to step"
        )

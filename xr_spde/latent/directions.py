"""Velocities along the axes of a projected grid, turned to east and north."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import GridError
from xr_spde.labels.axes import GEOGRAPHIC_NAMES
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.latent.reading import ImageSequence

__all__ = ["axis_directions", "to_east_north"]

Float = NDArray[np.floating]


def axis_directions(lat: Float, lon: Float) -> NDArray[np.float64]:
    """East and north parts of unit vectors along increasing columns and rows.

    Differences are taken between points in space, so that neither the dateline nor a pole within
    the grid matters.

    Parameters
    ----------
    lat, lon : ndarray (ny, nx)
        Of the cells, in degrees.

    Returns
    -------
    ndarray (2, 2, ny, nx)
        East and north, of x and y.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.latent.directions import axis_directions
    >>> lat, lon = np.meshgrid([10.0, 11.0, 12.0], [40.0, 41.0, 42.0])  # rows run eastward
    >>> np.abs(axis_directions(lat, lon)[..., 1, 1]).round(3).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    phi, lam = np.radians(lat), np.radians(lon)
    place = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    zero = np.zeros_like(phi)
    east = np.stack([-np.sin(lam), np.cos(lam), zero])
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)])
    parts = np.empty((2, 2, *phi.shape))
    for k, axis in enumerate((-1, -2)):
        along = np.gradient(place, axis=axis)
        parts[0, k], parts[1, k] = (along * east).sum(axis=0), (along * north).sum(axis=0)
    length = np.hypot(parts[0], parts[1])
    return np.asarray(parts / np.where(length > 0, length, np.nan))


def to_east_north(
    frames: ImageSequence, u: xr.DataArray, v: xr.DataArray
) -> dict[str, xr.DataArray]:
    """Turn a velocity along the axes by the two-dimensional latitudes and longitudes.

    Parameters
    ----------
    frames : ImageSequence
        With coordinates ``lat`` and ``lon`` (y, x), however they are named.
    u, v : DataArray (..., y, x)
        Along increasing x and y.

    Returns
    -------
    dict of DataArray
        ``eastward`` and ``northward``; on a latitude-longitude grid what came in.

    Raises
    ------
    GridError
        Without such coordinates.
    """
    grid = frames.grid
    if grid.kind == "geographic":
        return {"eastward": u, "northward": v}
    space = (grid.y_dim, grid.x_dim)
    lat, lon = (_coordinate(frames.data, letter, space) for letter in ("Y", "X"))
    return apply_core(
        _turned,
        u,
        v,
        lat,
        lon,
        core_dims=[space] * 4,
        output={name: Output(space, u.dtype) for name in ("eastward", "northward")},
        kwargs={"grid": grid},
    )


def _coordinate(da: xr.DataArray, letter: str, space: tuple[str, str]) -> xr.DataArray:
    """Two-dimensional latitude (Y) or longitude (X) without coordinates of its own."""
    what, side = {"Y": ("latitude", "north"), "X": ("longitude", "east")}[letter]
    for name, coord in da.coords.items():
        standard, units = (str(coord.attrs.get(key, "")) for key in ("standard_name", "units"))
        told = standard or units
        known = standard == what or (units.startswith("degree") and side in units)
        if set(coord.dims) == set(space) and (
            known if told else GEOGRAPHIC_NAMES[letter].fullmatch(str(name).lower())
        ):
            return coord.reset_coords(drop=True).transpose(*space)
    raise GridError(
        f'components="east_north" needs the {what} of every cell, and there is no coordinate '
        f"{space} with standard_name {what!r} or such units; add it with .assign_coords(), or take "
        'components="grid"'
    )


def _turned(
    u: NDArray[Any], v: NDArray[Any], lat: NDArray[Any], lon: NDArray[Any], *, grid: Any
) -> dict[str, NDArray[Any]]:
    parts = axis_directions(grid.to_canonical(lat), grid.to_canonical(lon))
    along_x, along_y = grid.to_canonical(u), grid.to_canonical(v)
    turned = (part[0] * along_x + part[1] * along_y for part in parts)
    return {
        name: grid.from_canonical(field)
        for name, field in zip(("eastward", "northward"), turned, strict=True)
    }

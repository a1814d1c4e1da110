"""Times and places of synthetic fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError

__all__ = ["degrees_around", "times_from"]

_DAY = 86_400e9


def times_from(start: str, days: NDArray[np.floating[Any]]) -> xr.DataArray:
    """Give times at days after a first one.

    Parameters
    ----------
    start : str
        Date, as numpy reads it.
    days : ndarray (n,)
        Days after it.

    Returns
    -------
    DataArray (time,)

    Raises
    ------
    ParameterError
        No date.
    """
    try:
        first = np.datetime64(start, "ns")
    except ValueError as error:
        raise ParameterError(f"start={start!r}; expected a date such as 2012-10-01") from error
    values = first + np.round(days * _DAY).astype("timedelta64[ns]")
    return xr.DataArray(values, dims="time", attrs={"standard_name": "time"})


def degrees_around(
    middle: tuple[float, float], shape: tuple[int, int], resolution: float
) -> dict[str, xr.DataArray]:
    """Give latitudes and longitudes of square cells in degrees.

    Parameters
    ----------
    middle : tuple of float
        Latitude and longitude of the middle.
    shape : tuple of int
        ``(ny, nx)``.
    resolution : float
        Degrees.

    Returns
    -------
    dict
        ``lat`` and ``lon``, increasing.
    """
    described = {"lat": ("latitude", "degrees_north"), "lon": ("longitude", "degrees_east")}
    return {
        name: xr.DataArray(
            here + resolution * (np.arange(n) - (n - 1) / 2), dims=name,
            attrs={"units": units, "standard_name": standard},
        )
        for (name, (standard, units)), here, n in zip(described.items(), middle, shape, strict=True)
    }  # fmt: skip

"""What was given for maps in space and time, as the ways to make them have it in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde.assim.observations import Observations
from xr_spde.assim.tracks_in_time import GriddedSeries, PointSeries
from xr_spde.labels.grid import Grid

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    """What was given for maps in space and time, read.

    Attributes
    ----------
    grid : Grid
        Of the fields.
    land : ndarray (ny, nx) of bool
        Canonical.
    guess : DataArray (time, y, x) or None
        First guess.
    template : DataArray (y, x)
        With labels of a map and units of the observations.
    times : DataArray (N,)
        Output times.
    step : float
        Days.
    observed : PointSeries or GriddedSeries
        Observations.
    points : Observations or None
        What became of them, where they are points.
    sources : tuple
        Of which any that is lazy makes the result lazy.
    entropy : int
        Of all that is random.
    """

    grid: Grid
    land: NDArray[np.bool_]
    guess: xr.DataArray | None
    template: xr.DataArray
    times: xr.DataArray
    step: float
    observed: PointSeries | GriddedSeries
    points: Observations | None
    sources: tuple[Any, ...]
    entropy: int

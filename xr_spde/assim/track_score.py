"""Maps in space and time scored along tracks that were withheld."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import ParameterError
from xr_spde._core.provenance import provenance
from xr_spde.assim.challenge import interval_scores
from xr_spde.assim.observations import read_observations
from xr_spde.assim.times import days_since, step_of
from xr_spde.assim.windows import spacetime_rows
from xr_spde.labels.attrs import derived_attrs
from xr_spde.labels.grid import Grid
from xr_spde.labels.points import as_points, calendar_of, find_time

__all__ = ["has_times", "score_tracks"]

_WORDS = {
    "count": "number of observations compared",
    "rmse": "root mean square error of the mean",
    "bias": "mean minus truth",
    "spread_skill": "expected over found error; 1 where the standard deviation is right",
    "crps": "continuous ranked probability score",
}


def has_times(obj: object, truth: xr.DataArray | xr.Dataset) -> bool:
    """Whether maps at several times stand against points with times of their own.

    Parameters
    ----------
    obj : object
        What is scored.
    truth : DataArray or Dataset
        The truth.

    Returns
    -------
    bool
    """
    if not (isinstance(obj, xr.Dataset) and {"mean", "std"} <= set(obj.data_vars)):
        return False
    maps = obj["mean"]
    dated = [d for d in maps.dims if d in maps.coords and calendar_of(maps[d]) is not None]
    points = as_points(truth)
    one = points.to_array() if isinstance(points, xr.Dataset) else points
    along = [c for c in points.coords if points[c].ndim == 1 and calendar_of(points[c]) is not None]
    flat = isinstance(points, xr.Dataset) or one.ndim == 1
    return bool(len(dated) == 1 and maps.ndim == 3 and flat and len(points.dims) == 1 and along)


def score_tracks(
    obj: xr.Dataset,
    truth: xr.DataArray | xr.Dataset,
    *,
    obs_error: float = 0.0,
    x: str | None = None,
    y: str | None = None,
) -> xr.Dataset:
    """Score maps of mean and standard deviation at the places and times of observations.

    Parameters
    ----------
    obj : Dataset
        ``mean`` and ``std`` (time, Y, X), at regular times, such as the maps of `assimilate`.
    truth : DataArray or Dataset
        Points with positions and times; those outside or on land do not count.
    obs_error : float, default 0
        Standard deviation of their errors, which the maps do not have.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Dataset
        ``count``, ``rmse``, ``bias``, ``spread_skill``, ``crps``, and ``coverage`` (level) of the
        central intervals of 50, 90 and 95 %.

    Raises
    ------
    ParameterError
        If nothing can be compared, or ``obs_error`` is negative.

    Notes
    -----
    Mean and standard deviation are interpolated, bilinearly in space and linearly in time; the
    latter is slightly too large between nodes.
    """
    if not (np.ndim(obs_error) == 0 and 0.0 <= float(obs_error) < np.inf):
        raise ParameterError(f"obs_error={obs_error!r} was given; expected a number >= 0")
    grid = Grid.from_object(obj["mean"], x=x, y=y)
    (dim,) = (str(d) for d in obj["mean"].dims if d not in (grid.y_dim, grid.x_dim))
    mean, std = (
        grid.to_canonical(
            obj[name].transpose(dim, grid.y_dim, grid.x_dim).values.astype(np.float64)
        )
        for name in ("mean", "std")
    )
    points = as_points(truth)
    land = grid.from_canonical(np.isnan(mean).any(axis=0))
    found = read_observations(points, grid, obs_error=1.0, land=land, unusable="drop")
    step = step_of(obj[dim], "the maps")
    position = (days_since(find_time(points), obj[dim][0]) / step)[found.row >= 0]
    inside = (position >= 0.0) & (position <= obj.sizes[dim] - 1)
    if not inside.any():
        raise ParameterError(
            f"none of the {inside.size} observations is within the times of the maps"
        )
    matrix = found.canonical().matrix[np.flatnonzero(inside)]
    rows = spacetime_rows(matrix, position[inside], obj.sizes[dim])
    told, spread = (rows @ np.nan_to_num(one).ravel() for one in (mean, std))
    spread = np.hypot(spread, float(obs_error))
    scores: dict[str, Any] = interval_scores(told, spread, found.values[inside])
    levels = [0.5, 0.9, 0.95]
    share = [scores.pop(f"coverage_{round(100 * level)}") for level in levels]
    result = xr.Dataset(scores).assign(coverage=("level", share)).assign_coords(level=levels)
    for name, text in _WORDS.items():
        units = "1" if name in ("count", "spread_skill") else None
        result[name].attrs = derived_attrs(obj["mean"].attrs, long_name=text, units=units)
    result["coverage"].attrs = {
        "long_name": "share of observations in the interval",
        "units": "1",
    }
    return result.assign_attrs(provenance("score", kind="tracks", obs_error=float(obs_error)))

"""Fields where a truth was observed: at points and along tracks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde.assim.observed import Observed
from xr_spde.assim.reading import own_name, value_of
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.labels.points import as_points

__all__ = ["at_points", "is_points"]

_READING = {
    "obs_error": 1.0, "operator": "auto", "footprint": None, "unusable": "drop",
    "value": None, "obs_x": None, "obs_y": None,
}  # fmt: skip


def is_points(truth: xr.DataArray) -> bool:
    """Say whether a truth runs along one dimension, as points and tracks do.

    Parameters
    ----------
    truth : DataArray
        One variable.

    Returns
    -------
    bool
    """
    return as_points(truth).ndim == 1


def at_points(
    fields: xr.DataArray, truth: xr.DataArray, grid: Grid, dim: str
) -> tuple[xr.DataArray, xr.DataArray]:
    """Fields at the points of a truth, as its observations would see them.

    Parameters
    ----------
    fields : DataArray (dim, ..., y, x)
        Lazy or not.
    truth : DataArray (obs)
        With positions.
    grid : Grid
        Of the fields.
    dim : str
        Dimension of the members: what one lacks, all do.

    Returns
    -------
    fields : DataArray (dim, ..., obs)
        NaN where a point cannot be compared: outside, on land, or missing itself.
    truth : DataArray (obs)

    Raises
    ------
    ParameterError, AxisNotFoundError, GridError
        As for `xr_spde.assim.read_observations`.
    """
    truth = value_of(as_points(truth.compute()), None)
    seen = Observed.of(str(fields.name), {}, truth, grid, dict(_READING))
    along = own_name(truth.dims[0])
    found = apply_core(
        partial(_seen, seen=seen),
        seen.pick(fields),
        core_dims=[(dim, "node")],
        output={"seen": Output((dim, along), sizes={along: truth.size})},
    )["seen"]
    return found, xr.DataArray(truth.values.astype(np.float64), dims=along)


def _seen(values: NDArray[Any], *, seen: Observed) -> NDArray[np.float64]:
    """Members (N, P) at all points from their values (N, q) at the nodes."""
    obs, members = seen.see(values, None)
    found = np.full((len(values), obs.row.size), np.nan)
    used = obs.row >= 0
    found[:, used] = members[:, obs.row[used]]
    return found

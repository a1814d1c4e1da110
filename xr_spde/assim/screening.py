"""Which observations to use: quality control by innovation, times, thinning, superobbing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.arrays import to_host
from xr_spde.assim.noise import IndependentErrors
from xr_spde.assim.observations import Observations
from xr_spde.assim.operators import LinearOperator
from xr_spde.labels.grid import EARTH_RADIUS
from xr_spde.labels.points import check_calendars, find_time

__all__ = ["check_innovations", "screen", "select_time", "superob", "thin"]

Float = NDArray[np.float64]
Index = NDArray[np.intp]

THRESHOLD = 4.0
"""Standard deviations beyond which an innovation is rejected, where nothing else is asked for."""


def check_innovations(
    obs: Observations,
    innovation: Float,
    variance: Float,
    *,
    threshold: float = THRESHOLD,
) -> Observations:
    """Reject observations that are too far from the first guess.

    An observation goes where ``|y - H x| > threshold sqrt(HPH' + R)``.

    Parameters
    ----------
    obs : Observations
        To be checked.
    innovation : ndarray (p,)
        ``y - H x`` of the first guess.
    variance : ndarray (p,)
        Variance of the first guess at the observations, the diagonal of HPH'.
    threshold : float, default 4
        In standard deviations; infinity rejects none.

    Returns
    -------
    Observations
        Those that are left; `report` says which were rejected and how far they were off.

    Raises
    ------
    ParameterError
        If all are rejected, the threshold is not positive, or the first guess is not finite.
    """
    if not threshold > 0.0:
        raise ParameterError(
            f"threshold={threshold!r} was given; expected standard deviations > 0, such as 4"
        )
    expected = np.sqrt(np.asarray(variance) + to_host(obs.error.variance))
    scaled = np.asarray(innovation, dtype=np.float64) / expected
    bad = int(np.count_nonzero(~np.isfinite(scaled)))
    if bad:
        raise ParameterError(
            f"the first guess has no value at {bad} of {obs.size} observations; pass land= when "
            "reading them, so that those over missing cells are found"
        )
    keep = np.abs(scaled) <= threshold
    if not keep.any():
        raise ParameterError(
            f"quality control rejects all {obs.size} observations: their innovations are "
            f"{np.median(np.abs(scaled)):.3g} expected standard deviations in the median, mean "
            f"{scaled.mean():+.3g}, and {threshold:g} are allowed; check units and bias, or give "
            "larger errors or a larger threshold"
        )
    departure = np.where(obs.row >= 0, scaled[obs.row], np.nan)
    if obs.departure is not None:
        departure = np.where(obs.row >= 0, departure, obs.departure)
    return replace(obs, departure=departure).select(keep)


def screen(obs: Observations, members: Any, *, threshold: float = THRESHOLD) -> Observations:
    """Reject observations that are too far from an ensemble; see `check_innovations`.

    Parameters
    ----------
    obs : Observations
        To be checked.
    members : array (N, ny, nx)
        The ensemble on its grid, as stored, at least two members.
    threshold : float, default 4
        In standard deviations.

    Returns
    -------
    Observations

    Raises
    ------
    ParameterError
        As for `check_innovations`.
    """
    modelled = to_host(obs.operator.apply(members)).astype(np.float64)
    if modelled.ndim != 2 or len(modelled) < 2:
        raise ParameterError(
            f"members have shape {np.shape(members)}; expected (N, ny, nx), at least two of them"
        )
    innovation = obs.values - modelled.mean(axis=0)
    return check_innovations(obs, innovation, modelled.var(axis=0, ddof=1), threshold=threshold)


def select_time(
    obs: xr.DataArray | xr.Dataset, time: Any, *, window: Any
) -> xr.DataArray | xr.Dataset:
    """Keep the observations about a time.

    Parameters
    ----------
    obs : DataArray or Dataset
        With a coordinate of times along one dimension: points, tracks or gridded fields.
    time : datetime64, cftime date or DataArray
        The time of the analysis.
    window : timedelta or timedelta64
        Half the width: observations up to so much earlier or later are kept, such as
        ``np.timedelta64(12, "h")``.

    Returns
    -------
    DataArray or Dataset
        A part of `obs`, which may be empty along its dimension.

    Raises
    ------
    ParameterError
        No times, times on another calendar, or a window that is no length of time.
    """
    centre = time if isinstance(time, xr.DataArray) else xr.DataArray(time)
    times = find_time(obs)
    check_calendars(times, centre)
    if not isinstance(window, np.timedelta64 | timedelta):
        raise ParameterError(
            f"window={window!r} is no length of time; type for instance "
            'window=np.timedelta64(12, "h")'
        )
    apart = np.asarray((times - centre).values, dtype="timedelta64[us]")
    return obs.isel({times.dims[0]: np.flatnonzero(np.abs(apart) <= np.timedelta64(window))})


def thin(obs: Observations, distance: float) -> Observations:
    """Keep one observation in every box of a given size.

    Parameters
    ----------
    obs : Observations
        With positions.
    distance : float
        Side of the boxes in metres (in units of the coordinates where these have no length).

    Returns
    -------
    Observations
        Of every box the one with the smallest error, of equals the first.

    Raises
    ------
    ParameterError
        For a distance that is not positive, or without positions.
    """
    box = _boxes(obs, distance)
    order = np.lexsort((np.arange(obs.size), to_host(obs.error.variance), box))
    first = np.ones(obs.size, dtype=bool)
    first[1:] = box[order][1:] != box[order][:-1]
    keep = np.zeros(obs.size, dtype=bool)
    keep[order[first]] = True
    return obs.select(keep, "thinned")


def superob(obs: Observations, distance: float, *, floor: float = 0.0) -> Observations:
    """Join the observations of every box of a given size into their mean.

    Weights are the inverse error variances; the operator and the position of a mean are the means,
    with the same weights, of those of its observations.

    Parameters
    ----------
    obs : Observations
        With positions, a linear operator and independent errors.
    distance : float
        Side of the boxes in metres (in units of the coordinates where these have no length).
    floor : float, default 0
        Standard deviation that is left of the error however many observations are averaged, added
        in quadrature: what they share, such as what the grid cannot resolve.

    Returns
    -------
    Observations
        One per box that has any.

    Raises
    ------
    ParameterError
        For a distance that is not positive, a function as operator or correlated errors.
    """
    if not isinstance(obs.operator, LinearOperator) or not isinstance(obs.error, IndependentErrors):
        raise ParameterError(
            "superobbing needs a linear operator and independent errors: the mean of others has no "
            "simple operator and error; thin them instead"
        )
    if not 0.0 <= floor < np.inf:
        raise ParameterError(f"floor={floor!r} was given; expected a standard deviation >= 0")
    _, box = np.unique(_boxes(obs, distance), return_inverse=True)
    inverse = 1.0 / to_host(obs.error.variance)
    total = np.bincount(box, inverse)
    share = sp.csr_array((inverse / total[box], (box, np.arange(obs.size))))
    turn = np.exp(1j * np.radians(obs.x)) if obs.grid.longitude else obs.x
    x = np.asarray(share @ turn)
    time = obs.time
    if time is not None:  # dates have no mean that every calendar knows
        time = time[np.unique(box, return_index=True)[1]]
    return replace(
        obs,
        operator=obs.operator.combine(share),
        values=np.asarray(share @ obs.values),
        error=IndependentErrors(1.0 / total + floor**2),
        y=np.asarray(share @ obs.y),
        x=np.degrees(np.angle(x)) if obs.grid.longitude else x,
        time=time,
        row=np.where(obs.row >= 0, box[obs.row], -1),
    )


def _boxes(obs: Observations, distance: float) -> Index:
    """Box of each observation: bands of latitude, cut into equal parts of the circle."""
    if not (np.isfinite(distance) and distance > 0.0):
        raise ParameterError(f"distance={distance!r} was given; expected metres > 0")
    if np.isnan(obs.y).any():
        raise ParameterError(
            "these observations have no positions: their operator was given as a function of the "
            "whole field; give them coordinates"
        )
    grid = obs.grid
    if grid.kind != "geographic":
        side = distance / (grid.metres or 1.0)
        band, part = np.floor(obs.y / side), np.floor(obs.x / side)
    else:
        side = np.degrees(distance / EARTH_RADIUS)
        band = np.floor((obs.y + 90.0) / side)
        middle = np.radians(np.clip((band + 0.5) * side - 90.0, -90.0, 90.0))
        parts = np.maximum(np.floor(360.0 * np.cos(middle) / side), 1.0)
        # 360 itself, from rounding, is the first part again
        part = np.floor((obs.x % 360.0) / 360.0 * parts) % parts
    _, box = np.unique(np.stack([band, part]), axis=1, return_inverse=True)
    return np.asarray(box, dtype=np.intp).ravel()

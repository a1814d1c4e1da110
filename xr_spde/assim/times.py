"""Times of fields and observations as days."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import AxisNotFoundError, ParameterError
from xr_spde.labels.points import calendar_of, check_calendars
from xr_spde.labels.times import elapsed, model_dates

__all__ = ["as_times", "check_times", "days_since", "regular_times", "step_of", "time_dim"]

Float = NDArray[np.float64]


def time_dim(obj: xr.DataArray, what: str) -> str:
    """Find the dimension of a field that has dates as its coordinate.

    Parameters
    ----------
    obj : DataArray
        Fields.
    what : str
        What they are, for the message.

    Returns
    -------
    str

    Raises
    ------
    AxisNotFoundError
        None, or more than one.
    """
    found = [str(d) for d in obj.dims if d in obj.coords and calendar_of(obj[d]) is not None]
    if len(found) != 1:
        raise AxisNotFoundError(
            f"{what} have {', '.join(map(repr, found)) or 'no dimension'} as dimensions with dates "
            f"among {', '.join(map(repr, map(str, obj.dims)))}; expected one; decode the times "
            "with xr.decode_cf"
        )
    return found[0]


def days_since(times: xr.DataArray, origin: xr.DataArray) -> Float:
    """Days from an origin.

    Parameters
    ----------
    times : DataArray (n,)
        Dates; NaT gives NaN.
    origin : DataArray ()
        Of the same calendar.

    Returns
    -------
    ndarray (n,)

    Raises
    ------
    ParameterError
        For other calendars.
    """
    check_calendars(times, origin.expand_dims("origin"))
    if times.dtype.kind == "M":
        return elapsed(times.values, origin.values, "date") / 86400.0
    return elapsed(times.values, origin.item(), "model date") / 86400.0


def check_times(times: xr.DataArray, what: str) -> xr.DataArray:
    """Check that dates exist, increase and do not repeat.

    Parameters
    ----------
    times : DataArray (n,)
        Dates along one dimension.
    what : str
        Whose they are, for the message.

    Returns
    -------
    DataArray (n,)

    Raises
    ------
    ParameterError
        Naming the first that does not.
    """
    if times.ndim != 1 or calendar_of(times) is None or not times.size:
        raise ParameterError(
            f"the times of {what} have dtype {times.dtype} and shape {times.shape}; expected dates "
            "along one dimension; decode them with xr.decode_cf"
        )
    missing = np.flatnonzero(times.isnull().values)
    if missing.size:
        raise ParameterError(
            f"{missing.size} times of {what} are missing (NaT), the first at index {missing[0]}; "
            "leave them out"
        )
    steps = np.diff(days_since(times, times[0]))
    if (steps <= 0.0).any():
        k = int(np.argmax(steps <= 0.0))
        raise ParameterError(
            f"the times of {what} do not increase: {times.values[k + 1]} follows {times.values[k]} "
            f"(index {k + 1}); sort them, such as with .sortby({str(times.dims[0])!r}), and join "
            "those that repeat"
        )
    return times


def step_of(times: xr.DataArray, what: str) -> float:
    """Length of regular steps in days.

    Parameters
    ----------
    times : DataArray (n,)
        At least two dates that increase.
    what : str
        Whose they are, for the message.

    Returns
    -------
    float

    Raises
    ------
    ParameterError
        If there are fewer, or steps that differ.
    """
    check_times(times, what)
    steps = np.diff(days_since(times, times[0]))
    if not steps.size or np.ptp(steps) > 1e-6 * steps[0]:
        found = f"steps of {steps.min():g} to {steps.max():g} days" if steps.size else "one time"
        raise ParameterError(
            f"the times of {what} have {found}; expected equal steps; select or interpolate, such "
            "as with .resample or .interp"
        )
    return float(steps[0])


def as_times(times: Any, like: xr.DataArray) -> xr.DataArray:
    """Dates that a user gave, as a coordinate.

    Parameters
    ----------
    times : DataArray or array_like of dates
        Output times; ISO strings are read in the calendar of `like`.
    like : DataArray
        Times of the observations, for the name of the dimension.

    Returns
    -------
    DataArray (n,)

    Raises
    ------
    ParameterError
        For a string that is no date of the calendar.
    """
    if isinstance(times, xr.DataArray):
        return times
    values = np.atleast_1d(np.asarray(times))
    calendar = getattr(like.values.flat[0], "calendar", None) if like.size else None
    if values.dtype.kind == "U" and calendar is not None:
        values = model_dates(values, calendar)
    elif values.dtype.kind in "UM":
        values = values.astype("datetime64[ns]")
    name = "time" if like.ndim != 1 or str(like.dims[0]) != like.name else str(like.name)
    return xr.DataArray(values, {name: values}, (name,))


def regular_times(seen: xr.DataArray, step: float) -> xr.DataArray:
    """Regular dates from the day of the first observation to beyond the last.

    Parameters
    ----------
    seen : DataArray
        Times of observations; NaT is passed over.
    step : float
        Days.

    Returns
    -------
    DataArray (n,)

    Raises
    ------
    ParameterError
        For times of another calendar, or none at all.
    """
    if seen.dtype.kind != "M":
        raise ParameterError(
            f"times= is needed: the observations have times of dtype {seen.dtype}, and only "
            "datetime64 can be extended to regular ones; give regular dates"
        )
    known = seen.values[~np.isnat(seen.values)]
    if not known.size:
        raise ParameterError("no observation has a time")
    start = known.min().astype("datetime64[D]").astype("datetime64[ns]")
    count = int(np.ceil((known.max() - start) / np.timedelta64(1, "D") / step - 1e-9)) + 1
    ahead = np.round(np.arange(count) * step * 86400.0).astype("timedelta64[s]")
    return as_times(start + ahead, seen)

"""Times as steps of a series, whatever its calendar: regular, with gaps, or of calendar months."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.labels.points import calendar_of
from xr_spde.labels.times import elapsed

__all__ = ["Clock", "months_of"]

Float = NDArray[np.float64]

_MONTH = 27.0
_SLACK = 0.12  # a month given by its middle is off by a twelfth


@dataclass(frozen=True)
class Clock:
    """What one step of a series is.

    Attributes
    ----------
    unit : {"day", "month", "number"}
        What `step` counts: of dates days or, for steps of a month and longer, calendar months.
    step : float
        Length of a step.
    """

    unit: str
    step: float

    @classmethod
    def of(cls, times: xr.DataArray) -> Clock:
        """Read the step of a series, the median of its intervals.

        Parameters
        ----------
        times : DataArray (n,)
            Dates of any calendar, or numbers.

        Returns
        -------
        Clock

        Raises
        ------
        ParameterError
            For fewer than two times, or times that do not increase.
        """
        dated = calendar_of(times) is not None
        numbers = _days(times) if dated else times.values.astype(np.float64)
        gaps = np.diff(numbers)
        if not gaps.size or not (gaps > 0.0).all():
            raise ParameterError(
                f"the series has {times.size} times"
                + (" that do not all increase" if gaps.size else "")
                + "; expected at least two, sorted, each once, such as with .sortby"
            )
        if not dated:
            return cls("number", float(np.median(gaps)))
        if np.median(gaps) < _MONTH:
            return cls("day", float(np.median(gaps)))
        return cls("month", float(max(1.0, np.rint(np.median(np.diff(_months(times)))))))

    def positions(self, times: xr.DataArray, origin: xr.DataArray | None = None) -> Float:
        """Count times in steps.

        Parameters
        ----------
        times : DataArray (n,)
            Times.
        origin : DataArray (), optional
            Where to count from; by default the first of the times.

        Returns
        -------
        ndarray (n,)
        """
        start = times[0] if origin is None else origin
        if self.unit == "number":
            return (times.values.astype(np.float64) - float(start)) / self.step
        if calendar_of(times) is None:
            raise ParameterError(
                f"times of dtype {times.dtype} were given and the model was fitted to dates; give "
                "the fields and observations dates"
            )
        both = xr.concat(
            [
                start.expand_dims("t").drop_vars(list(start.coords)),
                times.drop_vars(list(times.coords)).rename({times.dims[0]: "t"}),
            ],
            "t",
        )
        count = _months(both) if self.unit == "month" else _days(both)
        return (count[1:] - count[0]) / self.step

    def intervals(self, times: xr.DataArray) -> tuple[Float, int]:
        """Intervals in steps, those near a whole step rounded to it, and how many are not one.

        Parameters
        ----------
        times : DataArray (n,)
            Times.

        Returns
        -------
        ndarray (n - 1,)
        int
        """
        gaps = np.diff(self.positions(times))
        whole = np.rint(gaps)
        slack = _SLACK if self.unit == "month" else 1e-6
        gaps = np.where((np.abs(gaps - whole) <= slack) & (whole >= 1.0), whole, gaps)
        return gaps, int(np.count_nonzero(gaps != 1.0))

    def days(self, times: xr.DataArray) -> Float:
        """Days since 1970-01-01; of plain numbers the numbers.

        Parameters
        ----------
        times : DataArray (n,)
            Times.

        Returns
        -------
        ndarray (n,)
        """
        if self.unit == "number":
            return times.values.astype(np.float64)
        return _days(times)

    def __str__(self) -> str:
        if self.unit == "number":
            return f"{self.step:g}"
        hours = self.step * 24.0
        if self.unit == "day" and hours < 24.0:
            return f"{hours:g} h"
        return f"{self.step:g} {self.unit}{'s' if self.step != 1.0 else ''}"


def _days(times: xr.DataArray) -> Float:
    """Days since 1970-01-01 in the calendar of the times."""
    if times.dtype.kind == "M":
        return elapsed(times.values, np.datetime64("1970-01-01", "ns"), "date") / 86400.0
    first: Any = times.values.flat[0]
    origin = type(first)(1970, 1, 1, calendar=first.calendar) if _bare(first) \
        else type(first)(1970, 1, 1)  # fmt: skip
    return elapsed(times.values, origin, "model date") / 86400.0


def _bare(date: Any) -> bool:
    """Whether a date is of the class that is told its calendar."""
    return type(date).__name__ == "datetime"


def _months(times: xr.DataArray) -> Float:
    """Calendar months since the year 0, with the part of the month that has passed."""
    dates = times.dt
    day = dates.day.values - 1.0 + dates.hour.values / 24.0
    length = dates.days_in_month.values.astype(np.float64)
    return np.asarray(12.0 * dates.year.values + dates.month.values + day / length, np.float64)


def months_of(times: xr.DataArray) -> NDArray[np.intp] | None:
    """Months 0 to 11 of dates; None for plain numbers.

    Parameters
    ----------
    times : DataArray (n,)
        Times.

    Returns
    -------
    ndarray of int (n,) or None
    """
    if calendar_of(times) is None:
        return None
    return np.asarray(times.dt.month.values - 1, dtype=np.intp)

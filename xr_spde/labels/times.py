"""The time axis: which dimension it is, and times as numbers whatever they are stored as."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import AxisNotFoundError, ParameterError, listed
from xr_spde.labels.axes import is_time

__all__ = ["TimeAxis", "elapsed", "model_dates"]

Kind = Literal["date", "model date", "duration", "number"]

_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


@dataclass(frozen=True, eq=False)
class TimeAxis:
    """A dimension of times.

    Attributes
    ----------
    dim : str
        Its name.
    coordinate : DataArray (dim,)
        The times; counts where there is no coordinate.
    kind : {"date", "model date", "duration", "number"}
        numpy dates, cftime dates of any calendar, timedeltas, or plain numbers.
    unit : float
        Seconds in one of `numbers`: 1, or NaN where plain numbers have no unit of time.
    numbers : ndarray (n,)
        Times since the first one: seconds, or as they are where there is no unit.
    """

    dim: str
    coordinate: xr.DataArray
    kind: Kind
    unit: float
    numbers: NDArray[np.float64]

    @classmethod
    def from_object(
        cls, da: xr.DataArray, dim: str | None = None, *, spatial: tuple[str, str]
    ) -> TimeAxis:
        """Read the times of an array.

        Parameters
        ----------
        da : DataArray
            Labelled data.
        dim : str, optional
            Name of the dimension where it should not be searched for.
        spatial : tuple of str
            ``(y_dim, x_dim)``, which it cannot be.

        Returns
        -------
        TimeAxis

        Raises
        ------
        AxisNotFoundError
            No such dimension, or several.
        ParameterError
            One time only, times that are missing, not increasing, or given twice.
        """
        name = _time_dim(da, dim, spatial)
        if name in da.coords:
            coordinate = da.coords[name].reset_coords(drop=True)
        else:
            coordinate = xr.DataArray(np.arange(da.sizes[name], dtype=np.float64), dims=name)
        axis = cls._of(name, coordinate)
        axis._check()
        return axis

    @classmethod
    def starting_at(cls, start: xr.DataArray) -> TimeAxis:
        """Axis of which one time alone is known, its first.

        Parameters
        ----------
        start : DataArray ()
            The time, with the name of the axis.

        Returns
        -------
        TimeAxis

        Raises
        ------
        ParameterError
            For something that is no time, or a missing one.
        """
        name = str(start.name)
        axis = cls._of(name, start.reset_coords(drop=True).expand_dims(name))
        if not np.isfinite(axis.numbers).all():
            raise ParameterError(f"the coordinate {name!r} is missing; give the frame its time")
        return axis

    @classmethod
    def _of(cls, name: str, coordinate: xr.DataArray) -> TimeAxis:
        kind = _kind(coordinate)
        units = str(coordinate.attrs.get("units", "")).strip().lower()
        unit = _SECONDS.get(units, float("nan")) if kind == "number" else 1.0
        numbers = elapsed(coordinate.values, coordinate.values[0], kind)
        factor = unit if kind == "number" and np.isfinite(unit) else 1.0
        return cls(
            name, coordinate, kind, float("nan") if np.isnan(unit) else 1.0, numbers * factor
        )

    def _check(self) -> None:
        n = self.numbers.size
        if n < 2:
            raise ParameterError(
                f"there is {n} frame along {self.dim!r}; at least two are needed to see a motion"
            )
        if not np.isfinite(self.numbers).all():
            raise ParameterError(
                f"the coordinate {self.dim!r} has missing times; drop those frames"
            )
        steps = np.diff(self.numbers)
        if (steps < 0).any():
            raise ParameterError(
                f"the times along {self.dim!r} are not sorted; type .sortby({self.dim!r}) first"
            )
        if (steps == 0).any():
            twice = self.coordinate.values[1:][steps == 0][0]
            raise ParameterError(
                f"the time {twice} occurs twice along {self.dim!r}; type "
                f".drop_duplicates({self.dim!r}), or average the frames of one time first"
            )

    def read(self, time: Any) -> tuple[xr.DataArray, NDArray[np.float64]]:
        """Bring times that a user gave onto this axis.

        Parameters
        ----------
        time : str, date, number, or array_like of these
            One time or several, of the kind of the axis; ISO strings for dates of every calendar.

        Returns
        -------
        coordinate : DataArray, () or (dim,)
            The times with the attributes of the axis.
        numbers : ndarray, () or (n,)
            In the units of `numbers`.

        Raises
        ------
        ParameterError
            Times of another kind or calendar, missing times, or an array of more than one
            dimension.
        """
        values = np.asarray(time.values if isinstance(time, xr.DataArray) else time)
        if values.ndim > 1 or not values.size:
            raise ParameterError(
                f"time has shape {values.shape}; expected one time or a list of them"
            )
        converted = self._converted(values)
        origin = self.coordinate.values[0]
        numbers = elapsed(np.atleast_1d(converted), origin, self.kind).reshape(values.shape)
        if not np.isfinite(numbers).all():
            raise ParameterError("time holds missing values; drop them")
        if self.kind == "number":
            factor = _SECONDS.get(str(self.coordinate.attrs.get("units", "")).strip().lower(), 1.0)
            numbers = numbers * factor
        dims = (self.dim,) if values.ndim else ()
        attrs = self.coordinate.attrs
        coordinate = xr.DataArray(converted, dims=dims, name=self.dim, attrs=attrs)
        coordinate.encoding = self.encoding
        return coordinate, numbers

    @property
    def encoding(self) -> dict[str, Any]:
        """How new times are written: units and calendar as they came, but no integers."""
        kept = {k: v for k, v in self.coordinate.encoding.items() if k in ("units", "calendar")}
        if self.kind in ("date", "model date") and "units" not in kept:
            first = str(self.coordinate.values[0]).replace("T", " ").split(".")[0]
            kept["units"] = f"seconds since {first}"
        return kept

    def _converted(self, values: NDArray[Any]) -> NDArray[Any]:
        """Turn times into the type of the coordinate."""
        origin = self.coordinate.values[0]
        first = values.ravel()[0]
        if self.kind == "date":
            if values.dtype.kind in "MU" or isinstance(first, datetime):
                try:
                    return values.astype("datetime64[ns]")
                except ValueError as error:
                    raise ParameterError(f"time={first!r} is no date: {error}") from error
            raise self._unlike(first)
        if self.kind == "model date":
            if values.dtype.kind == "U":
                return model_dates(values, origin.calendar)
            calendar = getattr(first, "calendar", None)
            if calendar != origin.calendar:
                raise self._unlike(first)
            return values
        if self.kind == "duration":
            if values.dtype.kind != "m":
                raise self._unlike(first)
            return values.astype("timedelta64[ns]")
        if values.dtype.kind not in "fiu":
            raise self._unlike(first)
        return values

    def _unlike(self, given: Any) -> ParameterError:
        calendar = getattr(self.coordinate.values[0], "calendar", "standard")
        wanted = {
            "date": 'dates such as "2020-03-01T12:00" or numpy datetime64',
            "model date": f"cftime dates of the calendar {calendar!r}, or ISO strings",
            "duration": "numpy timedelta64",
            "number": "numbers",
        }[self.kind]
        found = getattr(given, "calendar", None)
        kind = type(given).__name__ + (f" of the calendar {found!r}" if found else "")
        return ParameterError(
            f"time holds {given!r} ({kind}) and the axis {self.dim!r} has {wanted}; give those"
        )

    def middle(self) -> NDArray[Any]:
        """Return times half way between neighbours, in the type of the coordinate.

        Returns
        -------
        ndarray (n - 1,)
        """
        values = self.coordinate.values
        if self.kind == "number":
            return np.asarray(0.5 * (values[1:].astype(np.float64) + values[:-1]))
        return np.asarray(values[:-1] + (values[1:] - values[:-1]) / 2)


def model_dates(values: NDArray[Any], calendar: str) -> NDArray[Any]:
    """Cftime dates from ISO strings.

    Parameters
    ----------
    values : ndarray of str
        Dates, such as "2020-02-30T12" in a calendar that has it.
    calendar : str
        One of CF.

    Returns
    -------
    ndarray of object

    Raises
    ------
    ParameterError
        For a string that is no date of the calendar.
    """
    dates = np.empty(values.shape, dtype=object)
    for index in np.ndindex(values.shape):
        try:
            found = xr.date_range(str(values[index]), periods=1, calendar=calendar, use_cftime=True)
        except ValueError as error:
            raise ParameterError(
                f"time={str(values[index])!r} is no date of the calendar {calendar!r}: {error}"
            ) from error
        dates[index] = found[0]
    return dates


def _time_dim(da: xr.DataArray, dim: str | None, spatial: tuple[str, str]) -> str:
    others = [str(d) for d in da.dims if d not in spatial]
    if dim is not None:
        if dim not in others:
            raise AxisNotFoundError(
                f"dim={dim!r} is no dimension of frames; those are {listed(others)}"
            )
        return dim
    found = [name for name in others if is_time(da, name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise AxisNotFoundError(
            f"the time axis is ambiguous between {listed(found)}; pass dim={found[0]!r} or another"
        )
    raise AxisNotFoundError(
        f"no dimension of times: besides space there is {listed(others)}; at least two frames "
        'along a time axis are needed; pass dim="..." or join images with xr.concat'
    )


def _kind(coordinate: xr.DataArray) -> Kind:
    kind = coordinate.dtype.kind
    if kind == "M":
        return "date"
    if kind == "m":
        return "duration"
    if kind == "O" and hasattr(coordinate.values[0], "calendar"):
        return "model date"
    if kind in "fiu":
        return "number"
    raise ParameterError(
        f"the coordinate {coordinate.name!r} has the dtype {coordinate.dtype}; dates, durations or "
        "numbers are expected"
    )


def elapsed(values: NDArray[Any], origin: Any, kind: Kind) -> NDArray[np.float64]:
    """Seconds since an origin; plain numbers less the origin.

    Parameters
    ----------
    values : ndarray (n,)
        Times; NaT gives NaN.
    origin : object
        A time of the same kind.
    kind : {"date", "model date", "duration", "number"}
        See `TimeAxis`.

    Returns
    -------
    ndarray (n,)
    """
    if kind in ("date", "duration"):
        return np.asarray((values - origin) / np.timedelta64(1, "s"), dtype=np.float64)
    if kind == "model date":
        return np.array([(value - origin).total_seconds() for value in values])
    return values.astype(np.float64) - float(origin)

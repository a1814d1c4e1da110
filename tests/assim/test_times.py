"""Times of fields and observations as days."""

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import ParameterError
from xr_spde.assim.times import as_times, days_since


def _dates(values):
    return xr.DataArray(values, {"time": values}, ("time",), name="time")


def test_strings_are_read_in_the_calendar_of_the_observations():
    cftime = pytest.importorskip("cftime")
    seen = _dates([cftime.Datetime360Day(2020, 2, 28), cftime.Datetime360Day(2020, 3, 1)])
    found = as_times(["2020-02-29", "2020-02-30T12", "2020-03-01"], seen)
    assert found.values[1] == cftime.Datetime360Day(2020, 2, 30, 12)
    np.testing.assert_array_equal(days_since(found, seen[0]), [1.0, 2.5, 3.0])
    with pytest.raises(ParameterError, match="no date of the calendar '360_day'"):
        as_times(["2020-02-31"], seen)


def test_dates_of_any_resolution_and_century():
    origin = _dates(np.array(["0001-01-01"], "datetime64[s]"))[0]
    times = _dates(np.array(["1201-01-01", "NaT", "0001-01-02T12"], "datetime64[s]"))
    # 1200 Gregorian years are three cycles of 146097 days
    np.testing.assert_array_equal(days_since(times, origin), [3 * 146097, np.nan, 1.5])

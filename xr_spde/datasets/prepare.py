"""What leads from public files to ready samples, and the sample that is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from xr_spde._core.errors import SchemaError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "cut_mediterranean_adt",
    "cut_navy_winds",
    "make_shallow_water_jets",
    "tidy_alboran_sst",
]

_WIND_STEP = 0.002
_DEGREES: Final[Mapping[str, str]] = {"lon": "degrees_east", "lat": "degrees_north"}


def _find(ds: xr.Dataset, what: str, test: Callable[[str], bool]) -> str:
    found = [str(name) for name in ds.variables if test(str(name).lower())]
    if len(found) != 1:
        raise SchemaError(
            f"looked for one variable with {what}, found {found or 'none'} among "
            f"{sorted(map(str, ds.variables))}; this is not the public file that was expected"
        )
    return found[0]


def cut_navy_winds(public: xr.Dataset) -> xr.Dataset:
    """Cut the monthly surface winds from the public file.

    Eight years (1982 to 1989), longitudes turned to 0 to 357.5, stamps (every 730.5 h in the
    public file) set to the 15th of each month, values rounded to 0.002 m/s.

    Parameters
    ----------
    public : Dataset
        The zonal and meridional wind (names starting with u and v), (time, y, x), m/s.

    Returns
    -------
    Dataset
        ``u`` and ``v``, float64 (time 96, lat 73, lon 144), m s-1.

    Raises
    ------
    SchemaError
        The variables are not there.
    """
    import numpy as np
    import xarray as xr

    names = {axis: _find(public, f"{axis} first", _wind_test(public, axis)) for axis in "uv"}
    winds = public[[names["u"], names["v"]]].squeeze()
    time, lat, lon = winds[names["u"]].dims
    first = winds[time].values[0].astype("datetime64[M]")
    months = first + np.arange(winds.sizes[time])
    stamps = (months.astype("datetime64[D]") + np.timedelta64(14, "D")).astype("datetime64[ns]")
    ready = xr.Dataset(
        {
            short: (
                ("time", "lat", "lon"),
                np.round(winds[names[short]].values.astype(float) / _WIND_STEP) * _WIND_STEP,
                {"units": "m s-1", "standard_name": standard},
            )
            for short, standard in (("u", "eastward_wind"), ("v", "northward_wind"))
        },
        coords={
            "time": stamps,
            "lat": ("lat", winds[lat].values.astype(float), _coordinate_attrs("latitude")),
            "lon": ("lon", winds[lon].values.astype(float) % 360, _coordinate_attrs("longitude")),
        },
    )
    return ready.sortby("lon").sel(time=slice("1982-01", "1989-12"))


def _wind_test(public: xr.Dataset, axis: str) -> Callable[[str], bool]:
    fields = {str(name).lower() for name in public.data_vars if public[name].ndim >= 3}
    return lambda name: name in fields and name.startswith(axis)


def _coordinate_attrs(standard_name: str) -> dict[str, str]:
    return {"units": _DEGREES[standard_name[:3]], "standard_name": standard_name}


def cut_mediterranean_adt(public: xr.Dataset) -> xr.Dataset:
    """Cut 61 days of absolute dynamic topography from the public file.

    Days 2005-04-01 to 2005-05-31 of the variable ``adt``; the values are not changed.

    Parameters
    ----------
    public : Dataset
        With ``adt`` (time, latitude, longitude), m.

    Returns
    -------
    Dataset
        ``adt`` (time 61, latitude 128, longitude 344), m.

    Raises
    ------
    SchemaError
        There is no ``adt``.
    """
    name = _find(public, "the name adt", lambda lower: lower == "adt")
    days = public[[name]].sel(time=slice("2005-04-01", "2005-05-31"))
    return days.transpose("time", "latitude", "longitude").reset_coords(drop=True)


def tidy_alboran_sst(public: xr.Dataset) -> xr.Dataset:
    """Give the Alboran Sea images CF attributes; the values are not changed.

    Parameters
    ----------
    public : Dataset
        With ``SST`` (time, lat, lon), degree Celsius, and ``mask`` (lat, lon).

    Returns
    -------
    Dataset
        The same, with ``units`` and ``standard_name`` in CF spelling.

    Raises
    ------
    SchemaError
        There is no ``SST``.
    """
    _find(public, "the name SST", lambda lower: lower == "sst")
    ready = public.copy()
    ready["SST"].attrs = {"units": "degC", "standard_name": "sea_surface_temperature"}
    ready["mask"].attrs = {"long_name": "1 sea, 0 land"}
    for name, units in _DEGREES.items():
        ready[name].attrs = {"units": units}
    return ready


def make_shallow_water_jets() -> xr.Dataset:
    """Compute seven runs of shallow water, every second hour on a grid of 32 x 64.

    Jets of 60, 63, 66, 69 and 72 m/s to learn from, of 67.5 m/s between and 76 m/s beyond them to
    test on. Takes about half a minute; 7 MB as 16-bit integers.

    Returns
    -------
    Dataset
        As of `xr_spde.synthetic.shallow_water` (trajectory 7, time 120, lat 32, lon 64).
    """
    from xr_spde.synthetic import shallow_water

    runs = shallow_water(speed=(60.0, 63.0, 66.0, 69.0, 72.0, 67.5, 76.0), rows=32, step=2.0)
    for name in ("height", "vorticity"):
        low, high = float(runs[name].min()), float(runs[name].max())
        scale, offset = (high - low) / 65_000.0, (high + low) / 2.0
        packed = {"scale_factor": scale, "add_offset": offset, "_FillValue": -32_768}
        runs[name].encoding = {"dtype": "int16", **packed}
    return runs

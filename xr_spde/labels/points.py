"""Points and tracks: objects whose positions all run along one dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cf_xarray  # noqa: F401  registers the accessor this module reads
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import AxisNotFoundError, GridError, ParameterError, listed
from xr_spde.labels.axes import GEOGRAPHIC_NAMES, PLANAR_NAMES, is_degrees, metres_per_unit
from xr_spde.labels.grid import Grid

__all__ = [
    "PointCoordinates",
    "as_points",
    "calendar_of",
    "check_calendars",
    "find_points",
    "find_time",
    "position_names",
    "positions_on",
]

Labelled = xr.DataArray | xr.Dataset

_CF = {"X": "longitude", "Y": "latitude"}
_REAL = ("standard", "gregorian", "proleptic_gregorian")


@dataclass(frozen=True)
class PointCoordinates:
    """Names of the coordinates of points.

    Attributes
    ----------
    dim : str
        Dimension along which they run.
    y, x : str
        Positions.
    time : str or None
        Times, where there are any.
    """

    dim: str
    y: str
    x: str
    time: str | None


def as_points(obj: Labelled) -> Labelled:
    """Turn positions that are data variables into coordinates, and one point into a list of one.

    Parameters
    ----------
    obj : DataArray or Dataset
        Observations.

    Returns
    -------
    DataArray or Dataset
    """
    if isinstance(obj, xr.Dataset):
        names = [str(name) for name in obj.data_vars]
        known = (*GEOGRAPHIC_NAMES.values(), *PLANAR_NAMES.values())
        promoted = [n for n in names if any(p.fullmatch(n.lower()) for p in known)]
        promoted += [n for n in names if np.issubdtype(obj[n].dtype, np.datetime64)]
        obj = obj.set_coords(promoted)
    if not obj.dims and all(position_names(obj, letter, geographic=True) for letter in "YX"):
        scalars = {name: ("obs", [obj[name].values[()]], obj[name].attrs) for name in obj.coords}
        return obj.drop_vars(list(obj.coords)).expand_dims("obs").assign_coords(scalars)
    return obj


def find_points(
    obj: Labelled, grid: Grid, *, x: str | None = None, y: str | None = None
) -> PointCoordinates:
    """Find the coordinates that place points on a grid.

    Parameters
    ----------
    obj : DataArray or Dataset
        Observations along one dimension.
    grid : Grid
        The grid they are meant for, which says whether positions are degrees.
    x, y : str, optional
        Names of the coordinates where they should not be searched for.

    Returns
    -------
    PointCoordinates

    Raises
    ------
    AxisNotFoundError
        No coordinate, or more than one, along one and the same dimension.
    """
    geographic = grid.kind == "geographic"
    found = {}
    for letter, given in (("Y", y), ("X", x)):
        names = [given] if given is not None else position_names(obj, letter, geographic=geographic)
        names = [name for name in names if name in obj.coords and obj[name].ndim == 1]
        if len(names) != 1:
            kind = _CF[letter] if geographic else f"{letter.lower()} coordinate"
            what = f"the {kind} is ambiguous between {listed(names)}" if names else f"no {kind}"
            raise AxisNotFoundError(
                f"{what} among the coordinates {listed(obj.coords)} of the observations, whose "
                f"positions are needed on {grid.described()}; expected one that runs along the "
                f'observations; name it, such as obs_{letter.lower()}="..."'
            )
        found[letter] = names[0]
    dims = {str(obj[name].dims[0]) for name in found.values()}
    if len(dims) != 1:
        raise AxisNotFoundError(
            f"the positions {found['Y']!r} and {found['X']!r} of the observations run along "
            f"different dimensions, {listed(sorted(dims))}; expected points along one dimension"
        )
    dim = dims.pop()
    times = [
        str(name)
        for name in dict.fromkeys([*obj.cf.coordinates.get("time", []), *obj.coords])
        if obj[name].dims == (dim,) and calendar_of(obj[name]) is not None
    ]
    return PointCoordinates(dim, found["Y"], found["X"], times[0] if times else None)


def positions_on(obj: Labelled, names: tuple[str, str], grid: Grid) -> list[NDArray[np.float64]]:
    """Positions in the units of a grid.

    Parameters
    ----------
    obj : DataArray or Dataset
        Observations.
    names : tuple of str
        Coordinates (y, x).
    grid : Grid
        The grid.

    Returns
    -------
    list of ndarray
        y and x.

    Raises
    ------
    GridError
        Lengths where degrees are expected, or the other way round.
    """
    values = []
    for letter, name in zip("YX", names, strict=True):
        given = np.asarray(obj[name].values, dtype=np.float64)
        degrees, metres = is_degrees(obj, name, letter), metres_per_unit(obj, name)
        mixed = (grid.kind == "geographic" and np.isfinite(metres)) or (
            grid.kind == "projected" and degrees
        )
        if mixed:
            units = "degrees" if degrees else str(obj[name].attrs.get("units"))
            expected = "degrees" if grid.kind == "geographic" else "lengths on a plane"
            raise GridError(
                f"the positions {name!r} of the observations are in {units}, and the grid is in "
                f"{expected}; project the positions first, and name them with obs_x= and obs_y="
            )
        if grid.kind == "projected" and grid.metres is not None and np.isfinite(metres):
            given = given * (metres / grid.metres)
        values.append(given)
    return values


def calendar_of(times: xr.DataArray) -> str | None:
    """Calendar of a coordinate of times; None for anything else.

    Parameters
    ----------
    times : DataArray
        Any values.

    Returns
    -------
    str or None
    """
    if np.issubdtype(times.dtype, np.datetime64):
        return "proleptic_gregorian"
    if times.dtype == object and times.size:
        return getattr(times.values.ravel()[0], "calendar", None)
    return None


def find_time(obj: Labelled) -> xr.DataArray:
    """Find the times along one dimension of an object.

    Parameters
    ----------
    obj : DataArray or Dataset
        Observations.

    Returns
    -------
    DataArray (n,)

    Raises
    ------
    ParameterError
        None, or more than one.
    """
    variables = obj.variables if isinstance(obj, xr.Dataset) else obj.coords
    names = [str(n) for n in variables if obj[n].ndim == 1 and calendar_of(obj[n]) is not None]
    if len(names) != 1:
        raise ParameterError(
            f"the observations have {listed(names)} as coordinates of dates along one dimension; "
            "expected one; decode the times with xr.decode_cf, or drop the others"
        )
    return obj[names[0]]


def check_calendars(observed: xr.DataArray, modelled: xr.DataArray) -> None:
    """Refuse times that cannot be compared.

    Parameters
    ----------
    observed, modelled : DataArray
        Times of the observations and of the fields.

    Raises
    ------
    ParameterError
        If their calendars differ.
    """
    kinds = []
    for times in (observed, modelled):
        calendar = calendar_of(times)
        kinds.append("standard" if calendar in _REAL else calendar)
    found, expected = kinds
    if found == expected and observed.dtype.kind == modelled.dtype.kind:
        return
    cftime = modelled.dtype == object
    raise ParameterError(
        f"the times of the observations ({_described(observed)}) and of the fields "
        f"({_described(modelled)}) cannot be compared; convert those of the observations, such as "
        f"with obs.convert_calendar({expected!r}, use_cftime={cftime})"
    )


def _described(times: xr.DataArray) -> str:
    calendar = calendar_of(times)
    if calendar is None:
        return f"no dates but {times.dtype}"
    return f"{'cftime' if times.dtype == object else 'numpy'} dates, calendar {calendar!r}"


def position_names(obj: Any, letter: str, *, geographic: bool) -> list[str]:
    """Find coordinates that may hold positions: by metadata, else by name; the first kind found.

    Parameters
    ----------
    obj : DataArray or Dataset
        Observations.
    letter : {"Y", "X"}
        Axis.
    geographic : bool
        Whether latitudes and longitudes come before lengths on a plane.

    Returns
    -------
    list of str
        Empty where there is none.
    """
    names = [str(name) for name in obj.coords]
    by_name = {
        True: [n for n in names if GEOGRAPHIC_NAMES[letter].fullmatch(n.lower())],
        False: [n for n in names if PLANAR_NAMES[letter].fullmatch(n.lower())],
    }
    marked = {
        True: list(obj.cf.coordinates.get(_CF[letter], [])),
        False: list(obj.cf.axes.get(letter, [])),
    }
    order = (geographic, not geographic)
    stages = [table[kind] for kind in order for table in (marked, by_name)]
    for stage in stages:
        usable = [name for name in stage if name in names and obj[name].ndim <= 1]
        if usable:
            return usable
    return []

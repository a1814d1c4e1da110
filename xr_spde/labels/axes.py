"""Which dimensions are space and which one counts the replicates.

Space is found from CF metadata (``axis``, ``standard_name``, ``units``, read by cf-xarray), then
from well-known names; the names given by the user come before everything.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import cf_xarray  # noqa: F401  registers the accessor this module reads
import numpy as np
import xarray as xr

from xr_spde._core.errors import AxisNotFoundError, GridError, ParameterError, listed

_CF_COORDINATE = {"X": "longitude", "Y": "latitude"}
GEOGRAPHIC_NAMES = {
    "X": re.compile(r"(nav_|grid_|r|n)?lon(gitude)?s?\d*"),
    "Y": re.compile(r"(nav_|grid_|r|n)?lat(itude)?s?\d*"),
}
PLANAR_NAMES = {
    "X": re.compile(r"x\d*|xc|i|ni|x_?coord(inate)?|projection_x_coordinate|easting|west_east"),
    "Y": re.compile(r"y\d*|yc|j|nj|y_?coord(inate)?|projection_y_coordinate|northing|south_north"),
}
_REPLICATE_NAMES = re.compile(
    r"reali[sz]ations?|members?|member_id|number|ens(emble)?(_?member)?s?|nens|replicates?|samples?|"
    r"draws?|runs?|simulations?"
)
_TIME_NAMES = re.compile(r"t|(valid_|ocean_)?time|years?|date")
_STACKED_NAMES = re.compile(
    r"z|variable|band|channel|p?lev(el)?s?|isobaric.*|pressure.*|height|depth|altitude",
    re.IGNORECASE,
)
_DEGREES = re.compile(r"degrees?(_?(north|south|east|west|n|s|e|w))?|deg", re.IGNORECASE)
_METRES = {
    "m": 1.0, "metre": 1.0, "metres": 1.0, "meter": 1.0, "meters": 1.0,
    "km": 1e3, "kilometre": 1e3, "kilometres": 1e3, "kilometer": 1e3, "kilometers": 1e3,
}  # fmt: skip

Labelled = xr.DataArray | xr.Dataset


@dataclass(frozen=True)
class SpatialAxis:
    """One horizontal axis of an object.

    Attributes
    ----------
    dim : str
        Dimension.
    coord : str or None
        One-dimensional coordinate that holds its positions; None where there is none.
    """

    dim: str
    coord: str | None

    @property
    def name(self) -> str:
        """Name to use in messages."""
        return self.coord or self.dim


def find_spatial(obj: Labelled, *, x: str | None = None, y: str | None = None) -> tuple[str, str]:
    """Find the two horizontal dimensions.

    Parameters
    ----------
    obj : DataArray or Dataset
        Labelled data on a grid.
    x, y : str, optional
        Dimension (or one-dimensional coordinate) to take instead of searching.

    Returns
    -------
    tuple of str
        ``(y_dim, x_dim)``.

    Raises
    ------
    AxisNotFoundError
        No candidate, or more than one.
    GridError
        The positions are two-dimensional (curvilinear) or points along one dimension.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.labels.axes import find_spatial
    >>> find_spatial(xr.DataArray(np.zeros((2, 3, 4)), dims=("longitude", "time", "latitude")))
    ('latitude', 'longitude')
    """
    y_axis, x_axis = spatial_axes(obj, x=x, y=y)
    return y_axis.dim, x_axis.dim


def spatial_axes(
    obj: Labelled, *, x: str | None = None, y: str | None = None
) -> tuple[SpatialAxis, SpatialAxis]:
    """Find the two horizontal axes and their coordinates; see `find_spatial`.

    Returns
    -------
    tuple of SpatialAxis
        ``(y, x)``.
    """
    y_dim = _explicit(obj, "Y", y) if y is not None else _search(obj, "Y")
    x_dim = _explicit(obj, "X", x) if x is not None else _search(obj, "X")
    if y_dim == x_dim:
        raise GridError(
            f"longitude and latitude both run along the dimension {x_dim!r}: these are points, "
            "not a grid; put them on a regular grid first"
        )
    y_axis = SpatialAxis(y_dim, _coordinate_along(obj, y_dim, "Y", y))
    x_axis = SpatialAxis(x_dim, _coordinate_along(obj, x_dim, "X", x))
    curved = [name for name in _curvilinear(obj) if {y_dim, x_dim} == set(obj[name].dims)]
    if curved and x is None and y is None and not _has_positions(obj, y_axis, x_axis):
        raise _curvilinear_error(obj, curved)
    return y_axis, x_axis


def find_replicates(da: xr.DataArray, dim: str | None = None, *, spatial: tuple[str, str]) -> str:
    """Find the dimension that counts the replicates.

    In this order: the name given; ``standard_name`` "realization" or a well-known name
    (realization, member, number, ensemble, ...); the only dimension left; the time axis. A vertical
    axis or a ``variable`` dimension is never taken unless it is named.

    Parameters
    ----------
    da : DataArray
        Fields.
    dim : str, optional
        Name of the replicate dimension.
    spatial : tuple of str
        The horizontal dimensions ``(y_dim, x_dim)``.

    Returns
    -------
    str

    Raises
    ------
    AxisNotFoundError
        No candidate, or more than one.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.labels.axes import find_replicates
    >>> fields = xr.DataArray(np.zeros((5, 2, 3, 4)), dims=("number", "level", "lat", "lon"))
    >>> find_replicates(fields, spatial=("lat", "lon"))
    'number'
    """
    others = [str(name) for name in da.dims if name not in spatial]
    if dim is not None:
        if dim not in others:
            why = "a horizontal axis" if dim in spatial else "not a dimension"
            raise AxisNotFoundError(
                f"dim={dim!r} is {why} of the data, whose dimensions are {listed(da.dims)}; "
                f"pass one of {listed(others)}"
            )
        return dim
    named = [name for name in others if _is_realization(da, name)]
    usable = [name for name in others if not _is_stacked(da, name)]
    timed = [name for name in usable if is_time(da, name)]
    for candidates in (named, usable, timed):
        if len(candidates) == 1:
            return candidates[0]
        if candidates is named and named:
            break
    if not usable:
        hint = f"; pass dim={others[0]!r} if those are the replicates" if others else ""
        raise AxisNotFoundError(
            f"no replicate dimension: the dimensions are {listed(da.dims)}, of which "
            f"{listed(spatial)} are space{hint}. Expected a dimension of members or times, such "
            "as 'realization', 'number' or 'time'; join single fields with xr.concat"
        )
    raise AxisNotFoundError(
        f"the replicate dimension is ambiguous between {listed(named or usable)}; pass one of "
        f"them, such as dim={(named or usable)[0]!r}"
    )


def check_replicates(count: int, *, minimum: int = 2, dim: str = "the replicate dimension") -> None:
    """Refuse too few replicates.

    Parameters
    ----------
    count : int
        Number of replicates.
    minimum : int
        Smallest number the method can use.
    dim : str
        Name of the dimension, for the message.

    Raises
    ------
    ParameterError
        ``count < minimum``.
    """
    if count < minimum:
        raise ParameterError(
            f"{count} replicate{'' if count == 1 else 's'} along {dim!r}; at least {minimum} are "
            "needed to tell spread from mean; pass data with more members or times, or name "
            "another dimension with dim="
        )


def is_degrees(obj: Labelled, coord: str, letter: str) -> bool:
    """Whether a coordinate is a longitude (letter "X") or latitude ("Y") in degrees.

    Units decide where they are given; without units, the CF standard name and the usual names.
    """
    attrs = obj[coord].attrs
    units = str(attrs.get("units", "")).strip()
    if units:
        return bool(_DEGREES.fullmatch(units))
    standard = str(attrs.get("standard_name", ""))
    return standard.endswith(_CF_COORDINATE[letter]) or _named(coord, GEOGRAPHIC_NAMES[letter])


def metres_per_unit(obj: Labelled, coord: str) -> float:
    """Metres in one unit of a coordinate; NaN where its units are no length."""
    units = str(obj[coord].attrs.get("units", "")).strip().lower()
    return _METRES.get(units, float("nan"))


def _explicit(obj: Labelled, letter: str, given: str) -> str:
    if given in obj.dims:
        return given
    if given in obj.coords:
        found = obj.coords[given]
        if found.ndim == 1:
            return str(found.dims[0])
        if found.ndim == 2:
            raise _curvilinear_error(obj, [given])
    raise AxisNotFoundError(
        f"{letter.lower()}={given!r} is neither a dimension nor a one-dimensional coordinate; "
        f"dimensions: {listed(obj.dims)}; coordinates: {listed(obj.coords)}"
    )


def _search(obj: Labelled, letter: str) -> str:
    axes, coordinates = obj.cf.axes, obj.cf.coordinates
    names = [str(name) for name in (*obj.dims, *obj.coords)]
    stages: list[Iterable[str]] = [
        axes.get(letter, []),
        coordinates.get(_CF_COORDINATE[letter], []),
        [name for name in names if _named(name, GEOGRAPHIC_NAMES[letter])],
        [name for name in names if _named(name, PLANAR_NAMES[letter])],
    ]
    for stage in stages:
        dims = sorted({dim for name in stage if (dim := _dim_of(obj, name)) is not None})
        if len(dims) == 1:
            return dims[0]
        if dims:
            raise AxisNotFoundError(
                f"the {letter} axis is ambiguous between {listed(dims)}; pass "
                f"{letter.lower()}={dims[0]!r} or another of them"
            )
    curved = _curvilinear(obj)
    if curved:
        raise _curvilinear_error(obj, curved)
    raise AxisNotFoundError(
        f"no {letter} axis: the dimensions are {listed(obj.dims)} and the coordinates "
        f"{listed(obj.coords)}; looked for the CF axis {letter!r}, a CF "
        f"{_CF_COORDINATE[letter]} and the usual names (lon, lat, x, y, rlon, rlat, ...); pass "
        'x="..." and y="..."'
    )


def _dim_of(obj: Labelled, name: str) -> str | None:
    if name in obj.coords:
        dims = obj.coords[name].dims
        return str(dims[0]) if len(dims) == 1 else None
    return name if name in obj.dims else None


def _coordinate_along(obj: Labelled, dim: str, letter: str, given: str | None) -> str | None:
    """Coordinate with positions along a dimension: one with known units before a bare counter."""
    if given is not None and given != dim:
        return given
    marked = (
        *([dim] if dim in obj.coords else []),
        *obj.cf.coordinates.get(_CF_COORDINATE[letter], []),
        *obj.cf.axes.get(letter, []),
        *[str(name) for name in obj.coords if _named(str(name), GEOGRAPHIC_NAMES[letter])],
    )
    along = [str(name) for name in marked if name in obj.coords and obj.coords[name].dims == (dim,)]
    for name in along:
        if is_degrees(obj, name, letter) or np.isfinite(metres_per_unit(obj, name)):
            return name
    return along[0] if along else None


def _has_positions(obj: Labelled, y_axis: SpatialAxis, x_axis: SpatialAxis) -> bool:
    return all(
        axis.coord is not None
        and (is_degrees(obj, axis.coord, letter) or np.isfinite(metres_per_unit(obj, axis.coord)))
        for axis, letter in ((y_axis, "Y"), (x_axis, "X"))
    )


def _curvilinear(obj: Labelled) -> list[str]:
    found = []
    for letter, cf_name in _CF_COORDINATE.items():
        for name in obj.coords:
            marked = name in obj.cf.coordinates.get(cf_name, [])
            named = marked or _named(str(name), GEOGRAPHIC_NAMES[letter])
            if named and obj.coords[name].ndim == 2:
                found.append(str(name))
    return found


def _curvilinear_error(obj: Labelled, names: Iterable[str]) -> GridError:
    described = ", ".join(f"{name}{tuple(map(str, obj[name].dims))}" for name in names)
    return GridError(
        f"two-dimensional coordinates {described}: the grid is curvilinear, and a regular grid is "
        "expected (one coordinate per axis); regrid the data, or pass x= and y= with the names of "
        "dimensions to work in grid cells"
    )


def _is_realization(da: xr.DataArray, name: str) -> bool:
    if _named(name, _REPLICATE_NAMES):
        return True
    along = (da.coords[key] for key in da.coords if da.coords[key].dims == (name,))
    return any(coord.attrs.get("standard_name") == "realization" for coord in along)


def is_time(da: xr.DataArray, name: str) -> bool:
    """Whether a dimension is one of times, by CF attributes, dates or its name.

    Parameters
    ----------
    da : DataArray
        Labelled data.
    name : str
        One of its dimensions.

    Returns
    -------
    bool
    """
    marked: list[Hashable] = [*da.cf.axes.get("T", []), *da.cf.coordinates.get("time", [])]
    if any(da.coords[key].dims == (name,) for key in marked if key in da.coords):
        return True
    dated = name in da.coords and np.issubdtype(da.coords[name].dtype, np.datetime64)
    return dated or _named(name, _TIME_NAMES)


def _is_stacked(da: xr.DataArray, name: str) -> bool:
    marked: list[Hashable] = [*da.cf.axes.get("Z", []), *da.cf.coordinates.get("vertical", [])]
    return name in marked or bool(_STACKED_NAMES.fullmatch(name))


def _named(name: str, pattern: re.Pattern[str]) -> bool:
    return pattern.fullmatch(name.lower()) is not None

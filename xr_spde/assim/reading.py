"""Reading observations: which variable is the value, where it lies, and how far it can be off."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import AxisNotFoundError, DTypeError, GridError, ParameterError
from xr_spde.assim.correlated import AlongTrack
from xr_spde.assim.noise import ErrorModel, IndependentErrors
from xr_spde.labels.arrays import as_float
from xr_spde.labels.axes import find_spatial
from xr_spde.labels.grid import EARTH_RADIUS, Grid, same_grid
from xr_spde.labels.points import as_points, find_points, positions_on

Float = NDArray[np.float64]
Flag = NDArray[np.bool_]
Labelled = xr.DataArray | xr.Dataset

_ERRORS = ("error", "obs_error", "std")
_SUFFIXES = ("_error", "_std", "_stderr")


@dataclass(frozen=True, eq=False)
class Given:
    """Observations as they were given, in one row.

    Attributes
    ----------
    obj : DataArray or Dataset
        The observations.
    source : DataArray
        Their values; its order is that of the row.
    values, y, x : ndarray (P,)
        Values and positions.
    time : ndarray (P,) or None
        Times.
    grid : Grid
        That of the fields, in whose units the positions are.
    same_grid : bool
        Whether the observations lie on it.
    """

    obj: Labelled
    source: xr.DataArray
    values: Float
    y: Float
    x: Float
    time: NDArray[Any] | None
    grid: Grid
    same_grid: bool = False


@dataclass(frozen=True, eq=False)
class Gridded:
    """Gridded observations that may have leading dimensions, such as time.

    Attributes
    ----------
    values : DataArray (..., ny, nx)
        With the horizontal dimensions renamed by `own_name`, and the labels of the leading ones.
    template : DataArray (ny, nx)
        Their grid, with zeros.
    """

    values: xr.DataArray
    template: xr.DataArray


def own_name(name: Hashable) -> str:
    """Name of a dimension or coordinate of observations beside those of the fields."""
    return str(name) if str(name).startswith("obs") else f"obs_{name}"


def as_gridded(obs: Any, options: dict[str, Any]) -> Gridded | None:
    """Part gridded observations from their grid, without reading their values.

    Parameters
    ----------
    obs : DataArray, Dataset or anything else
        Observations.
    options : dict
        ``value``, ``obs_x``, ``obs_y`` and ``obs_error``; where that is None, it is replaced by the
        variable of the Dataset that holds the errors.

    Returns
    -------
    Gridded or None
        None for points and for what has been read already.
    """
    if not isinstance(obs, xr.DataArray | xr.Dataset):
        return None
    source = as_float(value_of(as_points(obs), options["value"]))
    if source.ndim < 2:
        return None
    if options["obs_error"] is None:
        options["obs_error"] = error_variable(obs, source)
    dims = find_spatial(source, x=options["obs_x"], y=options["obs_y"])
    source = source.transpose(..., *dims)
    kept = [name for name, coord in source.coords.items() if set(coord.dims) <= set(dims)]
    grid = {name: source.coords[name].variable for name in kept if source.coords[name].ndim}
    zeros = np.zeros([source.sizes[dim] for dim in dims])
    template = xr.DataArray(zeros, grid, dims, name=source.name, attrs=source.attrs)
    lead = {dim: source.coords[dim] for dim in source.dims[:-2] if dim in source.coords}
    renamed = (*source.dims[:-2], *map(own_name, dims))
    return Gridded(xr.DataArray(source.data, lead, renamed), template)


def read_values(
    obs: Labelled,
    grid: Grid,
    *,
    value: str | None = None,
    x: str | None = None,
    y: str | None = None,
    placed: bool = True,
) -> Given:
    """Find the values and their positions.

    Parameters
    ----------
    obs : DataArray or Dataset
        Gridded, or points along one dimension.
    grid : Grid
        The grid of the fields.
    value, x, y : str, optional
        Names of the value and of its coordinates.
    placed : bool, default True
        Whether positions are needed.

    Returns
    -------
    Given

    Raises
    ------
    ParameterError, DTypeError, AxisNotFoundError, GridError
        As for :func:`xr_spde.assim.observations.read_observations`.
    """
    if not isinstance(obs, xr.DataArray | xr.Dataset):
        raise DTypeError(
            f"observations of type {type(obs).__name__} were given; expected a DataArray or a "
            "Dataset, gridded with NaN or points with coordinates"
        )
    obj = as_points(obs)
    source = as_float(value_of(obj, value))
    try:
        given = (_points if source.ndim == 1 else _gridded)(obj, source, grid, x, y)
    except (AxisNotFoundError, GridError):
        if placed:
            raise
        nowhere = np.full(source.size, np.nan)
        given = Given(obj, source, source.values.ravel(), nowhere, nowhere, None, grid)
    bad = np.flatnonzero(np.isinf(given.values))
    if bad.size:
        raise ParameterError(
            f"{bad.size} of {given.values.size} observations are infinite, the first at index "
            f"{bad[0]}; missing ones are NaN"
        )
    return given


def value_of(obj: Labelled, value: str | None) -> xr.DataArray:
    """Find the variable that was observed.

    Parameters
    ----------
    obj : DataArray or Dataset
        Observations.
    value : str, optional
        Its name.

    Returns
    -------
    DataArray

    Raises
    ------
    ParameterError
        None of that name, or several that may be it.
    """
    if isinstance(obj, xr.DataArray):
        return obj
    if value is not None:
        if value not in obj.data_vars:
            listed = ", ".join(map(repr, obj.data_vars))
            raise ParameterError(f"value={value!r} is no variable of the observations: {listed}")
        return obj[value]
    names = [str(n) for n in obj.data_vars if obj[n].dtype.kind == "f"]
    stems = {f"{name}{suffix}" for name in names for suffix in _SUFFIXES}
    left = [n for n in names if n not in _ERRORS and n not in stems]
    if len(left) != 1:
        raise ParameterError(
            f"the observations hold {len(left)} variables that may be the value "
            f"({', '.join(map(repr, left)) or 'of ' + ', '.join(map(repr, obj.data_vars))}); name "
            'it, such as value="adt", or pass one variable'
        )
    return obj[left[0]]


def _points(obj: Labelled, source: xr.DataArray, grid: Grid, x: str | None, y: str | None) -> Given:
    names = find_points(obj, grid, x=x, y=y)
    if source.dims != (names.dim,):
        raise ParameterError(
            f"the observations have the dimension {source.dims[0]!r} and their positions run along "
            f"{names.dim!r}; expected one position per observation"
        )
    at_y, at_x = positions_on(obj, (names.y, names.x), grid)
    time = None if names.time is None else obj[names.time].values
    lost = np.isnan(at_y) | np.isnan(at_x)
    values = np.where(lost, np.nan, source.values.astype(np.float64))
    return Given(obj, source, values, at_y, at_x, time, grid)


def _gridded(
    obj: Labelled, source: xr.DataArray, grid: Grid, x: str | None, y: str | None
) -> Given:
    y_dim, x_dim = find_spatial(source, x=x, y=y)
    extra = [str(dim) for dim in source.dims if dim not in (y_dim, x_dim)]
    if extra:
        raise ParameterError(
            f"the gridded observations have the dimension{'s' if len(extra) > 1 else ''} "
            f"{', '.join(map(repr, extra))} besides {y_dim!r} and {x_dim!r}; select along it "
            f"first, such as obs.isel({extra[0]}=0)"
        )
    source = source.transpose(y_dim, x_dim)
    own = Grid.from_object(source, x=x, y=y)
    numbers = np.arange(own.ny * own.nx).reshape(own.shape)
    stored = own.from_canonical(numbers).ravel()
    try:
        same_grid(grid, own)
    except GridError:
        same = False
        _refuse_other_kind(grid, own)
    else:
        same = True
    # the very centres of the fields, where the grids are the same up to rounding
    centres = grid if same else own
    at_y, at_x = np.meshgrid(centres.canonical_y(), centres.canonical_x(), indexing="ij")
    scale = 1.0 if same else (own.metres or 1.0) / (grid.metres or 1.0)
    values = source.values.astype(np.float64).ravel()
    at_y, at_x = (scale * part.ravel()[stored] for part in (at_y, at_x))
    return Given(obj, source, values, at_y, at_x, None, grid, same)


def _refuse_other_kind(grid: Grid, own: Grid) -> None:
    """Refuse degrees on a plane, lengths on the sphere, and positions without units."""
    if "index" in (grid.kind, own.kind) or grid.kind != own.kind:
        raise GridError(
            f"the observations are on {own.described()} ({own.kind}) and the fields on "
            f"{grid.described()} ({grid.kind}); expected the same cells, or coordinates in degrees "
            "or lengths for both"
        )


def read_error(obs_error: Any, given: Given, kept: Flag) -> ErrorModel:
    """Find the errors of the observations that are used.

    Parameters
    ----------
    obs_error : float, array_like, AlongTrack, ErrorModel or None
        As the user gave it.
    given : Given
        The observations.
    kept : ndarray (P,) of bool
        Which are used.

    Returns
    -------
    ErrorModel
        Of these.

    Raises
    ------
    ParameterError
        If it is not known, does not fit, or is zero or negative somewhere.
    """
    if isinstance(obs_error, ErrorModel):
        size = len(obs_error.variance)
        if size != kept.size:
            raise ParameterError(
                f"obs_error is that of {size} observations and {kept.size} were given; expected "
                "one for each, missing ones included"
            )
        return obs_error.select(kept)
    track = obs_error if isinstance(obs_error, AlongTrack) else None
    std = _std(obs_error if track is None else track.std, given)[kept]
    bad = np.flatnonzero(~((std > 0.0) & np.isfinite(std)))
    if bad.size:
        index = np.flatnonzero(kept)[bad[0]]
        raise ParameterError(
            f"the error of {bad.size} of {std.size} observations is zero, negative or not known, "
            f"first at index {index} ({std[bad[0]]:g}); standard deviations > 0 in the units of "
            "the observations are expected; correct them, or set these observations to NaN"
        )
    if track is None:
        return IndependentErrors(std**2)
    number = np.zeros(kept.size) if track.track is None else _along(track.track, given)
    return track.errors(std, _steps(given, number)[kept], number[kept])


def error_variable(obj: Labelled, source: xr.DataArray) -> xr.DataArray:
    """Find the variable that holds the errors of the observations.

    Parameters
    ----------
    obj : DataArray or Dataset
        Observations.
    source : DataArray
        Their values.

    Returns
    -------
    DataArray
        Standard deviations.

    Raises
    ------
    ParameterError
        None, or several that may be it.
    """
    names = [*_ERRORS, *(f"{source.name}{suffix}" for suffix in _SUFFIXES)]
    known = [n for n in names if isinstance(obj, xr.Dataset) and n in obj]
    if len(known) != 1:
        what = f"both {known[0]!r} and {known[1]!r} may be it" if known else "none was found"
        raise ParameterError(
            f"the error of the observations is needed, and {what}; type for instance "
            "obs_error=0.1, the standard deviation in the units of the observations"
        )
    return obj[known[0]]


def _std(obs_error: Any, given: Given) -> Float:
    """Find the standard deviation of each observation that was given."""
    source = given.source
    if obs_error is None:
        obs_error = error_variable(given.obj, source)
    if isinstance(obs_error, xr.DataArray):
        foreign = [str(dim) for dim in obs_error.dims if dim not in source.dims]
        if foreign:
            raise ParameterError(
                f"obs_error has the dimension {foreign[0]!r}, which the observations lack"
            )
        obs_error = obs_error.broadcast_like(source).transpose(*source.dims).values
    std = np.asarray(obs_error, dtype=np.float64)
    if std.ndim and std.shape not in (source.shape, (source.size,)):
        raise ParameterError(
            f"obs_error has shape {std.shape} and the observations {source.shape}; expected one "
            "number, or one per observation"
        )
    return np.broadcast_to(std.ravel() if std.ndim else std, (source.size,))


def _along(name: str, given: Given) -> NDArray[Any]:
    """Find the number or name of the track of each observation."""
    known = name in given.obj.coords or (
        isinstance(given.obj, xr.Dataset) and name in given.obj.data_vars
    )
    if not known or given.obj[name].dims != given.source.dims:
        raise ParameterError(
            f"track={name!r} is no variable or coordinate along the observations; name the one "
            "that numbers the tracks, or leave it out if all are one track"
        )
    return np.asarray(given.obj[name].values)


def _steps(given: Given, track: NDArray[Any]) -> Float:
    """Distance along its track of each observation, in metres or units of the coordinates."""
    order = np.arange(track.size) if given.time is None else np.argsort(given.time, kind="stable")
    steps = np.zeros(track.size)
    for name in np.unique(track):
        own = order[track[order] == name]
        steps[own[1:]] = np.cumsum(np.nan_to_num(_apart(given, own[:-1], own[1:])))
    return steps


def _apart(given: Given, first: NDArray[Any], second: NDArray[Any]) -> Float:
    """Distance between observations."""
    dy, dx = given.y[second] - given.y[first], given.x[second] - given.x[first]
    if given.grid.kind != "geographic":
        return np.hypot(dy, dx) * (given.grid.metres or 1.0)
    start, end = np.radians(given.y[first]), np.radians(given.y[second])
    chord = (
        np.sin(np.radians(dy) / 2) ** 2
        + np.cos(start) * np.cos(end) * np.sin(np.radians(dx) / 2) ** 2
    )
    return 2.0 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(chord, 0.0, 1.0)))

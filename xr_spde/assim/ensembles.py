"""Ensembles as people have them, and which of their variables the observations belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import AxisNotFoundError, DTypeError, GridError, ParameterError
from xr_spde.assim.observations import Observations
from xr_spde.labels.arrays import as_float
from xr_spde.labels.axes import check_replicates, find_replicates, find_spatial
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.points import calendar_of, check_calendars

__all__ = ["Ensemble", "observed_index", "pair", "read_ensemble"]

Labelled = xr.DataArray | xr.Dataset


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Members of one variable or of several on one grid.

    Attributes
    ----------
    variables : dict of str to DataArray (member, ..., y, x)
        By name.
    dim : str
        Dimension of the members.
    grid : Grid
        The grid.
    given : DataArray or Dataset
        As the user gave it.
    """

    variables: dict[str, xr.DataArray]
    dim: str
    grid: Grid
    given: Labelled

    @property
    def size(self) -> int:
        """Number of members."""
        return int(next(iter(self.variables.values())).sizes[self.dim])

    @property
    def space(self) -> tuple[str, str]:
        """Dimensions (y, x)."""
        return self.grid.y_dim, self.grid.x_dim

    @property
    def leading(self) -> list[str]:
        """Dimensions beside members and space."""
        known = (self.dim, *self.space)
        found = (str(d) for da in self.variables.values() for d in da.dims if d not in known)
        return list(dict.fromkeys(found))

    def isel(self, dim: str, index: int) -> Ensemble:
        """Select along a leading dimension; variables without it stay."""
        chosen = {
            n: da.isel({dim: index}, missing_dims="ignore") for n, da in self.variables.items()
        }
        return replace(self, variables=chosen)

    def with_members(self, variables: Mapping[str, xr.DataArray]) -> Ensemble:
        """Return the ensemble with other values."""
        return replace(self, variables=dict(variables))


def read_ensemble(
    obj: Labelled, dim: str | None = None, *, x: str | None = None, y: str | None = None
) -> Ensemble:
    """Find members, variables and grid of an ensemble.

    Parameters
    ----------
    obj : DataArray or Dataset
        Of a Dataset, the floating variables on the grid that have members.
    dim : str, optional
        Dimension of the members.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Ensemble

    Raises
    ------
    AxisNotFoundError, GridError, DTypeError
        No members, no variable on a grid, or none of numbers.
    ParameterError
        An ensemble of one.
    """
    if isinstance(obj, xr.Dataset):
        found = _on_grid(obj, dim, x, y)
    elif isinstance(obj, xr.DataArray):
        grid = Grid.from_object(obj, x=x, y=y)
        name = "ensemble" if obj.name is None else str(obj.name)
        found = {name: (obj, find_replicates(obj, dim, spatial=(grid.y_dim, grid.x_dim)))}
    else:
        raise DTypeError(
            f"an ensemble of type {type(obj).__name__} was given; expected a DataArray or a Dataset"
        )
    members = {own for _, own in found.values()}
    if len(members) > 1:
        raise AxisNotFoundError(
            f"the variables {', '.join(map(repr, found))} have different dimensions of members, "
            f"{', '.join(map(repr, sorted(members)))}; name one with dim=, or select variables"
        )
    first = Grid.from_object(next(iter(found.values()))[0], x=x, y=y)
    (own,) = members
    variables = {}
    for name, (da, _) in found.items():
        grid = Grid.from_object(da, x=x, y=y)
        same_grid(first, grid, names=(repr(next(iter(found))), repr(name)))
        variables[name] = as_float(da).transpose(own, ..., first.y_dim, first.x_dim)
    check_replicates(variables[name].sizes[own], dim=own)
    return Ensemble(variables, own, first, obj)


def _on_grid(
    obj: xr.Dataset, dim: str | None, x: str | None, y: str | None
) -> dict[str, tuple[xr.DataArray, str]]:
    """Floating variables of a Dataset with members and space."""
    found: dict[str, tuple[xr.DataArray, str]] = {}
    reason: Exception | None = None
    for name, da in obj.data_vars.items():
        if da.dtype.kind != "f":
            continue
        try:
            spatial = find_spatial(da, x=x, y=y)
            found[str(name)] = (da, find_replicates(da, dim, spatial=spatial))
        except (AxisNotFoundError, GridError) as error:
            reason = reason or error
    if found:
        return found
    listed = ", ".join(f"{n}{tuple(map(str, v.dims))}" for n, v in obj.data_vars.items())
    raise reason or AxisNotFoundError(
        f"no floating variable of the Dataset lies on a grid: {listed or 'it has none'}; expected "
        "an ensemble such as (realization, lat, lon)"
    )


def pair(
    ensemble: Ensemble, obs: Any, options: Mapping[str, Any]
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Find which variable each of the observations belongs to.

    Parameters
    ----------
    ensemble : Ensemble
        What is observed.
    obs : DataArray, Dataset, Observations or mapping of str to these
        Of one variable, or by the names of variables.
    options : mapping
        Of `read_observations`; a mapping in place of a value has one for each variable.

    Returns
    -------
    dict of str to (DataArray or Dataset or Observations, dict)
        By variable: what was observed, in memory, and its options.

    Raises
    ------
    ParameterError
        If it is not clear, or a name is not known.
    """
    names = list(ensemble.variables)
    sources: dict[str, tuple[Any, str | None]]
    if isinstance(obs, Mapping) and not isinstance(obs, xr.Dataset):
        unknown_ = [str(name) for name in obs if name not in names]
        if unknown_ or not obs:
            raise ParameterError(
                f"observations of {', '.join(map(repr, unknown_)) or 'nothing'} were given; the "
                f"variables of the ensemble are {', '.join(map(repr, names))}"
            )
        sources = {str(name): (one, None) for name, one in obs.items()}
    elif len(names) == 1:
        sources = {names[0]: (obs, None)}
    elif isinstance(obs, xr.Dataset) and (both := [n for n in names if n in obs.data_vars]):
        sources = {name: (obs, name) for name in both}
    elif isinstance(obs, xr.DataArray) and obs.name in names:
        sources = {str(obs.name): (obs, None)}
    else:
        raise ParameterError(
            f"the ensemble has the variables {', '.join(map(repr, names))}, and it is not clear "
            f"which was observed; type for instance {{{names[0]!r}: obs}} in place of obs"
        )
    paired = {}
    for name, (source, value) in sources.items():
        if not isinstance(source, Labelled | Observations):
            raise DTypeError(
                f"observations of type {type(source).__name__} were given; expected a DataArray or "
                "a Dataset, gridded with NaN or points with coordinates"
            )
        own = {k: _for_variable(k, v, name) for k, v in options.items()}
        own["value"] = own["value"] if value is None else value
        _check_times(source, ensemble.variables[name])
        # Observations are few, and what they touch has to be known before anything is laid out.
        paired[name] = (source.compute() if isinstance(source, Labelled) else source, own)
    return paired


def _for_variable(option: str, given: Any, name: str) -> Any:
    """Take what an option is for one variable."""
    if not isinstance(given, Mapping) or isinstance(given, xr.Dataset):
        return given
    if name not in given:
        listed = ", ".join(map(repr, given)) or "nothing"
        raise ParameterError(
            f"{option}= was given for {listed}, and {name!r} was observed; give it for every "
            "variable that was, or one for all"
        )
    return given[name]


def _check_times(obs: Any, fields: xr.DataArray) -> None:
    """Refuse dates on other calendars than those of the ensemble."""
    if isinstance(obs, Observations) or not isinstance(obs, Labelled):
        return
    variables = obs.variables if isinstance(obs, xr.Dataset) else obs.coords
    own = [fields[name] for name in fields.coords if calendar_of(fields[name]) is not None]
    for name in variables:
        if own and calendar_of(obs[name]) is not None:
            check_calendars(obs[name], own[0])


def observed_index(da: xr.DataArray, leading: list[str], obs: Any, name: str) -> dict[str, int]:
    """Find which level, time, ... of a variable was observed.

    Parameters
    ----------
    da : DataArray
        The variable.
    leading : list of str
        Dimensions beside members and space that are not mapped over.
    obs : DataArray, Dataset or Observations
        What was observed: a scalar coordinate says which.
    name : str
        Of the variable, for errors.

    Returns
    -------
    dict of str to int

    Raises
    ------
    ParameterError
        If the observations do not say, or say something that is not there.
    """
    found = {}
    labels = obs.source.coords if isinstance(obs, Observations) else obs.coords
    for dim in (d for d in leading if d in da.dims):
        if da.sizes[dim] == 1:
            found[dim] = 0
            continue
        if dim not in labels or labels[dim].ndim:
            raise ParameterError(
                f"{name!r} has {da.sizes[dim]} values along {dim!r}, and the observations do not "
                f"say which of them was observed; give them that dimension, or one label such as "
                f"obs.assign_coords({dim}={_example(da, dim)}), or select of the ensemble; for a "
                "forecast between analyses use cycle"
            )
        match = np.flatnonzero(da[dim].values == labels[dim].values)
        if match.size != 1:
            raise ParameterError(
                f"the observations are labelled {dim}={labels[dim].values}, which {name!r} does "
                f"not have; its labels are {da[dim].values[:5].tolist()}..."
            )
        found[dim] = int(match[0])
    return found


def _example(da: xr.DataArray, dim: str) -> Any:
    return da[dim].values[0] if dim in da.coords else 0

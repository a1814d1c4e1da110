"""Which variables and levels fields have, and their order as channels of a layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xr_spde._core.errors import AxisNotFoundError, GridError, ParameterError, listed
from xr_spde.assim.latent.layout import Channel, Layout
from xr_spde.labels.arrays import as_float
from xr_spde.labels.axes import find_replicates, find_spatial, is_time
from xr_spde.labels.grid import Grid, same_grid

__all__ = ["CHANNEL", "Labelled", "as_channels", "read_layout", "snapshot_dims", "variables_of"]

Labelled = xr.DataArray | xr.Dataset

CHANNEL = "channel"
"""Dimension of variables and their levels."""


def variables_of(obj: Labelled, names: Sequence[str] | None = None) -> dict[str, xr.DataArray]:
    """Floating variables on the grid, by name.

    Parameters
    ----------
    obj : DataArray or Dataset
        Data.
    names : sequence of str, optional
        Those that are wanted; by default all floating ones of a Dataset with more than one
        dimension.

    Returns
    -------
    dict of str to DataArray

    Raises
    ------
    ParameterError
        For other types, or variables that are not there.
    """
    if isinstance(obj, xr.DataArray):
        return {str(obj.name or ""): as_float(obj)}
    if not isinstance(obj, xr.Dataset):
        raise ParameterError(
            f"{type(obj).__name__} was given; expected a DataArray or Dataset of fields"
        )
    known = [str(n) for n, v in obj.data_vars.items() if v.dtype.kind == "f" and v.ndim > 1]
    lacking = [n for n in names or () if n not in obj.data_vars]
    if lacking or not known:
        raise ParameterError(
            f"the variables {listed(lacking or obj.data_vars)} "
            + ("are not there" if lacking else "are no fields of floating numbers")
            + f"; there are {listed(known)}"
        )
    return {n: as_float(obj[n]) for n in names or known}


def as_channels(
    obj: Labelled,
    layout: Layout,
    *,
    x: str | None = None,
    y: str | None = None,
) -> tuple[xr.DataArray, Grid]:
    """Bring fields into the order of a layout.

    Parameters
    ----------
    obj : DataArray or Dataset
        Fields of the variables of the layout, on any grid of the same kind.
    layout : Layout
        Of a model.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    DataArray (..., channel, y, x)
        Lazy where the fields are.
    Grid
        Of the fields.

    Raises
    ------
    ParameterError
        For other variables, levels or units.
    GridError
        For another kind of grid.
    """
    wanted = list(dict.fromkeys(one.variable for one in layout.channels))
    given = variables_of(obj, wanted if isinstance(obj, xr.Dataset) else None)
    if len(wanted) != len(given):
        raise ParameterError(
            f"one variable was given; the model is of {listed(wanted)}: give a Dataset of these"
        )
    if isinstance(obj, xr.DataArray):
        (name,) = wanted
        if name and obj.name not in (None, name):
            raise ParameterError(
                f"the variable {obj.name!r} was given and the model is of {name!r}; rename it if "
                "it is the same quantity"
            )
        given = {name: next(iter(given.values()))}
    parts = []
    for name, one in given.items():
        units = str(one.attrs.get("units", ""))
        own = [c for c in layout.channels if c.variable == name]
        if units and own[0].units and units != own[0].units:
            raise ParameterError(
                f"{name or 'the field'} has the units {units!r} and the model those of its "
                f"training, {own[0].units!r}; convert it and set its attribute"
            )
        parts.append(_levels(one, own, layout.level_dim))
    joined = xr.concat(
        parts, CHANNEL, coords="minimal", compat="override", join="exact",
        combine_attrs="drop",
    ) if len(parts) > 1 else parts[0]  # fmt: skip
    grid = Grid.from_object(joined, x=x, y=y)
    if (grid.kind == "geographic") != (layout.grid.kind == "geographic"):
        raise GridError(
            f"the fields are on {grid.described()} and the model is of {layout.grid.described()}"
        )
    return joined.transpose(..., CHANNEL, grid.y_dim, grid.x_dim), grid


def _levels(one: xr.DataArray, own: Sequence[Channel], level_dim: str | None) -> xr.DataArray:
    """Give a variable a dimension of channels."""
    levels = [c.level for c in own]
    if level_dim is None or level_dim not in one.dims:
        if levels != [None]:
            raise ParameterError(
                f"{own[0].variable!r} lacks the dimension {level_dim!r} of the model, with the "
                f"levels {levels}"
            )
        return one.expand_dims(CHANNEL)
    if level_dim in one.coords:
        lacking = set(levels) - set(one[level_dim].values.tolist())
        if lacking:
            raise ParameterError(
                f"{own[0].variable!r} lacks the levels {sorted(map(str, lacking))} of the model"
            )
        one = one.sel({level_dim: levels})
    return one.rename({level_dim: CHANNEL}).drop_vars(CHANNEL, errors="ignore")


def read_layout(
    given: Mapping[str, xr.DataArray],
    *,
    dims: Sequence[str],
    domain: str = "auto",
    dataset: bool,
    x: str | None = None,
    y: str | None = None,
) -> Layout:
    """Read the layout of a series; all cells are points, see `Layout.cells`.

    Parameters
    ----------
    given : mapping of str to DataArray
        Variables.
    dims : sequence of str
        Dimensions that count snapshots: time and members.
    domain : {"auto", "sphere", "plane"}
        What the points are; "auto" is the sphere for longitudes that close the circle.
    dataset : bool
        Whether it was a Dataset.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    Layout

    Raises
    ------
    GridError
        Variables on different grids, or no sphere where one is asked for.
    ParameterError
        More dimensions than time, members and one of levels.
    """
    grids = [Grid.from_object(one, x=x, y=y) for one in given.values()]
    for name, grid in zip(list(given)[1:], grids[1:], strict=True):
        same_grid(grids[0], grid, names=(f"{next(iter(given))!r}", f"{name!r}"))
    grid = grids[0]
    if domain == "sphere" and grid.kind != "geographic":
        raise GridError(
            f'domain="sphere" was given and the fields are on {grid.described()}; expected '
            'longitudes and latitudes in degrees; type domain="plane"'
        )
    chosen = ("sphere" if grid.periodic_x else "plane") if domain == "auto" else domain
    channels, level_dim = [], None
    for name, one in given.items():
        space = find_spatial(one, x=x, y=y)
        rest = [str(d) for d in one.dims if d not in (*space, *dims)]
        if len(rest) > 1 or (rest and level_dim not in (None, rest[0])):
            raise ParameterError(
                f"{name!r} has the dimensions {listed(rest)} besides those of space and of "
                f"snapshots ({listed(dims)}); expected one of levels at most; select, or name the "
                'dimension of members with dim="..."'
            )
        levels: list[Any] = [None]
        if rest:
            level_dim = rest[0]
            held = one[level_dim].values if level_dim in one.coords else range(one.sizes[level_dim])
            levels = [float(v) for v in held]
        units = str(one.attrs.get("units", ""))
        channels += [Channel(name, level, units) for level in levels]
    cells = np.arange(grid.ny * grid.nx)
    return Layout(grid, tuple(channels), level_dim, cells, chosen, dataset)


def snapshot_dims(one: xr.DataArray, dim: str | None, space: tuple[str, str]) -> tuple[str, ...]:
    """Dimensions that count snapshots: members first, time last.

    Parameters
    ----------
    one : DataArray
        A variable.
    dim : str, optional
        Dimension of the members, where it should not be searched for.
    space : tuple of str
        The horizontal dimensions.

    Returns
    -------
    tuple of str

    Raises
    ------
    ParameterError
        If there is no dimension of time, or `dim` is none.
    """
    times = [str(d) for d in one.dims if d not in space and d != dim and is_time(one, str(d))]
    if len(times) != 1:
        raise ParameterError(
            f"the series has {listed(times)} as dimensions of time among {listed(one.dims)}; "
            "expected one: a model of dynamics is fitted to snapshots in time"
        )
    rest = [d for d in one.dims if d not in (*space, *times)]
    if dim is None and rest:
        named = one.isel({times[0]: 0})
        try:
            found = find_replicates(named, spatial=space)
        except AxisNotFoundError:
            return (times[0],)
        return (found, times[0])
    return (times[0],) if dim is None else (dim, times[0])

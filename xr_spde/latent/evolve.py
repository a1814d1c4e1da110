"""Images after a time, from one image and a velocity: forecasts, and what they carry along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import AxisNotFoundError, ParameterError, SchemaError
from xr_spde._core.provenance import provenance
from xr_spde.fields.cells import Cells
from xr_spde.fields.evolution import Operator
from xr_spde.fields.sampling import fill_nearest
from xr_spde.fields.transport import operator as known_operator
from xr_spde.labels.arrays import as_float
from xr_spde.labels.axes import is_time
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.labels.times import TimeAxis
from xr_spde.latent.carrying import described, fields_of, same_order
from xr_spde.latent.paths import BOUND
from xr_spde.latent.reading import cells_of
from xr_spde.latent.schedule import Schedule, evolve_image

__all__ = ["evolve"]

_MADE, _STEP = "_made", "_step"
_SPEEDS = ("m s-1", "m/s", "m s^-1", "m s**-1", "m.s-1", "m*s-1", "meter/second", "metre/second")


def evolve(
    obj: xr.DataArray | xr.Dataset,
    time: Any,
    *,
    velocity: xr.Dataset | None = None,
    operator: str | Operator | Callable[..., Any] = "advection",
    parameters: Mapping[str, Any] | None = None,
    dim: str | None = None,
    x: str | None = None,
    y: str | None = None,
) -> Any:
    """Evolve an image with a velocity, to any times after it (or before).

    Parameters
    ----------
    obj : DataArray or Dataset
        One image (y, x) with a scalar coordinate of time; further dimensions are mapped over. Of a
        Dataset each variable on the grid. NaN is missing and moves along.
    time : str, date, number, or array_like of these
        One time, or several along the time axis.
    velocity : Dataset, optional
        ``u`` and ``v`` along increasing x and y in m s-1 (cells per unit of time on a grid without
        units), on the grid of the image: steady, or along a time axis. What `velocity` returned
        holds over its intervals; of instants without bounds the velocity goes linearly from one to
        the next. Before the first and after the last time it stays as it is there. Gaps take the
        nearest value.
    operator : str, Operator or callable
        What happens: a name of `xr_spde.fields.transport.OPERATORS`, an object with its interface,
        or a function (state, params, tau, cells).
    parameters : mapping, optional
        What the operator needs besides the velocity, numbers or DataArrays (y, x) in m and s.
    dim : str, optional
        Name of the coordinate of time.
    x, y : str, optional
        Names of the horizontal axes.

    Returns
    -------
    DataArray or Dataset (time, ..., y, x)
        Like ``obj``; lazy where it or the velocity is. NaN where nothing is known: gaps, and what
        comes from outside the grid; conserved amounts have walls around them instead. Courant and
        Lipschitz numbers and folds go to the log ``xr_spde.latent`` at level INFO.

    Raises
    ------
    ParameterError
        Several frames, times of another kind, a velocity that is missing or in other units,
        parameters that are missing or strange.
    AxisNotFoundError
        An image without a time.
    SchemaError
        A velocity without u and v.
    GridError
        No regular grid, latitudes beyond 85 degrees, or a velocity on another grid.
    UnknownNameError
        For another operator.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xr_spde.latent import evolve
    >>> km = {"units": "km"}
    >>> place = {"y": ("y", np.arange(20.0), km), "x": ("x", np.arange(30.0), km)}
    >>> frame = xr.DataArray(np.zeros((20, 30)), place, ("y", "x"))
    >>> frame[8, 10] = 1.0
    >>> frame = frame.assign_coords(time=np.datetime64("2020-03-01T00", "ns"))
    >>> wind = xr.Dataset({"u": xr.full_like(frame, 1.0), "v": xr.full_like(frame, 0.0)})
    >>> later = evolve(frame, "2020-03-01T01", velocity=wind)  # by 3.6 cells
    >>> int(later.argmax(...)["x"])
    14
    """
    which = known_operator(operator)
    moving = "velocity" in dict(which.params)
    if moving and velocity is None:
        raise ParameterError(
            f"{type(which).__name__} needs velocity=, a Dataset with u and v such as "
            ".latent.velocity() returns"
        )
    if velocity is not None and not moving:
        raise ParameterError(
            f"{type(which).__name__} moves nothing, so velocity= would be ignored; leave it away"
        )
    one = partial(
        _evolved,
        time=time,
        velocity=velocity,
        which=which,
        parameters=dict(parameters or {}),
        axes={"dim": dim, "x": x, "y": y},
    )
    if isinstance(obj, xr.DataArray):
        return one(obj)
    space = Grid.from_object(obj, x=x, y=y)
    made = {
        name: one(da)
        if {space.y_dim, space.x_dim} <= set(da.dims) and da.dtype.kind in "fiub"
        else da
        for name, da in obj.data_vars.items()
    }
    return xr.Dataset(made, attrs=obj.attrs)


def _evolved(
    da: xr.DataArray,
    *,
    time: Any,
    velocity: xr.Dataset | None,
    which: Operator,
    parameters: Mapping[str, Any],
    axes: Mapping[str, str | None],
) -> xr.DataArray:
    """Images of one variable."""
    grid = Grid.from_object(da, x=axes["x"], y=axes["y"])
    frame, axis = _start(da, axes["dim"], grid)
    when, numbers = axis.read(time)
    numbers_of, fields = fields_of(which, parameters, grid)
    moved, core, times = _velocity(velocity, grid, axis)
    space = (grid.y_dim, grid.x_dim)
    values = as_float(frame.drop_vars(axis.dim))
    made = apply_core(
        _images,
        values,
        *moved.values(),
        *fields.values(),
        core_dims=[space, *core, *[space] * len(fields)],
        output={"image": Output((_MADE, *space), values.dtype, {_MADE: np.size(numbers)})},
        kwargs={
            "grid": grid,
            "cells": cells_of(grid),
            "names": (*moved, *fields),
            "which": which,
            "numbers": numbers_of,
            "times": times,
            "asked": np.atleast_1d(numbers),
        },
    )["image"]
    made = made.isel({_MADE: 0}) if not when.ndim else made.rename({_MADE: axis.dim})
    order = [axis.dim] if when.ndim else []
    made = made.transpose(*order, *frame.dims).assign_coords({axis.dim: when.variable})
    how = provenance("evolve", operator=described(which))
    return made.assign_attrs({**da.attrs, **how}).rename(da.name)


def _start(da: xr.DataArray, dim: str | None, grid: Grid) -> tuple[xr.DataArray, TimeAxis]:
    """Image without a dimension of times, and the axis that begins at its time."""
    others = [str(d) for d in da.dims if d not in (grid.y_dim, grid.x_dim)]
    timed = [d for d in others if d == dim or (dim is None and is_time(da, d))]
    for name in timed:
        if da.sizes[name] > 1:
            raise ParameterError(
                f"there are {da.sizes[name]} frames along {name!r}, and one is to evolve; select "
                f"it, such as .isel({name}=-1)"
            )
        da = da.isel({name: 0})
    scalars = [
        str(name)
        for name, coord in da.coords.items()
        if not coord.ndim and (name == dim or (dim is None and is_time(da, str(name))))
    ]
    if len(scalars) != 1:
        what = f"several times: {scalars}" if scalars else "no time"
        raise AxisNotFoundError(
            f"the image has {what}; give it one scalar coordinate, such as "
            '.assign_coords(time=np.datetime64("2020-03-01T00:00")), and dim= where its name is '
            "another"
        )
    return da, TimeAxis.starting_at(da.coords[scalars[0]])


def _velocity(
    velocity: xr.Dataset | None, grid: Grid, axis: TimeAxis
) -> tuple[dict[str, xr.DataArray], list[tuple[str, ...]], NDArray[np.float64] | None]:
    """Velocities as arguments of a task, their core dimensions, and their times."""
    if velocity is None:
        return {}, [], None
    if not isinstance(velocity, xr.Dataset) or not {"u", "v"} <= set(velocity.data_vars):
        raise SchemaError("velocity lacks u and v; pass what .latent.velocity() returns")
    own = Grid.from_object(velocity["u"], x=grid.x_dim, y=grid.y_dim)
    same_grid(grid, own, names=("the image", "velocity"))
    same_order(own, grid, "velocity")
    for name in ("u", "v"):
        units = str(velocity[name].attrs.get("units", "m s-1"))
        if grid.kind != "index" and units.strip().lower() not in _SPEEDS:
            raise ParameterError(
                f"velocity has {name} in {units!r}; convert it and set its units to m s-1"
            )
    space = (grid.y_dim, grid.x_dim)
    steps = [
        str(d) for d in velocity["u"].dims if d not in space and is_time(velocity["u"], str(d))
    ]
    times = None
    names = ["u", "v"]
    if steps:
        bounds = velocity.coords.get(f"{steps[0]}_bounds")
        given = velocity[steps[0]] if bounds is None else bounds
        _, numbers = axis.read(given.values.ravel())
        times = numbers.reshape(given.shape)
        if (np.diff(times.ravel()) < 0).any():
            raise ParameterError(f"the times of velocity are not sorted; .sortby({steps[0]!r})")
        if bounds is not None and {"u_at_bounds", "v_at_bounds"} <= set(velocity.data_vars):
            names += ["u_at_bounds", "v_at_bounds"]
    moved, core = {}, []
    for name in names:
        part = velocity[name].rename(dict.fromkeys(steps, _STEP))
        # labels of the image come back with the result
        part = part.drop_vars(list(part.coords))
        dims = tuple(d for d in (_STEP, BOUND) if d in part.dims) + space
        moved[name] = part.chunk(dict.fromkeys(dims, -1)) if is_lazy(part) else part
        core.append(dims)
    return moved, core, times


def _images(
    image: NDArray[Any],
    *given: NDArray[Any],
    grid: Grid,
    cells: Cells,
    names: Sequence[str],
    which: Operator,
    numbers: Mapping[str, float],
    times: NDArray[np.float64] | None,
    asked: NDArray[np.float64],
) -> NDArray[Any]:
    """All images of one task."""
    parts = {
        name: np.ascontiguousarray(grid.to_canonical(part))
        for name, part in zip(names, given, strict=True)
    }
    schedule = None
    if "u" in parts:
        rates = _rates(parts.pop("u"), parts.pop("v"), cells)
        ends = None
        if "u_at_bounds" in parts:
            ends = _rates(parts.pop("u_at_bounds"), parts.pop("v_at_bounds"), cells)
        schedule = Schedule(rates if times is not None else rates[None], times, ends)
    made = evolve_image(
        grid.to_canonical(image), schedule, asked, which, {**numbers, **parts}, cells
    )
    return grid.from_canonical(made)


def _rates(u: NDArray[Any], v: NDArray[Any], cells: Cells) -> NDArray[np.float64]:
    """Cells per unit of time, without gaps."""
    whole = [
        np.stack([fill_nearest(part) for part in w.reshape(-1, *cells.shape)]).reshape(w.shape)
        for w in (u, v)
    ]
    return cells.to_cells(*whole, seconds=1.0)

"""Motion of labelled sequences whose velocity changes on the way from pair to pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SchemaError, unknown
from xr_spde.fields.cells import Cells
from xr_spde.fields.sampling import fill_nearest
from xr_spde.labels.grid import Grid, same_grid
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.labels.times import TimeAxis
from xr_spde.latent.pyramid import brightness_of
from xr_spde.latent.reading import COMPONENT, INTERVAL, ImageSequence
from xr_spde.latent.sequence import PATHS, joined, squared_error

__all__ = ["BOUND", "at_bounds", "check_path", "fits_along", "given_motion"]

BOUND = "bounds"
"""Dimension of the two ends of an interval."""


def check_path(path: str, **instead: object) -> None:
    """Refuse a path that does not exist, or that something given instead of a fit would ignore.

    Parameters
    ----------
    path : str
        One of `xr_spde.latent.sequence.PATHS`.
    **instead
        What may be given instead of a fit, None where it is not.

    Raises
    ------
    UnknownNameError
        For another one.
    ParameterError
        Where it would be ignored.
    """
    if path not in PATHS:
        raise unknown("path", path, PATHS)
    for name, given in instead.items():
        if given is not None and path != PATHS[0]:
            raise ParameterError(
                f"path={path!r} is a setting of the fit, and {name}= is given instead of one; "
                "leave one of them away"
            )


def fits_along(
    frames: ImageSequence, which: NDArray[np.intp], settings: Mapping[str, Any], path: str
) -> dict[str, xr.DataArray]:
    """Fit the motion of intervals, each on its own or with its neighbours.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    which : ndarray of int
        Numbers of the intervals, increasing.
    settings : mapping
        Of `xr_spde.latent.motion.fit_motion`.
    path : {"smooth", "steady"}
        See `xr_spde.latent.sequence`.

    Returns
    -------
    dict of DataArray (interval, ...)
        As `ImageSequence.fits`; with "smooth" and three frames or more also ``ends`` (bounds,
        component, y, x), the velocity at both ends in cells per interval.
    """
    count = frames.lengths.size
    if path == "steady" or count == 1:
        return frames.fits(which, settings)
    around = np.clip(which[:, None] + np.array([-1, 0, 1], which.dtype), 0, count - 1)
    needed = np.unique(around).astype(which.dtype)
    around_only = {int(k) for k in np.setdiff1d(needed, which)}
    fitted = frames.fits(needed, settings, optional=around_only)
    q = fitted["q"]
    arguments = []
    for shift in (0, -1, 1):
        number = which + shift
        inside = (number >= 0) & (number < count)
        place = np.searchsorted(needed, np.where(inside, number, which))
        there = q.isel({INTERVAL: xr.DataArray(place, dims=INTERVAL)})
        lengths = np.where(inside, frames.lengths[np.clip(number, 0, count - 1)], np.nan)
        if is_lazy(there):
            there = there.chunk({INTERVAL: 1})
        arguments += [there, xr.DataArray(lengths, dims=INTERVAL)]
    space = (frames.grid.y_dim, frames.grid.x_dim)
    core = (COMPONENT, *space)
    both = apply_core(
        _joined,
        *frames.ends(which, INTERVAL),
        *arguments,
        core_dims=[space, space, *[core, ()] * 3],
        output={
            "q": Output(core, q.dtype),
            "ends": Output((BOUND, *core), q.dtype, {BOUND: 2}),
        },
        kwargs={
            "grid": frames.grid,
            "cells": frames.cells,
            "brightness": settings.get("brightness", "auto"),
        },
    )
    own = xr.DataArray(np.searchsorted(needed, which), dims=INTERVAL)
    return {**{name: da.isel({INTERVAL: own}) for name, da in fitted.items()}, **both}


def _joined(
    u0: NDArray[Any],
    u1: NDArray[Any],
    q: NDArray[Any],
    length: NDArray[Any],
    before: NDArray[Any],
    its: NDArray[Any],
    after: NDArray[Any],
    its_too: NDArray[Any],
    *,
    grid: Grid,
    cells: Cells,
    brightness: str,
) -> dict[str, NDArray[Any]]:
    """Velocity of one interval and at its ends; NaN stands for no neighbour."""
    neighbours = [
        None if np.isnan(span) or np.isnan(other).all() else (grid.to_canonical(other), float(span))
        for other, span in ((before, its), (after, its_too))
    ]
    first, second, here = (grid.to_canonical(part) for part in (u0, u1, q))
    kind = brightness_of(first, second) if brightness == "auto" else brightness
    mean, ends = joined(
        here,
        float(length),
        *neighbours,
        error=squared_error(first, second, here, kind, cells.periodic_x),
        periodic_x=cells.periodic_x,
    )
    return {"q": grid.from_canonical(mean), "ends": grid.from_canonical(ends)}


def at_bounds(
    frames: ImageSequence, which: NDArray[np.intp], ends: xr.DataArray, seen: xr.DataArray
) -> dict[str, xr.DataArray]:
    """Velocity at the ends of intervals in metres per second.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    which : ndarray of int
        Numbers of the intervals.
    ends : DataArray (interval, ..., bounds, component, y, x)
        In cells per interval.
    seen : DataArray (interval, ..., y, x)
        Where either image has data.

    Returns
    -------
    dict of DataArray (interval, ..., bounds, y, x)
        ``u_at_bounds`` and ``v_at_bounds``, NaN where nothing is seen.
    """
    space = (frames.grid.y_dim, frames.grid.x_dim)
    names = ("u_at_bounds", "v_at_bounds")
    found = apply_core(
        _in_metres,
        ends,
        xr.DataArray(frames.lengths[which], dims=INTERVAL),
        core_dims=[(BOUND, COMPONENT, *space), ()],
        output={name: Output((BOUND, *space), ends.dtype) for name in names},
        kwargs={"grid": frames.grid, "cells": frames.cells},
    )
    return {name: da.where(seen) for name, da in found.items()}


def _in_metres(
    ends: NDArray[Any], length: NDArray[Any], *, grid: Grid, cells: Cells
) -> dict[str, NDArray[Any]]:
    u, v = cells.to_metres(grid.to_canonical(ends), seconds=float(length))
    return {"u_at_bounds": grid.from_canonical(u), "v_at_bounds": grid.from_canonical(v)}


def given_motion(frames: ImageSequence, motion: xr.Dataset) -> dict[str, xr.DataArray]:
    """Turn the result of `velocity` back into cells per interval.

    Parameters
    ----------
    frames : ImageSequence
        The frames it belongs to.
    motion : Dataset
        With ``u`` and ``v``.

    Returns
    -------
    dict of DataArray
        ``q`` (interval, ..., component, y, x), and ``ends`` (interval, ..., bounds, component, y,
        x) where it changes on the way.

    Raises
    ------
    SchemaError
        Without u and v.
    GridError
        On another grid.
    ParameterError
        Of other intervals.
    """
    if not isinstance(motion, xr.Dataset) or not {"u", "v"} <= set(motion.data_vars):
        raise SchemaError("motion lacks u and v; pass what .latent.velocity() returned")
    grid, time = frames.grid, frames.time
    own = Grid.from_object(motion["u"], x=grid.x_dim, y=grid.y_dim)
    same_grid(grid, own, names=("the sequence of frames", "motion"))
    bounds = motion.coords.get(f"{time.dim}_bounds")
    ends = time.coordinate.values
    if bounds is None or bounds.shape != (ends.size - 1, 2) or not _same(bounds.values, time):
        raise ParameterError(
            f"motion is not of the {ends.size - 1} intervals of these frames along {time.dim!r}; "
            "pass what .latent.velocity() returned for the same frames"
        )
    if own.y_descending != grid.y_descending or own.x_descending != grid.x_descending:
        raise ParameterError("motion is stored in another direction than the frames; sort one")
    given = {"q": _cells_of(frames, motion["u"], motion["v"], ())}
    if {"u_at_bounds", "v_at_bounds"} <= set(motion.data_vars):
        pair = motion["u_at_bounds"], motion["v_at_bounds"]
        given["ends"] = _cells_of(frames, *pair, (BOUND,))
    return given


def _cells_of(
    frames: ImageSequence, u: xr.DataArray, v: xr.DataArray, also: tuple[str, ...]
) -> xr.DataArray:
    """Cells per interval of a velocity."""
    space = (*also, frames.grid.y_dim, frames.grid.x_dim)
    # labels of the frames come back with the images
    bare = [p.drop_vars(list(p.coords)).rename({frames.time.dim: INTERVAL}) for p in (u, v)]
    if is_lazy(u):
        bare = [p.chunk({d: -1 if d in space else 1 for d in p.dims}) for p in bare]
    core = (*also, COMPONENT, *space[-2:])
    return apply_core(
        _in_cells,
        *bare,
        xr.DataArray(frames.lengths, dims=INTERVAL),
        core_dims=[space, space, ()],
        output={"q": Output(core, frames.data.dtype, {COMPONENT: 2})},
        kwargs={"grid": frames.grid, "cells": frames.cells},
    )["q"]


def _same(bounds: NDArray[Any], time: TimeAxis) -> bool:
    """Whether bounds are those of the intervals, but for the rounding of a file."""
    _, numbers = time.read(bounds.ravel())
    off = numbers.reshape(-1, 2) - np.stack([time.numbers[:-1], time.numbers[1:]], axis=1)
    return bool(np.abs(off).max() <= 1e-6 * np.diff(time.numbers).min())


def _in_cells(
    u: NDArray[Any], v: NDArray[Any], length: NDArray[Any], *, grid: Grid, cells: Cells
) -> NDArray[Any]:
    filled = [
        np.stack([fill_nearest(part) for part in grid.to_canonical(w).reshape(-1, *cells.shape)])
        for w in (u, v)
    ]
    q = cells.to_cells(*filled, seconds=float(length)).reshape(*u.shape[:-2], 2, *cells.shape)
    return grid.from_canonical(q)

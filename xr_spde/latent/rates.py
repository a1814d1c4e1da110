"""What follows from a fitted motion: velocity, its errors, divergence, vorticity and shear."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde.fields.cells import Cells
from xr_spde.labels.grid import Grid
from xr_spde.labels.lazy import Output, apply_core
from xr_spde.labels.tile_map import Tile
from xr_spde.latent.pyramid import brightness_of
from xr_spde.latent.reading import COMPONENT, INTERVAL, ImageSequence
from xr_spde.latent.tiled import apply_to_scene
from xr_spde.latent.uncertainty import local_information

__all__ = ["MAPS", "spread_maps", "velocity_maps"]

MAPS = ("u", "v", "divergence", "vorticity", "shear", "u_error", "v_error")
"""Maps of every interval that are NaN where neither image has data."""


def velocity_maps(
    frames: ImageSequence, which: NDArray[np.intp], q: xr.DataArray, settings: Mapping[str, Any]
) -> dict[str, xr.DataArray]:
    """Velocity with its errors and derivatives.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    which : ndarray of int
        Numbers of the intervals.
    q : DataArray (interval, ..., component, y, x)
        In cells per interval.
    settings : mapping
        Of the fit.

    Returns
    -------
    dict of DataArray
        Names of :data:`MAPS`, ``determined`` and ``opening_rate``.
    """
    first, second = frames.ends(which, INTERVAL, whole=frames.plan(settings) is None)
    space = (frames.grid.y_dim, frames.grid.x_dim)
    return apply_to_scene(
        frames,
        settings,
        partial(_derived, brightness=settings["brightness"]),
        q,
        first,
        second,
        xr.DataArray(frames.lengths[which], dims=INTERVAL),
        core_dims=[(COMPONENT, *space), space, space, ()],
        output={
            **{name: Output(space, frames.data.dtype) for name in MAPS},
            "determined": Output(space, np.int8),
            "opening_rate": Output(()),
        },
    )


def spread_maps(
    frames: ImageSequence, which: NDArray[np.intp], spread: xr.DataArray
) -> dict[str, xr.DataArray]:
    """Spread of refits in the units of the velocity.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    which : ndarray of int
        Numbers of the intervals.
    spread : DataArray (interval, ..., component, y, x)
        In cells per interval.

    Returns
    -------
    dict of DataArray
        ``u_spread`` and ``v_spread``.
    """
    space = (frames.grid.y_dim, frames.grid.x_dim)
    return apply_core(
        _scaled,
        spread,
        xr.DataArray(frames.lengths[which], dims=INTERVAL),
        core_dims=[(COMPONENT, *space), ()],
        output={name: Output(space, frames.data.dtype) for name in ("u_spread", "v_spread")},
        kwargs={"grid": frames.grid, "cells": frames.cells},
    )


def _scaled(
    q: NDArray[Any], length: NDArray[np.float64], *, grid: Grid, cells: Cells
) -> dict[str, Any]:
    parts = cells.to_metres(grid.to_canonical(q), seconds=float(length))
    return {f"{n}_spread": grid.from_canonical(p) for n, p in zip("uv", parts, strict=True)}


def _derived(
    q: NDArray[Any],
    u0: NDArray[Any],
    u1: NDArray[Any],
    length: NDArray[np.float64],
    *,
    grid: Grid,
    cells: Cells,
    brightness: str,
    tile: Tile | None = None,
) -> dict[str, Any]:
    """Velocity, its derivatives and errors from cells per interval."""
    moved = grid.to_canonical(q)
    first, second = (grid.to_canonical(u) for u in (u0, u1))
    hidden = np.isnan(u0) & np.isnan(u1)
    told = local_information(
        first,
        second,
        moved,
        brightness=brightness_of(first, second) if brightness == "auto" else brightness,
        periodic_x=cells.periodic_x,
    )
    off = cells.to_metres(np.sqrt(told.covariance[[0, 2]]), seconds=float(length))
    u, v = cells.to_metres(moved, seconds=float(length))
    rates = {name: part / float(length) for name, part in cells.kinematics(moved).items()}
    found = {
        "u": u,
        "v": v,
        "divergence": rates["divergence"],
        "vorticity": rates["vorticity"],
        "shear": rates["deformation"],
        "u_error": off[0],
        "v_error": off[1],
    }
    maps = {k: np.where(hidden, np.nan, grid.from_canonical(m)) for k, m in found.items()}
    size = (cells.height * cells.width)[:, None]
    own = ... if tile is None else tile.inner
    opening = grid.from_canonical(np.maximum(found["divergence"], 0) * size)
    return {
        **maps,
        "determined": np.where(hidden, 0, grid.from_canonical(told.determined)),
        "opening_rate": opening[own][~hidden[own]].sum(),
    }

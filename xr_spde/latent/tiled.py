"""Fits and maps of labelled images by tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import getitem
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.warn import warn
from xr_spde.fields.cells import Cells
from xr_spde.labels.lazy import Output, apply_core, is_lazy
from xr_spde.labels.tile_map import (
    Tile,
    assembled,
    deferred,
    map_tiles,
    number,
    plan_tiles,
    window_grid,
    windows_of,
)
from xr_spde.latent.descent import sides
from xr_spde.latent.scenes import Scene, TilePlan, scene_of, survey
from xr_spde.latent.tiles import blend, coarse_motion, coarse_part, refine

if TYPE_CHECKING:
    from xr_spde.latent.reading import ImageSequence

__all__ = ["apply_to_scene", "tiled_fits"]


def tiled_fits(
    frames: ImageSequence,
    which: NDArray[np.intp],
    settings: Mapping[str, Any],
    plan: TilePlan,
    *,
    interval: str,
    component: str,
) -> dict[str, xr.DataArray]:
    """Fit the motion of intervals by tiles; one task for each tile where lazy.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    which : ndarray of int
        Numbers of the intervals.
    settings : mapping
        ``brightness``, ``search`` and ``smoothness`` of `xr_spde.latent.motion.fit_motion`.
    plan : TilePlan
        How the scene is cut.
    interval, component : str
        Names of the new dimensions.

    Returns
    -------
    dict of DataArray (interval, ...)
        As `xr_spde.latent.reading.ImageSequence.fits`; ``mismatch`` is that of the two images
        carried to the middle.
    """
    grid, time = frames.grid, frames.time.dim
    space = (grid.y_dim, grid.x_dim)
    bare = frames.data.drop_vars([k for k, c in frames.data.coords.items() if time in c.dims])
    others = [d for d in bare.dims if d not in (time, *space)]
    sizes = {interval: len(which), **{d: bare.sizes[d] for d in others}}
    lazy = is_lazy(bare)
    found: dict[str, list[Any]] = {}
    for index in np.ndindex(*sizes.values()):
        at = dict(zip(others, index[1:], strict=True))
        k = int(which[index[0]])
        pair = [
            grid.to_canonical(bare.isel({time: step, **at}).transpose(*space).data)
            for step in (k, k + 1)
        ]
        one = _fitted(pair, plan, settings, frames.described(k), lazy)
        one["q"] = grid.from_canonical(one["q"].astype(frames.data.dtype))
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    made = {}
    for name, values in found.items():
        inner = (component, *space) if name == "q" else ()
        stack = np.stack(values).reshape(*sizes.values(), *np.shape(values[0]))
        dims = (*sizes, *inner)
        coords = {k: c for k, c in bare.coords.items() if set(c.dims) <= set(dims)}
        made[name] = xr.DataArray(stack, coords, dims)
    return made


def _fitted(
    pair: Sequence[Any], plan: TilePlan, settings: Mapping[str, Any], where: str, lazy: bool
) -> dict[str, Any]:
    """Motion of one pair of canonical arrays, numpy or dask."""
    tiles = plan_tiles(plan.cells.shape, plan.tile, plan.halo, periodic_x=plan.cells.periodic_x)
    flat = [t for row in tiles for t in row]
    read = [windows_of(u) for u in pair]
    call = partial(deferred, lazy=lazy)
    surveys = [call(survey)(*(r(t) for r in read), tile=t, plan=plan) for t in flat]
    scene = call(_scene)(surveys, where, settings["brightness"], settings["smoothness"])
    parts = iter([call(coarse_part)(*(r(t) for r in read), scene, tile=t, plan=plan) for t in flat])
    coarse = call(coarse_motion)(
        [[next(parts) for _ in row] for row in tiles], scene, plan=plan, search=settings["search"]
    )
    fits = [call(refine)(*(r(t) for r in read), scene, coarse, tile=t, plan=plan) for t in flat]
    blocks = []
    for i, row in enumerate(tiles):
        line = []
        for j, tile in enumerate(row):
            near = _neighbours(i, j, len(tiles), len(row), plan.cells.periodic_x)
            own = [r * len(row) + c for r, c in near]
            line.append(
                call(blend)([fits[k] for k in own], [flat[k] for k in own], tile=tile, plan=plan)
            )
        blocks.append(line)
    shapes = [[(2, *t.shape) for t in row] for row in tiles]
    q = assembled(blocks, shapes, np.float32, lazy)
    marks = call(_summary)(fits, scene, plan, settings["search"])
    take = call(getitem)
    kinds = {"mismatch": float, "noise": float, "folded": float, "beyond_search": bool}
    return {"q": q, **{n: number(take(marks, n), kind, lazy) for n, kind in kinds.items()}}


def _scene(
    surveys: Sequence[Mapping[str, Any]], where: str, brightness: str, smoothness: float | None
) -> Scene:
    try:
        return scene_of(surveys, brightness=brightness, smoothness=smoothness)
    except ParameterError as error:
        raise ParameterError(f"no motion {where}: {error}") from error


def _neighbours(
    row: int, column: int, rows: int, columns: int, periodic_x: bool
) -> list[tuple[int, int]]:
    """List a tile and those around it."""
    around = range(column - 1, column + 2)
    if periodic_x:
        beside = sorted({c % columns for c in around})
    else:
        beside = [c for c in around if 0 <= c < columns]
    return [(r, c) for r in range(max(row - 1, 0), min(row + 2, rows)) for c in beside]


def _summary(
    fits: Sequence[Mapping[str, Any]], scene: Scene, plan: TilePlan, search: float
) -> dict[str, Any]:
    """How the fit went over the whole scene."""
    known = sum(f["known"] for f in fits)
    longest = np.max([f["longest"] for f in fits], axis=0)
    beyond = bool((longest > 0.95 * search * sides(plan.cells.shape)).any())
    if beyond:
        warn(
            f"the motion reaches {longest.max():.1f} cells, about as far as was searched; give "
            f"search above {search:g} to try longer ones"
        )
    return {
        "mismatch": sum(f["off"] for f in fits) / known if known else np.nan,
        "noise": scene.noise,
        "folded": sum(f["folded"] for f in fits) / math.prod(plan.cells.shape),
        "beyond_search": beyond,
    }


def apply_to_scene(
    frames: ImageSequence,
    settings: Mapping[str, Any] | None,
    func: Callable[..., Any],
    *args: xr.DataArray,
    core_dims: Sequence[Sequence[str]],
    output: Mapping[str, Output],
) -> dict[str, xr.DataArray]:
    """Map a function over whole images, or over tiles where the scene is fitted by tiles.

    Parameters
    ----------
    frames : ImageSequence
        The images.
    settings : mapping or None
        Of the fit; None asks for whole images.
    func : callable
        Takes the keyword arguments ``grid`` and ``cells``, and ``tile`` of a tile.
    *args, core_dims, output
        See `xr_spde.labels.lazy.apply_core` and `xr_spde.labels.tile_map.map_tiles`.

    Returns
    -------
    dict of DataArray
    """
    plan = frames.plan(settings)
    grid, cells = frames.grid, frames.cells
    if plan is None:
        kwargs = {"grid": grid, "cells": cells}
        return apply_core(func, *args, core_dims=core_dims, output=output, kwargs=kwargs)

    def local(tile: Tile) -> dict[str, Any]:
        first, last, left, right = tile.outer
        rows = slice(first, last)
        window = Cells(last - first, right - left, cells.height[rows], cells.width[rows])
        return {"grid": window_grid(grid, tile), "cells": window}

    # a path from one image to the other is twice as long as one to the middle
    halo = 2 * plan.halo - plan.support
    tiles = plan_tiles(cells.shape, plan.tile, halo, periodic_x=cells.periodic_x)
    return map_tiles(
        func, *args, core_dims=core_dims, output=output, tiles=tiles, grid=grid, local=local
    )

r"""Motion of large scenes by tiles that agree.

One motion of the whole scene is found on a coarse grid, and each tile follows it to the full
resolution in a window that reaches beyond the tile:

1. a *survey* of all tiles gives the mean, the spread, the noise and the brightness of the scene;
2. each tile gives its part of the coarse images, whose motion is found as that of any pair;
3. each tile follows the coarse motion through the finer grids in its window;
4. neighbours are blended over their overlap by weights that sum to one.

Numbers depend on the tiles, not on how the data are chunked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.warn import warn
from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure, jacobian
from xr_spde.fields.sampling import sample
from xr_spde.labels.tile_map import Tile
from xr_spde.latent.descent import STARTS, follow, race, sides
from xr_spde.latent.pyramid import Pair, centres_of
from xr_spde.latent.scenes import READY, Scene, TilePlan

__all__ = ["blend", "coarse_motion", "coarse_part", "refine"]

Real = NDArray[np.float32]

_OVERLAP = 24


def coarse_part(
    u0: NDArray[Any], u1: NDArray[Any], scene: Scene, *, tile: Tile, plan: TilePlan
) -> Real:
    """Part of the coarse images whose centres lie in a tile.

    Parameters
    ----------
    u0, u1 : ndarray
        Window of the images; NaN is missing.
    scene : Scene
        What is known of the whole.
    tile : Tile
        Which.
    plan : TilePlan
        How the scene is cut.

    Returns
    -------
    ndarray (4, my, mx)
        Both images and both masks.
    """
    rows, columns = centres_of(plan.coarse, plan.cells.shape)
    rows = rows[(rows >= tile.top - 0.5) & (rows < tile.bottom - 0.5)] - tile.outer[0]
    columns = columns[(columns >= tile.left - 0.5) & (columns < tile.right - 0.5)] - tile.outer[2]
    found = scene.pair(u0, u1).sampled(max(plan.factors), rows, columns)
    return np.stack([found.u0, found.u1, found.m0, found.m1])


def coarse_motion(
    parts: Sequence[Sequence[Real]], scene: Scene, *, plan: TilePlan, search: float
) -> tuple[Real, Real]:
    """Motion of the whole scene on the coarse grid.

    Parameters
    ----------
    parts : sequence of sequence of ndarray
        What :func:`coarse_part` returned, by rows of tiles.
    scene : Scene
        What is known of the whole.
    plan : TilePlan
        How the scene is cut.
    search : float
        Longest displacement that is tried, as a share of the sides.

    Returns
    -------
    velocity : ndarray (2, my, mx)
        In cells of the coarse grid.
    slope : ndarray (2, 2, my, mx)
        Its gradient.

    Warns
    -----
    UserWarning
        If the motion is longer than the halo of the tiles allows for.
    """
    joined = np.block([list(row) for row in parts])
    rim = plan.coarse[1] // 4 if plan.cells.periodic_x else 0
    wide = np.pad(joined, ((0, 0), (0, 0), (rim, rim)), mode="wrap")
    coarse = plan.cells.coarser(plan.coarse)
    flat = Cells(wide.shape[1], wide.shape[2], coarse.height, coarse.width)
    velocity, slope, _ = race(Pair(*wide), flat, STARTS, search, rim, scene.weight)
    if slope is None:
        slope = np.zeros((2, *velocity.shape), np.float32)
    kept = slice(rim, rim + plan.coarse[1])
    longest = float(np.abs(velocity).max() * max(plan.factors))
    room = 2 * (plan.halo - plan.support)
    if longest > max(room, 4):
        warn(
            f"the motion reaches {longest:.0f} cells, and a halo of {plan.halo} allows for {room}; "
            f"give halo={math.ceil(0.6 * longest) + plan.support} or more"
        )
    return velocity[..., kept], slope[..., kept]


def refine(
    u0: NDArray[Any],
    u1: NDArray[Any],
    scene: Scene,
    coarse: tuple[Real, Real],
    *,
    tile: Tile,
    plan: TilePlan,
) -> dict[str, Any]:
    """Follow the coarse motion to the full resolution in one window.

    Parameters
    ----------
    u0, u1 : ndarray
        Window of the images; NaN is missing.
    scene : Scene
        What is known of the whole.
    coarse : (ndarray, ndarray)
        What :func:`coarse_motion` returned.
    tile : Tile
        Which.
    plan : TilePlan
        How the scene is cut.

    Returns
    -------
    dict
        ``q`` (2, ny, nx) in the tile and its overlap, and over the tile the sums ``off`` of
        the mismatch in the middle, ``known``, ``folded``, and ``longest`` (2,).
    """
    down, across = plan.factors
    whole_tile, tile = tile, _enough(coarse[0], scene, tile, plan)
    (first, _, left, _), (top, _, before, _) = tile.outer, whole_tile.outer
    ny, nx = (tile.shape[k] + sum(tile.halo[2 * k : 2 * k + 2]) for k in (0, 1))
    part = (slice(first - top, first - top + ny), slice(left - before, left - before + nx))
    u0, u1 = u0[part], u1[part]
    heights, widths = (
        line[np.arange(first, first + ny)] for line in (plan.cells.height, plan.cells.width)
    )
    window = Cells(ny, nx, heights, widths)
    whole = min(plan.cells.height.min(), plan.cells.width.min())
    pair = scene.pair(u0, u1)
    count = max(1, round(math.log2(max(down, across))))
    levels = [(math.ceil(ny / 2**k), math.ceil(nx / 2**k)) for k in range(count - 1, -1, -1)]
    # places of the first level of the window on the coarse grid of the scene
    rows, columns = centres_of(levels[0], (ny, nx))
    y, x = np.meshgrid(
        (rows + first + 0.5) / down - 0.5, (columns + left + 0.5) / across - 0.5, indexing="ij"
    )
    y, x = y.astype(np.float32), x.astype(np.float32)
    velocity, slope = (
        np.asarray(sample(c, y, x, kernel="linear", periodic_x=plan.cells.periodic_x))
        for c in coarse
    )
    scale = np.array([across, down]) * sides(levels[0]) / sides((ny, nx))
    velocity = velocity * scale.astype(np.float32)[:, None, None]
    finest = float(whole / min(heights.min(), widths.min()))
    found, _ = follow(pair, window, velocity, slope, levels, scene.weight, finest)
    kept = [min(_OVERLAP, side) for side in tile.halo]
    inner = tile.inner
    rows_kept = slice(inner[0].start - kept[0], inner[0].stop + kept[1])
    columns_kept = slice(inner[1].start - kept[2], inner[1].stop + kept[3])
    return {"q": found[:, rows_kept, columns_kept], **_marks(pair, found, inner)}


def _enough(velocity: Real, scene: Scene, tile: Tile, plan: TilePlan) -> Tile:
    """Tile without the part of its halo that this motion does not need."""
    down, across = plan.factors
    first, last, left, right = tile.outer
    rows = np.arange(int(first / down), min(math.ceil(last / down), plan.coarse[0]))
    columns = np.arange(math.floor(left / across), math.ceil(right / across)) % plan.coarse[1]
    here = np.abs(velocity[:, rows][..., columns]).max() * max(down, across)
    need = math.ceil(0.6 * float(here)) + plan.support - READY + scene.reach
    above, below, before, after = (min(side, need) for side in tile.halo)
    return replace(tile, halo=(above, below, before, after))


def _marks(pair: Pair, velocity: Real, inner: tuple[slice, slice]) -> dict[str, Any]:
    """Add up over a tile what tells how the fit went."""
    known = np.ones(pair.shape, np.float32)
    carried = []
    for image, mask, tau in ((pair.u0, pair.m0, 0.5), (pair.u1, pair.m1, -0.5)):
        y, x = departure(velocity, tau)
        carried.append(sample(image, y, x))
        known *= sample(mask, y, x, kernel="linear") > 0.5
    a, b, c, d = jacobian(*departure(velocity, 1.0))
    return {
        "off": float((np.abs(carried[1] - carried[0]) * known)[inner].sum(dtype=np.float64)),
        "known": float(known[inner].sum(dtype=np.float64)),
        "folded": int((a * d - b * c <= 0)[inner].sum()),
        "longest": np.abs(velocity[:, inner[0], inner[1]]).max(axis=(1, 2)),
    }


def blend(
    fits: Sequence[Mapping[str, Any]], tiles: Sequence[Tile], *, tile: Tile, plan: TilePlan
) -> Real:
    """Motion in one tile from its fit and those of its neighbours.

    Parameters
    ----------
    fits : sequence of mapping
        What :func:`refine` returned for the tile and its neighbours.
    tiles : sequence of Tile
        The same tiles.
    tile : Tile
        Which.
    plan : TilePlan
        How the scene is cut.

    Returns
    -------
    ndarray (2, ny, nx)
        In cells per interval.
    """
    total = np.zeros((2, *tile.shape))
    weights = np.zeros(tile.shape)
    nx = plan.cells.nx
    for fit, other in zip(fits, tiles, strict=True):
        above, _, before, _ = (min(_OVERLAP, side) for side in other.halo)
        top = other.top - above
        q = fit["q"]
        for turn in (-nx, 0, nx) if plan.cells.periodic_x else (0,):
            left = other.left - before + turn
            r0, r1 = max(tile.top, top), min(tile.bottom, top + q.shape[1])
            c0, c1 = max(tile.left, left), min(tile.right, left + q.shape[2])
            if r0 >= r1 or c0 >= c1:
                continue
            weight = np.outer(
                _ramp(np.arange(r0, r1), other.top, other.bottom),
                _ramp(np.arange(c0, c1), other.left + turn, other.right + turn),
            )
            here = (slice(r0 - tile.top, r1 - tile.top), slice(c0 - tile.left, c1 - tile.left))
            total[:, here[0], here[1]] += weight * q[:, r0 - top : r1 - top, c0 - left : c1 - left]
            weights[here] += weight
    return (total / weights).astype(np.float32)


def _ramp(at: NDArray[np.intp], start: int, stop: int) -> NDArray[np.float64]:
    """Weight along one axis: rises over the overlap around both ends."""
    up = (at - start + _OVERLAP + 0.5) / (2 * _OVERLAP)
    down = (stop + _OVERLAP - at - 0.5) / (2 * _OVERLAP)
    return np.asarray(np.clip(np.minimum(up, down), 0.0, 1.0))

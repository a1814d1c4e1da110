"""From a first motion to the best one: linearise and minimise, coarse to fine.

The parts that :func:`xr_spde.latent.motion.fit_motion` and the fit by tiles share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from xr_spde.fields.cells import Cells
from xr_spde.fields.characteristics import departure
from xr_spde.fields.sampling import sample
from xr_spde.latent.matching import match
from xr_spde.latent.pyramid import Pair, gradient, resize, shapes
from xr_spde.latent.tgv import Regulariser

__all__ = ["STARTS", "follow", "last_within", "linearised", "race", "score", "sides"]

Float = NDArray[np.float64]
Real = NDArray[np.float32]

STARTS = ("zero", "match")
"""Nothing moves, on the coarsest grid; or the motion of :mod:`xr_spde.latent.matching`."""

_MATCH_CELLS = 130**2
_RACE_CELLS = 200**2  # starts are compared on no more cells than this
_FINEST = ((3.0, 7, 12), (4.0, 5, 8))
_COARSER = ((3.0, 7, 20),)
_ITERATIONS = 40


def race(
    pair: Pair,
    cells: Cells,
    starts: Sequence[str | NDArray[np.floating]],
    search: float,
    rim: int,
    weight: float,
) -> tuple[Real, Real | None, dict[str, float]]:
    """Follow every start on coarse grids, and the best one to the end.

    Parameters
    ----------
    pair : Pair
        Standardised images, with columns of the other side where x closes.
    cells : Cells
        Their grid.
    starts : sequence of str or ndarray
        See :func:`fit_motion`.
    search : float
        Longest displacement that is tried, as a share of the sides.
    rim : int
        Number of columns of the other side on each side.
    weight : float
        Of the data.

    Returns
    -------
    velocity : ndarray (2, ny, nx)
        In cells per interval.
    slope : ndarray (2, 2, ny, nx) or None
        Its gradient, as the regularisation sees it.
    marks : dict
        Mismatch of every start where they were compared.
    """
    levels = shapes(pair.shape)
    cut = last_within(levels, _RACE_CELLS)
    found, marks = [], []
    for number, start in enumerate(starts):
        level, motion = _first_motion(pair, start, search, rim)
        found.append(follow(pair, cells, motion, None, levels[min(level, cut) : cut + 1], weight))
        name = start if isinstance(start, str) else f"given {number}"
        marks.append((name, score(pair.coarser(levels[cut]), found[-1][0])))
    best = int(np.argmin([mark for _, mark in marks]))
    velocity, slope = follow(pair, cells, *found[best], levels[cut + 1 :], weight)
    return velocity, slope, dict(marks)


def sides(shape: tuple[int, ...]) -> Float:
    """Columns and rows, in the order of the components of a velocity.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    ndarray (2,)
    """
    return np.array([shape[1], shape[0]], dtype=np.float64)


def _first_motion(
    pair: Pair, start: str | NDArray[np.floating], search: float, rim: int
) -> tuple[int, Real]:
    """Level at which a start begins, and its motion there."""
    levels = shapes(pair.shape)
    if not isinstance(start, str):
        given = np.pad(np.asarray(start, np.float32), ((0, 0), (0, 0), (rim, rim)), mode="wrap")
        level = max(len(levels) - 2, 0)
        factor = (sides(levels[level]) / sides(pair.shape)).astype(np.float32)
        return level, resize(given, levels[level]) * factor[:, None, None]
    if start == "zero":
        return 0, np.zeros((2, *levels[0]), np.float32)
    # windows need room, so small images are matched as they are, large ones on a coarser grid
    level = max(last_within(levels, 72**2), last_within(levels[:-1] or levels, _MATCH_CELLS))
    return level, match(pair.coarser(levels[level]), int(np.ceil(search * max(levels[level]))))


def last_within(levels: list[tuple[int, int]], most: int) -> int:
    """Finest level of not more than a number of cells, or the coarsest.

    Parameters
    ----------
    levels : list of tuple
        Shapes, coarsest first.
    most : int
        Number of cells.

    Returns
    -------
    int
        Its place in `levels`.
    """
    return max([k for k, (ny, nx) in enumerate(levels) if ny * nx <= most], default=0)


def follow(
    pair: Pair,
    cells: Cells,
    motion: Real,
    slope: Real | None,
    levels: Sequence[tuple[int, int]],
    weight: float,
    finest: float = 1.0,
) -> tuple[Real, Real | None]:
    """Follow a motion through levels; its gradient comes along.

    Parameters
    ----------
    pair : Pair
        Standardised images on the finest grid.
    cells : Cells
        That grid.
    motion : ndarray (2, my, mx)
        In cells of its own, coarser grid.
    slope : ndarray (2, 2, my, mx), optional
        Its gradient.
    levels : sequence of tuple
        Shapes, coarsest first.
    weight : float
        Of the data.
    finest : float
        Smallest size of a cell of the whole scene over that of these images.

    Returns
    -------
    velocity, slope : ndarray
        On the last level.
    """
    for shape in levels:
        here, grid = pair.coarser(shape), cells.coarser(shape)
        factor = (sides(shape) / sides(motion.shape[-2:])).astype(np.float32)
        motion = resize(motion, shape) * factor[:, None, None]
        stages = _FINEST if shape == pair.shape else _COARSER
        motion, slope = _level(here, grid, motion, slope, stages, weight, finest)
    return motion, slope


def _level(
    pair: Pair,
    cells: Cells,
    motion: Real,
    slope: Real | None,
    stages: Sequence[tuple[float, int, int]],
    weight: float,
    finest: float,
) -> tuple[Real, Real]:
    """Linearise and minimise again and again on one grid; the field is in smallest cell sizes."""
    size = finest * min(cells.width.min(), cells.height.min())
    scale = np.stack([cells.width, cells.height])[..., None] / size
    scale = scale.astype(np.float32)
    slopes = (
        None if cells.uniform and np.ptp(scale) == 0 else (1 / scale[0, :, 0], 1 / scale[1, :, 0])
    )
    regulariser = Regulariser(
        pair.shape,
        slope_x=None if slopes is None else slopes[0],
        slope_y=None if slopes is None else slopes[1],
    )
    if slope is not None:
        regulariser.w = resize(slope, pair.shape)
    slopes0, slopes1 = (np.stack(gradient(u)) for u in (pair.u0, pair.u1))
    field_ = motion * scale
    for data, window, count in stages:
        for _ in range(count):
            velocity = field_ / scale
            residual, derivative, known = linearised(pair, slopes0, slopes1, velocity)
            field_ = regulariser.step(
                field_,
                residual,
                derivative / scale,
                np.float32(data * weight) * known,
                iterations=_ITERATIONS,
                reach=1.0,
            )
            field_ = np.stack([median_filter(part, window, mode="nearest") for part in field_])
    return field_ / scale, regulariser.w


def linearised(pair: Pair, slopes0: Real, slopes1: Real, velocity: Real) -> tuple[Real, Real, Real]:
    """Mismatch in the middle, its derivative in the velocity, and 1 where it is known.

    The derivative of a flow in its velocity is an integral along the path; its two ends, the
    gradient of the carried image and the carried gradient of the image, are averaged.

    Parameters
    ----------
    pair : Pair
        Standardised images.
    slopes0, slopes1 : ndarray (2, ny, nx)
        Their gradients, x first.
    velocity : ndarray (2, ny, nx)
        In cells per interval.

    Returns
    -------
    residual : ndarray (ny, nx)
        Second image less the first.
    derivative : ndarray (2, ny, nx)
    known : ndarray (ny, nx)
    """
    ny, nx = pair.shape
    carried, derivative = [], np.zeros_like(velocity)
    known = np.ones(pair.shape, np.float32)
    parts = ((pair.u0, pair.m0, slopes0, 0.5), (pair.u1, pair.m1, slopes1, -0.5))
    for image, mask, slopes, tau in parts:
        y, x = departure(velocity, tau)
        there = np.asarray(sample(image, y, x))
        derivative += 0.25 * (np.stack(gradient(there)) + sample(slopes, y, x, kernel="linear"))
        known *= (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)
        if not mask.all():
            known *= sample(mask, y, x, kernel="linear") > 0.99
        carried.append(there)
    return carried[1] - carried[0], derivative, known


def score(pair: Pair, velocity: NDArray[np.floating]) -> float:
    """Mean absolute difference after each image was carried into the other.

    Where a path leaves the image or meets a gap, the mean difference without motion counts, so that
    moving everything out of sight does not pay.

    Parameters
    ----------
    pair : Pair
        Standardised images.
    velocity : ndarray (2, ny, nx)
        In cells per interval.

    Returns
    -------
    float
        In standard deviations of the pair.
    """
    ny, nx = pair.shape
    both = pair.m0 * pair.m1 > 0
    still = float(np.abs(pair.u0 - pair.u1)[both].mean()) if both.any() else 1.0
    total = []
    ends = ((1.0, pair.u0, pair.m0, pair.u1, pair.m1), (-1.0, pair.u1, pair.m1, pair.u0, pair.m0))
    for tau, image, mask, goal, goal_mask in ends:
        y, x = departure(velocity, tau)
        off = np.abs(sample(image, y, x) - goal)
        known = (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)
        known &= sample(mask, y, x, kernel="linear") > 0.5
        total.append(np.where(known, off, still)[goal_mask > 0].mean())
    return float(np.mean(total))

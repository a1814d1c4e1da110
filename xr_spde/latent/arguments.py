"""What a fit of latent dynamics is given, checked."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.fields.cells import Cells
from xr_spde.latent.pyramid import check_pair
from xr_spde.latent.windows import settings_from

if TYPE_CHECKING:
    from xr_spde.nets.latent_settings import LatentSettings

__all__ = ["INITIAL", "QUIET", "check_frames", "chosen_degree", "chosen_settings", "given_start"]

LOGGER = logging.getLogger(__name__)

INITIAL = ("classical", "none")
"""Motion to start from: that of :func:`xr_spde.latent.motion.fit_motion`, or rest."""

Float = NDArray[np.floating]

QUIET = 0.1
"""Noise over the standard deviation of the images below which nothing is made of it."""

_MOST = 50.0
_STEADYING = ("lam_sm", "lam_mag", "lam_r")


def chosen_settings(given: dict[str, Any], grid: Cells, noise: float) -> LatentSettings:
    """Make settings with a window that fits the grid and weights that fit the noise.

    Parameters
    ----------
    given : dict
        What was asked for by name; a window that was asked for is not changed.
    grid : Cells
        The grid.
    noise : float
        Of the images over their standard deviation.

    Returns
    -------
    LatentSettings

    Raises
    ------
    ParameterError
        A window that does not fit, or names that do not exist.
    """
    from xr_spde.nets.latent_settings import LatentSettings

    depth = given.get("depth", LatentSettings.depth)
    unit = 2**depth if isinstance(depth, int) and 0 < depth < 16 else 1
    most = min(grid.shape) // unit * unit
    if "patch" not in given and most < LatentSettings.patch:
        if most < 2 * unit:
            raise ParameterError(
                f"images of {grid.shape} with depth={depth}; give a smaller depth or larger images"
            )
        LOGGER.info("windows of %d cells, as the images are small", most)
        given = {**given, "patch": most}
    elif given.get("patch", 0) > min(grid.shape):
        raise ParameterError(
            f"patch={given['patch']} on a grid of {grid.shape}; give at most {most}"
        )
    sizes = settings_from(given)
    factor = min(max(1.0, (noise / QUIET) ** 2), _MOST)
    if factor > 1:
        LOGGER.info("noise of %.2f of the images: smoothness weighs %.1f times", noise, factor)
    return replace(sizes, **{name: factor * getattr(sizes, name) for name in _STEADYING})


def check_frames(frames: ArrayLike, times: ArrayLike | None) -> tuple[Float, NDArray[np.float64]]:
    """Images and times that can be used.

    Parameters
    ----------
    frames : array_like (n, ny, nx)
        Images.
    times : array_like (n,), optional
        By default 0, 1, 2 ...

    Returns
    -------
    frames : ndarray (n, ny, nx)
        Floating.
    times : ndarray (n,)

    Raises
    ------
    ParameterError
        One image, other shapes, images without data or constant, times that do not increase.
    """
    images = np.asarray(frames)
    if images.ndim != 3 or len(images) < 2:
        raise ParameterError(
            f"frames of shape {images.shape}; expected two or more images (n, ny, nx)"
        )
    for u0, u1 in pairwise(images):
        check_pair(u0, u1)
    if images.dtype.kind != "f":
        images = images.astype(np.float64)
    when = np.arange(len(images), dtype=np.float64)
    if times is not None:
        when = np.asarray(times, dtype=np.float64)
    if when.shape != (len(images),) or not np.isfinite(when).all() or (np.diff(when) <= 0).any():
        raise ParameterError(
            f"times {when.tolist()} for {len(images)} images; expected one each, increasing, none "
            "twice; sort the images, or drop those at the same time"
        )
    return images, when


def chosen_degree(degree: int | None, n: int) -> int:
    """Degree in time of the motion of n images; the largest they tell, up to 2, where not given.

    Parameters
    ----------
    degree : int or None
        What was asked for.
    n : int
        Number of images.

    Returns
    -------
    int

    Raises
    ------
    ParameterError
        More than n - 2.
    """
    if degree is None:
        return min(n - 2, 2)
    if not isinstance(degree, int) or not 0 <= degree <= n - 2:
        raise ParameterError(
            f"degree={degree!r} with {n} images; expected 0 to {n - 2}: two images tell a steady "
            "motion only"
        )
    return degree


def given_start(initial: str | Float, degree: int, grid: Cells) -> Float | None:
    """Motion to start from, if it was given as an array.

    Parameters
    ----------
    initial : str or ndarray
        A name of :data:`INITIAL`, or a motion.
    degree : int
        Of the motion in time.
    grid : Cells
        The grid.

    Returns
    -------
    ndarray (degree + 1, 2, ny, nx) or None

    Raises
    ------
    ParameterError
        Another shape, or values that are not finite.
    UnknownNameError
        Another name.
    """
    if isinstance(initial, str):
        if initial not in INITIAL:
            raise unknown("initial motion", initial, INITIAL)
        return None
    start = np.asarray(initial, dtype=np.float64)
    shape = (degree + 1, 2, *grid.shape)
    if start.shape == shape[1:]:
        start = np.concatenate([start[None], np.zeros((degree, *shape[1:]))])
    if start.shape != shape or not np.isfinite(start).all():
        raise ParameterError(
            f"initial of shape {start.shape}; expected finite values {shape[1:]} or {shape}"
        )
    return start

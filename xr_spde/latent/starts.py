"""What a fit of latent dynamics begins with: motion, source and diffusivity from the images alone.

Also how a fit on a coarser grid hands its motion on.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize_scalar

from xr_spde.fields.cells import Cells
from xr_spde.fields.sampling import fill_nearest, sample, sample_missing
from xr_spde.fields.unsteady import MIDDLE, levelled, trace
from xr_spde.latent.motion import fit_motion
from xr_spde.latent.pyramid import resize

__all__ = [
    "classical_motion",
    "coarser_images",
    "first_diffusivity",
    "first_source",
    "rescaled",
    "smoothed",
]

Float = NDArray[np.floating]

_LARGEST_DIFFUSION = 16.0
_LEAST_DIFFUSION = 1e-2
_SOURCE_BLUR = 3.0


def classical_motion(
    images: Float,
    shares: NDArray[np.float64],
    grid: Cells,
    degree: int,
    *,
    brightness: str = "auto",
) -> NDArray[np.float64]:
    """Coefficients in time of the motions between neighbouring images, by least squares.

    Parameters
    ----------
    images : ndarray (n, ny, nx)
        NaN is missing.
    shares : ndarray (n,)
        Times as shares of the span.
    grid : Cells
        The grid.
    degree : int
        Of the motion in time.
    brightness : str
        See `xr_spde.latent.motion.fit_motion`.

    Returns
    -------
    ndarray (degree + 1, 2, ny, nx)
        In cells per span; see `xr_spde.fields.unsteady`.
    """
    lengths = np.diff(shares)
    motions = [
        fit_motion(u0, u1, grid, brightness=brightness).velocity / length
        for (u0, u1), length in zip(pairwise(images), lengths, strict=True)
    ]
    middles = 0.5 * (shares[:-1] + shares[1:])
    basis = np.polynomial.legendre.legvander(2 * middles - 1, degree)
    stacked = np.stack(motions).astype(np.float64)
    found = np.linalg.lstsq(basis, stacked.reshape(len(stacked), -1), rcond=None)[0]
    return np.asarray(found).reshape(degree + 1, *stacked.shape[1:])


def first_source(
    images: Float, shares: NDArray[np.float64], motion: Float, *, periodic_x: bool
) -> NDArray[np.float64]:
    """Find what images gain along a motion, smoothed over some cells.

    Parameters
    ----------
    images : ndarray (n, ny, nx)
        NaN is missing.
    shares : ndarray (n,)
        Times as shares of the span.
    motion : ndarray (d + 1, 2, ny, nx)
        In cells per span.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    ndarray (ny, nx)
        Per span, laid where parcels are in the middle of it; zero where nothing is known.
    """
    at = partial(trace, motion, periodic_x=periodic_x)
    take = partial(sample_missing, kernel="linear", periodic_x=periodic_x)
    total, count = np.zeros(images.shape[1:]), np.zeros(images.shape[1:])
    for (u0, u1), (s0, s1) in zip(pairwise(images), pairwise(shares), strict=True):
        middle = 0.5 * (s0 + s1)
        rate = (take(u1, *at(middle, s1)) - take(u0, *at(middle, s0))) / (s1 - s0)
        if middle != MIDDLE:
            rate = take(rate, *at(MIDDLE, middle))
        seen = np.isfinite(rate)
        total += np.where(seen, rate, 0.0)
        count += seen
    wide = partial(smoothed, blur=_SOURCE_BLUR, periodic_x=periodic_x)
    return np.asarray(wide(total) / np.maximum(wide(count), 1e-3))


def first_diffusivity(
    images: Float, shares: NDArray[np.float64], motion: Float, *, periodic_x: bool
) -> float:
    """Find the diffusivity with which carried images fit best.

    Parameters
    ----------
    images : ndarray (n, ny, nx)
        Standardised; NaN is missing.
    shares : ndarray (n,)
        Times as shares of the span.
    motion : ndarray (d + 1, 2, ny, nx)
        In cells per span.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    float
        In squares of a cell per span, below zero if images sharpen with time; never quite zero.
    """
    at = partial(trace, motion, periodic_x=periodic_x)
    carried = []
    for (u0, u1), (s0, s1) in zip(pairwise(images), pairwise(shares), strict=True):
        for image, goal, own, other in ((u0, u1, s0, s1), (u1, u0, s1, s0)):
            y, x = at(other, own)
            seen = np.isfinite(goal) & np.isfinite(
                sample_missing(image, y, x, kernel="linear", periodic_x=periodic_x)
            )
            there = sample(fill_nearest(image), y, x, periodic_x=periodic_x)
            carried.append((np.asarray(there), goal, own, other, seen))

    def misfit(size: float, sign: int) -> float:
        """Mean square of those directions in which the sign smooths."""
        off = [
            levelled(there, sign * size, own, other, periodic_x=periodic_x)[seen] - goal[seen]
            for there, goal, own, other, seen in carried
            if sign * (other - own) > 0
        ]
        return float(np.mean(np.concatenate(off) ** 2))

    gains = {}
    for sign in (1, -1):
        found = minimize_scalar(
            misfit,
            bounds=(0.0, _LARGEST_DIFFUSION),
            args=(sign,),
            method="bounded",
            options={"xatol": 0.02},
        )
        gains[found.fun / max(misfit(0.0, sign), 1e-30)] = sign * float(found.x)
    best = gains[min(gains)]
    return float(np.copysign(max(abs(best), _LEAST_DIFFUSION), best))


def smoothed(fields: Float, blur: float, periodic_x: bool) -> NDArray[np.float64]:
    """Gaussian mean in cells.

    Parameters
    ----------
    fields : ndarray (..., ny, nx)
        Finite values.
    blur : float
        Standard deviation; 0 for none.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    ndarray (..., ny, nx)
    """
    values = fields.astype(np.float64)
    if blur == 0:
        return values
    along_x: Literal["wrap", "nearest"] = "wrap" if periodic_x else "nearest"
    rows = gaussian_filter1d(values, blur, axis=-2, mode="nearest")
    return np.asarray(gaussian_filter1d(rows, blur, axis=-1, mode=along_x))


def coarser_images(images: Float, shape: tuple[int, int], *, periodic_x: bool) -> Float:
    """Images on about half as many rows and columns.

    Parameters
    ----------
    images : ndarray (n, ny, nx)
        NaN is missing.
    shape : tuple of int
        Rows and columns of the result.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    ndarray (n, *shape)
        NaN where most is missing.
    """
    wide = partial(smoothed, blur=0.85, periodic_x=periodic_x)
    seen = np.isfinite(images)
    share = wide(seen)
    mean = wide(np.where(seen, images, 0.0)) / np.maximum(share, 1e-6)
    mean = np.stack([fill_nearest(np.where(s > 0.05, u, np.nan))
                     for u, s in zip(mean, share, strict=True)])  # fmt: skip
    return np.where(resize(share, shape) > 0.5, resize(mean, shape), np.nan).astype(images.dtype)


def rescaled(motion: Float, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Motion on a grid of the same domain with other cells.

    Parameters
    ----------
    motion : ndarray (..., 2, ny, nx)
        In cells, x first.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    ndarray (..., 2, *shape)
        In the new cells.
    """
    ny, nx = motion.shape[-2:]
    factor = np.array([shape[1] / nx, shape[0] / ny])[:, None, None]
    return resize(motion, shape).astype(np.float64) * factor

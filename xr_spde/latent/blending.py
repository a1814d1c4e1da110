"""Two images carried to one time: where each shows what is there, and their blend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_spde.fields.characteristics import jacobian
from xr_spde.fields.sampling import sample

__all__ = ["Carried", "Frame", "two_sided", "visibility"]

Float = NDArray[np.floating]

_COVER_POWER = 2
_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Frame:
    """An image between two.

    Attributes
    ----------
    image : ndarray (ny, nx)
        NaN only where neither image shows what is there.
    disagreement : ndarray (ny, nx)
        Difference between what the two images say, second less first; NaN where only one speaks.
    seen : ndarray (ny, nx)
        0, 1 or 2 images that show the place. 0 outside gaps means that what is there comes from
        outside both images; the value is then that of the border.
    """

    image: Float
    disagreement: Float
    seen: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Carried:
    """One image, carried to another time.

    Attributes
    ----------
    value : ndarray (ny, nx)
        Finite everywhere.
    known : ndarray (ny, nx) of bool
        Whether the image shows what is there.
    cover : ndarray (ny, nx)
        Square of the area that a cell comes from, at most 1.
    gappy : bool
        Whether the image has gaps.
    """

    value: Float
    known: NDArray[np.bool_]
    cover: Float
    gappy: bool


def visibility(
    missing: NDArray[np.bool_], y: Float, x: Float, *, periodic_x: bool = False
) -> tuple[NDArray[np.bool_], Float]:
    """Whether an image shows what comes from given positions, and the weight of its area.

    Parameters
    ----------
    missing : ndarray (ny, nx) of bool
        Gaps of the image.
    y, x : ndarray (ny, nx)
        Where each cell comes from, in cells.
    periodic_x : bool
        Whether the columns close.

    Returns
    -------
    known : ndarray (ny, nx) of bool
        Inside the image, and more from data than from gaps.
    cover : ndarray (ny, nx)
        Square of the area that a cell comes from, at most 1: where a lead opens, the image in which
        it is wide tells what is in it.
    """
    ny, nx = missing.shape
    known = (y >= -0.5) & (y <= ny - 0.5)
    if not periodic_x:
        known &= (x >= -0.5) & (x <= nx - 0.5)
    if missing.any():
        there = sample((~missing).astype(y.dtype), y, x, kernel="linear", periodic_x=periodic_x)
        known &= there >= 0.5
    a, b, c, d = jacobian(y, x, periodic_x=periodic_x)
    return known, np.clip(a * d - b * c, 1e-3, 1.0) ** _COVER_POWER


def two_sided(first: Carried, second: Carried, tau: float) -> Frame:
    r"""Blend two images that were carried to a time between them.

    .. math::

        u_\tau = \frac{(1-\tau) c_0 u_0 + \tau c_1 u_1}{(1-\tau) c_0 + \tau c_1}

    with :math:`c_k` the cover, 0 where image k does not show the place.

    Parameters
    ----------
    first, second : Carried
        The images at times 0 and 1.
    tau : float
        Time, 0 to 1.

    Returns
    -------
    Frame
        Of the dtype of the values.
    """
    sides: Sequence[Carried] = (first, second)
    # what lies outside both images still needs a value, that of the border
    weights = [
        share * one.cover * np.where(one.known, 1.0, 0.0 if one.gappy else _LEAST)
        for one, share in zip(sides, (1 - tau, tau), strict=True)
    ]
    alone = weights[0] + weights[1] == 0
    for k in range(2):  # a gap at the very end is filled from the other end
        weights[k] = np.where(alone & sides[k].known, 1.0, weights[k])
    total = weights[0] + weights[1]
    mixed = (weights[0] * first.value + weights[1] * second.value) / np.where(total > 0, total, 1)
    seen = first.known.astype(np.int8) + second.known.astype(np.int8)
    dtype = first.value.dtype
    return Frame(
        np.where(total > 0, mixed, np.nan).astype(dtype),
        np.where(seen == 2, second.value - first.value, np.nan).astype(dtype),
        seen,
    )

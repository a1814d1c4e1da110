"""Scenes whose motion changes with time, and amounts that spread; known at any time by a formula.

Each function gives the image at a time between 0 and 1, which may be taken as often as wanted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xr_spde.latent.cases import in_cell
from xr_spde.latent.textures import centres, texture, turn

__all__ = ["SCENES", "accelerating", "divergent", "reversing", "turning"]

Float = NDArray[np.float64]


def accelerating(t: float, n: int = 128, seed: int = 0) -> Float:
    """Texture that starts from rest: moved by a t^2, with a of n/6 columns and n/12 rows.

    Parameters
    ----------
    t : float
        Time.
    n : int
        Rows and columns.
    seed : int
        Shift of the seed of the texture.

    Returns
    -------
    ndarray (n, n)
    """
    y, x = centres(n)
    return texture(2 + seed, y - n / 12 * t**2, x - n / 6 * t**2)


def reversing(t: float, n: int = 128, seed: int = 0, *, duration: float = 0.35) -> Float:
    """Texture in the cell of LeVeque (1996) with the factor cos(pi t): at 1 it is as at 0.

    Parameters
    ----------
    t : float
        Time.
    n : int
        Rows and columns.
    seed : int
        Shift of the seed of the texture.
    duration : float
        Time in units of the velocity, of which one would cross the image.

    Returns
    -------
    ndarray (n, n)

    References
    ----------
    LeVeque, R. J. (1996): High-resolution conservative algorithms for advection in incompressible
    flow. SIAM J. Numer. Anal. 33, 627-665.
    """
    y, x = (place / n for place in centres(n))
    # the velocity is one pattern times cos(pi t), so its paths are those of the pattern alone
    y, x = in_cell(y, x, -duration * np.sin(np.pi * t) / np.pi)
    return texture(2 + seed, n * y, n * x)


def turning(t: float, n: int = 128, seed: int = 0, *, degrees: float = 35.0) -> Float:
    """Texture that turns evenly while its centre sets out, slows down and comes back.

    Parameters
    ----------
    t : float
        Time.
    n : int
        Rows and columns.
    seed : int
        Shift of the seed of the texture.
    degrees : float
        Angle from 0 to 1.

    Returns
    -------
    ndarray (n, n)
    """
    y, x = centres(n)
    away = 4 * t * (1 - t) * n / 40
    return texture(2 + seed, *turn(y + away, x - 2 * away, -degrees * t, n))


def divergent(t: float, n: int = 128, seed: int = 0, *, rate: float = 0.5) -> Float:
    """Gaussian that spreads from the centre, velocity rate times distance; its sum stays.

    Parameters
    ----------
    t : float
        Time.
    n : int
        Rows and columns.
    seed : int
        Not used; all scenes take one.
    rate : float
        Gradient of the velocity per unit of time.

    Returns
    -------
    ndarray (n, n)
    """
    y, x = (place - n / 2 for place in centres(n))
    width = n / 24 * np.exp(rate * t)
    return np.exp(-(x**2 + y**2) / 2 / width**2) * (n / 24 / width) ** 2


SCENES: dict[str, Callable[..., Float]] = {
    scene.__name__: scene for scene in (accelerating, reversing, turning, divergent)
}
"""Scenes by name."""

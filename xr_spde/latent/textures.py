"""Textures and positions that cases with a known middle are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["centres", "soft", "texture", "turn"]

Float = NDArray[np.float64]

_WAVES = 80


def texture(
    seed: int,
    y: Float,
    x: Float,
    *,
    amplitude: float = 0.16,
    mean: float = 0.5,
    waves: tuple[float, float] = (8.0, 100.0),
) -> Float:
    """Sum of 80 cosines of random direction and length, clipped to [0, 1].

    Parameters
    ----------
    seed : int
        Of the cosines.
    y, x : ndarray
        Positions in pixels.
    amplitude, mean : float
        Standard deviation before clipping, and mean.
    waves : (float, float)
        Shortest and longest wave in pixels; log-uniform between, amplitudes as the root.

    Returns
    -------
    ndarray
        Like the positions.
    """
    rng = np.random.default_rng(seed)
    length = np.exp(rng.uniform(np.log(waves[0]), np.log(waves[1]), _WAVES))
    angle = rng.uniform(0, 2 * np.pi, _WAVES)
    phase = rng.uniform(0, 2 * np.pi, _WAVES)
    weight = np.sqrt(length / (length.sum() / 2))
    total = np.zeros(np.shape(y))
    for k in range(_WAVES):
        along = np.cos(angle[k]) * x + np.sin(angle[k]) * y
        total += weight[k] * np.cos(2 * np.pi / length[k] * along + phase[k])
    return np.clip(mean + amplitude * total, 0.0, 1.0)


def soft(z: Float) -> Float:
    """Step from 0 to 1 over about a pixel.

    Parameters
    ----------
    z : ndarray
        Distance in pixels, positive inside.

    Returns
    -------
    ndarray
    """
    return 1.0 / (1.0 + np.exp(np.clip(-z / 0.5, -60, 60)))


def turn(y: Float, x: Float, degrees: float, n: int) -> tuple[Float, Float]:
    """Rotate positions about the centre of the image, from x to y.

    Parameters
    ----------
    y, x : ndarray
        Positions in pixels.
    degrees : float
        Angle.
    n : int
        Rows and columns.

    Returns
    -------
    y, x : ndarray
    """
    a, c = np.radians(degrees), n / 2
    return (
        c + np.sin(a) * (x - c) + np.cos(a) * (y - c),
        c + np.cos(a) * (x - c) - np.sin(a) * (y - c),
    )


def centres(n: int) -> tuple[Float, Float]:
    """Positions of the centres of pixels.

    Parameters
    ----------
    n : int
        Rows and columns.

    Returns
    -------
    y, x : ndarray (n, n)
    """
    y, x = np.mgrid[0:n, 0:n] + 0.5
    return y, x

"""Associated Legendre functions and Gauss latitudes, for transforms of whole fields."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["gauss_latitudes", "legendre"]

Float = NDArray[np.float64]


def legendre(sines: ArrayLike, truncation: int) -> tuple[Float, Float]:
    r"""Give normalised associated Legendre functions and their slopes.

    With :math:`\cos m \lambda` and :math:`\sin m \lambda` they are orthonormal on the unit sphere.

    Parameters
    ----------
    sines : array_like (n,)
        Sines of latitude.
    truncation : int
        Highest degree, T.

    Returns
    -------
    values : ndarray (T + 1, T + 1, n)
        By order m and degree l; zero where l < m.
    slopes : ndarray (T + 1, T + 1, n)
        :math:`(1 - \mu^2) dP / d\mu`.

    Examples
    --------
    >>> values, slopes = legendre([0.5], 1)
    >>> np.round(values[:, :, 0] * np.sqrt(4 * np.pi), 4)
    array([[1.    , 0.866],
           [0.    , 1.5   ]])
    """
    mu = np.asarray(sines, dtype=np.float64)
    size = truncation + 1
    values = np.zeros((size, size + 1, mu.size))
    order = np.arange(size)[:, None]
    degree = np.arange(size + 1)[None, :]
    with np.errstate(invalid="ignore"):
        ratio = np.sqrt((degree**2 - order**2) / (4.0 * degree**2 - 1.0))
    ratio = np.where(degree > order, ratio, 0.0)
    diagonal = np.full(mu.size, math.sqrt(0.25 / math.pi))
    for m in range(size):
        if m > 0:
            factor = math.sqrt((2 * m + 1) / (2 * m) * (2.0 if m == 1 else 1.0))
            diagonal = diagonal * factor * np.sqrt(1.0 - mu**2)
        values[m, m] = diagonal
        for k in range(m, size):
            below = ratio[m, k] * values[m, k - 1] if k > m else 0.0
            values[m, k + 1] = (mu * values[m, k] - below) / ratio[m, k + 1]
    slopes = -(degree * np.roll(ratio, -1, axis=1))[:, :-1, None] * values[:, 1:]
    slopes[:, 1:] += ((degree + 1.0) * ratio)[:, 1:-1, None] * values[:, :-2]
    return values[:, :-1], slopes


def gauss_latitudes(rows: int) -> tuple[Float, Float]:
    """Give sines of the Gauss latitudes, south to north, and their weights, which sum to two.

    Parameters
    ----------
    rows : int
        Number of latitudes.

    Returns
    -------
    sines, weights : ndarray (rows,)
    """
    sines, weights = np.polynomial.legendre.leggauss(rows)
    return sines, weights

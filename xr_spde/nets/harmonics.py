r"""Real spherical harmonics at any points, in float64, computed once per point set.

Points are longitude and latitude in radians. With ``x = sin(latitude)``,

.. math::

    Y_{l,0} = \bar P_{l0}(x), \quad
    Y_{l,m} = \sqrt 2\, \bar P_{lm}(x) \cos m\lambda, \quad
    Y_{l,-m} = \sqrt 2\, \bar P_{lm}(x) \sin m\lambda \quad (m > 0),

without the Condon-Shortley phase, so that they are orthonormal on the unit sphere. The normalised
associated Legendre functions come from the three-term recurrence in the degree, which loses no
accuracy because no factorial appears.

References
----------
Holmes and Featherstone (2002), J. Geodesy 76, 279-299 (the normalised recurrence).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError

__all__ = ["check_sphere", "legendre_columns", "spherical_harmonics", "triangle"]

#: Degrees for radians is the usual slip; a longitude is never turned more than twice.
_LARGEST_LONGITUDE = 4.0 * math.pi
_ROUNDING = 1e-6


def check_sphere(points: ArrayLike) -> NDArray[np.float64]:
    """Refuse points that do not lie on a sphere.

    Parameters
    ----------
    points : array_like (P, 2)
        Longitude and latitude in radians.

    Returns
    -------
    ndarray (P, 2) of float64

    Raises
    ------
    ParameterError
        For another shape, missing coordinates, or values that radians cannot have.
    """
    given = np.asarray(points, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 2 or given.shape[0] == 0:
        raise ParameterError(
            f"points of shape {given.shape}: give (points, 2), longitude and latitude in radians"
        )
    if not np.isfinite(given).all():
        raise ParameterError("points: some coordinates are missing; leave those points out")
    longitude, latitude = np.abs(given).max(axis=0)
    if longitude > _LARGEST_LONGITUDE or latitude > 0.5 * math.pi + _ROUNDING:
        raise ParameterError(
            f"points reach a longitude of {longitude:.4g} and a latitude of {latitude:.4g}: a "
            "sphere needs radians, latitudes within pi/2 (convert degrees; for a plane choose the "
            'filter bank "fourier" or "spline")'
        )
    return given


def triangle(degree: int) -> NDArray[np.int64]:
    """List the pairs (l, m) up to a degree.

    Parameters
    ----------
    degree : int
        Largest l.

    Returns
    -------
    ndarray ((degree + 1)^2, 2)
        l ascending, m from -l to l.

    Examples
    --------
    >>> from xr_spde.nets.harmonics import triangle
    >>> triangle(1).tolist()
    [[0, 0], [1, -1], [1, 0], [1, 1]]
    """
    pairs = [(l_, m) for l_ in range(degree + 1) for m in range(-l_, l_ + 1)]
    return np.array(pairs, dtype=np.int64)


def legendre_columns(
    latitude: NDArray[np.float64], degree: int, order: int
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Yield the normalised associated Legendre functions one by one.

    Parameters
    ----------
    latitude : ndarray (P,)
        Radians.
    degree, order : int
        Largest l and m.

    Yields
    ------
    l, m : int
        m ascending, then l from m to `degree`.
    values : ndarray (P,)
        Of which the squares integrate to 1 over the sphere for m = 0, to 1/2 with a cosine.
    """
    x, y = np.sin(latitude), np.cos(latitude)
    diagonal = np.full_like(x, 1.0 / math.sqrt(4.0 * math.pi))
    for m in range(min(order, degree) + 1):
        if m:
            diagonal = math.sqrt((2 * m + 1) / (2 * m)) * y * diagonal
        before, now = np.zeros_like(x), diagonal
        yield m, m, now
        for n in range(m + 1, degree + 1):
            a = math.sqrt((4 * n * n - 1) / (n * n - m * m))
            b = math.sqrt(((n - 1) ** 2 - m * m) / (4 * (n - 1) ** 2 - 1))
            before, now = now, a * (x * now - b * before)
            yield n, m, now


def spherical_harmonics(points: ArrayLike, pairs: ArrayLike) -> NDArray[np.float64]:
    """Evaluate real spherical harmonics.

    Parameters
    ----------
    points : array_like (P, 2)
        Longitude and latitude in radians.
    pairs : array_like of int (Q, 2)
        Degree l and order m of each, ``|m| <= l``; a pair may come twice.

    Returns
    -------
    ndarray (Q, P) of float64

    Raises
    ------
    ParameterError
        For points or pairs that are none.

    Examples
    --------
    >>> from xr_spde.nets.harmonics import spherical_harmonics
    >>> spherical_harmonics([[0.3, 0.2]], [[0, 0]]).round(6).tolist()
    [[0.282095]]
    """
    given = check_sphere(points)
    wanted = np.asarray(pairs)
    if wanted.ndim != 2 or wanted.shape[1] != 2 or not np.issubdtype(wanted.dtype, np.integer):
        raise ParameterError(f"pairs of shape {wanted.shape}: give whole numbers (Q, 2), l and m")
    if wanted.size == 0 or (np.abs(wanted[:, 1]) > wanted[:, 0]).any():
        raise ParameterError("pairs: every order m must satisfy |m| <= l, and one is needed")
    rows: dict[tuple[int, int], list[int]] = {}
    for row, (degree, order) in enumerate(wanted.tolist()):
        rows.setdefault((degree, abs(order)), []).append(row)
    longitude, latitude = given.T
    values = np.empty((len(wanted), len(given)))
    turned, cosine, sine = -1, longitude, longitude
    top = np.abs(wanted).max(axis=0).tolist()
    for degree, order, column in legendre_columns(latitude, *top):
        for row in rows.get((degree, order), ()):
            if order != turned:
                cosine, sine = np.cos(order * longitude), np.sin(order * longitude)
                turned = order
            sign = int(wanted[row, 1])
            if sign == 0:
                values[row] = column
            else:
                values[row] = math.sqrt(2.0) * column * (cosine if sign > 0 else sine)
    return values

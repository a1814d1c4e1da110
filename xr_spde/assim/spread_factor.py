"""Size of a spread from the errors that were found: factors on variances that are added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import ndtri

from xr_spde._core.warn import warn

__all__ = ["by_coverage", "by_likelihood"]

Float = NDArray[np.float64]

_MANY = 200_000
_SMALLEST = 1e-6
_LEAST, _MOST = 1e-3, 1e3


def by_coverage(error: Float, variance: Float, noise: float, level: float) -> float:
    """Find the factor with which so many errors are within their interval.

    Parameters
    ----------
    error, variance : ndarray (n,)
        Errors, and what was predicted for their squares, > 0.
    noise : float
        Variance of the errors of the truth, which is added and has no factor.
    level : float
        Of the central interval.

    Returns
    -------
    float
        On the standard deviation; with a warning the nearest bound of 1e-3 to 1e3 where there is
        none.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.spread_factor import by_coverage
    >>> error = 2.0 * np.random.default_rng(0).standard_normal(10_000)
    >>> by_coverage(error, np.ones(10_000), 0.0, 0.9)
    2.0
    """
    z = float(ndtri(0.5 + 0.5 * level))

    def surplus(power: float) -> float:
        within = np.abs(error) <= z * np.sqrt(10.0 ** (2.0 * power) * variance + noise)
        return float(np.mean(within)) - level

    low, high = np.log10(_LEAST), np.log10(_MOST)
    if surplus(low) >= 0.0 or surplus(high) <= 0.0:
        bound = low if surplus(low) >= 0.0 else high
        warn(f"no factor gives a share of {level:g}; {10.0**bound:g} is taken")
        return float(10.0**bound)
    return float(10.0 ** brentq(surplus, low, high, xtol=1e-6))


def by_likelihood(error: Float, parts: Sequence[Float], noise: float) -> Float:
    """Find the factors on several variances that are added, of the largest Gaussian likelihood.

    Parameters
    ----------
    error : ndarray (n,)
        Errors.
    parts : sequence of ndarray (n,)
        Variances, the first > 0 and the others >= 0.
    noise : float
        As in `by_coverage`.

    Returns
    -------
    ndarray (number of parts,)
        Factors on the standard deviations, in closed form for one part without noise; else from at
        most 200 000 errors, evenly taken. One that the errors do not ask for is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.spread_factor import by_likelihood
    >>> by_likelihood(np.array([1.0, -3.0]), [np.array([1.0, 1.0])], 0.0)
    array([2.24])
    """
    if noise == 0.0 and len(parts) == 1:
        return np.array([np.sqrt(np.mean(error**2 / parts[0]))])
    every = -(-error.size // _MANY)
    square = error[::every] ** 2
    v = np.stack([part[::every] for part in parts])

    size = max(float(np.mean(square)) - noise, 0.01 * float(np.mean(square)))
    scale = size / np.maximum(v.mean(axis=1), 1e-300)
    v *= scale[:, None]

    def cost(weight: Float) -> tuple[float, Float]:
        total = weight @ v + noise
        slope = 1.0 / total - square / total**2
        return float(np.mean(np.log(total) + square / total)), v @ slope / square.size

    # not by logarithms, where a weight that once got small would stay so
    start = np.full(len(parts), 1.0 / len(parts))
    bounds = [(_SMALLEST if k == 0 else 0.0, None) for k in range(len(parts))]
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(np.sqrt(found.x * scale))

"""Size of a spread from the errors that were found: one factor, and one floor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import ndtri

from xr_spde._core.warn import warn

__all__ = ["by_coverage", "by_likelihood"]

Float = NDArray[np.float64]

_CLASSES = 400
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


def by_likelihood(error: Float, variance: Float, noise: float, floor: bool) -> tuple[float, float]:
    """Find the factor, and the floor, of the largest Gaussian likelihood.

    Parameters
    ----------
    error, variance, noise
        As in `by_coverage`.
    floor : bool
        Whether to find one.

    Returns
    -------
    factor, floor : float
        Standard deviations; the floor is zero unless it was asked for. Without noise and floor in
        closed form; else of errors in classes of like variance.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.spread_factor import by_likelihood
    >>> by_likelihood(np.array([1.0, -3.0]), np.array([1.0, 1.0]), 0.0, False)
    (2.24, 0.0)
    """
    if noise == 0.0 and not floor:
        return float(np.sqrt(np.mean(error**2 / variance))), 0.0
    parts = np.array_split(np.argsort(variance, kind="stable"), min(_CLASSES, error.size))
    share = np.array([part.size / error.size for part in parts])
    v, square = (np.array([np.mean(a[part]) for part in parts]) for a in (variance, error**2))

    def cost(power: Float) -> tuple[float, Float]:
        a, c = np.exp(power[0]), np.exp(power[1]) if floor else 0.0
        total = a * v + c + noise
        slope = share * (1.0 / total - square / total**2)
        gradient = [slope @ (a * v), *([slope.sum() * c] if floor else [])]
        return float(share @ (np.log(total) + square / total)), np.array(gradient)

    start = np.log(np.maximum(np.mean(square) - noise, 0.01 * np.mean(square)))
    first = [start - np.log(np.mean(v)), *([start - np.log(20.0)] if floor else [])]
    bounds = [(2 * np.log(_LEAST), 2 * np.log(_MOST)), *([(start - 20.0, start + 5.0)] * floor)]
    found = minimize(cost, first, jac=True, method="L-BFGS-B", bounds=bounds)
    numbers = np.sqrt(np.exp(found.x))
    return float(numbers[0]), float(numbers[1]) if floor else 0.0

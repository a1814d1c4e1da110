r"""Probabilities verified by observations that have errors of their own.

An observation :math:`y` with an error of standard deviation :math:`\sigma` is like a member with an
error added. Instead of drawing errors for the members, all is averaged over them in closed form:
nothing here is random. With :math:`\sigma = 0` these are the usual scores.

References
----------
Hamill (2001), Mon. Weather Rev. 129 (errors of observation in rank histograms); Ferro (2014),
Q. J. R. Meteorol. Soc. 140 (fair scores); Gneiting, Raftery (2007), J. Am. Stat. Assoc. 102.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["binned_spread", "expected_crps", "expected_ranks", "gaussian_crps", "quantile_ranks"]

Float = NDArray[np.float64]


def expected_crps(members: Float, truth: Float, error: float) -> Float:
    r"""Fair continuous ranked probability score of members to which errors are added.

    .. math::

        \frac1N \sum_i a(E_i - y, \sigma)
        - \frac{1}{2N(N-1)} \sum_{i \ne j} a(E_i - E_j, \sqrt2 \sigma)

    with :math:`a(\mu, \sigma)`, the mean distance from zero of a Gaussian.

    Parameters
    ----------
    members : ndarray (N, p)
        At the observations.
    truth : ndarray (p,)
        Observed.
    error : float
        Standard deviation of its errors, >= 0.

    Returns
    -------
    ndarray (p,)

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.verification import expected_crps
    >>> expected_crps(np.array([[0.0], [1.0]]), np.array([0.0]), 0.0)
    array([0.])
    """
    size = len(members)
    near = _distance(members - truth, error).mean(axis=0)
    apart = np.zeros(truth.shape)
    for k in range(1, size):
        apart += _distance(members[k:] - members[: size - k], np.sqrt(2.0) * error).sum(axis=0)
    return np.asarray(near - apart / (size * (size - 1)))


def _distance(mean: Float, std: float) -> Float:
    """Mean distance from zero of a Gaussian."""
    if std == 0.0:
        return np.abs(mean)
    z = mean / std
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(mean * (2.0 * ndtr(z) - 1.0) + 2.0 * std * density)


def gaussian_crps(error: Float, std: Float | float) -> Float:
    """Continuous ranked probability score of Gaussian predictions.

    Parameters
    ----------
    error : ndarray
        Truth minus mean.
    std : ndarray or float
        Predicted; zero is a certain prediction.

    Returns
    -------
    ndarray
        After Gneiting et al. (2005), Mon. Weather Rev. 133.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.verification import gaussian_crps
    >>> float(gaussian_crps(np.array(0.0), 1.0))  # (sqrt(2) - 1) / sqrt(pi)
    0.233695
    """
    spread = np.asarray(std, dtype=np.float64)
    z = error / np.where(spread > 0.0, spread, np.nan)
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    found = spread * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - np.pi**-0.5)
    return np.where(spread > 0.0, found, np.abs(error))


def expected_ranks(members: Float, truth: Float, error: float) -> Float:
    """Probability of each rank of an observation among members to which errors are added.

    The number of members below it is a sum of independent events of unlike probabilities
    (Poisson binomial).

    Parameters
    ----------
    members : ndarray (N, p)
        At the observations.
    truth : ndarray (p,)
        Observed.
    error : float
        Standard deviation of its errors, >= 0; with 0 a tie counts one half.

    Returns
    -------
    ndarray (N + 1,)
        Mean over the observations; flat where these are like members.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.verification import expected_ranks
    >>> expected_ranks(np.array([[0.0], [1.0]]), np.array([0.5]), 0.0)
    array([0., 1., 0.])
    """
    found = np.zeros((len(members) + 1, truth.size))
    found[0] = 1.0
    for k, member in enumerate(members):
        apart = truth - member
        below = ndtr(apart / error) if error > 0.0 else 0.5 + 0.5 * np.sign(apart)
        found[1 : k + 2] = found[1 : k + 2] * (1.0 - below) + found[: k + 1] * below
        found[0] *= 1.0 - below
    return np.asarray(found.mean(axis=1))


def quantile_ranks(mean: Float, std: Float, truth: Float, *, classes: int = 20) -> Float:
    """Shares of observations between equally likely quantiles of Gaussian predictions.

    Parameters
    ----------
    mean, std, truth : ndarray (p,)
        Predicted, with the variance of the errors of observation, and observed.
    classes : int, default 20
        Between the quantiles.

    Returns
    -------
    ndarray (classes,)
        Flat where predictions are right.
    """
    place = np.minimum((ndtr((truth - mean) / std) * classes).astype(np.intp), classes - 1)
    return np.asarray(np.bincount(place, minlength=classes) / truth.size)


def binned_spread(
    spread: Float, error: Float, *, bins: int = 10
) -> tuple[Float, Float, NDArray[Any]]:
    """Error where the predicted spread is alike, for a diagram of spread against skill.

    Parameters
    ----------
    spread, error : ndarray (p,)
        Predicted standard deviation, and predicted minus observed.
    bins : int, default 10
        With equally many observations, of increasing spread.

    Returns
    -------
    spread, error : ndarray (bins,)
        Roots of the mean squares; NaN of an empty bin.
    count : ndarray of int (bins,)

    Examples
    --------
    >>> import numpy as np
    >>> from xr_spde.assim.verification import binned_spread
    >>> binned_spread(np.array([1.0, 2.0]), np.array([-1.0, 2.0]), bins=2)[:2]
    (array([1., 2.]), array([1., 2.]))
    """
    # ties go together by the order of the data, the same for any chunks
    parts = np.array_split(np.argsort(spread, kind="stable"), bins)
    rms = [
        [np.sqrt(np.mean(values[part] ** 2)) if part.size else np.nan for part in parts]
        for values in (spread, error)
    ]
    return np.array(rms[0]), np.array(rms[1]), np.array([part.size for part in parts])

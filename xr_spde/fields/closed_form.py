"""Covariances known in closed form: truth for tests, and for stationary fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import k1

from xr_spde.fields.sar import tensor

Float = NDArray[np.float64]


def symbol(
    kappa2: ArrayLike, hxx: ArrayLike, hyy: ArrayLike, hxy: ArrayLike, kx: ArrayLike, ky: ArrayLike
) -> Float:
    """Symbol of the SAR stencil with constant parameters: its eigenvalue at a wave vector.

    ``b(k) = kappa2 + 2 hxx (1 - cos kx) + 2 hyy (1 - cos ky) + 2 hxy sin kx sin ky >= kappa2``.

    Parameters
    ----------
    kappa2, hxx, hyy, hxy : array_like
        Parameters in grid-cell units, as from :func:`xr_spde.fields.sar.tensor`.
    kx, ky : array_like
        Wave numbers in radians per cell.

    Returns
    -------
    ndarray
        Broadcast shape.

    References
    ----------
    LatticeVision, arXiv 2505.09803 (stencil).
    """
    x, y = np.asarray(kx, dtype=np.float64), np.asarray(ky, dtype=np.float64)
    drift = np.asarray(hxx) * np.sin(0.5 * x) ** 2 + np.asarray(hyy) * np.sin(0.5 * y) ** 2
    mixed = np.asarray(hxy) * np.sin(x) * np.sin(y)
    return np.asarray(kappa2 + 4.0 * drift + 2.0 * mixed, dtype=np.float64)


def torus_covariance(shape: tuple[int, int], *, kappa2: float, rho: float, theta: float) -> Float:
    """Covariance of a stationary SAR field on a torus, from the inverse squared symbol.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    kappa2, rho, theta : float
        Constant parameters.

    Returns
    -------
    ndarray (ny, nx)
        Covariance with node (0, 0); entry (0, 0) is the variance.
    """
    ky, kx = (2.0 * np.pi * np.fft.fftfreq(size) for size in shape)
    b = symbol(kappa2, *tensor(rho, theta), kx[None, :], ky[:, None])
    return np.asarray(np.fft.ifft2(1.0 / b**2).real, dtype=np.float64)


def matern_correlation(
    dx: ArrayLike, dy: ArrayLike, *, kappa2: float, rho: float, theta: float
) -> Float:
    """Matern correlation of smoothness 1, the continuum limit: ``r K1(r)``.

    ``r^2 = kappa2 d' H^-1 d`` for the separation ``d = (dx, dy)`` in cells. The correlation falls
    to about 0.14 at the range ``sqrt(8 rho / kappa2)`` along `theta`.

    Parameters
    ----------
    dx, dy : array_like
        Separation in cells.
    kappa2, rho, theta : float
        Constant parameters.

    Returns
    -------
    ndarray
        Broadcast shape.

    References
    ----------
    Lindgren, Rue, Lindstrom (2011), J. R. Stat. Soc. B 73.
    """
    x, y = np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64)
    hxx, hyy, hxy = tensor(rho, theta)
    # det H = 1, so the inverse is the adjugate
    r = np.sqrt(kappa2 * (hyy * x**2 - 2.0 * hxy * x * y + hxx * y**2))
    safe = np.where(r > 0.0, r, 1.0)
    return np.where(r > 0.0, safe * k1(safe), 1.0)

"""The spatial autoregressive (SAR) operator B of a field with varying range and anisotropy.

``B`` discretises ``kappa2 - div H grad`` on a grid of unit spacing, so that ``B y = e`` with white
noise ``e`` gives a field of Matern smoothness 1 (SPDE with alpha = 2). ``theta`` is the direction
of longest correlation, counter-clockwise from increasing x toward increasing y; ``rho`` is the
ratio of the longest to the shortest range.

References
----------
LatticeVision, arXiv 2505.09803 (its angle is ``psi = -theta``); Lindgren, Rue, Lindstrom (2011),
J. R. Stat. Soc. B 73.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.stencil import assemble

Float = NDArray[np.float64]


def wrap_angle(theta: ArrayLike) -> Float:
    """Angle of an axis, modulo pi, in [-pi/2, pi/2).

    Parameters
    ----------
    theta : array_like
        Radians.

    Returns
    -------
    ndarray
        Same shape.
    """
    wrapped = np.mod(np.asarray(theta, dtype=np.float64) + np.pi / 2, np.pi) - np.pi / 2
    # for tiny negative input, mod returns pi itself
    return np.where(wrapped >= np.pi / 2, -np.pi / 2, wrapped)


def tensor(rho: ArrayLike, theta: ArrayLike) -> tuple[Float, Float, Float]:
    """Anisotropy tensor ``H = R(theta) diag(rho, 1/rho) R(theta)'``, of determinant one.

    Parameters
    ----------
    rho : array_like
        Ratio of ranges, at least 1.
    theta : array_like
        Direction of longest correlation in radians.

    Returns
    -------
    hxx, hyy, hxy : ndarray
        Broadcast shape of the arguments.
    """
    ratio = np.asarray(rho, dtype=np.float64)
    angle = np.asarray(theta, dtype=np.float64)
    cos, sin = np.cos(angle), np.sin(angle)
    hxx = ratio * cos**2 + sin**2 / ratio
    hyy = ratio * sin**2 + cos**2 / ratio
    hxy = (ratio - 1.0 / ratio) * sin * cos
    return hxx, hyy, hxy


def from_tensor(hxx: ArrayLike, hyy: ArrayLike, hxy: ArrayLike) -> tuple[Float, Float]:
    """Ratio and direction from the tensor H; inverse of :func:`tensor`.

    Parameters
    ----------
    hxx, hyy, hxy : array_like
        Components of H.

    Returns
    -------
    rho : ndarray
        At least 1.
    theta : ndarray
        In [-pi/2, pi/2); 0 where rho = 1.
    """
    # rho - 1 / rho = 2 sinh(log rho) is the difference of the eigenvalues
    first, second = 0.5 * (np.asarray(hxx) - np.asarray(hyy)), np.asarray(hxy)
    ratio = np.exp(np.arcsinh(np.hypot(first, second)))
    return ratio, wrap_angle(0.5 * np.arctan2(second, first))


def log_tensor(rho: ArrayLike, theta: ArrayLike) -> tuple[Float, Float]:
    """Matrix logarithm of H as two numbers: no seam in the angle, smooth at rho = 1.

    ``log H = [[h1, h2], [h2, -h1]]`` with ``h1 = log(rho) cos(2 theta)`` and
    ``h2 = log(rho) sin(2 theta)``.

    Parameters
    ----------
    rho, theta : array_like
        As in :func:`tensor`.

    Returns
    -------
    h1, h2 : ndarray
    """
    log_ratio = np.log(np.asarray(rho, dtype=np.float64))
    double = 2.0 * np.asarray(theta, dtype=np.float64)
    return log_ratio * np.cos(double), log_ratio * np.sin(double)


def from_log_tensor(h1: ArrayLike, h2: ArrayLike) -> tuple[Float, Float]:
    """Ratio and direction from the logarithm of H; inverse of :func:`log_tensor`.

    Parameters
    ----------
    h1, h2 : array_like
        Components of the matrix logarithm.

    Returns
    -------
    rho : ndarray
        At least 1.
    theta : ndarray
        In [-pi/2, pi/2); 0 where rho = 1.
    """
    first, second = np.asarray(h1, dtype=np.float64), np.asarray(h2, dtype=np.float64)
    return np.exp(np.hypot(first, second)), wrap_angle(0.5 * np.arctan2(second, first))


def weights(kappa2: ArrayLike, rho: ArrayLike, theta: ArrayLike) -> Float:
    """Nine stencil weights per node from the parameters at that node.

    Parameters
    ----------
    kappa2, rho, theta : array_like (ny, nx)
        Squared inverse range in grid-cell units, ratio of ranges, direction in radians; scalars
        and arrays that broadcast to (ny, nx) are accepted.

    Returns
    -------
    ndarray (9, ny, nx)
        In the order of :data:`xr_spde.fields.stencil.OFFSETS`; each node's weights sum to kappa2.

    Raises
    ------
    ParameterError
        If the broadcast shape is not (ny, nx), or a value is not finite, kappa2 <= 0, or
        rho < 1 (beyond 1e-6).
    """
    try:
        kappa2, rho, theta = np.broadcast_arrays(
            *(np.asarray(value, dtype=np.float64) for value in (kappa2, rho, theta))
        )
    except ValueError as error:
        shapes = [np.shape(value) for value in (kappa2, rho, theta)]
        raise ParameterError(
            f"kappa2, rho, theta have shapes {shapes}; expected (ny, nx) for each"
        ) from error
    if kappa2.ndim != 2:
        raise ParameterError(f"parameters have shape {kappa2.shape}; expected (ny, nx)")
    for name, value, low in (("kappa2", kappa2, 0.0), ("rho", rho, 1.0), ("theta", theta, None)):
        if not np.isfinite(value).all():
            count = int((~np.isfinite(value)).sum())
            raise ParameterError(f"{name} has {count} non-finite values; expected finite numbers")
        if low is not None and not (value > low - 1e-6 * low).all():
            bound = "> 0" if low == 0.0 else ">= 1"
            raise ParameterError(f"{name} has a minimum of {value.min():g}; expected {bound}")
    return tensor_weights(kappa2, *tensor(rho, theta))


def tensor_weights(kappa2: Float, hxx: Float, hyy: Float, hxy: Float) -> Float:
    """Nine stencil weights per node from kappa2 and the diffusion tensor, unchecked.

    Parameters
    ----------
    kappa2, hxx, hyy, hxy : ndarray (ny, nx)
        Squared inverse range in grid-cell units and tensor of each node.

    Returns
    -------
    ndarray (9, ny, nx)
        In the order of :data:`xr_spde.fields.stencil.OFFSETS`.
    """
    centre = kappa2 + 2.0 * hxx + 2.0 * hyy
    half = 0.5 * hxy
    return np.stack([half, -hyy, -half, -hxx, centre, -hxx, -half, -hyy, half])


def noise_gram() -> Float:
    """Second moments of the stencil's four features for white noise of variance one.

    Returns
    -------
    ndarray (4, 4)
        Of what multiplies kappa2, hxx, hyy and hxy.
    """
    features = tensor_weights(*np.eye(4))
    return np.asarray(features.T @ features)


def operator(
    kappa2: ArrayLike, rho: ArrayLike, theta: ArrayLike, *, boundary: str = "cylinder"
) -> sp.csc_array:
    """Sparse SAR matrix B; the field is ``y = B^-1 e`` and its precision is ``B'B``.

    Parameters
    ----------
    kappa2, rho, theta : array_like (ny, nx)
        As in :func:`weights`.
    boundary : {"cylinder", "plane", "torus", "paper"}, default "cylinder"
        See :func:`xr_spde.fields.stencil.periodicity`.

    Returns
    -------
    scipy.sparse.csc_array (ny * nx, ny * nx)

    Raises
    ------
    ParameterError
        For values or shapes that :func:`weights` rejects.
    UnknownNameError
        For an unknown boundary.
    """
    return assemble(weights(kappa2, rho, theta), boundary=boundary)

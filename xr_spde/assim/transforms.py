"""Matrices that act on members: an analysis ``E_a = W E`` whatever the size of the state.

W is N x N and its rows sum to one. It is found from the observations alone and applied to any piece
of the state, which is how a state larger than memory is analysed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde.assim.arrays import as_members, namespace, refuse_broken
from xr_spde.assim.inflation import check_share
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]

_BLOCK_BYTES = 2**20  # a block of the state and its analysis stay in cache


def centring(size: int) -> Float:
    """Matrix ``I - 1 1' / N``, which takes the mean away.

    Parameters
    ----------
    size : int
        Number of members N.

    Returns
    -------
    ndarray (N, N)
    """
    return np.eye(size) - 1.0 / size


def mean_basis(size: int) -> Float:
    """Orthonormal columns that are orthogonal to a vector of ones.

    Parameters
    ----------
    size : int
        Number of members N.

    Returns
    -------
    ndarray (N, N - 1)
        The last columns of the Householder reflector that maps ``e_1`` to ``1 / sqrt(N)``.
    """
    v = np.full(size, size**-0.5)
    v[0] -= 1.0
    return np.eye(size)[:, 1:] - np.outer(v, v[1:]) * (2.0 / (v @ v))


def mean_preserving_rotation(size: int, seed: Seed = None) -> Float:
    """Draw a random rotation of members that keeps their mean and covariance.

    Parameters
    ----------
    size : int
        Number of members N.
    seed : int, SeedSequence or Generator, optional
        Of the rotation.

    Returns
    -------
    ndarray (N, N)
        Orthogonal, with rows and columns that sum to one; uniform among such matrices.

    References
    ----------
    Sakov and Oke (2008), Mon. Weather Rev. 136.
    """
    rng = member_generator(resolve_seed(seed), 0, 1)
    q, r = np.linalg.qr(rng.standard_normal((size - 1, size - 1)))
    basis = mean_basis(size)
    return basis @ (q * np.sign(np.diagonal(r))) @ basis.T + 1.0 / size


def compose(mean_weights: NDArray[Any], anomalies: NDArray[Any]) -> Float:
    """Matrix W from the weights of the mean and the transform of the anomalies.

    Parameters
    ----------
    mean_weights : ndarray (N,)
        ``w``: the mean moves by ``sum_k w_k (E_k - mean) / sqrt(N - 1)``.
    anomalies : ndarray (N, N)
        ``T``: anomalies become ``T (E - mean)``.

    Returns
    -------
    ndarray (N, N)
        ``W = 1 1' / N + (1 w' / sqrt(N - 1) + T) (I - 1 1' / N)``.
    """
    size = len(mean_weights)
    moved = anomalies + mean_weights / np.sqrt(size - 1)
    return np.asarray(1.0 / size + moved - moved.mean(axis=1, keepdims=True))


def adjust(
    weights: Float, *, inflation: float = 1.0, rtpp: float = 0.0, rotation: Float | None = None
) -> Float:
    """Relax, inflate and rotate the anomalies of an analysis, its mean kept.

    Parameters
    ----------
    weights : ndarray (N, N)
        ``W`` of an analysis.
    inflation : float, default 1
        Factor on the anomalies.
    rtpp : float, default 0
        Share of the prior anomalies that is mixed in.
    rotation : ndarray (N, N), optional
        As from :func:`mean_preserving_rotation`.

    Returns
    -------
    ndarray (N, N)
    """
    mean = weights.mean(axis=0)
    anomalies = weights - mean
    anomalies += rtpp * (centring(len(weights)) - anomalies)
    anomalies *= inflation
    return mean + (anomalies if rotation is None else rotation @ anomalies)


def transform(ensemble: Any, weights: Float, *, rtps: float = 0.0, out: Any = None) -> Any:
    """Apply the matrix of an analysis to an ensemble, block by block.

    Parameters
    ----------
    ensemble : array (N, ...)
        Members first. Values that are NaN in every member are land, and stay so.
    weights : ndarray (N, N)
        W, with rows that sum to one.
    rtps : float, default 0
        Relaxation to prior spread, in [0, 1].
    out : array (N, ...), optional
        Where to put the result; may be `ensemble` itself, which halves the memory.

    Returns
    -------
    array (N, ...)
        ``W E``, of the dtype of `ensemble`.

    Raises
    ------
    ParameterError
        If the number of members is not that of W, or members are NaN where others are not (with
        ``out=ensemble`` after blocks before it were replaced).
    """
    members = as_members("ensemble", ensemble)
    size = members.shape[0]
    if weights.shape != (size, size):
        raise ParameterError(f"ensemble has {size} members; the weights have shape {weights.shape}")
    share = check_share("rtps", rtps)
    xp = namespace(members)
    # not empty_like, which keeps the order of a transposed ensemble
    result = xp.empty(members.shape, members.dtype) if out is None else out
    if result.shape != members.shape or result.dtype != members.dtype:
        raise ParameterError(
            f"out has shape {result.shape} and dtype {result.dtype}; expected {members.shape} and "
            f"{members.dtype}"
        )
    prior, posterior = members.reshape(size, -1), result.reshape(size, -1)
    if not xp.may_share_memory(posterior, result):
        raise ParameterError("out must be contiguous beyond its first axis")
    w = xp.asarray(weights, dtype=members.dtype)
    step = max(64, _BLOCK_BYTES // (size * members.dtype.itemsize))
    with single_blas_thread():
        for start in range(0, prior.shape[1], step):
            part = slice(start, start + step)
            _transform_block(xp, prior[:, part], w, share, posterior[:, part])
    return result


def _transform_block(xp: Any, block: Any, weights: Any, share: float, out: Any) -> None:
    # Rows of W sum to one: what is multiplied is then of the size of the spread, which keeps
    # digits where the mean is large, and costs less than to find the mean.
    first = block[0].copy()
    anomalies = block - first
    analysed = xp.matmul(weights, anomalies)
    if not bool(xp.isfinite(analysed[0]).all()):
        refuse_broken("ensemble", block, what="value")
    if share:
        mean = analysed.mean(axis=0)
        analysed -= mean
        after, before = analysed.std(axis=0), anomalies.std(axis=0)
        analysed *= 1.0 + share * (before - after) / xp.where(after > 0, after, 1.0)
        first += mean
    xp.add(analysed, first, out=out)

"""Model noise in an ensemble: sampled, or put into its square root (ETKF-Q).

The deterministic way replaces the anomalies of a forecast by the N - 1 leading directions of
``P_f + Q``, so that the covariance of the ensemble is the forecast's plus the noise's, without
sampling error. It is exact where the ensemble spans the state, N > n; a smaller one cannot hold the
noise in the directions that it leaves out.

References
----------
Peyron et al. (2021), Latent space data assimilation by using deep learning, Q. J. R. Meteorol.
Soc. 147 (ETKF-Q); Fillion et al. (2020), SIAM/ASA J. Uncertain. Quantif. 8 (IEnKS-Q).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde.assim.arrays import as_members, as_real, namespace, to_host
from xr_spde.assim.transforms import mean_basis
from xr_spde.solvers.threads import single_blas_thread

WAYS = ("deterministic", "sampled")


def add_noise(
    ensemble: Any, noise: ArrayLike, *, how: str = "deterministic", seed: Seed = None
) -> Any:
    """Add model noise of covariance Q to a forecast ensemble.

    Parameters
    ----------
    ensemble : array (N, n)
        Members first.
    noise : float, array (n,) or array (n, k)
        Variance of the noise, the same or one for each value of the state (> 0); or a square root
        F of its covariance, ``Q = F F'``.
    how : {"deterministic", "sampled"}, default "deterministic"
        Into the square root, as ETKF-Q does, or drawn for each member.
    seed : int, SeedSequence or Generator, optional
        Of sampled noise; each member has a stream of its own, other than that of its perturbed
        observations.

    Returns
    -------
    array (N, n)
        Mean kept (in the deterministic way); of the dtype of `ensemble`.

    Raises
    ------
    ParameterError
        For shapes that do not fit, or variances that are not positive.
    UnknownNameError
        For another way.

    Notes
    -----
    With a variance, leading directions are those of ``Q^-1/2 P_f Q^-1/2 + I``, in units of the
    noise: they do not depend on the units of the variables of the state.
    """
    members = as_members("ensemble", ensemble)
    if how not in WAYS:
        raise unknown("way of adding noise", how, WAYS)
    if members.ndim != 2:
        raise ParameterError(f"ensemble has shape {members.shape}; expected (N, n)")
    xp = namespace(members)
    given = xp.asarray(as_real("noise", noise), dtype=np.float64)
    n = members.shape[1]
    if given.ndim > 2 or (given.ndim and given.shape[0] != n):
        raise ParameterError(
            f"noise has shape {given.shape}; expected a number, ({n},) or ({n}, k)"
        )
    if given.ndim < 2 and not bool((xp.isfinite(given) & (given > 0)).all()):
        raise ParameterError(
            f"noise has a least variance of {float(given.min())}; expected numbers > 0 (give a "
            "square root (n, k) where some values of the state have no noise)"
        )
    with single_blas_thread():
        if how == "sampled":
            return _sampled(xp, members, given, seed)
        return _deterministic(xp, members, given)


def _sampled(xp: Any, members: Any, noise: Any, seed: Seed) -> Any:
    entropy = resolve_seed(seed)
    width = noise.shape[1] if noise.ndim == 2 else members.shape[1]
    result = members.copy()
    for member in range(members.shape[0]):
        drawn = xp.asarray(member_generator(entropy, member, 2).standard_normal(width))
        result[member] += noise @ drawn if noise.ndim == 2 else xp.sqrt(noise) * drawn
    return result


def _deterministic(xp: Any, members: Any, noise: Any) -> Any:
    size, n = members.shape
    basis = xp.asarray(mean_basis(size))
    first = members[0].astype(np.float64)
    departures = members.astype(np.float64) - first
    mean = first + departures.mean(axis=0)
    deviations = departures.T @ basis / np.sqrt(size - 1)
    if noise.ndim == 2:
        columns, scale = xp.concatenate([deviations, noise], axis=1), None
    else:
        scale = xp.sqrt(xp.broadcast_to(noise, (n,)))[:, None]
        columns = deviations / scale
    # Orthonormal directions also where some deviations vanish, at the cost of one QR
    q, r = xp.linalg.qr(columns)
    vectors, values, turned = xp.linalg.svd(r, full_matrices=False)
    kept = min(size - 1, values.shape[0])
    if scale is not None:
        values = xp.sqrt(values * values + 1.0)
    directions = (q @ vectors[:, :kept]) * values[:kept]
    if scale is not None:
        # The rotation that stays nearest to the members of the forecast
        directions = scale * (directions @ turned[:kept])
    elif kept < size - 1:
        pad = xp.zeros((n, size - 1 - kept))
        directions = xp.concatenate([directions, pad], axis=1)
    if scale is None:
        left, _, right = np.linalg.svd(to_host(directions.T @ deviations))
        directions = directions @ xp.asarray(left @ right)
    anomalies = np.sqrt(size - 1) * (basis @ directions.T)
    return (mean + anomalies).astype(members.dtype)

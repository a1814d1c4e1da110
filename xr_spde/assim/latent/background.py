"""Background in code space: covariance by the Jacobian of the decoder, and ensembles drawn from it.

References
----------
Li, Dong & Zhang (2024), arXiv 2309.09574, whose code multiplies noise by the covariance in place of
its square root: ``reproduce=True`` in :func:`draw_codes`.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde._core.rng import Seed, member_generator, resolve_seed

__all__ = ["background_factor", "draw_codes", "field_metric"]

LOGGER = logging.getLogger(__name__)

Float = NDArray[np.float64]


def field_metric(jacobian: ArrayLike, weights: ArrayLike) -> Float:
    """Give what errors of a code mean in its field: ``J' W J``.

    Parameters
    ----------
    jacobian : array_like (P * c, n)
        Of the decoder, as `StateMap.jacobian` gives it.
    weights : array_like (P,) or (P, c)
        Of the squared errors.

    Returns
    -------
    ndarray (n, n)
        As fits of dynamics take it: identity for orthonormal modes.
    """
    J = np.asarray(jacobian, dtype=np.float64)
    w = np.asarray(weights, dtype=np.float64).ravel()
    w = np.repeat(w, len(J) // w.size)
    if len(J) != w.size:
        raise ParameterError(
            f"jacobian {J.shape} and weights {np.shape(weights)} do not fit: expected (P * c, n) "
            "and (P,) or (P, c)"
        )
    return np.asarray((J * w[:, None]).T @ J)


def background_factor(
    jacobian: ArrayLike, variance: ArrayLike, *, prior: ArrayLike | None = None
) -> Float:
    r"""Square root of the covariance of a code, from independent errors of its field.

    .. math:: \Sigma_b = (J' R^{-1} J + P^{-1})^{-1}

    with errors of variance R and, where it is given, a prior of variances P; without one and with
    equal variances it is the covariance of the pseudo-inverse of J, :math:`\sigma^2 (J'J)^+`.

    Parameters
    ----------
    jacobian : array_like (m, n)
        Of the decoder, as `StateMap.jacobian` gives it.
    variance : float or array_like (m,)
        Of the errors; NaN or infinite where the field is not known.
    prior : array_like (n,) or (n, n), optional
        Variances or covariance of codes.

    Returns
    -------
    ndarray (n, k)
        Factor F with ``F F'`` the covariance; without a prior, directions that the field does not
        know are left out.

    Raises
    ------
    ParameterError
        For shapes that do not fit, or variances that are not positive.
    """
    J = np.asarray(jacobian, dtype=np.float64)
    if J.ndim != 2:
        raise ParameterError(f"jacobian has shape {J.shape}; expected (m, n)")
    R = np.broadcast_to(np.asarray(variance, dtype=np.float64), J.shape[:1])
    known = np.isfinite(R)
    if not (R[known] > 0.0).all() or not known.any():
        raise ParameterError("variance= has to be positive, and finite somewhere")
    scaled = J[known] / np.sqrt(R[known])[:, None]
    precision = scaled.T @ scaled
    if prior is not None:
        P = np.asarray(prior, dtype=np.float64)
        if P.shape not in ((J.shape[1],), (J.shape[1],) * 2):
            raise ParameterError(f"prior has shape {P.shape}; expected (n,) or (n, n)")
        precision += np.diag(1.0 / P) if P.ndim == 1 else np.linalg.inv(P)
    values, vectors = np.linalg.eigh(precision)
    kept = values > 1e-12 * values[-1]
    if not kept.all():
        LOGGER.info("the field does not know %d of the %d directions of the code", (~kept).sum(),
                    len(kept))  # fmt: skip
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


def draw_codes(
    code: ArrayLike, factor: ArrayLike, members: int, seed: Seed = None, *, reproduce: bool = False
) -> Float:
    """Draw an ensemble round a code.

    Parameters
    ----------
    code : array_like (n,)
        Its mean.
    factor : array_like (n, k)
        Square root of its covariance.
    members : int
        How many; each has a random stream of its own.
    seed : int, SeedSequence or Generator, optional
        Of the streams.
    reproduce : bool, default False
        Multiply by the covariance in place of its square root, as the code of the source does.

    Returns
    -------
    ndarray (members, n)
    """
    F = np.asarray(factor, dtype=np.float64)
    F = F @ F.T if reproduce else F
    entropy = resolve_seed(seed)
    noise = [
        member_generator(entropy, member, 3).standard_normal(F.shape[1])
        for member in range(members)
    ]
    return np.asarray(np.asarray(code, dtype=np.float64) + np.stack(noise) @ F.T)

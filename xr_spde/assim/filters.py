"""Ensemble Kalman filters without localisation, as matrices that act on the members.

Each filter finds a matrix W (N, N) from the whitened observations (:mod:`.projection`); the
analysis is ``W E`` (:mod:`.transforms`). Work grows with ``(n + p) N^2``, and no matrix of the size
of the state or of the observations is formed. Matrices N x N are in float64 whatever the ensemble.

With the anomalies ``S`` of observed members, ``G = S S'`` and the innovation ``d``:

========  =============================================================================
enkf      ``C = (I + G)^-1 S (d_j + e_j)``, perturbed observations (Burgers et al., 1998)
senkf     the same with the covariance of the perturbed members in place of ``G + I``
denkf     ``T = I - (I + G)^-1 G / 2`` (Sakov and Oke, 2008, Tellus 60A)
etkf      ``T = (I + G)^-1/2``, symmetric (Bishop et al., 2001; Hunt et al., 2007)
etkf-q    the same; model noise was added by :func:`xr_spde.assim.model_noise.add_noise`
serial    one observation after the other (Potter; Whitaker and Hamill, 2002)
========  =============================================================================

and ``w = (I + G)^-1 S d`` for the mean of all that have a T.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError, unknown
from xr_spde._core.rng import Seed, member_generator, resolve_seed
from xr_spde._core.warn import warn
from xr_spde.assim.arrays import as_members, namespace, to_host
from xr_spde.assim.inflation import check_inflation, check_share
from xr_spde.assim.noise import ErrorModel
from xr_spde.assim.projection import Projection, project
from xr_spde.assim.transforms import adjust, centring, compose, mean_preserving_rotation, transform
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]

_BLOCK = 4096


def _etkf(projection: Projection, entropy: int) -> Float:
    values, vectors, _ = projection.modes
    return compose(projection.weights, (vectors / np.sqrt(1.0 + values)) @ vectors.T)


def _denkf(projection: Projection, entropy: int) -> Float:
    values, vectors, _ = projection.modes
    return compose(
        projection.weights, (vectors / (1.0 + values) * (1.0 + 0.5 * values)) @ vectors.T
    )


def _perturbations(projection: Projection, entropy: int) -> tuple[Float, Float, Float]:
    """``S e'``, ``e e'`` and ``e d`` of whitened draws e (N, p), centred over the members.

    Errors are independent in whitened units whatever R, so that e is standard normal; each member
    has a stream of its own. Centring leaves the covariance of the draws over the members what it
    is, with N - 1 in its denominator without bias: they are not scaled up.
    """
    size, xp = projection.size, namespace(projection.anomalies)
    streams = [member_generator(entropy, member) for member in range(size)]
    crossed, gram, pull = xp.zeros((size, size)), xp.zeros((size, size)), xp.zeros(size)
    for start in range(0, projection.count, _BLOCK):
        part = slice(start, min(start + _BLOCK, projection.count))
        drawn = np.stack([stream.standard_normal(part.stop - start) for stream in streams])
        drawn -= drawn.mean(axis=0)
        draws = xp.asarray(drawn)
        crossed += projection.anomalies[:, part] @ draws.T
        gram += draws @ draws.T
        pull += draws @ projection.innovation[part]
    return to_host(crossed), to_host(gram), to_host(pull)


def _enkf(projection: Projection, entropy: int) -> Float:
    size = projection.size
    crossed, _, _ = _perturbations(projection, entropy)
    values, vectors, pull = projection.modes
    pulls = pull[:, None] - np.sqrt(size - 1) * values[:, None] * vectors.T + vectors.T @ crossed
    solved = vectors @ (pulls / (1.0 + values)[:, None])
    return np.asarray(np.eye(size) + solved.T @ centring(size) / np.sqrt(size - 1))


def _senkf(projection: Projection, entropy: int) -> Float:
    size, root = projection.size, np.sqrt(projection.size - 1)
    if projection.count >= size - 1:
        warn(
            f"senkf with {projection.count} observations and {size} members: from N - 1 "
            "observations on, its analysis has no spread left; use enkf or etkf"
        )
    crossed, noise, along = _perturbations(projection, entropy)
    gram = projection.gram - (crossed + crossed.T) / root + noise / (size - 1)
    pulls = (projection.pull - along / root)[:, None] - root * gram
    solved = np.linalg.pinv(gram, hermitian=True, rcond=1e-12) @ pulls
    return np.asarray(np.eye(size) + solved.T @ centring(size) / root)


def _serial(projection: Projection, entropy: int) -> Float:
    """Assimilate whitened observations one by one.

    With ``s = T S_k`` and ``a = 1 + s's``: ``T -> T - s s'T / (a + sqrt(a))`` and, with T as it
    was, ``w -> w + T's (d_k - S_k'w) / a``.
    """
    columns = np.ascontiguousarray(to_host(projection.anomalies).T)
    innovation = to_host(projection.innovation)
    turned, weights = np.eye(projection.size), np.zeros(projection.size)
    for column, departure in zip(columns, innovation, strict=True):
        s = turned @ column
        total = 1.0 + s @ s
        moved = s @ turned
        weights += moved * ((departure - column @ weights) / total)
        turned -= np.outer(s / (total + np.sqrt(total)), moved)
    return compose(weights, turned)


FILTERS: dict[str, Callable[[Projection, int], Float]] = {
    "enkf": _enkf,
    "senkf": _senkf,
    "denkf": _denkf,
    "etkf": _etkf,
    "etkf-q": _etkf,
    "serial": _serial,
}


def analysis_weights(
    projection: Projection,
    *,
    method: str = "etkf",
    inflation: float = 1.0,
    rtpp: float = 0.0,
    rotate: bool = False,
    seed: Seed = None,
) -> Float:
    """Matrix of an analysis, for :func:`xr_spde.assim.transforms.transform`.

    Parameters
    ----------
    projection : Projection
        Observations and observed members.
    method : {"etkf", "etkf-q", "denkf", "enkf", "senkf", "serial"}, default "etkf"
        The filter. ``"senkf"`` is there for comparison: from N - 1 observations on its analysis
        has no spread.
    inflation : float, default 1
        Factor >= 1 on the analysed anomalies.
    rtpp : float, default 0
        Share of the prior perturbations in the analysed ones, in [0, 1].
    rotate : bool, default False
        Rotate the anomalies at random, mean and covariance kept; helps small ensembles of
        deterministic filters against a few members that carry all the spread.
    seed : int, SeedSequence or Generator, optional
        Of the perturbed observations and of the rotation.

    Returns
    -------
    ndarray (N, N)
        W, with rows that sum to one.

    Raises
    ------
    UnknownNameError
        For an unknown method.
    ParameterError
        For settings out of their range.
    """
    if method not in FILTERS:
        raise unknown("method", method, FILTERS)
    check_inflation(inflation)
    check_share("rtpp", rtpp)
    entropy = resolve_seed(seed)
    with single_blas_thread():
        weights = FILTERS[method](projection, entropy)
        rotation = mean_preserving_rotation(projection.size, entropy) if rotate else None
        return adjust(weights, inflation=inflation, rtpp=rtpp, rotation=rotation)


def analyse(
    ensemble: Any,
    observed: Any,
    y: Any,
    errors: ErrorModel | ArrayLike,
    *,
    method: str = "etkf",
    inflation: float = 1.0,
    rtpp: float = 0.0,
    rtps: float = 0.0,
    rotate: bool = False,
    seed: Seed = None,
    out: Any = None,
) -> Any:
    """Analyse an ensemble with a global filter.

    Parameters
    ----------
    ensemble : array (N, ...)
        Members first; float32 or float64, of numpy or cupy. Values that are NaN in every member
        are land, and stay so.
    observed : array (N, p)
        Each member as the observations would see it.
    y : array (p,)
        Observations; NaN where missing.
    errors : ErrorModel, float or array (p,)
        Errors of observation; numbers are variances.
    method : {"etkf", "etkf-q", "denkf", "enkf", "senkf", "serial"}, default "etkf"
        As in :func:`analysis_weights`.
    inflation : float, default 1
        Factor >= 1 on the analysed anomalies.
    rtpp, rtps : float, default 0
        Relaxation to prior perturbations or to prior spread, in [0, 1].
    rotate : bool, default False
        Rotate the anomalies at random.
    seed : int, SeedSequence or Generator, optional
        Of everything random.
    out : array (N, ...), optional
        Where to put the result; may be `ensemble` itself.

    Returns
    -------
    array (N, ...)
        Analysed ensemble, of the dtype of `ensemble`.

    Raises
    ------
    ParameterError
        For shapes that do not fit, an ensemble of one, broken members, errors or settings out of
        their range.
    UnknownNameError
        For an unknown method.
    """
    members = as_members("ensemble", ensemble)
    projection = project(observed, y, errors)
    if members.shape[0] != projection.size:
        raise ParameterError(
            f"ensemble has {members.shape[0]} members and the observed ensemble has "
            f"{projection.size}; they are the same members"
        )
    weights = analysis_weights(
        projection, method=method, inflation=inflation, rtpp=rtpp, rotate=rotate, seed=seed
    )
    return transform(members, weights, rtps=rtps, out=out)

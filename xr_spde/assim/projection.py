"""What a filter needs of the observations: anomalies and innovation in units of their errors.

With members ``E_j``, observed members ``H(E_j)`` of mean ``h`` and errors of covariance R,

    S = R^-1/2 (H(E_j) - h) / sqrt(N - 1),      d = R^-1/2 (y - h).

Every global filter is then algebra on N x N matrices such as ``G = S S'``: no matrix of the size of
the state or of the observations is formed (Hunt, Kostelich, Szunyogh, 2007, Physica D 230).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.assim.arrays import as_members, as_real, namespace, refuse_broken, to_host
from xr_spde.assim.noise import ErrorModel, IndependentErrors, as_errors
from xr_spde.solvers.threads import single_blas_thread

Float = NDArray[np.float64]

_BLOCK = 1024

STEEP = 1e6
"""Size of ``G = S S'`` beyond which rounding of the square costs the smallest directions digits."""


@dataclass(frozen=True)
class Projection:
    """An ensemble and observations, seen in units of the errors of observation.

    Parameters
    ----------
    anomalies : array (N, p)
        ``S`` above: whitened departures of observed members, over ``sqrt(N - 1)``; float64.
    innovation : array (p,)
        ``d`` above: whitened departure of the observations from the mean of observed members.
    """

    anomalies: Any
    innovation: Any

    @property
    def size(self) -> int:
        """Number of members N."""
        return int(self.anomalies.shape[0])

    @property
    def count(self) -> int:
        """Number of observations p that are there."""
        return int(self.anomalies.shape[1])

    def select(self, which: Any) -> Projection:
        """Keep some observations, given by a mask (p,), indices or a slice.

        Exact for local filters, which use observations one by one; where errors are correlated,
        what is kept was whitened with the observations before it.
        """
        return Projection(self.anomalies[:, which], self.innovation[which])

    @cached_property
    def gram(self) -> Float:
        """``G = S S'``, on the host."""
        with single_blas_thread():
            return np.asarray(to_host(self.anomalies @ self.anomalies.T))

    @cached_property
    def pull(self) -> Float:
        """``S d``, on the host."""
        with single_blas_thread():
            return np.asarray(to_host(self.anomalies @ self.innovation))

    @cached_property
    def misfit(self) -> float:
        """``d' d``: squared innovations in units of the errors of observation, summed."""
        return float((self.innovation * self.innovation).sum())

    @property
    def spread(self) -> float:
        """Trace of ``R^-1 H P H'``: variance of observed members in units of the errors."""
        return float(np.trace(self.gram))

    @cached_property
    def modes(self) -> tuple[Float, Float, Float]:
        """Eigenvalues and eigenvectors V of G, and the pull along these, ``V' S d``; on the host.

        Where observations are far more accurate than the ensemble, rounding of G would drown the
        directions that nobody observes: S itself is decomposed then.
        """
        with single_blas_thread():
            values, vectors = np.linalg.eigh(self.gram)
            if values[-1] <= STEEP:
                return np.maximum(values, 0.0), vectors, vectors.T @ self.pull
            xp = namespace(self.anomalies)
            both = xp.concatenate([self.anomalies.T, self.innovation[:, None]], axis=1)
            root = to_host(xp.linalg.qr(both, mode="r"))  # S' = Q root, d = Q right
            left, singular, right = np.linalg.svd(root[:, :-1].T)
        seen = np.zeros(self.size)
        seen[: singular.size] = singular
        seen[seen <= seen[0] * np.finfo(float).eps * max(self.size, self.count)] = 0.0
        along = np.zeros(self.size)
        along[: singular.size] = (right @ root[:, -1])[: singular.size]
        return seen * seen, left, seen * along

    @cached_property
    def weights(self) -> Float:
        """``w = (I + G)^-1 S d``: how far the mean moves along each anomaly."""
        values, vectors, pull = self.modes
        return np.asarray(vectors @ (pull / (1.0 + values)))

    @property
    def chi_square(self) -> float:
        """``(y - h)' (H P H' + R)^-1 (y - h)``; about p where ensemble and errors are right."""
        xp, weights = namespace(self.anomalies), self.weights
        left = self.innovation - xp.asarray(weights) @ self.anomalies
        return float((left * left).sum()) + float(weights @ weights)


def project(
    observed: Any, y: Any, errors: ErrorModel | ArrayLike, *, centre: Any = None
) -> Projection:
    """Whiten observations and observed members.

    Parameters
    ----------
    observed : array (N, p)
        Each member as the observations would see it, ``H(E_j)``.
    y : array (p,)
        Observations; NaN where missing, which is as if they were not given.
    errors : ErrorModel, float or array (p,)
        Errors of the observations; numbers are variances.
    centre : array (p,), optional
        Innovations are taken from here; the mean of `observed` by default. A nonlinear H seen at
        the mean state is an alternative.

    Returns
    -------
    Projection

    Raises
    ------
    ParameterError
        Shapes that do not fit, an ensemble of one, members that are NaN where others are not,
        observations that are infinite, all missing, or where no member has a value, and errors
        that are not positive.
    """
    members = as_members("the observed ensemble", observed)
    given = as_real("the observations", y)
    if members.ndim != 2 or given.shape != members.shape[1:]:
        raise ParameterError(
            f"the observed ensemble has shape {members.shape} and the observations have shape "
            f"{given.shape}; expected (N, p) and (p,)"
        )
    model = as_errors(errors, given.shape[0])
    xp = namespace(members)
    given = xp.asarray(given)
    members, given, model, centre = _present(members, given, model, centre)
    refuse_broken("the observed ensemble", members, what="observation")
    empty = to_host(~xp.isfinite(members[0]))
    if empty.any():
        raise ParameterError(
            f"no member has a value at {int(empty.sum())} of {empty.size} observations, the first "
            f"being number {int(np.flatnonzero(empty)[0])}: they may lie on land or outside the "
            "grid; leave them out"
        )
    return _whitened(xp, members, given, model, centre)


def _present(
    members: Any, y: Any, model: ErrorModel, centre: Any
) -> tuple[Any, Any, ErrorModel, Any]:
    """Leave out missing observations."""
    xp = namespace(y)
    infinite = int(xp.isinf(y).sum())
    if infinite:
        raise ParameterError(
            f"the observations hold {infinite} infinite values; missing ones are NaN"
        )
    keep = ~xp.isnan(y)
    if bool(keep.all()) and y.size:
        return members, y, model, centre
    if not bool(keep.any()):
        raise ParameterError(
            f"none of the {y.size} observations has a value; without any there is no analysis"
        )
    centre = centre if centre is None else xp.asarray(centre)[keep]
    return members[:, keep], y[keep], model.select(to_host(keep)), centre


def _whitened(xp: Any, members: Any, y: Any, model: ErrorModel, centre: Any) -> Projection:
    """Whiten, in blocks where the errors are independent: float64 costs memory once."""
    size, count = members.shape
    anomalies, innovation = xp.empty((size, count)), xp.empty(count)
    step = _BLOCK if isinstance(model, IndependentErrors) else count
    for start in range(0, count, step):
        part = slice(start, start + step)
        one = model if step == count else model.select(part)
        block = members[:, part].astype(np.float64)
        first = block[0].copy()
        block -= first  # what is summed is then of the size of the spread
        mean = block.mean(axis=0)
        block -= mean
        block *= (size - 1) ** -0.5
        middle = first + mean if centre is None else xp.asarray(centre)[part]
        anomalies[:, part] = one.whiten(block)
        innovation[part] = one.whiten(y[part] - middle)
    return Projection(anomalies, innovation)

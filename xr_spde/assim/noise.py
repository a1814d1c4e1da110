"""Errors of observations: what a filter has to know of them, and the independent kind."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from xr_spde._core.errors import ParameterError
from xr_spde.assim.arrays import as_real, namespace, to_host


@runtime_checkable
class ErrorModel(Protocol):
    """Gaussian errors of p observations, of covariance R."""

    @property
    def variance(self) -> Any:
        """Diagonal of R, shape (p,), in squared units of the observations."""

    def whiten(self, x: Any) -> Any:
        """Return ``R^-1/2 x`` for x of shape (..., p); any root, the same at every call."""

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> Any:
        """Draw errors of covariance R, shape ``(*shape, p)``."""

    def select(self, keep: Any) -> ErrorModel:
        """Return the errors of some observations, given by a mask (p,) or indices."""


class SparseForm(NamedTuple):
    """A covariance R of p errors as ``turn R turn' = rest``, both sparse.

    Attributes
    ----------
    turn : csr_array (p, p)
        Of full rank.
    rest : csr_array (p, p)
        Symmetric positive definite.
    log_turn : float
        ``log |det turn|``.
    """

    turn: Any
    rest: Any
    log_turn: float


class IndependentErrors:
    """Errors that are independent from observation to observation.

    Parameters
    ----------
    variance : array_like (p,)
        Variances, > 0, in squared units of the observations.

    Raises
    ------
    ParameterError
        If a variance is zero, negative or not finite, or the shape is not (p,).
    """

    def __init__(self, variance: ArrayLike) -> None:
        self.variance = as_real("the variance of the errors", variance)
        if self.variance.ndim != 1:
            raise ParameterError(
                f"the variance of the errors has shape {self.variance.shape}; expected (p,), one "
                "number per observation"
            )
        xp = namespace(self.variance)
        bad = to_host(~(xp.isfinite(self.variance) & (self.variance > 0)))
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise ParameterError(
                f"the variance of the errors is {float(self.variance[first])} at observation "
                f"{first}, and not a positive number at {int(bad.sum())} of {bad.size}; an exact "
                "observation is one with a small error, not with none"
            )

    def whiten(self, x: Any) -> Any:
        """Return ``x / std`` for x (..., p)."""
        xp = namespace(x)
        return x / xp.sqrt(xp.asarray(self.variance, dtype=x.dtype))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> Any:
        """Draw errors, shape ``(*shape, p)``, on the host."""
        std = np.sqrt(to_host(self.variance))
        return std * rng.standard_normal((*shape, std.size))

    def sparse_form(self) -> SparseForm:
        """Return R as sparse matrices; see :class:`SparseForm`."""
        variance = to_host(self.variance).astype(np.float64)
        return SparseForm(
            sp.csr_array(sp.eye_array(variance.size)), sp.csr_array(sp.diags_array(variance)), 0.0
        )

    def select(self, keep: Any) -> IndependentErrors:
        """Return the errors of some observations, given by a mask (p,) or indices."""
        xp = namespace(self.variance)
        return IndependentErrors(
            self.variance[keep if isinstance(keep, slice) else xp.asarray(keep)]
        )


def as_errors(errors: ErrorModel | ArrayLike, count: int) -> ErrorModel:
    """Turn what a user gives as errors into a model of them.

    Parameters
    ----------
    errors : ErrorModel, float or array_like (p,)
        A number or an array stands for variances (squares of standard deviations).
    count : int
        Number of observations p.

    Returns
    -------
    ErrorModel

    Raises
    ------
    ParameterError
        For variances that are not positive, or another number of them than of observations.
    """
    if not isinstance(errors, ErrorModel):
        given = as_real("the variance of the errors", errors)
        whole = namespace(given).full(count, given) if given.ndim == 0 else given
        errors = IndependentErrors(whole)
    if errors.variance.shape != (count,):
        raise ParameterError(
            f"the errors are those of {errors.variance.shape[0]} observations; there are {count}"
        )
    return errors

r"""Likelihood of observations under the space-time prior, the field integrated out, with gradient.

With observations ``d = H x + e + eps``, precision Q of x, P of errors e that are correlated (along
tracks) and independent errors eps of variances D, the density of d is that of a Gaussian, and

.. math::

    -2 \log p(d) = \log|K| - \log|Q| - \log|P| + \log|D| + J(x^*, e^*) + p \log 2 \pi,

with K the precision of (x, e) given d, and J the variational cost at its mean. The gradient of J at
its minimum is that of Q, P and D alone, and that of ``log|K|`` by an entry of Q the entry of
``K^-1``: together the second moments of x given d, where Q has entries. Selected inversion gives
them exactly; correlated errors add a dense matrix of the number of observations.

References
----------
Lindgren, Rue, Lindstrom (2011), J. R. Stat. Soc. B 73; Rue and Held (2005), Gaussian Markov Random
Fields; Takahashi, Fagan, Chin (1973).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from xr_spde._core.errors import SolverError
from xr_spde._core.memory import check_memory
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde_likelihood import (
    Likelihood,
    ParameterGradient,
    add_determinant,
    add_distances,
)
from xr_spde.solvers.grid_factor import GridFactor
from xr_spde.solvers.pattern import on_pattern

__all__ = ["CorrelatedErrors", "Evidence", "Sample", "negative_log_evidence"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CorrelatedErrors:
    """The part of the errors that is correlated.

    Attributes
    ----------
    precision : csr_array (p, p)
        Inverse of its covariance, such as tridiagonal along tracks.
    logdet : float
        Logarithm of the determinant of the precision.
    slopes : tuple of (csr_array (p, p), float)
        Derivatives of both by the numbers they depend on.
    root : csr_array (p, p), optional
        ``root' root`` is the precision; draws need it.
    """

    precision: sp.csr_array
    logdet: float
    slopes: tuple[tuple[sp.csr_array, float], ...] = ()
    root: sp.csr_array | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """Observations of one window.

    Attributes
    ----------
    rows : csr_array (p, steps * n)
        What is observed.
    innovation : ndarray (p,)
        Observed minus prior mean.
    variance : ndarray (p,)
        Of the independent errors.
    correlated : CorrelatedErrors, optional
        What is added to these.
    weight : float, default 1
        Of its log-likelihood in the sum.
    """

    rows: sp.csr_array
    innovation: Float
    variance: Float
    correlated: CorrelatedErrors | None = None
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Evidence(Likelihood):
    """Negative log-likelihood of observations and its gradient.

    Attributes
    ----------
    by_variance : list of ndarray (p,)
        Gradient by the variances of every sample.
    by_slopes : ndarray (q,)
        Gradient by the numbers that the correlated errors depend on.
    """

    by_variance: list[Float]
    by_slopes: Float


def negative_log_evidence(prior: SpaceTime, samples: Sequence[Sample]) -> Evidence:
    """Negative log-likelihood of the observations of windows, with its gradient.

    Parameters
    ----------
    prior : SpaceTime
        Of a window, without burn-in, the first state "stationary" or "rest".
    samples : sequence of Sample
        Of windows that count as independent.

    Returns
    -------
    Evidence

    Raises
    ------
    ParameterError
        As :class:`xr_spde.fields.interpolation.SpaceTimePosterior`.
    MemoryGuardError
        If a factor, its inverse, or the matrix of correlated errors would not fit.
    SolverError
        If a precision is not positive definite.

    Notes
    -----
    One factor and one selected inverse of the window for each sample: for a box of some ten
    thousand unknowns.
    """
    total = ParameterGradient(prior)
    slopes = max((len(s.correlated.slopes) for s in samples if s.correlated), default=0)
    by_slopes, by_variance, value = np.zeros(slopes), [], 0.0
    for sample in samples:
        own = ParameterGradient(prior)
        found, variances, inner = _Conditioned(prior, sample, own).evaluate()
        value += sample.weight * found
        by_variance.append(0.5 * sample.weight * variances)
        by_slopes[: inner.size] += 0.5 * sample.weight * inner
        total.coefficients += sample.weight * own.coefficients
        total.weights += sample.weight * own.weights
    count = sum(sample.weight for sample in samples)
    if count:
        value -= count * add_determinant(prior, count, total)
    return Evidence(0.5 * value, 0.5 * total.coefficients, 0.5 * total.by_tau(), prior,
                    by_variance, by_slopes)  # fmt: skip


class _Conditioned:
    """The field of a window given a sample."""

    def __init__(self, prior: SpaceTime, sample: Sample, gathered: ParameterGradient) -> None:
        self.prior, self.sample, self.gathered = prior, sample, gathered
        # which checks all sizes, and whether the factor fits
        self.posterior = SpaceTimePosterior(prior, sample.rows, sample.variance, solver="direct")
        self.rows = self.posterior.rows
        self.factor = self._factorise()

    def _factorise(self) -> GridFactor:
        """Factor of K for given correlated errors, with all entries that gradients need."""
        prior, total = self.prior, self.prior.total
        beside = sp.csc_array(self.gathered.pattern.T)
        chain = sp.eye_array(total)
        steps = sp.diags_array(np.ones(total - 1), offsets=1, shape=(total, total))
        pattern = sp.csc_array(sp.kron(chain, beside @ self.gathered.pattern))
        if total > 1:
            below = sp.kron(steps.T, beside)
            pattern = pattern + below + below.T
        seen = sp.csc_array(self.rows.T @ sp.diags_array(1.0 / self.sample.variance) @ self.rows)
        near = abs(seen) + pattern
        matrix = on_pattern(sp.csc_array(near), sp.csc_array(prior.precision() + seen))
        reach = self.posterior.blocks.reach
        return prior.factorise(matrix, reach, symmetric=True, layers=total)

    def evaluate(self) -> tuple[float, Float, Float]:
        """Minus twice the log-likelihood without ``log|Q|``, and gradients by D and by slopes."""
        s, rows, p = self.sample, self.rows, self.sample.innovation.size
        right = rows.T @ (s.innovation / s.variance)
        x, value = np.asarray(self.factor.solve(right)), p * math.log(2.0 * math.pi)
        columns, errors = x[:, None], np.zeros(p)
        inner, extra = np.zeros(0), np.zeros(p)
        if s.correlated is not None:
            x, errors, columns, extra, more, inner = self._correlated(right, x, s.correlated)
            value += more
        left = s.innovation - rows @ x - errors
        value += float(np.sum(left**2 / s.variance) + self.prior.mahalanobis(x))
        value += self.factor.logdet() + float(np.log(s.variance).sum())
        inverse = self.factor.inverse_on_pattern()
        extra += np.asarray(rows.multiply(rows @ inverse).sum(axis=1)).ravel()
        prior = self.prior
        states = columns.reshape(prior.total, prior.nodes, -1) * prior.sea[:, None]
        add_distances(prior, states, self.gathered)
        self._spread(inverse)
        return value, (s.variance - extra - left**2) / s.variance**2, inner

    def _correlated(
        self, right: Float, x: Float, given: CorrelatedErrors
    ) -> tuple[Float, Float, Float, Float, float, Float]:
        """Eliminate the field, and solve for the correlated errors."""
        s, rows, p = self.sample, self.rows, self.sample.innovation.size
        check_memory(
            8.0 * p * (3 * p + 3 * self.posterior.size),
            what=f"the likelihood of {p} observations with correlated errors on "
            f"{self.posterior.size} unknowns",
            remedy="Take a smaller box or shorter windows, or average along tracks.",
        )
        turned = np.asarray((rows.T @ sp.diags_array(1.0 / s.variance)).toarray())
        moved = np.asarray(self.factor.solve(turned))  # of the field, by each error
        seen = np.asarray(rows @ moved)
        schur = given.precision.toarray() - seen / s.variance[:, None]
        schur[np.diag_indices(p)] += 1.0 / s.variance
        try:
            root, _ = cho_factor(0.5 * (schur + schur.T), lower=True)
        except np.linalg.LinAlgError as error:
            raise SolverError("the precision of the correlated errors is singular") from error
        errors = np.asarray(cho_solve((root, True), s.innovation / s.variance - moved.T @ right))
        inverse = np.asarray(cho_solve((root, True), np.eye(p)))
        half = np.asarray(solve_triangular(root, np.eye(p), lower=True)).T  # half half' = inverse
        x = x - moved @ errors
        left = half - seen @ half
        value = 2.0 * float(np.log(np.diagonal(root)).sum()) - given.logdet
        value += float(errors @ (given.precision @ errors))
        inverse += np.outer(errors, errors)
        inner = [float(slope.multiply(inverse).sum()) - change for slope, change in given.slopes]
        columns = np.concatenate([x[:, None], moved @ half], axis=1)
        return x, errors, columns, np.sum(left**2, axis=1), value, np.array(inner)

    def _spread(self, inverse: sp.csc_array) -> None:
        """Add the gradient of ``log|K|``, from entries of ``K^-1``."""
        prior, n = self.prior, self.prior.nodes
        held = sp.csr_array(inverse)

        def block(row: int, column: int) -> sp.csr_array:
            return sp.csr_array(held[row * n : (row + 1) * n, column * n : (column + 1) * n])

        sets: dict[int, list[int]] = {}
        for step in range(1, prior.total):
            sets.setdefault(prior.set_of(step), []).append(step)
        own = block(0, 0)
        half, spread = _through(prior.transition(0), own)
        if prior.initial == "stationary":
            spread -= prior.sea * own.diagonal()
        self._add(0, half, spread)
        for steps in sets.values():
            own = sum((block(k, k) for k in steps[1:]), block(steps[0], steps[0]))
            past = sum((block(k - 1, k) for k in steps[1:]), block(steps[0] - 1, steps[0]))
            before = np.sum([block(k - 1, k - 1).diagonal() for k in steps], axis=0)
            matrix = prior.transition(steps[0])
            past = sp.csr_array(sp.diags_array(prior.sea) @ past)
            half, spread = _through(matrix, own)
            spread += prior.sea * before - 2.0 * np.asarray(past.multiply(matrix).sum(axis=1))
            self._add(steps[0], half - past, spread)

    def _add(self, step: int, gradient: sp.csr_array, spread: Float) -> None:
        """Add gradients by A, for ``W / 2``, and by W."""
        twice = sp.diags_array(2.0 * self.prior.weight(step))
        self.gathered.entries(step, sp.csc_array(twice @ gradient))
        self.gathered.weight(step, spread)


def _through(matrix: sp.csr_array, own: sp.csr_array) -> tuple[sp.csr_array, Float]:
    """Return ``A S``, and the diagonal of ``A S A'``."""
    half = sp.csr_array(matrix @ own)
    return half, np.asarray(half.multiply(matrix).sum(axis=1)).ravel()

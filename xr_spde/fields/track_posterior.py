r"""A space-time field given observations whose errors are correlated along tracks, exactly.

With independent errors of variances D and correlated ones e of precision P beside them, field and
correlated errors are unknowns together,

.. math::

    \begin{pmatrix} K & H' D^{-1} \\ D^{-1} H & P + D^{-1} \end{pmatrix}
    \begin{pmatrix} x \\ e \end{pmatrix} =
    \begin{pmatrix} H' D^{-1} d \\ D^{-1} d \end{pmatrix},
    \qquad K = Q + H' D^{-1} H,

which stays sparse, where the inverse of the sum of both covariances would not. Conjugate gradients
solve it, with K as for independent errors and the errors as one more block.

References
----------
Rue and Held (2005), Gaussian Markov Random Fields; Brankart, Ubelmann, Testut, Cosme, Brasseur,
Verron (2009), Mon. Weather Rev. 137 (correlated errors by an augmented observation vector).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.sparse.linalg import splu

from xr_spde._core.errors import ParameterError
from xr_spde._core.memory import memory_budget
from xr_spde.fields.conjugate import conjugate_gradients
from xr_spde.fields.interpolation import SpaceTimePosterior
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.spde_evidence import CorrelatedErrors

__all__ = ["TrackPosterior"]

Float = NDArray[np.float64]
LOGGER = logging.getLogger("xr_spde.solvers")


class TrackPosterior:
    """The anomalies of a window given observations with errors along tracks.

    Parameters
    ----------
    prior : SpaceTime
        Of the window.
    rows : csr_array (p, steps * n)
        What is observed.
    variance : ndarray (p,)
        Of the independent part of the errors.
    correlated : CorrelatedErrors
        Their other part.
    solver : {"auto", "direct", "pcg"}, default "auto"
        How K is solved; see :func:`xr_spde.fields.window_blocks.plan`.
    tol : float, default 1e-8
        Residual of conjugate gradients, relative to the right-hand side in the metric of the
        preconditioner.
    max_iterations : int, default 500
        Of conjugate gradients.

    Attributes
    ----------
    residual : float
        Of the last solution, relative to the right-hand side.
    iterations : int
        Of the last solution.

    Raises
    ------
    ParameterError, MemoryGuardError, SolverError
        As :class:`xr_spde.fields.interpolation.SpaceTimePosterior`.
    """

    def __init__(
        self,
        prior: SpaceTime,
        rows: sp.csr_array,
        variance: Float,
        correlated: CorrelatedErrors,
        *,
        solver: str = "auto",
        tol: float = 1e-8,
        max_iterations: int = 500,
    ) -> None:
        self.inner = SpaceTimePosterior(prior, rows, variance, solver=solver, tol=tol)
        self.prior, self.variance = prior, self.inner.variance
        self.rows, self.tol, self.max_iterations = self.inner.rows, tol, max_iterations
        if correlated.root is None:
            raise ParameterError("the correlated errors lack the root of their precision")
        self.correlated, self._root = correlated, correlated.root
        weighed = sp.diags_array(1.0 / self.variance)
        self._seen = sp.csr_array(weighed @ self.rows)  # D^-1 H
        self._turned = sp.csr_array(self._seen.T)
        self._own = sp.csr_array(correlated.precision + weighed)
        self._own_factor = splu(sp.csc_array(self._own))
        self.residual, self.iterations = 0.0, 0

    def apply(self, x: Float, e: Float) -> tuple[Float, Float]:
        """Product of the joint precision with fields (N, K) and errors (p, K)."""
        return self.inner.apply(x) + self._turned @ e, self._seen @ x + self._own @ e

    def _precondition(self, x: Float, e: Float) -> tuple[Float, Float]:
        """Fields, errors given fields, and fields given errors: symmetric block Gauss-Seidel."""
        z = self.inner.precondition(x)
        errors = np.asarray(self._own_factor.solve(e - self._seen @ z))
        return z - self.inner.precondition(self._turned @ errors), errors

    def solve(self, x: Float, e: Float) -> tuple[Float, Float]:
        """Solve with the joint precision.

        Parameters
        ----------
        x, e : ndarray (N, K), (p, K)
            Right-hand sides.

        Returns
        -------
        ndarray (N, K), ndarray (p, K)
            Field and errors; a column does not depend on the others.

        Raises
        ------
        SolverError
            If conjugate gradients do not reach `tol` in `max_iterations`.
        """
        n, right = len(x), np.concatenate([x, e])

        def both(step: Callable[[Float, Float], tuple[Float, Float]], v: Float) -> Float:
            return np.concatenate(step(v[:n], v[n:]))

        found, self.iterations = conjugate_gradients(
            partial(both, self.apply), partial(both, self._precondition), right,
            tol=self.tol, max_iterations=self.max_iterations,
            what="conjugate gradients with errors along tracks",
            remedy="allow a larger tol, or a smaller share of correlated errors",
        )  # fmt: skip
        left = np.linalg.norm(right - both(self.apply, found), axis=0)
        self.residual = float((left / np.maximum(np.linalg.norm(right, axis=0), 1e-300)).max())
        LOGGER.info("conjugate gradients with errors along tracks: %d iterations", self.iterations)
        return found[:n], found[n:]

    def mean(self, innovation: Float) -> Float:
        """Posterior mean of the anomalies.

        Parameters
        ----------
        innovation : ndarray (p,) or (K, p)
            Observed minus prior mean.

        Returns
        -------
        ndarray (steps, ny, nx) or (K, steps, ny, nx)
            Zero on land.
        """
        many = np.atleast_2d(innovation).T
        right = many / self.variance[:, None]
        out = self.inner.window(self.solve(np.asarray(self._turned @ many), right)[0].T)
        return out if innovation.ndim == 2 else out[0]

    def draw(self, innovation: Float, noise: Float, errors: Float) -> Float:
        """Draws given the observations: prior draws moved by what they miss.

        Parameters
        ----------
        innovation : ndarray (p,)
            Observed minus prior mean.
        noise : ndarray (K, total, n)
            White noise of the prior draws.
        errors : ndarray (K, p)
            Draws of the whole errors, correlated as they are.

        Returns
        -------
        ndarray (K, steps, ny, nx)
            Anomalies, zero on land.
        """
        fields = self.prior.sample(noise).reshape(len(noise), -1)
        missed = (innovation - (self.rows @ fields.T).T - errors).T
        right = missed / self.variance[:, None]
        return self.inner.window(fields + self.solve(np.asarray(self._turned @ missed), right)[0].T)

    def deviation(self, *, draws: int = 100, noise: np.random.Generator | None = None) -> Float:
        """Posterior standard deviation.

        Exact where K has one block and fields for every observation fit in memory. Else
        Rao-Blackwellised: the variance of a block given the other blocks and the correlated errors
        is exact, and that of its mean given these is estimated from `draws`.

        Parameters
        ----------
        draws : int, default 100
            Number of draws, where they are needed.
        noise : Generator, optional
            Their random stream.

        Returns
        -------
        ndarray (steps, ny, nx)
            Zero on land.

        Raises
        ------
        ParameterError
            If draws are needed and there are fewer than two, or no stream.
        """
        p, size = self.variance.size, self.inner.size
        if self.inner.blocks.direct and 16.0 * p * (p + size) <= 0.5 * memory_budget():
            return self._exact()
        if draws < 2 or noise is None:
            raise ParameterError(
                f"draws={draws}, noise={noise}: the deviation with correlated errors takes at "
                "least two draws and a random stream"
            )
        inner, n = self.inner, self.prior.nodes
        variance = np.concatenate([factor.inverse_diagonal() for factor in inner.factors])
        total, width = np.zeros(inner.size), inner.factors[0].width
        root = splu(sp.csc_array(self._root))
        for start in range(0, draws, width):
            count = min(width, draws - start)
            fields = self.prior.sample(noise.standard_normal((count, self.prior.total, n)))
            white = noise.standard_normal((2, self.variance.size, count))
            x = np.ascontiguousarray(fields.reshape(count, -1).T)
            e = np.asarray(root.solve(white[0]))
            seen = self.rows @ x + e + white[1] * np.sqrt(self.variance)[:, None]
            moved = self.solve(np.asarray(self._turned @ seen), seen / self.variance[:, None])
            x, e = x - moved[0], e - moved[1]
            others = self.apply(x, e)[0]
            for k, (first, last) in enumerate(pairwise(inner.blocks.bounds)):
                part = slice(first * n, last * n)
                away = inner.solve_block(k, others[part], False) - x[part]
                total[part] += np.einsum("ik,ik->i", away, away)
        spread = inner.window((variance + total / draws)[None])[0]
        return np.asarray(np.sqrt(np.maximum(spread, 0.0)))

    def _exact(self) -> Float:
        """Posterior standard deviation: the errors eliminate the field."""
        moved = self.inner.precondition(self._turned.toarray())
        schur = self._own.toarray() - self._seen @ moved
        root = np.linalg.cholesky(0.5 * (schur + schur.T))
        half = solve_triangular(root, moved.T, lower=True)
        variance = self.inner.factors[0].inverse_diagonal() + np.sum(half**2, axis=0)
        return np.asarray(np.sqrt(np.maximum(self.inner.window(variance[None])[0], 0.0)))

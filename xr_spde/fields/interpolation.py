r"""A space-time field given linear observations of it: optimal interpolation, exactly.

With the prior precision Q of :mod:`xr_spde.fields.spacetime`, rows H and error variances R, the
posterior has precision and mean

.. math::

    K = Q + H' R^{-1} H, \qquad x^* = K^{-1} H' R^{-1} d,

which minimises ``J(x) = (d - H x)' R^-1 (d - H x) + x' Q x``. The steps are cut into blocks, each
factorised by dissection of the grid with all its steps at every node. One block is a direct solver.
Several precondition conjugate gradients, sweeping through time forward and back (symmetric block
Gauss-Seidel); as they hold the observations of their steps, few iterations are left.

References
----------
Rue and Held (2005), Gaussian Markov Random Fields; Beauchamp et al. (2025), AIES, arXiv 2402.01855;
Siden, Lindgren, Bolin, Villani (2018), J. Comput. Graph. Stat. 27 (Rao-Blackwellised variances).
"""

from __future__ import annotations

import logging
import math
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.conjugate import conjugate_gradients
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.fields.water_factor import WaterFactor
from xr_spde.fields.window_blocks import factorise, plan, spread
from xr_spde.solvers.grid_factor import GridFactor

__all__ = ["SpaceTimePosterior"]

Float = NDArray[np.float64]
LOGGER = logging.getLogger("xr_spde.solvers")

_LOG_2PI = math.log(2.0 * math.pi)


class SpaceTimePosterior:
    """The anomalies of a window given observations, with everything factorised.

    Parameters
    ----------
    prior : SpaceTime
        Of the window.
    rows : csr_array (p, steps * n)
        What is observed of the window (its burn-in left out). Entries on land do not count.
    variance : ndarray (p,)
        Of independent errors.
    solver : {"auto", "direct", "pcg"}, default "auto"
        See :func:`xr_spde.fields.window_blocks.plan`.
    tol : float, default 1e-8
        Residual of conjugate gradients, relative to the right-hand side in the metric of the
        preconditioner.
    max_iterations : int, default 500
        Of conjugate gradients.

    Attributes
    ----------
    blocks : xr_spde.fields.window_blocks.Blocks
        What was chosen; the logger ``xr_spde.solvers`` says so at the level INFO.
    residual : float
        Of the last solution, relative to the right-hand side.
    iterations : int
        Of the last solution; 0 for a direct one.

    Raises
    ------
    ParameterError
        For rows or variances that do not fit, or variances that are not positive.
    MemoryGuardError, UnknownNameError
        As for :func:`xr_spde.fields.window_blocks.plan`.
    SolverError
        If the precision is too near singular, or conjugate gradients do not converge.
    """

    def __init__(
        self,
        prior: SpaceTime,
        rows: sp.csr_array,
        variance: Float,
        *,
        solver: str = "auto",
        tol: float = 1e-8,
        max_iterations: int = 500,
    ) -> None:
        variance = np.asarray(variance, dtype=np.float64)
        if rows.shape != (variance.size, prior.steps * prior.nodes) or variance.ndim != 1:
            raise ParameterError(
                f"rows have shape {rows.shape} and variance {variance.shape}; expected (p, "
                f"{prior.steps * prior.nodes}) and (p,)"
            )
        bad = ~(np.isfinite(variance) & (variance > 0.0))
        if bad.any():
            raise ParameterError(
                f"{int(bad.sum())} of {bad.size} error variances are not positive, the first at "
                f"index {int(np.argmax(bad))}; expected finite numbers > 0"
            )
        self.prior, self.variance, self.tol = prior, variance, tol
        self.max_iterations = max_iterations
        before = sp.csr_array((variance.size, prior.burn_in * prior.nodes))
        water = sp.diags_array(np.tile(prior.sea, prior.steps))
        self.rows = sp.csr_array(sp.hstack([before, rows @ water]))
        self.rows.eliminate_zeros()
        self._turned = sp.csr_array(self.rows.T)
        self._information = sp.csr_array(self._turned @ sp.diags_array(1.0 / variance) @ self.rows)
        reach = max(prior.coupling, spread(self.rows, prior))
        self.blocks = plan(prior, reach=reach, solver=solver)
        LOGGER.info("%d steps on %s, solver=%r: %s", prior.total, prior.operator.mesh.shape,
                    solver, self.blocks)  # fmt: skip
        self.residual, self.iterations = 0.0, 0

    @property
    def size(self) -> int:
        """Number of unknowns, with burn-in and land."""
        return self.prior.total * self.prior.nodes

    @cached_property
    def factors(self) -> list[GridFactor | WaterFactor]:
        """Factors of the diagonal blocks of K, made when first asked for."""
        found = []
        for first, last in pairwise(self.blocks.bounds):
            held: list[list[sp.csc_array | None]] = [
                [None] * (last - first) for _ in range(first, last)
            ]
            for step in range(first, last):
                held[step - first][step - first] = self.prior.diagonal_block(step)
                for back in range(1, min(step - first, self.prior.order) + 1):
                    below = self.prior.block_below(step, back)
                    held[step - first][step - first - back] = below
                    held[step - first - back][step - first] = sp.csc_array(below.T)
            part = slice(first * self.prior.nodes, last * self.prior.nodes)
            matrix = sp.csc_array(
                sp.block_array(held, format="csc") + self._information[part, part]
            )
            found.append(factorise(self.prior, matrix, self.blocks.reach, last - first))
        return found

    @cached_property
    def _beside(self) -> list[sp.csr_array]:
        """Rows of K of every block but the first, in the columns of the steps before it."""
        n, found = self.prior.nodes, []
        for first, last in pairwise(self.blocks.bounds[1:]):
            own = sp.csr_array(self._information[first * n : last * n, : first * n])
            for step in range(first, min(first + self.prior.order, last)):
                for back in range(step - first + 1, min(step, self.prior.order) + 1):
                    corner = sp.coo_array(self.prior.block_below(step, back))
                    rows, columns = corner.row + (step - first) * n, corner.col + (step - back) * n
                    own = own + sp.csr_array(
                        sp.coo_array((corner.data, (rows, columns)), shape=own.shape)
                    )
            found.append(sp.csr_array(own))
        return found

    def apply(self, x: Float) -> Float:
        """Product of K with vectors (N,) or (N, K)."""
        return np.asarray(self.prior.apply(x) + self._information @ x)

    def solve(self, b: Float) -> Float:
        """Solve with K.

        Parameters
        ----------
        b : ndarray (N,) or (N, K)
            Right-hand sides; N = total * n.

        Returns
        -------
        ndarray, shape of b

        Raises
        ------
        SolverError
            If conjugate gradients do not reach `tol` in `max_iterations`.
        """
        right = np.ascontiguousarray(b.reshape(self.size, -1))
        if self.blocks.direct:
            x, self.iterations = self.solve_block(0, right, b.ndim == 1), 0
        else:
            x = self._conjugate_gradients(right, b.ndim == 1)
        left = np.linalg.norm(right - self.apply(x), axis=0)
        self.residual = float((left / np.maximum(np.linalg.norm(right, axis=0), 1e-300)).max())
        return np.asarray(x.reshape(b.shape))

    def solve_block(self, k: int, right: Float, single: bool) -> Float:
        """Solve with one block; a single column takes the faster way, with other last bits."""
        if single:
            return np.asarray(self.factors[k].solve(right[:, 0])[:, None])
        return np.asarray(self.factors[k].solve(np.ascontiguousarray(right)))

    def precondition(self, right: Float) -> Float:
        """Solve with K roughly, by one sweep of the blocks; exactly where there is one block."""
        if self.blocks.direct:
            return self.solve_block(0, right, False)
        return self._precondition(right, False)

    def _conjugate_gradients(self, right: Float, single: bool) -> Float:
        """Solve for all columns side by side."""
        x, self.iterations = conjugate_gradients(
            self.apply, lambda r: self._precondition(r, single), right,
            tol=self.tol, max_iterations=self.max_iterations, what="conjugate gradients",
            remedy='allow more max_iterations, a larger tol, or solver="direct" where there is '
            "memory for it",
        )  # fmt: skip
        LOGGER.info("conjugate gradients: %d iterations", self.iterations)
        return x

    def _precondition(self, r: Float, single: bool) -> Float:
        """One sweep of the blocks forward in time, and one back."""
        n, bounds = self.prior.nodes, self.blocks.bounds
        parts = [slice(a * n, b * n) for a, b in pairwise(bounds)]
        y = np.empty_like(r)
        for k, part in enumerate(parts):
            known = r[part]
            if k:
                known = known - self._beside[k - 1] @ y[: part.start]
            y[part] = self.solve_block(k, known, single)
        late = np.zeros_like(r)
        for k in range(len(parts) - 1, 0, -1):
            late[: parts[k].start] += self._beside[k - 1].T @ y[parts[k]]
            before = parts[k - 1]
            y[before] -= self.solve_block(k - 1, late[before], single)
        return y

    def mean(self, innovation: Float) -> Float:
        """Posterior mean of the anomalies.

        Parameters
        ----------
        innovation : ndarray (p,) or (K, p)
            Observed minus prior mean. A row of (K, p) does not depend on the others, bit for bit;
            (p,) is faster, with other last bits.

        Returns
        -------
        ndarray (steps, ny, nx) or (K, steps, ny, nx)
            Zero on land.
        """
        x = self.solve(np.asarray(self._turned @ (innovation / self.variance).T))
        out = self.window(x.reshape(self.size, -1).T)
        return out if innovation.ndim == 2 else out[0]

    def window(self, x: Float) -> Float:
        """Return fields (K, steps, ny, nx), zero on land, of unknowns (K, N)."""
        prior = self.prior
        states = x.reshape(-1, prior.total, prior.nodes)[:, prior.burn_in :] * prior.sea
        return np.asarray(states.reshape(len(x), prior.steps, *prior.operator.mesh.shape))

    def draw(self, innovation: Float, noise: Float, errors: Float) -> Float:
        """Draws given the observations: prior draws moved by what they miss.

        Parameters
        ----------
        innovation : ndarray (p,)
            Observed minus prior mean.
        noise : ndarray (K, total, n)
            White noise of the prior draws.
        errors : ndarray (K, p)
            White noise of the observation errors, without which draws would stay too near the
            observations.

        Returns
        -------
        ndarray (K, steps, ny, nx)
            Anomalies, zero on land.
        """
        fields = self.prior.sample(noise).reshape(len(noise), -1)
        seen = (self.rows @ fields.T).T + errors * np.sqrt(self.variance)
        right = np.asarray(self._turned @ ((innovation - seen) / self.variance).T)
        return self.window(fields + self.solve(right).T)

    def deviation(self, *, draws: int = 100, noise: np.random.Generator | None = None) -> Float:
        r"""Posterior standard deviation.

        Exact with one block, by selected inversion. With several, Rao-Blackwellised: the variance
        of a block given the others is exact, and that of its mean given the others is estimated
        from `draws`, for a fraction of the noise of a plain estimate.

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
        variance = np.concatenate([factor.inverse_diagonal() for factor in self.factors])
        if not self.blocks.direct:
            if draws < 2 or noise is None:
                raise ParameterError(
                    f"draws={draws}, noise={noise}: the exact deviation would not fit, and "
                    "estimating it takes at least two draws and a random stream"
                )
            variance = variance + self._spread_of_means(draws, noise)
        return np.asarray(np.sqrt(np.maximum(self.window(variance[None])[0], 0.0)))

    def _spread_of_means(self, draws: int, noise: np.random.Generator) -> Float:
        """Variance of the mean of every block given draws of the others (N,)."""
        n, bounds, prior = self.prior.nodes, self.blocks.bounds, self.prior
        total = np.zeros(self.size)
        width = self.factors[0].width
        for start in range(0, draws, width):
            count = min(width, draws - start)
            fields = prior.sample(noise.standard_normal((count, prior.total, n)))
            errors = noise.standard_normal((self.variance.size, count))
            x = np.ascontiguousarray(fields.reshape(count, -1).T)
            seen = self.rows @ x + errors * np.sqrt(self.variance)[:, None]
            x -= self.solve(np.asarray(self._turned @ (seen / self.variance[:, None])))
            others = self.apply(x)
            for k, (first, last) in enumerate(pairwise(bounds)):
                part = slice(first * n, last * n)
                # K_II^-1 K_I. x_. is x_I plus what the other blocks say of it, of opposite sign
                moved = self.solve_block(k, others[part], False) - x[part]
                total[part] += np.einsum("ik,ik->i", moved, moved)
        return np.asarray(total / draws)

    def cost(self, x: Float, innovation: Float) -> float:
        """Variational cost ``J`` of a field, which the posterior mean minimises.

        Parameters
        ----------
        x : ndarray (N,)
            Anomalies, with those of the burn-in.
        innovation : ndarray (p,)
            Observed minus prior mean.

        Returns
        -------
        float
        """
        left = innovation - self.rows @ x
        return float(np.sum(left**2 / self.variance) + self.prior.mahalanobis(x))

    def log_likelihood(self, innovation: Float) -> tuple[float, float]:
        """Log density of the observations, the field integrated out; direct solver only.

        Parameters
        ----------
        innovation : ndarray (p,)
            Observed minus prior mean.

        Returns
        -------
        value : float
            ``-(p log(2 pi) + log|S| + chi2) / 2`` with ``S = H Q^-1 H' + R``.
        chi2 : float
            ``d' S^-1 d``, near p where prior and errors are right.

        Raises
        ------
        ParameterError
            If there are several blocks, whose determinant is not known.
        """
        if not self.blocks.direct:
            raise ParameterError(
                'the likelihood of observations needs solver="direct"; use a smaller domain or '
                "fewer steps"
            )
        x = self.solve(np.asarray(self._turned @ (innovation / self.variance)))
        chi2 = self.cost(x, innovation)
        logdet = self.factors[0].logdet() - self.prior.log_determinant()
        logdet += float(np.log(self.variance).sum())
        return -0.5 * (innovation.size * _LOG_2PI + logdet + chi2), chi2

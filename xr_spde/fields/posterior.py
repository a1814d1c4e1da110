"""A Gaussian field given linear observations of it: mean, variance, draws and evidence, exactly.

In the notation of :mod:`xr_spde.fields.conditioning`, with ``G = H D``, the pair (y, a) minimises

    |B y|^2 + |a|^2 + (d - G y - H P a)' R^-1 (d - G y - H P a) .

Rows of H that stay within the stencil of ``Q = B'B`` and have independent errors enter the sparse
precision ``K = Q + G' R^-1 G``, which is factorised on the grid; its selected inverse gives the
variance. All others, and the patterns, border it: eliminating y from the stationary equations

    K y + X c = G' R^-1 d,   X' y + T c = t,

leaves a dense symmetric ``M = T - X' K^-1 X`` with one row per pattern and per such observation.
Many of the others become unknowns of a sparse matrix instead, :mod:`xr_spde.fields.augmented`.
Where K is Q alone, all is done with the factor of B, and M is the covariance of the observations.
Draws are prior draws moved by the mean of what they miss ("conditioning by kriging").

References
----------
Rue and Held (2005), Gaussian Markov Random Fields, sections 2.3 and 2.4; Lindgren, Rue and
Lindstrom (2011), J. R. Stat. Soc. B 73; LatticeVision, arXiv 2505.09803, for B.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import SolverError
from xr_spde._core.memory import check_memory
from xr_spde._core.warn import warn
from xr_spde.fields import moments
from xr_spde.fields.conditioning import REACH, Conditioning
from xr_spde.solvers.cache import FACTORS
from xr_spde.solvers.choose import LOGGER
from xr_spde.solvers.grid_factor import GridFactor

__all__ = ["Posterior", "posterior"]

Float = NDArray[np.float64]

MANY_COLUMNS = 2000
"""Observations by columns from which a warning says that they take long."""

_COLUMNS = 64
_LOG_2PI = math.log(2.0 * math.pi)


def posterior(recipe: Conditioning) -> Posterior:
    """Return what all results of a recipe share, from this process's cache.

    Parameters
    ----------
    recipe : Conditioning
        What is conditioned on what.

    Returns
    -------
    Posterior

    Raises
    ------
    MemoryGuardError
        If a factor would not fit.
    SolverError
        If the precision is too near singular for its factor.
    """
    if recipe.augmented:
        from xr_spde.fields.augmented import AugmentedPosterior  # which builds on this module

        return FACTORS.get(("posterior", recipe.key), lambda: AugmentedPosterior(recipe))
    return FACTORS.get(("posterior", recipe.key), lambda: Posterior(recipe))


class Posterior:
    """The field given the observations, with everything factorised.

    Parameters
    ----------
    recipe : Conditioning
        What is conditioned on what.
    """

    def __init__(self, recipe: Conditioning) -> None:
        self.recipe, self.model = recipe, recipe.model
        near = recipe.near
        self._near, self._far = np.flatnonzero(near), np.flatnonzero(~near)
        rows = recipe.padded_rows
        self._g, self._g_far = rows[self._near], rows[self._far]
        self._weight = 1.0 / np.asarray(recipe.errors.variance)[self._near]
        self._b: Any = self.model.matrix() if near.any() else None
        self._factor = self._factorise() if near.any() else None
        # columns of the border: patterns as the near observations see them, then far observations
        self._by_near = self._weight[:, None] * recipe.loads[self._near]
        self._guard()
        self._by_far = sp.csr_array((0, 0))
        if self._far.size:
            root = recipe.errors.select(~near).whiten(np.eye(self._far.size))
            self._by_far = sp.csr_array(np.asarray(root))
        self._root = sp.csr_array(self._by_far.T)
        LOGGER.info(
            "%d observations: %d in the sparse precision, %d by columns, %d patterns",
            *(recipe.size, self._near.size, self._far.size, recipe.loads.shape[1]),
        )
        self._values, self._vectors = np.linalg.eigh(self._bordered())

    def _guard(self) -> None:
        """Refuse a border that would not fit in memory."""
        border = self.modes + self._far.size
        check_memory(
            32.0 * border**2,
            what=f"conditioning on {self._far.size} observations that need a column each",
            remedy='With route="augmented" they need none; or thin or join them, or use an '
            "ensemble method.",
        )
        if self._far.size > MANY_COLUMNS:
            warn(
                f"{self._far.size} of {self.recipe.size} observations take a column each: expect "
                'minutes, growing with the cube of their number; route="augmented" takes none '
                "(errors that are independent, AlongTrack or in blocks)"
            )

    def _factorise(self) -> GridFactor:
        """Factorise K."""
        weighted = sp.csr_array(sp.diags_array(self._weight) @ self._g)
        matrix = sp.csc_array(self._b.T @ self._b + self._g.T @ weighted)
        shape, boundary = self.model.padded_shape, self.model.boundary
        try:
            return GridFactor(matrix, shape=shape, boundary=boundary, reach=REACH, symmetric=True)
        except SolverError as error:
            raise SolverError(
                f'{error}; or take route="covariance", which has no need of the squared operator '
                f"but one column for each of {self.recipe.size} observations"
            ) from error

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        held = 0 if self._factor is None else self._factor.nbytes
        return held + self._vectors.nbytes + self._by_near.nbytes + 24 * self._by_far.nnz

    @property
    def modes(self) -> int:
        """Number of patterns."""
        return int(self.recipe.loads.shape[1])

    def _solve(self, b: Float) -> Float:
        """``K^-1 b`` for b (size, k), each column by itself."""
        if self._factor is None:
            held = self.model.factor()
            return np.asarray(held.solve(held.solve_transposed(b)))
        x: Float = self._factor.solve(b)
        # one step of refinement, with the residual by the operator itself rather than its square
        fitted = self._b.T @ (self._b @ x)
        fitted += self._g.T @ (self._weight[:, None] * (self._g @ x))
        x += self._factor.solve(b - fitted)
        return x

    def _spread(self, near: Float, far: Float) -> Float:
        """``G'`` times numbers (p, k) at the observations."""
        out: Float = np.zeros((self.model.size, near.shape[1]))
        if self._near.size:
            out += self._g.T @ near
        if self._far.size:
            out += self._g_far.T @ far
        return out

    def _border(self, y: Float) -> Float:
        """``X' y`` (r, k)."""
        patterns = _columns(self._by_near.T, self._g @ y)
        return np.concatenate([patterns, np.asarray(self._root @ (self._g_far @ y))])

    def _columns_of_x(self, turn: Float) -> Float:
        """``X turn`` for turn (r, k)."""
        near = self._by_near @ turn[: self.modes]
        return self._spread(near, np.asarray(self._by_far @ turn[self.modes :]))

    def _bordered(self) -> Float:
        """Compute the dense matrix M (r, r)."""
        m, r = self.modes, self.modes + self._far.size
        matrix = np.zeros((r, r))
        loads = self.recipe.loads
        matrix[:m, :m] = np.eye(m) + loads[self._near].T @ self._by_near
        matrix[m:, m:] = -np.eye(r - m)
        matrix[m:, :m] = np.asarray(self._root @ loads[self._far])
        matrix[:m, m:] = matrix[m:, :m].T
        for start in range(0, r, _COLUMNS):
            part = slice(start, min(start + _COLUMNS, r))
            solved = self._solve(self._columns_of_x(np.eye(r)[:, part]))
            matrix[:, part] -= self._border(solved)
        return 0.5 * (matrix + matrix.T)

    def solve(self, innovation: Float) -> tuple[Float, Float]:
        """Posterior mean of y and a.

        Parameters
        ----------
        innovation : ndarray (K, p)
            Observed minus prior mean; each row is solved for by itself, bit for bit.

        Returns
        -------
        y : ndarray (K, size)
            On the padded grid.
        a : ndarray (K, m)
            Amplitudes of the patterns.
        """
        rows = np.atleast_2d(np.asarray(innovation, dtype=np.float64))
        near = self._weight[:, None] * rows[:, self._near].T
        far = np.zeros((self._far.size, len(rows)))
        y = np.zeros((self.model.size, len(rows)))
        if self._near.size:
            y = self._solve(self._spread(near, far))
        amplitudes = np.zeros((self.modes, len(rows)))
        if self._values.size:
            white = np.asarray(self._root @ rows[:, self._far].T)
            seen = _columns(self.recipe.loads[self._near].T, near)
            right = np.concatenate([seen, white])
            turned = _columns(self._vectors.T, right - self._border(y))
            c = _columns(self._vectors, turned / self._values[:, None])
            amplitudes = c[: self.modes]
            near = near - _columns(self._by_near, amplitudes)
            far = -np.asarray(self._by_far @ c[self.modes :])
            y = self._solve(self._spread(near, far))
        return y.T, amplitudes.T

    def increment(self, innovation: Float) -> Float:
        """Posterior mean of u, where its prior mean is zero.

        Parameters
        ----------
        innovation : ndarray (K, p)
            Observed minus prior mean.

        Returns
        -------
        ndarray (K, ny, nx)
        """
        y, amplitudes = self.solve(innovation)
        return self.assemble(y, amplitudes)

    def assemble(self, y: Float, amplitudes: Float) -> Float:
        """Put the field together: ``u = D y + P a``.

        Parameters
        ----------
        y : ndarray (K, size)
            On the padded grid.
        amplitudes : ndarray (K, m)
            Of the patterns.

        Returns
        -------
        ndarray (K, ny, nx)
        """
        (ny, nx), (dy, dx) = self.model.shape, self.model.rim
        whole = y.reshape(-1, *self.model.padded_shape)
        return self._combined(whole[:, dy : dy + ny, dx : dx + nx], amplitudes)

    def prior(self, noise: Float, amplitudes: Float) -> Float:
        """Draw u from its prior.

        Parameters
        ----------
        noise : ndarray (K, size)
            White noise.
        amplitudes : ndarray (K, m)
            Of the patterns, standard normal.

        Returns
        -------
        ndarray (K, ny, nx)
        """
        return self._combined(self.model.sample(noise), amplitudes)

    def _combined(self, fields: Float, amplitudes: Float) -> Float:
        scaled = fields * (1.0 if self.recipe.scale is None else self.recipe.scale)
        for k, pattern in enumerate(self.recipe.flat_patterns):
            scaled += amplitudes[:, k, None, None] * pattern.reshape(fields.shape[1:])
        return scaled

    def variance(self) -> Float:
        """Posterior variance of u.

        Returns
        -------
        ndarray (ny, nx)
            Exact, but where the variance of the model itself had to be probed
            (:func:`xr_spde.fields.moments.variance`).
        """
        (ny, nx), (dy, dx) = self.model.shape, self.model.rim
        if self._factor is None:
            own = self.model.variance()
        else:
            whole = self._factor.inverse_diagonal().reshape(self.model.padded_shape)
            own = whole[dy : dy + ny, dx : dx + nx]
        found = own * (1.0 if self.recipe.scale is None else self.recipe.scale**2)
        for start in range(0, self._values.size, _COLUMNS):
            turn = self._vectors[:, start : start + _COLUMNS]
            solved = self._solve(self._columns_of_x(turn))
            part = self.assemble(-solved.T, turn[: self.modes].T)
            found = found + np.einsum(
                "kji,k->ji", part**2, 1.0 / self._values[start : start + _COLUMNS]
            )
        return np.maximum(found, 0.0)

    def log_likelihood(self, innovation: Float) -> tuple[float, float]:
        """Log density of the observations, the field integrated out.

        Parameters
        ----------
        innovation : ndarray (p,)
            Observed minus prior mean.

        Returns
        -------
        value : float
            ``-(p log(2 pi) + log|S| + chi2) / 2`` with ``S = H U H' + R``, U the prior covariance.
        chi2 : float
            ``d' S^-1 d``, of expectation p where model and errors are right.
        """
        d = np.asarray(innovation, dtype=np.float64)
        y, amplitudes = self.solve(d[None])
        left = d - np.asarray(self.recipe.padded_rows @ y[0]) - self.recipe.loads @ amplitudes[0]
        innovations = self.model.matrix() @ y[0]
        chi2 = float(np.sum(self.recipe.errors.whiten(left) ** 2) + innovations @ innovations)
        chi2 += float(amplitudes[0] @ amplitudes[0])
        return -0.5 * (d.size * _LOG_2PI + self._logdet() + chi2), chi2

    def _logdet(self) -> float:
        """Compute ``log|S|``, of the covariance of the observations."""
        logdet = self.recipe.log_r + float(np.log(np.abs(self._values)).sum())
        if self._factor is not None:
            own = float(moments.log_determinant(self.model).value)
            logdet += self._factor.logdet() - 2.0 * own
        return logdet


def _columns(matrix: Float, right: Float) -> Float:
    """Product whose columns depend on those of the right alone, bit for bit."""
    right = np.asarray(right)
    if not matrix.size or not right.size:
        return np.zeros((matrix.shape[0], right.shape[1]))
    return np.stack([matrix @ column for column in np.ascontiguousarray(right.T)], axis=1)

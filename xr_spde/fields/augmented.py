"""A Gaussian field given many observations that are wide, or whose errors are correlated.

In the notation of :mod:`xr_spde.fields.conditioning`: observations that stay within the stencil
enter the precision K. Each of the others would couple all the nodes that it sees, or all that its
errors are correlated with. They are kept as unknowns of their own instead, the multipliers l,
beside the nodes y and the amplitudes a:

    K y + G' l + G_n' W P_n a           = G_n' W d_n
    G y - R l + P_o a                   = d
    P_n' W G_n y + P_o' l + (I + P_n' W P_n) a = P_n' W d_n

with ``P_o`` the patterns as they are observed and n for those in the precision. After a sparse
change of the observations (``turn``) R is sparse too, tridiagonal along tracks. Eliminating l gives
the posterior precision of (y, a): its inverse, and its determinant, are those of the whole.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import SolverError
from xr_spde.fields import moments
from xr_spde.fields.conditioning import Conditioning
from xr_spde.fields.posterior import Posterior
from xr_spde.solvers.choose import LOGGER
from xr_spde.solvers.multifrontal import MultifrontalFactor

__all__ = ["AugmentedPosterior"]

Float = NDArray[np.float64]

_REFINED = 2
_PROBES = 8


class AugmentedPosterior(Posterior):
    """The field given the observations, with multipliers for those outside the stencil.

    Parameters
    ----------
    recipe : Conditioning
        What is conditioned on what.

    Raises
    ------
    MemoryGuardError
        If the factor would not fit in memory.
    SolverError
        If the whole is too near singular.
    """

    def __init__(self, recipe: Conditioning) -> None:
        self.recipe, self.model = recipe, recipe.model
        near = recipe.near
        self._near, self._far = np.flatnonzero(near), np.flatnonzero(~near)
        rows, loads = recipe.padded_rows, recipe.loads
        turn, rest, log_turn = recipe.errors.select(self._far).sparse_form()  # type: ignore[attr-defined]
        seen_by = sp.csr_array(turn @ rows[self._far])
        largest = np.maximum(seen_by.power(2).sum(axis=1), rest.diagonal())
        scale = 1.0 / np.sqrt(largest)
        unit = sp.diags_array(scale)
        self._turn = sp.csr_array(unit @ turn)
        self._log_turn = log_turn + float(np.log(scale).sum())
        self._g = rows[self._near]
        self._weight = 1.0 / np.asarray(recipe.errors.variance)[self._near]
        self._b = self.model.matrix()
        weighted = sp.csr_array(sp.diags_array(self._weight) @ self._g)
        self._by_near = self._weight[:, None] * loads[self._near]
        across = sp.csr_array(self._turn @ rows[self._far])
        beside = sp.csr_array(np.eye(self.modes) + loads[self._near].T @ self._by_near)
        below = sp.csr_array(self._by_near.T @ self._g)
        seen = sp.csr_array(self._turn @ loads[self._far])
        self._rest = sp.csr_array(
            sp.block_array(
                [
                    [self._g.T @ weighted, across.T, below.T],
                    [across, -(unit @ rest @ unit), seen],
                    [below, seen.T, beside],
                ]
            )
        )
        whole = sp.csr_array(self._b.T @ self._b)
        whole.resize(self._rest.shape)
        LOGGER.info(
            "%d observations: %d in the sparse precision, %d augment it, %d patterns",
            *(recipe.size, self._near.size, self._far.size, self.modes),
        )
        late = np.zeros(whole.shape[0], dtype=bool)  # errors may be tiny
        late[self.model.size : whole.shape[0] - self.modes] = True
        self._augmented = MultifrontalFactor(
            whole + self._rest,
            self._places(across),
            last=self.modes,
            late=late,
            what=f"conditioning on {self._far.size} observations that are wide or have correlated "
            "errors",
            remedy="Thin or join them, take smaller footprints or a coarser grid, or use an "
            "ensemble method.",
        )

    def _places(self, across: sp.csr_array) -> Float:
        """Rows and columns of the nodes; observations stand where the first of theirs is."""
        nodes = np.arange(self.model.size)
        first = np.append(across.indices, 0)[np.minimum(across.indptr[:-1], across.nnz)]
        where = np.concatenate([nodes, first, np.zeros(self.modes, dtype=np.intp)])
        return np.stack(np.divmod(where, self.model.padded_shape[1]), axis=1).astype(np.float64)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self._augmented.nbytes + 12 * int(self._rest.nnz) + self._by_near.nbytes

    def _apart(self, x: Float) -> tuple[Float, Float]:
        """Nodes (size, k) and amplitudes (m, k) of all unknowns."""
        return x[: self.model.size], x[len(x) - self.modes :]

    def _solved(self, b: Float) -> Float:
        """Solution for right-hand sides (n, k), each column by itself."""
        x = self._augmented.solve(b)
        for _ in range(_REFINED):  # with the residual by the operator itself, not by its square
            left = b - self._rest @ x
            left[: self.model.size] -= self._b.T @ (self._b @ x[: self.model.size])
            x += self._augmented.solve(left)
        return x

    def solve(self, innovation: Float) -> tuple[Float, Float]:
        """Posterior mean of y and a; see :meth:`Posterior.solve`."""
        rows = np.atleast_2d(np.asarray(innovation, dtype=np.float64))
        near = self._weight[:, None] * rows[:, self._near].T
        seen = np.stack([self.recipe.loads[self._near].T @ column for column in near.T], axis=1)
        right = np.concatenate([self._g.T @ near, self._turn @ rows[:, self._far].T, seen])
        y, amplitudes = self._apart(self._solved(right))
        return y.T, amplitudes.T

    def variance(self) -> Float:
        """Posterior variance of u; see :meth:`Posterior.variance`.

        Returns
        -------
        ndarray (ny, nx)
            Exact, by selected inversion.

        Raises
        ------
        SolverError
            If it misses what single columns say: the same place observed again and again, with
            tiny errors.
        """
        (ny, nx), (dy, dx) = self.model.shape, self.model.rim
        whole = self._apart(self._augmented.inverse_diagonal())[0]
        self._compare(whole)
        own = whole.reshape(self.model.padded_shape)[dy : dy + ny, dx : dx + nx]
        found = own * (1.0 if self.recipe.scale is None else self.recipe.scale**2)
        if self.modes:
            unit = np.eye(self._rest.shape[0], self.modes, k=self.modes - self._rest.shape[0])
            y, amplitudes = self._apart(self._solved(unit))
            field = self.assemble(y.T, np.zeros((self.modes, self.modes)))
            patterns = self.recipe.flat_patterns.reshape(self.modes, ny, nx)
            turned = np.tensordot(amplitudes, patterns, axes=1)
            found = found + np.einsum("kji,kji->ji", 2.0 * field + turned, patterns)
        return np.maximum(found, 0.0)

    def _compare(self, diagonal: Float) -> None:
        """Compare with columns of the inverse at some nodes, of the most exact observations too."""
        rows = self.recipe.padded_rows
        exact = np.argsort(-self.recipe.strength, kind="stable")[:_PROBES]
        seen = rows.indices[rows.indptr[exact][np.diff(rows.indptr)[exact] > 0]]
        even = np.linspace(0, self.model.size - 1, _PROBES).astype(np.intp)
        nodes = np.concatenate([seen, even])
        unit = np.zeros((self._rest.shape[0], nodes.size))
        unit[nodes, np.arange(nodes.size)] = 1.0
        found = self._solved(unit)[nodes, np.arange(nodes.size)]
        error = float(np.abs(diagonal[nodes] - found).max() / np.abs(found).max())
        # written so that NaN fails as well
        if not error < 1e-6:
            raise SolverError(
                f"the variance has a relative error of {error:.1e}; expected below 1e-6. "
                "Observations of one place with tiny errors are too many; join them, give larger "
                'errors, or take route="covariance"'
            )

    def _logdet(self) -> float:
        """Compute ``log|S|``, of the covariance of the observations."""
        own = float(moments.log_determinant(self.model).value)
        near = -float(np.log(self._weight).sum())
        return float(near + self._augmented.logdet() - 2.0 * self._log_turn - 2.0 * own)

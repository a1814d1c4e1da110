r"""The prior of a field that is smooth in time: SPDE dynamics of second order.

With the operator B of :mod:`xr_spde.fields.spacetime`,

.. math::

    \left( \frac{\partial}{\partial t} + B \right)^2 x = \tau z ,

is two steps of first order in a row, ``A_t e_t = e_{t-1} + dt^{3/2} tau z_t / sqrt(Delta)`` and
``A_t x_t = x_{t-1} + e_t``. A wave that decays at the rate r has the correlation
:math:`(1 + r t) e^{-r t}` in place of :math:`e^{-r t}`, flat at zero, and a spectrum that falls
with :math:`r^{-3}` in place of :math:`r^{-1}`: for alpha = 2 the field is Matern of smoothness 2 in
space. The precision is block penta-diagonal.

References
----------
Lindgren, Bakka, Bolin, Krainski, Rue (2024), SORT 48 (diffusion-based extension of Matern fields,
temporal order 2); Clarotto et al. (2024), Spat. Stat. 62.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError
from xr_spde.fields.spacetime import SpaceTime
from xr_spde.solvers.grid_factor import GridFactor

__all__ = ["TIME_ORDERS", "SecondOrder"]

Float = NDArray[np.float64]
Terms = tuple[sp.csr_array, sp.csr_array, sp.csr_array]

TIME_ORDERS = (1, 2)
"""Orders of the equation in time."""


class SecondOrder(SpaceTime):
    r"""Prior of the anomalies of a field over a window, of second order in time.

    The first two states are drawn together, "stationary" under the conditions of the first state of
    :class:`xr_spde.fields.spacetime.SpaceTime`, or "rest" after two fields of zero.

    Parameters
    ----------
    *args, **settings
        As for `SpaceTime`; two steps at least, burn-in counted, and no precision as `initial`.

    Raises
    ------
    ParameterError
        As for `SpaceTime`, or for a window of one step.
    """

    order = 2

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._held: dict[tuple[int, int], Terms] = {}
        if self.total < 2 or not isinstance(self.initial, str):
            raise ParameterError(
                f"a prior of second order in time has {self.total} steps and initial of type "
                f"{type(self.initial).__name__}; expected two steps at least, and a name"
            )

    @property
    def coupling(self) -> int:
        """Largest distance of nodes that the precision couples, in rows or columns."""
        return super().coupling + 2 * self.reach

    def weight(self, step: int) -> Float:
        """Return the precision of white noise of a step (n,), one on land."""
        return np.where(self.sea > 0.0, super().weight(step) / self.dt**2, 1.0)

    def _terms(self, step: int) -> Terms:
        """Matrices of the noise of a step, for the states 0, 1 and 2 steps before; kept."""
        before = max(step - 1, 0)
        which = self.set_of(step), self.set_of(before)
        if which not in self._held:
            own, water = self.transition(step), sp.csr_array(sp.diags_array(self.sea))
            middle = -(own @ water + water @ self.transition(before))
            self._held[which] = own @ own, sp.csr_array(middle), water
        return self._held[which]

    @property
    def _from(self) -> int:
        """First step whose noise is an equation."""
        return 0 if self.initial == "rest" else 2

    def _corner(self, back: int) -> sp.csr_array:
        r"""Block of the precision of the first two states alone, where they are stationary.

        With ``a = A^-1`` a wave is an autoregression of the coefficients ``2 a`` and ``-a^2``, the
        inverse of whose covariance is persymmetric: that of its end, which is known, less what the
        equations of later steps add.
        """
        matrix, turned = self._pair(0)
        weight, water = self.noise_precision(0), sp.diags_array(self.sea)
        if back:
            found = -2.0 * ((turned @ turned @ weight @ matrix - turned @ weight) @ water)
        else:
            found = turned @ turned @ weight @ matrix @ matrix - water @ weight
        return sp.csr_array(found)

    def _block(self, step: int, back: int) -> sp.csc_array:
        """Block of the precision of a step (rows) and one before (columns)."""
        found = sp.csr_array((self.nodes, self.nodes))
        if step < self._from:
            found = found + self._corner(back)
        for later in range(self.order + 1 - back):
            if self._from <= step + later < self.total:
                terms = self._terms(step + later)
                weight = self.noise_precision(step + later)
                found = found + terms[later].T @ weight @ terms[later + back]
        return sp.csc_array(found)

    def diagonal_block(self, step: int) -> sp.csc_array:
        """Block of the precision on the diagonal (n, n)."""
        return self._block(step, 0)

    def block_below(self, step: int, back: int = 1) -> sp.csc_array:
        """Block of the precision between a step (rows) and one `back` before (columns)."""
        return self._block(step, back)

    def _first_precision(self) -> sp.csc_array:
        """Precision of the first two states (2 n, 2 n), equations of later steps left out."""
        blocks: list[list[Any]]
        if self.initial == "stationary":
            below = self._corner(1)
            blocks = [[self._corner(0), below.T], [below, self._corner(0)]]
        else:
            (own, _, _), (new, old, _) = self._terms(0), self._terms(1)
            weights = self.noise_precision(0), self.noise_precision(1)
            below = new.T @ weights[1] @ old
            blocks = [[own.T @ weights[0] @ own + old.T @ weights[1] @ old, below.T],
                      [below, new.T @ weights[1] @ new]]  # fmt: skip
        return sp.csc_array(sp.block_array(blocks, format="csc"))

    def _factorise_first(self) -> GridFactor:
        return self.factorise(self.first(), self.coupling, symmetric=True, layers=2)

    def apply(self, x: Float) -> Float:
        """Product of the precision with vectors (total * n,) or (total * n, K)."""
        states = x.reshape(self.total, self.nodes, -1)
        out = np.zeros_like(states)
        out[:2] = (self.first() @ states[:2].reshape(2 * self.nodes, -1)).reshape(out[:2].shape)
        for step in range(2, self.total):
            terms, weighed = self._terms(step), self._weighed(step, states)
            for back, term in enumerate(terms):
                out[step - back] += term.T @ weighed
        return out.reshape(x.shape)

    def _noise_of(self, step: int, states: Float) -> Float:
        """Noise of a step (n, K)."""
        return np.asarray(sum(term @ states[step - k] for k, term in enumerate(self._terms(step))))

    def _weighed(self, step: int, states: Float) -> Float:
        return np.asarray(self.noise_precision(step) @ self._noise_of(step, states))

    def mahalanobis(self, x: Float) -> Float:
        """Squared distance from zero in the metric of the precision; see `SpaceTime`."""
        states = x.reshape(self.total, self.nodes, -1) * self.sea[:, None]
        both = states[:2].reshape(2 * self.nodes, -1)
        found = np.einsum("ik,ik->k", both, self.first() @ both)
        for step in range(2, self.total):
            noise = self._noise_of(step, states)
            found += np.einsum("ik,ik->k", noise, self.noise_precision(step) @ noise)
        return np.asarray(found.reshape(x.shape[1:]))

    def log_determinant(self) -> float:
        """Logarithm of the determinant of the precision, land left out."""
        return self._sum_of_determinants(start=2, power=4)

    def _sample(self, noise: Float) -> Float:
        """Draw fields (K, total, n), step by step."""
        out = np.empty(noise.shape)
        both = self.first_factor().sample(noise[:, :2].reshape(len(noise), -1).T)
        before, state = self.sea[:, None] * both.reshape(2, self.nodes, -1)
        out[:, 0], out[:, 1] = before.T, state.T
        inner = self.transition(1) @ state - before
        for step in range(2, self.total):
            factor = self.factor(step)
            inner = factor.solve(self.sea[:, None] * inner + self._force(step, noise[:, step].T))
            state = self.sea[:, None] * factor.solve(state + inner)
            out[:, step] = state.T
        return out

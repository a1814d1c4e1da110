r"""The Gaussian prior of a field over the steps of a window: SPDE dynamics in implicit Euler steps.

With :math:`B = (\kappa^2 + m \cdot \nabla - \nabla \cdot H \nabla)^{\alpha/2}`, cells of area
:math:`\Delta` and steps dt,

.. math::

    A_t x_t = x_{t-1} + \tau_t \sqrt{dt / \Delta} z_t, \qquad A_t = I + dt B_t,
    \qquad W_t = \Delta / (dt \tau_t^2),

so that the precision of the window is block tri-diagonal: ``A_t' W_t A_t + W_{t+1}`` on the
diagonal and ``-W_{t+1} A_{t+1}`` beside it, with the first block ``Q_0 + W_1``. Nothing needs the
whole matrix but a direct solver: products, the Mahalanobis distance and draws take the steps one
by one, and ``log|Q| = log|Q_0| + sum_t (2 log|A_t| + log|W_t|)``.

References
----------
Clarotto, Allard, Romary, Desassis (2024), Spat. Stat. 62; Beauchamp et al. (2025), AIES,
arXiv 2402.01855; Rue and Held (2005), Gaussian Markov Random Fields.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde._core.errors import ParameterError, SolverError, unknown
from xr_spde.fields.driving_noise import ColouredNoise
from xr_spde.fields.spde import SpdeOperator, SpdeParameters
from xr_spde.solvers.grid_factor import GridFactor

__all__ = ["ALPHAS", "INITIALS", "SpaceTime"]

Float = NDArray[np.float64]

ALPHAS = (2, 4)
"""Powers: the Matern smoothness in space is ``alpha / 2 - 1``, so that alpha = 2 is rough."""

INITIALS = ("stationary", "rest")
"""First state: of the stationary distribution, or one step after a field of zero."""


class SpaceTime:
    r"""Prior of the anomalies of a field over a window of equal steps.

    The first state is drawn from ``Q_0 = A_0' W_0 A_0 - W_0`` ("stationary"): exact for constant
    tau where B is self-adjoint (no advection) or commutes with its adjoint (constant coefficients,
    away from edges), and close to it where parameters vary slowly; `burn_in` steps before the
    window forget the rest. With "rest", ``Q_0 = A_0' W_0 A_0``, the variance of the first days is
    too small; 99 % of it take about :math:`2.3 / \log(1 + dt \kappa^\alpha)` steps.

    Parameters
    ----------
    operator : SpdeOperator
        Mesh and scheme.
    parameters : SpdeParameters
        Of one step, or of every step of the window.
    steps : int
        Steps of the window.
    dt : float, default 1
        Length of a step, in the unit of time of the parameters.
    alpha : {4, 2}
        Power, see :data:`ALPHAS`.
    initial : {"stationary", "rest"} or sparse matrix (n, n), default "stationary"
        See :data:`INITIALS`; or the precision of the first state, before any `burn_in`, which for
        factors and draws couples nodes at most ``2 * reach`` apart.
    burn_in : int, default 0
        Steps in front of the window, with the parameters of its first one; they are unknowns too.
    noise : ColouredNoise, optional
        Smoothing of the noise in space; white by default. The first state is then stationary where
        the operator commutes with the smoothing: constant parameters and a round H.

    Attributes
    ----------
    total : int
        Steps with those of the burn-in; unknowns are numbered ``t * n + node``.
    sea : ndarray (n,)
        One off land. On land all unknowns have precision one and couple to nothing.

    Raises
    ------
    ParameterError
        For impossible numbers, or parameters that do not fit the mesh and the steps.
    UnknownNameError
        For another alpha or initial state.
    """

    order = 1  # of the equation in time: so many steps before it are coupled to a step

    def __init__(
        self,
        operator: SpdeOperator,
        parameters: SpdeParameters,
        *,
        steps: int,
        dt: float = 1.0,
        alpha: int = 4,
        initial: str | sp.csc_array = "stationary",
        burn_in: int = 0,
        noise: ColouredNoise | None = None,
    ) -> None:
        if alpha not in ALPHAS:
            raise unknown("alpha", alpha, map(str, ALPHAS))
        if isinstance(initial, str) and initial not in INITIALS:
            raise unknown("initial", initial, INITIALS)
        if steps < 1 or burn_in < 0 or not (math.isfinite(dt) and dt > 0.0):
            raise ParameterError(
                f"steps={steps}, burn_in={burn_in}, dt={dt} were given; expected steps >= 1, "
                "burn_in >= 0 and dt > 0"
            )
        shape = parameters.kappa.shape
        if shape[1:] != operator.mesh.shape or shape[0] not in (1, steps):
            raise ParameterError(
                f"parameters have shape {shape}; expected (1 or {steps}, *{operator.mesh.shape})"
            )
        n = operator.mesh.size
        if not isinstance(initial, str) and initial.shape != (n, n):
            raise ParameterError(f"initial has shape {initial.shape}; expected {(n, n)}")
        self.operator, self.parameters, self.steps = operator, parameters, int(steps)
        self.dt, self.alpha, self.initial, self.burn_in = float(dt), alpha, initial, int(burn_in)
        self.total, self.noise = self.steps + self.burn_in, noise
        self.sea = operator.mesh.sea
        self._matrices: dict[int, tuple[sp.csr_array, sp.csr_array]] = {}
        self._weights: dict[int, sp.csr_array] = {}
        self._factored: tuple[int, GridFactor] | None = None
        self._first: GridFactor | None = None
        self._start: sp.csc_array | None = None

    @property
    def nodes(self) -> int:
        """Unknowns of a step, land included."""
        return self.operator.mesh.size

    @property
    def power(self) -> int:
        """Power of the operator, ``alpha / 2``."""
        return self.alpha // 2

    @property
    def reach(self) -> int:
        """Largest distance of nodes that a step couples, in rows or columns."""
        return self.operator.reach * self.power

    @property
    def coupling(self) -> int:
        """Largest distance of nodes that the precision couples, in rows or columns."""
        return 2 * (self.reach + (0 if self.noise is None else self.noise.reach))

    def set_of(self, step: int) -> int:
        """Which set of parameters a step has."""
        return 0 if self.parameters.steps == 1 else max(step - self.burn_in, 0)

    def weight(self, step: int) -> Float:
        """Return the precision of white noise of a step (n,), one on land."""
        tau = self.parameters.tau[self.set_of(step)].ravel()
        noise = self.operator.mesh.area / (self.dt * tau**2)
        return np.where(self.sea > 0.0, noise, 1.0)

    def noise_precision(self, step: int) -> sp.csr_array:
        """Precision W of the noise of a step (n, n), the identity on land."""
        which = self.set_of(step)
        if which not in self._weights:
            weight = self.weight(step)
            if self.noise is None:
                found = sp.diags_array(weight)
            else:
                root = np.sqrt(weight / self._area)
                inner = self.noise.matrix.T @ sp.diags_array(self._area) @ self.noise.matrix
                found = sp.diags_array(root) @ inner @ sp.diags_array(root)
            self._weights[which] = sp.csr_array(found)
        return self._weights[which]

    @property
    def _area(self) -> Float:
        """Areas of cells, one on land."""
        return np.where(self.sea > 0.0, self.operator.mesh.area, 1.0)

    def spatial(self, step: int) -> sp.csc_array:
        """Matrix of ``kappa^2 + m.grad - div H grad`` of a step (n, n)."""
        return self.operator.matrix(self.parameters.coefficients(self.set_of(step)))

    def transition(self, step: int) -> sp.csr_array:
        """Matrix ``A = I + dt B`` of a step (n, n), the identity on land."""
        return self._pair(step)[0]

    def _pair(self, step: int) -> tuple[sp.csr_array, sp.csr_array]:
        """Return A and its transpose, both stored by rows."""
        which = self.set_of(step)
        if which not in self._matrices:
            spatial = self.spatial(step)
            drift = spatial if self.power == 1 else spatial @ spatial
            matrix = sp.csr_array(sp.eye_array(self.nodes) + self.dt * drift)
            self._matrices[which] = matrix, sp.csr_array(matrix.T)
        return self._matrices[which]

    def factor(self, step: int) -> GridFactor:
        """Factor of ``A`` of a step; the last one is kept."""
        which = self.set_of(step)
        if self._factored is None or self._factored[0] != which:
            self._factored = which, self.factorise(sp.csc_array(self.transition(step)), self.reach)
        return self._factored[1]

    def factorise(
        self, matrix: sp.csc_array, reach: int, *, symmetric: bool = False, layers: int = 1
    ) -> GridFactor:
        """Factorise a matrix on the mesh.

        Parameters
        ----------
        matrix : csc_array (layers * n, layers * n)
            Couples nodes `reach` apart at most.
        reach : int
            In rows or columns.
        symmetric : bool, default False
            Whether it is symmetric positive definite.
        layers : int, default 1
            Steps.

        Returns
        -------
        GridFactor
        """
        mesh = self.operator.mesh
        return GridFactor(
            matrix, shape=mesh.shape, boundary=mesh.topology, reach=reach, symmetric=symmetric,
            layers=layers,
        )  # fmt: skip

    def first(self) -> sp.csc_array:
        """Precision ``Q_0`` of the first state (n, n); kept."""
        if self._start is None:
            self._start = self._first_precision()
        return self._start

    def _first_precision(self) -> sp.csc_array:
        if not isinstance(self.initial, str):
            return sp.csc_array(self.initial)
        weight = self.noise_precision(0)
        found = self._pair(0)[1] @ weight @ self._pair(0)[0]
        if self.initial == "stationary":
            found = found - sp.diags_array(self.sea) @ weight
        return sp.csc_array(found)

    def first_factor(self) -> GridFactor:
        """Factor of ``Q_0``; kept.

        Returns
        -------
        GridFactor

        Raises
        ------
        SolverError
            If it is not positive definite, which parameters that vary sharply can bring about.
        """
        if self._first is not None:
            return self._first
        try:
            self._first = self._factorise_first()
        except SolverError as error:
            raise SolverError(
                f"the precision of the first state is not positive definite: {error}. Where tau or "
                'the velocity vary sharply use initial="rest" with burn_in steps, or smoother '
                "parameters"
            ) from error
        return self._first

    def _factorise_first(self) -> GridFactor:
        return self.factorise(self.first(), self.coupling, symmetric=True)

    def precision(self) -> sp.csc_array:
        """Assemble the block banded precision (total * n, total * n)."""
        blocks: list[list[Any]] = [[None] * self.total for _ in range(self.total)]
        for step in range(self.total):
            blocks[step][step] = self.diagonal_block(step)
            for back in range(1, min(step, self.order) + 1):
                beside = self.block_below(step, back)
                blocks[step][step - back], blocks[step - back][step] = beside, beside.T
        return sp.csc_array(sp.block_array(blocks, format="csc"))

    def diagonal_block(self, step: int) -> sp.csc_array:
        """Block of the precision on the diagonal (n, n)."""
        if step == 0:
            own = self.first()
        else:
            matrix, turned = self._pair(step)
            own = sp.csc_array(turned @ self.noise_precision(step) @ matrix)
        if step + 1 < self.total:
            own = sp.csc_array(own + sp.diags_array(self.sea) @ self.noise_precision(step + 1))
        return own

    def block_below(self, step: int, back: int = 1) -> sp.csc_array:
        """Block of the precision between a step (rows) and one `back` = 1 before (columns)."""
        turned = self._pair(step)[1]
        return sp.csc_array(-(turned @ self.noise_precision(step) @ sp.diags_array(self.sea)))

    def apply(self, x: Float) -> Float:
        """Product of the precision with vectors, step by step.

        Parameters
        ----------
        x : ndarray (total * n,) or (total * n, K)
            Unknowns.

        Returns
        -------
        ndarray, shape of x
        """
        states = x.reshape(self.total, self.nodes, -1)
        out = np.empty_like(states)
        out[0] = self.first() @ states[0]
        for step in range(1, self.total):
            matrix, turned = self._pair(step)
            weighed = self.noise_precision(step) @ self._noise(matrix, states, step)
            out[step] = turned @ weighed
            out[step - 1] -= self.sea[:, None] * weighed
        return out.reshape(x.shape)

    def _noise(self, matrix: sp.csr_array, states: Float, step: int) -> Float:
        return np.asarray(matrix @ states[step] - self.sea[:, None] * states[step - 1])

    def mahalanobis(self, x: Float) -> Float:
        """Squared distance from zero in the metric of the precision, ``x' Q x``.

        Parameters
        ----------
        x : ndarray (total * n,) or (total * n, K)
            Unknowns; what stands on land does not count.

        Returns
        -------
        ndarray () or (K,)
        """
        states = x.reshape(self.total, self.nodes, -1) * self.sea[:, None]
        found = np.einsum("ik,ik->k", states[0], self.first() @ states[0])
        for step in range(1, self.total):
            noise = self._noise(self.transition(step), states, step)
            found += np.einsum("ik,ik->k", noise, self.noise_precision(step) @ noise)
        return np.asarray(found.reshape(x.shape[1:]))

    def log_determinant(self) -> float:
        """Logarithm of the determinant of the precision, land left out."""
        return self._sum_of_determinants(start=1, power=2)

    def _sum_of_determinants(self, *, start: int, power: int) -> float:
        total, known = self.first_factor().logdet(), {}
        for step in range(start, self.total):
            which = self.set_of(step)
            if which not in known:
                weights = float(np.log(self.weight(step)) @ self.sea)
                weights += 0.0 if self.noise is None else 2.0 * self.noise.log_determinant()
                known[which] = power * self.factor(step).logdet() + weights
            total += known[which]
        return total

    def sample(self, noise: Float) -> Float:
        """Draw fields, step by step.

        Parameters
        ----------
        noise : ndarray (K, total, n)
            White noise; a member depends on its own alone.

        Returns
        -------
        ndarray (K, total, n)
            Zero on land.

        Raises
        ------
        ParameterError
            For another shape.
        """
        if noise.ndim != 3 or noise.shape[1:] != (self.total, self.nodes):
            raise ParameterError(
                f"noise has shape {noise.shape}; expected (K, {self.total}, {self.nodes})"
            )
        return self._sample(noise)

    def _sample(self, noise: Float) -> Float:
        out = np.empty(noise.shape)
        state = self.sea[:, None] * self.first_factor().sample(noise[:, 0].T)
        out[:, 0] = state.T
        for step in range(1, self.total):
            forced = state + self._force(step, noise[:, step].T)
            state = self.sea[:, None] * self.factor(step).solve(forced)
            out[:, step] = state.T
        return out

    def _force(self, step: int, white: Float) -> Float:
        """Noise of a step (n, K) from white noise."""
        root = np.sqrt(self.weight(step))[:, None]
        if self.noise is None:
            return np.asarray(white / root)
        area = np.sqrt(self._area)[:, None]
        return np.asarray(self.noise.solve(white / area) * area / root)

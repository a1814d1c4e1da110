"""Penalised maximum of the exact likelihood: where the local one leaves off.

The maps live on the nodes of `xr_spde.sar.whittle`, under the same roughness, whose weights go on
moving towards the maximum of the marginal likelihood. The local likelihood gives the start and the
expected information; value and slope are exact (`xr_spde.fields.exact`): log-determinants from the
factor, gaps and a rim beyond the grid integrated out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import SolverError
from xr_spde.fields.exact import ExactLikelihood
from xr_spde.fields.field import automatic_buffer
from xr_spde.sar.local import Local, LocalFit, jacobian_of, q_of
from xr_spde.sar.whittle import LocalProblem
from xr_spde.solvers.strips import BandedFactor

Float = NDArray[np.float64]

_ROUNDS, _STEPS, _MEMORY = 3, 6, 5


class ExactProblem:
    """Exact likelihood of replicates under the nodes and roughness of a local one.

    Parameters
    ----------
    local : LocalProblem
        Of the same replicates, at the spacing of the grid.
    members : ndarray (M, ny, nx)
        Replicates in canonical order; NaN is missing.
    anomalies : bool
        Whether their mean is known to be zero; else it is taken out and counted.
    """

    dilation = 1

    def __init__(self, local: LocalProblem, members: Float, *, anomalies: bool) -> None:
        self.local, self._anomalies, self._basis = local, anomalies, local.grid.basis()
        with np.errstate(invalid="ignore"):
            counts = np.isfinite(members).sum(0)
            mean = np.nansum(members, 0) / np.maximum(counts, 1)
        self._members = members if anomalies else members - mean

    def fit(self) -> LocalFit:
        """Fit the local likelihood, the start of the exact one.

        Returns
        -------
        LocalFit
        """
        return self.local.fit()

    def refine(self, *, uncertainty: bool = False) -> LocalFit:
        """Climb to the maximum of the exact likelihood.

        Parameters
        ----------
        uncertainty : bool, optional
            Also give the covariance of the maps.

        Returns
        -------
        LocalFit
        """
        local = self.local
        start = local.refine()
        self._likelihood = self._exact(start)
        for _ in range(_ROUNDS if local.model.penalty is None else 0):
            local.nodes = self._climb(local.nodes)
            spread = local.spread(self._solver(local.nodes))
            local.rough.penalty = local.rough.renew(local.nodes, spread, local.probes)
            local.rough.adapt(local.nodes, spread, local.probes)
        local.nodes = self._climb(local.nodes)
        return local.result(uncertainty=uncertainty)

    def _exact(self, start: LocalFit) -> ExactLikelihood:
        """Set up the likelihood on the grid with its rim."""
        model = self.local.model
        rim = model.buffer
        if not isinstance(rim, int):
            kappa2, rho = np.exp(start.log_kappa2), np.exp(np.hypot(start.h1, start.h2))
            # a narrower one would pull long ranges towards the bound
            rim = automatic_buffer(kappa2, rho, boundary=model.boundary)
        lost = 0 if self._anomalies else 1
        return ExactLikelihood(self._members, model.boundary, rim=rim, lost=lost)

    def value_and_slope(self, nodes: Float) -> tuple[float, Float]:
        """Return the negative penalised log-likelihood of node values (4, k), and its slope."""
        local = self.local
        basis = self._basis
        maps = (basis @ nodes.T).T + local.base
        cells = (4, *local.shape)
        q = q_of(maps[:3]).reshape(cells)
        value, by_q, by_log_d, _ = self._likelihood.value_and_slope(q, maps[3].reshape(cells[1:]))
        by_maps = np.einsum("pan,an->pn", jacobian_of(maps[:3]), by_q.reshape(4, -1))
        slope = (basis.T @ np.vstack([by_maps, by_log_d.reshape(1, -1)]).T).T
        return local.roughness(nodes) - value, local.roughness_slope(nodes) - slope

    def _try(self, nodes: Float) -> tuple[float, Float]:
        """Value and slope; infinite where the matrix cannot be factorised."""
        try:
            return self.value_and_slope(nodes)
        except SolverError:
            return np.inf, np.zeros_like(nodes)

    def _solver(self, nodes: Float) -> BandedFactor:
        """Factor of the expected information and the penalty."""
        local = self.local
        return BandedFactor(local.hessian(Local(local.cells(nodes), local.gram)), local.order)

    def _climb(self, nodes: Float) -> Float:
        """Minimise by quasi-Newton steps that start from the expected information."""
        value, slope = self.value_and_slope(nodes)
        solver = self._solver(nodes)
        pairs: list[tuple[Float, Float]] = []
        for _ in range(_STEPS):
            step = -_two_loops(slope, pairs, solver)
            # the information per unit of decrease: a thousandth of a log unit matters to nobody
            decrease = -float(np.vdot(step, slope))
            if decrease < 0.05:
                break
            length = min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
            for _ in range(8):
                trial = nodes + length * step
                there, slope_there = self._try(trial)
                if there <= value - 1e-4 * length * decrease:
                    break
                length *= 0.4
            else:
                break
            pairs.append((trial - nodes, slope_there - slope))
            pairs = [p for p in pairs if np.vdot(*p) > 0.0][-_MEMORY:]
            nodes, value, slope = trial, there, slope_there
        return nodes


def _two_loops(slope: Float, pairs: list[tuple[Float, Float]], solver: BandedFactor) -> Float:
    """Inverse Hessian times slope, by recent changes of both (Nocedal 1980)."""
    direction = slope.copy()
    shares = []
    for step, change in reversed(pairs):
        share = float(np.vdot(step, direction) / np.vdot(step, change))
        shares.append(share)
        direction -= share * change
    direction = np.asarray(solver.solve(direction.reshape(-1, 1))).reshape(slope.shape)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        direction += (share - float(np.vdot(change, direction) / np.vdot(step, change))) * step
    return direction

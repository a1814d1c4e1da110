"""Local Whittle likelihood: parameter maps from lag statistics, without training.

For parameters that vary slowly the log-likelihood of one replicate, ``log|det B| - |B y|^2 / 2``,
is close to a sum over cells of

    l(s) = L(q) - log(d) / 2 - q' G(s) q / (2 d) ,   q = (kappa2, hxx, hyy, hxy) ,

with L the mean log symbol (`xr_spde.fields.symbol`), G(s) the second moments of the four features
of the stencil (`xr_spde.sar.statistics`) and d the variance of the innovations, which is free, so
that nothing has to be standardised (Whittle 1954; LatticeVision, arXiv 2505.09803, for the model).

The four maps ``log kappa2``, ``log rho cos 2 theta``, ``log rho sin 2 theta`` and ``log d`` are
bilinear between nodes. Their roughness is penalised to first and second order, and the eight
weights maximise the marginal likelihood (MacKay's fixed point, traces by random probes). Each step
is one of Fisher scoring: the expected Hessian in q is ``2 G / d``, data included, so a sparse
factorisation of the nodes' system replaces hundreds of gradient steps.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from xr_spde.fields.green import excess_response
from xr_spde.sar.local import Local, LocalFit, LocalModel, q_of
from xr_spde.sar.roughness import Roughness
from xr_spde.sar.smooth import NodeGrid, NodePairs, SparseSum, pool
from xr_spde.solvers.strips import BandedFactor, diagonal_blocks, strips

Float = NDArray[np.float64]

_PROBES, _MOST_NODES = 16, 1600
_FIRM = 1e9  # holds what a model does not have
_RIDGE = 1e-4  # keeps the system regular where neither data nor roughness say anything
#: Largest ratio of ranges and squared inverse range (per cell) that data are taken to show.
MAX_RHO, MAX_KAPPA2 = 15.0, 20.0


def min_kappa2(shape: tuple[int, int]) -> float:
    """Smallest kappa2 that a grid can tell from zero: a range of four times its longer side.

    Parameters
    ----------
    shape : tuple of int
        Grid size (ny, nx).

    Returns
    -------
    float
        Per squared cell.
    """
    return 8.0 / (4.0 * max(shape)) ** 2


class LocalProblem:
    """One penalised likelihood: data of the cells with weight, nodes, bounds, correction.

    Parameters
    ----------
    gram : ndarray (4, 4, ny, nx)
        Second moments of the features, see `xr_spde.sar.statistics.stencil_gram`.
    weight : ndarray (ny, nx)
        Degrees of freedom behind each cell; zero leaves the cell out.
    model : LocalModel
        Domain and penalty.
    prior : LocalFit, optional
        Maps that the roughness is counted from instead of from flat ones, and that hold each node
        by their covariance, if they have one; their innovations' variance is not used.
    """

    def __init__(
        self, gram: Float, weight: Float, model: LocalModel, *, prior: LocalFit | None = None
    ) -> None:
        self.model, self.dilation = model, model.dilation
        self.shape: tuple[int, int] = (weight.shape[0], weight.shape[1])
        spacing = max(4.0, model.dilation, np.sqrt(weight.size / _MOST_NODES))
        self.grid = NodeGrid.cover(self.shape, spacing=spacing, periodic=model.periodic)
        gram, weight, self.rows, self.columns = pool(gram, weight, spacing, model.dilation)
        self.valid = weight.ravel() > 0
        self.weight = weight.ravel()[self.valid] / model.dilation**2
        self.gram = gram.reshape(4, 4, -1)[:, :, self.valid]
        self.basis = sp.csr_array(self.grid.basis(self.rows, self.columns)[self.valid])
        self.pairs = NodePairs.of(self.basis)
        constant = 3 * model.structure.startswith("stationary")
        self.rough = Roughness(
            self.grid, self.first_penalty(), jumps=model.jumps, constant=constant
        )
        self.assemble = self.assembly()
        order, self.strip = strips(self.grid.shape, periodic=(False, model.periodic), reach=2)
        self.order = (order[:, None] + self.grid.size * np.arange(4)).ravel()
        self.response = np.zeros(self.weight.size)
        self.low = np.log(min_kappa2(self.shape)) + 2.0 * np.log(model.dilation)
        self.high = np.log(MAX_KAPPA2)
        # the walls must be as stiff as the data are heavy
        self.barrier = 20.0 + np.asarray(self.basis.T @ self.weight)
        rng = np.random.Generator(np.random.SFC64(0))
        self.probes = rng.choice([-1.0, 1.0], size=(4, self.grid.size, _PROBES))
        self.base, self.base_cells, self.base_nodes, self.hold = self.around(prior)
        self.nodes = self.start() if prior is None else self.start_at_base()
        if model.structure.endswith("isotropic"):
            self.nodes[1:3] = 0.0
            self.hold = np.tile([[0.0], [_FIRM], [_FIRM], [0.0]], self.grid.size)

    def fit(self, *, steps: int = 15) -> LocalFit:
        """Improve the maps from where they are.

        Parameters
        ----------
        steps : int, optional
            Largest number of scoring steps.

        Returns
        -------
        LocalFit
        """
        self.optimise(steps=steps)
        return self.result()

    def refine(self, *, uncertainty: bool = False) -> LocalFit:
        """Correct the log-determinant for the domain and fit again, a few rounds.

        Parameters
        ----------
        uncertainty : bool, optional
            Also give the posterior covariance at the nodes, interpolated.

        Returns
        -------
        LocalFit
        """
        for _ in range(self.model.corrections):
            self.correct()
            self.optimise(steps=5)
        if self.model.jumps:
            self.adapt()
        return self.result(uncertainty=uncertainty)

    def adjust(self, *, steps: int, uncertainty: bool = False) -> LocalFit:
        """Take a few steps from the prior's maps, the log-determinant corrected for the domain.

        Parameters
        ----------
        steps : int
            Largest number of scoring steps.
        uncertainty : bool, optional
            Also give the posterior covariance at the nodes, interpolated.

        Returns
        -------
        LocalFit
        """
        self.correct()
        self.optimise(steps=steps)
        return self.result(uncertainty=uncertainty)

    def result(self, *, uncertainty: bool = False, scale: Float | None = None) -> LocalFit:
        """Present maps and, if asked for, their covariance with information scaled by (4, 4)."""
        covariance = self.covariance(scale) if uncertainty else None
        return LocalFit(*self.maps(), self.rough.penalty, covariance)

    def around(self, prior: LocalFit | None) -> tuple[Float, Float, Float, Float]:
        """Prior maps on all cells, on the pooled cells with data, at the nodes; precision there."""
        if prior is None:
            return (np.zeros((4, 1)),) * 4
        log_kappa2 = prior.log_kappa2 + 2.0 * np.log(self.dilation)
        maps = np.stack([log_kappa2, prior.h1, prior.h2, np.zeros(self.shape)])
        rows, columns = (np.rint(p).astype(np.int64) for p in (self.rows, self.columns))
        cells = maps[:, rows[:, None], columns].reshape(4, -1)[:, self.valid]
        basis, flat = self.grid.basis(), maps.reshape(4, -1)
        weights = np.asarray(basis.sum(axis=0)).ravel()
        hold = np.zeros((4, self.grid.size))
        if prior.covariance is not None:
            variance = np.einsum("iijk->ijk", prior.covariance).reshape(3, -1)
            hold[:3] = weights / np.maximum((basis.T @ variance.T).T, 1e-12)
        return flat, cells, (basis.T @ flat.T).T / np.maximum(weights, 1e-12), hold

    def start_at_base(self) -> Float:
        """Start at the prior's maps, with the innovations' local variance."""
        nodes = np.zeros((4, self.grid.size))
        nodes[3] = self.innovations(q_of(self.base_cells[:3]))
        return nodes

    def cells(self, nodes: Float) -> Float:
        """Interpolate to the cells with data."""
        return np.asarray((self.basis @ nodes.T).T + self.base_cells)

    def start(self) -> Float:
        """Node values of the best uniform model, with the innovations' local variance."""
        from scipy.optimize import minimize

        share = self.weight / self.weight.sum()
        # every cell counts alike, however large its variance
        scale = np.einsum("aan->n", self.gram) + 1e-300
        mean = (self.gram / scale * share).sum(axis=-1)[..., None]

        def objective(u: Float) -> tuple[float, Float]:
            value, slope = Local(u[:, None], mean).value_and_slope(np.zeros(1))
            return float(value[0]), slope[:, 0]

        bounds = [(self.low, self.high), (-2.0, 2.0), (-2.0, 2.0), (None, None)]
        starts = [np.array([np.log(k), 0.01, 0.01, 0.0]) for k in (0.01, 0.3)]
        fits = [minimize(objective, u, jac=True, method="L-BFGS-B", bounds=bounds) for u in starts]
        best = min(fits, key=lambda one: float(one.fun)).x
        nodes = np.repeat(best[:, None], self.grid.size, axis=1)
        nodes[3] = self.innovations(q_of(best[:3, None]))
        return nodes

    def innovations(self, q: Float) -> Float:
        """Log variance of the innovations around each node for given stencils."""
        forcing = np.log(np.einsum("an,abn,bn->n", q, self.gram, q) + 1e-300)
        covered = self.basis.T @ self.weight
        total = self.basis.T @ (self.weight * forcing)
        overall = float(np.sum(self.weight * forcing) / self.weight.sum())
        return np.where(covered > 0, total / np.maximum(covered, 1e-12), overall)

    def first_penalty(self) -> Float:
        """Roughness weights to begin with, or the declared ones."""
        given = self.model.penalty
        return np.full((4, 2), 30.0) if given is None else np.tile([1e-3, float(given)], (4, 1))

    def maps(self) -> tuple[Float, Float, Float, Float]:
        """Interpolate the four maps to the whole grid, clipped to the bounds."""
        fields = (self.grid.basis() @ self.nodes.T).T + self.base
        shrink = np.minimum(1.0, np.log(MAX_RHO) / np.maximum(np.hypot(*fields[1:3]), 1e-12))
        log_kappa2 = np.clip(fields[0], self.low, self.high) - 2.0 * np.log(self.dilation)
        flat = (log_kappa2, fields[1] * shrink, fields[2] * shrink, fields[3])
        first, second, third, fourth = (field.reshape(self.shape) for field in flat)
        return first, second, third, fourth

    def correct(self) -> None:
        """Renew the correction of the log-determinant at the present maps."""
        from xr_spde.fields.field import automatic_buffer

        log_kappa2, h1, h2, _ = self.maps()
        buffer = self.model.buffer
        if not isinstance(buffer, int):
            kappa2, rho = np.exp(log_kappa2), np.exp(np.hypot(h1, h2))
            buffer = automatic_buffer(kappa2, rho, boundary=self.model.boundary)
        excess = excess_response(log_kappa2, h1, h2, boundary=self.model.boundary, buffer=buffer)
        rows, columns = (np.rint(p).astype(np.int64) for p in (self.rows, self.columns))
        self.response = excess[np.ix_(rows, columns)].ravel()[self.valid]

    def optimise(self, *, steps: int) -> None:
        """Take steps of Fisher scoring, with the penalty renewed after each."""
        local = Local(self.cells(self.nodes), self.gram)
        for _ in range(steps):
            value, slope = local.value_and_slope(self.response)
            now = float(self.weight @ value) + self.roughness(self.nodes)
            gradient = (self.basis.T @ (slope * self.weight).T).T + self.roughness_slope(self.nodes)
            solver = BandedFactor(self.hessian(local), self.order)
            step = -solver.solve(gradient.reshape(-1, 1)).reshape(self.nodes.shape)
            length, local = self.line_search(step, local, now)
            self.nodes = self.nodes + length * step
            change = 0.0
            if self.model.penalty is None:
                new = self.rough.renew(self.nodes, self.spread(solver), self.probes)
                change = float(np.abs(np.log(new / self.rough.penalty)).max())
                self.rough.penalty = new
            if length == 0.0 or (length * float(np.abs(step).max()) < 0.02 and change < 0.1):
                break

    def line_search(self, step: Float, local: Local, now: float) -> tuple[float, Local]:
        """Halve the step until the objective falls; at most two units in any value."""
        length = min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        for _ in range(10):
            trial = self.nodes + length * step
            there = Local(self.cells(trial), self.gram)
            value, _ = there.value_and_slope(self.response)
            if float(self.weight @ value) + self.roughness(trial) <= now:
                return length, there
            length *= 0.5
        return 0.0, local

    def beyond(self, nodes: Float) -> tuple[Float, Float, Float]:
        """How far node values lie below and above the bounds of log kappa2, and of log rho."""
        nodes = nodes + self.base_nodes
        log_rho = np.hypot(nodes[1], nodes[2])
        return (
            np.minimum(nodes[0] - self.low, 0.0),
            np.maximum(nodes[0] - self.high, 0.0),
            np.maximum(log_rho - np.log(MAX_RHO), 0.0),
        )

    def roughness(self, nodes: Float) -> float:
        """Penalty of rough maps and of values beyond the bounds."""
        beyond = sum(float(self.barrier @ excess**2) for excess in self.beyond(nodes))
        return self.rough.value(nodes) + 0.5 * (beyond + float(np.sum(self.hold * nodes**2)))

    def roughness_slope(self, nodes: Float) -> Float:
        """Gradient of `roughness`."""
        low, high, stretched = self.beyond(nodes)
        slope = self.rough.slope(nodes) + self.hold * nodes
        slope[0] += self.barrier * (low + high)
        tensor = (nodes + self.base_nodes)[1:3]
        slope[1:3] += self.barrier * stretched * tensor / np.maximum(np.hypot(*tensor), 1e-12)
        return slope

    def assembly(self) -> SparseSum:
        """Places of the parts of `hessian`: pairs of parameters, roughness twice, diagonal."""
        size = self.grid.size
        blocks = [(p, q) for p in range(4) for q in range(4)]
        places = [np.stack([self.pairs.rows, self.pairs.columns])] * 16
        same = np.tile(np.arange(size), (2, 1))
        for place in (*(np.stack([q.rows, q.columns]) for q in self.rough.pairs), same):
            blocks += [(p, p) for p in range(4)]
            places += [place] * 4
        starts = size * np.array(blocks)[:, :, None]
        every = [place + start for place, start in zip(places, starts, strict=True)]
        rows, columns = np.concatenate(every, axis=1)
        return SparseSum(rows, columns, 4 * size)

    def hessian(
        self, local: Local, *, walls: bool = True, scale: Float | None = None
    ) -> sp.csc_array:
        """Add the penalty to the information of the data, scaled by (4, 4); positive definite."""
        information = local.information()
        if scale is not None:
            information *= scale[..., None]
        information = information.reshape(16, -1) * self.weight
        data = (self.pairs.matrix @ information.T).T
        low, high, stretched = self.beyond(self.nodes)
        extra = _RIDGE + np.broadcast_to(self.hold, self.nodes.shape)
        if walls:
            extra[0] += self.barrier * ((low < 0) | (high > 0))
            extra[1:3] += self.barrier * (stretched > 0)
        return self.assemble([data, *self.rough.entries(), extra])

    def adapt(self, rounds: int = 6) -> None:
        """Let the maps jump where the data ask for it: weights of edges and maps in turn."""
        for _ in range(rounds):
            local = Local(self.cells(self.nodes), self.gram)
            spread = self.spread(BandedFactor(self.hessian(local), self.order))
            self.rough.adapt(self.nodes, spread, self.probes)
            self.optimise(steps=4)
        self.correct()
        self.optimise(steps=3)

    def spread(self, solver: BandedFactor) -> Float:
        """Posterior covariance times the probes."""
        size = self.grid.size
        return solver.solve(self.probes.reshape(4 * size, -1)).reshape(self.probes.shape)

    def covariance(self, scale: Float | None = None) -> Float:
        """Posterior covariance of log kappa2 and log H at the nodes, interpolated to cells."""
        size = self.grid.size
        # what is held by a bound is unknown, not known well
        local = Local(self.cells(self.nodes), self.gram)
        hessian = self.hessian(local, walls=False, scale=scale)
        every = np.arange(4 * size)
        blocks = np.empty((9, size))
        for members, inverse in diagonal_blocks(hessian, self.order, 4 * self.strip, every):
            nodes = members.reshape(-1, 4)[:, 0]
            own = inverse.reshape(nodes.size, 4, nodes.size, 4)
            same = np.arange(nodes.size)
            blocks[:, nodes] = own[same, :3, same, :3].reshape(-1, 9).T
        cells = (self.grid.basis() @ blocks.T).T
        return np.asarray(cells.reshape(3, 3, *self.shape))

"""Penalised maximum of the exact likelihood: where the local one leaves off.

The maps live on the nodes of `xr_spde.sar.whittle`, may jump (`xr_spde.sar.roughness`), and the
weights of roughness go on moving towards the maximum of the marginal likelihood. The local
likelihood gives the start and the expected information; value and slope are exact
(`xr_spde.fields.exact`): log-determinants from the factor, gaps and a rim beyond the grid
integrated out, in windows where that would not fit (`xr_spde.fields.exact_windows`). A nugget is
climbed along with the maps; coefficients of covariates, orthogonal to all that in the information,
are renewed by generalised least squares after each climb.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_spde._core.errors import SolverError
from xr_spde._core.memory import check_memory
from xr_spde._core.warn import warn
from xr_spde.fields.exact import ExactLikelihood, regression
from xr_spde.fields.exact_windows import NODE_BYTES, WindowedLikelihood, width_of_tiles
from xr_spde.fields.field import automatic_buffer
from xr_spde.fields.sar import noise_gram
from xr_spde.fields.windows import overlap_of
from xr_spde.sar.climb import climb
from xr_spde.sar.covariates import least_squares
from xr_spde.sar.local import ExactFit, Local, LocalFit, LocalModel, jacobian_of, q_of
from xr_spde.sar.patterns import make_positive
from xr_spde.sar.whittle import LocalProblem, min_kappa2
from xr_spde.solvers.strips import BandedFactor

Float = NDArray[np.float64]

_LOG = logging.getLogger(__name__)

_ROUNDS, _STEPS, _PROBES = 3, 6, 64
# shares of the largest nugget that second differences allow, tried as a start
_SHARES = (0.02, 0.1, 0.3, 0.6, 0.9)
_NO_NUGGET = 1e-6
# log variances may go so far beyond those of cells that the local likelihood knows (it knows none
# without all eight neighbours), and so many log units may be left at the end unmentioned
_BEYOND, _LEFT = 3.0, 10.0
_NO_VALUE = (
    'method="mle" came to maps whose likelihood no double precision holds: fields that are '
    "constant, or all noise, somewhere. Try nugget=False, structure="
    '"stationary", a larger penalty=, fields without such cells, or method="whittle"'
)


class ExactProblem:
    """Exact likelihood of replicates under the nodes and roughness of a local one.

    Parameters
    ----------
    gram, weight : ndarray (4, 4, ny, nx), (ny, nx)
        Of the same replicates, less the regression, as for `LocalProblem`.
    model : LocalModel
        Domain, penalty and structure.
    members : ndarray (M, ny, nx)
        Replicates in canonical order; NaN is missing.
    anomalies : bool
        Whether their mean is known to be zero; else it is taken out cell by cell and counted.
    nugget : bool
        Whether there is noise in the observations.
    design : ndarray (P, ny, nx), optional
        Maps that the mean is a linear combination of, instead of zero or free.
    windows : bool
        Whether to take the likelihood from windows, for grids beyond memory.
    """

    dilation = 1

    def __init__(
        self,
        gram: Float,
        weight: Float,
        model: LocalModel,
        members: Float,
        *,
        anomalies: bool,
        nugget: bool = False,
        design: Float | None = None,
        windows: bool = False,
    ) -> None:
        self._design, self._members, self._windows = design, members, windows
        self._lost = 0 if anomalies or design is not None else 1
        if design is not None:
            self._coefficients = least_squares(members, design)
        elif not anomalies:
            with np.errstate(invalid="ignore"):
                counts = np.isfinite(members).sum(0)
                self._members = members - np.nansum(members, 0) / np.maximum(counts, 1)
        self.local = LocalProblem(gram, weight, model)
        self._basis, self._gram = self.local.grid.basis(), self.local.gram
        self._log_noise, self._shift = -np.inf, noise_gram()[..., None]
        self._scale: Float | None = None
        self._left = 0.0
        if nugget:
            # noise of variance t adds t times the trace of `_shift` to that of the moments
            traces = np.trace(self._gram) / np.trace(noise_gram())
            self._most = float(np.average(traces, weights=self.local.weight))
            self._log_noise = np.log(_SHARES[0] * self._most)

    @property
    def nugget(self) -> float:
        """Variance of the observations' noise."""
        return float(np.exp(self._log_noise))

    def fit(self) -> LocalFit:
        """Fit the local likelihood, the start of the exact one; with noise, of several nuggets.

        Returns
        -------
        LocalFit
        """
        if not self._noisy:
            return self.local.fit()
        begun, tried = self.local.nodes, []
        for share in _SHARES:
            self.local.nodes = begun
            self._take_noise(np.log(share * self._most))
            fit = self.local.fit()
            self._hold_back()
            self._set_up(fit)
            with suppress(SolverError):  # hardly anything is left to the field
                tried.append((self._log_likelihood(), self._log_noise, self.local.nodes, fit))
        if not tried:
            raise SolverError(_NO_VALUE)
        _, log_noise, self.local.nodes, fit = max(tried, key=lambda one: one[0])
        self._take_noise(log_noise)
        return fit

    def refine(self, *, uncertainty: bool = False) -> ExactFit:
        """Climb to the maximum of the exact likelihood.

        Parameters
        ----------
        uncertainty : bool, optional
            Also give the covariance of the maps: the inverse of the information of the local
            likelihood, scaled map by map to the observed one of the exact likelihood.

        Returns
        -------
        ExactFit
        """
        local = self.local
        begun = local.nodes
        start = local.refine()
        self._hold_back()
        self._set_up(start)
        if self._noisy:
            try:
                self._log_likelihood()
            except SolverError as error:
                _LOG.info("the climb starts from the maps before the last step: %s", error)
                local.nodes = begun
        for _ in range(_ROUNDS if local.model.penalty is None else 0):
            self._climb()
            if self._noisy:  # noise takes most of the information, here and there
                self._scale = self._information_ratio()
            spread = local.spread(self._solver())
            local.rough.penalty = local.rough.renew(local.nodes, spread, local.probes)
            local.rough.adapt(local.nodes, spread, local.probes)
        self._climb()
        return self._result(uncertainty=uncertainty)

    @property
    def _noisy(self) -> bool:
        return self._log_noise > -np.inf

    def _take_noise(self, log_noise: float) -> None:
        """Set the nugget, and the moments of what it leaves to the field."""
        self._log_noise = log_noise
        if self._noisy:
            left = self._gram - self.nugget * self._shift
            self.local.gram = make_positive(left[..., None])[..., 0]

    def _hold_back(self) -> None:
        """Hold variances back that a trend has carried off towards cells of a coast."""
        known = self.local.cells(self.local.nodes)[3]
        held = self.local.nodes.copy()
        held[3] = np.clip(held[3], known.min() - _BEYOND, known.max() + _BEYOND)
        self.local.nodes = held

    def _set_up(self, start: LocalFit) -> None:
        """Set up the likelihood on the grid with its rim."""
        model = self.local.model
        rim = model.buffer
        kappa2, rho = np.exp(start.log_kappa2), np.exp(np.hypot(start.h1, start.h2))
        if not isinstance(rim, int):
            # a narrower one would pull long ranges towards the bound
            rim = automatic_buffer(kappa2, rho, boundary=model.boundary)
        self._domain: dict[str, Any] = {"boundary": model.boundary, "rim": rim, "lost": self._lost}
        if rim and not self._windows:
            ny, nx = (size + 2 * rim for size in self.local.shape)
            check_memory(
                NODE_BYTES * float(ny * nx),
                what=f"the exact likelihood with {rim} cells around the grid",
                remedy='Type likelihood="windows", or give a smaller buffer=.',
            )
        if self._windows:
            overlap = overlap_of(kappa2, rho)
            tile = width_of_tiles(overlap, len(self._members))
            self._domain |= {"overlap": overlap, "tile": tile}
            _LOG.info("likelihood from windows: tiles of %d cells, overlap %d", tile, overlap)
        self._take_off()

    def _take_off(self) -> None:
        """Set up the likelihood of what the regression leaves."""
        left = self._members
        if self._design is not None:
            left = left - np.tensordot(self._coefficients, self._design, 1)
        made = WindowedLikelihood if self._windows else ExactLikelihood
        self._likelihood: ExactLikelihood | WindowedLikelihood = made(left, **self._domain)

    def _regress(self) -> Float:
        """Renew the coefficients of the covariates; their covariance."""
        if self._design is None:
            return np.zeros((0, 0))
        q, log_d = self._maps(self.local.nodes)
        equations = self._likelihood.normal_equations(q, log_d, self._design, self.nugget)
        change, covariance = regression(*equations)
        self._coefficients = self._coefficients + change
        self._take_off()
        return covariance

    def _maps(self, nodes: Float) -> tuple[Float, Float]:
        """Stencil's parameters and log variance of the innovations of every cell."""
        maps = (self._basis @ nodes.T).T + self.local.base
        shape = self.local.shape
        return q_of(maps[:3]).reshape(4, *shape), maps[3].reshape(shape)

    def _log_likelihood(self) -> float:
        """Exact log-likelihood at the present maps."""
        maps = self._maps(self.local.nodes)
        try:
            return self._likelihood.value(*maps, self.nugget)
        except SolverError as error:
            raise SolverError(f"{_NO_VALUE} ({error})") from error

    def value_and_slope(self, nodes: Float, log_noise: float = -np.inf) -> tuple[float, Float]:
        """Negative penalised log-likelihood, and its slope.

        Parameters
        ----------
        nodes : ndarray (4, k)
            Node values.
        log_noise : float, optional
            Of the nugget.

        Returns
        -------
        value : float
        slope : ndarray (4 k,), or (4 k + 1,) with a nugget
        """
        local, basis = self.local, self._basis
        q, log_d = self._maps(nodes)
        noise = float(np.exp(log_noise))
        value, by_q, by_log_d, by_noise = self._likelihood.value_and_slope(q, log_d, noise)
        maps = (basis @ nodes[:3].T).T + local.base[:3]
        by_maps = np.einsum("pan,an->pn", jacobian_of(maps), by_q.reshape(4, -1))
        slope = (basis.T @ np.vstack([by_maps, by_log_d.reshape(1, -1)]).T).T
        flat = (local.roughness_slope(nodes) - slope).ravel()
        value = local.roughness(nodes) - value
        if log_noise == -np.inf:
            return value, flat
        below = min(log_noise - np.log(_NO_NUGGET * self._most), 0.0)
        return value + 10.0 * below**2, np.append(flat, 20.0 * below - by_noise)

    def _solver(self) -> BandedFactor:
        """Factor of the information and the penalty."""
        local = self.local
        here = Local(local.cells(local.nodes), local.gram)
        return BandedFactor(local.hessian(here, scale=self._scale), local.order)

    def _climb(self) -> None:
        """Maximise over nodes and nugget, then over the coefficients."""
        shape = self.local.nodes.shape
        count = self.local.nodes.size
        ends = (self._log_noise,) if self._noisy else ()

        def objective(x: Float) -> tuple[float, Float]:
            try:
                return self.value_and_slope(x[:count].reshape(shape), *x[count:])
            except SolverError:  # a trial with a singular matrix
                return np.inf, np.zeros_like(x)

        start = np.append(self.local.nodes, ends)
        solver, curvature = self._solver(), np.ones(len(ends))
        if ends:
            step = np.zeros_like(start)
            step[-1] = 0.05
            change = objective(start + step)[1][-1] - objective(start)[1][-1]
            curvature[:] = max(change / 0.05, 1.0)

        def precondition(slope: Float) -> Float:
            nodes = np.asarray(solver.solve(slope[:count].reshape(-1, 1))).ravel()
            return np.append(nodes, slope[count:] / curvature)

        best, self._left = climb(start, objective, precondition, steps=_STEPS * (1 + len(ends)))
        self.local.nodes = best[:count].reshape(shape)
        self._take_noise(float(best[-1]) if ends else self._log_noise)
        self._regress()

    def _result(self, *, uncertainty: bool) -> ExactFit:
        local = self.local
        if uncertainty:
            self._scale = self._information_ratio()
        fit = local.result(uncertainty=uncertainty, scale=self._scale)
        if self._left > _LEFT:
            warn(
                f"the climb to the maximum of the exact likelihood stopped with about "
                f"{0.5 * self._left:.0f} log units left: maps and log_likelihood are not those "
                "of the maximum. Cells unlike their neighbours (a coast, a jump of the variance) "
                'slow it down; structure="stationary" or a region without them comes closer'
            )
        _warn_of_bound(fit, np.asarray(np.isfinite(self._members).any(axis=0)))
        error = None
        if isinstance(self._likelihood, WindowedLikelihood):
            error = self._likelihood.error(*self._maps(self.local.nodes), self.nugget)
        found = ExactFit(
            **vars(fit),
            log_likelihood=self._log_likelihood(),
            error=error,
            degrees=self._degrees() + self._noisy,
            nugget=self.nugget,
        )
        if self._design is None:
            return found
        covariance = self._regress()
        return replace(
            found,
            degrees=found.degrees + len(self._design),
            coefficients=self._coefficients,
            coefficients_stderr=np.sqrt(np.diag(covariance)),
        )

    def _degrees(self) -> float:
        """Effective number of fitted node values, over all maps."""
        local, total = self.local, 0.0
        solver, rng = self._solver(), np.random.Generator(np.random.SFC64(1))
        probes = rng.choice([-1.0, 1.0], size=(local.grid.size, _PROBES))
        probes -= probes.mean(axis=0)
        for p in range(4):
            if p < local.rough.constant or local.hold[p].any():
                total += float(not local.hold[p].any())
                continue
            one = np.zeros((4, *probes.shape))
            one[p] = probes
            solved = solver.solve(one.reshape(-1, _PROBES)).reshape(one.shape)
            total += local.rough.degrees(p, solved[p], probes)
        return total

    def _information_ratio(self) -> Float:
        """Observed information of the exact likelihood over that of the local one (4, 4)."""
        local, step = self.local, 1e-3
        here = Local(local.cells(local.nodes), local.gram)
        hessian = local.hessian(here)
        rng = np.random.Generator(np.random.SFC64(2))
        ratio = np.ones(4)
        count, noise = local.nodes.size, self._log_noise
        for p in range(4):
            if local.hold[p].any():
                continue
            z = np.zeros_like(local.nodes)
            z[p] = 1.0 if p < local.rough.constant else rng.choice([-1.0, 1.0], local.grid.size)
            try:
                up, down = (
                    self.value_and_slope(local.nodes + s * z, noise)[1] for s in (step, -step)
                )
            except SolverError as error:  # a field that the noise leaves nothing of, here or there
                _LOG.info("map %d keeps the information of the local likelihood: %s", p, error)
                continue
            prior = float(np.vdot(z, local.rough.slope(z)))
            exact = float(np.vdot(z.ravel(), (up - down)[:count])) / (2.0 * step) - prior
            expected = float(z.ravel() @ (hessian @ z.ravel())) - prior
            ratio[p] = np.sqrt(np.clip(exact / expected, 0.01, 10.0))
        return np.outer(ratio, ratio)


def _warn_of_bound(fit: LocalFit, seen: NDArray[np.bool_]) -> None:
    """Say so where most of the maps rest on the lower bound."""
    low = np.log(min_kappa2((seen.shape[0], seen.shape[1])))
    share = float(np.mean(fit.log_kappa2[seen] < low + 0.05))
    if share > 0.5:
        warn(
            f"kappa2 is at its lower bound in {100.0 * share:.0f} % of the cells: ranges beyond "
            "what the grid can tell, or fields much smoother than the model at its scale; see "
            'whether method="whittle", which chooses a spacing and patterns, describes them better'
        )

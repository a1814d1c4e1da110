r"""A trained solver of variational interpolation: a ConvLSTM turns gradients into updates.

Each of K iterations takes the gradient of the cost (:mod:`xr_spde.nets.variational_cost`), also
spread by the covariance C of the stationary prior, and where observations are; a ConvLSTM makes of
it fields a and b, and with them the direction ``u = C a + b``. What an observation says reaches a
correlation length in one iteration, where the gradient alone reaches a cell.

With ``update="search"`` (quadratic costs) the two parts, :data:`DIRECTIONS`, are conjugated against
all former ones and followed to the minimum along them, in closed form: the cost falls at every
iteration whatever the network says, on any domain, though the error may rise in more iterations
than were trained. With ``update="decay"`` the network alone decides,
``x <- x - u / (k + 1) - rate (k + 1) / K g``, and with "mean" ``x <- x - u / K``, as in the source.

References
----------
Fablet et al. (2021), J. Adv. Model. Earth Syst. 13; Beauchamp et al. (2025), AIES,
arXiv 2402.01855; Saad (2003), Iterative Methods for Sparse Linear Systems, section 9.4 (flexible
conjugate gradients).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError, unknown
from xr_spde.nets.auto_encoder import BilinearAutoEncoder
from xr_spde.nets.blocks import check_sizes
from xr_spde.nets.convlstm import ConvLSTM, State
from xr_spde.nets.refinement import Refinement
from xr_spde.nets.stationary import BOUNDARIES, constant_theta
from xr_spde.nets.variational_cost import Problem
from xr_spde.nets.variational_window import Window

__all__ = ["DIRECTIONS", "PRECONDITIONERS", "PRIORS", "UPDATES", "VariationalSolver"]

PRIORS = ("auto-encoder", "spde", "both")
"""A learned projection, the SPDE, or the sum of their costs."""

PRECONDITIONERS = ("stationary", "none")
"""Spread gradients by the covariance of the stationary prior, or leave them as they are."""

UPDATES = ("search", "decay", "mean")
"""Lengths of steps: to the minimum; one over their number; one over the number of iterations."""

DIRECTIONS = ("free", "observed")
"""``C (g + a)`` and b; or ``C (g + a)`` and ``C^(1/2) (g + b)`` with a and b at observed cells.

The first learns to lower J most. The second stays near what the minimum is made of, the covariance
of the prior times a field at observed cells: untrained it is a conjugate gradient with two
preconditioners, and its error keeps falling in more iterations than were trained."""

_TINY = 1e-30


class VariationalSolver(nn.Module):
    """Interpolates windows of observations in a fixed number of iterations.

    Parameters
    ----------
    steps : int
        Steps T of a window.
    iterations : int, default 10
        K.
    hidden : int, default 32
        Channels of the memory of the ConvLSTM.
    dropout : float, default 0.0
        Share of its inputs that is dropped in training.
    coarsen : int, default 1
        See `xr_spde.nets.convlstm.ConvLSTM`.
    prior : {"spde", "auto-encoder", "both"}, default "spde"
        See :data:`PRIORS`.
    alpha : {4, 2}, default 4
        Power of the SPDE.
    theta : mapping or sequence, optional
        Constant parameters of the SPDE in cells and steps, of the prior where none are given to
        the solver, and of the preconditioner; see `xr_spde.nets.stationary.constant_theta`.
    boundary : {"neumann", "dirichlet", "periodic"}, default "neumann"
        Of the domain.
    preconditioner : {"stationary", "none"}, default "stationary"
        See :data:`PRECONDITIONERS`.
    update : {"search", "decay", "mean"}, optional
        See :data:`UPDATES`; by default "search" for the SPDE prior and "decay" for the others,
        whose cost is not quadratic.
    rate : float, default 0.0
        Of the plain gradient that "decay" adds.
    parameters : bool, default False
        Whether the network sees the parameters that are given to the solver.
    width : int, default 64
        Features of the auto-encoder.
    refine : int, default 0
        Channels of a residual network (`xr_spde.nets.refinement.Refinement`) after the last
        iteration, for what the prior does not know, such as other decays in time or errors that
        are correlated along tracks; none by default.
    depth : int, default 4
        Its layers.
    truncate : int, optional
        Iterations after which the graph of the training gradient is cut; never by default.
    directions : {"free", "observed"}, default "free"
        See :data:`DIRECTIONS`; "observed" needs a search.

    Attributes
    ----------
    options : dict
        Arguments, JSON-able, from which the solver can be built again.
    lstm : Module
        ``lstm(features, state)`` returns fields and a state.

    Raises
    ------
    ParameterError, UnknownNameError
        For values that cannot be combined, and unknown names.

    Examples
    --------
    >>> import torch
    >>> from xr_spde.nets.variational import VariationalSolver
    >>> from xr_spde.nets.variational_window import Window
    >>> solver = VariationalSolver(3, iterations=4, hidden=8).eval()
    >>> mask = torch.zeros(1, 3, 20, 25, dtype=torch.bool)
    >>> mask[:, :, 10] = True
    >>> sea = torch.ones(1, 20, 25, dtype=torch.bool)
    >>> window = Window(torch.ones(1, 3, 20, 25), mask, torch.full((1, 3, 20, 25), 0.01), sea)
    >>> with torch.no_grad():
    ...     x = solver(window)
    >>> x.shape, bool(solver.cost(x, window) < solver.cost(0 * x, window))
    (torch.Size([1, 3, 20, 25]), True)
    """

    architecture = "4dvarnet"

    def __init__(
        self,
        steps: int,
        *,
        iterations: int = 10,
        hidden: int = 32,
        dropout: float = 0.0,
        coarsen: int = 1,
        prior: str = "spde",
        alpha: int = 4,
        theta: Mapping[str, float] | Sequence[float] | None = None,
        boundary: str = "neumann",
        preconditioner: str = "stationary",
        update: str | None = None,
        rate: float = 0.0,
        parameters: bool = False,
        width: int = 64,
        refine: int = 0,
        depth: int = 4,
        truncate: int | None = None,
        directions: str = "free",
    ) -> None:
        super().__init__()
        check_sizes(steps=steps, iterations=iterations, truncate=truncate or 1)
        update = update or ("search" if prior == "spde" else "decay")
        _check(prior, alpha, boundary, preconditioner, update, directions)
        self.options: dict[str, Any] = {
            "steps": steps, "iterations": iterations, "hidden": hidden, "dropout": dropout,
            "coarsen": coarsen, "prior": prior, "alpha": alpha, "theta": constant_theta(theta),
            "boundary": boundary, "preconditioner": preconditioner, "update": update,
            "rate": float(rate), "parameters": parameters, "width": width, "refine": refine,
            "depth": depth, "truncate": truncate, "directions": directions,
        }  # fmt: skip
        self.spread = preconditioner == "stationary"
        # gradient, observed, sea; gradient spread; logarithms, drift and tensor
        channels = 2 * steps + 1 + (steps if self.spread else 0) + (7 if parameters else 0)
        outputs = 2 * steps if self.spread else steps
        self.lstm: nn.Module = ConvLSTM(channels, hidden, outputs, dropout=dropout, coarsen=coarsen)
        self.projection = None if prior == "spde" else BilinearAutoEncoder(steps, width)
        self.log_weight = nn.Parameter(torch.zeros(())) if self.projection else None
        if refine:
            # fields, innovations and these spread; observed, sea and parameters
            seen = (4 if self.spread else 3) * steps + 1 + (7 if parameters else 0)
            self.refine = Refinement(seen, refine, steps, depth=depth, coarsen=coarsen)

    def problem(self, window: Window, theta: Tensor | None = None) -> Problem:
        """Return the cost of a window, with what is prepared once for it.

        Parameters
        ----------
        window : Window
            Observations.
        theta : Tensor (B, 8, S, ny, nx), optional
            Parameters of the SPDE in cells and steps; the constant ones by default.

        Returns
        -------
        xr_spde.nets.variational_cost.Problem

        Raises
        ------
        ParameterError
            For another number of steps, or a theta of another shape.
        """
        if window.shape[1] != self.options["steps"]:
            raise ParameterError(
                f"the window has {window.shape[1]} steps; this solver takes {self.options['steps']}"
            )
        return Problem(
            window, theta, self.options["theta"], alpha=self.options["alpha"],
            boundary=self.options["boundary"], spde=self.options["prior"] != "auto-encoder",
            projection=self.projection,
            weight=None if self.log_weight is None else self.log_weight.exp(),
        )  # fmt: skip

    def cost(self, x: Tensor, window: Window, theta: Tensor | None = None) -> Tensor:
        """Variational cost of fields; with the SPDE prior, that of optimal interpolation.

        Parameters
        ----------
        x : Tensor (B, T, ny, nx)
            Anomalies.
        window : Window
            Observations.
        theta : Tensor (B, 8, S, ny, nx), optional
            As for :meth:`problem`.

        Returns
        -------
        Tensor (B,)
        """
        return self.problem(window, theta).cost(x)

    def forward(
        self, window: Window, theta: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Interpolate.

        Parameters
        ----------
        window : Window
            Observations, on any grid.
        theta : Tensor (B, 8, S, ny, nx), optional
            As for :meth:`problem`.
        start : Tensor (B, T, ny, nx), optional
            First iterate; by default observations, spread by the covariance if there is a
            preconditioner.

        Returns
        -------
        Tensor (B, T, ny, nx)
            Anomalies, zero on land, in at least single precision. Without gradients under
            ``torch.no_grad()``; there every iteration forgets how it came about.
        """
        with torch.autocast(window.obs.device.type, enabled=False):
            problem = self.problem(window, theta)
            given = self._given(problem)
            weight = self._weight(problem)
            if start is None:
                start = self._interpolated(problem, weight, problem.observed)
            x = problem.sea * start
        search = self.options["update"] == "search"
        x = (self._search if search else self._descend)(problem, x, given)
        return x + self._refined(problem, x, weight, given) if self.options["refine"] else x

    def _weight(self, problem: Problem) -> Tensor:
        """Weight of each observation, over what it shares with its neighbours."""
        seen = problem.window.mask.to(problem.observed.dtype)
        if not self.spread:
            return seen
        noise = problem.window.variance.to(seen.dtype)
        # at least its own variance, where the covariance has negative lobes
        return seen / (torch.maximum(problem.spread(seen), problem.spread_variance()) + noise)

    def _interpolated(self, problem: Problem, weight: Tensor, values: Tensor) -> Tensor:
        """Weighed values at the observations, spread if there is a preconditioner."""
        return problem.spread(weight * values) if self.spread else weight * values

    def _refined(self, problem: Problem, x: Tensor, weight: Tensor, given: Tensor) -> Tensor:
        """Correction of the last iterate from what it leaves of the observations."""
        left = problem.window.mask * (problem.observed - x)
        features = [x, left, given]
        if self.spread:
            with torch.autocast(x.device.type, enabled=False):
                features.insert(2, self._interpolated(problem, weight, left))
        found: Tensor = self.refine(torch.cat(features, 1)).to(x.dtype)
        return problem.sea * found

    def _given(self, problem: Problem) -> Tensor:
        """Features that stay the same: observed, sea and parameters (B, ., ny, nx)."""
        trust = problem.window.mask / (1.0 + problem.window.variance)
        features = [trust.to(problem.sea.dtype), problem.sea]
        if self.options["parameters"]:
            kappa, tau, m1, m2, v1, v2, gamma, beta = problem.theta.mean(2).unbind(1)
            h11, h22, h12 = gamma + beta * v1**2, gamma + beta * v2**2, beta * v1 * v2
            maps = [kappa.log(), tau.log(), m1, m2, h11.log(), h22.log(), h12]
            features.append(problem.sea * torch.stack(maps, 1))
        return torch.cat(features, 1)

    def _fields(
        self, problem: Problem, g: Tensor, given: Tensor, state: State | None
    ) -> tuple[list[Tensor], State]:
        """Directions (B, T, ny, nx) that the network makes of a gradient of unit size."""
        inputs = [g]
        if self.spread:
            wide = problem.scaled(g)
            inputs.append(wide / _rms(wide))
        out, state = self.lstm(torch.cat([*inputs, given], 1), state)
        parts = list(out.to(g.dtype).split(g.shape[1], 1))
        powers = [1.0, 0.0]
        with torch.autocast(g.device.type, enabled=False):
            if self.options["directions"] == "observed":
                seen = problem.window.mask
                parts = [g + seen * parts[0], *(seen * (g + part) for part in parts[1:])]
                powers = [1.0, 0.5]
            elif self.options["update"] == "search" and self.spread:
                parts[0] = g + parts[0]  # a search measures the length of any step
            if self.spread:
                pairs = zip(parts, powers, strict=True)
                parts = [problem.scaled(part, w) if w else part for part, w in pairs]
            return [problem.sea * part for part in parts], state

    def _descend(self, problem: Problem, x: Tensor, given: Tensor) -> Tensor:
        """Follow the network's directions by fixed lengths."""
        graph, state, scale = torch.is_grad_enabled(), None, None
        count, options = self.options["iterations"], self.options
        for k in range(count):
            if not graph or 0 < k == self._last_cut:
                x, state = x.detach(), _detached(state)
            learning = graph and k >= self._last_cut
            with torch.set_grad_enabled(learning):
                g = problem.gradient(x, create_graph=learning)
                scale = _rms(g).detach() if scale is None else scale
                parts, state = self._fields(problem, g / scale, given, state)
                length = 1.0 / (k + 1) if options["update"] == "decay" else 1.0 / count
                x = x - length * torch.stack(parts).sum(0)
                if options["rate"]:
                    x = x - options["rate"] * (k + 1) / count * g
        return x

    def _search(self, problem: Problem, x: Tensor, given: Tensor) -> Tensor:
        """Follow the network's directions to the minimum, each conjugate to all before."""
        graph, state = torch.is_grad_enabled(), None
        known: list[tuple[Tensor, Tensor, Tensor]] = []
        g = problem.gradient(x, create_graph=graph)
        for k in range(self.options["iterations"]):
            if not graph or 0 < k == self._last_cut:
                x, g, state = x.detach(), g.detach(), _detached(state)
                known = [(p.detach(), q.detach(), w.detach()) for p, q, w in known]
            with torch.set_grad_enabled(graph and k >= self._last_cut):
                parts, state = self._fields(problem, g / _rms(g), given, state)
                for part in parts:
                    p, q = part, problem.product(part)
                    for old, pushed, curvature in known:
                        share = _dot(q, old) / curvature
                        p, q = p - share * old, q - share * pushed
                    curvature = _dot(p, q).clamp_min(_TINY)
                    length = _dot(p, g) / curvature
                    x, g = x - length * p, g - length * q
                    known.append((p, q, curvature))
        return x

    @property
    def _last_cut(self) -> int:
        """Iteration before which no gradient of the training reaches."""
        every = self.options["truncate"]
        return (self.options["iterations"] - 1) // every * every if every else 0


def _check(
    prior: str, alpha: int, boundary: str, preconditioner: str, update: str, directions: str
) -> None:
    """Refuse unknown names, and a search where the cost is not quadratic."""
    for kind, given, names in (
        ("prior", prior, PRIORS),
        ("boundary", boundary, BOUNDARIES),
        ("preconditioner", preconditioner, PRECONDITIONERS),
        ("update", update, UPDATES),
        ("directions", directions, DIRECTIONS),
    ):
        if given not in names:
            raise unknown(kind, given, names)
    if alpha not in (2, 4):
        raise unknown("alpha", alpha, ("2", "4"))
    if update == "search" and prior != "spde":
        raise ParameterError(
            f'update="search" with prior={prior!r}: the cost of a learned prior is not quadratic; '
            'give update="decay", or prior="spde"'
        )
    if directions == "observed" and update != "search":
        raise ParameterError(f'directions="observed" with update={update!r}: give update="search"')


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each window (B, 1, 1, 1), never zero."""
    return (x**2).mean((1, 2, 3), keepdim=True).sqrt().clamp_min(_TINY)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Scalar product of each window (B, 1, 1, 1)."""
    return (x * y).sum((1, 2, 3), keepdim=True)


def _detached(state: State | None) -> State | None:
    return None if state is None else (state[0].detach(), state[1].detach())

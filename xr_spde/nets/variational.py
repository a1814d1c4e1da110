r"""A trained solver of variational interpolation: a ConvLSTM turns gradients into updates.

Each of K iterations takes the gradient of the cost (:mod:`xr_spde.nets.variational_cost`), also
spread by the covariance C of the stationary prior, and where observations are; a ConvLSTM makes of
it fields a and b, and with them the direction ``u = C a + b``. What an observation says reaches a
correlation length in one iteration, where the gradient alone reaches a cell.

With ``update="search"`` (quadratic costs) the two parts are conjugated against all former ones and
followed to the minimum along them, in closed form: the cost falls at every iteration whatever the
network says, on any domain, though the error may rise in more iterations than were trained. With
``update="decay"`` the network alone decides,
``x <- x - u / (k + 1) - rate (k + 1) / K g``, and with "mean" ``x <- x - u / K``, as in the source.

References
----------
Fablet et al. (2021), J. Adv. Model. Earth Syst. 13; Beauchamp et al. (2025), AIES,
arXiv 2402.01855; Saad (2003), Iterative Methods for Sparse Linear Systems, section 9.4 (flexible
conjugate gradients).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from xr_spde._core.errors import ParameterError
from xr_spde.nets.auto_encoder import BilinearAutoEncoder
from xr_spde.nets.blocks import check_sizes
from xr_spde.nets.convlstm import ConvLSTM
from xr_spde.nets.refinement import Refinement
from xr_spde.nets.stationary import constant_theta
from xr_spde.nets.variational_cost import Problem
from xr_spde.nets.variational_options import check_names, check_parts
from xr_spde.nets.variational_steps import LearnedSteps
from xr_spde.nets.variational_window import Window

__all__ = ["VariationalSolver"]

_MOST = 8.0
"""Bound of the logarithm of a deviation; untrained it is that of a quarter of it, negative."""


class VariationalSolver(LearnedSteps):
    """Interpolates windows of observations in a fixed number of iterations.

    Parameters
    ----------
    steps : int
        Steps T of a window.
    iterations : int, default 10
        K.
    hidden : int, default 32
        Channels of the memory of the ConvLSTM; 0 for conjugate gradients, without a network.
    dropout : float, default 0.0
        Share of its inputs that is dropped in training.
    coarsen : int, default 1
        See `xr_spde.nets.convlstm.ConvLSTM`.
    prior : {"spde", "auto-encoder", "both"}, default "spde"
        See `xr_spde.nets.variational_options.PRIORS`.
    alpha : {4, 2}, default 4
        Power of the SPDE.
    theta : mapping or sequence, optional
        Constant parameters of the SPDE in cells and steps, of the prior where none are given to
        the solver, and of the preconditioner; see `xr_spde.nets.stationary.constant_theta`.
    boundary : {"neumann", "dirichlet", "periodic"}, default "neumann"
        Of the domain.
    preconditioner : {"stationary", "none"}, default "stationary"
        See `xr_spde.nets.variational_options.PRECONDITIONERS`.
    update : {"search", "decay", "mean"}, optional
        See `xr_spde.nets.variational_options.UPDATES`; by default "search" for the SPDE prior and
        "decay" for the others, whose cost is not quadratic.
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
        Its layers, each of twice the reach of the one before.
    cycle : int, optional
        Layers after which the reach begins anew from one cell; never by default.
    truncate : int, optional
        Iterations after which the graph of the training gradient is cut; never by default.
    directions : {"free", "observed"}, default "free"
        See `xr_spde.nets.variational_options.DIRECTIONS`; "observed" needs a search.
    nodes : int, default 1
        Cells of a side of the squares in whose middles the unknowns of the iterations stand; 2
        makes them four times cheaper, and cells take their values by cubic convolution. Parameters
        stay those of cells.
    times : bool, default False
        Whether observations count at their times within a step (`Window.offset`), linearly between
        the steps, or all at the step itself.
    representation : float, default 0.0
        Standard deviation, in units of the scale, of what is added to the errors of observations.
    deviation : bool, default False
        Whether the network after the last iteration tells the standard deviation of what is left
        too; see :meth:`estimate`.

    Attributes
    ----------
    options : dict
        Arguments, JSON-able, from which the solver can be built again.
    lstm : Module or None
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
        cycle: int | None = None,
        truncate: int | None = None,
        directions: str = "free",
        nodes: int = 1,
        times: bool = False,
        representation: float = 0.0,
        deviation: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(steps=steps, iterations=iterations, truncate=truncate or 1, nodes=nodes)
        update = update or ("search" if prior == "spde" else "decay")
        check_names(prior, alpha, boundary, preconditioner, update, directions)
        check_parts(prior, update, hidden, refine, nodes=nodes, deviation=deviation)
        self.options: dict[str, Any] = {
            "steps": steps, "iterations": iterations, "hidden": hidden, "dropout": dropout,
            "coarsen": coarsen, "prior": prior, "alpha": alpha, "theta": constant_theta(theta),
            "boundary": boundary, "preconditioner": preconditioner, "update": update,
            "rate": float(rate), "parameters": parameters, "width": width, "refine": refine,
            "depth": depth, "cycle": cycle, "truncate": truncate, "directions": directions,
            "nodes": nodes, "times": times, "representation": float(representation),
            "deviation": deviation,
        }  # fmt: skip
        self.spread = preconditioner == "stationary"
        # gradient, observed, sea; gradient spread; logarithms, drift and tensor
        channels = 2 * steps + 1 + (steps if self.spread else 0) + (7 if parameters else 0)
        outputs = 2 * steps if self.spread else steps
        self.lstm = None
        if hidden:
            self.lstm = ConvLSTM(channels, hidden, outputs, dropout=dropout, coarsen=coarsen)
        self.projection = None if prior == "spde" else BilinearAutoEncoder(steps, width)
        self.log_weight = nn.Parameter(torch.zeros(())) if self.projection else None
        if refine:
            # innovations, trust, times; sea and parameters; and fields, where nodes are cells with
            # innovations that were spread
            seen = (3 if times else 2) * steps + 1 + (7 if parameters else 0)
            fields = steps if nodes > 1 or not self.spread else 2 * steps
            self.refine = Refinement(
                seen + (fields if nodes == 1 else 0), refine, (2 if deviation else 1) * steps,
                depth=depth, coarsen=nodes if nodes > 1 else coarsen,
                more=fields if nodes > 1 else 0, cycle=cycle,
            )  # fmt: skip

    def problem(
        self, window: Window, theta: Tensor | None = None, *, nodes: int | None = None
    ) -> Problem:
        """Return the cost of a window, with what is prepared once for it.

        Parameters
        ----------
        window : Window
            Observations.
        theta : Tensor (B, 8, S, ny, nx), optional
            Parameters of the SPDE in cells and steps; the constant ones by default.
        nodes : int, optional
            Cells of a side of the squares of the unknowns; those of the solver by default.

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
        if not self.options["times"]:
            window = replace(window, offset=None)
        return Problem(
            window, theta, self.options["theta"], alpha=self.options["alpha"],
            boundary=self.options["boundary"], spde=self.options["prior"] != "auto-encoder",
            projection=self.projection, nodes=nodes or self.options["nodes"],
            weight=None if self.log_weight is None else self.log_weight.exp(),
            representation=self.options["representation"],
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
        return self.problem(window, theta, nodes=1).cost(x)

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
        start : Tensor (B, T, rows, columns), optional
            First iterate, at nodes; by default observations, spread by the covariance if there is a
            preconditioner.

        Returns
        -------
        Tensor (B, T, ny, nx)
            Anomalies, zero on land, in at least single precision. Without gradients under
            ``torch.no_grad()``; there every iteration forgets how it came about.
        """
        return self.estimate(window, theta, start)[0]

    def estimate(
        self, window: Window, theta: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Interpolate, and tell how sure that is.

        Parameters
        ----------
        window, theta, start
            As for a call.

        Returns
        -------
        mean : Tensor (B, T, ny, nx)
        deviation : Tensor (B, T, ny, nx) or None
            Standard deviation of its errors, for a solver that has learned it (`deviation`).
        """
        return self.refined(*self.searched(window, theta, start))

    def searched(
        self, window: Window, theta: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Problem, Tensor]:
        """Interpolate by the iterations alone.

        Parameters
        ----------
        window, theta, start
            As for a call.

        Returns
        -------
        problem : xr_spde.nets.variational_cost.Problem
        x : Tensor (B, T, rows, columns)
            Last iterate, at nodes.
        """
        with torch.autocast(window.obs.device.type, enabled=False):
            problem = self.problem(window, theta)
            if start is None:
                start = self._interpolated(problem, problem.observed)
            x = problem.sea * start
        search = self.options["update"] == "search"
        given = self._given(problem, problem.window)
        return problem, (self._search if search else self._descend)(problem, x, given)

    def refined(self, problem: Problem, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Correct the last iterate from what it leaves of the observations.

        Parameters
        ----------
        problem : xr_spde.nets.variational_cost.Problem
            Of the window.
        x : Tensor (B, T, rows, columns)
            At nodes, as from :meth:`searched`.

        Returns
        -------
        mean, deviation
            As from :meth:`estimate`.
        """
        window, kind = problem.given, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            mean = problem.cells(x)
            left = window.mask * (problem.values - problem.observe(x))
        if not self.options["refine"]:
            return mean, None
        features, more = [left, self._given(problem, window)], None
        if self.options["times"]:
            offset = window.offset
            features.append(torch.zeros_like(left) if offset is None else offset.to(kind))
        if self.options["nodes"] > 1:
            more = x
        else:
            features.insert(0, mean)
            if self.spread:
                with torch.autocast(x.device.type, enabled=False):
                    features.insert(2, self._interpolated(problem, left))
        found = self.refine(torch.cat(features, 1), more).to(kind)
        sea = window.sea[:, None]
        if not self.options["deviation"]:
            return mean + sea * found, None
        found, log = found.chunk(2, 1)
        return mean + sea * found, sea * (log.clamp(-_MOST, _MOST) - _MOST / 4.0).exp()

    def _interpolated(self, problem: Problem, values: Tensor) -> Tensor:
        """Values at the observations, spread if there is a preconditioner.

        Each has a weight over what it shares with its neighbours, at least its own variance, where
        the covariance has negative lobes.
        """
        seen = problem.window.mask.to(problem.observed.dtype)
        if not self.spread:
            return seen * values
        noise = problem.window.variance.to(seen.dtype)
        shared = torch.maximum(problem.spread(seen), problem.spread_variance())
        return problem.spread(seen / (shared + noise) * values)

    def _given(self, problem: Problem, window: Window) -> Tensor:
        """Features that stay the same: trust in observations, sea and parameters (B, ., ny, nx)."""
        level = self.options["representation"] ** 2 or 1.0
        trust = window.mask / (1.0 + window.variance / level)
        sea = window.sea[:, None]
        features = [trust.to(problem.sea.dtype), sea.to(problem.sea.dtype)]
        if self.options["parameters"]:
            kappa, tau, m1, m2, v1, v2, gamma, beta = problem.theta.mean(2).unbind(1)
            h11, h22, h12 = gamma + beta * v1**2, gamma + beta * v2**2, beta * v1 * v2
            maps = torch.stack([kappa.log(), tau.log(), m1, m2, h11.log(), h22.log(), h12], 1)
            if maps.shape[-2:] != sea.shape[-2:]:
                maps = problem.cells(maps)
            features.append(sea * maps)
        return torch.cat(features, 1)
